"""What a score does not need at every pair, and the order of a turn."""

from __future__ import annotations

import pytest
import torch

from attndsl.cascade.autodiff import differentiate
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Reduction
from attndsl.schedule import plan_backward, plan_forward
from attndsl.schedule import tile as t
from tests.unit.schedule.harness import draw, kernels, load, run

EXTENTS = {"b": 2, "i": 11, "j": 11, "e": 3, "f": 3}
PROGRAM = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f]{inputs}) -> O[b,i,f] {{
  batch b
  S[i,j] = {score}   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}}"""
PLAIN = "Q[i,e] * K[j,e]"


def program(score: str, inputs: str = "") -> str:
    return PROGRAM.format(score=score, inputs=inputs)


def turn(kernel: t.TileProgram) -> tuple[t.Stmt, ...]:
    """One turn of a kernel's sweep, without masks."""
    assert kernel.sweep is not None
    return next(r.body for r in kernel.sweep.ranges if not r.masked)


def score_is_its_product(text: str) -> bool:
    """Whether the maximum is taken of the very product."""
    body = turn(kernels(plan_forward(load(text)))[0])
    (dot,) = [s for s in body if isinstance(s, t.Dot)]
    (fold,) = [s for s in body if isinstance(s, t.Fold) and s.op is Reduction.MAX]
    return fold.src == dot.name


def test_a_positive_scale_is_applied_to_the_maximum() -> None:
    assert score_is_its_product(program(PLAIN + " / sqrt(|e|)"))


def test_a_scale_of_unknown_sign_is_applied_to_every_score() -> None:
    assert not score_is_its_product(program(PLAIN + " * w", ", w[b]"))


@pytest.mark.parametrize(
    ("score", "inputs"),
    [
        (f"sum[e]({PLAIN}) / sqrt(|e|)", ""),
        (PLAIN + " * w / sqrt(|e|)", ", w[b]"),
        (PLAIN + " / w", ", w[b]"),
    ],
)
def test_positive_factors_are_applied_to_the_maximum(score: str, inputs: str) -> None:
    """Products and divisors alike, where they are assumed to be positive; the value stays what it was."""
    text = program(score, inputs)
    if inputs:
        assert not score_is_its_product(text)
        text = text.replace("batch b\n", "batch b\n  assume w > 0\n")
    assert score_is_its_product(text)
    cascade = load(text)
    x = draw(cascade, EXTENTS)
    x |= {n: v.abs() + 0.1 for n, v in x.items() if n == "w"}
    made = run(plan_forward(cascade), cascade, x)["O"]
    assert torch.allclose(made, interpret(cascade, x, dtype=torch.float64)["O"], atol=1e-12)


def test_factors_of_rows_and_keys_stay_with_the_score() -> None:
    text = program(PLAIN + " * w[i] * c[j] / sqrt(|e|)", ", w[b,i], c[b,j]")
    text = text.replace("batch b\n", "batch b\n  assume w > 0, c > 0\n")
    body = turn(kernels(plan_forward(load(text)))[0])
    scores = [s.expr for s in body if isinstance(s, t.Compute) and len(s.dims) == 2]
    assert any("'w'" in str(e) and "'c'" in str(e) for e in scores)
    (fold,) = [s for s in body if isinstance(s, t.Fold) and s.op is Reduction.MAX]
    (scaled,) = [s for s in body if isinstance(s, t.Compute) and f"'{fold.name}'" in str(s.expr)]
    assert "scale" in str(scaled.expr) or "_p" in str(scaled.expr)


def test_what_a_row_shares_is_added_to_its_maximum() -> None:
    assert score_is_its_product(program(PLAIN + " - r[i]", ", r[b,i]"))
    assert not score_is_its_product(program(PLAIN + " - c[j]", ", c[b,j]"))


def test_products_of_loaded_tiles_come_first_and_sums_of_products_last() -> None:
    g = differentiate(load(program(PLAIN)), ("K", "V"))
    plan = plan_backward(g.forward, g.backward, g.gradients)
    (body,) = [turn(k) for k in kernels(plan) if {"dK", "dV"} <= set(k.writes)]
    pairs = [s for s in body if isinstance(s, t.Compute) and len(s.dims) == 2]
    products = [s for s in body if isinstance(s, t.Dot)]
    sums = [s for s in body if isinstance(s, t.AccDot)]
    assert len(products) == len(sums) == 2
    assert max(map(body.index, products)) < min(map(body.index, pairs))
    assert max(map(body.index, pairs)) < min(map(body.index, sums))


@pytest.mark.parametrize(
    ("score", "inputs"),
    [
        ("Q[i,e] * K[j,e] / sqrt(|e|)", ""),
        ("Q[i,e] * K[j,e] * w", ", w[b]"),
        ("Q[i,e] * K[j,e] + r[i]", ", r[b,i]"),
        ("r[i] - Q[i,e] * K[j,e] + w * j", ", r[b,i], w[b]"),
        ("Q[i,e] * K[j,e] / sqrt(|e|) - w * (i - j)", ", w[b]"),
    ],
)
def test_lighter_scores_give_what_the_program_says(score: str, inputs: str) -> None:
    cascade = load(program(score, inputs))
    given = draw(cascade, EXTENTS)
    tiles = {"BLOCK_I": 4, "BLOCK_J": 4}
    made = run(plan_forward(cascade), cascade, given, tiles=tiles)
    torch.testing.assert_close(made["O"], interpret(cascade, given)["O"])
