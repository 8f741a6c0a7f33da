"""Functions that are numbers for some arguments only, kept to arguments of the domain they are read in.

    U[j,f] = log(x[j]) * V[j,f]                        where x[j] > 0
    ->
    U[j,f] = log(x[j] if x[j] > 0 else 1) * V[j,f]     where x[j] > 0

A kernel evaluates whole tiles, and what is outside a domain is masked by a 0 that multiplies it. 0 times the logarithm
of -1 is no number, in the value or in a gradient; 0 times that of 1 is 0. Conditions of two positions (`j <= i`) are
left alone: tiles have masks of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from attndsl.cascade.conditions import conjunction, conjuncts, negation
from attndsl.cascade.definedness import Conditions, defined, unique
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Reduce,
    Select,
)
from attndsl.cascade.walk import children, free, reads, walk, with_children

SAFE = {"log": 1.0, "log2": 1.0, "sqrt": 1.0, "rsqrt": 1.0, "acos": 0.0}
"""Functions that are undefined somewhere, and an argument at which they and their derivatives are finite."""


def within_domains(c: Cascade) -> Cascade:
    """With partial functions of one position evaluated inside of the domain alone.

    rewrite:  log(x[j])   where x[j] > 0   ->   log(x[j] if x[j] > 0 else 1)   where x[j] > 0
    requires: the condition names no other position than the argument does, and one at most; a divisor sums nothing,
        since a quotient of two sums over nothing is 0 by itself
    """
    if not any(_partial(n) is not None for d in c.body for n in walk(d.expr)):
        return c
    made = _Guards(c)
    body = tuple(made.define(d) for d in c.body)
    return c if body == c.body else dataclasses.replace(c, body=body)


class _Guards:
    def __init__(self, c: Cascade) -> None:
        self.batch = frozenset(c.batch)
        self.known: dict[str, tuple[tuple[str, ...], Conditions]] = {}
        self.sums: set[str] = set()

    def define(self, d: Define) -> Define:
        own = unique((*conjuncts(d.where), *defined(d.expr, self.known)))
        self.known[d.tensor] = (d.indices, own)
        if _sums(d.expr, self.sums):
            self.sums.add(d.tensor)
        if d.init is not None:
            return d
        expr = self.inside(d.expr, own)
        # A value that is read behind a guard no longer says by itself where it is defined.
        return d if expr == d.expr else dataclasses.replace(d, expr=expr, where=conjunction(own))

    def inside(self, e: Expr, given: Conditions) -> Expr:
        """With guards, where `given` holds at all points that count."""
        match e:
            case Reduce():
                own = unique((*conjuncts(e.where), *defined(e.body, self.known)))
                body = self.inside(e.body, unique((*given, *own)))
                if body == e.body:
                    return e
                return dataclasses.replace(e, body=body, where=conjunction(own))
            case Select():
                then = self.inside(e.then, (*given, *conjuncts(e.cond)))
                other = self.inside(e.other, (*given, *conjuncts(negation(e.cond))))
                return dataclasses.replace(e, then=then, other=other)
        old = children(e)
        new = tuple(self.inside(x, given) for x in old)
        if any(a is not b for a, b in zip(old, new, strict=True)):
            e = with_children(e, new)
        at = _partial(e)
        if at is None:
            return e
        k, safe = at
        arg = children(e)[k]
        if isinstance(arg, Const) or (isinstance(e, Binary) and _sums(arg, self.sums)):
            return e
        cond = conjunction(self.of_one(given, free(arg)))
        if cond is None:
            return e
        parts = list(children(e))
        parts[k] = Select(cond, arg, Const(safe), span=arg.span)
        return with_children(e, tuple(parts))

    def of_one(self, given: Iterable[Expr], named: frozenset[str]) -> list[Expr]:
        """The conditions of one position, which is among `named`."""
        out = []
        for c in given:
            over = free(c) - self.batch
            if len(over) == 1 and over <= named:
                out.append(c)
        return out


def _partial(e: Expr) -> tuple[int, float] | None:
    """Which argument must be kept inside, and a safe value of it."""
    match e:
        case Call(fn) if fn in SAFE:
            return 0, SAFE[fn]
        case Binary("/"):
            return 1, 1.0
        case Binary("**", _, Const(int() as n)) if n >= 0:
            return None
        case Binary("**"):
            return 0, 1.0
        case _:
            return None


def _sums(e: Expr, sums: Iterable[str]) -> bool:
    return any(isinstance(n, Reduce) for n in walk(e)) or not reads(e).isdisjoint(sums)
