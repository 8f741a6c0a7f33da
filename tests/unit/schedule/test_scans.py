"""Scans along the keys of each row: carried from tile to tile, up or down, with gradients of rows and of columns."""

from __future__ import annotations

import random

import pytest

import attndsl
from attndsl.cascade.autodiff import differentiate
from attndsl.schedule import plan_backward, plan_forward
from attndsl.schedule.tile import Scatter, TileProgram
from attndsl.testing import assert_close_to_reference, make_inputs
from tests.unit.schedule.harness import kernels, load
from tests.unit.schedule.test_sequences import check

TEXT = (
    "attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,i], w: int, n: int) -> {output} {{\n  batch b\n"
    "  S[i,j] = Q[i,e] * K[j,e]{domain}\n  X[i,j] = sum[l : {order}]({term})\n  {result}\n}}"
)
ORDERS = [
    "j < l",
    "j <= l",
    "l < j",
    "l <= j",
    "l > j and l < i",
    "j < l < i",
    "l <= j and i - w < l",
    "j >= l",
]
TERMS = ["logsigmoid(-S[i,l])", "S[i,l]**2", "0.1 * S[i,l]", "sigmoid(S[i,l]) * u[i]"]
RESULTS = [
    ("O[b,i,f]", "O[i,f] = exp(logsigmoid(S[i,j]) + X[i,j] / 8) * V[j,f]"),
    ("O[b,i,f]", "O[i,f] = sigmoid(X[i,j]) * V[j,f]"),
    (
        "O[b,i,f], Z[b,i]",
        "Z[i] = sum[j](tanh(X[i,j]))\n  O[i,f] = softmax[j](S[i,j] + tanh(X[i,j])) * V[j,f]",
    ),
    (
        "O[b,i,f]",
        "Y[i,j] = sum[m : j < m](tanh(X[i,m]))\n  O[i,f] = sigmoid(X[i,j] + Y[i,j]) * V[j,f]",
    ),
]
DOMAINS = [
    "",
    "   where j < i",
    "   where j <= i",
    "   where i - w < j <= i",
    "   where j <= i or j < n",
]


def programs() -> list[tuple[str, int, int, int]]:
    """Programs at random, the same in every run."""
    choose = random.Random(0)
    out = []
    for k in range(16):
        output, result = RESULTS[k % len(RESULTS)]
        text = TEXT.format(
            output=output,
            result=result,
            domain=choose.choice(DOMAINS),
            order=ORDERS[k % len(ORDERS)],
            term=choose.choice(TERMS),
        )
        out.append((text, choose.randint(1, 13), choose.randint(1, 6), choose.randint(1, 6)))
    return out


@pytest.mark.parametrize(("text", "n", "w", "m"), programs())
def test_random_programs(text: str, n: int, w: int, m: int) -> None:
    check(text, n, w, m, seed=n)


STICK = (
    "attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {\n  batch b\n"
    "  S[i,j] = Q[i,e] * K[j,e]   where j < i\n  L[i,j] = sum[l : j < l < i](logsigmoid(-S[i,l]))\n"
    "  O[i,f] = exp(logsigmoid(S[i,j]) + L[i,j]) * V[j,f]\n}"
)


def test_the_way_of_the_first_scan() -> None:
    """Forward and backward walk down: the gradient's own scan runs up, and is the row's sum less the rest."""
    g = differentiate(load(STICK))
    plans = plan_forward(g.forward, g.residuals), plan_backward(g.forward, g.backward, g.gradients)
    swept = [k.sweep for plan in plans for k in kernels(plan) if k.sweep is not None]
    assert len(swept) == 5
    assert all(s.descending and s.ordered for s in swept)
    assert all([r.masked for r in s.ranges] == [True, False] for s in swept)


def test_columns_are_added_by_rows() -> None:
    g = differentiate(load(STICK))
    plan = plan_backward(g.forward, g.backward, g.gradients)
    adds = {
        s.tensor
        for k in plan.steps
        if isinstance(k, TileProgram) and k.sweep
        for s in k.sweep.ranges[0].body
        if isinstance(s, Scatter)
    }
    assert {x.split(".")[0] for x in adds} == {"dK", "dV"}


def test_a_scan_along_the_rows() -> None:
    """Carried down the rows of a tile of columns, whose products are added to the rows."""
    text = (
        "attention t(Q[b,i,e], K[b,j,e], V[b,j,f], w: int, n: int) -> O[b,i,f] {\n  batch b\n"
        "  S[i,j] = Q[i,e] * K[j,e]\n  T[i,j] = sum[l : l < i](relu(S[l,j]))\n"
        "  O[i,f] = sigmoid(S[i,j] - T[i,j]) * V[j,f]\n}"
    )
    check(text, 11, 3, 3, seed=0)


@pytest.mark.parametrize("order", ["l <= j", "l < j", "j < l"])
@pytest.mark.parametrize(
    "result",
    [
        "O[i,f] = P[i,j] * (1 - C[i,j]) * V[j,f]",
        "O[i,f] = P[i,j] * tanh(C[i,j]) * V[j,f]",
        "T[i,j] = S[i,j] where C[i,j] < 0.8\n  O[i,f] = softmax[j](T[i,j]) * V[j,f]",
    ],
)
def test_a_scan_of_weights_follows_their_maximum(order: str, result: str) -> None:
    """What other tiles have left was made with the maximum of then."""
    text = (
        "attention t(Q[b,i,e], K[b,j,e], V[b,j,f], w: int, n: int) -> O[b,i,f] {\n  batch b\n"
        "  S[i,j] = Q[i,e] * K[j,e]   where j <= i\n  P[i,j] = softmax[j](S[i,j])\n"
        f"  C[i,j] = sum[l : {order}](P[i,l])\n  {result}\n}}"
    )
    check(text, 13, 3, 3, seed=1)


def test_grouped_heads_and_positions_by_content() -> None:
    """Keys shared by heads get the sum over these; a scan may shift scores before their softmax."""
    text = (
        "attention t(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int) -> O[b,h,i,f] {\n  batch b, h\n"
        "  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)   where j <= i\n"
        "  C[i,j] = sum[l : j <= l <= i](sigmoid(S[i,l]))\n"
        "  O[i,f] = softmax[j](S[i,j] - 0.1 * C[i,j]) * V[j,f]\n}"
    )
    op = attndsl.compile(text, backend="eager")
    sizes = {"b": 1, "h": 4, "i": 30, "j": 30, "e": 8, "f": 8}
    inputs = make_inputs(op, sizes, params={"G": 2}, requires_grad=True)
    assert_close_to_reference(op, inputs, params={"G": 2}, backward=True)
