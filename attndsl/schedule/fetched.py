"""What a walk over positions reads of its inputs, read one position ahead: a step need not wait for memory.

for t in [first, end):  k = load K[t];  H <- a * H + k
->
state k = load K[first];  for t in [first, end):  k' = load K[t+1];  H <- a * H + k;  k <- k'
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from attndsl.cascade.nodes import Binary, Compare, Const, DType, Expr, Position
from attndsl.cascade.walk import substitute, walk
from attndsl.schedule import tile as t
from attndsl.schedule.specialise import renamed
from attndsl.schedule.tile import Val
from attndsl.schedule.values import Names


def fetched_ahead(loop: t.For, inputs: Collection[str], names: Names) -> list[t.Stmt]:
    """The loop with its loads of numbers and vectors a position ahead, and what goes before it."""
    assert loop.lo is not None
    assert loop.hi is not None
    found = [s for s in loop.body if isinstance(s, t.Load) and _may(s, loop.axis, inputs)]
    if not found:
        return [loop]
    lo, hi, here = Val(loop.lo), Val(loop.hi), Position(loop.axis)
    start: Expr = Binary("-", hi, Const(1)) if loop.down else lo
    after: Expr = Binary("-" if loop.down else "+", here, Const(1))
    first, some = names.fresh("start"), names.fresh("some")
    following, more = names.fresh("following"), names.fresh("more")
    before: list[t.Stmt] = [
        t.Compute(first, (), DType.INT, start),
        t.Compute(some, (), DType.BOOL, Compare("<", lo, hi)),
    ]
    inside = Compare(">=", Val(following), lo) if loop.down else Compare("<", Val(following), hi)
    body: list[t.Stmt] = [
        t.Compute(following, (), DType.INT, after),
        t.Compute(more, (), DType.BOOL, inside),
    ]
    held: dict[str, str] = {}
    last: list[t.Stmt] = []
    for s in found:
        begun, then, now = (names.fresh(f"{s.name}_{n}") for n in ("first", "next", "now"))
        held[s.name] = now
        before.append(_at(s, begun, loop.axis, Val(first), some))
        before.append(t.Declare(now, s.dims, s.dtype, Val(begun), span=s.span))
        body.append(_at(s, then, loop.axis, Val(following), more))
        last.append(t.Assign(now, Val(then), span=s.span))
    body += [renamed(s, held) for s in loop.body if s not in found]
    return [*before, dataclasses.replace(loop, body=(*body, *last))]


def _may(s: t.Load, axis: str, inputs: Collection[str]) -> bool:
    """Whether a load moves with the walk, and with nothing that is computed."""
    if s.tensor not in inputs or s.guard is not None or len(s.dims) > 1:
        return False
    nodes = [n for e in s.subs for n in walk(e)]
    return Position(axis) in nodes and not any(isinstance(n, Val) for n in nodes)


def _at(s: t.Load, name: str, axis: str, at: Expr, guard: str) -> t.Load:
    """The load at another position, where there is one."""
    subs = tuple(substitute(e, {axis: at}) for e in s.subs)
    return dataclasses.replace(s, name=name, subs=subs, guard=guard)
