"""Corrections: what brings a running sum from the old values of its pivots to the new ones."""

from __future__ import annotations

from attndsl.cascade.invariance import Kind as Shift
from attndsl.cascade.invariance import scaling, scaling_of
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Const,
    Define,
    DType,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Unary,
)
from attndsl.cascade.walk import children, walk
from attndsl.schedule.forms import is_large
from attndsl.schedule.guards import finite
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.memory import load
from attndsl.schedule.outcomes import Needs
from attndsl.schedule.pointwise import LOG2E
from attndsl.schedule.tile import Val
from attndsl.schedule.values import (
    RUNNING,
    TIMES,
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
    assert isinstance(d.expr, Reduce)
    for p in pivots:
        k = exponent(kernel, d, p.tensor)
        if k == 0:
            continue
        state.pivots.append((p, k))
        x = correction_factor(kernel, p, k)
        if alpha is not None:
            x = kernel.bind(kernel.combine(TIMES, [alpha, x], DType.FLOAT, "alpha"), "alpha")
        alpha = x
    return alpha


def exponent(kernel: Kernel, d: Define, pivot: str) -> float:
    """`k`, where the terms of a sum are multiplied by `exp(k * shift)` when the pivot is shifted.

    Raises: Needs, if they do not scale: then the pivot must be known before the sweep.
    """
    assert isinstance(d.expr, Reduce)
    if pivot not in kernel.shifts:
        # What earlier kernels left in memory stands at the pivots' last values, and moves no more.
        kernel.shifts[pivot] = scaling(kernel.cascade, pivot, kernel.available)
    s = scaling_of(d.expr.body, kernel.shifts[pivot])
    if s.invariant:
        return 0.0
    match s.exponent if s.kind is Shift.MUL else None:
        case Const(value):
            return float(value)
        case Unary("-", Const(value)):
            return -float(value)
        case _:
            why = f"the terms of `{d.tensor}` do not scale with `{pivot}`: not separable"
            raise Needs(pivot, why)


def correction_factor(kernel: Kernel, pivot: Read, k: float) -> X:
    """`exp(k * (new - old))` of a pivot; 0 where nothing has been summed yet."""
    key = ("alpha", pivot, k)
    if key not in kernel.memo:
        new = finite(kernel, kernel.read(pivot, False), pivot.tensor)
        old = kernel.bind(before_step(kernel, pivot), pivot.tensor + "_old")
        kernel.memo[key] = ratio(kernel, old, new, k)
    return kernel.memo[key]


def ratio(kernel: Kernel, old: X, new: X, k: float) -> X:
    """`exp(k * (new - old))`, with `new` finite. For a maximum k < 0: the factor never overflows."""
    diff = X(Binary("-", old.expr, new.expr), new.dims | old.dims, new.on | old.on)
    scaled = X(Binary("*", diff.expr, Const(-k * LOG2E)), diff.dims, diff.on)
    return kernel.bind(X(Call("exp2", (scaled.expr,)), diff.dims, diff.on), "alpha")


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
