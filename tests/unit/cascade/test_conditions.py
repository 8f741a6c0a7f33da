"""Conditions put together: nothing that follows from another."""

from __future__ import annotations

import pytest

from attndsl.cascade.conditions import conjunction
from attndsl.cascade.nodes import Compare, Expr, Logic, Position

A = Compare("<=", Position("j"), Position("i"))
B = Compare("<", Position("i"), Position("n"))
C = Compare("==", Position("i"), Position("m"))


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ((A, A), A),
        ((A, Logic("or", (B, A))), A),
        ((Logic("or", (B, A)), A), A),
        ((A, Logic("or", (B, C))), Logic("and", (A, Logic("or", (B, C))))),
        ((A, B, Logic("or", (C, Logic("and", (A, B))))), Logic("and", (A, B))),
        ((A, Logic("or", (C, Logic("and", (A, B))))), None),
    ],
)
def test_alternatives_of_which_one_is_given(parts: tuple[Expr, ...], whole: Expr | None) -> None:
    assert conjunction(parts) == (Logic("and", parts) if whole is None else whole)
