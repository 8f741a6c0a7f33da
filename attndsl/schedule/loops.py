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
    Index,
    Position,
    Reduce,
)
from attndsl.cascade.walk import free, replaced
from attndsl.schedule.forms import is_large
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.tile import Block, Origin, Role
from attndsl.schedule.values import X


def solve_loops(kernel: Kernel, where: Expr | None, body: Expr) -> tuple[Expr | None, Expr]:
    """Drop `h // G == K.1` (it became the loop's bounds) and read through it: `K[h // G]` is `K[K.1]`."""
    rest: list[Expr] = []
    for c in conjuncts(where):
        if isinstance(c, Compare) and c.op == "==" and isinstance(c.right, Position):
            grid = kernel.axes.get(c.right.name)
            if grid is not None and grid.role is Role.GRID and is_loop_only(kernel, c.left):
                left, right = c.left, c.right
                kernel.equal[left] = right
                body = replaced(body, left, right)
                rest = [replaced(r, left, right) for r in rest]
                if is_group(kernel, c):
                    continue
        rest.append(c)
    return conjunction(rest), body


def is_group(kernel: Kernel, cond: Expr) -> bool:
    """`h // G == g`, for a loop over `h` and a point `g` of the grid: what `loop_bounds` makes bounds of."""
    match cond:
        case Compare("==", Binary("//", Position(h) | Index(h), size), Position(g)):
            grid = kernel.axes.get(g)
            found = grid is not None and grid.role is Role.GRID and not free(size)
            return found and kernel.ranks.of.get(h, h) in kernel.loop_body
        case _:
            return False


def is_loop_only(kernel: Kernel, e: Expr) -> bool:
    """An expression over the indices of loops alone."""
    return bool(free(e)) and all(kernel.axes[i].role is Role.LOOP for i in free(e))


def loop_axis(rank: str, kept: tuple[str, ...], stream: str | None) -> str:
    """The name of the axis of a loop over a rank, which may be kept or streamed besides."""
    return rank if rank not in kept and rank != stream else rank + "_l"


def loop_bounds(kernel: Kernel, axis: str) -> tuple[str, str]:
    """`[0, |h|)`, or the group `[g*G, (g+1)*G)` where the reduction's condition says `h // G == g`.

    A loop over a sequence: the stretch that the domain leaves open to the kernel's tile.
    """
    rank = kernel.axes[axis].rank
    if kernel.ranks.kind(rank) is Kind.SEQUENCE:
        return _sequence_bounds(kernel, axis)
    for d in kernel.cascade.body:
        if not is_large(d.expr, kernel.ranks):
            continue
        assert isinstance(d.expr, Reduce)
        for cond in conjuncts(d.expr.where):
            match cond:
                case Compare("==", Binary("//", Position(h), size), Position(g)) if (
                    kernel.ranks.of.get(h, h) == rank
                    and g in kernel.axes
                    and kernel.axes[g].role is Role.GRID
                ):
                    lo = Binary("*", Position(g), size)
                    hi = Binary("+", lo, size)
                    return (
                        kernel.value(kernel.eval(lo, False, "lo_" + rank), "lo_" + rank),
                        kernel.value(kernel.eval(hi, False, "hi_" + rank), "hi_" + rank),
                    )
    zero, top = X(Const(0), dtype=DType.INT), kernel.eval(Extent(rank))
    return kernel.value(zero, "lo_" + rank), kernel.value(top, "hi_" + rank)


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
