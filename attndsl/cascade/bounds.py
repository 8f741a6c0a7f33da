"""Between which numbers a value lies, by how it is made.

1 - 0.9 * sigmoid(x)     0.1 … 1          1.5 + 0.5 * sin(x)     1 … 2
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attndsl.cascade.nodes import Binary, Call, Const, Expr, Reduce, Reduction, Select, Unary

Bounds = tuple[float, float]
ANYTHING: Bounds = (-math.inf, math.inf)

_RANGES: dict[str, Bounds] = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "sin": (-1.0, 1.0),
    "cos": (-1.0, 1.0),
    "erf": (-1.0, 1.0),
    "sign": (-1.0, 1.0),
    "acos": (0.0, math.pi),
    "exp": (0.0, math.inf),
    "exp2": (0.0, math.inf),
    "abs": (0.0, math.inf),
    "relu": (0.0, math.inf),
    "softplus": (0.0, math.inf),
    "sqrt": (0.0, math.inf),
    "rsqrt": (0.0, math.inf),
    "elu": (-1.0, math.inf),
    "logsigmoid": (-math.inf, 0.0),
}


def bounds_of(e: Expr, of: Callable[[Expr], Bounds] = lambda e: ANYTHING) -> Bounds:
    """The least and the greatest value; `of` says what is known of tensors and of other leaves."""
    match e:
        case Const(value=v):
            return float(v), float(v)
        case Unary("-", a):
            low, high = bounds_of(a, of)
            return -high, -low
        case Binary("+", a, b):
            x, y = bounds_of(a, of), bounds_of(b, of)
            return x[0] + y[0], x[1] + y[1]
        case Binary("-", a, b):
            x, y = bounds_of(a, of), bounds_of(b, of)
            return x[0] - y[1], x[1] - y[0]
        case Binary("*", a, b):
            x, y = bounds_of(a, of), bounds_of(b, of)
            ends = [0.0 if 0.0 in (p, q) else p * q for p in x for q in y]
            return min(ends), max(ends)
        case Binary("/", a, Const(value=v)) if v != 0:
            low, high = sorted(x / v for x in bounds_of(a, of))
            return low, high
        case Binary("**", _, Const(int() as v)) if v > 0 and v % 2 == 0:
            return 0.0, math.inf
        case Call("max" | "min" as fn, args):
            pick = max if fn == "max" else min
            parts = [bounds_of(a, of) for a in args]
            return pick(p[0] for p in parts), pick(p[1] for p in parts)
        case Call(fn, _):
            return _RANGES.get(fn, ANYTHING)
        case Select(_, a, b):
            x, y = bounds_of(a, of), bounds_of(b, of)
            return min(x[0], y[0]), max(x[1], y[1])
        case Reduce(Reduction.SUM, _, body, _):
            low, high = bounds_of(body, of)
            return (0.0 if low >= 0 else -math.inf), (0.0 if high <= 0 else math.inf)
        case _:
            return of(e)
