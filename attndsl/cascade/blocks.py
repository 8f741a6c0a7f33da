"""Two-level reductions as one: what is made block by block, where the blocks' own values cancel.

    L[i,n] = max[j : j // w == n](S[i,j])
    P[i,j] = exp(S[i,j] - L[i,j//w])
    M[i]   = max[n](L[i,n]);    Z[i] = sum[n](sum[j : j // w == n](P[i,j]) * exp(L[i,n] - M[i]))
    ->
    M[i]   = max[j](S[i,j]);    Z[i] = sum[j](exp(S[i,j] - M[i]))

A reduction of reductions over the blocks is one over all positions, since a position lies in one block; and what two
exponents share with opposite signs is gone when they are one.

source: the order "local maxima first", FuseMax (Nayak et al., arXiv:2406.10491), which counts two sweeps for it
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.definedness import at
from attndsl.cascade.joined import in_blocks, same
from attndsl.cascade.monomials import Monomial, Polynomial, expression, monomial, polynomial, total
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Define,
    Expr,
    Extent,
    Position,
    Read,
    Reduce,
    Reduction,
    Unary,
)
from attndsl.cascade.walk import bound, reads, rename, rewrite, substitute


def merged_blocks(c: Cascade, names: Names) -> Cascade:
    """With reductions over blocks of reductions in them as one, and with exponents that cancel under one."""
    body: dict[str, Define] = {}
    for d in c.body:
        merge = _Merge(body, names)
        body[d.tensor] = dataclasses.replace(d, expr=rewrite(d.expr, merge.rule))
    return dataclasses.replace(c, body=tuple(body.values()))


class _Merge:
    """The rules, over the definitions that came before."""

    def __init__(self, defs: dict[str, Define], names: Names) -> None:
        self.defs = defs
        self.names = names

    def rule(self, e: Expr) -> Expr | None:
        if not isinstance(e, Reduce):
            return None
        made = e
        while (flat := self.flattened(made)) is not None:
            made = flat
        if made.op is Reduction.SUM:
            made = self.cancelled(made)
        return None if made is e else made

    # --- reductions of reductions ---

    def flattened(self, e: Reduce) -> Reduce | None:
        """`op[n](op[j : j // w == n](x) …)  ->  op[j](x …)`."""
        found = self.opened(e.body, e)
        if found is None:
            return None
        inner, body, n, block = found
        (j,) = inner.indices
        parts = (*conjuncts(e.where), *conjuncts(inner.where))
        here = Compare("==", block, Position(n))
        where = conjunction(
            (*self.covered(block, n), *(substitute(c, {n: block}) for c in parts if c != here))
        )
        indices = tuple(j if i == n else i for i in e.indices)
        return dataclasses.replace(
            e, indices=indices, body=substitute(body, {n: block}), where=where
        )

    def covered(self, block: Expr, n: str) -> tuple[Expr, ...]:
        """The condition under which a position lies in a block that `n` counts."""
        count = self.count(n)
        match block:
            case Binary("//", Position(j), width):
                return (in_blocks(j, width, count),)
            case _:  # a block of a block: `opened` has seen that all are counted
                return ()

    def count(self, n: str) -> Expr:
        root = self.names.root(n)
        return self.names.ranks[root].extent or Extent(root)

    def opened(self, e: Expr, outer: Reduce) -> tuple[Reduce, Expr, str, Expr] | None:
        """The inner reduction as a factor of the outer's body, the body with its terms in its place, the outer's index
        and which of its points a position belongs to.
        """
        inner = self.named(e)
        if isinstance(inner, Reduce) and inner.op is outer.op and len(inner.indices) == 1:
            for c in conjuncts(inner.where):
                match c:
                    case Compare("==", Binary("//", Position(j), width), Position(n)) if (
                        inner.indices == (j,) and n in outer.indices
                    ):
                        return inner, inner.body, n, Binary("//", Position(j), width)
                    case Compare(
                        "==",
                        Binary("//", Binary("%", Position(j), whole), width) as block,
                        Position(n),
                    ) if (
                        inner.indices == (j,)
                        and n in outer.indices
                        and same(whole, Binary("*", self.count(n), width))
                    ):
                        return inner, inner.body, n, block
        if outer.op is not Reduction.SUM:
            return None
        match e:
            case Binary("*" | "/" as op, a, b):
                left = self.opened(a, outer)
                if left is not None:
                    return left[0], Binary(op, left[1], b), *left[2:]
                right = self.opened(b, outer) if op == "*" else None
                if right is not None:
                    return right[0], Binary(op, a, right[1]), *right[2:]
            case Unary("-", a):
                below = self.opened(a, outer)
                if below is not None:
                    return below[0], Unary("-", below[1]), *below[2:]
        return None

    def named(self, e: Expr) -> Expr:
        """What a tensor is made of, with bound indices of its own; a reduction as it stands."""
        if not isinstance(e, Read) or e.tensor not in self.defs:
            return e
        d = self.defs[e.tensor]
        if d.init is not None or d.where is not None or not isinstance(d.expr, Reduce):
            return e
        own = rename(d.expr, {i: self.names.index(i) for i in sorted(bound(d.expr))})
        return at(own, d.indices, e.subs)

    # --- exponents ---

    def cancelled(self, e: Reduce) -> Reduce:
        """`exp(S - L) * exp(L - M)  ->  exp(S - M)`, where something is gone with it."""
        m = monomial(e.body)
        exponent = Polynomial()
        seen: set[str] = set()
        conditions: list[Expr] = []
        rest: list[tuple[Expr, Fraction]] = []
        taken = 0
        for base, power in m.powers:
            x = self.exponent(base, conditions)
            if x is None or power != 1:
                rest.append((base, power))
                continue
            taken += 1
            seen |= reads(x)
            exponent = exponent + polynomial(x)
        whole = total(exponent)
        if taken < 2 or not seen - reads(whole):
            return e
        term = Monomial.of(m.coeff, [*rest, (Call("exp", (whole,)), Fraction(1))])
        where = conjunction((*conjuncts(e.where), *conditions))
        return dataclasses.replace(e, body=expression(term), where=where)

    def exponent(self, e: Expr, conditions: list[Expr]) -> Expr | None:
        match e:
            case Call("exp", (x,)):
                return x
            case Read() if e.tensor in self.defs:
                d = self.defs[e.tensor]
                match d.expr:
                    case Call("exp", (x,)) if d.init is None:
                        if d.where is not None:
                            conditions.append(at(d.where, d.indices, e.subs))
                        return at(x, d.indices, e.subs)
        return None


def alive(c: Cascade) -> Cascade:
    """Without definitions that no output is made from."""
    needed = {o.name for o in c.outputs}
    kept: list[Define] = []
    for d in reversed(c.body):
        if d.tensor in needed:
            kept.append(d)
            for e in (d.expr, d.where, d.init):
                needed |= reads(e) if e is not None else set()
    return dataclasses.replace(c, body=tuple(reversed(kept)))
