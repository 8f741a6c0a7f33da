"""Questions about definitions, conditions and products that every part of the schedule asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Define,
    Expr,
    Index,
    Logic,
    Position,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.sums import product
from attndsl.cascade.walk import free, rewrite, substitute


def is_large(e: Expr, ranks: Ranks) -> bool:
    """A reduction over a sequence or batch rank."""
    return isinstance(e, Reduce) and any(ranks.kind(i) is not Kind.FEATURE for i in e.indices)


def is_loop_of_pairs(d: Define, ranks: Ranks) -> bool:
    """`T[g,i,j] = sum[h](W[g,h] * S[h,i,j])`: a sum over heads at every pair of positions, a loop inside a tile."""
    return (
        isinstance(d.expr, Reduce)
        and not ranks.sequence(d.expr.indices)
        and len(ranks.sequence(d.indices)) > 1
    )


def inline(d: Define, subs: tuple[Expr, ...]) -> Expr:
    """The right side of a definition at other subscripts."""
    number = {
        i: Position(s.name) if isinstance(s, Index) else s
        for i, s in zip(d.indices, subs, strict=True)
    }
    local = dict(zip(d.indices, subs, strict=True))
    return substitute(d.expr, number, local)


def opened(e: Read, cascade: Cascade, ranks: Ranks) -> Expr | None:
    """What a tensor is made of where it is read; None for inputs, recurrences and sums over sequences."""
    d = next((d for d in cascade.body if d.tensor == e.tensor), None)
    if d is None or d.init is not None or is_large(d.expr, ranks):
        return None
    return inline(d, e.subs)


def positions(e: Expr) -> Expr:
    """Lone subscripts as positions, so that equal reads are equal."""
    return rewrite(e, lambda n: Position(n.name) if isinstance(n, Index) else None)


def inline_where(d: Define, subs: tuple[Expr, ...]) -> Expr | None:
    """The domain of a definition at other subscripts."""
    if d.where is None:
        return None
    return inline(dataclasses.replace(d, expr=d.where), subs)


def factors(e: Expr) -> list[Expr]:
    """The factors of a product, as it is written."""
    match e:
        case Binary("*", a, b):
            return factors(a) + factors(b)
        case _:
            return [e]


# Under a name of its own here: schedules name parts `product`.
product_of = product


def in_order(indices: Iterable[str], ranks: Ranks, order: tuple[str, ...]) -> list[str]:
    """Indices by the place of their rank in `order`, those of other ranks last."""
    place = {r: k for k, r in enumerate(order)}

    def key(index: str) -> int:
        rank = ranks.of.get(index, index)
        return place.get(rank, len(place))

    return sorted(indices, key=key)


def scatter_target(
    e: Reduce, ranks: Ranks
) -> tuple[tuple[tuple[Expr, str], ...], Expr | None] | None:
    """`((subscript, target index), …)` and the rest of the condition, for the gradient of a gathered read."""
    if e.op is not Reduction.SUM:
        return None
    over = set(e.indices)
    places: dict[str, Expr] = {}
    rest: list[Expr] = []
    # A subscript that moves with batch indices alone makes no scatter; beside another it is one more coordinate of it,
    # where the table holds numbers (the entries of others are rows of features).
    numbers = all(ranks.kind(i) is not Kind.FEATURE for i in free(e.body) - over)
    for moving in (True, False):
        left, rest = (conjuncts(e.where) if moving else rest), []
        for c in left:
            if (
                (moving or (places and numbers))
                and isinstance(c, Compare)
                and c.op == "=="
                and isinstance(c.right, Position)
                and c.right.name not in over
                and c.right.name not in places
                and not isinstance(c.left, Position)
                and ranks.kind(c.right.name)
                is not Kind.BATCH  # those of one block: a part of the stream
                and _moves(c.left, over, ranks) is moving
            ):
                places[c.right.name] = c.left
            else:
                rest.append(c)
    if not places:
        return None
    # What else is asked of a place, another coordinate that must agree, is asked of the subscript that finds it.
    rest = [substitute(c, places) for c in rest]
    return tuple((sub, target) for target, sub in places.items()), conjunction(rest)


def _moves(subscript: Expr, over: set[str], ranks: Ranks) -> bool:
    """Whether a subscript moves along a rank that is no batch."""
    return any(ranks.kind(i) is not Kind.BATCH for i in free(subscript) & over)


def is_scatter(e: Reduce, ranks: Ranks) -> bool:
    """Whether `e` is the gradient of a gathered read."""
    return scatter_target(e, ranks) is not None


def merged(op: Reduction, a: Expr, b: Expr) -> Expr:
    """A reduction of two parts, from the parts' reductions."""
    match op:
        case Reduction.SUM:
            return Binary("+", a, b)
        case Reduction.MAX | Reduction.MIN:
            return Call(op.value, (a, b))
        case Reduction.PROD:
            return Binary("*", a, b)
        case Reduction.ANY:
            return Logic("or", (a, b))
        case _:
            return Logic("and", (a, b))
