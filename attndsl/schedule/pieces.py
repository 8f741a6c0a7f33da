"""Walks in pieces: where heads are too few to fill the card, one walk over chunks becomes several beside each other.

    walk:    for each chunk: O = … H …;  H = H * decay + k . v
    ->
    parts:   of each piece, from H = 0: what its chunks leave, and the product of their decays    all pieces at once
    starts:  H[p+1] = H[p] * decays[p] + part[p]                                                  elementwise, in order
    walk:    of each piece, from H[p]                                                             all pieces at once

A state that each chunk multiplies by numbers that do not depend on it, and adds to, is an affine map of what it was;
such maps compose (`composed`). A delta rule's is one too, but multiplies by a matrix: a composition would be a product
of matrices for each piece, and its parts are not made here. Keys and values are read twice, so this is for cards that
are not full: `few_heads` says when.

source: the scan of affine maps of Blelloch 1990; over chunks: Dao and Gu 2024 (arXiv:2405.21060), section 6
"""

from __future__ import annotations

import dataclasses

from attndsl.cascade.nodes import Binary, Call, Const, DType, Expr, Extent, Position
from attndsl.schedule import tile as t
from attndsl.schedule.carried import Split, live
from attndsl.schedule.composed import (
    PIECES,
    Held,
    Updates,
    held_by,
    split_of,
    totals_of,
    updates_of,
)
from attndsl.schedule.liveness import flat
from attndsl.schedule.specialise import defined, used
from attndsl.schedule.tile import Block, Role, Val

# Pieces begin where chunks do, whatever their length; a lone number for each position has long ones.
LEAST = 256
LEAST_OF_SCANS = 1024
# Of the elementwise kernel, which waits for memory: the more programs, the better.
COLUMNS = 16


def in_pieces(plan: t.Plan) -> t.Plan | None:
    """A pass whose walks are cut into pieces; None where no walk that multiplies can be."""
    steps: list[t.Step] = []
    buffers, multiplied = plan.buffers, False
    for s in plan.steps:
        found = _cut(s, buffers) if isinstance(s, t.TileProgram) else None
        if found is None:
            steps.append(s)
            continue
        three, more = found
        steps += three
        buffers += more
        multiplied |= _multiplies(three[-1])
    if not multiplied:
        return None
    return dataclasses.replace(
        plan, name=f"{plan.name}_pieces", buffers=buffers, steps=tuple(steps)
    )


def _multiplies(program: t.TileProgram) -> bool:
    assert program.sweep is not None
    return any(isinstance(s, t.AccDot) for s in program.sweep.ranges[0].body)


_Three = tuple[t.TileProgram, t.TileProgram, t.TileProgram]


def _cut(
    program: t.TileProgram, buffers: tuple[t.Buffer, ...]
) -> tuple[_Three, tuple[t.Buffer, ...]] | None:
    """The three kernels and the tensors between them; None for what is no walk, or one that does not compose."""
    sweep = program.sweep
    if sweep is None or not program.of(Role.PAIR) or len(sweep.ranges) != 1:
        return None
    if program.loops or program.rounds is not None or program.epilogue:
        return None
    split = split_of(program)
    changes = updates_of(split)
    held = None if changes is None else held_by(split, changes, {b.name for b in buffers})
    if held is None or changes is None:
        return None
    made = [b for h in held for b in (h.part, h.start, *(f.buffer for f in h.factors))]
    return (_parts(split, held, changes), _starts(split, held), _walk(split, held)), tuple(made)


def _at(program: t.TileProgram, dims: tuple[str, ...]) -> tuple[Expr, ...]:
    """Where a piece's values stand, in the order in which the walk comes by."""
    return (
        Position(PIECES),
        *(Position(a.name) for a in program.of(Role.GRID)),
        *map(Position, dims),
    )


def _parts(split: Split, held: list[Held], changes: Updates) -> t.TileProgram:
    """What the chunks of each piece leave, from nothing, and what they leave of what was there."""
    program = split.program
    states = {h.state.name for h in held}
    kept = tuple(s for s in split.body if not isinstance(s, t.Store | t.Scatter | t.Across))
    body = live(kept, states)
    stores: list[t.Stmt] = []
    declared: list[t.Stmt] = []
    for h in held:
        name, dims = h.state.name, h.state.dims
        declared.append(dataclasses.replace(h.state, expr=Const(0.0)))
        stores.append(t.Store(h.part.name, _at(program, dims), name, dims))
        for f in h.factors:
            declared.append(f.total)
            at = _at(program, f.total.dims)
            stores.append(t.Store(f.buffer.name, at, f.total.name, f.total.dims))
    totals = totals_of(held, changes)
    needed = {n for s in (*body, *totals) for x in flat((s,)) for n in used(x)}
    top = live(_without(program.prologue, states), needed | _ends(program))
    out = _piece(split, f"{program.name}_parts", (*top, *declared), _decays_first(body, totals))
    return dataclasses.replace(
        out, writes=tuple(_tensor(s) for s in stores), epilogue=tuple(stores)
    )


def _decays_first(body: tuple[t.Stmt, ...], totals: list[t.Stmt]) -> tuple[t.Stmt, ...]:
    """The products of decays stand where the last of their factors is made."""
    made = [k for k, s in enumerate(body) if {n for x in totals for n in used(x)} & {defined(s)}]
    at = max(made) + 1 if made else 0
    return (*body[:at], *totals, *body[at:])


def _starts(split: Split, held: list[Held]) -> t.TileProgram:
    """The state that each piece begins with: piece by piece, each point of a state by itself."""
    program = split.program
    states = {h.state.name for h in held}
    first, last = split.fresh("first"), split.fresh("pieces")
    top = (
        *live(program.prologue, states),
        t.Compute(first, (), DType.INT, Const(0)),
        t.Compute(last, (), DType.INT, Extent(PIECES)),
    )
    turn: list[t.Stmt] = []
    then: list[t.Stmt] = []
    reads: list[str] = []
    for h in held:
        at = _at(program, h.state.dims)
        turn.append(t.Store(h.start.name, at, h.state.name, h.state.dims))
    for h in held:
        name, dims = h.state.name, h.state.dims
        more = split.fresh(f"{name}_part")
        turn.append(t.Load(more, dims, DType.FLOAT, h.part.name, _at(program, dims), dims))
        reads.append(h.part.name)
        total: Expr = Val(more)
        if h.same:
            total = Binary("+", Val(name), total)
        for f in h.factors:
            by, over = split.fresh(f.total.name), f.total.dims
            turn.append(t.Load(by, over, DType.FLOAT, f.buffer.name, _at(program, over), over))
            reads.append(f.buffer.name)
            total = Binary("+", Binary("*", Val(f.of), Val(by)), total)
        new = split.fresh(f"{name}_new")
        turn.append(t.Compute(new, dims, DType.FLOAT, total))
        then.append(t.Assign(name, Val(new)))
    over_all = {d for h in held for d in h.state.dims}
    over_all |= {d for s in top for d in getattr(s, "dims", ())}
    grid = program.of(Role.GRID)
    axes = (*grid, t.Axis(PIECES, PIECES, Role.LOOP))
    axes += tuple(_narrow(a) for a in program.axes if a.name in over_all and a not in grid)
    loaded = [s.tensor for s in flat(top) if isinstance(s, t.Load)]
    return t.TileProgram(
        f"{program.name}_starts",
        axes,
        (*dict.fromkeys(loaded), *reads),
        tuple(h.start.name for h in held),
        program.params,
        top,
        (t.Loop(PIECES, first, last, (*turn, *then)),),
        None,
        (),
    )


def _narrow(a: t.Axis) -> t.Axis:
    return dataclasses.replace(a, block=COLUMNS) if a.role is Role.TILE else a


def _walk(split: Split, held: list[Held]) -> t.TileProgram:
    """The walk over one piece, from the state that it begins with."""
    program = split.program
    states = {h.state.name for h in held}
    loads: list[t.Stmt] = []
    for h in held:
        name, dims = h.state.name, h.state.dims
        start = split.fresh(f"{name}_start")
        at = _at(program, dims)
        loads.append(t.Load(start, dims, DType.FLOAT, h.start.name, at, dims))
        loads.append(dataclasses.replace(h.state, expr=Val(start)))
    needed = {n for s in split.body for x in flat((s,)) for n in used(x)}
    top = live(_without(program.prologue, states), needed | _ends(program))
    return _piece(split, program.name, (*top, *loads), split.body)


def _without(prologue: tuple[t.Stmt, ...], states: set[str]) -> tuple[t.Stmt, ...]:
    return tuple(s for s in prologue if defined(s) not in states)


def _ends(program: t.TileProgram) -> set[str]:
    assert program.sweep is not None
    return {n for r in program.sweep.ranges for n in (r.lo, r.hi)}


def _piece(
    split: Split, name: str, top: tuple[t.Stmt, ...], body: tuple[t.Stmt, ...]
) -> t.TileProgram:
    """A kernel that walks one piece of its program's sweep."""
    program = split.program
    sweep = program.sweep
    assert sweep is not None
    (r,) = sweep.ranges
    scans = not any(isinstance(s, t.Dot | t.AccDot) for s in split.body)
    least: Expr = Const(LEAST_OF_SCANS if scans else LEAST)
    step = Call("max", (least, Block(sweep.axis)))
    count, place = Extent(PIECES), Position(PIECES)
    which: Expr = place
    if sweep.descending:  # the first piece of the walk is the last of the sequence
        which = Binary("-", Binary("-", count, Const(1)), place)
    every = Binary("*", count, step)
    span = Binary("-", Val(r.hi), Val(r.lo))
    up = Binary("-", Binary("+", span, every), Const(1))
    length, lo, hi = (split.fresh(n) for n in ("piece", "from", "to"))
    ends = (
        t.Compute(length, (), DType.INT, Binary("*", Binary("//", up, every), step)),
        t.Compute(lo, (), DType.INT, Binary("+", Val(r.lo), Binary("*", which, Val(length)))),
        t.Compute(hi, (), DType.INT, Call("min", (Val(r.hi), Binary("+", Val(lo), Val(length))))),
    )
    loops = {s.axis for s in flat(body) if isinstance(s, t.For)}
    axes = tuple(a for a in program.axes if a.role is not Role.POINT or a.name in loops)
    every_stmt = list(flat((*top, *body)))
    reads = dict.fromkeys(s.tensor for s in every_stmt if isinstance(s, t.Load))
    order = [x for x in program.reads if x in reads]
    return dataclasses.replace(
        program,
        name=name,
        axes=(t.Axis(PIECES, PIECES, Role.GRID), *axes),
        reads=tuple(dict.fromkeys((*order, *reads))),
        prologue=(*top, *ends),
        sweep=dataclasses.replace(
            sweep,
            ranges=(dataclasses.replace(r, lo=lo, hi=hi, body=body),),
            ordered=sweep.ordered or sweep.descending,
        ),
    )


def _tensor(s: t.Stmt) -> str:
    assert isinstance(s, t.Store)
    return s.tensor
