"""Recurrences of a maximum as maxima over the past: what a sum is to a product, a maximum is to a sum.

    M[t] = max(a[t] + M[t-1], b[t])   init M0
    ->
    A[t] = sum[l : l <= t](a[l])
    N[t] = max[s : s <= t](b[s] - A[s])
    M[t] = A[t] + max(N[t], M0)

The same with a minimum. That is the running maximum by which exponential gates are kept in range.

source: the max-plus semiring; the stabiliser of an mLSTM, Beck et al. 2024 (arXiv:2405.04517), section 2.2
"""

from __future__ import annotations

from functools import reduce

from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.walk import bound, free, reads, rename, substitute

_REDUCTIONS = {"max": Reduction.MAX, "min": Reduction.MIN}


def extreme_of_past(
    d: Define, axis: tuple[str, int], names: Names
) -> tuple[Expr, list[Define]] | None:
    """What a recurrence is without itself, and the tensors by which; None if it is no maximum of its shifted past."""
    if not isinstance(d.expr, Call) or d.expr.fn not in _REDUCTIONS or d.init is None:
        return None
    if d.where is not None:
        return None
    fn = d.expr.fn
    past = [a for a in d.expr.args if d.tensor in reads(a)]
    others = [a for a in d.expr.args if d.tensor not in reads(a)]
    shifts = [_shift(a, d, axis[0]) for a in past]
    known = [s for s in shifts if s is not None]
    if not others or len(known) < len(past):
        return None
    made: list[Define] = []
    shift, new = _one_of(fn, known), _one_of(fn, others)
    far: Expr | None = None
    if shift != Const(0):
        far = _over(Reduction.SUM, "A", shift, d, axis, names, made)
        new = Binary("-", new, far)
    extreme = _over(_REDUCTIONS[fn], "N", new, d, axis, names, made, whole=True)
    out: Expr = Call(fn, (extreme, d.init))
    return (out if far is None else Binary("+", far, out)), made


def _shift(e: Expr, d: Define, time: str) -> Expr | None:
    """What is added to the state of the step before; None if that is not all that happens to it."""
    match e:
        case Read(tensor=d.tensor, subs=subs):
            own = all(s == Index(i) for s, i in zip(subs, d.indices, strict=True) if i != time)
            return Const(0) if own else None
        case Binary("+" | "-" as op, a, b) if d.tensor not in reads(b):
            x = _shift(a, d, time)
            if x == Const(0) and op == "+":
                return b
            return None if x is None else Binary(op, x, b)
        case Binary("+", a, b) if d.tensor not in reads(a):
            x = _shift(b, d, time)
            if x == Const(0):
                return a
            return None if x is None else Binary("+", a, x)
        case _:
            return None


def _one_of(fn: str, parts: list[Expr]) -> Expr:
    return reduce(lambda a, b: Call(fn, (a, b)), parts)


def _over(
    op: Reduction,
    stem: str,
    e: Expr,
    d: Define,
    axis: tuple[str, int],
    names: Names,
    made: list[Define],
    *,
    whole: bool = False,
) -> Expr:
    """Define a reduction of all steps up to one, that one included; how it is read there. `whole`: at all indices."""
    time, step = axis
    name = names.tensor(stem)
    indices = tuple(i for i in d.indices if whole or i == time or i in free(e))
    s = names.index(time)
    one = substitute(e, {time: Position(s)}, {time: Index(s)})
    one = rename(one, {i: names.index(i) for i in bound(one)})
    ends = (Position(s), Position(time)) if step > 0 else (Position(time), Position(s))
    made.append(Define(name, indices, Reduce(op, (s,), one, Compare("<=", *ends)), span=d.span))
    return Read(name, tuple(Index(i) for i in indices))
