"""Sums between two positions, as differences of running sums.

    S[i,j] = … sum[l : j < l <= i](g[l])
    ->
    upto[i]   = sum[l : l <= i](g[l])
    before[j] = sum[l : l <= j](g[l])
    S[i,j] = … (upto[i] - before[j] if j < i else 0)

As written, the sum is one for every pair of positions; the two running sums have one each. The guard goes where the
domain says as much: there the difference is the sum, or that of nothing.
"""

from __future__ import annotations

import dataclasses

from attndsl.cascade.conditions import conjunction, conjuncts, negation
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.walk import bound, free, rename, rewrite, walk

_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def apart(c: Cascade) -> Cascade:
    """With such sums taken apart; as it is, where there are none."""
    names = Names(c)
    body: list[Define] = []
    for d in c.body:

        def rule(e: Expr, d: Define = d) -> Expr | None:
            found = _ends(e) if isinstance(e, Reduce) else None
            return None if found is None else _difference(c, d, *found, names, body)

        expr = rewrite(d.expr, rule)
        body.append(d if expr == d.expr else dataclasses.replace(d, expr=expr))
    if len(body) == len(c.body):
        return c
    known = {r.name for r in c.ranks}
    ranks = (*c.ranks, *(r for n, r in names.ranks.items() if n not in known and "_" in n))
    return dataclasses.replace(c, body=tuple(body), ranks=ranks)


def _ends(e: Reduce) -> tuple[Reduce, Compare, Compare] | None:
    """A sum and the conditions that bound it below and above, each by a position of its own: `l > j`, `l <= i`."""
    if e.op is not Reduction.SUM or len(e.indices) != 1 or bound(e.body):
        return None
    (index,) = e.indices
    low: list[Compare] = []
    high: list[Compare] = []
    for part in conjuncts(e.where):
        if free(part) <= {index}:
            continue
        if not isinstance(part, Compare) or part.op not in _MIRRORED:
            return None
        if part.right == Position(index):
            part = Compare(_MIRRORED[part.op], part.right, part.left, span=part.span)
        ends = [n for n in walk(part.right) if not isinstance(n, Binary | Const | Param)]
        if part.left != Position(index) or len(ends) != 1 or not isinstance(ends[0], Position):
            return None  # `start` may be added to a position
        (high if part.op in ("<", "<=") else low).append(part)
    if len(low) != 1 or len(high) != 1 or free(low[0].right) == free(high[0].right):
        return None
    apart = free(low[0].right) | free(high[0].right)
    return None if free(e.body) & apart else (e, low[0], high[0])


def _difference(
    c: Cascade,
    d: Define,
    e: Reduce,
    low: Compare,
    high: Compare,
    names: Names,
    body: list[Define],
) -> Expr | None:
    """What stands for the sum; the running sums are added to `body`."""
    (index,) = e.indices
    rest = [p for p in conjuncts(e.where) if free(p) <= {index}]
    kept = sorted(free(e.body) - {index})

    def running(stem: str, end: str, condition: Expr) -> Read:
        name, of = names.tensor(stem), names.root(end)
        fresh = names.index(index)
        roots = {k: names.root(k) for k in kept}
        to = {index: fresh, end: of, **roots}
        where = conjunction([rename(condition, to), *(rename(p, to) for p in rest)])
        total = Reduce(Reduction.SUM, (fresh,), rename(e.body, to), where, span=e.span)
        batch = [k for k in kept if names.root(k) in c.batch]
        inner = [k for k in kept if names.root(k) not in c.batch]
        indices = (*(roots[k] for k in batch), of, *(roots[k] for k in inner))
        body.append(Define(name, indices, total, span=d.span))
        subs = (*(Index(k) for k in batch), Index(end), *(Index(k) for k in inner))
        return Read(name, subs, span=e.span)

    a, b = low.right, high.right
    (first,), (last,) = free(a), free(b)
    if len({names.root(x) for x in (first, last, *kept)}) < len(kept) + 2:
        return None
    upto = running(f"{d.tensor}.upto", last, high)
    before = running(f"{d.tensor}.before", first, negation(low))
    made = Binary("-", upto, before, span=e.span)
    # Where the ends have met, only a sum without both of them is less than nothing.
    strict = low.op == ">" and high.op == "<"
    holds = ("<",) if strict else ("<", "<=")
    known = [
        p
        for p in conjuncts(d.where)
        if isinstance(p, Compare)
        and (
            (p.op in holds and (p.left, p.right) == (a, b))
            or (p.op in _MIRRORED and _MIRRORED[p.op] in holds and (p.left, p.right) == (b, a))
        )
    ]
    if known:
        return made
    return Select(Compare(holds[-1], a, b), made, Const(0.0), span=e.span)
