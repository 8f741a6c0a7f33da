"""Roots: exact on every kind of row, for any monotone equation, found within the rounds that the program allows."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attndsl.cascade.interpreter import interpret
from attndsl.schedule import plan_forward
from attndsl.schedule.tile import Rounds
from attndsl.testing import error_budget
from tests.unit.schedule.harness import draw, kernels, load, run

ROWS = (
    "attention t(S[b,i,j], V[b,j,f]{more}) -> O[b,i,f], t[b,i] {{\n  batch b\n  M[i] = max[j](S[i,j])\n"
    "  t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j]({body}) == 1, iters={iters})\n"
    "  W[i,j] = {weight}\n  O[i,f] = W[i,j] * V[j,f]\n}}"
)


def entmax(power: float, iters: int = 12) -> str:
    body = f"relu(S[i,j] - x)**{power}"
    return ROWS.format(body=body, iters=iters, weight=body.replace("x)", "t[i])"), more="")


def check(text: str, inputs: Mapping[str, Tensor]) -> None:
    """The eager kernels in float32, against the exact roots.

    A threshold may be off by the rounding of its equation's sum, whose slope is at least 1, and its own; outputs by
    what a dense bisection in float32 errs, where the threshold is not so large that its rounding decides.
    """
    cascade = load(text)
    plan = plan_forward(cascade)
    narrow = {n: x.float() for n, x in inputs.items()}
    exact = interpret(cascade, {n: x.double() for n, x in narrow.items()})
    dense = interpret(cascade, narrow)
    for name, out in run(plan, cascade, narrow, tiles={"i": 8, "j": 32}).items():
        if name == "t":
            off = (out.double() - exact[name]).abs() / (1 + exact[name].abs())
            assert float(off.max()) <= 4 * torch.finfo(torch.float32).eps
        elif name in exact and float(exact["t"].abs().max()) < 4:
            budget = error_budget(exact[name], dense[name], torch.float32)
            budget.check(name, out, exact[name])


@pytest.mark.parametrize("power", [1, 1.5, 2, 3])
@pytest.mark.parametrize("offset", [0.0, 1.7])
def test_flat_rows(power: float, offset: float) -> None:
    """All scores equal: the weights are tiny, and so is the distance of the threshold from the scores."""
    inputs = draw(load(entmax(power)), {"b": 1, "i": 3, "j": 16384, "f": 4})
    check(entmax(power), {**inputs, "S": torch.full_like(inputs["S"], offset)})


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([1, 1.5, 2, 4, 8]),
    st.sampled_from([1e-3, 0.1, 1.0, 30.0, 1e4]),
    st.sampled_from([0.0, 300.0, -300.0]),
    st.integers(1, 300),
    st.booleans(),
    st.integers(0, 100),
)
def test_rows_of_all_kinds(
    power: float, scale: float, offset: float, n: int, ties: bool, seed: int
) -> None:
    inputs = draw(load(entmax(power)), {"b": 2, "i": 3, "j": n, "f": 4}, seed)
    scores = inputs["S"].round() if ties else inputs["S"]
    check(entmax(power), {**inputs, "S": scores * scale + offset})


EQUATIONS = {
    "a rising side": ("sum[j](exp(x - S[i,j])) == 2.5", "M[i] - 9", "M[i] + 9"),
    "the unknown on the right": ("3 == sum[j](sigmoid(S[i,j] - x))", "M[i] - 50", "M[i] + 50"),
    "the unknown on both sides": ("sum[j](relu(S[i,j] - x)) == exp(x)", "M[i] - 90", "M[i]"),
    "two sums": ("sum[j](relu(S[i,j] - x)) == 1 + sum[j](exp(x - 5) * v[j]**2)", "-20", "20"),
    "no slope": ("sum[j](floor(S[i,j] * 50 - 50 * x)) == 2000", "-99", "99"),
    "a filter": ("sum[j : j <= i](relu(S[i,j] - x)**2) == 1", "-9", "9"),
    "no sum over keys": ("x**3 + exp(x) == v[i]", "-30", "30"),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations(name: str) -> None:
    equation, lo, hi = EQUATIONS[name]
    text = (
        "attention t(S[b,i,j], v[b,j]) -> t[b,i], U[b,i] {\n  batch b\n  M[i] = max[j](S[i,j])\n  U[i] = M[i] * v[i]\n"
        f"  t[i] = solve[x : {lo} <= x <= {hi}]({equation}, iters=60)\n}}"
    )
    cascade = load(text)
    inputs = draw(cascade, {"b": 2, "i": 40, "j": 40})
    exact = interpret(cascade, inputs)
    made = run(plan_forward(cascade), cascade, inputs, tiles={"i": 16, "j": 16})
    tolerance = 0.02 if name == "no slope" else 1e-9  # a stair's root is any point of a step
    torch.testing.assert_close(made["t"], exact["t"], rtol=tolerance, atol=tolerance)


def test_rows_of_nothing() -> None:
    """A row without keys has no threshold: minus infinity, and weights that are 0."""
    text = entmax(2).replace("max[j](S", "max[j : j < i](S").replace("sum[j](", "sum[j : j < i](")
    text = text.replace("  O[i,f] = W", "  O[i,f] = sum[j : j < i](W").replace(
        "V[j,f]\n}", "V[j,f])\n}"
    )
    cascade = load(text)
    inputs = draw(cascade, {"b": 1, "i": 20, "j": 20, "f": 4})
    made = run(plan_forward(cascade), cascade, inputs)
    assert made["t"][0, 0] == float("-inf")
    exact = interpret(cascade, inputs)
    torch.testing.assert_close(made["O"], exact["O"])


def test_a_root_inside_an_expression() -> None:
    text = (
        "attention t(S[b,i,j], V[b,j,f]) -> O[b,i,f] {\n  batch b\n  M[i] = max[j](S[i,j])\n"
        "  O[i,f] = relu(S[i,j] - solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x)) == 1)) * V[j,f]\n}"
    )
    cascade = load(text)
    inputs = draw(cascade, {"b": 2, "i": 20, "j": 20, "f": 4})
    made = run(plan_forward(cascade), cascade, inputs)
    torch.testing.assert_close(made["O"], interpret(cascade, inputs)["O"])


def test_few_rounds() -> None:
    """The cap of the program is the kernel's, and flat or random rows need few of them."""
    (*_, found, _) = kernels(plan_forward(load(entmax(2, iters=5))))
    assert isinstance(found.rounds, Rounds)
    assert found.rounds.count == 5
    inputs = draw(load(entmax(2)), {"b": 1, "i": 30, "j": 2000, "f": 4})
    check(entmax(2, iters=6), inputs)
