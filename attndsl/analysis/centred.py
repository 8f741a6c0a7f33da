"""Sums of squares around a value that is known late, from the values' own mean and spread.

    var[i] = sum[j]((S[i,j] - u[i])**2)
    ->
    n[i] = sum[j](1);  m[i] = sum[j](S[i,j]) / n[i];  spread[i] = sum[j]((S[i,j] - m[i])**2)
    var[i] = spread[i] + n[i] * (m[i] - u[i])**2

A quadratic `f` of `x` sums to `f''/2 * spread + n * f(m)`, whatever else it depends on: its terms separate into three
sums. Written out, powers of scores, these would cancel where scores lie far from 0; around the mean of what has been
seen they do not, and the mean may move: the spread around `m'` is that around `m` and `n * (m' - m)**2`, for the
differences from `m` add up to nothing.

source: Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from attndsl.analysis.following import Following
from attndsl.analysis.ranks import Ranks
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import free, rename, replaced, walk

Coefficients = dict[int, Expr]
"""Of a polynomial, by the power of its variable."""


def centred(c: Cascade, ranks: Ranks) -> Cascade:
    """With sums of quadratics that wait for a running value written around the mean.

    requires: normal form; the terms depend on one value along the sum, and only on that; it follows no running value
    """
    following = Following(c, ranks)
    body: list[Define] = []
    for d in c.body:
        body += _around_mean(d, body, following) or [d]
    return c if len(body) == len(c.body) else dataclasses.replace(c, body=tuple(body))


def _around_mean(d: Define, before: list[Define], following: Following) -> list[Define] | None:
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or len(e.indices) != 1:
        return None
    if not following.large(d):
        return None
    over = frozenset(e.indices)
    late = following.pivots(e)
    if not late or all(following.how(d, p) is not None for p in late):
        return None
    values = {n for n in walk(e.body) if isinstance(n, Read) and free(n) & over}
    if len(values) != 1:
        return None
    (x,) = values
    if following.pivots(dataclasses.replace(e, body=x, where=None)):
        return None  # what the sum is of moves with a running value, and its mean with it
    found = coefficients(e.body, x)
    if found is None or max(found) != 2 or any(free(k) & over for k in found.values()):
        return None
    if not free(x) - over <= {*d.indices}:
        return None
    made: list[Define] = []

    def named(stem: str, expr: Expr) -> Read:
        """A tensor of this value, made before or now."""
        for b in (*before, *made):
            if b.indices == d.indices and _same(b.expr, expr):
                return Read(b.tensor, tuple(map(Index, d.indices)))
        made.append(Define(f"{d.tensor}.{stem}", d.indices, expr, span=d.span))
        return Read(made[-1].tensor, tuple(map(Index, d.indices)))

    count = named("count", dataclasses.replace(e, body=Const(1.0)))
    total = named("total", dataclasses.replace(e, body=x))
    mean = named("centre", Binary("/", total, count))
    square = Binary("**", Binary("-", x, mean), Const(2))
    spread = named("spread", dataclasses.replace(e, body=square))
    # Of no values there is no mean, and what they are compared with may be infinite.
    any_ = Compare(">", count, Const(0))
    at_mean = Select(any_, Binary("*", count, replaced(e.body, x, mean)), Const(0.0))
    scaled = spread if found[2] == Const(1) else Binary("*", found[2], spread)
    return [*made, dataclasses.replace(d, expr=Binary("+", scaled, at_mean))]


def _same(a: Expr, b: Expr) -> bool:
    if isinstance(a, Reduce) and isinstance(b, Reduce) and len(a.indices) == len(b.indices):
        a = rename(a, dict(zip(a.indices, b.indices, strict=True)))
    return a == b


def coefficients(e: Expr, x: Expr) -> Coefficients | None:
    """An expression as a polynomial in `x`; None where it is none, or of a degree above 2."""
    if e == x:
        return {1: Const(1)}
    if x not in walk(e):
        return {0: e}
    match e:
        case Unary("-", a):
            below = coefficients(a, x)
            return None if below is None else {p: Unary("-", k) for p, k in below.items()}
        case Binary("+" | "-" | "*" | "/" as op, a, b):
            left, right = coefficients(a, x), coefficients(b, x)
            if left is None or right is None or (op == "/" and max(right) > 0):
                return None
            if op in ("*", "/"):
                return _product(left, right, op)
            return _sum(left, right, op)
        case Binary("**", a, Const(value=2)):
            below = coefficients(a, x)
            return None if below is None else _product(below, below, "*")
        case _:
            return None


def _sum(left: Mapping[int, Expr], right: Mapping[int, Expr], op: str) -> Coefficients:
    out = dict(left)
    for p, k in right.items():
        if p in out:
            out[p] = Binary(op, out[p], k)
        else:
            out[p] = Unary("-", k) if op == "-" else k
    return out


def _product(left: Mapping[int, Expr], right: Mapping[int, Expr], op: str) -> Coefficients | None:
    out: Coefficients = {}
    for p, a in left.items():
        for q, b in right.items():
            if p + q > 2:
                return None
            k = b if a == Const(1) and op == "*" else a if b == Const(1) else Binary(op, a, b)
            out[p + q] = Binary("+", out[p + q], k) if p + q in out else k
    return out
