"""Squares of contractions as contractions over pairs of features: a score's polynomial has features of its own.

    sum[e](Q[i,e] * K[j,e])**2
    ->  sum[r]((Q[i,r // |e|] * Q[i,r % |e|]) * (K[j,r // |e|] * K[j,r % |e|]))        rank r = |e| * |e|

Rows and columns then meet in one product, so that a state holds what came before: of |e| times the size, which pays
where features are few (16, say).

source: Arora et al. 2024 (arXiv:2402.18668), the second-order Taylor features of Based
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Position,
    Rank,
    Read,
    Reduce,
    Reduction,
    Unary,
)
from attndsl.cascade.walk import bound, free, reads, rename, rewrite, substitute


def squared(cascade: Cascade, sequence: frozenset[str]) -> Cascade:
    """The program with squares of contractions of rows with columns written as contractions."""
    return _Squares(cascade, sequence).run()


class _Squares:
    def __init__(self, cascade: Cascade, sequence: frozenset[str]) -> None:
        self.cascade = cascade
        self.sequence = sequence
        self.names = Names(cascade)
        self.defs = {d.tensor: d for d in cascade.body}
        self.pairs: dict[str, str] = {}

    def run(self) -> Cascade:
        c = self.cascade
        body = tuple(dataclasses.replace(d, expr=rewrite(d.expr, self.rule)) for d in c.body)
        if body == c.body:
            return c
        known = {r.name for r in c.ranks}
        ranks = (*c.ranks, *(r for n, r in self.names.ranks.items() if n not in known))
        return dataclasses.replace(c, body=_used(body, c), ranks=ranks)

    def rule(self, n: Expr) -> Expr | None:
        match n:
            case Binary("**", x, Const(2)):
                return self.square(x)
            case Binary("*", x, y) if x == y:
                return self.square(x)
            case _:
                return None

    def square(self, x: Expr) -> Expr | None:
        """The square of a scaled contraction; None if it is none, or all of it knows one position."""
        found = self.contraction(x)
        if found is None:
            return None
        total, scale = found
        (e,) = total.indices
        if len(free(total) & self.sequence) != 2 or e in self.sequence:
            return None
        r = self.names.index(self.feature(e))
        factors = []
        for op in ("//", "%"):
            at = Binary(op, Position(r), Extent(self.names.root(e)))
            one = rename(total.body, {i: self.names.index(i) for i in bound(total.body)})
            factors.append(substitute(one, {e: at}, {e: at}))
        whole: Expr = Reduce(Reduction.SUM, (r,), Binary("*", *factors))
        return scale(scale(whole))

    def feature(self, e: str) -> str:
        """The rank of the pairs of a feature's points."""
        root = self.names.root(e)
        if root not in self.pairs:
            name = self.names.tensor(f"{root}{root}")
            size = Extent(root)
            self.names.ranks[name] = Rank(name, extent=Binary("*", size, size))
            self.pairs[root] = name
        return self.pairs[root]

    def contraction(self, x: Expr) -> tuple[Reduce, Callable[[Expr], Expr]] | None:
        """A contraction, and what it is multiplied by."""
        match x:
            case Reduce(Reduction.SUM, (_,), _, None):
                return x, lambda e: e
            case Read(tensor=name) if name in self.defs:
                return self.contraction(_inlined(self.defs[name], x))
            case Unary("-", a):
                return self.scaled(a, lambda e: Unary("-", e))
            case Binary("*" | "/" as op, a, b) if not free(b) & self.sequence:
                return self.scaled(a, lambda e: Binary(op, e, b))
            case Binary("*", a, b) if not free(a) & self.sequence:
                return self.scaled(b, lambda e: Binary("*", a, e))
            case _:
                return None

    def scaled(
        self, x: Expr, by: Callable[[Expr], Expr]
    ) -> tuple[Reduce, Callable[[Expr], Expr]] | None:
        found = self.contraction(x)
        if found is None:
            return None
        total, scale = found
        return total, lambda e: by(scale(e))


def _inlined(d: Define, e: Read) -> Expr:
    pairs = list(zip(d.indices, e.subs, strict=True))
    numbers = {i: Position(s.name) if isinstance(s, Index) else s for i, s in pairs}
    return substitute(d.expr, numbers, dict(pairs))


def _used(body: tuple[Define, ...], c: Cascade) -> tuple[Define, ...]:
    """Without what nothing reads any more."""
    outputs = {o.name for o in c.outputs}
    while True:
        read = {
            n for d in body for e in (d.expr, d.where, d.init) if e is not None for n in reads(e)
        }
        kept = tuple(d for d in body if d.tensor in read or d.tensor in outputs)
        if kept == body:
            return body
        body = kept
