"""Sums of products as lists of what they add and multiply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

from attndsl.cascade.nodes import Binary, Const, Expr, Unary
from attndsl.cascade.walk import free


def product(of: Sequence[Expr]) -> Expr:
    """Their product, from left to right; 1 of none."""
    return reduce(lambda a, b: Binary("*", a, b), of) if of else Const(1.0)


def summands(e: Expr) -> list[Expr]:
    """What a sum adds, with the signs."""
    match e:
        case Binary("+", a, b):
            return summands(a) + summands(b)
        case Binary("-", a, b):
            return summands(a) + [Binary("*", Const(-1.0), x) for x in summands(b)]
        case Unary("-", a):
            return [Binary("*", Const(-1.0), x) for x in summands(a)]
        case _:
            return [e]


def signed(e: Expr, sign: int = 1) -> Iterator[tuple[int, Expr]]:
    """What a sum adds, each with its sign beside it."""
    match e:
        case Binary("+" | "-" as op, a, b):
            yield from signed(a, sign)
            yield from signed(b, sign if op == "+" else -sign)
        case Unary("-", a):
            yield from signed(a, -sign)
        case _:
            yield sign, e


def factors(e: Expr) -> list[Expr]:
    """What a product multiplies."""
    match e:
        case Binary("*", a, b):
            return factors(a) + factors(b)
        case Unary("-", a):
            return [Const(-1.0), *factors(a)]
        case _:
            return [e]


def gathered(e: Expr, features: set[str]) -> Expr:
    """Summands that share a factor with a feature of the state as one: each would be a sum over the past of its own.

    rewrite:  b[t] * K[t,e] * V[t,f] - a[t] * b[t] * K[t,e] * U[t,f]   ->   b[t] * K[t,e] * (V[t,f] - a[t] * U[t,f])
    """
    groups: list[list[list[Expr]]] = []
    for summand in summands(e):
        mine = factors(summand)
        shared = [g for g in groups if any(f in g[0] and free(f) & features for f in mine)]
        if shared:
            shared[0].append(mine)
        else:
            groups.append([mine])
    out: Expr | None = None
    for group in groups:
        if len(group) == 1:
            whole = product(group[0])
        else:
            common = [f for f in group[0] if all(f in other for other in group[1:])]
            rests = [_without(other, common) for other in group]
            whole = Binary("*", product(common), reduce(plus, rests))
        out = whole if out is None else plus(out, whole)
    return e if out is None or len(groups) == len(summands(e)) else out


def _without(of: list[Expr], common: list[Expr]) -> Expr:
    rest = list(of)
    for f in common:
        rest.remove(f)
    return product(rest)


def plus(a: Expr, b: Expr) -> Expr:
    return Binary("+", a, b)
