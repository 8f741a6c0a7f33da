"""Loops around the sweep: over summed batch indices, all of them or those of a group."""

from __future__ import annotations

from collections.abc import Iterable

from attndsl.analysis.intervals import bound_of, stretches
from attndsl.analysis.ranks import Kind
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Position,
)
from attndsl.cascade.walk import free, replaced
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.tile import Block, Origin, Role
from attndsl.schedule.values import X


def solve_loops(kernel: Kernel, where: Expr | None, body: Expr) -> tuple[Expr | None, Expr]:
    """Read through `h // G == K.1`: `K[h // G]` is `K[K.1]`; and drop it where it becomes the bounds of the loop.

    It becomes that for all reductions of a kernel or for none: `kernel.mixed` says that one of them lacks it.
    """
    rest: list[Expr] = []
    taken: set[str] = set()
    for c in conjuncts(where):
        if isinstance(c, Compare) and c.op == "==" and isinstance(c.right, Position):
            grid = kernel.axes.get(c.right.name)
            if grid is not None and grid.role is Role.GRID and is_loop_only(kernel, c.left):
                left, right = c.left, c.right
                body = replaced(body, left, right)
                rest = [replaced(r, left, right) for r in rest]
                axis = group_axis(kernel, c)
                if axis is not None and kernel.groups.setdefault(axis, c) == c:
                    kernel.equal[left] = right
                    taken.add(axis)
                    continue
        rest.append(c)
    if kernel.loop_body:
        kernel.ungrouped |= not taken
        kernel.mixed |= bool(kernel.groups) and (taken != kernel.groups.keys() or kernel.ungrouped)
    return conjunction(rest), body


def group_axis(kernel: Kernel, cond: Compare) -> str | None:
    """The loop that `h // G == g` gives bounds, for a loop over `h` and a point `g` of the grid."""
    match cond.left:
        case Binary("//", Position(h), size) if (
            kernel.grouped and h in kernel.loop_body and not free(size)
        ):
            return h
        case _:
            return None


def is_loop_only(kernel: Kernel, e: Expr) -> bool:
    """An expression over the indices of loops alone."""
    return bool(free(e)) and all(kernel.axes[i].role is Role.LOOP for i in free(e))


def loop_axis(rank: str, kept: tuple[str, ...], stream: str | None) -> str:
    """The name of the axis of a loop over a rank, which may be kept or streamed besides."""
    return rank if rank not in kept and rank != stream else rank + "_l"


def loop_bounds(kernel: Kernel, axis: str) -> tuple[str, str]:
    """`[0, |h|)`, or the group `[g*G, (g+1)*G)` where `solve_loops` took a condition `h // G == g` for bounds.

    A loop over a sequence: the stretch that the domain leaves open to the kernel's tile.
    """
    rank = kernel.axes[axis].rank
    if kernel.ranks.kind(rank) is Kind.SEQUENCE:
        return _sequence_bounds(kernel, axis)
    match kernel.groups.get(axis):
        case Compare("==", Binary("//", _, size), Position(g)):
            lo = Binary("*", Position(g), size)
            hi: Expr = Binary("+", lo, size)
            if not _whole(kernel, rank, size, g):
                hi = Call("min", (hi, Extent(rank)))
            return (
                kernel.value(kernel.eval(lo, False, "lo_" + rank), "lo_" + rank),
                kernel.value(kernel.eval(hi, False, "hi_" + rank), "hi_" + rank),
            )
    zero, top = X(Const(0), dtype=DType.INT), kernel.eval(Extent(rank))
    return kernel.value(zero, "lo_" + rank), kernel.value(top, "hi_" + rank)


def _whole(kernel: Kernel, rank: str, size: Expr, group: str) -> bool:
    """Whether every group has all its points: an input declares an axis `h // G`, which holds `|h|` to G times that."""
    return any(
        at == group and isinstance(dim, Binary) and dim.op == "//" and dim.right == size
        for i in kernel.cascade.inputs
        for dim, at in zip(i.dims, i.ranks, strict=True)
        if free(dim) == {rank}
    )


def _sequence_bounds(kernel: Kernel, axis: str) -> tuple[str, str]:
    """The points of a sequence that some point of the tile sees, for some point of the stream."""
    rank = kernel.axes[axis].rank
    tiles = [a.name for a in kernel.axes.values() if a.role is Role.TILE]
    tile = tiles[0] if len(tiles) == 1 else None
    low: tuple[Expr, ...] = (Const(0),)
    high: tuple[Expr, ...] = (Extent(rank),)
    domains = list(dict.fromkeys(kernel.domains))
    if tile is not None and len(domains) == 1 and domains[0] is not None:
        first: Expr = Origin(tile)
        last: Expr = Binary("-", Binary("+", first, Block(tile)), Const(1))
        whole = conjunction(_without(conjuncts(domains[0]), kernel.stream, kernel.floats))
        found = stretches(whole, axis, tile, first, last, kernel.floats)
        if len(found) == 1:
            low += tuple(e for e in found[0].low if _known(kernel, e))
            high += tuple(e for e in found[0].high if _known(kernel, e))
    lo: Expr = low[0] if len(low) == 1 else Call("max", low)
    hi: Expr = high[0] if len(high) == 1 else Call("min", high)
    names = ("lo_" + axis, "hi_" + axis)
    start, stop = (
        kernel.value(kernel.eval(e, False, n), n) for e, n in zip((lo, hi), names, strict=True)
    )
    return start, stop


def _known(kernel: Kernel, e: Expr) -> bool:
    """A bound that is one number before all loops."""
    return not kernel.dims_of(e) and kernel.on_of(e) == frozenset()


def _without(parts: Iterable[Expr], stream: str | None, floats: frozenset[str]) -> list[Expr]:
    """What conditions say where one index is eliminated.

    rewrite:  j <= i, k <= i, i - w < k   ->   k <= i and so on, and from a lower and an upper bound of i: j < k + w
    source:   Fourier and Motzkin's elimination, one variable
    """
    if stream is None:
        return list(parts)
    out: list[Expr] = []
    above: list[Expr] = []
    below: list[Expr] = []
    for c in parts:
        if stream not in free(c):
            out.append(c)
            continue
        found = bound_of(c, stream, floats)
        for upper, value in found:
            (above if upper else below).append(value)
    return out + [Compare("<=", low, high) for low in below for high in above]
