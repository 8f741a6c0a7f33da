"""Split keys: one query or a few against many keys, with the key range cut into slices.

The first kernel is the online schedule over a slice, and stores its states; the second combines the states of all
slices with the correction that the online schedule itself uses, and ends as it ends. Query heads that share their keys
are packed into the rows of one tile, so that keys are read once: row `r` is head `g * G + r // |i|`, query `r % |i|`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Param,
    Position,
    Reduction,
)
from attndsl.cascade.types import Types
from attndsl.cascade.walk import free
from attndsl.schedule import tile as t
from attndsl.schedule.builder import Builder
from attndsl.schedule.corrections import before_step, correction_factor, ratio
from attndsl.schedule.forms import merged
from attndsl.schedule.guards import finite
from attndsl.schedule.kernels import store_target
from attndsl.schedule.levels import target_key
from attndsl.schedule.outcomes import Needs, Refused
from attndsl.schedule.prepare import prepare
from attndsl.schedule.ranges import build_sweep
from attndsl.schedule.specialise import masked_body
from attndsl.schedule.tile import Axis, Block, Buffer, BufferKind, Plan, Role, Val
from attndsl.schedule.values import RUNNING, State, X

ROWS = "rows.packed"
SPLIT = "keys.split"


@dataclass(frozen=True, slots=True)
class Packing:
    """How the indices of a result are found from the kernel's axes."""

    grid: tuple[str, ...]
    row: str  # the axis of the rows: ROWS, or a sequence rank where nothing is packed
    at: dict[str, Expr]
    equal: dict[Expr, Expr]
    group: Expr | None  # heads to a tile


def plan_split(
    cascade: Cascade,
    *,
    residuals: tuple[str, ...] = (),
    like: dict[str, str] | None = None,
    known: dict[str, Kind] | None = None,
) -> Plan | None:
    """The split-keys form of a forward pass that is one sweep; None where it is not.

    Its extents are the program's and two more: `keys.split`, the number of slices, and `rows.packed`, the number of
    rows that share their keys, queries times packed heads (where the plan has an axis of that name).
    """
    cut = cut_of(cascade, known)
    if cut is None:
        return None
    packing = _packing(cut.cascade, cut.ranks, cut.grid, cut.row, cut.stream)
    try:
        return _build(cut, packing, residuals, like or {})
    except (Needs, Refused):
        return None


@dataclass(frozen=True, slots=True)
class Cut:
    """A program in normal form whose rows each walk over one stream, and its outputs."""

    cascade: Cascade
    ranks: Ranks
    grid: tuple[str, ...]
    row: str
    stream: str
    outputs: tuple[str, ...]

    @property
    def plain(self) -> Packing:
        """Every row by itself."""
        at: dict[str, Expr] = {r: Position(r) for r in (*self.grid, self.row)}
        return Packing(self.grid, self.row, at, {}, None)


def cut_of(cascade: Cascade, known: dict[str, Kind] | None = None) -> Cut | None:
    """The stream that a program could be cut along; None where it walks over several, or over none."""
    prepared = prepare(cascade, known)
    if prepared.host or prepared.scattered:
        return None
    c, ranks = prepared.cascade, prepared.ranks
    defs = {d.tensor: d for d in c.body}
    outputs = tuple(o.name for o in c.outputs)
    keys = {target_key(defs, x, ranks, c.batch, set()) for x in outputs}
    streams = {k.stream for k in keys} - {None}
    if len({k[:2] for k in keys}) != 1 or len(streams) != 1:
        return None
    tiles, grid, *_ = next(iter(keys))
    (stream,) = streams
    if len(tiles) != 1 or stream is None or tiles[0] == stream:
        return None
    kinds = {**ranks.kinds, ROWS: Kind.SEQUENCE, SPLIT: Kind.BATCH}
    ranks = Ranks(kinds, {**ranks.of, ROWS: ROWS, SPLIT: SPLIT})
    return Cut(c, ranks, grid, tiles[0], stream, outputs)


def _packing(c: Cascade, ranks: Ranks, grid: tuple[str, ...], row: str, stream: str) -> Packing:
    """Pack the batch index that the streamed data tensors do not tell apart, or only by groups."""
    data = [
        i
        for i in c.inputs
        if i.dtype is DType.FLOAT
        and stream in {ranks.of.get(r, r) for r in i.ranks}
        and ranks.kind(i.ranks[-1]) is Kind.FEATURE
    ]
    plain: dict[str, Expr] = {r: Position(r) for r in (*grid, row)}
    for h in reversed(grid):
        uses = {d for i in data for d in i.dims if h in free(d)}
        length = Extent(row)
        inside, which = Binary("%", Position(ROWS), length), Binary("//", Position(ROWS), length)
        if not data or len(uses) > 1:
            continue
        if not uses:
            rest = tuple(r for r in grid if r != h)
            return Packing(rest, ROWS, {**plain, h: which, row: inside}, {}, Extent(h))
        (use,) = uses
        match use:
            case Binary("//", Position(name), (Param() | Const()) as size) if name == h and all(
                use in i.dims for i in data
            ):
                found = next(
                    r for i in data for d, r in zip(i.dims, i.ranks, strict=True) if d == use
                )
                kv = ranks.of.get(found, found)
                head = Binary("+", Binary("*", Position(kv), size), which)
                rest = tuple(kv if r == h else r for r in grid)
                equal: dict[Expr, Expr] = {Binary("//", head, size): Position(kv)}
                return Packing(rest, ROWS, {**plain, h: head, row: inside}, equal, size)
            case _:
                continue
    return Packing(grid, row, plain, {}, None)


def _build(cut: Cut, p: Packing, residuals: tuple[str, ...], like: dict[str, str]) -> Plan:
    c = cut.cascade
    slices, parts, first = slices_of(cut, p)
    merge = merge_builder(cut, p)
    second = merge_kernel(merge, slices, p, f"{c.name}_merge", parts, cut.outputs)
    buffers = [Buffer(i.name, i.ranks, BufferKind.INPUT, i.dtype) for i in c.inputs]
    for key, s in slices.states.items():
        shape = (SPLIT, *p.grid, *(slices.axes[a].rank for a in s.dims))
        buffers.append(Buffer(parts[key], shape, BufferKind.TEMP))
    buffers += outputs_of(cut, residuals, like)
    params = tuple((q.name, q.dtype) for q in c.params)
    return Plan(f"{c.name}_split", tuple(buffers), (first, second), params)


Parts: TypeAlias = dict[tuple[object, ...], str]
"""The buffer that holds each state of every slice."""


def slices_of(cut: Cut, p: Packing) -> tuple[Builder, Parts, t.TileProgram]:
    """The kernel that sweeps one slice of the stream and stores its states.

    Raises: Needs or Refused, where the program is not one sweep.
    """
    c = cut.cascade
    tile = Axis(p.row, p.row, Role.TILE)
    axes = [Axis(SPLIT, SPLIT, Role.GRID), *(Axis(r, r, Role.GRID) for r in p.grid), tile]
    axes.append(Axis(cut.stream, cut.stream, Role.STREAM))
    for may_root in (True, False):
        b = Builder(c, cut.ranks, list(axes), frozenset(), frozenset(), may_root)
        b.shares_sums = False  # each has a buffer of its own
        b.equal.update(p.equal)
        for x in cut.outputs:
            store_target(b, b.defs[x], _at(b.defs[x], cut.ranks, p))
        if len(b.rooted) < 2:
            break
    if b.descends is not None:
        raise Refused(
            "A0511", "a sum over the keys beside each key would need what lies in other parts"
        )
    parts: Parts = {key: f"{s.name}.part" for key, s in b.states.items()}
    return b, parts, _slice_kernel(b, p, f"{c.name}_slices", parts)


def merge_builder(cut: Cut, p: Packing) -> Builder:
    """The kernel that combines slices, with nothing in it yet."""
    axes = [Axis(r, r, Role.GRID) for r in p.grid]
    axes += [Axis(SPLIT, SPLIT, Role.LOOP), Axis(p.row, p.row, Role.TILE)]
    b = Builder(cut.cascade, cut.ranks, axes, frozenset(), frozenset())
    b.equal.update(p.equal)
    return b


def outputs_of(cut: Cut, residuals: tuple[str, ...], like: dict[str, str]) -> list[Buffer]:
    """The buffers of the results."""
    out = []
    types = Types(cut.cascade)
    for x in cut.outputs:
        of = tuple(cut.ranks.of.get(i, i) for i in cut.cascade.define(x).indices)
        kind = BufferKind.RESIDUAL if x in residuals else BufferKind.OUTPUT
        out.append(Buffer(x, of, kind, types.tensors[x], like.get(x)))
    return out


def _at(d: Define, ranks: Ranks, p: Packing) -> dict[str, Expr]:
    """Where a result's indices stand, from the kernel's axes."""
    return {i: p.at[r] for i in d.indices if (r := ranks.of.get(i, i)) in p.at}


def _slice_kernel(b: Builder, p: Packing, name: str, parts: Parts) -> t.TileProgram:
    """The sweep over one slice of the reach; the states as they stand at its end."""
    assert b.stream is not None
    sweep = build_sweep(b, tabled=False)
    low = _least("min", tuple(Val(r.lo) for r in sweep.ranges))
    high = _least("max", tuple(Val(r.hi) for r in sweep.ranges))
    block = Block(b.stream)
    step = Binary("*", Extent(SPLIT), block)
    span = Call("max", (Const(0), Binary("-", high, low)))
    per = Binary("*", Binary("//", _minus_one(Binary("+", span, step)), step), block)
    begin = b.value(b.eval(Binary("+", low, Binary("*", Position(SPLIT), per))), "slice")
    end = b.value(b.eval(Binary("+", Val(begin), per)), "slice_end")
    ranges = []
    for r in sweep.ranges:
        lo = b.value(b.eval(Call("max", (Val(r.lo), Val(begin)))), "from")
        hi = b.value(b.eval(Call("min", (Val(r.hi), Val(end)))), "to")
        ranges.append(dataclasses.replace(r, lo=lo, hi=hi))
    stores: list[t.Stmt] = []
    for key, s in b.states.items():
        subs = (Position(SPLIT), *(Position(r) for r in p.grid), *(Position(a) for a in s.dims))
        stores.append(t.Store(parts[key], subs, s.name, s.dims))
    axes = tuple(b.axes[a] for a in b.sorted_axes())
    writes = tuple(parts.values())
    return t.TileProgram(
        name,
        axes,
        tuple(b.read_buffers),
        writes,
        tuple(b.params),
        tuple(b.prologue),
        (),
        t.Sweep(b.stream, tuple(ranges)),
        tuple(stores),
    )


def _least(fn: str, parts: tuple[Expr, ...]) -> Expr:
    parts = tuple(dict.fromkeys(parts))
    return parts[0] if len(parts) == 1 else Call(fn, parts)


def _minus_one(e: Expr) -> Expr:
    return Binary("-", e, Const(1))


def merge_kernel(
    b: Builder,
    slices: Builder,
    p: Packing,
    name: str,
    parts: Parts,
    outputs: tuple[str, ...],
    into: Parts | None = None,
) -> t.TileProgram:
    """The states of all slices, combined in order; then the results, or with `into` the combined states themselves."""
    for s in slices.states.values():
        if any(p.count is not None for p in s.pivots):
            raise Refused(
                "A0511", f"`{s.name}` is a spread around a mean, which no merge adds up yet"
            )
    body = b.loop_body[SPLIT]
    loaded: dict[str, str] = {}
    factors = any(p.factor for s in slices.states.values() for p in s.pivots)
    for key, s in slices.states.items():
        for a in s.dims:
            b.axes.setdefault(a, slices.axes[a])
        state = b.names.fresh(s.name)
        op = s.reduce.op
        b.prologue.append(t.Declare(state, s.dims, s.dtype, Const(op.identity)))
        part = b.names.fresh(f"{s.name}_part")
        subs = (Position(SPLIT), *(Position(r) for r in p.grid), *(Position(a) for a in s.dims))
        body.append(t.Load(part, s.dims, DType.FLOAT, parts[key], subs, s.dims))
        b.read_buffers[parts[key]] = None
        if s.dtype is DType.BOOL:  # kept as 0 or 1
            stored, part = part, b.names.fresh(part)
            body.append(t.Compute(part, s.dims, s.dtype, Compare("!=", Val(stored), Const(0.0))))
        loaded[state] = part
        mine = State(state, s.reduce, s.dims, s.dtype, None, s.pivots)
        dims = frozenset(s.dims)
        if op is not Reduction.SUM or (factors and not s.pivots):
            new = b.names.fresh(f"{state}_new")
            body.append(t.Compute(new, s.dims, s.dtype, merged(op, Val(state), Val(part))))
            mine.new = X(Val(new), dims, frozenset({RUNNING}), s.dtype)
            b.commits.append(t.Assign(state, Val(new)))
        b.states[key] = mine
    for mine in b.states.values():
        if mine.new is not None:
            continue
        mine_x: Expr = Val(mine.name)
        part_x: Expr = Val(loaded[mine.name])
        for pivot in mine.pivots:
            new_x = b.read(pivot.read, False)
            if not pivot.factor:
                new_x = finite(b, new_x, pivot.read.tensor)
            here = correction_factor(b, pivot)
            mine_x = Binary("*", mine_x, here.expr)
            b.standing.update(loaded)
            there = b.bind(before_step(b, pivot.read), pivot.read.tensor + "_part")
            b.standing.clear()
            part_x = Binary("*", part_x, ratio(b, there, new_x, pivot).expr)
        b.commits.append(t.Assign(mine.name, Binary("+", mine_x, part_x)))
    stores = [store_target(b, b.defs[x], _at(b.defs[x], b.ranks, p)) for x in outputs]
    for key, mine in b.states.items():
        if into is None:
            break
        at = (*(Position(r) for r in p.grid), *(Position(a) for a in mine.dims))
        stores.append(t.Store(into[key], at, mine.name, mine.dims))
    zero = b.value(X(Const(0), dtype=DType.INT), "first")
    last = b.value(b.eval(Extent(SPLIT)), "slices")
    # Sums first: their factors are of the states before this slice.
    sums = [s for s in b.commits if isinstance(s, t.Assign) and not _plain(s)]
    rest = [s for s in b.commits if s not in sums]
    turn = (*body, *masked_body(b.sweep), *sums, *rest)
    axes = tuple(b.axes[a] for a in b.sorted_axes())
    return t.TileProgram(
        name,
        axes,
        tuple(b.read_buffers),
        outputs if into is None else tuple(into.values()),
        tuple(b.params),
        tuple(b.prologue),
        (t.Loop(SPLIT, zero, last, turn),),
        None,
        (*b.epilogue, *stores),
    )


def _plain(s: t.Assign) -> bool:
    return isinstance(s.expr, Val)
