"""A sum of several normalised weights as one sum for each, of which the backward pass has use.

before:  O[i,f] = sum[j]((P[i,j] / Z[i] - lam * R[i,j] / Y[i]) * V[j,f])
after:   A[i,f] = sum[j](P[i,j] * V[j,f] / Z[i]);   B[i,f] = sum[j](R[i,j] * V[j,f] / Y[i])
         O[i,f] = A[i,f] - lam * B[i,f]

Each term runs on a maximum of its own, so that a kernel carries one sum for each anyway. With its value kept, the row
sum of a normaliser's gradient is `sum[f](A * dO)`, and takes no sweep over all `j`; and a gradient with respect to
`lam` is one of rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction

from attndsl.cascade.definedness import Domains, conjunction, conjuncts, defined, unique
from attndsl.cascade.monomials import Monomial, Polynomial, expression, monomial, polynomial, total
from attndsl.cascade.nodes import Cascade, Define, Expr, Index, Read, Reduce, Reduction
from attndsl.cascade.walk import free, reads, walk


def parted(
    cascade: Cascade, domains: Domains, fresh: Callable[[str], str]
) -> tuple[Cascade, dict[str, Expr]]:
    """The cascade with such sums in parts, and what each new name stands for; `fresh` makes a tensor name of a stem."""
    body: list[Define] = []
    named: dict[str, Expr] = {}
    defs = {d.tensor: d for d in cascade.body}
    inputs = frozenset(t.name for t in cascade.inputs)
    for d in cascade.body:
        terms = _terms(d, defs) if d.init is None else None
        if terms is None:
            body.append(d)
            continue
        assert isinstance(d.expr, Reduce)
        sums: list[Monomial] = []
        everywhere = unique((*conjuncts(d.expr.where), *defined(d.expr.body, domains)))
        for term in terms:
            outside = _outside(term, frozenset(d.expr.indices), inputs)
            inside = expression(term / outside)
            own = defined(inside, domains)
            where = conjunction(tuple(c for c in everywhere if c not in own))
            value = Reduce(Reduction.SUM, d.expr.indices, inside, where, span=d.expr.span)
            name = fresh(d.tensor)
            named[name] = value
            body.append(Define(name, d.indices, value, d.where, span=d.span))
            read = Read(name, tuple(Index(i) for i in d.indices), span=d.span)
            sums.append(outside * monomial(read))
        body.append(dataclasses.replace(d, expr=total(Polynomial.of(sums))))
    return dataclasses.replace(cascade, body=tuple(body)), named


def extremes_apart(
    cascade: Cascade, sequence: frozenset[str], fresh: Callable[[str], str]
) -> tuple[Cascade, dict[str, Expr]]:
    """Maxima that are outputs with features by names of their own; `sequence` has the ranks that are sequences.

    Outputs are rounded to the inputs' type, and a gradient asks which terms are equal to the maximum.
    """
    body: list[Define] = []
    named: dict[str, Expr] = {}
    outputs = {o.name for o in cascade.outputs}
    for d in cascade.body:
        match d.expr:
            case Reduce(op=Reduction.MAX | Reduction.MIN) if d.tensor in outputs and {
                *d.indices
            } - sequence - {*cascade.batch}:
                name = fresh(d.tensor)
                named[name] = d.expr
                read = Read(name, tuple(Index(i) for i in d.indices), span=d.span)
                body.append(dataclasses.replace(d, tensor=name))
                body.append(dataclasses.replace(d, expr=read))
            case _:
                body.append(d)
    return dataclasses.replace(cascade, body=tuple(body)), named


def _terms(d: Define, defs: dict[str, Define]) -> tuple[Monomial, ...] | None:
    """The terms of a sum, if each is divided by a sum of its own over the same indices."""
    match d.expr:
        case Reduce(op=Reduction.SUM, indices=indices, body=inner):
            terms = polynomial(inner).terms
        case _:
            return None
    divisors = [_divisors(t, frozenset(indices), defs) for t in terms]
    if len(terms) < 2 or not all(divisors) or len({*divisors}) < len(terms):
        return None
    return terms


def _divisors(m: Monomial, summed: frozenset[str], defs: dict[str, Define]) -> frozenset[str]:
    """The sums of rows that a term is divided by."""
    below = (b for b, p in m.powers if p < 0 and not free(b) & summed)
    return frozenset(n for b in below for n in reads(b) if _sums(n, defs))


def _sums(name: str, defs: dict[str, Define]) -> bool:
    return name in defs and any(isinstance(n, Reduce) for n in walk(defs[name].expr))


def _outside(m: Monomial, summed: frozenset[str], inputs: frozenset[str]) -> Monomial:
    """The sign, and factors of inputs alone, that are the same for all that is summed."""
    sign = Fraction(-1 if m.coeff < 0 else 1)
    rows = [
        (b, p)
        for b, p in m.powers
        if p > 0 and not free(b) & summed and reads(b) and reads(b) <= inputs
    ]
    return Monomial.of(sign, rows)
