"""Programs that share a chunk by columns of a feature axis, where that axis is only kept.

    H[e,f] = H * decay + k[i,e] . v[i,f];   O[i,f] = q[i,e] . H[e,f]        each program has its own columns of `f`

No sum may run over the axis, and every result with features must have it: programs that share columns make what does
not have it once each, and store the same numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from attndsl.cascade.nodes import Position
from attndsl.schedule import tile as t
from attndsl.schedule.liveness import flat
from attndsl.schedule.tile import Axis, Role


def in_tiles(
    axes: tuple[Axis, ...], body: tuple[t.Stmt, ...]
) -> tuple[tuple[Axis, ...], tuple[t.Stmt, ...]]:
    """The axes and the turn of a walk with its columns in tiles; the same where there is no such axis."""
    split = _columns(axes, body)
    if split is None:
        return axes, body
    tiled = (dataclasses.replace(a, role=Role.TILE) if a.name == split else a for a in axes)
    return tuple(tiled), tuple(bounded(s, split) for s in body)


def _columns(axes: Sequence[Axis], body: tuple[t.Stmt, ...]) -> str | None:
    """A feature axis that is only kept."""
    over = {s.over for s in flat(body) if isinstance(s, t.Dot | t.AccDot | t.Fold)}
    full = {a.name for a in axes if a.role is Role.FULL}
    points = {a.rank for a in axes if a.role is Role.POINT}
    spans = [
        {x.name for x in s.subs if isinstance(x, Position)} & full
        for s in flat(body)
        if isinstance(s, t.Store)
    ]
    stored = set().union(*spans)
    free = [
        a.name
        for a in axes
        if a.name in full and a.name not in over and a.rank not in points and a.name in stored
    ]
    if len(free) != 1 or not all(free[0] in s for s in spans if s):
        return None
    return free[0]


def bounded(s: t.Stmt, axis: str) -> t.Stmt:
    """A memory access that may reach past the last column."""
    if isinstance(s, t.For):
        return dataclasses.replace(s, body=tuple(bounded(x, axis) for x in s.body))
    if isinstance(s, t.Load | t.Store) and Position(axis) in s.subs and axis not in s.bounds:
        return dataclasses.replace(s, bounds=(*s.bounds, axis))
    return s
