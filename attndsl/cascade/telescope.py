"""The last step of recurrences that only bring a running sum to a new pivot, as sums over all steps.

    M[t,i] = max(M[t-1,i], x[t,i])                                init m
    Z[t,i] = Z[t-1,i] * exp(M[t-1,i] - M[t,i]) + u[t,i]           init 0
    O[i]   = … Z[|t|-1,i] …
    ->
    M.last[i] = max(m, max[t](x[t,i]))
    Z.last[i] = sum[t](u[t,i] * exp(M[t,i] - M.last[i]))

The gates multiply to one quotient, `exp(M[s] - M[s+1]) … exp(M[t-1] - M[t]) = exp(M[s] - M[t])`, whatever `M` is. What
is left of the running values, `M[t]` inside of `u`, cancels (`blocks`); where it does not, the program stays as it is.

source: the running form of softmax is cascade 5 of FuseMax (Nayak et al., arXiv:2406.10491)
"""

from __future__ import annotations

import dataclasses
from functools import reduce

from attndsl.cascade.monomials import Monomial, expression, polynomial
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import bound, reads, rename, rewrite, walk


def telescoped(c: Cascade, names: Names) -> Cascade:
    """With the last steps of such recurrences as tensors of their own; as it is, where there are none."""
    found: dict[str, Define] = {}
    body: list[Define] = []
    for d in c.body:
        body.append(d)
        made = _last(c, d, found, names) if d.init is not None else None
        if made is not None:
            found[d.tensor] = made
            body.append(made)
    if not found:
        return c

    def rule(e: Expr) -> Expr | None:
        if not isinstance(e, Read) or e.tensor not in found:
            return None
        d = c.define(e.tensor)
        k, last = _time(d), Binary("-", Extent(names.root(d.indices[_time(d)])), Const(1))
        if e.subs[k] != last:
            return None
        return Read(found[e.tensor].tensor, (*e.subs[:k], *e.subs[k + 1 :]), span=e.span)

    body = [dataclasses.replace(d, expr=rewrite(d.expr, rule)) for d in body]
    return dataclasses.replace(c, body=tuple(body))


def _time(d: Define) -> int:
    axis = time_axis(d)
    assert axis is not None
    return d.indices.index(axis[0])


def _last(c: Cascade, d: Define, found: dict[str, Define], names: Names) -> Define | None:
    """What a recurrence ends in: a maximum, or a sum along one."""
    axis = time_axis(d)
    if axis is None or axis[1] != 1 or d.where is not None:
        return None
    t = axis[0]
    k = d.indices.index(t)
    past = Read(
        d.tensor,
        tuple(
            Binary("-", Position(t), Const(1)) if n == k else Index(i)
            for n, i in enumerate(d.indices)
        ),
    )
    expr = _largest(d, past, t, names) or _summed(c, d, past, t, found, names)
    if expr is None:
        return None
    indices = (*d.indices[:k], *d.indices[k + 1 :])
    return Define(names.tensor(f"{d.tensor}.last"), indices, expr, span=d.span)


def _largest(d: Define, past: Read, t: str, names: Names) -> Expr | None:
    match d.expr:
        case Call("max" | "min" as fn, (a, b)) if past in (a, b):
            x = b if a == past else a
            if d.tensor in reads(x) or d.init is None:
                return None
            over = names.index(t)
            op = Reduction.MAX if fn == "max" else Reduction.MIN
            return Call(fn, (d.init, Reduce(op, (over,), _fresh(x, {t: over}, names))))
    return None


def _summed(
    c: Cascade, d: Define, past: Read, t: str, found: dict[str, Define], names: Names
) -> Expr | None:
    terms = polynomial(d.expr).terms
    kept = [m for m in terms if m.power(past) != 0]
    added = [m for m in terms if m.power(past) == 0]
    if len(kept) != 1 or any(d.tensor in reads(expression(m)) for m in added):
        return None
    gate = kept[0] / Monomial.of(kept[0].coeff, [(past, kept[0].power(past))])
    if kept[0].coeff != 1 or kept[0].power(past) != 1 or len(gate.powers) != 1:
        return None
    pivot = _pivot(gate.powers[0][0], t, found)
    if pivot is None or d.init != Const(0):
        return None
    end = found[pivot.tensor]
    at = c.define(pivot.tensor).indices.index(t)
    last = Read(end.tensor, (*pivot.subs[:at], *pivot.subs[at + 1 :]))
    out: list[Expr] = []
    for m in added:
        over = names.index(t)
        term = Binary("*", expression(m), Call("exp", (Binary("-", pivot, last),)))
        out.append(Reduce(Reduction.SUM, (over,), _fresh(term, {t: over}, names)))
    return reduce(lambda a, b: Binary("+", a, b), out) if out else None


def _pivot(gate: Expr, t: str, found: dict[str, Define]) -> Read | None:
    """`M[t]`, where the gate is `exp(M[t-1] - M[t])`."""
    if not isinstance(gate, Call) or gate.fn != "exp":
        return None
    here = [n for n in walk(gate) if isinstance(n, Read) and n.tensor in found]
    for n in here:
        if Index(t) not in n.subs:
            continue
        before = Read(
            n.tensor,
            tuple(Binary("-", Position(t), Const(1)) if s == Index(t) else s for s in n.subs),
        )
        if polynomial(gate.args[0]) == polynomial(before) - polynomial(n):
            return n
    return None


def _fresh(e: Expr, to: dict[str, str], names: Names) -> Expr:
    """Over other indices, bound ones new: an index is bound once in a program."""
    return rename(e, {**{i: names.index(i) for i in sorted(bound(e))}, **to})
