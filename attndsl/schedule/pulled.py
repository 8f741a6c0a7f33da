"""Sums of products of two contractions, with one of them pulled out.

    D[j]   = sum[i](w[i,j] * sum[f](V[j,f] * dO[i,f]) * sum[e](K[j,e] * Q[i,e]))
    ->       U[j,e] = sum[i](w[i,j] * sum[f](V[j,f] * dO[i,f]) * Q[i,e]);   D[j] = sum[e](K[j,e] * U[j,e])

The first form needs every pair of positions; in the second, the sum over `i` carries over from chunk to chunk.
Gradients of gates have this form, and `U` is most often a gradient that is computed anyway.

source: the same exchange of sums as the row statistic of FlashAttention's backward pass (Dao 2023, arXiv:2307.08691)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from attndsl.analysis.linearity import Splitter
from attndsl.analysis.ranks import Kind, Ranks, lengths
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Const,
    Define,
    Expr,
    Index,
    Position,
    Rank,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import bound, free, reads, rename, substitute, walk
from attndsl.schedule.forms import is_large, opened, positions, product_of
from attndsl.schedule.halves import Halves


@dataclass(frozen=True, slots=True)
class Contraction:
    """`sum[index](row * rest)` in a summand over `col`: what the column does not touch, and the rest."""

    index: str
    row: tuple[Expr, ...]
    rest: tuple[Expr, ...]


@dataclass(slots=True)
class Pull:
    """Rewrites a cascade; `kept` are the new tensors and those that stand for them, to be kept in memory."""

    cascade: Cascade
    ranks: Ranks
    kept: dict[str, None]
    lengths: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.lengths = lengths(self.cascade, self.ranks.of)

    def run(self) -> Cascade:
        body: list[Define] = []
        for d in self.cascade.body:
            body += self.pulled(d)
        return dataclasses.replace(self.cascade, body=_in_order(body))

    def pulled(self, d: Define) -> list[Define]:
        """The definition, or a new sum and the definition by it."""
        e = d.expr
        rows = self.ranks.sequence(d.indices)
        if not isinstance(e, Reduce) or e.op is not Reduction.SUM or not is_large(e, self.ranks):
            return [d]
        if len(e.indices) != 1 or len(rows) != 1:
            return [d]
        # With one feature more than its own, what is pulled out would be no state of two.
        if any(self.ranks.kind(i) is Kind.FEATURE for i in d.indices):
            return [d]
        ((col,), (row,)) = e.indices, rows
        halves = Halves(self.cascade, self.ranks)
        if halves.carries(d):
            return [d]
        plain, contractions = self.factors(e.body, row, col)
        if not 0 < len(contractions) < 3:
            return [d]
        found: list[Define] | None = None
        for k, one in enumerate(contractions):
            made = self.exchange(d, e, plain, one, contractions[:k] + contractions[k + 1 :], halves)
            if made is None:
                continue
            if len(made) == 1:  # the sum is there already
                return made
            found = found or made
        if found is None:
            return [d]
        self.kept[found[0].tensor] = None
        return found

    def exchange(
        self,
        d: Define,
        e: Reduce,
        plain: list[Expr],
        one: Contraction,
        others: list[Contraction],
        halves: Halves,
    ) -> list[Define] | None:
        """`one` pulled out of the sum, by a tensor that is defined already if there is one.

        None if what is left does not carry over.
        """
        root = self.ranks.of.get(one.index, one.index)
        inner = [Reduce(Reduction.SUM, (c.index,), product_of([*c.row, *c.rest])) for c in others]
        # Not inside the others: of a square, both contractions run over an index of the same name.
        rest = [substitute(x, {one.index: Position(root)}) for x in one.rest]
        body = product_of([*plain, *rest, *inner])
        indices = (*d.indices, root)
        sum_ = Reduce(Reduction.SUM, e.indices, body, e.where)
        new = Define(self.name(d.tensor), indices, sum_, span=d.span)
        if not halves.carries(new):
            return None
        index = self.fresh(root)
        at = (*(Index(i) for i in d.indices), Index(index))
        row = [substitute(r, {one.index: Position(index)}) for r in one.row]
        for known in self.cascade.body:
            if known.tensor != d.tensor and self.same(known, indices, sum_):
                self.kept[known.tensor] = None
                total = Reduce(Reduction.SUM, (index,), product_of([*row, Read(known.tensor, at)]))
                return [dataclasses.replace(d, expr=total)]
        total = Reduce(Reduction.SUM, (index,), product_of([*row, Read(new.tensor, at)]))
        return [new, dataclasses.replace(d, expr=total)]

    def factors(self, e: Expr, row: str, col: str) -> tuple[list[Expr], list[Contraction]]:
        """The factors of a summand: those that span no contraction, and the contractions of rows with columns."""
        plain: list[Expr] = []
        contractions: list[Contraction] = []
        apart = Splitter(row, col, self.seen)

        def visit(e: Expr) -> None:
            if len(free(e) & {row, col}) < 2:
                plain.append(e)
                return
            match e:
                case Binary("*", a, b):
                    visit(a)
                    visit(b)
                case Binary("/", a, b) if len(free(b) & {row, col}) < 2:
                    visit(a)
                    plain.append(Binary("/", Const(1.0), b))
                case Unary("-", a):
                    plain.append(Const(-1.0))
                    visit(a)
                case Select() if (guarded := apart.guarded(e)) is not None:
                    cond, x = guarded
                    start = len(plain)
                    visit(x)
                    side = free(cond) & {row, col}
                    for k in range(start, len(plain)):
                        if free(plain[k]) & {row, col} <= side:
                            plain[k] = Select(cond, plain[k], Const(0.0))
                    plain.append(Select(cond, Const(1.0), Const(0.0)))
                case Read() if (seen := self.seen(e)) is not None and self.holds_sum(seen):
                    visit(seen)
                case Reduce(Reduction.SUM, (index,), body, None):
                    inside: list[Expr] = []
                    for f in _factors(body, apart):
                        (inside if index in free(f) else plain).append(f)
                    rows = tuple(f for f in inside if col not in free(f))
                    contractions.append(
                        Contraction(index, rows, tuple(f for f in inside if col in free(f)))
                    )
                case _:
                    plain.append(e)

        visit(e)
        return plain, contractions

    def length(self, index: str) -> str:
        rank = self.ranks.of.get(index, index)
        return self.lengths.get(rank, rank)

    def holds_sum(self, e: Expr) -> bool:
        """Whether a sum stands in an expression, or in what it reads."""
        return any(
            isinstance(n, Reduce)
            or (isinstance(n, Read) and (x := self.seen(n)) is not None and self.holds_sum(x))
            for n in walk(e)
        )

    def seen(self, e: Read) -> Expr | None:
        return opened(e, self.cascade, self.ranks)

    def same(self, d: Define, indices: tuple[str, ...], e: Reduce) -> bool:
        """Whether a definition is this sum, whatever its indices are called and its factors' order."""
        x = d.expr
        if d.where is not None or not isinstance(x, Reduce) or len(d.indices) != len(indices):
            return False
        if x.op is not e.op or len(x.indices) != 1 or self.ranks.kind(x.indices[0]) is Kind.FEATURE:
            return False
        if [self.length(i) for i in d.indices] != [self.length(i) for i in indices]:
            return False
        names = {**dict(zip(d.indices, indices, strict=True)), x.indices[0]: e.indices[0]}
        return self.key(rename(x, names), indices, e.indices[0]) == self.key(
            e, indices, e.indices[0]
        )

    def key(self, e: Expr, indices: tuple[str, ...], col: str) -> object:
        """A sum in a form in which equal ones are equal."""
        assert isinstance(e, Reduce)
        row = self.ranks.sequence(indices)[0]
        plain, contractions = self.factors(e.body, row, col)

        def text(x: Expr) -> str:
            names = {i: f"%{self.ranks.of.get(i, i)}" for i in bound(x)}
            return str(positions(rename(x, names)))

        inner = []
        for c in contractions:
            name = {c.index: f"%{self.ranks.of.get(c.index, c.index)}"}
            inner.append(tuple(sorted(text(rename(f, name)) for f in (*c.row, *c.rest))))
        where = None if e.where is None else text(e.where)
        return tuple(sorted(map(text, plain))), tuple(sorted(inner)), where

    def name(self, base: str) -> str:
        names = {d.tensor for d in self.cascade.body} | set(self.kept)
        base = base.partition(".")[0]
        k = 1
        while f"{base}.u{k}" in names:
            k += 1
        return f"{base}.u{k}"

    def fresh(self, root: str) -> str:
        k = 1
        while f"{root}.{k}" in self.ranks.of:
            k += 1
        name = f"{root}.{k}"
        self.ranks.of[name] = root
        ranks = (*self.cascade.ranks, Rank(name, iterates=root))
        self.cascade = dataclasses.replace(self.cascade, ranks=ranks)
        return name


def _in_order(body: list[Define]) -> tuple[Define, ...]:
    """Every definition after what it reads, otherwise as given."""
    made = {d.tensor: d for d in body}
    out: dict[str, Define] = {}
    open_: set[str] = set()

    def visit(d: Define) -> None:
        if d.tensor in open_:
            return
        open_.add(d.tensor)
        for e in (d.expr, d.where, d.init):
            for n in sorted(reads(e)) if e is not None else ():
                if n in made and n != d.tensor:
                    visit(made[n])
        out[d.tensor] = d

    for d in body:
        visit(d)
    return tuple(out.values())


def _factors(e: Expr, apart: Splitter) -> list[Expr]:
    match e:
        case Binary("*", a, b):
            return _factors(a, apart) + _factors(b, apart)
        case Binary("/", a, b):
            return [*_factors(a, apart), Binary("/", Const(1.0), b)]
        case Unary("-", a):
            return [Const(-1.0), *_factors(a, apart)]
        case Read() if len(apart.sides(e)) == 2 and (seen := apart.inline(e)) is not None:
            return _factors(seen, apart)
        case _:
            return [e]
