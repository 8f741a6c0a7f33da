"""The backward program while it is written: definitions, each value once, sums in the form that kernels like."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction

from attndsl.cascade.definedness import Conditions, Domains, conjunction, defined, unique
from attndsl.cascade.monomials import Monomial, Polynomial, expression, monomial
from attndsl.cascade.names import Names
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
)
from attndsl.cascade.terms import Term, pinned
from attndsl.cascade.walk import free, rename, walk


class Emitter:
    """Collects definitions in `made`.

    `fold` rewrites a product just before it is written; `guarded` tells the divisors that may be
    zero together with their dividend, `finite` the factors that may leave a sum which can be empty.
    """

    def __init__(
        self,
        cascade: Cascade,
        names: Names,
        sequence: frozenset[str],
        domains: Domains,
        fold: Callable[[Monomial], Monomial],
        guarded: Callable[[Expr], bool],
        finite: Callable[[Expr], bool],
    ) -> None:
        self.names = names
        self.sequence = sequence
        self.batch = cascade.batch
        self.fold = fold
        self.guarded = guarded
        self.finite = finite
        self.made: list[Define] = []
        self.domains = dict(domains)
        self.values: dict[Expr, Read] = {}
        self.sums: dict[str, list[Term]] = {}
        """By tensor: the terms that it is the sum of, for the sum swap."""

    # --- definitions ---

    def define(
        self,
        tensor: str,
        indices: tuple[str, ...],
        expr: Expr,
        domain: Conditions = (),
        init: Expr | None = None,
    ) -> Read:
        """Add a definition, with the conditions of its domain that do not follow from what it reads."""
        implied = defined(expr, self.domains)
        where = tuple(c for c in domain if c not in implied)
        self.domains[tensor] = (indices, unique((*domain, *implied)))
        self.made.append(Define(tensor, indices, expr, conjunction(where), init))
        out = Read(tensor, tuple(Index(i) for i in indices))
        if isinstance(expr, Reduce) and not where:
            self.values.setdefault(canonical(expr), out)
        return out

    def value(self, e: Reduce, stem: str) -> Read:
        """The tensor of this value, made at its first use."""
        key = canonical(e)
        if key not in self.values:
            self.define(self.names.tensor(stem), self.ordered(free(e)), e)
        return self.values[key]

    def ordered(self, indices: frozenset[str]) -> tuple[str, ...]:
        """Indices in the order of the program's ranks, batch first."""
        order = [*self.batch, *self.names.ranks]
        return tuple(sorted(indices, key=order.index))

    # --- products and sums ---

    def product(self, m: Monomial) -> Expr:
        """`a * b / c`; 0 where a guarded divisor is 0, as the language defines the gradient there."""
        m = self.fold(m)
        body = expression(m)
        zero = tuple(Compare("!=", b, Const(0)) for b, p in m.powers if p < 0 and self.guarded(b))
        safe = conjunction(zero)
        return body if safe is None else Select(safe, body, Const(0))

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

    def parts(self, terms: list[Term], domain: Conditions, stem: str) -> list[Monomial]:
        """Terms at the points of `domain`, like ones collected; a sum is one factor of its part."""
        chosen = (pinned(t, self.names) for t in terms)
        written = [self.term(self.contracted(t, stem), domain) for t in chosen]
        return list(Polynomial.of(written).terms)

    def term(self, t: Term, domain: Conditions) -> Monomial:
        """A sum with the factors that may stand before it; or a product, under its conditions."""
        if not t.indices:
            where = conjunction(tuple(c for c in t.where if c not in domain))
            if where is None:
                return t.factor
            sign = Monomial(Fraction(-1 if t.factor.coeff < 0 else 1))
            return sign * monomial(Select(where, self.product(sign * t.factor), Const(0)))
        outside, inside = self.split(self.fold(t.factor), t, domain)
        body = self.product(inside)
        implied = (*domain, *defined(body, self.domains))
        where = conjunction(tuple(c for c in t.where if c not in implied))
        total = Reduce(Reduction.SUM, t.indices, body, where)
        known = self.values.get(canonical(total))
        return outside * monomial(total if known is None else known)

    def split(self, m: Monomial, t: Term, domain: Conditions) -> tuple[Monomial, Monomial]:
        """What may stand before a sum, and what stays inside.

        Only factors that are finite everywhere, or guarded, may leave: a row without points sums to
        0, which must not meet `exp(-M)` of an empty maximum. And they must be defined everywhere.
        """

        def leaves(base: Expr, power: Fraction) -> bool:
            if free(base) & frozenset(t.indices):
                return False
            everywhere = all(c in domain for c in defined(base, self.domains))
            return everywhere and (power < 0 or self.finite(base))

        outside = [(b, p) for b, p in m.powers if leaves(b, p)]
        inside = [x for x in m.powers if x not in outside]
        return Monomial.of(m.coeff, outside), Monomial.of(Fraction(1), inside)

    # --- matrix products ---

    def is_pair(self, indices: frozenset[str]) -> bool:
        """Two sequences at least: a matrix that is never kept."""
        return sum(self.names.root(i) in self.sequence for i in indices) > 1

    def contracted(self, t: Term, stem: str) -> Term:
        """A sum over features inside becomes a tensor of its own: `dP[i,j] = sum[f](V[j,f] * dO[i,f])`.

        Only where it is over a pair of sequences, which is a matrix product; it is made once for
        all its uses.
        """
        held = frozenset(i for c in t.where for i in free(c))
        kept = self.sequence | frozenset(self.batch) | held
        inner = frozenset(i for i in t.indices if i not in held and self.names.root(i) not in kept)
        chosen = [(b, p) for b, p in t.factor.powers if free(b) & inner]
        around = frozenset(i for b, _ in chosen for i in free(b)) - inner
        if not chosen or not self.is_pair(around):
            return t
        order = tuple(i for i in t.indices if i in inner)
        rest = Monomial.of(t.factor.coeff, [x for x in t.factor.powers if x not in chosen])
        weights = [
            b.tensor for b, _ in rest.powers if isinstance(b, Read) and self.is_pair(free(b))
        ]
        if weights:
            stem = f"d{weights[0]}"
        dot = self.matrix(Term(Monomial.of(Fraction(1), chosen), order), around, stem)
        return Term(rest * monomial(dot), tuple(i for i in t.indices if i not in inner), t.where)

    def matrix(self, t: Term, around: frozenset[str], stem: str) -> Read:
        """The tensor of a sum over features, over the program's own indices."""
        names: dict[str, str] = {}
        for i in self.ordered(around):
            root = self.names.root(i)
            names[i] = i if root in names.values() or root in t.indices else root
        own = t.rename(names)
        made = self.value(Reduce(Reduction.SUM, own.indices, self.product(own.factor)), stem)
        self.sums.setdefault(made.tensor, [own])
        back = {new: old for old, new in names.items()}
        return dataclasses.replace(made, subs=tuple(rename(s, back) for s in made.subs))


def canonical(e: Expr) -> Expr:
    """With bound indices named by their place, so that equal sums are equal."""
    bound: dict[str, str] = {}
    for n in walk(e):
        if isinstance(n, Reduce):
            for i in n.indices:
                bound.setdefault(i, f"#{len(bound)}")
    return rename(e, bound)
