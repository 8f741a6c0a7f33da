"""Systems of equations over the rows of a chunk, kept to the rows that the sequence has.

The last chunk has more rows than the sequence has points. Sums over rows leave those beyond out by their masks, but a
triangular system multiplies every row by every other, and 0 times no number is none. So where a side of a system may be
no number there (`beyond`), the vectors that make it so are loaded at the last row, and what is no number even so is 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

from attndsl.cascade.nodes import Binary, Call, Compare, Const, DType, Extent, Position, Select
from attndsl.schedule import tile as t
from attndsl.schedule.beyond import Rows
from attndsl.schedule.liveness import flat
from attndsl.schedule.specialise import defined, used
from attndsl.schedule.tile import Val


def bounded_systems(program: t.TileProgram) -> t.TileProgram:
    """The program, its systems with nothing but numbers in the rows beyond the end."""
    if program.sweep is None:
        body = _bounded(program, (), (*program.prologue, *program.epilogue))
        cut = len(body) - len(program.epilogue)
        return dataclasses.replace(program, prologue=body[:cut], epilogue=body[cut:])
    ranges = tuple(
        dataclasses.replace(r, body=_bounded(program, program.prologue, r.body))
        for r in program.sweep.ranges
    )
    sweep = dataclasses.replace(program.sweep, ranges=ranges)
    return dataclasses.replace(program, sweep=sweep)


def _bounded(
    program: t.TileProgram, before: tuple[t.Stmt, ...], body: tuple[t.Stmt, ...]
) -> tuple[t.Stmt, ...]:
    """The statements of a range, or of a kernel without one."""
    systems = [s for s in body if isinstance(s, t.Solve)]
    if not systems:
        return body
    (row,) = {s.dims[0] for s in flat(body) if defined(s) == systems[0].matrix}  # type: ignore[union-attr]
    rank = program.axis(row).rank
    sides = {v for s in systems for v in (s.right, s.matrix)}

    def broken(body: tuple[t.Stmt, ...], repeated: frozenset[str] = frozenset()) -> set[str]:
        return Rows(row, rank, repeated).run((*before, *body)).broken(sides)

    loads = {s.name for s in flat(body) if isinstance(s, t.Load) and s.dims == (row,)}
    least = broken(body, frozenset(loads))
    if least == broken(body):
        loads = set()
    for x in sorted(loads):
        if broken(body, frozenset(loads - {x})) == least:
            loads.discard(x)
    body = _at_last_row(row, rank, before, body, loads)
    done = set[str]()
    while wrong := broken(body) - done:
        done |= wrong
        every = (*before, *body)
        body = _mapped(body, partial(_kept, row, rank, every, wrong))
    return body


def _at_last_row(
    row: str, rank: str, before: tuple[t.Stmt, ...], body: tuple[t.Stmt, ...], loads: set[str]
) -> tuple[t.Stmt, ...]:
    """The statements, with vectors that are loaded at the last row beyond the end."""
    if not loads:
        return body
    at = _fresh("at_row", (*before, *body))
    last = Call("min", (Position(row), Binary("-", Extent(rank), Const(1))))

    def again(s: t.Stmt) -> list[t.Stmt]:
        if not isinstance(s, t.Load) or s.name not in loads:
            return [s]
        subs = tuple(Val(at) if x == Position(row) else x for x in s.subs)
        return [dataclasses.replace(s, subs=subs, bounds=tuple(b for b in s.bounds if b != row))]

    return (t.Compute(at, (row,), DType.INT, last), *_mapped(body, again))


def _kept(
    row: str, rank: str, body: tuple[t.Stmt, ...], wrong: set[str], s: t.Stmt
) -> list[t.Stmt]:
    """A statement, its value 0 beyond the end if it is one of those that may be no number there."""
    if not isinstance(s, t.Compute) or s.name not in wrong:
        return [s]
    raw = _fresh(f"{s.name}_raw", body)
    inside = Compare("<", Position(row), Extent(rank))
    kept = t.Compute(s.name, s.dims, DType.FLOAT, Select(inside, Val(raw), Const(0.0)))
    return [dataclasses.replace(s, name=raw), kept]


def _mapped(body: Sequence[t.Stmt], change: Callable[[t.Stmt], list[t.Stmt]]) -> tuple[t.Stmt, ...]:
    """Every statement replaced, those inside loops too."""
    out: list[t.Stmt] = []
    for s in body:
        if isinstance(s, t.For):
            s = dataclasses.replace(s, body=_mapped(s.body, change))
        out += change(s)
    return tuple(out)


def _fresh(name: str, body: Sequence[t.Stmt]) -> str:
    """A name that no value has."""
    taken = {n for s in flat(body) for n in (*used(s), defined(s) or "")}
    while name in taken:
        name += "_"
    return name
