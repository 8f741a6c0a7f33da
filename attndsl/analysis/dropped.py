"""Conditions that a reduction drops: what it reads is defined at some points, and its value is at all of them.

    D[i,j] = log(1 + i - j)                                 where j <= i
    S[i,j] = Q[i,e] * K[j,e] + sum[m](w[m] * tanh(D[i,j]))

`S` is defined for all keys, since a sum over no points is 0; whoever wrote this meant `j <= i` for `S` too. A
condition that `S` has besides, or one that its own imply, is not dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attndsl.cascade.conditions import conjuncts
from attndsl.cascade.definedness import Conditions, Domains, at, domains
from attndsl.cascade.nodes import Cascade, Define, Expr, Read, Reduce
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import children, free
from attndsl.source import Span


@dataclass(frozen=True, slots=True)
class Dropped:
    """`tensor` is defined beyond `condition`, which `read` has."""

    tensor: str
    read: str
    condition: str
    span: Span | None


def dropped(c: Cascade) -> list[Dropped]:
    """One for each read whose condition names kept indices alone; outputs are 0 outside in either case."""
    known = domains(c)
    outputs = {o.name for o in c.outputs}
    batch = frozenset(c.batch)
    out = []
    for d in c.body:
        if d.tensor in outputs or d.init is not None:
            continue
        own = known[d.tensor][1]
        for e in _inside(d.expr, frozenset()):
            lost = [x for x in _conditions(e, known) if free(x) - batch and not _said(x, own, d)]
            if lost:
                text = ", ".join(print_expr(x) for x in lost)
                out.append(Dropped(d.tensor, e.tensor, text, e.span))
    return out


def _inside(e: Expr, held: frozenset[str]) -> Iterator[Read]:
    """Reads in reductions that carry none of the indices reduced over."""
    if isinstance(e, Read) and held and not free(e) & held:
        yield e
    more = held | frozenset(e.indices) if isinstance(e, Reduce) else held
    for x in children(e):
        yield from _inside(x, more)


def _conditions(e: Read, known: Domains) -> Conditions:
    if e.tensor not in known:
        return ()
    indices, conditions = known[e.tensor]
    return tuple(at(x, indices, e.subs) for x in conditions)


def _said(x: Expr, own: Conditions, d: Define) -> bool:
    """Whether the definition asks for as much somewhere itself: in its domain, or around the read."""
    everywhere = {*own, *(k for e in _filters(d.expr) for k in conjuncts(e))}
    named = free(x)
    return any(k == x or (named <= free(k) and k in own) for k in everywhere)


def _filters(e: Expr) -> Iterator[Expr]:
    if isinstance(e, Reduce) and e.where is not None:
        yield e.where
    for x in children(e):
        yield from _filters(x)
