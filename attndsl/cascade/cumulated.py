"""Products along positions, as exponentials of sums.

    A[i,j] = b[i,j] * prod[l : j < l <= i](1 - b[i,l]);   b[i,j] = sigmoid(S[i,j])
    ->
    A[i,j] = b[i,j] * exp(sum[l : j < l <= i](logsigmoid(-S[i,l])))

A running sum can be had from two others, or be carried from tile to tile and made by a product of matrices in one; a
running product cannot where a factor may be 0. Here none is: exponentials, sigmoids, what a sigmoid leaves of 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from attndsl.cascade.conditions import conjunction
from attndsl.cascade.definedness import at
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Read,
    Reduce,
    Reduction,
    Unary,
)
from attndsl.cascade.signs import Sign, sign_of
from attndsl.cascade.walk import bound, free, rename, rewrite, walk


def products_as_sums(c: Cascade) -> Cascade:
    """With products that a filter makes running ones as exponentials of sums, where no factor can be 0.

    rewrite:  prod[l : l < j](x[l])   ->   exp(sum[l : l < j](log(x[l])))
    requires: the filter names a position from outside; every factor is positive by how it is made
    """
    if not any(isinstance(n, Reduce) and _runs(n) for d in c.body for n in walk(d.expr)):
        return c
    names = Names(c)
    defs: dict[str, Define] = {}
    for d in c.body:
        defs[d.tensor] = dataclasses.replace(d, expr=rewrite(d.expr, _Rule(defs, names)))
    known = {r.name for r in c.ranks}
    more = (r for n, r in names.ranks.items() if n not in known and r.iterates is not None)
    return dataclasses.replace(c, body=tuple(defs.values()), ranks=(*c.ranks, *more))


def _runs(e: Reduce) -> bool:
    return e.op is Reduction.PROD and e.where is not None and bool(free(e.where) - {*e.indices})


@dataclasses.dataclass(frozen=True, slots=True)
class _Rule:
    """The rewrite, over the definitions that came before."""

    defs: Mapping[str, Define]
    names: Names

    def __call__(self, e: Expr) -> Expr | None:
        if not isinstance(e, Reduce) or not _runs(e):
            return None
        conditions: list[Expr] = []
        log = self.log(e.body, conditions)
        if log is None:
            return None
        where = conjunction((e.where, *conditions))
        return Call("exp", (Reduce(Reduction.SUM, e.indices, log, where, span=e.span),))

    def log(self, e: Expr, conditions: list[Expr]) -> Expr | None:
        """The logarithm of a factor, through the names of tensors; `conditions` gets where they are defined."""
        match e:
            case Call("exp", (x,)):
                return x
            case Call("sigmoid", (x,)):
                return Call("logsigmoid", (x,))
            case Binary("-", Const(value=1), x):
                match self.seen(x, conditions):
                    case Call("sigmoid", (y,)):
                        return Call("logsigmoid", (Unary("-", y),))
            case Binary("*" | "/" as op, a, b):
                left, right = self.log(a, conditions), self.log(b, conditions)
                if left is None or right is None:
                    return None
                return Binary("+" if op == "*" else "-", left, right)
            case Read():
                x = self.seen(e, conditions)
                return None if x is e else self.log(x, conditions)
        return Call("log", (e,)) if sign_of(e, {}) is Sign.POSITIVE else None

    def seen(self, e: Expr, conditions: list[Expr]) -> Expr:
        """What a tensor is made of, with bound indices of its own."""
        if not isinstance(e, Read) or e.tensor not in self.defs:
            return e
        d = self.defs[e.tensor]
        if d.init is not None:
            return e
        if d.where is not None:
            conditions.append(at(d.where, d.indices, e.subs))
        own = rename(d.expr, {i: self.names.index(i) for i in sorted(bound(d.expr))})
        return self.seen(at(own, d.indices, e.subs), conditions)
