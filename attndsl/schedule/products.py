"""Reductions over features: matrix products, folds of a tile, loops over points."""

from __future__ import annotations

from attndsl.analysis.ranks import Kind
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Compare,
    Const,
    DType,
    Expr,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import free, substitute, walk
from attndsl.schedule import tile as t
from attndsl.schedule.banded import band_product
from attndsl.schedule.forms import is_large, product_of
from attndsl.schedule.guards import is_sum
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.memory import dot_like
from attndsl.schedule.operands import dot_operand, pad
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.points import each_point, point_loop
from attndsl.schedule.tile import Val
from attndsl.schedule.values import CHOICE, TIMES, X


def small_reduce(kernel: Kernel, e: Reduce, final: bool, name: str) -> X:
    """A reduction over feature ranks: a matrix product, a fold of a tile, or a loop over points."""
    if len(e.indices) > 1:
        inner = Reduce(e.op, e.indices[1:], e.body, e.where)
        return small_reduce(kernel, Reduce(e.op, e.indices[:1], inner), final, name)
    (index,) = e.indices
    if kernel.ranks.kind(index) is Kind.BATCH:
        key = ("reduce", e.op, index, e.body, e.where, final if depends(kernel, e.body) else None)
        if key not in kernel.memo:
            kernel.memo[key] = each_point(kernel, e.op, index, e.body, e.where, final, name)
        return kernel.memo[key]
    if kernel.ranks.kind(index) is not Kind.FEATURE:
        raise Refused("A0407", f"`{e.op.value}[{index}]` runs inside another expression", e.span)
    axis = kernel.full_axis(index, free(e) - {index})
    here = {index: Position(axis)}
    body = substitute(e.body, here)
    where = None if e.where is None else substitute(e.where, here)
    key = ("reduce", e.op, axis, body, where, final if depends(kernel, body) else None)
    if key not in kernel.memo:
        kernel.memo[key] = reduce_axis(kernel, e.op, axis, body, where, final, name)
    return kernel.memo[key]


def depends(kernel: Kernel, e: Expr) -> bool:
    """Whether an expression reads what is reduced in this kernel."""
    return any(isinstance(n, Read) and n.tensor in kernel.reduces for n in walk(e))


def reduce_axis(
    kernel: Kernel, op: Reduction, axis: str, body: Expr, where: Expr | None, final: bool, name: str
) -> X:
    """`op[axis : where](body)` for a FULL axis.

    rewrite:  sum[e : i < j](P[i,j] * K[j,e])   ->   P[i,j] * sum[e](K[j,e]) if i < j else 0
    """
    if op is Reduction.SUM:
        factors = factors_of(kernel, body, frozenset({axis}))
        outside = [f for f in factors if axis not in free(f)]
        inside = [f for f in factors if axis in free(f)]
        parts = conjuncts(where)
        x = contract(
            kernel, axis, inside, conjunction(c for c in parts if axis in free(c)), final, name
        )
        for f in outside:
            y = kernel.eval(f, final, name)
            x = kernel.combine(TIMES, [x, y], DType.FLOAT, name)
        apart = conjunction(c for c in parts if axis not in free(c))
        # Around the factors too, which may be anything where it does not hold.
        if apart is not None:
            cond = kernel.eval(apart, final, "keep")
            x = kernel.combine(CHOICE, [cond, x, X(Const(0.0))], DType.FLOAT, name)
        return kernel.bind(x, name)
    x = kernel.eval(body, final, name)
    if len(x.dims) > 2:
        return point_loop(kernel, op, axis, body, where, final, name)
    v = pad(kernel, kernel.value(x, name), x, axis, where, op.identity, final)
    return fold(kernel, op, v, x, axis, name)


def contract(
    kernel: Kernel, axis: str, factors: list[Expr], where: Expr | None, final: bool, name: str
) -> X:
    """`sum[axis : where](product of factors)`, all of which carry the axis (FULL, or the stream's)."""
    spans = [kernel.dims_of(f) for f in factors]
    cond = frozenset() if where is None else kernel.dims_of(where)
    dims = frozenset().union(*spans, cond)
    if len(dims) <= 2:
        x = kernel.eval(product_of(factors), final, name)
        v = pad(kernel, kernel.value(x, name), x, axis, where, 0.0, final)
        both = X(Val(v), x.dims | cond, x.on | kernel.on_of(where))
        return fold(kernel, Reduction.SUM, v, both, axis, name)
    split = two_sides(kernel, axis, factors, spans, cond) if kernel.multiplies else None
    if split is None:
        apart = kernel.product_apart(axis, factors, where, final, name)
        if apart is None and where is None and kernel.multiplies:
            apart = band_product(kernel, axis, factors, final, name)
        if apart is not None:
            return apart
        return point_loop(kernel, Reduction.SUM, axis, product_of(factors), where, final, name)
    left, right, dims_out = split
    on_left = cond - {axis} <= dims_out[0]
    a, xa = dot_operand(kernel, left, axis, where if on_left else None, final, name)
    b, xb = dot_operand(kernel, right, axis, None if on_left else where, final, name)
    out = kernel.names.fresh(name)
    on = xa.on | xb.on
    dims = (xa.dims | xb.dims) - {axis}
    stmt = t.Dot(out, kernel.order(dims), a, b, axis, dot_like(kernel, left + right))
    kernel.place(on).append(stmt)
    return X(Val(out), dims, on)


def factors_of(kernel: Kernel, body: Expr, over: frozenset[str]) -> list[Expr]:
    """The factors of a product, divisors among them.

    rewrite:  a * b / c   ->   a, b, 1 / c
    requires: `c` is no reduction. Where it is, 0 / 0 is 0: a lone numerator keeps its divisor, and a product takes a
              reciprocal that is 0 where `c` is.
    """
    match body:
        case Binary("*", a, b):
            return factors_of(kernel, a, over) + factors_of(kernel, b, over)
        case Binary("/", a, b):
            above, inverse = factors_of(kernel, a, over), Binary("/", Const(1.0), b)
            if not is_sum(kernel, b):
                return [*above, inverse]
            if len(above) == 1 and kernel.dims_of(b) <= kernel.dims_of(a):
                return [body]
            return [*above, Select(Compare("!=", b, Const(0.0)), inverse, Const(0.0))]
        case Select(cond, a, Const(value=0)) if len(kernel.dims_of(body)) > 2:
            # The condition goes on what knows all that it asks; that may be anything where it does not hold.
            parts = factors_of(kernel, a, over)
            asks = kernel.dims_of(cond)
            chosen = [f for f in parts if asks <= kernel.dims_of(f)]
            # What lies in memory is a number there too, and is no tile to compute beside another that is 0.
            made = [f for f in chosen if not _in_memory(kernel, f)] or chosen
            if made:
                return [Select(cond, f, Const(0.0)) if f in made else f for f in parts]
            return [body]
        case Unary("-", a):
            return [Const(-1.0), *factors_of(kernel, a, over)]
        case Select(cond, x, Const(0 | 0.0)):
            every = factors_of(kernel, x, over)
            held = [f for f in every if kernel.dims_of(f) <= kernel.dims_of(cond)]
            if not held or len(held) == len(every):
                return [body]
            rest = [f for f in every if f not in held]
            return [Select(cond, product_of(held), Const(0.0)), *rest]
        case Read(tensor=name, subs=subs) if (
            name in kernel.defs
            and name not in kernel.available
            and not is_large(kernel.defs[name].expr, kernel.ranks)
            and len(frozenset().union(*(kernel.dims_of(s) for s in subs))) > 2
        ):
            return factors_of(kernel, kernel.inlined(kernel.defs[name], subs), over)
        case _:
            return [body]


def two_sides(
    kernel: Kernel,
    axis: str,
    factors: list[Expr],
    spans: list[frozenset[str]],
    cond: frozenset[str],
) -> tuple[list[Expr], list[Expr], tuple[frozenset[str], frozenset[str]]] | None:
    """Two groups of factors that share the contracted axis alone, the group of the first axis first."""
    kept = kernel.order(frozenset().union(*spans, cond) - {axis})
    if len(kept) != 2:
        return None
    first, second = frozenset({kept[0], axis}), frozenset({kept[1], axis})
    if not (cond <= first or cond <= second):
        return None
    left: list[Expr] = []
    right: list[Expr] = []
    moving = kernel.stream in (kept[0], kept[1])
    made = None
    if kernel.factors_on_weights and not moving:
        made = _made_side(kernel, factors, spans, first, second)
    for f, s in zip(factors, spans, strict=True):
        if s == {axis} and moving:  # to the side that stays while the other one streams
            (right if kept[0] == kernel.stream else left).append(f)
        elif s <= {axis} and made is not None:
            (left, right)[made].append(f)
        elif s <= first and (s & {kept[0]} or not left):
            left.append(f)
        elif s <= second:
            right.append(f)
        elif s <= first:
            left.append(f)
        else:
            return None
    for group, side in ((left, kept[0]), (right, kept[1])):
        if side not in cond.union(*(kernel.dims_of(f) for f in group)):
            return None
    return left, right, (frozenset({kept[0]}), frozenset({kept[1]}))


def _made_side(
    kernel: Kernel,
    factors: list[Expr],
    spans: list[frozenset[str]],
    first: frozenset[str],
    second: frozenset[str],
) -> int | None:
    """Which side is computed here, where the other one is a tile as it lies in memory: that takes no registers."""
    sides = [[f for f, s in zip(factors, spans, strict=True) if s == x] for x in (first, second)]
    stored = [len(x) == 1 and _in_memory(kernel, x[0]) for x in sides if x]
    return stored.index(False) if len(stored) == 2 and stored.count(True) == 1 else None


def _in_memory(kernel: Kernel, e: Expr) -> bool:
    return isinstance(e, Read) and (e.tensor in kernel.inputs or e.tensor in kernel.available)


def fold(kernel: Kernel, op: Reduction, v: str, x: X, axis: str, name: str) -> X:
    """`op[axis](v)` of a tile, where `x` says what `v` spans and depends on."""
    out = kernel.names.fresh(name)
    dims = x.dims - {axis}
    kernel.place(x.on).append(t.Fold(out, kernel.order(dims), op, v, axis))
    dtype = DType.FLOAT if op in (Reduction.SUM, Reduction.PROD) else x.dtype
    return X(Val(out), dims, x.on, dtype)
