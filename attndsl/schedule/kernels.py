"""One kernel from the targets that share it: axes, stores, loops, and the order of its tiles."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attndsl.analysis.intervals import stretches
from attndsl.analysis.linearity import NotLinear, Splitter
from attndsl.analysis.ranks import Kind, Ranks, before_sequences, positions, undeclared_batch
from attndsl.analysis.reach import reach
from attndsl.cascade.nodes import (
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Position,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.ordered import ordered
from attndsl.cascade.walk import free
from attndsl.schedule import tile as t
from attndsl.schedule.builder import Builder
from attndsl.schedule.chunked import ChunkBuilder, assemble
from attndsl.schedule.forms import inline, inline_where, is_large
from attndsl.schedule.levels import Key, cone, reduced
from attndsl.schedule.loops import loop_axis, loop_bounds
from attndsl.schedule.outcomes import Needs, Refused
from attndsl.schedule.ranges import build_sweep
from attndsl.schedule.restarts import Restart, at_hand, begun
from attndsl.schedule.tile import Axis, Role
from attndsl.schedule.values import CHOICE, X


def build_kernel(
    c: Cascade,
    ranks: Ranks,
    key: Key,
    members: list[str],
    done: frozenset[str],
    rows: frozenset[str],
    name: str,
    refines: bool = False,
) -> t.TileProgram:
    """The kernel of the targets `members`, where `done` are in memory; `rows` have kernels by rows.

    With `refines`, the root that it finds stands in memory as a guess (`refined`).

    Raises: Needs, if a tensor must be known before; Refused, if there is no such kernel.
    """
    tiles, grid, loops, stream, root = key
    if len(tiles) > 2:
        spans = (c.define(x).span for x in members)
        kept = ", ".join(f"`{r}`" for r in ranks.sequence(c.define(members[0]).indices))
        why = f"a result that keeps {len(tiles)} sequence ranks ({kept}) has no kernel form"
        raise Refused("A0406", why, next((s for s in spans if s is not None), None))
    slow = undeclared_batch(c, ranks) & positions(c, ranks) & set(loops)
    if stream is None and (slow := slow - before_sequences(c, ranks)):
        d = c.define(members[0])
        why = f"`{d.tensor}` would walk `{min(slow)}` one position after the other"
        raise Refused("A0403", why, d.span)
    axes = [Axis(r, r, Role.GRID) for r in grid]
    axes += [Axis(loop_axis(r, (*grid, *tiles), stream), r, Role.LOOP) for r in loops]
    # A map of features at pairs of points is a map at every point of the first: a tile has two axes.
    wide = not loops and any(
        ranks.kind(i) is Kind.FEATURE for m in members for i in c.define(m).indices
    )
    alone = tiles[:1] if stream is None and len(tiles) > 1 and wide else ()
    tile_names: list[str] = []
    for r in tiles:
        axis = r if r not in tile_names else r + "_2"
        tile_names.append(axis)
        axes.append(Axis(axis, r, Role.GRID if axis in alone else Role.TILE))
    if stream is not None:
        axis = stream if stream not in tile_names else stream + "_s"
        axes.append(Axis(axis, stream, Role.STREAM))
    # Short ways first (dV before dK): what they leave in registers the longer ones need anyway.
    defs = {d.tensor: d for d in c.body}
    members = sorted(members, key=lambda m: len(cone(defs, m, done)))
    may_root = grouped = True
    while True:
        b = Builder(c, ranks, list(axes), done, rows, may_root, root)
        b.grouped, b.refines = grouped, refines
        b.walked = frozenset(d.tensor for m in members for d in reduced(defs, m, ranks, done))
        stores: list[t.Stmt] = [
            store_target(b, b.defs[m], _tiles_at(b, m, tile_names)) for m in members
        ]
        if may_root and len(b.rooted) > 1:  # two ways of masking would compute values twice
            may_root = False
        elif b.mixed:  # one pair of bounds for all that a loop sums
            grouped = False
        else:
            break
    return finish_kernel(b, name, stores, tuple(members), tuple(b.loop_body), causal_order(b))


def build_chunked(
    c: Cascade,
    ranks: Ranks,
    key: Key,
    member: str,
    done: frozenset[str],
    rows: frozenset[str],
    name: str,
    also: tuple[str, ...] = (),
    restarted: Mapping[str, Restart] = MappingProxyType({}),
) -> t.TileProgram:
    """The kernel of one target by chunks, and of row statistics `also` that are made on the way.

    Raises: NotLinear, if its sums do not carry over; Needs and Refused as `build_kernel` does.
    """
    tiles, grid, loops, stream, root = key
    if len(tiles) != 1 or stream is None or loops or root is not None:
        raise NotLinear("no single stream", c.define(member).span)
    _check_linear(c, ranks, member, done)
    _check_rows(c, ranks, member, done)
    (tile,) = tiles
    col = stream if stream != tile else stream + "_s"
    axes = [Axis(r, r, Role.GRID) for r in grid]
    axes += [Axis(tile, tile, Role.TILE), Axis(col, stream, Role.STREAM)]
    hand = {x for x, sums in restarted.items() if x != member and at_hand(c, ranks, x, sums)}
    b = ChunkBuilder(c, ranks, axes, done | hand, rows)
    b.target, b.restarted, b.begun = member, restarted, begun(c, restarted)
    if member in cone(b.defs, member, done, itself=True):
        b.member = member
    if b.member and also:
        raise NotLinear(f"`{member}` is solved for", c.define(member).span)
    store = b.close(store_target(b, b.defs[member], _tiles_at(b, member, [tile])))
    others: list[t.Stmt] = [store_target(b, b.defs[x], _tiles_at(b, x, [tile])) for x in also]
    if not b.carried:
        raise NotLinear("nothing is carried", c.define(member).span)
    return assemble(b, name, [*others, store], (*also, member))


def _check_linear(c: Cascade, ranks: Ranks, member: str, done: frozenset[str]) -> None:
    """Raises: NotLinear, if a sum that the target is made of does not carry over."""
    defs = {d.tensor: d for d in c.body}
    known = ordered(c)

    def seen(e: Read) -> Expr | None:
        d = defs.get(e.tensor)
        if d is None or e.tensor in done or d.init is not None or is_large(d.expr, ranks):
            return None
        return inline(d, e.subs)

    for x in sorted({member, *cone(defs, member, done)} - done):
        d = defs[x]
        if not is_large(d.expr, ranks):
            continue
        assert isinstance(d.expr, Reduce)
        rows, cols = ranks.sequence(d.indices), ranks.sequence(d.expr.indices)
        if d.expr.op in (Reduction.MAX, Reduction.MIN) and len(rows) == len(cols) == 1:
            reach(d.expr.where, rows[0], cols[0], known)
            continue
        if d.expr.op is not Reduction.SUM or len(rows) != 1 or len(cols) != 1:
            raise NotLinear(f"`{x}` is no sum over one sequence for each row", d.span)
        reach(d.expr.where, rows[0], cols[0], known)
        Splitter(rows[0], cols[0], seen).terms(d.expr.body)


def _check_rows(c: Cascade, ranks: Ranks, member: str, done: frozenset[str]) -> None:
    """Raises: Needs, if features of rows are contracted beside running sums of one number for each row.

    One program goes through all rows of those, one tile after the other; the contractions of all tiles know no order.
    """
    defs = {d.tensor: d for d in c.body}
    sums = {
        x for x in cone(defs, member, done, itself=True) - done if is_large(defs[x].expr, ranks)
    }
    for x in sums:
        e, rows = defs[x].expr, ranks.sequence(defs[x].indices)
        assert isinstance(e, Reduce)
        if free(e.body) & {*rows} or any(ranks.kind(i) is Kind.FEATURE for i in defs[x].indices):
            return
    if not sums or any(ranks.kind(i) is Kind.FEATURE for i in defs[member].indices):
        return
    for x in sorted(cone(defs, member, {*done, *sums}) - done - sums):  # sums look after their own
        if isinstance(defs[x].expr, Reduce) and len(ranks.sequence(defs[x].indices)) == 1:
            why = f"`{x}` is known of all rows at once, `{member}` of one after the other"
            raise Needs(x, why)


def _tiles_at(b: Builder, tensor: str, tile_names: list[str]) -> dict[str, Expr]:
    """A target's sequence indices as the kernel's tiles, in order."""
    names = list(tile_names)
    return {i: Position(names.pop(0)) for i in b.ranks.sequence(b.defs[tensor].indices)}


def store_target(b: Builder, d: Define, at: dict[str, Expr]) -> t.Store:
    """Evaluate a target and store it; `at` says where its indices stand (others: at the axis of their rank)."""
    subs: list[Expr] = []
    for i in d.indices:
        rank = b.ranks.of.get(i, i)
        if i in at:
            subs.append(at[i])
        elif b.ranks.kind(i) is Kind.FEATURE:
            held = frozenset(s.name for s in subs if isinstance(s, Position))
            subs.append(Position(b.full_axis(rank, held)))
        else:
            subs.append(Position(rank))
    x = b.read(Read(d.tensor, tuple(subs)), final=True)
    cond = inline_where(d, tuple(subs))
    name = d.tensor
    if cond is not None:
        keep = b.eval(cond, True, "inside")
        zero = Const(False) if x.dtype is DType.BOOL else Const(0.0)
        x = b.combine(CHOICE, [keep, x, X(zero)], x.dtype, name)
    spans = frozenset().union(*(b.dims_of(s) for s in subs))
    for a in b.order(spans - x.dims):
        spread = Compare(">=", Position(a), Const(0))
        parts = [X(spread, frozenset({a}), dtype=DType.BOOL), x, X(Const(0.0))]
        x = b.combine(CHOICE, parts, x.dtype, name)
    value = b.value(x, name)
    exprs = tuple(s if isinstance(s, Position) else b.bind(b.eval(s), "at").expr for s in subs)
    return t.Store(d.tensor, exprs, value, b.order(spans), span=d.span)


def finish_kernel(
    b: Builder,
    name: str,
    stores: list[t.Stmt],
    writes: tuple[str, ...],
    loops: tuple[str, ...],
    order: str,
) -> t.TileProgram:
    """Put the pieces of a built kernel together."""
    sweep = build_sweep(b) if b.stream is not None else None
    made: list[t.Loop] = []
    for r in loops:
        lo, hi = loop_bounds(b, r)
        made.append(t.Loop(r, lo, hi, tuple(b.loop_body[r])))
    axes = tuple(b.axes[a] for a in b.sorted_axes())
    return t.TileProgram(
        name,
        axes,
        tuple(b.read_buffers),
        writes,
        tuple(b.params),
        tuple(b.prologue),
        tuple(made),
        sweep,
        (*b.epilogue, *stores),
        order,
        b.rounds,
    )


def causal_order(b: Builder) -> str:
    """Longest tiles first: the last ones, where the reach grows with the position."""
    tiles = [a.name for a in b.axes.values() if a.role is Role.TILE]
    if b.stream is None or len(tiles) != 1 or not b.domains or b.domains[0] is None:
        return "forward"
    found = stretches(
        b.domains[0], b.stream, tiles[0], t.Origin(tiles[0]), t.Origin(tiles[0]), b.floats
    )
    grows = any(s.high and not s.low for s in found)
    return "reverse" if grows else "forward"
