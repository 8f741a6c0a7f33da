"""The normal form that schedules start from: every large reduction is a definition of its own, with nothing to spare.

A *large* reduction runs over a sequence or batch rank; reductions over features alone stay where they are. After
`normalize`, a large reduction is the whole right side of a definition, and factors that do not carry its indices are
outside of it, so that a normaliser's division happens once a row (division deferral) and two weights that differ by
their normalisers share one sweep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from attndsl.analysis.ranks import Kind, Ranks, lengths
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
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
from attndsl.cascade.walk import children, free, reads, rename, walk, with_children
from attndsl.schedule.forms import inline, is_large, is_scatter

Factor = tuple[Expr, int]
Term = tuple[float | int, tuple[Factor, ...]]


def product(coefficient: float | int, factors: Iterable[Factor]) -> Expr:
    """The expression of a term."""
    above = [f for f, p in factors if p > 0]
    below = [f for f, p in factors if p < 0]
    out: Expr | None = None
    for f in above:
        out = f if out is None else Binary("*", out, f)
    if out is None:
        out = Const(abs(coefficient))
    elif abs(coefficient) != 1:
        out = Binary("*", out, Const(abs(coefficient)))
    for f in below:
        out = Binary("/", out, f)
    return Unary("-", out) if coefficient < 0 else out


def normalize(cascade: Cascade, ranks: Ranks) -> Cascade:
    """Give every large reduction a definition, and take out of it what does not carry its indices.

    rewrite:  O[i,f] = sum[j](P[i,j] / Z[i] * V[j,f])
              ->  O.1[i,f] = sum[j](P[i,j] * V[j,f]);  O[i,f] = O.1[i,f] / Z[i]
    requires: domains are explicit (`explicit_domains`).
    source:   FuseMax, section on division deferral; FlashAttention-2, section 3.1
    """
    return _Normalizer(cascade, ranks).run()


class _Normalizer:
    def __init__(self, cascade: Cascade, ranks: Ranks) -> None:
        self.cascade = cascade
        self.ranks = ranks
        self.defs: dict[str, Define] = {}
        self.seen: dict[tuple[object, ...], str] = {}
        self.lengths = lengths(cascade, ranks.of)
        self.count = 0
        self.reduced: set[str] = set()  # tensors that depend on a large reduction

    def run(self) -> Cascade:
        for d in self.cascade.body:
            expr = self.lift(d.expr, d)
            self.add(dataclasses.replace(d, expr=expr))
        return dataclasses.replace(self.cascade, body=tuple(self.defs.values()))

    def add(self, d: Define) -> None:
        self.defs[d.tensor] = d
        if is_large(d.expr, self.ranks) or any(
            (isinstance(n, Read) and n.tensor in self.reduced) for n in walk(d.expr)
        ):
            self.reduced.add(d.tensor)

    def lift(self, e: Expr, home: Define) -> Expr:
        old = children(e)
        new = tuple(self.lift(c, home) for c in old)
        if new != old:
            e = with_children(e, new)
        if not isinstance(e, Reduce) or not is_large(e, self.ranks):
            return e
        e = self.separate_features(e)
        if e.op is not Reduction.SUM:
            return self.named(e, home)
        e = self.merge(e, home)
        if is_scatter(e, self.ranks):
            return self.named(e, home)
        over = frozenset(e.indices)
        apart = conjunction(c for c in conjuncts(e.where) if not self.carried(c, over))
        undefined = False  # whether a factor outside may have no value where `apart` does not hold
        out: Expr | None = None
        for coefficient, factors in self.terms(e.body, over):
            outside = [f for f in factors if not self.carried(f[0], over)]
            inside = [f for f in factors if self.carried(f[0], over)]
            undefined |= any(reads(f) & self.defs.keys() for f, _ in outside)
            part = self.named(dataclasses.replace(e, body=product(1, inside)), home)
            term = product(abs(coefficient), [(part, 1), *outside])
            if out is None:
                out = Unary("-", term) if coefficient < 0 else term
            else:
                out = Binary("-" if coefficient < 0 else "+", out, term)
        if out is None:
            return Const(0.0)
        return Select(apart, out, Const(0.0)) if apart is not None and undefined else out

    def carried(self, e: Expr, over: frozenset[str]) -> bool:
        return bool(free(e) & over)

    def separate_features(self, e: Reduce) -> Reduce:
        """`sum[j,e](x)` -> `sum[j](sum[e](x))`."""
        small = tuple(i for i in e.indices if self.ranks.kind(i) is Kind.FEATURE)
        if not small:
            return e
        parts = conjuncts(e.where)
        inner = conjunction(c for c in parts if free(c) & set(small))
        outer = conjunction(c for c in parts if not free(c) & set(small))
        return Reduce(
            e.op,
            tuple(i for i in e.indices if i not in small),
            Reduce(e.op, small, e.body, inner, span=e.span),
            outer,
            span=e.span,
        )

    def merge(self, e: Reduce, home: Define) -> Reduce:
        """`sum[h](T[h,j])` with `T[h,j] = sum[i](x)`  ->  `sum[h,i](x)`, for a definition `home`."""
        while isinstance(e.body, Read) and e.body.tensor in self.defs:
            d = self.defs[e.body.tensor]
            if not (isinstance(d.expr, Reduce) and is_large(d.expr, self.ranks)):
                break
            if d.expr.op is not Reduction.SUM or is_scatter(d.expr, self.ranks):
                break
            inner = inline(d, e.body.subs)
            assert isinstance(inner, Reduce)
            walked = self.ranks.sequence((*home.indices, *e.indices, *inner.indices))
            if len(walked) > 2:
                break  # for every position a sum over pairs of them; one after the other, each is over one sequence
            where = conjunction((*conjuncts(e.where), *conjuncts(inner.where)))
            e = Reduce(e.op, e.indices + inner.indices, inner.body, where, span=e.span)
        return e

    # --- factors ---------------------------------------------------------------------------------------------------

    def terms(self, e: Expr, over: frozenset[str]) -> list[Term]:
        """`e` as a sum of products, opened only as far as it brings factors free of `over` to the surface."""
        match e:
            case Const(value) if not isinstance(value, bool):
                return [(value, ())]
            case Unary("-", arg):
                return [(-c, f) for c, f in self.terms(arg, over)]
            case Binary("*", a, b):
                return [
                    (c1 * c2, f1 + f2)
                    for c1, f1 in self.terms(a, over)
                    for c2, f2 in self.terms(b, over)
                ]
            case Binary("/", a, b):
                below = self.terms(b, over)
                if len(below) == 1 and below[0][0] != 0:
                    c2, f2 = below[0]
                    inverse = tuple((f, -p) for f, p in f2)
                    if isinstance(c2, int) and c2 not in (1, -1):
                        inverse += ((Const(c2), -1),)
                        c2 = 1
                    return [
                        (c / c2 if c2 not in (1, -1) else c * c2, f + inverse)
                        for c, f in self.terms(a, over)
                    ]
                return [(c, (*f, (b, -1))) for c, f in self.terms(a, over)]
            case Binary("+" | "-" as op, a, b) if self.opens(e, over):
                left, right = self.terms(a, over), self.terms(b, over)
                return left + [(-c if op == "-" else c, f) for c, f in right]
            case Read(tensor=t) if self.elementwise(t) and self.opens(e, over):
                return self.terms(inline(self.defs[t], e.subs), over)
            case _:
                return [(1, ((e, 1),))]

    def elementwise(self, tensor: str) -> bool:
        d = self.defs.get(tensor)
        return d is not None and not is_large(d.expr, self.ranks) and d.init is None

    def opens(self, e: Expr, over: frozenset[str]) -> bool:
        """Whether opening `e` frees a factor: one without `over`, beside others that carry it."""
        if not self.carried(e, over):
            return False
        match e:
            case Read(tensor=t) if self.elementwise(t):
                return self.opens(inline(self.defs[t], e.subs), over)
            case Unary("-", arg):
                return self.opens(arg, over)
            case Binary("*" | "/", a, b):
                if any(not self.carried(x, over) for x in (a, b)):
                    return True
                return self.opens(a, over) or self.opens(b, over)
            case Binary("+" | "-", a, b):
                # Distributing doubles the work: only where a weight is divided by its own reduced value.
                return any(self.normalised(x, over) for x in (a, b))
            case _:
                return False

    def normalised(self, e: Expr, over: frozenset[str]) -> bool:
        match e:
            case Read(tensor=t) if self.elementwise(t):
                return self.normalised(inline(self.defs[t], e.subs), over)
            case Unary("-", arg):
                return self.normalised(arg, over)
            case Binary("*" | "/", a, b):
                for x, y in ((a, b), (b, a)):
                    if (
                        self.carried(x, over)
                        and not self.carried(y, over)
                        and reads(y) & self.reduced
                    ):
                        return True
                return self.normalised(a, over) or self.normalised(b, over)
            case _:
                return False

    # --- names -----------------------------------------------------------------------------------------------------

    def named(self, e: Reduce, home: Define) -> Expr:
        """The reduction under a name: an existing definition of the same thing, or a new one."""
        kept = self.kept(e, home)
        names = {i: f"%{self.length(i)}{k}" for k, i in enumerate(e.indices)}
        names |= {
            i: f"%{self.length(i)}.{k}"
            for k, i in enumerate(kept)
            if i in self.ranks.sequence(kept)
        }
        key = (rename(e, names), tuple(names.get(i, i) for i in kept))
        if key not in self.seen:
            if home.expr is e or (home.expr == e):
                return e
            self.count += 1
            name = f"{home.tensor}.{self.count}"
            self.seen[key] = name
            self.add(Define(name, kept, e, span=home.span))
        return Read(self.seen[key], tuple(Index(i) for i in kept), span=e.span)

    def length(self, index: str) -> str:
        rank = self.ranks.of.get(index, index)
        return self.lengths.get(rank, rank)

    def kept(self, e: Reduce, home: Define) -> tuple[str, ...]:
        have = free(e)
        order = [*self.cascade.batch, *home.indices]
        rest = sorted(have - set(order))
        return tuple(i for i in dict.fromkeys([*order, *rest]) if i in have)
