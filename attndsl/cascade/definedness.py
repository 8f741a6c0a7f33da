"""Where tensors and expressions are defined, as sets of conditions.

    S[i,j] = …                    where j <= i        domain of S:  {j <= i}
    P[i,j] = exp(S[i,j] - M[i])                       domain of P:  {j <= i}, by what it reads
    M[i]   = max[j](S[i,j])                           domain of M:  {}; its sum ranges over {j <= i}

A definition's own `where` is the user's condition alone; its domain is that condition and the
domains of all that it must read. In `a if c else b` only the chosen branch must be defined, so a
branch's conditions hold under `c` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from attndsl.cascade.conditions import conjunction, conjuncts, negation
from attndsl.cascade.nodes import Cascade, Expr, Index, Logic, Position, Read, Reduce, Select, Solve
from attndsl.cascade.walk import children, substitute

Conditions: TypeAlias = tuple[Expr, ...]
Domains: TypeAlias = Mapping[str, tuple[tuple[str, ...], Conditions]]
"""By tensor: its indices, and its domain over them."""


def unique(conditions: Iterable[Expr]) -> Conditions:
    """Without repetitions, in order."""
    return tuple(dict.fromkeys(conditions))


def domains(cascade: Cascade) -> dict[str, tuple[tuple[str, ...], Conditions]]:
    """The complete domain of every body tensor, over its own indices."""
    out: dict[str, tuple[tuple[str, ...], Conditions]] = {}
    for d in cascade.body:
        conditions = unique((*conjuncts(d.where), *defined(d.expr, out)))
        out[d.tensor] = (d.indices, conditions)
    return out


def defined(e: Expr, known: Domains) -> Conditions:
    """The conditions under which `e` can be evaluated, given the domains of the tensors."""
    match e:
        case Read():
            inside = tuple(c for s in e.subs for c in defined(s, known))
            if e.tensor not in known:
                return unique(inside)
            indices, conditions = known[e.tensor]
            return unique((*inside, *(at(c, indices, e.subs) for c in conditions)))
        case Reduce() | Solve():
            return ()
        case Select():
            then = tuple(
                Logic("or", (negation(e.cond), c)) for c in defined(e.then, known) if c != e.cond
            )
            no = negation(e.cond)
            other = tuple(Logic("or", (e.cond, c)) for c in defined(e.other, known) if c != no)
            return unique((*defined(e.cond, known), *then, *other))
        case _:
            return unique(c for x in children(e) for c in defined(x, known))


def at(e: Expr, indices: tuple[str, ...], subs: tuple[Expr, ...]) -> Expr:
    """An expression over a tensor's own indices, read at other subscripts."""
    local = dict(zip(indices, subs, strict=True))
    number = {i: Position(s.name) if isinstance(s, Index) else s for i, s in local.items()}
    return substitute(e, number, local)


__all__ = [
    "Conditions",
    "Domains",
    "at",
    "conjunction",
    "conjuncts",
    "defined",
    "domains",
    "negation",
    "unique",
]
