"""Sums at every pair of positions over a third rank that may be as long as they: legal, and cubic.

    T[i,j] = sum[l](tanh(A[i,l] + B[l,j]))     |i| * |j| * |l| terms, one after the other
    T[i,j] = sum[l](A[i,l] * B[l,j])           a matrix product: none of that

A rank that stands last in an input, as features do, is short; so is one that parameters alone have.
"""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.analysis.ranks import Kind, Ranks, classify, small
from attndsl.cascade.definedness import at
from attndsl.cascade.nodes import Binary, Call, Cascade, Expr, Read, Reduce, Reduction, Unary
from attndsl.cascade.walk import free, rewrite, walk
from attndsl.source import Span

POSITIONS = 4096
"""So many points of each rank the operations are counted for."""


@dataclass(frozen=True, slots=True)
class Triple:
    """A sum over `over` at every point of `pair`; `operations` at `POSITIONS` of each, for one point of the batch."""

    tensor: str
    over: str
    pair: tuple[str, str]
    operations: float
    span: Span | None


def triples(c: Cascade) -> list[Triple]:
    """The sums of a program that a kernel would do term by term at every pair of positions."""
    ranks = classify(c)
    data = ([r for r in t.ranks if r not in c.batch] for t in c.inputs)  # a vector says nothing
    short = small(c, ranks) | {ranks.of.get(x[-1], x[-1]) for x in data if len(x) > 1}
    out: list[Triple] = []
    for d in c.body:
        for e in walk(d.expr):
            if not isinstance(e, Reduce) or e.op is not Reduction.SUM or len(e.indices) != 1:
                continue
            over = ranks.of.get(e.indices[0], e.indices[0])
            if ranks.kinds[over] is not Kind.FEATURE or over in short:
                continue
            body = _opened(c, ranks, e.body)
            rows = ranks.sequence(tuple(sorted(free(body))))
            if len(rows) != 2 or all(len(free(f) & {*rows}) < 2 for f in _factors(body)):
                continue
            count = 1 + sum(isinstance(n, Binary | Unary | Call) for n in walk(body))
            pair = (rows[0], rows[1])
            out.append(Triple(d.tensor, over, pair, count * POSITIONS**3, e.span or d.span))
    return out


def _opened(c: Cascade, ranks: Ranks, e: Expr) -> Expr:
    """With maps written out, down to inputs and sums."""
    defs = {d.tensor: d for d in c.body}

    def rule(n: Expr) -> Expr | None:
        if not isinstance(n, Read) or n.tensor not in defs:
            return None
        d = defs[n.tensor]
        if d.init is not None or any(isinstance(x, Reduce) for x in walk(d.expr)):
            return None
        return _opened(c, ranks, at(d.expr, d.indices, n.subs))

    return rewrite(e, rule)


def _factors(e: Expr) -> list[Expr]:
    match e:
        case Binary("*" | "/", a, b):
            return _factors(a) + _factors(b)
        case Unary("-", a):
            return _factors(a)
        case _:
            return [e]
