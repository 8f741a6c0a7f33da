"""Loops around the sweep: over summed batch indices, all of them or those of a group."""

from __future__ import annotations

from attndsl.cascade.domains import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Position,
    Reduce,
)
from attndsl.cascade.walk import free, replaced
from attndsl.schedule.forms import is_large
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.tile import Role
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
                continue
        rest.append(c)
    return conjunction(rest), body


def is_loop_only(kernel: Kernel, e: Expr) -> bool:
    """An expression over the indices of loops alone."""
    return bool(free(e)) and all(kernel.axes[i].role is Role.LOOP for i in free(e))


def loop_bounds(kernel: Kernel, rank: str) -> tuple[str, str]:
    """`[0, |h|)`, or the group `[g*G, (g+1)*G)` where the reduction's condition says `h // G == g`."""

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
