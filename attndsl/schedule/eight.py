"""Inputs of 8 bits: which products have 8 bits too, and what keeps weights inside that type.

    stages:  cascade = lifted(cascade);  plan = narrowed(plan, ("Q", "K", "V"))

Two tiles of such inputs are multiplied as they are. A tile that is computed keeps too few digits in 8 bits, and is
multiplied in 16, with the other side converted, which is exact: e4m3 is a part of bfloat16. The exception is what a
maximum was taken off, `exp(S - M)`: an error of one weight in 2**-4 is one of many in a sum. Its values are in (0, 1],
and most of e4m3 lies below 2**-6, where it loses digits, or above 1. So the maximum is kept a little too small:

    M[i] = max[j](S[i,j])   ->   M[i] = max[j](S[i,j] - 8 * log(2))         weights are in (0, 256]

That changes no output if all are invariant under a shift of `M` (`cascade/invariance.py`), and costs one subtraction a
row. What is computed of the sums has 16 bits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from attndsl.cascade.invariance import unseen
from attndsl.cascade.monomials import polynomial
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Expr,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.walk import replaced, rewrite, walk
from attndsl.schedule import tile as t
from attndsl.schedule.pointwise import LOG2E
from attndsl.schedule.tile import SIXTEEN, Val

# The largest number of e4m3 is 448: weights may grow by 2**8.
HEADROOM = 8 * math.log(2)


def lifted(cascade: Cascade) -> Cascade:
    """The program with its stabilisers smaller by the head-room.

    requires: no output changes when they are shifted (`unseen`)
    """
    free = unseen(cascade)

    def rule(e: Expr) -> Expr | None:
        if isinstance(e, Reduce) and e.op is Reduction.MAX:
            return dataclasses.replace(e, body=Binary("-", e.body, Const(HEADROOM)))
        return None

    body = tuple(
        dataclasses.replace(d, expr=rewrite(d.expr, rule))
        if d.tensor in free and d.init is None
        else d
        for d in cascade.body
    )
    return dataclasses.replace(cascade, body=body)


def narrowed(plan: t.Plan, eight: tuple[str, ...]) -> t.Plan:
    """The plan for inputs of which those named `eight` have 8 bits."""
    buffers = {b.name: b for b in plan.buffers}

    def is_eight(name: str | None) -> bool:
        b = buffers.get(name or "")
        return name in eight or (b is not None and b.like in eight)

    def program(p: t.TileProgram) -> t.TileProgram:
        before = {**_made(p.prologue), **_made(tuple(s for x in p.loops for s in x.prologue))}

        def of(body: tuple[t.Stmt, ...]) -> tuple[t.Stmt, ...]:
            known = {**before, **_made(body)}
            return tuple(statement(s, known) for s in body)

        def statement(s: t.Stmt, known: Mapping[str, t.Stmt]) -> t.Stmt:
            match s:
                case t.For():
                    return dataclasses.replace(s, body=of(s.body))
                case t.Dot() | t.AccDot() | t.Across() if is_eight(s.like):
                    left = _loaded(s.left, known, eight) or (
                        isinstance(s, t.AccDot) and weighs(s.left, known)
                    )
                    if left and _loaded(s.right, known, eight):
                        return s
                    return dataclasses.replace(s, like=SIXTEEN)
                case t.Solve() if is_eight(s.like):
                    return dataclasses.replace(s, like=SIXTEEN)
                case t.Compute():
                    return dataclasses.replace(s, expr=rewrite(s.expr, spans))
            return s

        def spans(e: Expr) -> Expr | None:
            if isinstance(e, t.Span) and is_eight(e.like):
                return dataclasses.replace(e, like=SIXTEEN)
            return None

        sweep = p.sweep
        if sweep is not None:
            ranges = (dataclasses.replace(r, body=of(r.body)) for r in sweep.ranges)
            sweep = dataclasses.replace(sweep, ranges=tuple(ranges))
        loops = (dataclasses.replace(x, prologue=of(x.prologue)) for x in p.loops)
        return dataclasses.replace(
            p,
            prologue=of(p.prologue),
            loops=tuple(loops),
            sweep=sweep,
            epilogue=of(p.epilogue),
        )

    made = tuple(
        dataclasses.replace(b, like=SIXTEEN)
        if b.kind is not t.BufferKind.INPUT and b.like in eight
        else b
        for b in plan.buffers
    )
    steps = tuple(program(s) if isinstance(s, t.TileProgram) else s for s in plan.steps)
    return dataclasses.replace(plan, buffers=made, steps=steps, eight=eight)


def _made(body: tuple[t.Stmt, ...]) -> dict[str, t.Stmt]:
    return {s.name: s for s in body if isinstance(s, t.Compute | t.Load | t.Fold)}


def _loaded(value: str, known: Mapping[str, t.Stmt], eight: tuple[str, ...]) -> bool:
    s = known.get(value)
    return isinstance(s, t.Load) and s.tensor in eight


def weighs(value: str, known: Mapping[str, t.Stmt]) -> bool:
    """Whether a value is `exp(s - m)` with `m` no less than the maximum of `s`, less the head-room.

    With what statements name put in, it reads `exp2(a * k - m * log2e)` of the score or of what the score is made of
    (`lighten`). Put `a` for the maximum over the tile of what was reduced, and everything but the head-room cancels.
    """
    s = known.get(value)
    if not isinstance(s, t.Compute) or not isinstance(s.expr, Call) or s.expr.fn != "exp2":
        return False
    exponent = _whole(s.expr.args[0], known)
    for top in walk(exponent):
        for tile in _lifted_tiles(top):
            for fold in (known.get(n.name) for n in walk(tile) if isinstance(n, Val)):
                if not isinstance(fold, t.Fold) or fold.op is not Reduction.MAX:
                    continue
                most = replaced(tile, Val(fold.name), _whole(Val(fold.src), known))
                left = polynomial(replaced(exponent, top, most)).terms
                if len(left) == 1 and not left[0].powers:
                    return abs(float(left[0].coeff) - HEADROOM * LOG2E) < 1e-6
    return False


def _lifted_tiles(e: Expr) -> list[Expr]:
    """The maxima over a tile, less the head-room, that a maximum is the largest of."""
    match e:
        case Call("max", args):
            return [x for a in args for x in (_lifted_tiles(a) or ([a] if _lifted(a) else []))]
    return []


def _lifted(e: Expr) -> bool:
    return isinstance(e, Binary) and e.op == "-" and e.right == Const(HEADROOM)


def _whole(e: Expr, known: Mapping[str, t.Stmt]) -> Expr:
    """An expression with the definitions of what it names put in, and -inf not told apart in maxima."""

    def rule(n: Expr) -> Expr | None:
        match n:
            case Val(name):
                s = known.get(name)
                return _whole(s.expr, known) if isinstance(s, t.Compute) else None
            case Select(Compare("==", m, Const(low)), Const(0.0), other) if m == other:
                return m if low == float("-inf") else None
        return None

    return rewrite(e, rule)
