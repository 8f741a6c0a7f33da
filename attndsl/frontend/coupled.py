"""Recurrences that read each other, written as one with an index more that numbers them.

    S[t,e,f] = m[t] * S[t-1,e,f] - K[t,e] * (sum[c](K[t,c] * M[t-1,c,f]) - V[t,f])   init 0
    M[t,e,f] = a[t] * M[t-1,e,f] + S[t,e,f]                                          init 0
    ->
    rank which = 2
    S_M[t,which,e,f] = (m[t] * S_M[t-1,0,e,f] - …) if which == 0 else
                       (a[t] * S_M[t-1,1,e,f] + (m[t] * S_M[t-1,0,e,f] - …))   init 0

What one reads of another at the step itself is written into it, so that all of them are made of the past alone. They
have the same indices; others stay apart, and are refused where one of them is read.

Source: language reference, section 15.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress

from attndsl.frontend import ast
from attndsl.frontend.helpers import Explicit, at_other_indices
from attndsl.frontend.printer import print_expr
from attndsl.frontend.recurrence import offset_from
from attndsl.frontend.report import Refused
from attndsl.frontend.scope import BodyTensor, Scope


def join_coupled(scope: Scope, explicit: Explicit) -> None:
    """Write every group of such recurrences as one."""
    recurrences = [n for n, x in scope.body.items() if x.stmt.init is not None]
    if len(recurrences) < 2:
        return
    seen = {n: _reached(scope, n) for n in scope.body}
    done: set[str] = set()
    for name in recurrences:
        group = [n for n in recurrences if n in seen[name] and name in seen[n]]
        if len(group) < 2 or name in done:
            continue
        done |= {*group}
        between = [
            n for n in scope.body if n not in recurrences and n in seen[name] and name in seen[n]
        ]
        with suppress(Refused):  # each statement says so again
            _join(scope, [scope.body[n] for n in group], [scope.body[n] for n in between], explicit)


def _reached(scope: Scope, name: str) -> set[str]:
    """The tensors of the body that one is made of, itself only if it is made of itself."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for n in ast.walk(scope.body[todo.pop()].stmt.expr):
            if isinstance(n, ast.Ref) and n.name in scope.body and n.name not in found:
                found.add(n.name)
                todo.append(n.name)
    return found


def _join(
    scope: Scope, group: Sequence[BodyTensor], between: Sequence[BodyTensor], explicit: Explicit
) -> None:
    times = {_step(x, {y.name for y in group}) for x in group} - {None}
    same = len({x.indices for x in group}) == 1 and len(times) == 1
    plain = all(not x.stmt.where and all(s.filter is None for s in x.stmt.subs) for x in group)
    step = times.pop() if times else None
    if not same or step is None or not plain:
        return
    time, back = step
    number = {x.name: k for k, x in enumerate(group)}
    if any(_offset(n, scope, time) != back for x in between for n in _refs(x.stmt.expr, number)):
        return
    steps: list[ast.Expr] = []
    for k, x in enumerate(group):
        own = explicit(x, x.stmt.expr)
        at = {id(n): _offset(n, scope, time) for n in _refs(own, number)}
        now = [n for n in _refs(own, number) if at[id(n)] == 0]
        if any(o not in (0, back) for o in at.values()):
            return
        if any(number[n.name] >= k or not _lone(n) for n in now):
            return
        steps.append(_written(own, time, scope, number, steps))
    index = _fresh("which", scope)
    name = _fresh("_".join(number), scope)
    place = group[0].indices.index(time) + 1

    def moved(e: ast.Expr) -> ast.Expr:
        e = ast.map_children(e, moved)
        if (
            not isinstance(e, ast.Ref)
            or e.name not in number
            or len(e.subs) != len(group[0].indices)
        ):
            return e
        which = ast.Sub(ast.Num(str(number[e.name]), span=e.span), span=e.span)
        return ast.Ref(name, (*e.subs[:place], which, *e.subs[place:]), span=e.span)

    def chosen(parts: Sequence[ast.Expr]) -> ast.Expr:
        out = parts[-1]
        for k in range(len(parts) - 2, -1, -1):
            test = ast.Compare((ast.Name(index), ast.Num(str(k))), ("==",), span=parts[k].span)
            out = ast.IfExp(ast.Paren(parts[k]), test, ast.Paren(out), span=parts[k].span)
        return out

    last = group[-1].stmt
    starts = [x.stmt.init for x in group if x.stmt.init is not None]
    one = len({print_expr(s) for s in starts}) == 1
    subs = (*last.subs[:place], ast.Sub(ast.Name(index), span=last.span), *last.subs[place:])
    stmt = dataclasses.replace(
        last,
        target=dataclasses.replace(last.target, name=name),
        subs=subs,
        expr=chosen([moved(s) for s in steps]),
        init=starts[0]
        if one
        else chosen([explicit(x, s) for x, s in zip(group, starts, strict=True)]),
    )
    _replace(scope, group, stmt, moved, (index, len(group)), (*group[0].indices[:place], index))


def _replace(
    scope: Scope,
    group: Sequence[BodyTensor],
    stmt: ast.Assign,
    moved: Callable[[ast.Expr], ast.Expr],
    rank: tuple[str, int],
    lead: tuple[str, ...],
) -> None:
    """The joined statement in the place of the last of the group; what is an output is read from it."""
    indices = (*lead, *group[0].indices[len(lead) - 1 :])
    gone = {x.name for x in group}
    body: list[ast.Stmt] = []
    tensors: dict[str, BodyTensor] = {}

    def add(s: ast.Assign, of: tuple[str, ...]) -> None:
        body.append(s)
        tensors[s.target.name] = BodyTensor(s, of)

    for s in scope.attention.body:
        if not isinstance(s, ast.Assign) or s.target.name not in scope.body:
            body.append(s)
            continue
        old = scope.body[s.target.name]
        if s.target.name not in gone:
            init = None if s.init is None else moved(s.init)
            new = dataclasses.replace(s, expr=moved(s.expr), init=init)
            body.append(new)
            old.stmt = new if old.stmt is s else old.stmt
            tensors[s.target.name] = old
        elif s.target.name == group[-1].name:
            add(stmt, indices)
            tensors[stmt.target.name].of = tuple(x.name for x in group)
            for x in group:
                if x.name in scope.outputs:
                    refs = tuple(ast.Sub(ast.Name(i)) for i in x.indices)
                    value = moved(ast.Ref(x.name, refs, span=x.stmt.target.span))
                    add(dataclasses.replace(x.stmt, expr=value, init=None), x.indices)
    scope.attention = dataclasses.replace(scope.attention, body=tuple(body))
    scope.body = tensors
    scope.ranks[rank[0]] = ast.Num(str(rank[1]))
    scope.indices[rank[0]] = None


def _refs(e: ast.Expr, of: Mapping[str, int]) -> list[ast.Ref]:
    return [n for n in ast.walk(e) if isinstance(n, ast.Ref) and n.name in of]


def _lone(n: ast.Ref) -> bool:
    return all(isinstance(s.expr, ast.Name) for s in n.subs)


def _offset(n: ast.Ref, scope: Scope, time: str) -> int | None:
    """How many steps away a state is read; None if that is no number."""
    own = scope.body[n.name].indices
    if len(own) != len(n.subs):
        return None
    e = ast.strip(n.subs[own.index(time)].expr)
    return 0 if e == ast.Name(time) else offset_from(e, time)


def _step(x: BodyTensor, names: Set[str]) -> tuple[str, int] | None:
    """The index that a recurrence runs over, and how it reads the past; None if helpers do that for it."""
    for n in ast.walk(x.stmt.expr):
        if isinstance(n, ast.Ref) and n.name in names:
            for i, s in zip(x.indices, n.subs, strict=False):
                offset = offset_from(ast.strip(s.expr), i)
                if offset in (-1, 1):
                    return i, offset
    return None


def _written(
    e: ast.Expr, time: str, scope: Scope, number: Mapping[str, int], steps: Sequence[ast.Expr]
) -> ast.Expr:
    """With the steps of others in place of what reads them at the step itself."""
    if isinstance(e, ast.Ref) and e.name in number and _offset(e, scope, time) == 0:
        names = [s.expr.name for s in e.subs if isinstance(s.expr, ast.Name)]
        at = dict(zip(scope.body[e.name].indices, names, strict=True))
        return ast.Paren(at_other_indices(steps[number[e.name]], at), span=e.span)
    return ast.map_children(e, lambda c: _written(c, time, scope, number, steps))


def _fresh(name: str, scope: Scope) -> str:
    taken = {*scope.tensors, *scope.params, *scope.indices, *scope.ranks}
    taken |= {
        n.name
        for s in scope.attention.body
        if isinstance(s, ast.Assign)
        for n in ast.walk(s.expr)
        if isinstance(n, ast.Name)
    }
    while name in taken:
        name += "_"
    return name
