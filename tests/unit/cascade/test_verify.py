"""Every broken invariant is found, and a good cascade passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Local,
    Output,
    Param,
    Position,
    Rank,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.types import Types
from attndsl.cascade.verify import verify, verify_types
from attndsl.internal import InternalError
from tests.unit.cascade.build import cmp, load, rd, red

GOOD = load("""
attention good(Q[b,i,e], K[b,j,e], V[b,j,f], n[b]: int, w: int = 4) -> O[b,i,f] {
  batch b
  S[i,j] = Q[i,e] * K[j,e]    where i - w < j, j < n
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
""")


def with_score(expr: Expr, where: Expr | None = None) -> Cascade:
    first, *rest = GOOD.body
    return replace(GOOD, body=(replace(first, expr=expr, where=where), *rest))


def test_a_good_cascade_passes() -> None:
    verify(GOOD)
    verify_types(GOOD)


Q = rd("Q b i e")
BROKEN: dict[str, Callable[[], Cascade]] = {
    "names index `e`, which is not bound there": lambda: with_score(Q),
    "reads `X`, which is not defined before": lambda: with_score(rd("X b i j")),
    "reads `O`, which is not defined before": lambda: with_score(rd("O b i j")),
    "reads `n` at 2 of its 1 axes": lambda: with_score(rd("n b i")),
    "names `v`, which is no parameter": lambda: with_score(Param("v")),
    "names |z|, which is no rank": lambda: with_score(Extent("z")),
    "names the unknown `x` outside": lambda: with_score(Local("x")),
    "calls `sinh`": lambda: with_score(Call("sinh", (Const(1.0),))),
    "calls `exp` with 2 arguments": lambda: with_score(Call("exp", (Const(1.0), Const(1.0)))),
    "has the operator `^`": lambda: with_score(Binary("^", Const(1), Const(2))),
    "has a reduction over no index": lambda: with_score(Reduce(Reduction.SUM, (), Const(1.0))),
    "binds `i` where it is bound already": lambda: with_score(red("sum", "i", rd("n b"))),
    "binds an index twice": lambda: with_score(red("sum", "e e", Q)),
    "the domain of `S` names index `f`": lambda: with_score(Const(1.0), cmp("<", Position("f"), 3)),
    "tensor `S` is given twice": lambda: replace(GOOD, body=(GOOD.body[0], *GOOD.body)),
    "rank `i` is given twice": lambda: replace(GOOD, ranks=(*GOOD.ranks, Rank("i"))),
    "rank `l` iterates `z`": lambda: replace(GOOD, ranks=(*GOOD.ranks, Rank("l", iterates="z"))),
    "output `P` is not defined": lambda: replace(GOOD, outputs=(Output("P", ("b", "i")),)),
    "output `O` has indices": lambda: replace(GOOD, outputs=(Output("O", ("b", "i")),)),
    "has an initial value and does not read its past": lambda: replace(
        GOOD, body=(replace(GOOD.body[0], init=Const(0)), *GOOD.body[1:])
    ),
    "repeats an index": lambda: replace(
        GOOD, body=(*GOOD.body, Define("R", ("b", "b"), Const(1.0)))
    ),
    "has index `z`, which is no rank": lambda: replace(
        GOOD, body=(*GOOD.body, Define("R", ("z",), Const(1.0)))
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_is_broken_is_named(message: str) -> None:
    with pytest.raises(InternalError) as caught:
        verify(BROKEN[message]())
    assert message in str(caught.value)
    assert caught.value.dump


def test_kinds_are_checked() -> None:
    with pytest.raises(InternalError, match="the domain of `S` is no condition"):
        verify_types(with_score(Const(1.0), Position("i")))
    with pytest.raises(InternalError, match=r"`1\.5` in `n\[1\.5\]`"):
        verify_types(with_score(Read("n", (Const(1.5),))))


def test_kinds_of_expressions() -> None:
    types = Types(GOOD)
    assert types.tensors["n"] == "int"
    assert types.tensors["S"] == "float"
    i, w = Position("i"), Param("w")
    for expr, kind in [
        (Binary("//", i, w), "int"),
        (Binary("/", i, w), "float"),
        (Binary("**", i, Const(2)), "int"),
        (Binary("**", i, Const(-2)), "float"),
        (Binary("+", i, Const(1.0)), "float"),
        (Call("max", (i, w)), "int"),
        (cmp("<", i, w), "bool"),
        (red("any", "j", cmp("<", Index("j"), w)), "bool"),
        (red("max", "j", Position("j")), "int"),
        (red("sum", "j", cmp("<", Position("j"), w)), "int"),
    ]:
        assert types.of(expr) == kind
