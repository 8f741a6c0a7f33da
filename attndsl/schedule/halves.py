"""Sums over all positions, as a sum over those up to the row and one over those after it.

    O[i,f] = sum[j](sum[e](Q[i,e] * K[j,e]) * g**abs(i - j) * V[j,f])
    ->       O.up[i,f]   = sum[j : j <= i](sum[e](Q[i,e] * K[j,e]) * g**(i - j) * V[j,f])
             O.down[i,f] = sum[j : j > i](sum[e](Q[i,e] * K[j,e]) * g**(j - i) * V[j,f])
             O[i,f]      = O.up[i,f] + O.down[i,f]

Each half carries over from chunk to chunk, in its own direction, where the whole needs every pair of positions. That
pays where all sums for these rows do: a kernel that visits all pairs for another sum gives these for nothing.

source: Afzal et al. 2025 (arXiv:2502.16249), the two directions of linear attention with decays
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from attndsl.analysis.linearity import NotLinear, Splitter
from attndsl.analysis.ranks import Kind, Ranks
from attndsl.analysis.reach import reach
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Define,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.ordered import Ordered, ordered, same
from attndsl.cascade.walk import free, rewrite, walk
from attndsl.schedule.forms import is_large, opened, positions


@dataclass(slots=True)
class Halves:
    """Rewrites a cascade; `kept` are the new tensors, to be kept in memory."""

    cascade: Cascade
    ranks: Ranks
    kept: dict[str, None] = field(default_factory=dict)
    known: Ordered = field(init=False)

    def __post_init__(self) -> None:
        self.known = ordered(self.cascade)

    def run(self) -> Cascade:
        sums = [d for d in self.cascade.body if is_large(d.expr, self.ranks)]
        pairwise = {r for d in sums if not self.carries(d) for r in self.rows(d)}
        wanted = {d.tensor for d in sums if not pairwise & self.rows(d)}
        body: list[Define] = []
        for d in self.cascade.body:
            halves = self.halves(d) if d.tensor in wanted else None
            if halves is None:
                body.append(d)
                continue
            at = tuple(Index(i) for i in d.indices)
            up, down = (Read(h.tensor, at) for h in halves)
            body += [*halves, dataclasses.replace(d, expr=Binary("+", up, down))]
            self.kept |= dict.fromkeys(h.tensor for h in halves)
        return dataclasses.replace(self.cascade, body=tuple(body))

    def rows(self, d: Define) -> set[str]:
        """The ranks of the rows that a sum is made for."""
        return {self.ranks.of.get(i, i) for i in self.ranks.sequence(d.indices)}

    def carries(self, d: Define) -> bool:
        """Whether a sum carries over from chunk to chunk, as it is or by halves."""
        return self.linear(d) or self.halves(d) is not None

    def linear(self, d: Define) -> bool:
        pair = self.pair(d)
        if pair is None:
            return False
        e = d.expr
        assert isinstance(e, Reduce)
        try:
            where = None if e.where is None else positions(e.where)
            reach(where, *pair, self.known)
            Splitter(*pair, self.seen).terms(e.body)
        except NotLinear:
            return False
        return True

    def pair(self, d: Define) -> tuple[str, str] | None:
        """The row and the column of a sum over one sequence for each position of another."""
        e = d.expr
        if not isinstance(e, Reduce) or e.op is not Reduction.SUM or d.where is not None:
            return None
        rows = self.ranks.sequence(d.indices)
        if len(rows) != 1 or len(e.indices) != 1 or self.ranks.kind(e.indices[0]) is Kind.BATCH:
            return None
        return rows[0], e.indices[0]

    def halves(self, d: Define) -> tuple[Define, Define] | None:
        """The two halves of a sum over all positions; None where it is none, or they do not carry over."""
        pair = self.pair(d)
        if pair is None:
            return None
        row, col = pair
        e = d.expr
        assert isinstance(e, Reduce)
        whole = self.spelled(e.body, row, col)
        related = any(
            {row, col} <= free(c) and same(positions(c), row, col, self.known) is None
            for c in conjuncts(e.where)
        )
        if related or not {row, col} <= free(whole):
            return None
        before = Compare("<=", Position(col), Position(row))
        after = Compare(">", Position(col), Position(row))
        up, down = (
            dataclasses.replace(
                d,
                tensor=f"{d.tensor}.{name}",
                expr=Reduce(
                    Reduction.SUM,
                    e.indices,
                    distances(whole, *order),
                    conjunction([*conjuncts(e.where), side]),
                ),
            )
            for name, side, order in (("up", before, (row, col)), ("down", after, (col, row)))
        )
        return (up, down) if self.linear(up) and self.linear(down) else None

    def spelled(self, e: Expr, row: str, col: str) -> Expr:
        """With tensors over rows and columns written out, as far as distances stand in them."""

        def rule(n: Expr) -> Expr | None:
            if not isinstance(n, Read) or not {row, col} <= free(n):
                return None
            seen = self.seen(n)
            if seen is None:
                return None
            seen = self.spelled(seen, row, col)
            return seen if any(_distance(x, row, col) for x in walk(seen)) else None

        return rewrite(e, rule)

    def seen(self, e: Read) -> Expr | None:
        return opened(e, self.cascade, self.ranks)


def distances(e: Expr, late: str, early: str) -> Expr:
    """Distances of positions without their `abs`, where one position is known to come after the other.

    rewrite:  abs(i - j), abs(j - i)   ->   late - early
    """
    far = Binary("-", Position(late), Position(early))
    return rewrite(e, lambda n: far if _distance(n, late, early) else None)


def _distance(e: Expr, a: str, b: str) -> bool:
    match e:
        case Call("abs", (Binary("-", Position(x), Position(y)),)):
            return {x, y} == {a, b}
        case _:
            return False
