"""Sums into rows that are solved for one position, those that are not, and the integers that fall out on the way."""

from __future__ import annotations

import pytest

from attndsl.cascade.nodes import Binary, Compare, Const, Expr, Extent, Param, Position
from attndsl.driver import load
from attndsl.schedule.cancelled import as_sum, cancelled
from attndsl.schedule.printer import text_of
from attndsl.schedule.tile import Scatter
from attndsl.source import Source
from tests.unit.schedule.harness import kernels

Q, J, R, START = Position("i"), Position("j"), Position("r"), Param("start")


def plus(a: Expr, b: Expr) -> Expr:
    return Binary("+", a, b)


def less(a: Expr, b: Expr) -> Expr:
    return Binary("-", a, b)


@pytest.mark.parametrize(
    ("e", "text"),
    [
        (less(plus(Q, START), less(plus(Q, START), R)), "r"),
        (Compare("<=", less(plus(Q, START), R), plus(Q, START)), "0 <= r"),
        (Compare("<", plus(Q, R), plus(Q, Extent("j"))), "r < |j|"),
        # What is there once stays as it is written.
        (plus(less(Q, J), Const(3)), "i - j + 3"),
        (Compare("<=", J, plus(Q, START)), "j <= i + start"),
    ],
)
def test_positions_fall_out(e: Expr, text: str) -> None:
    assert text_of(cancelled(e)) == text


def test_a_sum_has_each_term_once() -> None:
    assert text_of(as_sum(less(Const(3), less(J, plus(Q, Const(2)))))) == "5 + i - j"


def scattered(row: str, where: str) -> bool:
    """Whether the gradient of a table adds to places of it."""
    source = Source(
        "t.attn",
        "attention t(Q[h,i,e], K[h,j,e], V[h,j,f], R[h,r,e], a[i]: int, c[j]: int, w: int) -> O[h,i,f] {\n"
        f"  batch h\n  S[i,j] = Q[i,e] * K[j,e] + Q[i,e] * R[{row}, e]   where {where}\n"
        "  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n}",
    )
    plan = load(source).backward
    assert plan is not None
    bodies = [r.body for k in kernels(plan) if k.sweep is not None for r in k.sweep.ranges]
    return any(isinstance(s, Scatter) for body in bodies for s in body)


@pytest.mark.parametrize("row", ["i - j", "j - i + |j| - 1", "i + j - w"])
def test_each_pair_of_a_row_is_found_by_one_position(row: str) -> None:
    assert not scattered(row, "j <= i")


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ("max(min(i - j, 4), 0)", "j <= i"),
        ("i - j", "j <= i, a[i] == c[j]"),  # ids would be looked up pair by pair
    ],
)
def test_other_rows_are_added_to(row: str, where: str) -> None:
    assert scattered(row, where)
