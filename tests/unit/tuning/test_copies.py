"""Exact results are computed for a few entries of the batch, and hold for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attndsl.cascade.nodes import DType
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.tuning.compiling import load
from attndsl.tuning.copies import copies_of, once, repeated, separate, summed
from attndsl.tuning.machine import MACHINES
from attndsl.tuning.measuring import Bench, rms
from attndsl.tuning.tune import posed, sizes_at

EXAMPLES = Path(__file__).parents[3] / "examples"


def cascade(name: str):
    (c, *_) = load_cascades(read_source(EXAMPLES / f"{name}.attn"))
    return c


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("causal", ["b", "h"]),
        ("transformer_xl", ["b", "h"]),
        ("gqa", ["b"]),  # K[b,h//G,…]: which head it is says whose keys are read
        ("talking_heads", ["b"]),  # a sum over heads
    ],
)
def test_which_indices_can_repeat(name: str, expected: list[str]) -> None:
    assert separate(cascade(name)) == expected


def test_two_entries_are_left_where_there_are() -> None:
    assert copies_of(cascade("causal"), {"b": 4, "h": 16, "i": 64}) == {"b": 2, "h": 8}
    assert copies_of(cascade("causal"), {"b": 3, "h": 1}) == {"b": 3}
    assert once({"b": 4, "h": 16, "i": 64}, {"b": 2, "h": 8}) == {"b": 2, "h": 2, "i": 64}


def test_what_lacks_an_index_is_summed_over_its_copies() -> None:
    copies = {"b": 2, "h": 8}
    assert summed(("h", "e"), copies) == 2
    x = torch.arange(6.0).view(2, 3)
    assert repeated(x, ("h", "e"), copies).shape == (16, 3)
    assert torch.equal(repeated(x, ("h", "e"), copies)[2:4], x)


@pytest.mark.parametrize("name", ["transformer_xl", "gqa", "softcap"])
@pytest.mark.parametrize("launcher", ["forward", "backward"])
def test_exact_results_are_those_of_all_inputs(name: str, launcher: str) -> None:
    c = cascade(name)
    given = {"b": 4, "h": 8, "i": 24, "j": 24, "e": 16, "f": 16, "r": 24}
    names = {r.name for r in c.ranks}
    at = sizes_at(c, {k: n for k, n in given.items() if k in names})
    floats = tuple(t.name for t in c.inputs if t.dtype is DType.FLOAT)
    problem = next(
        p for p in posed(c, at, "fp32", MACHINES["H100"], floats) if p.launcher == launcher
    )
    bench = Bench(problem)
    assert bench.copies
    assert all(bench.inputs[t.name].numel() >= bench.one[t.name].numel() for t in c.inputs)
    wide = {n: x.double() if x.is_floating_point() else x for n, x in bench.inputs.items()}
    run = getattr(load(str(problem.eager)), launcher)
    for n, x in run(wide, problem.extents, problem.params, bench.tiles()).items():
        if n in bench.exact:
            assert bench.exact[n].shape == x.shape
            assert rms(bench.exact[n], x) <= 1e-12 * max(1.0, rms(x)), n
