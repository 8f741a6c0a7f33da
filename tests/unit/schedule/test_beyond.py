"""What rows beyond the end of a sequence hold."""

from __future__ import annotations

import math

import pytest

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Position,
    Select,
)
from attndsl.schedule import tile as t
from attndsl.schedule.beyond import Held, Rows
from attndsl.schedule.tile import Val

K, G = Val("k"), Val("g")


def held(e: Expr, safe: bool = False) -> Held:
    """Of an expression over `k`, loaded as 0 beyond the end, and `g`, which is the same for every row."""
    loads = [
        t.Load("k", ("t",), DType.FLOAT, "K", (Position("t"),), ("t",)),
        t.Load("g", (), DType.FLOAT, "G", (Const(0),)),
    ]
    rows = Rows("t", "t").run([*loads, t.Compute("x", ("t",), DType.FLOAT, e, safe)])
    return rows.values["x"]


NUMBERS: dict[str, tuple[Expr, float | None]] = {
    "norm and a constant": (
        Call("rsqrt", (Binary("+", Binary("**", K, Const(2)), Const(0.25)),)),
        2.0,
    ),
    "nothing times a row's value": (Binary("*", K, Call("exp", (G,))), 0.0),
    "infinity that vanishes": (
        Call("exp", (Binary("/", Const(-1.0), Binary("*", K, K)),)),
        None,
    ),
    "a value of all rows": (Call("exp", (G,)), None),
    "a sum that nothing is taken of": (Binary("-", K, G), None),
    "masked": (
        Select(Compare("<", Position("t"), Extent("t")), Call("log", (K,)), Const(3.0)),
        3.0,
    ),
}
NONE: dict[str, Expr] = {
    "norm alone": Call("rsqrt", (Binary("*", K, K),)),
    "difference that may overflow": Call("exp", (Binary("-", K, G),)),
    "root of a place": Call("sqrt", (Binary("-", Extent("t"), Position("t")),)),
    "divided by a place": Binary("/", G, Position("t")),
    "divided by nothing": Binary("/", G, K),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number(name: str) -> None:
    e, number = NUMBERS[name]
    found = held(e)
    assert found.finite
    assert number is None or found.number == number


@pytest.mark.parametrize("name", NONE)
def test_perhaps_no_number(name: str) -> None:
    assert not held(NONE[name]).finite


def test_a_quotient_of_nothing_is_0_where_the_program_says_so() -> None:
    quotient = Binary("/", K, Binary("*", K, K))
    assert held(quotient, safe=True).number == 0
    assert math.isnan(held(quotient).number or 0.0)


def test_the_first_values_that_are_none_are_found() -> None:
    """Not what is made of them."""
    body: list[t.Stmt] = [
        t.Load("k", ("t", "e"), DType.FLOAT, "K", (Position("t"), Position("e")), ("t",)),
        t.Compute("n", ("t",), DType.FLOAT, Call("rsqrt", (K,))),
        t.Compute("u", ("t", "e"), DType.FLOAT, Binary("*", K, Val("n"))),
        t.Compute("v", ("t", "e"), DType.FLOAT, Binary("+", Val("u"), Const(1.0))),
    ]
    assert Rows("t", "t").run(body).broken(["v"]) == {"n"}
    assert Rows("t", "t", frozenset({"k"})).run(body).broken(["v"]) == set()
