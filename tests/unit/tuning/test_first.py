"""What runs where nothing was measured: the model's choice, where it expects more than its own error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attndsl.cascade.nodes import DType
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.runtime import tuned
from attndsl.tuning import first
from attndsl.tuning.database import Entry
from attndsl.tuning.keys import key_of
from attndsl.tuning.machine import MACHINES
from attndsl.tuning.problem import Problem, hash_of, planned
from attndsl.tuning.space import default
from attndsl.tuning.store import Store
from attndsl.tuning.tune import posed, sizes_at

ROOT = Path(__file__).parents[3]
H100, H200, A100 = (MACHINES[n] for n in ("H100", "H200", "A100"))
BIASED = "bias_dense_backward_dK_dV"


def cascade(name: str = "bias_dense"):
    return load_cascades(read_source(ROOT / "examples" / f"{name}.attn"))[0]


def problems(name: str = "bias_dense", dtype: str = "bf16", **given: int) -> list[Problem]:
    c = cascade(name)
    floats = tuple(t.name for t in c.inputs if t.dtype is DType.FLOAT)
    return posed(c, sizes_at(c, given), dtype, H100, floats)


def choices(found: list[Problem], machine=H100) -> dict[str, tuple[object, object]]:
    """By kernel, the choice and the module's own."""
    return {
        k.name: (
            first.first_choice(k, p.extents, p.usual, p.itemsize, machine),
            default(k, p.extents, p.itemsize, machine),
        )
        for p in found
        for k in p.kernels
    }


def test_a_gain_that_the_model_is_sure_of_is_taken() -> None:
    """The module's own tiles hold too much of a dense bias: 7.6 ms on an H200 where others take 3.2."""
    chosen, own = choices(problems())[BIASED]
    assert chosen != own


def test_a_small_gain_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first, "GAIN", 1e9)
    assert all(chosen == own for chosen, own in choices(problems()).values())


@pytest.mark.parametrize(("dtype", "machine"), [("fp32", H100), ("bf16", A100)])
def test_where_the_model_was_not_fitted_the_module_decides(dtype: str, machine: object) -> None:
    assert all(chosen == own for chosen, own in choices(problems(dtype=dtype), machine).values())


def test_a_chunk_is_the_walk_s_that_it_is_made_for() -> None:
    found = choices(problems("gla"))
    ahead = {n: c for n, c in found.items() if n.endswith("_ahead")}
    assert ahead
    assert all(chosen == own for chosen, own in ahead.values())


@pytest.mark.parametrize("name", ["linear", "stick_breaking", "transformer_xl", "standardised"])
def test_what_the_model_knows_too_little_of_is_the_module_s(name: str) -> None:
    """States, running sums, other rows: measured, its choices were as often slower as faster."""
    assert all(chosen == own for chosen, own in choices(problems(name)).values())


def test_lengths_and_the_card_s_name_change_nothing() -> None:
    """A new length would compile, and what was built ahead of calls would not be what they run."""
    at = [choices(problems(i=n, j=n, b=1)) for n in (512, 16384)]
    assert at[0] == at[1]
    assert choices(problems(), H200) == choices(problems())


# --- in calls ---


@pytest.fixture
def look_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The configurations of a call on an H100 that is not there, with these entries."""

    def found(entries: list[Entry], length: int = 4096) -> dict[str, dict[str, int]]:
        mine = Store([], tmp_path / "none.jsonl")
        mine.own.update((e.key, e) for e in entries)
        monkeypatch.setattr(tuned, "store", lambda: mine)
        monkeypatch.setattr(tuned, "machine_at", lambda device: H100)
        monkeypatch.setattr(tuned, "gpu_name", lambda device: "H100")
        monkeypatch.setattr(tuned, "triton_version", lambda: "3.6.0")
        c = cascade()
        floats = tuple(t.name for t in c.inputs)
        made = planned(c, "none", floats, "auto")
        at = sizes_at(c, {"i": length, "j": length})
        inputs = {
            n: torch.empty(shape, dtype=torch.bfloat16, device="meta")
            for n, shape in at.shapes.items()
        }
        extents = made.stage.extents(at.extents, at.params)
        monkeypatch.setattr(made.stage, "few", None)
        return tuned.look_up(c, made.stage, inputs, extents) or {}

    return found


def test_calls_run_what_a_search_would_try_first(look_up) -> None:
    wanted = {n: c for n, (c, own) in choices(problems()).items() if c != own}
    assert look_up([]) == wanted
    assert BIASED in wanted


def test_an_entry_goes_before_the_model(look_up) -> None:
    tiles = {"BLOCK_J": 32, "BLOCK_I": 32, "num_warps": 4, "num_stages": 2}
    (kernel,) = (k for p in problems() for k in p.kernels if k.name == BIASED)
    (problem,) = (p for p in problems() if p.launcher == "backward")
    key = key_of(kernel, hash_of(cascade()), problem.extents, problem.floats(), "H100")
    assert look_up([Entry(key, tiles, 1.0, 2.0, "3.6.0")])[BIASED] == tiles
