"""Products of a slope and a line over two tile axes, `c * (i - j)`, as a row vector plus a column vector."""

from __future__ import annotations

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

    rewrite:  c * (i - j + k)   ->   c * (i - i0) + (c * (j0 - j) + c * (i0 - j0 + k))
    requires: `c` is a float that spans no axis; `i` and `j` are a TILE and the STREAM axis, or two tiles
    """
    if len(kernel.dims_of(line)) != 2 or kernel.dims_of(factor):
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
    anchor: Expr = rest
    for a, k in slopes.items():
        at = t.Origin(a) if a in axes else Position(a)
        anchor = Binary("+", anchor, Binary("*", Const(k), at))
    at_tile = kernel.bind(kernel.eval(anchor, final), name + "_at")
    offset = kernel.combine(TIMES, [c, at_tile], DType.FLOAT, name)
    streamed = [a for a in axes if kernel.axes[a].role is Role.STREAM]
    carrier = streamed[0] if streamed else axes[-1]
    vectors: list[X] = []
    for a in axes:
        inside = Binary("-", Position(a), t.Origin(a))
        if slopes[a] != 1:
            inside = Binary("*", Const(slopes[a]), inside)
        local = kernel.eval(inside, final)
        v = kernel.combine(TIMES, [c, local], DType.FLOAT, name)
        if a == carrier:
            v = kernel.combine(PLUS, [v, offset], DType.FLOAT, name)
        vectors.append(kernel.bind(v, f"{name}_{a}"))
    return kernel.combine(PLUS, vectors, DType.FLOAT, name)


def affine(e: Expr) -> tuple[dict[str, int], Expr] | None:
    """An integer expression as `sum of k * position` plus a rest without positions."""
    match e:
        case Position(name):
            return {name: 1}, Const(0)
        case Unary("-", a):
            part = affine(a)
            if part is None:
                return None
            return {i: -k for i, k in part[0].items()}, Unary("-", part[1])
        case Binary("+" | "-" as op, a, b):
            left, right = affine(a), affine(b)
            if left is None or right is None:
                return None
            sign = 1 if op == "+" else -1
            slopes = dict(left[0])
            for i, k in right[0].items():
                slopes[i] = slopes.get(i, 0) + sign * k
            rest = left[1] if right[1] == Const(0) else Binary(op, left[1], right[1])
            return slopes, rest
        case Const(int()) | Param() | Extent():
            return {}, e
        case _:
            return None
