"""Masks: the terms of a state outside its domain, and the scores that they all hang on.

A term *vanishes* with a score if it is 0 (for a sum) or -inf (for a maximum) where the score is -inf. Where all terms
of a reduction vanish with one score, that score is masked once, at its *root*, and nothing after it needs a mask.
"""

from __future__ import annotations

import math

from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Position,
    Read,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import children, walk
from attndsl.schedule import tile as t
from attndsl.schedule.forms import is_large
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.tile import Val
from attndsl.schedule.values import STREAMED, MaskStmt, X


def masked(
    kernel: Kernel, x: X, where: Expr | None, fill: float | bool, name: str, always: bool = False
) -> str:
    """The value with `fill` outside the domain and beyond the stream's end."""
    assert kernel.stream is not None
    v = kernel.value(x, name)
    if kernel.root is not None and kernel.stream in x.dims and not always:
        return v  # it vanishes there by itself
    cond = mask_of(kernel, where)
    dims = x.dims | cond.dims | {kernel.stream}
    if len(dims) > 2:
        raise Refused(
            "A0404", f"a term of `{name.removesuffix('_s')}` and its condition span three ranks"
        )
    key = ("mask", v, cond.expr, fill)
    if key not in kernel.memo:
        out = kernel.names.fresh(v + "_m")
        assert isinstance(cond.expr, Val)
        # No integer is infinite, and what a cast of an infinity to one gives is undefined.
        dtype = DType.FLOAT if math.isinf(fill) else x.dtype
        if x.dims != dims:  # spread first, so that the unmasked range has the same shape
            wide = kernel.names.fresh(v + "_w")
            spread: Expr = Val(v)
            for a in (kernel.stream, *(dims - x.dims - {kernel.stream})):
                spread = Select(Compare(">=", Position(a), Const(0)), spread, Const(fill))
            kernel.sweep.append(t.Compute(wide, kernel.order(dims), dtype, spread))
            v = wide
        kernel.sweep.append(MaskStmt(out, kernel.order(dims), dtype, v, cond.expr.name, fill))
        kernel.memo[key] = X(Val(out), dims, x.on | {STREAMED})
    made = kernel.memo[key].expr
    assert isinstance(made, Val)
    return made.name


def mask_of(kernel: Kernel, where: Expr | None) -> X:
    """The condition of a domain, inside the stream's extent."""
    assert kernel.stream is not None
    key = ("domain", where)
    if key not in kernel.memo:
        inside: Expr = Compare(
            "<", Position(kernel.stream), Extent(kernel.axes[kernel.stream].rank)
        )
        full = conjunction([*conjuncts(where), inside])
        assert full is not None
        x = kernel.eval(full, False, "mask")
        kernel.memo[key] = kernel.bind(x, "mask")
    return kernel.memo[key]


def masked_root(kernel: Kernel, final: bool) -> X:
    """The score that every term hangs on, -inf outside the domain: one mask for all that follows from it."""
    assert kernel.root is not None
    tensor, subs, where = kernel.root
    kernel.root = None
    x = kernel.read(Read(tensor, subs), final)
    v = masked(kernel, x, where, float("-inf"), tensor)
    kernel.root = (tensor, subs, where)
    return X(Val(v), kernel.dims_of_value(v), frozenset({STREAMED}))


def root_of(kernel: Kernel, body: Expr, op: Reduction) -> Read | None:
    """The score with which the terms of a reduction vanish, if there is one."""
    if op is Reduction.SUM:
        return vanishing(kernel, body)
    return sinking(kernel, body) if op is Reduction.MAX else None


def vanishing(kernel: Kernel, e: Expr) -> Read | None:
    """The score with which a term becomes 0."""
    match e:
        case Binary("*", a, b):
            for x, other in ((a, b), (b, a)):
                found = vanishing(kernel, x)
                if found is not None and finite_beside(kernel, other, found):
                    return found
            return None
        case Binary("/", a, b):
            found = vanishing(kernel, a)
            # A divisor that moves along the stream may be 0 outside the domain.
            if found is None or kernel.carries_stream((b,)):
                return None
            return found if finite_beside(kernel, b, found) else None
        case Unary("-", a):
            return vanishing(kernel, a)
        case Call("exp" | "exp2", (g,)):
            return sinking(kernel, g)
        case Read(tensor=name, subs=subs) if pairwise(kernel, e):
            return vanishing(kernel, kernel.inlined(kernel.defs[name], subs))
        case _:
            return None


def sinking(kernel: Kernel, e: Expr) -> Read | None:
    """The score with which a term becomes -inf."""
    match e:
        case Read() if pairwise(kernel, e):
            return Read(
                e.tensor, tuple(Position(s.name) if isinstance(s, Index) else s for s in e.subs)
            )
        case Binary("-", a, _):
            return sinking(kernel, a)
        case Binary("+", a, b):
            return sinking(kernel, a) or sinking(kernel, b)
        case _:
            return None


def finite_beside(kernel: Kernel, e: Expr, root: Read) -> bool:
    """Whether a factor stays finite where the score is -inf, so that 0 times it is 0."""
    if vanishing(kernel, e) == root:
        return True
    names = {n.tensor for n in walk(e) if isinstance(n, Read)}
    if root.tensor in names or may_break(kernel, e):
        return False
    return not any(reaches(kernel, kernel.defs[n], root.tensor) for n in names if n in kernel.defs)


PARTIAL = frozenset({"log", "log2", "sqrt", "rsqrt", "acos"})


def may_break(kernel: Kernel, e: Expr) -> bool:
    """Whether a value may be no finite number outside the domain: `(i - j) ** 0.5` is none where `j > i`."""
    match e:
        case Call("exp" | "exp2", (arg,)) if (
            kernel.carries_stream((arg,)) and len(kernel.dims_of(arg)) > 1
        ):
            return True  # a decay grows where it runs backwards
        case Call(fn, args) if fn in PARTIAL and any(kernel.carries_stream((a,)) for a in args):
            return True
        case Binary("**", a, b) if kernel.carries_stream((a, b)):
            whole = isinstance(b, Const) and isinstance(b.value, int) and b.value >= 0
            return not whole or may_break(kernel, a)
        case Binary("/", a, b) if kernel.carries_stream((b,)):
            return True
        case Read() if pairwise(kernel, e):
            return may_break(kernel, kernel.inlined(kernel.defs[e.tensor], e.subs))
        case Index():
            return False
        case _:
            return any(may_break(kernel, c) for c in children(e))


def pairwise(kernel: Kernel, e: Read) -> bool:
    """A body tensor over the stream that is computed here."""
    d = kernel.defs.get(e.tensor)
    return (
        d is not None
        and e.tensor not in kernel.available
        and d.init is None
        and not is_large(d.expr, kernel.ranks)
        and kernel.carries_stream(e.subs)
    )


def reaches(kernel: Kernel, d: Define, tensor: str) -> bool:
    """Whether a definition reads a tensor, directly or not."""
    key = ("reaches", d.tensor, tensor)
    if key not in kernel.known:
        kernel.known[key] = False  # a sum that reads itself does so by way of itself
        names = {n.tensor for n in walk(d.expr) if isinstance(n, Read)}
        kernel.known[key] = tensor in names or any(
            reaches(kernel, kernel.defs[n], tensor)
            for n in names
            if n in kernel.defs and n != d.tensor
        )
    return kernel.known[key]
