"""Integer sums and comparisons without the positions that fall out of them."""

from __future__ import annotations

from attndsl.cascade.nodes import (
    Binary,
    Compare,
    Const,
    Expr,
    Extent,
    Index,
    Param,
    Position,
    Unary,
)
from attndsl.cascade.walk import rewrite, walk


def cancelled(e: Expr) -> Expr:
    """Sums without the positions that they add and take away again.

    rewrite:  i + s - (i + s - r)  ->  r;   i + s - r <= i + s  ->  0 <= r
    """

    def rule(n: Expr) -> Expr | None:
        match n:
            case Binary("+" | "-"):
                found: dict[Expr, int] = {}
                if not _collect(n, 1, found) or not _falls_out(n, found):
                    return None
                return _difference(_sum(found, 1), _sum(found, -1))
            case Compare(op, a, b):
                found = {}
                both = _collect(a, 1, found) and _collect(b, -1, found)
                if not both or not _falls_out(n, found):
                    return None
                return Compare(op, _sum(found, 1), _sum(found, -1), span=n.span)
            case _:
                return None

    return rewrite(e, rule)


def as_sum(e: Expr) -> Expr:
    """An integer sum with each of its terms once, those that are taken away last; as it is, where it is none."""
    found: dict[Expr, int] = {}
    return _difference(_sum(found, 1), _sum(found, -1)) if _collect(e, 1, found) else e


def _collect(e: Expr, times: int, found: dict[Expr, int]) -> bool:
    """Add an integer expression's terms to those found, with how often they are there; whether it is such a sum."""
    match e:
        case Const(int(value)) if not isinstance(value, bool):
            found[Const(1)] = found.get(Const(1), 0) + times * value
        case Position() | Param() | Extent():
            found[e] = found.get(e, 0) + times
        case Index(name):
            return _collect(Position(name), times, found)
        case Unary("-", a):
            return _collect(a, -times, found)
        case Binary("+" | "-" as op, a, b):
            return _collect(a, times, found) and _collect(b, times if op == "+" else -times, found)
        case _:
            return False
    return True


def _falls_out(e: Expr, found: dict[Expr, int]) -> bool:
    """Whether an expression has a position that none of its terms is."""
    here = {Position(n.name) for n in walk(e) if isinstance(n, Position | Index)}
    return any(not found.get(n, 0) for n in here)


def _sum(found: dict[Expr, int], sign: int) -> Expr:
    """The sum of the terms of one sign."""
    out: Expr | None = None
    for x, k in found.items():
        if k * sign <= 0:
            continue
        one = (
            Const(abs(k)) if x == Const(1) else x if abs(k) == 1 else Binary("*", Const(abs(k)), x)
        )
        out = one if out is None else Binary("+", out, one)
    return Const(0) if out is None else out


def _difference(a: Expr, b: Expr) -> Expr:
    return a if b == Const(0) else Unary("-", b) if a == Const(0) else Binary("-", a, b)
