"""The numeric rank of a function of two arguments: what an algebraic claim is checked against.

    rank(lambda u, x: exp(x - u), us, xs)   # 1
    rank(lambda u, x: max(x - u, 0), us, xs)   # 23: not separable

`f(u, x) = H_1(u) G_1(x) + … + H_r(u) G_r(x)` exactly where every matrix `[f(u_a, x_b)]` has rank at most r.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

POINTS = 24  # a step function looks like rank 4 on 10 points
TOLERANCE = 1e-9
Point = tuple[float, ...]


def points(positive: Sequence[bool], count: int, random: Random) -> list[Point]:
    """Random points, one coordinate for each entry: positive ones in (0.2, 6), others in (-6, 6)."""
    return [
        tuple(random.uniform(0.2, 6.0) if p else random.uniform(-6.0, 6.0) for p in positive)
        for _ in range(count)
    ]


def value(f: Callable[[Point, Point], float], u: Point, x: Point) -> float | None:
    """The value at a point; None where there is none (a logarithm of a negative number, a complex power)."""
    try:
        out = f(u, x)
        return float(out) if math.isfinite(out) else None
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        return None


def rank(
    f: Callable[[Point, Point], float], us: Sequence[Point], xs: Sequence[Point]
) -> int | None:
    """The number of pivots above `TOLERANCE` of the largest; None where `f` has no value at some point."""
    found = [[value(f, u, x) for x in xs] for u in us]
    rows: list[list[float]] = []
    for r in found:
        row = [v for v in r if v is not None]
        if len(row) < len(r):
            return None
        size = max(map(abs, row), default=0.0)
        rows.append([v / size for v in row] if size else row)
    return _pivots(rows)


def _pivots(rows: list[list[float]]) -> int:
    """Gaussian elimination with full pivoting; columns are brought to one size first."""
    columns = [max(abs(r[k]) for r in rows) or 1.0 for k in range(len(rows[0]))]
    rows = [[v / c for v, c in zip(r, columns, strict=True)] for r in rows]
    count, first = 0, 0.0
    while rows and rows[0]:
        size, r, k = max((abs(v), i, j) for i, row in enumerate(rows) for j, v in enumerate(row))
        first = first or size
        if size <= TOLERANCE * first or size == 0:
            break
        count += 1
        top = rows.pop(r)
        rows = [
            [
                v - row[k] / top[k] * t
                for j, (v, t) in enumerate(zip(row, top, strict=True))
                if j != k
            ]
            for row in rows
        ]
    return count
