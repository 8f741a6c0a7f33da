"""Which values are positive, by how they are made: a divisor that cannot be zero needs no guard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum

from attndsl.cascade.bounds import ANYTHING, bounds_of
from attndsl.cascade.conditions import conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Extent,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)

MARGIN = 1e-3


class Sign(IntEnum):
    """What is known of a value: a larger one says more."""

    ANY = 0
    NONNEGATIVE = 1
    POSITIVE = 2
    """In floating point, too: an exponential may underflow to 0, and is `NONNEGATIVE`."""


_NONNEGATIVE = frozenset({"exp", "exp2", "abs", "relu", "sigmoid", "softplus", "sqrt", "rsqrt"})


def assumed_positive(cascade: Cascade) -> frozenset[str]:
    """The inputs that are assumed to be larger than 0."""
    out: set[str] = set()
    for a in cascade.assumes:
        for c in conjuncts(a):
            match c:
                case Compare("<", Const(v), Read(tensor=x)) if v >= 0:
                    out.add(x)
                case Compare(">", Read(tensor=x), Const(v)) if v >= 0:
                    out.add(x)
                case _:
                    pass
    return frozenset(out)


def signs(cascade: Cascade) -> dict[str, Sign]:
    """The sign of every body tensor."""
    out: dict[str, Sign] = {}
    for d in cascade.body:
        out[d.tensor] = _of_definition(d, out)
    return out


def _of_definition(d: Define, known: Mapping[str, Sign]) -> Sign:
    return Sign.ANY if d.init is not None else sign_of(d.expr, known)


def sign_of(e: Expr, known: Mapping[str, Sign]) -> Sign:
    """The sign of an expression, given that of the tensors it reads."""
    found = _by_parts(e, known)
    if found is Sign.ANY and isinstance(e, Binary | Unary):
        low, high = bounds_of(e, lambda x: (0.0, math.inf) if _by_parts(x, known) else ANYTHING)
        # What is left of a difference is positive in floating point too if it is more than rounding.
        least = MARGIN * (high if math.isfinite(high) else 1.0)
        found = Sign.POSITIVE if low > least else Sign.NONNEGATIVE if low >= 0 else found
    return found


def _by_parts(e: Expr, known: Mapping[str, Sign]) -> Sign:
    """The sign that those of the parts tell."""
    match e:
        case Const(value=v):
            return Sign.POSITIVE if v > 0 else Sign.NONNEGATIVE if v == 0 else Sign.ANY
        case Extent():
            return Sign.POSITIVE
        case Position():
            return Sign.NONNEGATIVE
        case Read():
            return known.get(e.tensor, Sign.ANY)
        case Binary("+", a, b):
            x, y = sign_of(a, known), sign_of(b, known)
            return max(x, y) if min(x, y) > Sign.ANY else Sign.ANY
        case Binary("*" | "/", a, b):
            return min(sign_of(a, known), sign_of(b, known))
        case Binary("**", a, Const(value=v)):
            even = isinstance(v, int) and v % 2 == 0
            return max(sign_of(a, known), Sign.NONNEGATIVE if even else Sign.ANY)
        case Call("max", args):
            return max(sign_of(a, known) for a in args)
        case Call("min", args):
            return min(sign_of(a, known) for a in args)
        case Call("sqrt", (a,)):
            return max(sign_of(a, known), Sign.NONNEGATIVE)
        case Call(fn, _) if fn in _NONNEGATIVE:
            return Sign.NONNEGATIVE
        case Select(_, a, b):
            return min(sign_of(a, known), sign_of(b, known))
        case Reduce(Reduction.SUM, _, body, _):
            return min(sign_of(body, known), Sign.NONNEGATIVE)
        case _:
            return Sign.ANY
