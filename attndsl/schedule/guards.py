"""Where a value may be -inf because nothing was reduced, and what is done about it."""

from __future__ import annotations

from collections.abc import Callable

from attndsl.analysis.ranks import Kind
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Index,
    Read,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.walk import children, free, walk
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.values import (
    X,
)

NEG_INF = Const(float("-inf"))


def finite(kernel: Kernel, y: X, name: str, of: Expr | None = None) -> X:
    """-inf as 0: what is subtracted from a score must not make -inf - -inf of a masked point.

    NaN too, where `of`, the expression, has 0 times infinity or a quotient of infinities where nothing was reduced.
    """
    y = kernel.bind(y, name + "_row")
    cond: Expr = Compare("==", y.expr, NEG_INF)
    parts: tuple[Expr, Expr] = (Const(0.0), y.expr)
    if of is not None and may_be_nan(kernel, of):
        cond, parts = Compare(">", y.expr, NEG_INF), (y.expr, Const(0.0))
    x = X(Select(cond, *parts), y.dims, y.on, DType.FLOAT)
    return kernel.bind(x, name + "_safe")


def may_be_nan(kernel: Kernel, e: Expr) -> bool:
    """Whether an `exp(-M)` of a row, +inf where nothing was reduced, is a factor of something or divides it."""
    match e:
        case Binary("*" | "/", a, b) if may_overflow(kernel, a) or may_overflow(kernel, b):
            return True
        case _:
            return _below(kernel, e, "nan", may_be_nan)


def may_overflow(kernel: Kernel, e: Expr) -> bool:
    """Whether a value has an `exp(-M)` of a row in it."""
    match e:
        case Call("exp" | "exp2", (arg,)) if len(kernel.ranks.sequence(tuple(free(arg)))) < 2:
            return may_be_empty(kernel, arg)
        case _:
            return _below(kernel, e, "overflow", may_overflow)


def _below(kernel: Kernel, e: Expr, what: str, of: Callable[[Kernel, Expr], bool]) -> bool:
    """Whether it holds of what a value is made of: a part of an expression, the right side of a tensor's definition."""
    if not isinstance(e, Read):
        return any(of(kernel, x) for x in children(e))
    d = kernel.defs.get(e.tensor)
    if d is None or d.init is not None:
        return False
    key = (what, e.tensor, "")
    if key not in kernel.known:
        kernel.known[key] = False  # of a tensor that is read on the way to itself
        kernel.known[key] = of(kernel, d.expr)
    return kernel.known[key]


def may_be_empty(kernel: Kernel, e: Expr) -> bool:
    """Whether a value can be -inf because nothing was reduced: a maximum, a logarithm, or made of them."""
    match e:
        case Read(tensor=name) if name in kernel.defs:
            d = kernel.defs[name]
            return d.init is None and may_be_empty(kernel, d.expr)
        case Read(tensor=name):
            return name in kernel.inputs and is_statistic(kernel, name)
        case Reduce(op, _, _, _):
            return op is Reduction.MAX
        case Call("log" | "log2", _):
            return True
        case Call("max", args):
            return all(may_be_empty(kernel, a) for a in args)
        case _:
            return any(may_be_empty(kernel, c) for c in children(e) if not isinstance(c, Index))


def of_blocks(kernel: Kernel, e: Expr) -> bool:
    """Whether a value along the stream belongs to a block of positions, `L[i, j // w]`: a tile meets others too."""
    return any(
        isinstance(n, Read)
        and any(
            isinstance(s, Binary) and kernel.stream in free(s) and kernel.kind(r) is Kind.BATCH
            for s, r in zip(n.subs, _ranks(kernel, n.tensor), strict=True)
        )
        for n in walk(e)
    )


def _ranks(kernel: Kernel, tensor: str) -> tuple[str, ...]:
    if tensor in kernel.inputs:
        return kernel.inputs[tensor].ranks
    return kernel.defs[tensor].indices


def is_statistic(kernel: Kernel, name: str) -> bool:
    """An input without feature ranks that spans a sequence: a residual of the forward pass may be -inf."""
    kinds = [kernel.ranks.kind(r) for r in kernel.inputs[name].ranks]
    return kernel.inputs[name].dtype is DType.FLOAT and Kind.FEATURE not in kinds


def is_sum(kernel: Kernel, e: Expr) -> bool:
    """Whether a divisor is a reduction, or made of one."""

    def below(tensor: str) -> bool:
        d = kernel.defs.get(tensor)
        return d is not None and d.init is None and is_sum(kernel, d.expr)

    return any(isinstance(n, Reduce) or (isinstance(n, Read) and below(n.tensor)) for n in walk(e))
