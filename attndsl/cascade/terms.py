"""One contribution to a gradient: a product, summed over indices where conditions hold.

A definition `S[i,j] = … table[i - j + n] …` contributes to the gradient of `table[m]` the term

    sum[i,j : i - j + n == m](dS[i,j] * …)

A read at a lone index renames that index to the tensor's own; any other subscript becomes a condition, the scatter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from attndsl.cascade.definedness import Conditions, conjunction, unique
from attndsl.cascade.monomials import Monomial, expression, monomial
from attndsl.cascade.nodes import (
    Binary,
    Compare,
    Const,
    Expr,
    Index,
    Position,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.walk import free, rename


@dataclass(frozen=True, slots=True)
class Term:
    """`sum[indices : where](factor)`."""

    factor: Monomial
    indices: tuple[str, ...] = ()
    where: Conditions = ()

    def rename(self, names: Mapping[str, str]) -> Term:
        return Term(
            self.factor.map(lambda b: rename(b, names)),
            tuple(names.get(i, i) for i in self.indices),
            unique(rename(c, names) for c in self.where),
        )

    def times(self, m: Monomial) -> Term:
        """Multiplied by a factor that is free of the summed indices."""
        return Term(self.factor * m, self.indices, self.where)


def gather(
    target: tuple[str, ...],
    subs: tuple[Expr, ...],
    scope: tuple[str, ...],
    term: Term,
    fresh: Callable[[str], str],
) -> Term:
    """The contribution to `target` of a read at `subs`, made at every point of `scope`."""
    names: dict[str, str] = {}
    matched: list[tuple[Expr, str]] = []
    for own, sub in zip(target, subs, strict=True):
        if isinstance(sub, Index) and sub.name in scope and sub.name not in names:
            names[sub.name] = own
        else:
            matched.append((sub, own))
    rest = tuple(i for i in scope if i not in names)
    names |= {i: fresh(i) for i in rest if i in target}
    scatter = tuple(
        Compare("==", rename(sub, names), Index(own) if isinstance(sub, Index) else Position(own))
        for sub, own in matched
    )
    moved = Term(term.factor, rest, term.where).rename(names)
    return Term(moved.factor, moved.indices, unique((*moved.where, *scatter)))


class Writer:
    """Writes monomials as expressions; `guarded` tells the divisors that may be zero where the dividend is."""

    def __init__(self, guarded: Callable[[Expr], bool], finite: Callable[[Expr], bool]) -> None:
        self.guarded = guarded
        self.finite = finite

    def product(self, m: Monomial) -> Expr:
        """`a * b / c`; 0 where a guarded divisor is 0, as the language defines the gradient there."""
        body = expression(m)
        nonzero = tuple(
            Compare("!=", b, Const(0)) for b, p in m.powers if p < 0 and self.guarded(b)
        )
        safe = conjunction(nonzero)
        return body if safe is None else Select(safe, body, Const(0))

    def term(self, t: Term) -> Monomial:
        """A coefficient times one atom: the sum, or the product under its conditions."""
        if t.indices:
            outside, inside = self.split(t)
            where = conjunction(t.where)
            body = Reduce(Reduction.SUM, t.indices, self.product(inside), where)
            return outside * monomial(body)
        where = conjunction(t.where)
        if where is None:
            return t.factor
        sign = Monomial(Fraction(-1 if t.factor.coeff < 0 else 1))
        return sign * monomial(Select(where, self.product(sign * t.factor), Const(0)))

    def split(self, t: Term) -> tuple[Monomial, Monomial]:
        """What may stand before the sum, and what stays inside.

        Only factors that are finite everywhere, or guarded, may leave: a row without points sums to 0, which must
        not meet `exp(-M)` of an empty maximum.
        """
        summed = frozenset(t.indices)
        outside = [
            (b, p)
            for b, p in t.factor.powers
            if not (free(b) & summed) and (p < 0 or self.finite(b))
        ]
        inside = [x for x in t.factor.powers if x not in outside]
        return Monomial.of(t.factor.coeff, outside), Monomial.of(Fraction(1), inside)

    def total(self, parts: list[Monomial]) -> Expr:
        """`a + b - c`, positive parts first."""
        out: Expr | None = None
        for m in sorted(parts, key=lambda m: m.coeff < 0):
            if out is None:
                out = self.product(m)
            elif m.coeff < 0:
                out = Binary("-", out, self.product(-m))
            else:
                out = Binary("+", out, self.product(m))
        return Const(0) if out is None else out
