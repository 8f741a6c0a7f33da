"""Equations taken apart, so that the machinery of sweeps sees ordinary sums.

before:  t[i] = solve[x : lo <= x <= hi](sum[j](relu(S[i,j] - x)**2) == 1)
after:   t.x[i]     = x, the guess of the current round
         t.left[i]  = sum[j](relu(S[i,j] - t.x[i])**2);   t.right[i] = 1
         t.slope[i] = sum[j](-2 * relu(S[i,j] - t.x[i]));   t.curve[i] = sum[j](2 if S[i,j] > t.x[i] else 0)
         t[i]       = solve[x : t.lo[i] <= x <= t.hi[i]](t.left[i] == t.right[i])

A kernel of its own walks over the keys once a round, improves the guess of each row, and stops when every row's stands
(`search`).
"""

from __future__ import annotations

import dataclasses

from attndsl.cascade.derivatives import slope_by
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Local,
    Read,
    Reduce,
    Reduction,
    Solve,
)
from attndsl.cascade.walk import children, free, rewrite, walk, with_children


def guess_of(root: str) -> str:
    """The tensor that stands for the unknown of a root."""
    return f"{root}.x"


def slope_of(root: str) -> str:
    """The tensor with the derivative of the equation's difference, where it has one."""
    return f"{root}.slope"


def curve_of(root: str) -> str:
    """The tensor with the second derivative, where it is finite at every point."""
    return f"{root}.curve"


def split_roots(cascade: Cascade) -> Cascade:
    """Give every root, and each side of its equation, a definition of its own.

    requires: domains are explicit.
    """
    body: list[Define] = []
    for d in cascade.body:
        made: list[Define] = []
        expr = _lift(d.expr, d, cascade, made, top=True)
        body += [*made, dataclasses.replace(d, expr=expr)]
    return dataclasses.replace(cascade, body=tuple(body))


def _lift(e: Expr, home: Define, cascade: Cascade, made: list[Define], top: bool = False) -> Expr:
    old = children(e)
    new = tuple(_lift(x, home, cascade, made) for x in old)
    if new != old:
        e = with_children(e, new)
    if not isinstance(e, Solve):
        return e
    if top:
        return _parts(e, home, made)
    if any(isinstance(n, Local) for n in walk(e) if n != Local(e.var)):
        return e  # inside another equation: it has no value of its own
    have = free(e)
    order = dict.fromkeys([*cascade.batch, *home.indices, *sorted(have)])
    kept = tuple(i for i in order if i in have)
    count = sum(isinstance(m.expr, Solve) for m in made)
    d = Define(f"{home.tensor}.root{count + 1}", kept, e, span=e.span or home.span)
    expr = _parts(e, d, made)
    made.append(dataclasses.replace(d, expr=expr))
    return Read(d.tensor, tuple(Index(i) for i in kept), span=e.span)


def _parts(e: Solve, d: Define, made: list[Define]) -> Solve:
    """Define the guess, the bounds, both sides and the slope; the equation over their names."""
    subs = tuple(Index(i) for i in d.indices)
    guess = Read(guess_of(d.tensor), subs)

    def at_guess(x: Expr) -> Expr:
        return rewrite(x, lambda n: guess if n == Local(e.var) else None)

    def named(tensor: str, x: Expr) -> Read:
        made.append(dataclasses.replace(d, tensor=tensor, expr=x))
        return Read(tensor, subs)

    named(guess.tensor, Local(e.var))
    lo, hi = named(f"{d.tensor}.lo", e.lo), named(f"{d.tensor}.hi", e.hi)
    equation = e.equation
    sides = (equation.left, equation.right)
    left, right = (
        named(f"{d.tensor}.{k}", at_guess(x)) for k, x in zip(("left", "right"), sides, strict=True)
    )
    slope = _slope(d, Binary("-", *sides), e.var)
    if slope is not None:
        named(slope_of(d.tensor), at_guess(slope))
        curve = _slope(d, slope, e.var)
        if curve is None and _tame(slope, e.var):
            curve = Const(0.0)
        if curve is not None and _tame(curve, e.var):
            named(curve_of(d.tensor), at_guess(curve))
    return dataclasses.replace(e, lo=lo, hi=hi, equation=Compare("==", left, right))


def _slope(d: Define, e: Expr, unknown: str) -> Expr | None:
    """The derivative by the unknown; None where it has none, or needs a second reduction inside the first."""
    for n in walk(e):
        inner = isinstance(n, Reduce) and n.op is not Reduction.SUM
        if inner and any(isinstance(x, Local) for x in walk(n)):
            return None
    return slope_by(d, e, unknown, lambda i: i)


def _tame(e: Expr, unknown: str) -> bool:
    """Whether a derivative stays finite: no quotient, logarithm or power of the unknown but whole ones."""

    def moves(x: Expr) -> bool:
        return any(n == Local(unknown) for n in walk(x))

    for n in walk(e):
        match n:
            case Binary("/", _, below) if moves(below):
                return False
            case Binary("**", base, power) if moves(base) or moves(power):
                if not (
                    isinstance(power, Const) and isinstance(power.value, int) and power.value > 0
                ):
                    return False
            case Call("log" | "log2" | "sqrt" | "rsqrt" | "acos", (x,)) if moves(x):
                return False
            case _:
                pass
    return True
