"""Where tensors are defined: the domains of a cascade made explicit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import assert_never

from attndsl.cascade.conditions import conjunction, disjunction, negation
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Leaf,
    Local,
    Logic,
    Param,
    Position,
    Read,
    Reduce,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import children, free, substitute, with_children
from attndsl.diagnostics import Diagnostic, DiagnosticError
from attndsl.internal import InternalError


def explicit_domains(cascade: Cascade) -> Cascade:
    """Complete every domain.

    rewrite:  S[i,j] = … where j <= i;  P[i,j] = exp(S[i,j] - M[i])   ->   P[i,j] = exp(…)  where j <= i
              O[i,f] = sum[j](P[i,j] * V[j,f])                        ->   O[i,f] = sum[j : j <= i](…)
    A `where` that is None afterwards means everywhere. Reductions are defined everywhere (over no points they are their
    identity), so a domain never goes through one.

    Raises `DiagnosticError` A0246 for a recurrence that is undefined at some of its steps.
    """
    domains: dict[str, tuple[tuple[str, ...], Expr | None]] = {}
    body = []
    for d in cascade.body:
        if d.init is not None:
            domains[d.tensor] = (d.indices, d.where)
        expr = _complete(d.expr, domains)
        where = None if d.where is None else _complete(d.where, domains)
        init = None if d.init is None else _complete(d.init, domains)
        domain = conjunction((where, _domain(d.where, domains), _domain(d.expr, domains)))
        time = time_axis(d)
        if time is not None and domain is not None and time[0] in free(domain):
            raise DiagnosticError(_cut(d, time[0]))
        domains[d.tensor] = (d.indices, domain)
        body.append(dataclasses.replace(d, expr=expr, where=domain, init=init))
    return dataclasses.replace(cascade, body=tuple(body))


def _cut(d: Define, time: str) -> Diagnostic:
    return Diagnostic(
        "A0246",
        f"the domain of the recurrence `{d.tensor}` names `{time}`",
        d.span,
        "it reads what is undefined at some steps, and after such a step every later one is undefined too",
        "choose inside the step: `… if … else …`",
    )


def _complete(e: Expr, domains: Mapping[str, tuple[tuple[str, ...], Expr | None]]) -> Expr:
    """Every reduction inside with its complete `where`."""
    old = children(e)
    new = tuple(_complete(c, domains) for c in old)
    out = e if all(a is b for a, b in zip(old, new, strict=True)) else with_children(e, new)
    if isinstance(e, Reduce):
        assert isinstance(out, Reduce)
        where = conjunction((out.where, _domain(e.where, domains), _domain(e.body, domains)))
        out = dataclasses.replace(out, where=where)
    return out


def _domain(
    e: Expr | None, domains: Mapping[str, tuple[tuple[str, ...], Expr | None]]
) -> Expr | None:
    """The condition under which an expression is defined; None if always."""

    def of(x: Expr) -> Expr | None:
        return _domain(x, domains)

    match e:
        case None | Const() | Param() | Extent() | Index() | Position() | Local() | Reduce():
            return None
        case Read():
            return conjunction((*(of(s) for s in e.subs), _read_domain(e, domains)))
        case Unary() | Binary() | Compare() | Call() | Solve():
            return conjunction(of(c) for c in children(e))
        case Logic():
            # looked at from left to right, and only as far as needed
            out = of(e.args[0])
            for k, arg in enumerate(e.args[1:], 1):
                needed = of(arg)
                if needed is not None:
                    before = e.args[0] if k == 1 else Logic(e.op, e.args[:k])
                    decided = negation(before) if e.op == "and" else before
                    out = conjunction((out, disjunction(decided, needed)))
            return out
        case Select():
            then, other = of(e.then), of(e.other)
            if then == other:
                return conjunction((of(e.cond), then))
            no = negation(e.cond)
            if then is None:
                chosen = disjunction(e.cond, other)
            elif other is None:
                chosen = disjunction(no, then)
            else:
                chosen = disjunction(conjunction((e.cond, then)), conjunction((no, other)))
            return conjunction((of(e.cond), chosen))
        case Leaf():
            raise InternalError(f"`{type(e).__name__}` in a cascade")
        case _:
            assert_never(e)


def _read_domain(
    e: Read, domains: Mapping[str, tuple[tuple[str, ...], Expr | None]]
) -> Expr | None:
    indices, domain = domains.get(e.tensor, ((), None))
    if domain is None:
        return None
    as_number: dict[str, Expr] = {}
    for i, sub in zip(indices, e.subs, strict=True):
        as_number[i] = Position(sub.name, span=sub.span) if isinstance(sub, Index) else sub
    return substitute(domain, as_number, dict(zip(indices, e.subs, strict=True)))
