"""Products of a slope and a line over two tile axes, `c * (i - j)`, as a row vector plus a column vector."""

from __future__ import annotations

from collections.abc import Callable

from attndsl.cascade.nodes import (
    Binary,
    Const,
    DType,
    Expr,
    Extent,
    Param,
    Position,
    Unary,
)
from attndsl.schedule import tile as t
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.tile import Role
from attndsl.schedule.values import (
    PLUS,
    TIMES,
    X,
)


def affine_product(kernel: Kernel, factor: Expr, line: Expr, final: bool, name: str) -> X | None:
    """`c * (i - j)` as a row vector plus a column vector, anchored to the tile so that float32 keeps its digits.

    rewrite:  c * (i - j + k)   ->   c * (i - i0) + c * (i0 - j + k), where `j` is the stream
    requires: `c` is a float that spans no axis; `i` and `j` are a TILE and the STREAM axis, or two tiles
    """
    if kernel.steps or len(kernel.dims_of(line)) != 2 or kernel.dims_of(factor):
        return None
    parts = affine(line)
    if parts is None:
        return None
    slopes, rest = parts
    axes = [a for a in slopes if a in kernel.dims_of(line)]
    if len(axes) != 2 or any(kernel.axes[a].role not in (Role.TILE, Role.STREAM) for a in axes):
        return None
    c = kernel.eval(factor, final, name)
    if c.dtype is not DType.FLOAT or c.dims:
        return None
    c = kernel.bind(c, name + "_slope")
    # Everything is counted from the tile, in integers; what else there is goes with the stream's part.
    streamed = [a for a in axes if kernel.axes[a].role is Role.STREAM]
    carrier = streamed[0] if streamed else axes[-1]
    vectors: list[X] = []
    for a in axes:
        if a == carrier:
            local: Expr = rest
            for other, k in slopes.items():
                at = t.Origin(other) if other in axes and other != a else Position(other)
                local = _plus(local, k, at)
        else:
            local = _plus(Const(0), slopes[a], Binary("-", Position(a), t.Origin(a)))
        v = kernel.combine(TIMES, [c, kernel.eval(local, final)], DType.FLOAT, name)
        vectors.append(kernel.bind(v, f"{name}_{a}"))
    return kernel.combine(PLUS, vectors, DType.FLOAT, name)


def _plus(e: Expr, k: int, x: Expr) -> Expr:
    """`e + k * x`, spelled shortly."""
    if abs(k) != 1:
        x = Binary("*", Const(abs(k)), x)
    if e == Const(0):
        return x if k > 0 else Unary("-", x)
    return Binary("+" if k > 0 else "-", e, x)


def affine(
    e: Expr, apart: Callable[[Expr], bool] = lambda e: False
) -> tuple[dict[str, int], Expr] | None:
    """An integer expression as `sum of k * position` plus a rest without positions; what is `apart` belongs to that."""
    match e:
        case _ if apart(e):
            return {}, e
        case Position(name):
            return {name: 1}, Const(0)
        case Unary("-", a):
            part = affine(a, apart)
            if part is None:
                return None
            return {i: -k for i, k in part[0].items()}, Unary("-", part[1])
        case Binary("+" | "-" as op, a, b):
            left, right = affine(a, apart), affine(b, apart)
            if left is None or right is None:
                return None
            sign = 1 if op == "+" else -1
            slopes = dict(left[0])
            for i, k in right[0].items():
                slopes[i] = slopes.get(i, 0) + sign * k
            rest = left[1] if right[1] == Const(0) else Binary(op, left[1], right[1])
            if op == "+" and left[1] == Const(0):
                rest = right[1]
            return slopes, rest
        case Const(int()) | Param() | Extent():
            return {}, e
        case _:
            return None
