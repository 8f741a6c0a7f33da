"""Gates of vectors inside a chunk, measured from its middle, so that matrix units take them.

    A[i,j] = sum[e](Q[i,e] * K[j,e] * exp(C[i,e] - C[j,e]))
    ->       sum[e]((Q[i,e] * exp(C[i,e] - C[m,e])) * (K[j,e] * exp(C[m,e] - C[j,e])))       m, the middle of the chunk

The whole exponent is no larger than 0 where `j <= i`, but its parts are: of gates that close almost wholly inside a
chunk, one part overflows. So the chunk says how far its exponents reach, and where that is further than the products'
type holds, the sum is taken point by point, with whole exponents. What the products gave is dropped there.

source: Yang et al. 2023 (arXiv:2312.06635), section 4.3, with references at the start of smaller chunks
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attndsl.analysis.anchors import Gate
from attndsl.analysis.linearity import NotLinear, Splitter, Term
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import free
from attndsl.schedule import tile as t
from attndsl.schedule.forms import product_of
from attndsl.schedule.masks import masked
from attndsl.schedule.memory import bare_like
from attndsl.schedule.operands import pad
from attndsl.schedule.points import each_point, point_state
from attndsl.schedule.products import fold
from attndsl.schedule.tile import Role, Val
from attndsl.schedule.values import CHOICE, TIMES, State, X

if TYPE_CHECKING:
    from attndsl.schedule.chunked import ChunkBuilder


@dataclass(frozen=True, slots=True)
class Halves:
    """The two sides of gates, and whether they reach too far."""

    row: list[X]
    column: list[X]
    far: X


def term_of(b: ChunkBuilder, factors: list[Expr], axis: str, over: bool) -> Term | None:
    """Factors taken apart, where their gates are of vectors and nothing else knows both sides."""
    whole = product_of(factors)
    if over:
        whole = Reduce(Reduction.SUM, (axis,), whole)
    try:
        terms = Splitter(b.row, b.col, b.seen, b.ordered).terms(whole)
    except NotLinear:
        return None
    if len(terms) != 1:
        return None
    (term,) = terms
    gates, others = (term.inner, term.gates) if over else (term.gates, ())
    if not gates or others or term.far is not None or not all(axis in _spans(b, g) for g in gates):
        return None
    return term


def _spans(b: ChunkBuilder, g: Gate) -> frozenset[str]:
    return free(g.row_exponent(b.col, b.middle)) | free(g.column_exponent(b.col, b.middle))


def halves(b: ChunkBuilder, gates: tuple[Gate, ...], axis: str, like: str) -> Halves:
    """Gates from the middle of the chunk to each row, and from each column to it."""
    middle = b.middle
    rows: list[X] = []
    columns: list[X] = []
    reach: Expr | None = None
    dims = frozenset({axis})
    on: frozenset[str] = frozenset()
    for g in gates:
        x = b.bind(b.eval(g.row_exponent(b.col, middle), False, "reach"), "reach")
        y = b.eval(g.column_exponent(b.col, middle), False, "reach")
        v = masked(b, y, None, 0.0, "reach", always=True)
        y = X(Val(v), b.dims_of_value(v), y.on)
        for z, side, group in ((x, b.row, rows), (y, b.col, columns)):
            size = b.bind(X(Call("abs", (z.expr,)), z.dims, z.on), "size")
            kept = pad(b, b.value(size, "size"), size, axis, None, 0.0, False)
            most = fold(b, Reduction.MAX, kept, size, side, "far")
            reach = most.expr if reach is None else Call("max", (reach, most.expr))
            on |= size.on
            group.append(X(Call("exp", (z.expr,)), z.dims, z.on))
    assert reach is not None
    both = b.bind(X(reach, dims, on), "far")
    furthest = fold(b, Reduction.MAX, b.value(both, "far"), both, axis, "far")
    far = X(Unary("not", Compare("<=", furthest.expr, t.Span(like))), frozenset(), on, DType.BOOL)
    return Halves(rows, columns, b.bind(far, "too_far"))


def contracted(
    b: ChunkBuilder, axis: str, factors: list[Expr], where: Expr | None, final: bool, name: str
) -> X | None:
    """`sum[axis](left(i) * right(j) * gates(i, j))` as a product, where it holds; None if it is no such sum."""
    if b.axes[axis].role is not Role.FULL or b.points or final or where is not None:
        return None
    term = term_of(b, factors, axis, True)
    if term is None:
        return None
    left, right = [*term.row, *term.left], [*term.column, *term.right]
    like = bare_like(b, left + right)
    gates = halves(b, term.inner, axis, like)
    sides: list[str] = []
    for group, factor in ((left, gates.row), (right, gates.column)):
        x = b.eval(product_of(group), False, name)
        for g in factor:
            x = b.combine(TIMES, [x, g], DType.FLOAT, name)
        x = b.bind(x, name)
        sides.append(pad(b, b.value(x, name), x, axis, None, 0.0, False))
    dims = frozenset({b.row, b.col})
    out = b.names.fresh(name)
    on = gates.far.on
    order = b.order(dims)
    of_row, of_column = sides
    first, second = (of_row, of_column) if order[0] == b.row else (of_column, of_row)
    b.place(on).append(t.Dot(out, order, first, second, axis, like))
    with b.guarded(gates.far):
        slow = each_point(b, Reduction.SUM, axis, product_of(factors), None, False, name)
    return b.combine(CHOICE, [gates.far, slow, X(Val(out), dims, on)], DType.FLOAT, name)


def summed(
    b: ChunkBuilder, state: State, d: Define, factors: list[Expr], where: Expr | None
) -> bool:
    """`X[i,e] += sum[j](w(i, j) * row(i, e) * column(j, e) * gates(i, j, e))` by a product, where it holds."""
    dims = frozenset().union(*(b.dims_of(f) for f in factors))
    fulls = [a for a in dims if b.axes[a].role is Role.FULL]
    if len(fulls) != 1 or len(dims) != 3:
        return False
    (axis,) = fulls
    term = term_of(b, [f for f in factors if axis in b.dims_of(f)], axis, False)
    if term is None or term.over is not None:
        return False
    like = bare_like(b, [*term.row, *term.column])
    gates = halves(b, term.gates, axis, like)
    shared = b.eval(product_of([f for f in factors if axis not in b.dims_of(f)]), False, d.tensor)
    weight = masked(b, shared, where, 0.0, d.tensor + "_s")
    column = b.eval(product_of(term.column), False, "column")
    for g in gates.column:
        column = b.combine(TIMES, [column, g], DType.FLOAT, "column")
    held = masked(b, column, None, 0.0, "column", always=True)
    row = b.eval(product_of(term.row), False, "row")
    for g in gates.row:
        row = b.combine(TIMES, [row, g], DType.FLOAT, "row")
    part = b.names.fresh(d.tensor + "_part")
    order = b.order(frozenset({b.row, axis}))
    b.sweep.append(t.Dot(part, order, weight, held, b.col, like))
    known = X(Val(part), frozenset(order), gates.far.on)
    more = b.bind(b.combine(TIMES, [known, row], DType.FLOAT, d.tensor), d.tensor + "_part")
    near = Select(gates.far.expr, Const(0.0), more.expr)
    b.sweep.append(t.Assign(state.name, Binary("+", Val(state.name), near)))
    with b.guarded(gates.far):
        point_state(b, state, d, factors, where, None)
    return True
