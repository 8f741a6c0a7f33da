"""What a stretch of a walk makes of its states: sums of them, times numbers, and of something known besides.

    walk:   G = G + H * step;  G = G * decay + …;  H = H * decay + …        chunk by chunk
    ->      G = G * decays + H * from + part;      H = H * decays + part    a piece at once

Each update is an affine map of the states before it. Maps compose: what a piece multiplies each state by is found by
the updates themselves, begun with 1 for a state's own share and 0 for another's, and without what they add.
"""

from __future__ import annotations

import dataclasses
from functools import reduce

from attndsl.cascade.nodes import Binary, Const, DType, Expr
from attndsl.schedule import tile as t
from attndsl.schedule.carried import Split, summands, updated
from attndsl.schedule.liveness import flat
from attndsl.schedule.specialise import defined, used
from attndsl.schedule.tile import Role, Val

PIECES = "chunks.pieces"


@dataclasses.dataclass(frozen=True, slots=True)
class Factor:
    """What a piece multiplies a state by on its way into one: `dims` numbers, from 1 or 0 on; their tensor."""

    of: str
    total: t.Declare
    buffer: t.Buffer


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A state: where it is declared, its tensors, and by what the others and itself come into it.

    A state that comes in as it was is in `same`.
    """

    state: t.Declare
    part: t.Buffer
    start: t.Buffer
    factors: tuple[Factor, ...]
    same: bool


def split_of(program: t.TileProgram) -> Split:
    assert program.sweep is not None
    every = [x for s in (*program.prologue, *program.sweep.ranges[0].body) for x in flat((s,))]
    split = Split(program, {n for s in every for n in (*used(s), *updated(s), defined(s) or "")})
    split.dims = {s.name: s.dims for s in every if defined(s) is not None}  # type: ignore[union-attr]
    split.find_moving()
    return split


# By state and state, in the order of the updates: what the second is multiplied by where it comes into the first.
Updates = list[tuple[str, dict[str, Expr]]]


def updates_of(split: Split) -> Updates | None:
    """What becomes of the states of a walk; None if it is no sum of them, times numbers, and of something known."""
    states = {s.name for s in split.program.prologue if isinstance(s, t.Declare)} & split.moving
    out: Updates = []
    for u in split.body:
        for name in updated(u) & states:
            found = _affine(split, u, states)
            if found is None or name not in found:
                return None
            out.append((name, found))
    return out if states else None


def _affine(split: Split, u: t.Stmt, states: set[str]) -> dict[str, Expr] | None:
    """By state, what an update multiplies it by."""
    if isinstance(u, t.AccDot):
        if {u.left, u.right, u.scale} & split.moving:
            return None
        return {u.name: Const(1.0) if u.scale is None else Val(u.scale)}
    out: dict[str, Expr] = {}
    for x in summands(u.expr) if isinstance(u, t.Assign) else ():
        match x:
            case _ if split.spans(x) is not None:
                continue
            case Val(name):
                by: Expr = Const(1.0)
            case Binary("*", Val(name), by) if split.spans(by) is not None:
                pass
            case _:
                return None
        if name not in states or name in out:
            return None
        out[name] = by
    return out


def held_by(split: Split, changes: Updates, taken: set[str]) -> list[Held] | None:
    """The states with their tensors; None where one comes into another of fewer dims, or by more numbers."""
    program = split.program
    declared = {s.name: s for s in program.prologue if isinstance(s, t.Declare)}
    names = dict.fromkeys(n for n, _ in changes)
    comes = {n: {n} for n in names}  # into each, directly or by way of others
    for _ in names:
        for n, by in changes:
            comes[n] |= set().union(*(comes[c] for c in by))
    out: list[Held] = []
    for n in names:
        s = declared[n]
        own = [e for m, by in changes if m in comes[n] for e in by.values()]
        over = {d for e in own for d in split.spans(e) or ()}
        over |= {d for c in comes[n] - {n} for d in declared[c].dims}
        if not over <= {*s.dims}:
            return None
        dims = tuple(d for d in s.dims if d in {d for e in own for d in split.spans(e) or ()})
        factors: list[Factor] = []
        same = all(by == {n: Const(1.0)} for m, by in changes if m == n)
        for c in (c for c in names if c in comes[n] and not (same and c == n)):
            what = "decays" if c == n else f"from.{c}"
            total = t.Declare(
                split.fresh(f"{n}_{what}".replace(".", "_")),
                dims,
                DType.FLOAT,
                Const(1.0 if c == n else 0.0),
            )
            factors.append(Factor(c, total, _buffer(program, s, what, dims, taken)))
        part, start = (_buffer(program, s, what, s.dims, taken) for what in ("part", "start"))
        out.append(Held(s, part, start, tuple(factors), same))
    return out


def _buffer(
    program: t.TileProgram, s: t.Declare, what: str, dims: tuple[str, ...], taken: set[str]
) -> t.Buffer:
    name = f"{program.writes[-1]}.{s.name}.{what}"
    while name in taken:
        name += "_"
    taken.add(name)
    ranks = [program.axis(d).rank for d in dims]
    grid = (a.rank for a in program.of(Role.GRID))
    return t.Buffer(name, (PIECES, *grid, *ranks), t.BufferKind.TEMP)


def totals_of(held: list[Held], changes: Updates) -> list[t.Stmt]:
    """The updates once more, of what each state is multiplied by: without what is added that is known."""
    by_name = {h.state.name: h for h in held}
    out: list[t.Stmt] = []
    for n, by in changes:
        for f in by_name[n].factors:
            terms: list[Expr] = []
            for c, e in by.items():
                inner = next((x.total.name for x in by_name[c].factors if x.of == f.of), None)
                if inner is not None:
                    terms.append(Val(inner) if e == Const(1.0) else Binary("*", Val(inner), e))
                elif c == f.of:  # it comes in as it was
                    terms.append(e)
            if terms != [Val(f.total.name)]:
                out.append(t.Assign(f.total.name, reduce(lambda x, y: Binary("+", x, y), terms)))
    return out
