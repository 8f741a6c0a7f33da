"""The sum swap: a sum that the forward program has computed already is read instead of computed again.

before:  D[i] = sum[j](P[i,j] * sum[f](dO[i,f] * V[j,f])) / Z[i]        a sweep over all j
after:   D[i] = sum[f](dO[i,f] * O[i,f])                where O[i,f] = sum[j](P[i,j] * V[j,f]) / Z[i]

Every tensor that is `outer * sum[J](factors)` is listed once. A term contains it when, for some of
the term's summed indices, the factors that carry them are exactly `factors`, and they range over
the same domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations

from attndsl.cascade.definedness import Conditions, Domains, at, conjuncts, defined, unique
from attndsl.cascade.monomials import Monomial, Powers, monomial, raised
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Define,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
    Unary,
)
from attndsl.cascade.scales import unsigned
from attndsl.cascade.terms import Term
from attndsl.cascade.walk import free, rename, walk


@dataclass(frozen=True, slots=True)
class Contraction:
    """`tensor[indices] = outer * sum[summed : where](factors)`."""

    tensor: str
    indices: tuple[str, ...]
    outer: Monomial
    summed: tuple[str, ...]
    factors: Powers
    where: Conditions


class Contractions:
    """All sums of products that a cascade computes; outputs first, since they are there anyway."""

    def __init__(self, cascade: Cascade, domains: Domains) -> None:
        self.products = {d.tensor: d for d in cascade.body if _is_product(d)}
        found: dict[str, Contraction] = {}
        for d in cascade.body:
            c = self._contraction(d, domains, found)
            if c is not None:
                found[d.tensor] = c
        outputs = {o.name for o in cascade.outputs}
        self.found = sorted(found.values(), key=lambda c: c.tensor not in outputs)

    def expand(self, m: Monomial) -> Monomial:
        """Read through tensors that are plain products: `A[i,j]` becomes `P[i,j] / Z[i]`."""
        out = Monomial(m.coeff)
        for base, power in m.powers:
            inner = self._product(base)
            if inner is None or power.denominator != 1:
                out *= Monomial.of(Fraction(1), [(base, power)])
            else:
                out *= raised(self.expand(inner), power)
        return out

    def _product(self, e: Expr) -> Monomial | None:
        if not (isinstance(e, Read) and e.tensor in self.products):
            return None
        d = self.products[e.tensor]
        return monomial(at(d.expr, d.indices, e.subs))

    def _contraction(
        self, d: Define, domains: Domains, found: Mapping[str, Contraction]
    ) -> Contraction | None:
        if domains[d.tensor][1] or d.init is not None:
            return None  # not defined wherever the sum is
        outer = self.expand(monomial(d.expr))
        sums = [
            (b, p)
            for b, p in outer.powers
            if isinstance(b, Reduce) or (isinstance(b, Read) and b.tensor in found)
        ]
        if len(sums) != 1 or sums[0][1] != 1:
            return None
        match sums[0][0]:
            case Reduce(Reduction.SUM, indices, body, where):
                inside = self.expand(monomial(body))
                ranges = unique((*conjuncts(where), *defined(body, domains)))
            case Read() as read:
                c = found[read.tensor]
                inside = Monomial.of(Fraction(1), c.factors) * c.outer
                inside = inside.map(lambda b: at(b, c.indices, read.subs))
                indices = c.summed
                ranges = tuple(at(w, c.indices, read.subs) for w in c.where)
            case _:
                return None
        if any(isinstance(n, Reduce) for b, _ in inside.powers for n in walk(b)):
            return None
        carried = tuple((b, p) for b, p in inside.powers if free(b) & frozenset(indices))
        rest = Monomial.of(inside.coeff, [x for x in inside.powers if x not in carried])
        outer = outer / monomial(sums[0][0]) * rest
        if any(p > 0 and any(isinstance(n, Read) for n in walk(b)) for b, p in outer.powers):
            return None  # the sum cannot be had back from the tensor where such a factor is 0
        return Contraction(d.tensor, d.indices, outer, indices, carried, ranges)

    def swap(self, term: Term) -> Term | None:
        """The term with one of its sums replaced by a read; None if there is none to replace."""
        expanded = Term(unsigned(self.expand(term.factor)), term.indices, term.where)
        for c in self.found:
            for chosen in permutations(term.indices, len(c.summed)):
                new = _match(expanded, c, chosen)
                if new is not None:
                    return new
        return None


def swapped(
    term: Term, table: Contractions, expansions: Callable[[Term], Iterator[list[Term]]]
) -> list[Term]:
    """The term with every known sum in it replaced.

    `expansions` rewrites a term into equal sums of terms, in which gradients are written out; one
    of them is taken only if a sum is found in each of its terms.
    """
    new = table.swap(term)
    if new is not None:
        return swapped(new, table, expansions)
    for parts in expansions(term):
        found = [table.swap(p) for p in parts]
        if all(f is not None for f in found):
            return [t for f in found if f is not None for t in swapped(f, table, expansions)]
    return [term]


def _is_product(d: Define) -> bool:
    """Elementwise, and a product or quotient of other things."""
    if (
        d.where is not None
        or d.init is not None
        or any(isinstance(n, Reduce) for n in walk(d.expr))
    ):
        return False
    match d.expr:
        case Binary("*" | "/", _, _) | Unary("-", _) | Read():
            return True
        case _:
            return False


def _match(term: Term, c: Contraction, chosen: tuple[str, ...]) -> Term | None:
    """`term` with `sum[chosen]` read from `c`."""
    summed = frozenset(chosen)
    inner = [(b, p) for b, p in term.factor.powers if free(b) & summed]
    if len(inner) != len(c.factors):
        return None
    ranges = tuple(w for w in term.where if free(w) & summed)
    for names in _assign(list(c.factors), inner, dict(zip(c.summed, chosen, strict=True))):
        if any(i not in names for i in c.indices):
            continue
        asked = frozenset(rename(w, names) for w in c.where)
        if not (frozenset(ranges) <= asked <= frozenset(term.where)):
            continue
        if {names[i] for i in c.indices} & summed:
            continue
        value = Read(c.tensor, tuple(Index(names[i]) for i in c.indices))
        outer = c.outer.map(lambda b, n=names: rename(b, n))  # type: ignore[misc]
        rest = Monomial.of(term.factor.coeff, [x for x in term.factor.powers if x not in inner])
        return Term(
            rest * monomial(value) / outer,
            tuple(i for i in term.indices if i not in summed),
            tuple(w for w in term.where if w not in ranges),
        )
    return None


def _assign(
    pattern: list[tuple[Expr, Fraction]],
    given: list[tuple[Expr, Fraction]],
    names: dict[str, str],
) -> Iterator[dict[str, str]]:
    """The ways to rename indices so that the factors of `pattern` become those of `given`."""
    if not pattern:
        yield names
        return
    base, power = pattern[0]
    for k, (other, p) in enumerate(given):
        more = _unify(base, other, names) if p == power else None
        if more is not None:
            yield from _assign(pattern[1:], given[:k] + given[k + 1 :], more)


def _unify(a: Expr, b: Expr, names: dict[str, str]) -> dict[str, str] | None:
    """Extend a renaming of indices so that `a` becomes `b`."""
    mine, theirs = ([n.name for n in walk(e) if isinstance(n, Index | Position)] for e in (a, b))
    if len(mine) != len(theirs):
        return None
    out = dict(names)
    for x, y in zip(mine, theirs, strict=True):
        if out.setdefault(x, y) != y:
            return None
    if len(set(out.values())) != len(out):
        return None
    return out if rename(a, out) == b else None
