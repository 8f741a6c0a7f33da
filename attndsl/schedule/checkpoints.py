"""Checkpoints of scans down the rows: what has been added up at the beginning of every block of rows, column by column.

    F.before[n,j] = sum[l : l // W < n](X[l,j])

A kernel keeps a tile of columns and walks over all rows, a block at a turn: it stores what it carries, then adds the
block's rows. Blocks are walked from the last to the first where the scan runs so.
"""

from __future__ import annotations

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.analysis.rowscans import WIDTH, before_of
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Const,
    DType,
    Expr,
    Position,
    Reduction,
)
from attndsl.cascade.walk import substitute
from attndsl.schedule import tile as t
from attndsl.schedule.builder import Builder
from attndsl.schedule.kernels import finish_kernel
from attndsl.schedule.products import fold
from attndsl.schedule.rows import inside
from attndsl.schedule.tile import Axis, Origin, Role, Val


def build_checkpoints(
    c: Cascade,
    ranks: Ranks,
    tensor: str,
    available: frozenset[str],
    rows: frozenset[str],
    name: str,
) -> t.TileProgram:
    """The kernel that stores a scan at the beginning of every block of rows.

    Raises: Needs and Refused as `build_kernel` does.
    """
    d = c.define(tensor)
    of = ranks.of
    (column,) = ranks.sequence(d.indices)
    s = before_of(d, ranks)
    assert s is not None
    number, over = s.kept, s.over
    tile, rank = of.get(column, column), of.get(over, over)
    stream = rank if rank != tile else rank + "_s"
    axes = [
        Axis(of.get(i, i), of.get(i, i), Role.GRID)
        for i in d.indices
        if i != number and ranks.kind(i) is Kind.BATCH
    ]
    axes += [Axis(tile, tile, Role.TILE), Axis(stream, rank, Role.STREAM, WIDTH)]
    b = Builder(c, ranks, axes, available, rows - {tile})
    at: dict[str, Expr] = {i: Position(of.get(i, i)) for i in d.indices if i != number}
    x = b.eval(substitute(s.body, {**at, over: Position(stream)}), False, tensor)
    terms = b.bind(inside(b, x, s, at, stream, tensor), tensor + "_x")
    value = b.value(terms, tensor + "_x")
    held = b.names.fresh(tensor)
    b.prologue.append(t.Declare(held, (tile,), DType.FLOAT, Const(0.0)))
    block = b.bind(b.eval(Binary("//", Origin(stream), Const(WIDTH))), "block").expr
    subs = tuple(block if i == number else at[i] for i in d.indices)
    b.sweep.append(t.Store(tensor, subs, held, (tile,), span=d.span))
    total = fold(b, Reduction.SUM, value, terms, stream, tensor + "_tile")
    b.commits.append(t.Assign(held, Binary("+", Val(held), total.expr)))
    b.descends = s.down
    b.domains.append(None)
    return finish_kernel(b, name, [], (tensor,), (), "forward")
