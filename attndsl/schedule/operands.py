"""Sides of products: as they lie in memory, or made 0 where a sum must not see them."""

from __future__ import annotations

from attndsl.cascade.nodes import Compare, Const, DType, Expr, Extent, Position, Select
from attndsl.schedule.forms import product_of
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.memory import is_load
from attndsl.schedule.tile import Role, Val
from attndsl.schedule.values import BOTH, X


def dot_operand(
    kernel: Kernel, group: list[Expr], axis: str, where: Expr | None, final: bool, name: str
) -> tuple[str, X]:
    """One side of a product over a feature axis: its value, and what this spans with its condition."""
    x = kernel.eval(product_of(group), final, name)
    v = kernel.value(x, name)
    plain = is_load(kernel, v)
    if where is not None or (not plain and kernel.axes[axis].role is Role.FULL):
        v = pad(kernel, v, x, axis, where, 0.0, final)
    dims = x.dims | (frozenset() if where is None else kernel.dims_of(where))
    return v, X(Val(v), dims, x.on | kernel.on_of(where))


def pad(
    kernel: Kernel, v: str, x: X, axis: str, where: Expr | None, fill: float | bool, final: bool
) -> str:
    """Neutral values at the points that a reduction must not see: padding, and outside its condition."""
    if not kernel.pads_sums and where is None and kernel.axes[axis].role is Role.FULL:
        return v
    inside = Compare("<", Position(axis), Extent(kernel.axes[axis].rank))
    cond = X(inside, frozenset({axis}), dtype=DType.BOOL)
    if where is not None:
        keep = kernel.eval(where, final, "keep")
        cond = kernel.combine(BOTH, [cond, keep], DType.BOOL, "keep")
    key = ("pad", v, cond.expr, fill)
    if key not in kernel.memo:
        chosen = Select(cond.expr, Val(v), Const(fill))
        y = X(chosen, x.dims | cond.dims, x.on | cond.on, x.dtype)
        kernel.memo[key] = kernel.bind(y, v + "_kept")
    out = kernel.memo[key].expr
    assert isinstance(out, Val)
    return out.name
