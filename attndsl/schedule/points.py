"""Terms that span three ranks: one point of the feature rank at a time."""

from __future__ import annotations

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Logic,
    Position,
    Read,
    Reduction,
    Select,
)
from attndsl.cascade.walk import substitute, walk
from attndsl.schedule import tile as t
from attndsl.schedule.forms import is_large, merged, product_of
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.masks import masked, may_break
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.tile import Axis, Role, Val
from attndsl.schedule.values import (
    CHOICE,
    STREAMED,
    TIMES,
    State,
    X,
)


def point_loop(
    kernel: Kernel, op: Reduction, axis: str, body: Expr, where: Expr | None, final: bool, name: str
) -> X:
    """A reduction whose terms span three ranks: point by point of the feature rank."""
    if kernel.axes[axis].role is not Role.FULL:
        raise Refused("A0404", f"a product over `{axis}` spans three ranks", body.span)
    return each_point(kernel, op, axis, body, where, final, name)


def each_point(
    kernel: Kernel,
    op: Reduction,
    index: str,
    body: Expr,
    where: Expr | None,
    final: bool,
    name: str,
) -> X:
    """`op[index : where](body)`, one point of the index after the other."""
    rank = kernel.axes[index].rank if index in kernel.axes else kernel.ranks.of.get(index, index)
    point = kernel.names.fresh(f"{rank}_pt")
    kernel.axes[point] = Axis(point, rank, Role.POINT)
    here: dict[str, Expr] = {index: Position(point)}
    kind = DType.BOOL if op in (Reduction.ANY, Reduction.ALL) else DType.FLOAT
    inner: list[t.Stmt] = []
    kernel.points.append((point, inner))
    x = kernel.eval(substitute(body, here), final, name)
    if where is not None:
        cond = kernel.eval(substitute(where, here), final, "keep")
        parts = [cond, x, X(Const(op.identity))]
        x = kernel.combine(CHOICE, parts, kind, name)
    acc = kernel.names.fresh(name)
    dims, on = x.dims, x.on - {point}
    xe = kernel.bind(x, name + "_t").expr
    inner.append(t.Assign(acc, merged(op, Val(acc), xe)))
    kernel.points.pop()
    home = kernel.place(on)
    home.append(t.Declare(acc, kernel.order(dims), kind, Const(op.identity)))
    home.append(t.For(point, tuple(inner), kernel.guard))
    return X(Val(acc), dims, on, kind)


def point_state(
    kernel: Kernel,
    state: State,
    d: Define,
    factors: list[Expr],
    where: Expr | None,
    alpha: X | None,
) -> None:
    """`X[i,f] += sum[j](term of i, j and f)`: column by column of the feature rank."""
    assert kernel.stream is not None
    dims = frozenset().union(*(kernel.dims_of(f) for f in factors))
    fulls = [a for a in dims if kernel.axes[a].role is Role.FULL]
    if len(fulls) != 1 or len(dims) != 3:
        pairs = ", ".join(f"`{i}`" for i in kernel.ranks.sequence(d.indices))
        raise Refused("A0404", f"`{d.tensor}` is a sum for every point of {pairs}", d.span)
    (axis,) = fulls
    old = Val(state.name)
    if alpha is not None:
        corrected = Binary("*", old, kernel.bind(alpha, "alpha").expr)
        kernel.sweep.append(t.Assign(state.name, corrected))
    fixed = [f for f in factors if axis not in kernel.dims_of(f)]
    moving = [f for f in factors if axis in kernel.dims_of(f)]
    shared = kernel.eval(product_of(fixed), False, d.tensor)
    weight = masked(kernel, shared, where, 0.0, d.tensor + "_s")
    point = kernel.names.fresh(f"{axis}_pt")
    kernel.axes[point] = Axis(point, kernel.axes[axis].rank, Role.POINT)
    inner: list[t.Stmt] = []
    kernel.points.append((point, inner))
    x = kernel.eval(substitute(product_of(moving), {axis: Position(point)}), False, d.tensor)
    scale = X(Val(weight), kernel.dims_of_value(weight), frozenset({STREAMED}))
    # A dialect that runs many programs as one may run the loop for others.
    if kernel.guard is not None:
        here_too = Select(Val(kernel.guard), Val(weight), Const(0.0))
        weight = kernel.value(X(here_too, scale.dims, scale.on), d.tensor + "_s")
        scale = X(Val(weight), scale.dims, scale.on)
    term = kernel.combine(TIMES, [scale, x], DType.FLOAT, d.tensor)
    if exponential(kernel, product_of(moving)) or may_break(kernel, product_of(moving)):
        # Outside the domain the weight is 0, and what it weighs may be infinite, or no number at all.
        inside = X(Compare("!=", Val(weight), Const(0.0)), scale.dims, scale.on, DType.BOOL)
        term = kernel.combine(CHOICE, [inside, term, X(Const(0.0))], DType.FLOAT, d.tensor)
    tv = kernel.value(term, d.tensor + "_t")
    col = kernel.names.fresh(d.tensor + "_col")
    kept = kernel.order(term.dims - {kernel.stream})
    inner.append(t.Fold(col, kept, Reduction.SUM, tv, kernel.stream))
    here = Compare("==", Position(axis), Position(point))
    inner.append(t.Assign(state.name, Select(here, Binary("+", old, Val(col)), old)))
    kernel.points.pop()
    kernel.sweep.append(t.For(point, tuple(inner), kernel.guard))


def extreme_points(kernel: Kernel, state: State, d: Define, body: Expr, where: Expr | None) -> None:
    """`X[i,f] = max(X[i,f], max[j](term of i, j and f))`: column by column of the feature rank."""
    assert kernel.stream is not None
    dims = kernel.dims_of(body)
    fulls = [a for a in dims if kernel.axes[a].role is Role.FULL]
    known = state.reduce.op in (Reduction.MAX, Reduction.MIN)
    if len(fulls) != 1 or len(dims) != 3 or not known:
        raise Refused("A0404", f"`{d.tensor}` reduces a value of three ranks", d.span)
    (axis,) = fulls
    op = state.reduce.op
    seen = None
    if kernel.root is None:  # else the term sinks by itself where it is not seen
        one = masked(kernel, X(Const(1.0)), where, 0.0, d.tensor + "_seen", always=True)
        on = kernel.dims_of_value(one)
        seen = X(Compare("!=", Val(one), Const(0.0)), on, frozenset({STREAMED}), DType.BOOL)
    point = kernel.names.fresh(f"{axis}_pt")
    kernel.axes[point] = Axis(point, kernel.axes[axis].rank, Role.POINT)
    inner: list[t.Stmt] = []
    kernel.points.append((point, inner))
    x = kernel.eval(substitute(body, {axis: Position(point)}), False, d.tensor)
    if seen is not None:
        parts = [seen, x, X(Const(op.identity))]
        x = kernel.combine(CHOICE, parts, DType.FLOAT, d.tensor)
    v = kernel.value(x, d.tensor + "_s")
    column = kernel.names.fresh(d.tensor + "_col")
    inner.append(t.Fold(column, kernel.order(x.dims - {kernel.stream}), op, v, kernel.stream))
    here: Expr = Compare("==", Position(axis), Position(point))
    # A dialect that runs many programs as one may run the loop for others.
    if kernel.guard is not None:
        here = Logic("and", (here, Val(kernel.guard)))
    old = Val(state.name)
    both = Call(op.value, (old, Val(column)))
    inner.append(t.Assign(state.name, Select(here, both, old)))
    kernel.points.pop()
    kernel.sweep.append(t.For(point, tuple(inner), kernel.guard))


def exponential(kernel: Kernel, e: Expr) -> bool:
    """Whether a value has an exponential of rows and stream in it."""
    for n in walk(e):
        if isinstance(n, Call) and n.fn in ("exp", "exp2"):
            return True
        if isinstance(n, Read) and n.tensor in kernel.defs and n.tensor not in kernel.available:
            d = kernel.defs[n.tensor]
            if not is_large(d.expr, kernel.ranks) and exponential(kernel, d.expr):
                return True
    return False
