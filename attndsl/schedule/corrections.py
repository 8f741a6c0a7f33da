"""Corrections: what brings a running sum from the old values of its pivots to the new ones."""

from __future__ import annotations

from attndsl.cascade.monomials import polynomial, total
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Select,
)
from attndsl.cascade.walk import children, free, substitute, walk
from attndsl.schedule.forms import is_large
from attndsl.schedule.guards import finite, is_sum
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.outcomes import Needs
from attndsl.schedule.pointwise import LOG2E
from attndsl.schedule.tile import Val
from attndsl.schedule.values import (
    RUNNING,
    TIMES,
    Pivot,
    State,
    X,
)


def pivots_of(kernel: Kernel, *parts: Expr) -> list[Read]:
    """Running tensors that a body, or the domain that it is summed over, reads, constant along the stream."""
    found: dict[Read, None] = {}

    def visit(e: Expr, inside: frozenset[str] = frozenset()) -> None:
        for n in walk(e):
            if isinstance(n, Read) and n.tensor in kernel.reduces:
                d = kernel.defs[n.tensor]
                if not kernel.carries_stream(n.subs):
                    plain = (Position(x.name) if isinstance(x, Index) else x for x in n.subs)
                    found[Read(n.tensor, tuple(plain))] = None
                elif d.init is None and not is_large(d.expr, kernel.ranks):
                    visit(kernel.inlined(d, n.subs), inside)
                elif d.init is None and n.tensor not in inside:  # a scan, of the same points
                    scan = kernel.inlined(d, n.subs)
                    assert isinstance(scan, Reduce)
                    assert kernel.stream is not None
                    here = dict.fromkeys(scan.indices, Position(kernel.stream))
                    for x in children(scan):
                        visit(substitute(x, here), inside | {n.tensor})

    for e in parts:
        visit(e)
    return list(found)


def correction(kernel: Kernel, state: State, d: Define, pivots: list[Read]) -> X | None:
    """The factor that brings what has been summed to the pivots' new values."""
    alpha: X | None = None
    for p in pivots:
        pivot = dependence(kernel, d, p)
        if pivot is None:
            continue
        state.pivots.append(pivot)
        if pivot.count is not None:
            continue
        x = correction_factor(kernel, pivot)
        if alpha is not None:
            x = kernel.bind(kernel.combine(TIMES, [alpha, x], DType.FLOAT, "alpha"), "alpha")
        alpha = x
    return alpha


def dependence(kernel: Kernel, d: Define, pivot: Read) -> Pivot | None:
    """How the terms of a sum depend on a running value; None if they do not.

    Raises: Needs, if no correction follows it: then the pivot must be known before the sweep.
    """
    move = kernel.following.how(d, pivot)
    if move is None or (move.factor and not free(pivot) <= kernel.axes.keys()):
        raise Needs(pivot.tensor, kernel.following.why_apart(d, pivot.tensor))
    return None if move.still else Pivot(pivot, move.k, move.factor, move.count)


def moved_by(kernel: Kernel, state: State) -> Expr:
    """The state as it stood, its spread brought to the new mean: `state + count * (new - old)**2`."""
    out: Expr = Val(state.name)
    for pivot in state.pivots:
        if pivot.count is None:
            continue
        new = kernel.read(pivot.read, False)
        old = kernel.bind(before_step(kernel, pivot.read), pivot.read.tensor + "_old")
        n = kernel.bind(before_step(kernel, pivot.count), pivot.count.tensor + "_old")
        step = Binary("-", new.expr, old.expr)
        x = X(Binary("*", n.expr, Binary("*", step, step)), new.dims | old.dims, new.on | old.on)
        out = Binary("+", out, kernel.bind(x, pivot.read.tensor + "_moved").expr)
    return out


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
            return kernel.read(e, False)
        case _:
            parts = [before_step(kernel, c) for c in children(e)]
            if not parts:
                return kernel.eval(e)
            safe = isinstance(e, Binary) and e.op == "/" and is_sum(kernel, e.right)
            return kernel.combine(e, parts, DType.FLOAT, "old", safe)
