"""The ranges of a sweep: which stream tiles are visited, and which of them need the mask."""

from __future__ import annotations

from attndsl.analysis.intervals import Stretch, stretches
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Const,
    DType,
    Expr,
    Extent,
    Index,
    Logic,
    Position,
    Read,
    Reduction,
    Select,
)
from attndsl.cascade.walk import substitute, walk
from attndsl.schedule import tile as t
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.lighten import lighten
from attndsl.schedule.order import arrange
from attndsl.schedule.products import fold
from attndsl.schedule.specialise import masked_body, unmasked_body
from attndsl.schedule.tile import Block, Origin, Role
from attndsl.schedule.values import STREAMED, X


def build_sweep(b: Kernel, tabled: bool = True) -> t.Sweep:
    """The sweep of a kernel whose statements are complete.

    With `tabled`, which stretch holds a tile's ids is found before the kernel, where it can be: for all programs of a
    tile at once. That takes time which few tiles that see many keys do not get back.
    """
    assert b.stream is not None
    tiles = [a.name for a in b.axes.values() if a.role is Role.TILE]
    tile = tiles[0] if len(tiles) == 1 else None
    first: Expr = Origin(tile) if tile else Const(0)
    last: Expr = Binary("-", Binary("+", Origin(tile), Block(tile)), Const(1)) if tile else Const(0)
    found = tuple(
        _known(b, s, tabled)
        for s in stretches(_domain(b.domains), b.stream, tile, first, last, b.floats)
    )
    # What begins at the beginning comes first: the rest then lies behind it, and not on both sides.
    found = tuple(sorted(found, key=lambda s: bool(s.low)))
    if b.descends is not None and len(found) > 1:
        found = (Stretch(partial=True),)  # a scan must not leave the order
    body = lighten(b, [*b.sweep, *b.commits])
    masked = arrange(masked_body(body))
    scalars = {s.name for s in b.prologue if isinstance(s, t.Compute) and not s.dims}
    plain = arrange(unmasked_body(body, b.stream, scalars))
    ranges: list[t.Range] = []
    for low, high, s in _disjoint(b, found):
        for lo, hi, partial in _split(b, low, high, s):
            ranges.append(t.Range(lo, hi, partial, masked if partial else plain))
    if b.descends:
        ranges.reverse()
    return t.Sweep(b.stream, tuple(ranges), bool(b.descends), b.descends is not None)


def _domain(domains: list[Expr | None]) -> Expr | None:
    """One condition that holds wherever a state takes part; equal conditions stay as they are."""
    distinct = list(dict.fromkeys(domains))
    if None in distinct or not distinct:
        return None if len(distinct) <= 1 else Logic("or", (Const(True), Const(True)))
    parts = tuple(d for d in distinct if d is not None)
    return parts[0] if len(parts) == 1 else Logic("or", (Const(True), *parts))


def _known(b: Kernel, s: Stretch, tabled: bool) -> Stretch:
    """Without the bounds that are no scalars of the program (a width per row)."""

    def scalar(e: Expr) -> bool:
        return not b.dims_of(e) and b.stream not in _positions(e)

    low, high = tuple(filter(scalar, s.low)), tuple(filter(scalar, s.high))
    full_low, full_high = tuple(filter(scalar, s.full_low)), tuple(filter(scalar, s.full_high))
    seen, full = tuple(filter(scalar, s.open)), tuple(filter(scalar, s.full))
    for value, ids in s.ids:
        bounds = (_tabled(b, value, ids) if tabled else None) or _reach(b, value, ids)
        if bounds is None:
            return Stretch(low, high, partial=True, open=seen)
        low, high = (*low, bounds[0]), (*high, bounds[1])
        full_low, full_high = (*full_low, bounds[2]), (*full_high, bounds[3])
    lost = any(not scalar(e) for e in (*s.full_low, *s.full_high, *s.full))
    partial = s.partial or lost
    return Stretch(low, high, full_low, full_high, partial, open=seen, full=full)


def _tabled(b: Kernel, value: Expr, ids: Read) -> tuple[Expr, Expr, Expr, Expr] | None:
    """The same, found before the kernel: the tile's ids are a tensor's, read at places of the grid alone."""
    tiles = [a.name for a in b.axes.values() if a.role is Role.TILE]
    if not isinstance(value, Read) or len(tiles) != 1:
        return None
    assert b.stream is not None
    places = [
        _places(b, r, axis) for r, axis in ((ids, b.stream), (value, tiles[0]))
    ]  # fmt: skip
    if None in places:
        return None
    subs, of_subs = (p for p in places if p is not None)
    if len({*subs, *of_subs}) > t.MOST_ROWS + 2:
        return None
    low, high, full_low, full_high = (
        b.names.fresh(n) for n in ("low_id", "high_id", "full_low_id", "full_high_id")
    )
    tensors = (ids.tensor, subs, b.stream, value.tensor, of_subs, tiles[0])
    b.read_buffers |= dict.fromkeys((ids.tensor, value.tensor))
    # First of all: it is under way while the tile's data come.
    b.prologue.insert(0, t.TileReach(low, high, full_low, full_high, *tensors))
    for n in (low, high, full_low, full_high):
        b.made[n] = X(t.Val(n), dtype=DType.INT)
    return t.Val(low), t.Val(high), t.Val(full_low), t.Val(full_high)


def _places(b: Kernel, read: Read, axis: str) -> tuple[Expr, ...] | None:
    """Where an input of integers is read: once at `axis`, and besides at positions on the grid; None if elsewhere."""
    if read.tensor not in b.inputs or b.inputs[read.tensor].dtype is not DType.INT:
        return None
    at = [b.equal.get(s, s) for s in read.subs]
    if not all(isinstance(s, Index | Position) for s in at):
        return None
    names = [s.name for s in at if isinstance(s, Index | Position)]
    grid = all(n == axis or (n in b.axes and b.axes[n].role is Role.GRID) for n in names)
    return tuple(Position(n) for n in names) if grid and names.count(axis) == 1 else None


def _reach(b: Kernel, value: Expr, ids: Read) -> tuple[Expr, Expr, Expr, Expr] | None:
    """The stretch of the stream that holds one of the tile's ids, looked up before the sweep."""
    assert b.stream is not None
    if ids.tensor not in b.inputs or b.inputs[ids.tensor].dtype is not DType.INT:
        return None
    tiles = [a.name for a in b.axes.values() if a.role is Role.TILE]
    inside: dict[str, Expr] = {
        a: Call("min", (Position(a), Binary("-", Extent(b.axes[a].rank), Const(1)))) for a in tiles
    }
    x = b.eval(substitute(value, inside), False, "id")
    if x.dtype is not DType.INT or len(x.dims) > 1 or STREAMED in x.on:
        return None
    first = last = b.value(x, "id")
    if x.dims:
        (axis,) = x.dims
        first = b.value(fold(b, Reduction.MIN, first, x, axis, "first_id"), "first_id")
        last = b.value(fold(b, Reduction.MAX, last, x, axis, "last_id"), "last_id")
    subs: list[Expr] = []
    on = x.on
    for s in ids.subs:
        at = b.equal.get(s, s)
        y = b.position(at.name) if isinstance(at, Index | Position) else b.bind(b.eval(at), "at")
        if b.stream not in y.dims:
            on |= y.on
        subs.append(y.expr)
    fresh = b.names.fresh
    low, high = fresh("low_id"), fresh("high_id")
    full_low, full_high = fresh("full_low_id"), fresh("full_high_id")
    b.read_buffers[ids.tensor] = None
    b.place(on).append(
        t.Reach(low, high, full_low, full_high, ids.tensor, tuple(subs), b.stream, first, last)
    )
    for n in (low, high, full_low, full_high):
        b.made[n] = X(t.Val(n), on=on, dtype=DType.INT)
    return t.Val(low), t.Val(high), t.Val(full_low), t.Val(full_high)


def _positions(e: Expr) -> set[str]:
    return {n.name for n in walk(e) if isinstance(n, Position)}


def _scalar(b: Kernel, e: Expr, name: str) -> Expr:
    return b.bind(b.eval(e, False, name), name).expr


def _most(fn: str, parts: tuple[Expr, ...]) -> Expr:
    parts = tuple(dict.fromkeys(parts))
    return parts[0] if len(parts) == 1 else Call(fn, parts)


def _where(conditions: tuple[Expr, ...], bound: Expr) -> Expr:
    """An upper bound, and 0 where one of the conditions fails."""
    conditions = tuple(dict.fromkeys(conditions))
    if not conditions:
        return bound
    both = conditions[0] if len(conditions) == 1 else Logic("and", conditions)
    return Select(both, bound, Const(0))


def _floor(e: Expr, block: Expr) -> Expr:
    return e if e == Const(0) else Binary("*", Binary("//", e, block), block)


def _ceil(e: Expr, block: Expr) -> Expr:
    up = Binary("-", Binary("+", e, block), Const(1))
    return Binary("*", Binary("//", up, block), block)


def _disjoint(b: Kernel, found: tuple[Stretch, ...]) -> list[tuple[Expr, Expr, Stretch]]:
    """Tile-aligned pieces `[low, high)` that cover every stretch and overlap nowhere."""
    assert b.stream is not None
    block = Block(b.stream)
    end = Extent(b.axes[b.stream].rank)
    aligned: list[tuple[Expr, Expr]] = []
    for k, s in enumerate(found):
        tag = "" if len(found) == 1 else f"{k}"
        low: Expr = (
            Const(0) if not s.low else _scalar(b, _most("max", (Const(0), *s.low)), "low" + tag)
        )
        top = _where(s.open, _most("min", (end, *s.high)))
        high: Expr = end if top == end else _scalar(b, top, "high" + tag)
        lo = Const(0) if low == Const(0) else _scalar(b, _floor(low, block), "first" + tag)
        hi = _scalar(b, Call("max", (lo, _ceil(high, block))), "stop" + tag)
        aligned.append((lo, hi))
    if len(found) == 1:
        return [(*aligned[0], found[0])]
    (lo0, hi0), (lo1, hi1) = aligned
    before = _scalar(b, Call("max", (lo1, Call("min", (hi1, lo0)))), "stop_before")
    after = _scalar(b, Call("max", (lo1, hi0)), "first_after")
    out = [
        (lo0, hi0, found[0]),
        (after, _scalar(b, Call("max", (after, hi1)), "stop_after"), found[1]),
    ]
    if lo0 != Const(0):
        out.insert(1, (lo1, before, found[1]))
    return out


def _split(b: Kernel, low: Expr, high: Expr, s: Stretch) -> list[tuple[str, str, bool]]:
    """Partial, full and partial again."""
    assert b.stream is not None
    block = Block(b.stream)
    end = Extent(b.axes[b.stream].rank)

    def name(e: Expr, base: str) -> str:
        return b.value(X(e, dtype=DType.INT), base) if not isinstance(e, t.Val) else e.name

    lo, hi = name(low, "lo"), name(high, "hi")
    if s.partial:
        return [(lo, hi, True)]
    full_hi = _where(s.full, _most("min", (end, *s.full_high)))
    start: Expr = t.Val(lo)
    out = []
    if s.full_low:
        up = _ceil(Call("max", (Const(0), *s.full_low)), block)
        start = _scalar(b, Call("min", (t.Val(hi), Call("max", (t.Val(lo), up)))), "full")
        out.append((lo, name(start, "full"), True))
    down = _floor(Call("max", (Const(0), full_hi)), block)
    stop = _scalar(b, Call("max", (start, Call("min", (t.Val(hi), down)))), "full_end")
    out += [
        (name(start, "full"), name(stop, "full_end"), False),
        (name(stop, "full_end"), hi, True),
    ]
    return out
