"""Name the reductions that stand inside nonlinear expressions.

before:  O[i,f] = sum[j](relu(X[i,j]) / (sum[k](abs(X[i,k])) + eps) * V[j,f])
after:   O_1[i] = sum[k](abs(X[i,k]))
         O[i,f] = sum[j](relu(X[i,j]) / (O_1[i] + eps) * V[j,f])

A reduction may stay where the definition is linear in it (`sum[e](Q*K) / sqrt(|e|) - slope*(i-j)`):
its derivative does not need its value. Any other one gets a name, so that its value can be kept and
its gradient is one tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from attndsl.cascade.definedness import Conditions, conjunction, conjuncts, negation
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Define,
    Expr,
    Index,
    Local,
    Read,
    Reduce,
    Reduction,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.walk import children, free, reads, walk, with_children


def hoist(
    cascade: Cascade, constant: Callable[[Expr], bool], fresh: Callable[[str], str]
) -> tuple[Cascade, dict[str, Expr]]:
    """The cascade with its nonlinear inner reductions named, and what each new name stands for.

    `constant` tells expressions that carry no gradient; `fresh` makes a tensor name of a stem.
    """
    body: list[Define] = []
    named: dict[str, Expr] = {}
    for d in cascade.body:
        lift = _Lift(d, constant, fresh)
        expr = lift.top(d.expr)
        body += [*lift.made, dataclasses.replace(d, expr=expr)]
        named |= {m.tensor: m.expr for m in lift.made}
    return dataclasses.replace(cascade, body=tuple(body)), named


class _Lift:
    def __init__(
        self, define: Define, constant: Callable[[Expr], bool], fresh: Callable[[str], str]
    ) -> None:
        self.define = define
        self.constant = constant
        self.fresh = fresh
        self.made: list[Define] = []

    def top(self, e: Expr, given: Conditions = ()) -> Expr:
        """The right side of a definition: a reduction may be its root."""
        match e:
            case Reduce():
                body = self.inner(e.body, e.op is Reduction.SUM, given)
                where = None if e.where is None else self.inner(e.where, False, given)
                return dataclasses.replace(e, body=body, where=where)
            case Solve():
                equation = dataclasses.replace(
                    e.equation,
                    left=self.inner(e.equation.left, True, given),
                    right=self.inner(e.equation.right, True, given),
                )
                lo, hi = self.inner(e.lo, False, given), self.inner(e.hi, False, given)
                return dataclasses.replace(e, lo=lo, hi=hi, equation=equation)
            case _:
                return self.inner(e, True, given)

    def inner(self, e: Expr, linear: bool, given: Conditions) -> Expr:
        match e:
            case Reduce(op=Reduction.SUM) if linear:
                return self.top(e, given)
            case Reduce() | Solve():
                return self.name(self.top(e, given), given)
            case Unary("-", arg):
                return dataclasses.replace(e, arg=self.inner(arg, linear, given))
            case Binary("+" | "-", left, right):
                left, right = self.inner(left, linear, given), self.inner(right, linear, given)
                return dataclasses.replace(e, left=left, right=right)
            case Binary("*" | "/" as op, left, right):
                a = self.inner(left, linear and self.plain(right), given)
                b = self.inner(right, linear and op == "*" and self.plain(left), given)
                return dataclasses.replace(e, left=a, right=b)
            case Select():
                then = self.inner(e.then, linear, (*given, *conjuncts(e.cond)))
                other = self.inner(e.other, linear, (*given, negation(e.cond)))
                cond = self.inner(e.cond, False, given)
                return dataclasses.replace(e, cond=cond, then=then, other=other)
            case _:
                old = children(e)
                return with_children(e, tuple(self.inner(c, False, given) for c in old))

    def plain(self, e: Expr) -> bool:
        """A factor that neither carries a gradient nor contains a reduction."""
        return self.constant(e) and not any(isinstance(n, Reduce | Solve) for n in walk(e))

    def name(self, e: Expr, given: Conditions) -> Expr:
        if any(isinstance(n, Local) for n in walk(e)) and not isinstance(e, Solve):
            return e  # inside an equation: its value depends on the unknown
        if self.define.tensor in reads(e):
            return e  # inside a recurrence: its value depends on the step before
        indices = self.ordered(free(e))
        for m in self.made:
            if m.expr == e:
                return Read(m.tensor, tuple(Index(i) for i in m.indices), span=e.span)
        tensor = self.fresh(self.define.tensor)
        known = (*conjuncts(self.define.where), *given)
        where = conjunction(tuple(c for c in known if free(c) <= frozenset(indices)))
        self.made.append(Define(tensor, indices, e, where, span=e.span))
        return Read(tensor, tuple(Index(i) for i in indices), span=e.span)

    def ordered(self, names: frozenset[str]) -> tuple[str, ...]:
        own = tuple(i for i in self.define.indices if i in names)
        return own + tuple(sorted(names - frozenset(own)))
