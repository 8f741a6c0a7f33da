"""Products with bands of rows (`bands`): scores, sums over the stream, and gradients of the table."""

from __future__ import annotations

from attndsl.cascade.nodes import (
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Position,
)
from attndsl.cascade.walk import free
from attndsl.schedule import tile as t
from attndsl.schedule.bands import (
    along_band,
    band_at,
    band_axis,
    load_band,
    row_in_band,
    rows_of,
    split_table,
)
from attndsl.schedule.forms import product_of
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.masks import masked
from attndsl.schedule.memory import dot_like, is_load
from attndsl.schedule.operands import dot_operand, pad
from attndsl.schedule.tile import Val
from attndsl.schedule.values import CHOICE, STREAMED, State, X


def band_product(
    kernel: Kernel, axis: str, factors: list[Expr], final: bool, name: str
) -> X | None:
    """`sum[e](Q[i,e] * R[i - j, e])`: of a product with the band the diagonals; None where it is no such sum."""
    found = split_table(kernel, factors)
    if found is None:
        return None
    table, others, spans = found
    sides = frozenset(table.band.signs)
    kept = spans & sides
    if table.feature != axis or spans - sides != {axis} or len(kept) != 1:
        return None
    rows, x = dot_operand(kernel, others, axis, None, final, name)
    band = load_band(kernel, table)
    over = band_axis(kernel, axis)
    dims = kernel.order(kept | {over})
    left, right = (rows, band) if dims[1] == over else (band, rows)
    whole = kernel.names.fresh(f"{name}_band")
    on = x.on | {STREAMED}
    like = dot_like(kernel, others)
    kernel.place(on).append(t.Dot(whole, dims, left, right, axis, like, span=table.read.span))
    out = kernel.names.fresh(name)
    pick = t.Pick(out, kernel.order(sides), whole, over, table.band.column(), True)
    kernel.place(on).append(pick)
    return X(Val(out), sides, on)


def band_sum(
    kernel: Kernel,
    state: State,
    d: Define,
    factors: list[Expr],
    where: Expr | None,
    alpha: X | None,
) -> bool:
    """`O[i,e] += P[i,j] * R[i - j, e]`: a product of weights along the band's rows with the band; whether it is one."""
    assert kernel.stream is not None
    found = split_table(kernel, factors)
    if found is None:
        return False
    table, others, spans = found
    sides = frozenset(table.band.signs)
    if spans - sides or frozenset(state.dims) != (sides | {table.feature}) - {kernel.stream}:
        return False
    shared = kernel.eval(product_of(others), False, d.tensor)
    weight = masked(kernel, shared, where, 0.0, d.tensor + "_s")
    if kernel.dims_of_value(weight) != sides:
        return False
    band = load_band(kernel, table)
    spread = along_band(kernel, table.band, weight, kernel.stream, d.tensor)
    like = table.read.tensor if table.read.tensor in kernel.inputs else dot_like(kernel, others)
    scale = None if alpha is None else kernel.value(alpha, "alpha")
    over = band_axis(kernel, table.feature)
    stmt = t.AccDot(state.name, spread, band, over, like, scale, span=table.read.span)
    kernel.sweep.append(stmt)
    return True


def band_scatter(
    kernel: Kernel,
    factors: list[Expr],
    row: Expr,
    rank: str,
    axis: str,
    where: Expr | None,
    name: str,
) -> tuple[X, str, str] | None:
    """What a tile of pairs adds to a table's rows, `R[i - j, e] += P[i,j] * Q[i,e]`; None where it is no such sum.

    Returns the rows, the value, and the condition that a row is one of the table's.
    """
    assert kernel.stream is not None
    band = band_at(kernel, row, rank) if kernel.multiplies else None
    if band is None:
        return None
    sides = frozenset(band.signs)
    weights = [f for f in factors if axis not in free(f)]
    moving = [f for f in factors if axis in free(f)]
    spans = frozenset().union(*map(kernel.dims_of, moving))
    kept = spans & sides
    if len(kept) != 1 or spans - sides != {axis}:
        return None
    if any(kernel.dims_of(f) - sides for f in weights) or (
        where is not None and kernel.dims_of(where) - sides
    ):
        return None
    (over,), (of,) = kept, sides - kept
    (tile,) = sides - {kernel.stream}
    # The rows of the tile are summed too, and past its end anything may stand.
    end = Compare("<", Position(tile), Extent(kernel.axes[tile].rank))
    x = kernel.eval(product_of(weights), False, name)
    inside = X(end, frozenset({tile}), dtype=DType.BOOL)
    x = kernel.combine(CHOICE, [inside, x, X(Const(0.0))], DType.FLOAT, name)
    weight = masked(kernel, x, where, 0.0, name + "_s", always=True)
    if kernel.dims_of_value(weight) != sides:
        return None
    y = kernel.eval(product_of(moving), False, name)
    v = kernel.value(y, name)
    if not is_load(kernel, v):
        v = pad(kernel, v, y, over, None, 0.0, False)
    along = along_band(kernel, band, weight, of, name)
    axes = kernel.order(frozenset({band_axis(kernel, rank), axis}))
    out = kernel.names.fresh(name)
    kernel.sweep.append(t.Dot(out, axes, along, v, over, dot_like(kernel, moving)))
    at = rows_of(kernel, band, rank)
    return at, out, row_in_band(kernel, band, rank)
