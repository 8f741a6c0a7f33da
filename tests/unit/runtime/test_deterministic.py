"""`deterministic=False`: who may add up in memory, and when a call does, without a card."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import attndsl
from attndsl.runtime import replay
from attndsl.runtime.cache import load_module
from attndsl.runtime.stages import Stage
from attndsl.runtime.watching import Watch
from attndsl.tuning.compiling import Cross

EXAMPLES = Path(__file__).parents[3] / "examples"
LARGE = {"b": 4, "h": 16, "i": 4096, "j": 4096, "e": 128, "f": 128}
WRT = ("Q", "K", "V")


def operator(example: str, deterministic: bool, backend: str = "auto") -> Any:
    return attndsl.load(EXAMPLES / f"{example}.attn", backend=backend, deterministic=deterministic)


def stage(example: str, deterministic: bool, backend: str = "auto") -> Stage:
    made: Stage = operator(example, deterministic, backend)._engine.stage("none", WRT, backend)
    return made


@pytest.fixture
def forbidden() -> Iterator[None]:
    """PyTorch has been told to be deterministic."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("backend", ["auto", "triton", "eager"])
def test_nothing_is_added_unasked(backend: str) -> None:
    assert "backward_added" not in stage("causal", True, backend).text


@pytest.mark.parametrize("backend", ["triton", "eager"])
def test_only_kernels_whose_warps_specialise_add(backend: str) -> None:
    assert stage("causal", False, backend).passes.adding is None


def test_a_program_whose_kernels_make_other_summands_has_no_such_pass() -> None:
    """ALiBi's bias is split at each kernel's own tile."""
    assert stage("alibi", False).passes.adding is None


def launched(example: str, monkeypatch: pytest.MonkeyPatch, adding: bool, **sizes: int) -> str:
    """The function of the module that serves a backward pass on Hopper."""
    from triton.runtime import driver

    monkeypatch.setattr(driver, "_active", Cross(90))
    made = stage(example, False)
    extents = LARGE | sizes
    long = [extents[x] for x in "bhie"]
    x = {
        n: torch.empty(long, dtype=torch.bfloat16, device="meta") for n in (*WRT, "O", "L_S", "dO")
    }
    called: list[str] = []

    def run(name: str, *rest: Any) -> dict[str, torch.Tensor]:
        called.append(name)
        return dict.fromkeys(made.passes.gradients.values(), x["Q"])

    made.backward(x, {"O": x["dO"]}, extents, {}, None, run, adding)
    return called[0]


@pytest.mark.parametrize("d", [64, 128])
def test_a_long_call_adds(monkeypatch: pytest.MonkeyPatch, d: int) -> None:
    assert launched("full", monkeypatch, True, e=d, f=d) == "backward_added"
    assert launched("full", monkeypatch, False, e=d, f=d) == "backward"


def test_a_call_that_was_slower_so_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched("full", monkeypatch, True, i=512, j=512) == "backward"
    assert launched("window", monkeypatch, True) == "backward"


def test_pytorch_may_forbid_it(forbidden: None) -> None:
    assert not operator("causal", False)._engine.may_add()


def test_what_was_launched_before_is_not_taken_once_forbidden() -> None:
    """Both kinds of backward passes are kept, each under its own key."""
    engine = operator("causal", False)._engine
    assert engine.may_add()
    x = [torch.zeros(1, 1, 8, 16)] * 3

    def kept() -> tuple[Any, Any]:
        key = engine.brought(x, attndsl.runtime.engine.Start(), (), "Q,K,V", x, [x[0]])[1]
        return key, engine.recent_gradients("Q,K,V", (), [x[0]])

    free = kept()
    torch.use_deterministic_algorithms(True)
    try:
        bound = kept()
    finally:
        torch.use_deterministic_algorithms(False)
    assert free[0] != bound[0]
    assert free[1] is not bound[1]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_copy_is_as_deterministic(deterministic: bool) -> None:
    again = pickle.loads(pickle.dumps(operator("causal", deterministic)))
    assert again._engine.deterministic == deterministic


def test_a_decorated_function_takes_it() -> None:
    @attndsl.attention_spec(batch="b", deterministic=False)
    def plain(
        Q: attndsl.Tensor[b, i, e],  # noqa: F821
        K: attndsl.Tensor[b, j, e],  # noqa: F821
        V: attndsl.Tensor[b, j, f],  # noqa: F821
    ):  # type: ignore[no-untyped-def]
        S[i, j] = Q[i, e] * K[j, e]  # noqa: F821
        O[i, f] = softmax[j](S[i, j]) * V[j, f]  # noqa: F821
        return O  # noqa: F821

    assert not plain._engine.deterministic


def test_a_list_of_tiles_is_the_same_in_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels that share a list, and a replay that brings it again."""
    text = (
        "import torch\nKERNELS = {'a': {'arguments': []}, 'b': {'arguments': []}}\n"
        "LIST = torch.arange(3)\ndef turns_of():\n    return LIST\n"
        "def forward(inputs):\n"
        "    o = torch.empty((1,), dtype=inputs['x'].dtype, device=inputs['x'].device)\n"
        "    a[(1,)](inputs['x'], turns_of(), o)\n    b[(1,)](inputs['x'], turns_of(), o)\n"
        "    return {'o': o}\n"
    )
    module: Any = load_module(text, "listed_watched")
    ran: list[Any] = []
    compiled = SimpleNamespace(
        packed_metadata=(), function="f", run=lambda x, y, z, stream, *rest: ran.append(rest)
    )

    class Kernel:
        arg_names = ("x", "turns", "o")

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda x, turns, o: compiled

    module.a = module.b = Kernel()
    knobs = SimpleNamespace(launch_enter_hook=None, launch_exit_hook=None)
    monkeypatch.setattr(replay, "_triton", lambda: (knobs, lambda device: 0))
    x = torch.zeros(1)
    watch = Watch(module)
    made = watch("forward", {"x": x})
    again = watch.replay([x], [made["o"]], moving=False)
    assert again is not None
    again([torch.ones(1)], 0)
    assert [rest[-2] for rest in ran] == [module.LIST.data_ptr()] * 2
