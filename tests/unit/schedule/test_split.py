"""Split keys: the states of slices combine to those of the whole, however the keys are cut."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade
from attndsl.schedule import Plan
from attndsl.schedule.split import ROWS, SPLIT, plan_split
from tests.unit.schedule.harness import draw, load, run

SOFTMAX = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,j]) -> O[b,i,f], L[b,i] {{
  batch b
  S[i,j] = Q[i,e] * K[j,e] + u[j]{}
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
  L[i] = logsumexp[j](S[i,j])
}}"""

# Two maxima that correct one sum, a sum that needs no correction, and extremes.
STATES = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,j]) -> O[b,i,f], A[b,i], N[b,i], X[b,i] {
  batch b
  S[i,j] = Q[i,e] * K[j,e] + u[j]
  T[i,j] = Q[i,e] * abs(K[j,e]) - u[j]
  M[i] = max[j](S[i,j])
  R[i] = max[j](T[i,j])
  O[i,f] = sum[j](exp(S[i,j] - M[i]) * exp(T[i,j] - R[i]) * V[j,f])
  A[i] = sum[j](abs(S[i,j]))
  N[i] = min[j](S[i,j])
  X[i] = M[i] - R[i]
}"""

EXTENTS = {"b": 2, "i": 3, "j": 40, "e": 4, "f": 4}


@cache
def planned(text: str) -> tuple[Cascade, Plan]:
    cascade = load(text)
    plan = plan_split(cascade)
    assert plan is not None
    return cascade, plan


def slices(
    text: str, inputs: dict[str, Tensor], count: int, params: dict[str, int] | None = None
) -> dict[str, Tensor]:
    cascade, plan = planned(text)
    extra = {SPLIT: count}
    if any(ROWS in b.ranks for b in plan.buffers):
        extra[ROWS] = EXTENTS["i"]
    return run(plan, cascade, inputs, params, extra=extra, tiles={"i": 4, "j": 4, ROWS: 4})


def agree(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    for name, x in want.items():
        torch.testing.assert_close(got[name], x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("text", [SOFTMAX.format(""), STATES])
def test_any_number_of_slices(text: str, count: int) -> None:
    """Slices of unequal length, of one tile, and (20 slices of 10 tiles) empty ones."""
    inputs = draw(load(text), EXTENTS)
    agree(slices(text, inputs, count), interpret(load(text), inputs, start=0))


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("text", [SOFTMAX.format(""), STATES])
def test_slices_whose_scores_are_far_apart(text: str, count: int) -> None:
    """Offsets of ±300 between blocks of keys: a factor of `exp(600)` either way must neither overflow nor be lost."""
    inputs = draw(load(text), EXTENTS)
    for pattern in ([1, -1], [-1, 1], [0, 1, -1, 1], [-1, -1, 0, 1]):
        offsets = torch.tensor(pattern, dtype=torch.float64).repeat_interleave(40 // len(pattern))
        inputs["u"] = 300 * offsets.expand(2, 40).contiguous()
        got = slices(text, inputs, count)
        assert all(x.isfinite().all() for x in got.values())
        agree(got, interpret(load(text), inputs, start=0))


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize(
    "where", ["j < 2 * i", "j > 30 + 4 * i", "j > 100", "i == 1, j == 39", "j // 8 == i"]
)
def test_slices_and_rows_that_see_nothing(where: str, count: int) -> None:
    text = SOFTMAX.format(f"   where {where}")
    inputs = draw(load(text), EXTENTS)
    agree(slices(text, inputs, count), interpret(load(text), inputs, start=0))


@pytest.mark.parametrize("count", [2, 4])
def test_the_order_of_slices_does_not_matter(count: int) -> None:
    """Whole slices of keys change places: the same sums, added in another order."""
    text = SOFTMAX.format("")
    inputs = draw(load(text), EXTENTS)
    inputs["u"] = torch.linspace(-300, 300, 40, dtype=torch.float64).expand(2, 40).contiguous()
    blocks = torch.arange(40).reshape(4, 10)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        moved = dict(inputs)
        for name in ("K", "V", "u"):
            moved[name] = inputs[name][:, blocks[order].flatten()].contiguous()
        agree(slices(text, moved, count), interpret(load(text), inputs, start=0))


def test_memory_is_that_of_the_states() -> None:
    """Between the kernels lie states by slice: nothing with a rank of keys."""
    _, plan = planned(STATES)
    parts = [b for b in plan.buffers if b.kind.value == "temp"]
    assert parts
    assert all(b.ranks[0] == SPLIT and "j" not in b.ranks for b in parts)
    assert len(plan.steps) == 2


def test_two_sweeps_do_not_split() -> None:
    text = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
      batch b
      S[i,j] = Q[i,e] * K[j,e]
      N[i] = sum[j](S[i,j]**2)
      O[i,f] = sum[j](exp(S[i,j] / (1 + N[i])) * V[j,f])
    }"""
    assert plan_split(load(text)) is None


@pytest.mark.parametrize(
    "body",
    [
        "L[i,j] = sum[l : j < l](logsigmoid(-S[i,l]))\n  O[i,f] = exp(L[i,j]) * V[j,f]",
        "L[i,j] = sum[l : l <= j](relu(S[i,l]))\n  O[i,f] = tanh(L[i,j]) * V[j,f]",
        "P[i,j] = softmax[j](S[i,j])\n  L[i,j] = sum[l : l <= j](P[i,l])\n"
        "  O[i,f] = P[i,j] * L[i,j] * V[j,f]",
    ],
)
def test_scans_do_not_split(body: str) -> None:
    """The keys beside a key may lie in another slice."""
    text = f"""attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {{
      batch b
      S[i,j] = Q[i,e] * K[j,e]
      {body}
    }}"""
    assert plan_split(load(text)) is None
