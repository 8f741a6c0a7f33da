"""Cascades for tests: from text, or from nodes where no text would be accepted."""

from __future__ import annotations

from collections.abc import Sequence

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Index,
    Logic,
    Output,
    Position,
    Rank,
    Read,
    Reduce,
    Reduction,
    ScalarParam,
    Select,
    TensorDecl,
    Unary,
)
from attndsl.frontend import load_cascades
from attndsl.source import Source


def ex(x: Expr | float | int | bool) -> Expr:
    return Const(x) if isinstance(x, int | float) else x


def chain(op: str, *xs: Expr | float | int) -> Expr:
    out = ex(xs[0])
    for x in xs[1:]:
        out = Binary(op, out, ex(x))
    return out


def mul(*xs: Expr | float | int) -> Expr:
    return chain("*", *xs)


def add(*xs: Expr | float | int) -> Expr:
    return chain("+", *xs)


def sub(*xs: Expr | float | int) -> Expr:
    return chain("-", *xs)


def div(*xs: Expr | float | int) -> Expr:
    return chain("/", *xs)


def floordiv(*xs: Expr | float | int) -> Expr:
    return chain("//", *xs)


def mod(*xs: Expr | float | int) -> Expr:
    return chain("%", *xs)


def power(a: Expr | float | int, b: Expr | float | int) -> Expr:
    return Binary("**", ex(a), ex(b))


def cmp(op: str, a: Expr | float | int, b: Expr | float | int) -> Compare:
    return Compare(op, ex(a), ex(b))


def both(*xs: Expr) -> Expr:
    return Logic("and", xs)


def either(*xs: Expr) -> Expr:
    return Logic("or", xs)


def call(fn: str, *xs: Expr | float | int) -> Expr:
    return Call(fn, tuple(ex(x) for x in xs))


def pos(i: str) -> Position:
    return Position(i)


def rd(text: str, *subs: Expr) -> Read:
    """`rd("S b h i j")`; a `?` takes the next of `subs`."""
    name, *names = text.split()
    rest = iter(subs)
    return Read(name, tuple(next(rest) if n == "?" else Index(n) for n in names))


def red(op: str, indices: str, body: Expr, where: Expr | None = None) -> Reduce:
    return Reduce(Reduction(op), tuple(indices.split()), body, where)


def decl(text: str, dtype: DType = DType.FLOAT, **computed: Expr) -> TensorDecl:
    """`decl("K b hk j e", hk=floordiv(pos("h"), Param("G")))`."""
    name, *names = text.split()
    dims = tuple(computed.get(n, Index(n)) for n in names)
    ranks = tuple(f"{name}.{k}" if n in computed else n for k, n in enumerate(names))
    return TensorDecl(name, dims, ranks, dtype)


def define(text: str, expr: Expr, where: Expr | None = None, init: Expr | None = None) -> Define:
    name, *names = text.split()
    return Define(name, tuple(names), expr, where, init)


def cascade(
    name: str,
    inputs: Sequence[TensorDecl],
    body: Sequence[Define],
    outputs: Sequence[str],
    *,
    params: Sequence[ScalarParam] = (),
    batch: str = "b h",
    bound: dict[str, str] | None = None,
    ranks: Sequence[Rank] = (),
    assumes: Sequence[Expr] = (),
) -> Cascade:
    names: dict[str, Rank] = {}
    for t in inputs:
        for r in t.ranks:
            names.setdefault(r, Rank(r))
    for i, r in (bound or {}).items():
        names[i] = Rank(i, iterates=r)
    for r in ranks:
        names[r.name] = r
    outs = tuple(Output(o, next(d.indices for d in body if d.tensor == o)) for o in outputs)
    return Cascade(
        name,
        tuple(inputs),
        tuple(params),
        outs,
        tuple(batch.split()),
        tuple(names.values()),
        tuple(body),
        tuple(assumes),
    )


def integer(name: str, default: int | None = None) -> ScalarParam:
    return ScalarParam(name, DType.INT, default)


def gated(cond: Expr, then: Expr, other: Expr) -> Select:
    return Select(cond, then, other)


def negative(x: Expr) -> Unary:
    return Unary("-", x)


def load(text: str) -> Cascade:
    """The one cascade of a program text."""
    (found,) = load_cascades(Source("test.attn", text))
    return found
