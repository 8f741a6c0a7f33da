"""Sums into rows that pairs find along diagonals, solved for one of the two positions.

    dR[r,e] = sum[i,j : i - j == r](dS[i,j] * Q[i,e])   ->   dR[r,e] = sum[i : 0 <= i - r < |j|](dS[i, i - r] * Q[i,e])

A row of the table then has a kernel of its own, as a query has: nothing is added to memory, no order of sums is left
open, and no largest term has to be known before. What the other position reads stands along diagonals now (`bands`).

requires: the table has features; the row is the sum of both positions, each with the factor 1 or -1, and of what is the
          same everywhere; what is read along the position that goes has features, so that products find it
"""

from __future__ import annotations

import dataclasses

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.conditions import conjunction
from attndsl.cascade.nodes import (
    Binary,
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
    Unary,
)
from attndsl.cascade.walk import free, rewrite, substitute, walk
from attndsl.schedule.affine import affine
from attndsl.schedule.cancelled import as_sum, cancelled
from attndsl.schedule.forms import opened, scatter_target


def solved_for_rows(c: Cascade, ranks: Ranks) -> Cascade:
    """The program with its sums into rows over one position each, where they are of this kind."""

    def solved(d: Define) -> Define:
        def rule(e: Expr) -> Expr | None:
            return _solved(c, ranks, e) if isinstance(e, Reduce) else None

        return dataclasses.replace(d, expr=rewrite(d.expr, rule))

    body = tuple(solved(d) for d in c.body)
    return c if body == c.body else dataclasses.replace(c, body=body)


def _solved(c: Cascade, ranks: Ranks, e: Reduce) -> Expr | None:
    if e.op is not Reduction.SUM:
        return None
    found = scatter_target(e, ranks)
    if found is None or len(found[0]) != 1:
        return None
    ((row, target),), rest = found
    pair = ranks.sequence(e.indices)
    parts = affine(row)
    if parts is None or len(pair) != 2 or not _keeps_features(e, ranks):
        return None
    slopes, _ = parts
    if {i for i, k in slopes.items() if k} != {*pair} or any(abs(slopes[i]) != 1 for i in pair):
        return None
    for gone in reversed(pair):
        if all(_has_features(c, ranks, x, gone) for x in (e.body, rest) if x is not None):
            break
    else:
        return None
    # row == k * gone + others == target
    others = Binary("-", row, _times(slopes[gone], Position(gone)))
    at = as_sum(_times(slopes[gone], Binary("-", Position(target), others)))
    here = {gone: at}
    inside = (
        Compare("<=", Const(0), at),
        Compare("<", at, Extent(ranks.of.get(gone, gone))),
        None if rest is None else cancelled(substitute(rest, here)),
    )
    return Reduce(
        e.op,
        tuple(i for i in e.indices if i != gone),
        cancelled(substitute(e.body, here)),
        conjunction(x for x in inside if x is not None),
        span=e.span,
    )


def _times(sign: int, e: Expr) -> Expr:
    return e if sign > 0 else Unary("-", e)


def _keeps_features(e: Reduce, ranks: Ranks) -> bool:
    """Whether a table's entry is a vector: there is a factor with a feature that the sum leaves."""
    return any(ranks.kind(i) is Kind.FEATURE for i in free(e.body) - {*e.indices})


def _has_features(c: Cascade, ranks: Ranks, e: Expr, index: str) -> bool:
    """Whether everything that is read along an index has features."""
    for n in walk(e):
        if not isinstance(n, Read) or index not in free(n):
            continue
        inner = opened(n, c, ranks)
        if inner is not None:
            if not _has_features(c, ranks, inner, index):
                return False
            continue
        d = next((d for d in c.body if d.tensor == n.tensor), None)
        kept = d.indices if d is not None else next(i.ranks for i in c.inputs if i.name == n.tensor)
        if not any(ranks.kind(i) is Kind.FEATURE for i in kept):
            return False
    return True
