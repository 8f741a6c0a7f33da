"""Corrections: what brings a running sum from the old values of its pivots to the new ones."""

from __future__ import annotations

from attndsl.cascade.invariance import Kind as Shift
from attndsl.cascade.invariance import scaling, scaling_of
from attndsl.cascade.monomials import polynomial, total
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
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.signs import sign_of, signs
from attndsl.cascade.walk import children, free, walk
from attndsl.schedule.forms import is_large
from attndsl.schedule.guards import finite
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.memory import load
from attndsl.schedule.outcomes import Needs
from attndsl.schedule.pointwise import LOG2E
from attndsl.schedule.reasons import why_apart
from attndsl.schedule.tile import Val
from attndsl.schedule.values import (
    RUNNING,
    TIMES,
    Pivot,
    State,
    X,
)


def pivots_of(kernel: Kernel, body: Expr) -> list[Read]:
    """Running tensors that the body reads, constant along the stream."""
    found: dict[Read, None] = {}

    def visit(e: Expr) -> None:
        for n in walk(e):
            if isinstance(n, Read) and n.tensor in kernel.reduces:
                d = kernel.defs[n.tensor]
                if not kernel.carries_stream(n.subs):
                    plain = (Position(x.name) if isinstance(x, Index) else x for x in n.subs)
                    found[Read(n.tensor, tuple(plain))] = None
                elif d.init is None and not is_large(d.expr, kernel.ranks):
                    visit(kernel.inlined(d, n.subs))

    visit(body)
    return list(found)


def correction(kernel: Kernel, state: State, d: Define, pivots: list[Read]) -> X | None:
    """The factor that brings what has been summed to the pivots' new values."""
    alpha: X | None = None
    for p in pivots:
        pivot = dependence(kernel, d, p)
        if pivot is None:
            continue
        state.pivots.append(pivot)
        x = correction_factor(kernel, pivot)
        if alpha is not None:
            x = kernel.bind(kernel.combine(TIMES, [alpha, x], DType.FLOAT, "alpha"), "alpha")
        alpha = x
    return alpha


def dependence(kernel: Kernel, d: Define, pivot: Read) -> Pivot | None:
    """How the terms of a sum depend on a running value; None if they do not.

    Raises: Needs, if no correction follows it: then the pivot must be known before the sweep.
    """
    k = exponent(kernel, d, pivot.tensor, Shift.ADD)
    if isinstance(k, Const):
        return Pivot(pivot, k) if k.value else None
    k = exponent(kernel, d, pivot.tensor, Shift.MUL)
    fixed = k is not None and all(isinstance(n, Const | Param | Unary | Binary) for n in walk(k))
    if k is not None and fixed and free(pivot) <= kernel.axes.keys() and grows(kernel, pivot):
        return Pivot(pivot, k, factor=True)
    raise Needs(pivot.tensor, why_apart(kernel, d, pivot, stuck(kernel, d)))


def stuck(kernel: Kernel, d: Define) -> list[str]:
    """The running values under whose shifts the terms of a sum do not scale."""
    assert isinstance(d.expr, Reduce)
    return [
        p.tensor
        for p in pivots_of(kernel, d.expr.body)
        if not isinstance(exponent(kernel, d, p.tensor, Shift.ADD), Const)
    ]


def exponent(kernel: Kernel, d: Define, pivot: str, kind: Shift) -> Expr | None:
    """`k`, where the terms of a sum are multiplied by `exp(k * d)` when the pivot is moved, or its logarithm is.

    None if they are changed in some other way.
    """
    assert isinstance(d.expr, Reduce)
    if (pivot, kind) not in kernel.shifts:
        # What earlier kernels left in memory stands at the pivots' last values, and moves no more.
        found = scaling(kernel.cascade, pivot, kernel.available, kind)
        kernel.shifts[pivot, kind] = found
    s = scaling_of(d.expr.body, kernel.shifts[pivot, kind])
    if s.invariant:
        return Const(0)
    match s.exponent if s.kind is Shift.MUL else None:
        case Unary("-", Const(value)):
            return Const(-value)
        case k:
            return k


def grows(kernel: Kernel, e: Expr) -> bool:
    """Whether a running value never falls in the sweep, and starts at 0 or above: a sum of what is not negative.

    A sum that is corrected itself falls where its pivot jumps, and does not count.
    """
    match e:
        case Const(value):
            return value >= 0
        case Extent():
            return True
        case Binary("+" | "*", a, b):
            return grows(kernel, a) and grows(kernel, b)
        case Call("max" | "sqrt", args):
            return all(grows(kernel, a) for a in args)
        case Read() if e.tensor in kernel.reduces:
            d = kernel.defs[e.tensor]
            if not is_large(d.expr, kernel.ranks):
                return d.init is None and grows(kernel, kernel.inlined(d, e.subs))
            assert isinstance(d.expr, Reduce)
            if d.expr.op is not Reduction.SUM or not sign_of(d.expr, signs(kernel.cascade)):
                return False
            kernel.read(e, False)
            plain = tuple(Position(x.name) if isinstance(x, Index) else x for x in e.subs)
            return not kernel.states[("state", e.tensor, plain)].pivots
        case _:
            return False


def correction_factor(kernel: Kernel, pivot: Pivot) -> X:
    """What a step multiplies old parts by; 0 where nothing has been summed yet."""
    key = ("alpha", pivot)
    if key not in kernel.memo:
        new = kernel.read(pivot.read, False)
        if not pivot.factor:
            new = finite(kernel, new, pivot.read.tensor)
        old = kernel.bind(before_step(kernel, pivot.read), pivot.read.tensor + "_old")
        kernel.memo[key] = ratio(kernel, old, new, pivot)
    return kernel.memo[key]


def ratio(kernel: Kernel, old: X, new: X, pivot: Pivot) -> X:
    """`exp(k * (new - old))`, with `new` finite; `(new / old)**k` of a factor, 0 where `old` is 0.

    For a maximum k < 0, and for a factor that terms are divided by: what it corrects never overflows.
    """
    dims, on = new.dims | old.dims, new.on | old.on
    if pivot.factor:
        less = kernel.eval(total(-polynomial(pivot.k)))
        power = Binary("**", Binary("/", old.expr, new.expr), less.expr)
        begun = Compare("==", old.expr, Const(0.0))
        return kernel.bind(X(Select(begun, Const(0.0), power), dims, on), "alpha")
    assert isinstance(pivot.k, Const)
    diff = X(Binary("-", old.expr, new.expr), dims, on)
    scaled = X(Binary("*", diff.expr, Const(-pivot.k.value * LOG2E)), dims, on)
    return kernel.bind(X(Call("exp2", (scaled.expr,)), dims, on), "alpha")


def before_step(kernel: Kernel, e: Expr) -> X:
    """An expression constant along the stream, over the states' values before this step."""
    match e:
        case Read(tensor=name, subs=subs) if name in kernel.reduces:
            d = kernel.defs[name]
            if is_large(d.expr, kernel.ranks):
                plain = tuple(Position(x.name) if isinstance(x, Index) else x for x in subs)
                s = kernel.states[("state", name, plain)]
                standing = kernel.standing.get(s.name, s.name)
                return X(Val(standing), frozenset(s.dims), frozenset({RUNNING}))
            return before_step(kernel, kernel.inlined(d, subs))
        case Read():
            return load(kernel, e)
        case _:
            parts = [before_step(kernel, c) for c in children(e)]
            if not parts:
                return kernel.eval(e)
            return kernel.combine(e, parts, DType.FLOAT, "old")
