"""Arithmetic on values: what is not spelled as it is written, so that it is exact, finite or fast."""

from __future__ import annotations

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Read,
)
from attndsl.schedule.affine import affine_product
from attndsl.schedule.guards import finite, is_sum, may_be_empty, of_blocks
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.values import (
    ABS,
    MINUS,
    PLUS,
    TIMES,
    X,
)

LOG2E = 1.4426950408889634
TIE = 2.0**-18  # relative distance below which a recomputed score counts as the maximum it was


def binary(kernel: Kernel, e: Binary, op: str, a: Expr, b: Expr, final: bool, name: str) -> X:
    """An operation on two values; a quotient by a reduction is 0 where both are."""
    if op == "*":
        for factor, line in ((a, b), (b, a)):
            split = affine_product(kernel, factor, line, final, name)
            if split is not None:
                return split
    if op == "**" and isinstance(a, Read) and a.tensor in kernel.positive:
        return positive_power(kernel, a, b, final, name)
    x, y = kernel.eval(a, final, name), kernel.eval(b, final, name)
    kind = DType.INT if {x.dtype, y.dtype} <= {DType.INT, DType.BOOL} and op != "/" else DType.FLOAT
    below = y.dims < x.dims or of_blocks(kernel, b)
    if op == "-" and kind is DType.FLOAT and below and may_be_empty(kernel, b):
        y = finite(kernel, y, name, b)
    safe = op == "/" and is_sum(kernel, b)
    return kernel.combine(e, [x, y], kind, name, safe)


def positive_power(kernel: Kernel, a: Expr, b: Expr, final: bool, name: str) -> X:
    """A power of what is assumed to be positive.

    rewrite:  a ** b   ->   exp2(log2(a) * b), the logarithm computed once where `a` is
    """
    x, y = kernel.eval(a, final, name), kernel.eval(b, final, name)
    log = kernel.bind(kernel.combine(Call("log2", (Const(0),)), [x], DType.FLOAT, name), name)
    exponent = kernel.combine(TIMES, [log, y], DType.FLOAT, name)
    return kernel.combine(Call("exp2", (Const(0),)), [exponent], DType.FLOAT, name)


def exp_difference(kernel: Kernel, a: Expr, b: Expr, final: bool, name: str) -> X:
    """The exponential of a difference.

    rewrite:  exp(a - b)   ->   exp2(a * log2e - b * log2e), one fused multiply-add and one instruction
    requires: `b` is constant along a tile axis, so that `b * log2e` is computed once
    rewrite:  exp(a[i] - b[j])   ->   exp2((a - r) * log2e - (b - r) * log2e), one subtraction for each pair
    requires: `r` is near both, so that no digit is lost: the kernel has a reference
    source:   FlashAttention's exponentials (Dao et al. 2022, arXiv:2205.14135)
    """
    x, y = kernel.eval(a, final, name), kernel.eval(b, final, name)
    if y.expr == Const(0.0):
        return kernel.combine(Call("exp", (Const(0),)), [x], DType.FLOAT, name)
    if y.dims < x.dims and x.dtype is DType.FLOAT and y.dtype is DType.FLOAT:
        if may_be_empty(kernel, b):
            y = finite(kernel, y, name)
        k = X(Const(LOG2E))
        left = kernel.combine(TIMES, [x, k], DType.FLOAT, name)
        right = kernel.combine(TIMES, [y, k], DType.FLOAT, name)
        diff = kernel.combine(MINUS, [left, right], DType.FLOAT, name)
        return kernel.combine(Call("exp2", (Const(0),)), [diff], DType.FLOAT, name)
    reference = (
        kernel.reference(a, b) if len(x.dims) == len(y.dims) == 1 and x.dims != y.dims else None
    )
    if reference is not None:
        sides = []
        for z in (x, y):
            near = z
            if reference.expr != Const(0.0):
                near = kernel.combine(MINUS, [z, reference], DType.FLOAT, name)
            scaled = kernel.combine(TIMES, [near, X(Const(LOG2E))], DType.FLOAT, name)
            sides.append(kernel.bind(scaled, name))
        diff = kernel.combine(MINUS, sides, DType.FLOAT, name)
        return kernel.combine(Call("exp2", (Const(0),)), [diff], DType.FLOAT, name)
    diff = binary(kernel, Binary("-", a, b), "-", a, b, final, name)
    return kernel.combine(Call("exp", (Const(0),)), [diff], DType.FLOAT, name)


def nearly_equal(kernel: Kernel, x: X, y: X, name: str) -> X:
    """Equality of two computed numbers: a score is summed in another order here than where its maximum was found."""
    y = finite(kernel, y, name) if y.dims < x.dims else y
    diff = kernel.combine(MINUS, [x, y], DType.FLOAT, name)
    size = kernel.combine(ABS, [diff], DType.FLOAT, name)
    scale = kernel.combine(ABS, [y], DType.FLOAT, name)
    one = kernel.combine(PLUS, [scale, X(Const(1.0))], DType.FLOAT, name)
    bound = kernel.combine(TIMES, [one, X(Const(TIE))], DType.FLOAT, name)
    return kernel.combine(Compare("<=", Const(0), Const(0)), [size, bound], DType.BOOL, name)


def call_type(fn: str, parts: list[X]) -> DType:
    """The kind of a function's value."""
    if fn in ("max", "min", "abs", "sign") and all(p.dtype is DType.INT for p in parts):
        return DType.INT
    return DType.FLOAT
