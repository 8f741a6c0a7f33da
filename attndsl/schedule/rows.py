"""Scans down the rows: at every pair, the sum over the queries before or behind its query.

    F[i,j] = sum[l : l < i](X[l,j])

Tiles of rows run at once and in any order: nothing can be carried from one to the next. So a kernel that keeps columns
walks the rows first, and leaves what it carries at the beginning of every block of `WIDTH` rows: a column vector for
each block (`checkpoints`). Every other kernel starts from there and adds up the rows of its own tile.

rewrite:  F[i,j] = sum[l : l < i](X[l,j])
          ->  F.before[n,j] = sum[l : l // W < n](X[l,j])
              F.within[i,j] = sum[l : l // W == i // W, l < i](X[l,j]);  F[i,j] = F.within[i,j] + F.before[i // W, j]
requires: `i` is a row: it comes first among the sequences that outputs keep
source:   analysis of iterative ranks, FuseMax (Nayak et al., arXiv:2406.10491); the carry of a transposed scan is ours
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.analysis.rowscans import BLOCKS, WIDTH
from attndsl.analysis.scans import Scan, scan_of
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Param,
    Position,
    Rank,
    Read,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.starts import START
from attndsl.cascade.walk import free, rewrite, substitute
from attndsl.schedule import tile as t
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.tile import Role, Val
from attndsl.schedule.values import BOTH, CHOICE, X


@dataclass(frozen=True, slots=True)
class RowScans:
    """A cascade whose scans down the rows begin at blocks; `before` are the columns that are kept for each block."""

    cascade: Cascade
    ranks: Ranks
    before: frozenset[str] = frozenset()
    blocks: tuple[tuple[str, str, int], ...] = ()
    """The ranks that number blocks of rows: `(name, of, width)`."""


def split_rows(c: Cascade, ranks: Ranks, order: Sequence[str]) -> RowScans:
    """Start every scan down the rows at the block of its row; `order` has the sequences that outputs keep."""
    body: list[Define] = []
    before: list[str] = []
    blocks: dict[str, Rank] = {}
    for d in c.body:
        s = _row_scan(d, ranks, order)
        if s is None:
            body.append(d)
            continue
        rank = ranks.of.get(s.kept, s.kept)
        number = rank + BLOCKS
        count = Binary("//", Binary("+", Extent(rank), Const(WIDTH - 1)), Const(WIDTH))
        blocks[number] = Rank(number, count)
        made = _in_blocks(d, s, number)
        before.append(made[0].tensor)
        body += made
    kinds = {**ranks.kinds, **dict.fromkeys(blocks, Kind.BATCH)}
    return RowScans(
        dataclasses.replace(c, body=tuple(body), ranks=(*c.ranks, *blocks.values())),
        Ranks(kinds, {**ranks.of, **{n: n for n in blocks}}),
        frozenset(before),
        tuple((n, n.removesuffix(BLOCKS), WIDTH) for n in blocks),
    )


def _row_scan(d: Define, ranks: Ranks, order: Sequence[str]) -> Scan | None:
    """A definition as a scan down the rows; None if it is none.

    A scan begins where its sequence does: a call that starts elsewhere is refused, so `start` is 0 here.
    """
    e = d.expr
    if not isinstance(e, Reduce) or len(e.indices) != 1:
        return None

    over = set(e.indices)

    def unshifted(n: Expr) -> Expr | None:
        match n:
            case Binary("+", Position(i) as p, Param(name) | Read(tensor=name)) if (
                name == START and i in (*d.indices, *over)
            ):
                return p
        return None

    parts = (rewrite(c, unshifted) if free(c) & over else c for c in conjuncts(e.where))
    s = scan_of(
        dataclasses.replace(d, expr=dataclasses.replace(e, where=conjunction(parts))), ranks
    )
    if s is None:
        return None
    place = {r: k for k, r in enumerate(order)}
    (other,) = (i for i in ranks.sequence(d.indices) if i != s.kept)
    row, column = (place.get(ranks.of.get(i, i), len(place)) for i in (s.kept, other))
    return s if row < column else None


def _in_blocks(d: Define, s: Scan, number: str) -> list[Define]:
    width = Const(WIDTH)
    block, own = (Binary("//", Position(i), width) for i in (s.over, s.kept))
    rest = conjuncts(s.rest)
    earlier = Compare(">" if s.down else "<", block, Position(number))
    inside = Compare("==", block, own)
    order = Compare(
        (">=" if s.own else ">") if s.down else ("<=" if s.own else "<"),
        Position(s.over),
        Position(s.kept),
    )
    before, within = f"{d.tensor}.before", f"{d.tensor}.within"

    def total(*where: Expr) -> Reduce:
        return Reduce(Reduction.SUM, (s.over,), s.body, conjunction((*rest, *where)))

    kept = tuple(number if i == s.kept else i for i in d.indices)
    at = tuple(own if i == s.kept else Index(i) for i in d.indices)
    whole: Expr = Binary("+", Read(within, tuple(map(Index, d.indices))), Read(before, at))
    if s.apart is not None:
        whole = Select(s.apart, whole, Const(0.0))
    return [
        Define(before, kept, total(earlier), span=d.span),
        Define(within, d.indices, total(inside, order), span=d.span),
        dataclasses.replace(d, expr=whole),
    ]


# --- in a tile of rows ---------------------------------------------------------------------------------------------


def within_value(kernel: Kernel, d: Define, s: Scan, subs: tuple[Expr, ...]) -> X:
    """The scan at every row of a tile, from the tile's first row on; the tile is made one block."""
    key = ("within", d.tensor, subs)
    if key in kernel.memo:
        return kernel.memo[key]
    at = dict(zip(d.indices, subs, strict=True))
    row = at[s.kept]
    if not isinstance(row, Position) or kernel.axes[row.name].role not in (Role.TILE, Role.STREAM):
        raise Refused(
            "A0404", f"`{d.tensor}` runs along `{s.kept}`, of which no tile is here", d.span
        )
    axis = row.name
    kernel.axes[axis] = dataclasses.replace(kernel.axes[axis], block=WIDTH)
    x = kernel.eval(substitute(s.body, {**at, s.over: row}), False, d.tensor)
    v = kernel.value(inside(kernel, x, s, at, axis, d.tensor), d.tensor + "_x")
    dims = kernel.made[v].dims
    if len(dims) != 2:
        raise Refused("A0404", f"`{d.tensor}` is a scan of a value of {len(dims)} ranks", d.span)
    run = kernel.names.fresh(d.tensor + "_run")
    on = kernel.made[v].on
    kernel.place(on).append(t.Scan(run, kernel.order(dims), v, axis, s.down))
    value: Expr = Val(run) if s.own else Binary("-", Val(run), Val(v))
    kernel.memo[key] = kernel.bind(X(value, dims, on), d.tensor)
    return kernel.memo[key]


def inside(kernel: Kernel, x: X, s: Scan, at: dict[str, Expr], axis: str, name: str) -> X:
    """The terms of a scan at every row and column of a tile, 0 where there is no row or a condition does not hold."""
    conds: list[Expr] = [Compare("<", Position(axis), Extent(kernel.axes[axis].rank))]
    conds += [substitute(c, {**at, s.over: Position(axis)}) for c in conjuncts(s.rest)]
    spread = frozenset(p.name for p in at.values() if isinstance(p, Position)) - x.dims
    conds += [
        Compare(">=", Position(a), Const(0))
        for a in sorted(spread)
        if kernel.axes[a].role in (Role.TILE, Role.STREAM)
    ]
    cond = kernel.eval(conds[0], False, "keep")
    for c in conds[1:]:
        cond = kernel.combine(BOTH, [cond, kernel.eval(c, False, "keep")], DType.BOOL, "keep")
    return kernel.combine(CHOICE, [cond, x, X(Const(0.0))], DType.FLOAT, name)
