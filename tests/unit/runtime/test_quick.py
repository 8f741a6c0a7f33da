"""The shortest way into a compiled kernel hands over what Triton's own way does: on machine code, without a card."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.runtime import replay, watching
from attndsl.runtime.launches import Launch
from attndsl.runtime.quick import Quick
from attndsl.tuning.compiling import Cross

EXAMPLES = Path(__file__).parents[3] / "examples"
TILES = ("tiles", "descriptor")
EXTENTS = {"b": 4, "h": 16, "i": 4096, "j": 4096, "e": 128, "f": 128}

triton_driver = pytest.importorskip("triton.backends.nvidia.driver")
if not hasattr(triton_driver, "wrap_handle_tensordesc"):
    pytest.skip("this Triton takes descriptions otherwise", allow_module_level=True)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What reaches Triton's launchers, of kernels that are compiled for a Hopper card that is not there."""
    from triton.runtime import driver

    out: list[tuple[Any, ...]] = []
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(driver, "_active", Cross(90))

    def tensor_map(described: Any, meta: Any) -> list[Any]:
        tiles = (described.base.data_ptr(), meta["swizzle"], tuple(meta["block_size"]))
        return [tiles, *described.shape, *described.strides]

    def compiled(launch: Launch) -> Any:
        made = launch.kernel.warmup(*launch.positional, grid=launch.grid, **launch.keyword)
        metas = getattr(made.metadata, "tensordesc_meta", None)
        wrapped = triton_driver.wrap_handle_tensordesc(
            lambda *a: out.append(a), dict(made.src.signature), metas
        )
        run = SimpleNamespace(
            launch=wrapped,
            global_scratch_size=made.metadata.global_scratch_size,
            profile_scratch_size=made.metadata.profile_scratch_size,
            launch_cooperative_grid=made.metadata.launch_cooperative_grid,
            launch_pdl=made.metadata.launch_pdl,
        )
        packed = (made.metadata.num_warps, made.metadata.shared)
        done = SimpleNamespace(run=run, function=made.hash, packed_metadata=packed)
        # As Triton launches, which knows nothing of replays.
        fn, between = watching._launching(done)
        x, y, z = (*launch.grid, 1, 1)[:3]
        fn(x, y, z, 7, *between, *map(_address, launch.arguments()))
        return done

    monkeypatch.setattr(triton_driver, "make_tensordesc_arg", tensor_map)
    monkeypatch.setattr(watching, "run", compiled)
    knobs = SimpleNamespace(launch_enter_hook=None, launch_exit_hook=None)
    monkeypatch.setattr(replay, "_triton", lambda: (knobs, lambda device: 7))
    return out


def _address(x: Any) -> Any:
    return x.data_ptr() if isinstance(x, Tensor) else x


@pytest.mark.parametrize(("backend", "kernel"), [("triton", "causal"), ("auto", "causal_hopper")])
def test_it_hands_over_the_same(launched: list[tuple[Any, ...]], backend: str, kernel: str) -> None:
    op = attndsl.load(EXAMPLES / "causal.attn", backend=backend)
    stage = op._engine.stage("none", (), backend)
    shapes = {"Q": "bhie", "K": "bhje", "V": "bhjf"}
    given = {
        n: torch.empty([EXTENTS[r] for r in s], dtype=torch.bfloat16, device="meta")
        for n, s in shapes.items()
    }
    watch = watching.Watch(stage.module)
    made = watch("forward", given, EXTENTS, {}, None)
    assert [name for name, done in watch.done if isinstance(done, Launch)] == [kernel]
    again = watch.replay(list(given.values()), list(made.values()), False)
    assert again is not None
    (step,) = again.short
    assert isinstance(step, Quick)
    assert step.maps, "there is no tensor map to compare"
    # Without memory all addresses are the same: whose they are is compared with the table of arguments.
    names = dict(enumerate((*given, *made)))
    whose = [of.split()[0] for _, kind, of in watch.table[kernel]["arguments"] if kind in TILES]
    assert [names.get(which) for _, which, _ in step.maps] == whose
    again(list(given.values()), 0)
    before, after = launched
    assert after == before
