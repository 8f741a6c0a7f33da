"""Restarting sums as a kernel by chunks reads them: inside of its chunk, and beside it.

    exp(C[i] - C[j])   ->   run = scan of g along the chunk;   exp(run[i] - run[j])

Sums of one number for each position are added up where they are read, from the chunk's first position on (`within`);
beside the chunk stands 0, or the sum of all of it. Sums of vectors are read from memory, where they begin anew with
every stretch: what stands beside a chunk that begins one, or ends one, is put together from two (`across`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attndsl.cascade.nodes import (
    Binary,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Index,
    Logic,
    Position,
    Read,
    Reduction,
    Select,
)
from attndsl.cascade.walk import substitute
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.products import fold
from attndsl.schedule.restarts import at_hand, begins
from attndsl.schedule.tile import Block, Origin, Scan, Val
from attndsl.schedule.values import MINUS, X

if TYPE_CHECKING:
    from attndsl.schedule.chunked import ChunkBuilder


def within(b: ChunkBuilder, e: Read) -> X | None:
    """A sum of one number for each position, from the chunk's first one on; None where what it sums is not at hand.

    Numbers of one chunk are added where they are, by a scan: nothing of the sum is read, and no kernel goes ahead.

    Raises: Refused, at a point that is neither of the chunk nor beside it.
    """
    known = b.restarted[e.tensor]
    if not at_hand(b.cascade, b.ranks, e.tensor, known):
        return None
    place = e.subs[known.row]
    others = {
        i: s for k, (i, s) in enumerate(zip(known.indices, e.subs, strict=True)) if k != known.row
    }

    def number(at: Expr) -> Expr:
        return substitute(known.body, {**others, known.over: at})

    for axis in (b.row, b.col):
        if place in (Position(axis), Index(axis)):
            v, run = _scan(b, e, number, axis)
            return run if known.itself else b.combine(MINUS, [run, v], DType.FLOAT, e.tensor)
    v, _ = _scan(b, e, number, b.row)
    assert isinstance(v.expr, Val)
    key = ("chunk", known.partner, e.subs[: known.row])
    if key not in b.memo:
        made = fold(b, Reduction.SUM, v.expr.name, v, b.row, "chunk")
        assert isinstance(made.expr, Val)
        b.memo[key] = b.made[made.expr.name] = made
    total = b.memo[key]
    # Beside a chunk stands what is added up before its first position, and before the next one's.
    first, last = (b.before, b.after) if b.ascending else (b.after, b.before)
    if place == first.inside:
        return X(Const(0.0))
    if place == last.inside:
        return total
    raise Refused("A0405", f"`{e.tensor}` is read beside its chunk", e.span)


def _scan(b: ChunkBuilder, e: Read, number: Callable[[Expr], Expr], axis: str) -> tuple[X, X]:
    """The numbers of a chunk along one of its axes, and their running sum."""
    known = b.restarted[e.tensor]
    key = ("scan", known.partner, axis, e.subs[: known.row])
    if key not in b.memo:
        index = known.indices[known.row]
        there = Compare("<", Position(axis), Extent(b.ranks.of.get(index, index)))
        x = b.eval(Select(there, number(Position(axis)), Const(0.0)), False, e.tensor)
        v = b.value(x, f"{known.partner}_s")
        run = b.names.fresh(f"{known.partner}_run")
        b.place(x.on).append(Scan(run, b.order(x.dims), v, axis, False))
        b.memo[key] = X(Val(v), x.dims, x.on)
        b.memo[*key, "run"] = b.made[run] = X(Val(run), x.dims, x.on)
    return b.memo[key], b.memo[*key, "run"]


def across(b: ChunkBuilder, e: Read) -> Expr | None:
    """A sum at the anchor beside a chunk, as if it were of the chunk's stretch; None elsewhere.

    before it:  C[m] - partner[m], where the chunk begins a stretch
    after it:   C[m] + partner[m - 1], where the next chunk begins one
    """
    anchor = b.before
    at = [k for k, s in enumerate(e.subs) if s == anchor.inside]
    if not at:
        return None
    (k,) = at
    first: Expr = Origin(b.row)

    def partner(place: Expr) -> Expr:
        subs = (*e.subs[:k], b.anchor(place).inside, *e.subs[k + 1 :])
        return Read(b.restarted[e.tensor].partner, subs, span=e.span)

    if b.ascending:
        other, begin = partner(Binary("-", first, Const(1))), first
        reached = Compare("==", first, b.anchor(first).inside)
        moved = Const(0.0) if b.restarted[e.tensor].itself else Binary("-", e, other)
    else:
        begin = Binary("+", first, Block(b.row))
        other = partner(Binary("-", begin, Const(1)))
        reached = Compare("==", anchor.place, anchor.inside)
        moved = Binary("+", e, other)
    return Select(Logic("and", (begins(begin), reached)), moved, e)
