"""Running sums and extremes of what columns know alone: a scan of the chunk, and a vector carried to the next.

    C[j,e] = sum[l : l <= j](loga[l,e])
    ->       run = scan of loga along the chunk;   C = carried + run;   carried = carried + sum of the chunk

A row and a column are the same position here, so what columns know is evaluated where rows stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attndsl.analysis.anchors import at
from attndsl.analysis.reach import Reach, reach
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Position,
    Read,
    Reduce,
    Select,
)
from attndsl.cascade.walk import free, walk
from attndsl.schedule import tile as t
from attndsl.schedule.forms import is_large, merged
from attndsl.schedule.outcomes import Needs
from attndsl.schedule.products import fold
from attndsl.schedule.restarts import begins
from attndsl.schedule.tile import Block, Origin, Val
from attndsl.schedule.values import State, X

if TYPE_CHECKING:
    from attndsl.schedule.chunked import ChunkBuilder


def runs(b: ChunkBuilder, body: Expr, where: Expr | None) -> bool:
    """Whether the terms of a sum know nothing of the row that it is for, but where it stands."""
    if b.row in free(body) or b.reads_itself(body):
        return False
    seen = reach(where, b.row, b.col, b.ordered)
    return seen.row is None and not seen.same


def _contracts(b: ChunkBuilder, tensor: str) -> bool:
    """Whether a tensor would be contracted here, from features that are loaded for it alone."""
    d = b.defs.get(tensor)
    if d is None or tensor in b.available or is_large(d.expr, b.ranks):
        return False
    return any(
        isinstance(n, Reduce) or (isinstance(n, Read) and _contracts(b, n.tensor))
        for n in walk(d.expr)
    )


def running(b: ChunkBuilder, state: State, d: Define, body: Expr, seen: Reach) -> None:
    """The reduction at every row of a chunk, from the columns before the chunk and those in it."""
    op = state.reduce.op
    nothing = Const(op.identity)
    name, row = d.tensor, Position(b.row)
    for n in walk(body):
        if isinstance(n, Read) and _contracts(b, n.tensor):
            raise Needs(
                n.tensor,
                f"`{n.tensor}` is known of all rows at once, its running sum of one after the other",
            )
    inside = Compare("<", row, Extent(b.axes[b.col].rank))
    asked = conjunction([inside, *conjuncts(seen.column)])
    assert asked is not None
    x = b.eval(at(Select(asked, body, nothing), b.col, row), False, name)
    v = b.value(x, f"{name}_s")
    term = X(Val(v), x.dims, x.on)
    dims = b.order(x.dims)
    kept = tuple(a for a in state.dims if a != b.row)
    held, run = b.names.fresh(f"{name}_state"), b.names.fresh(f"{name}_run")
    b.carried.append(t.Declare(held, kept, DType.FLOAT, nothing))
    home = b.place(term.on)
    home.append(t.Scan(run, dims, v, b.row, not seen.ascending, op))
    own: Expr = Val(run) if seen.itself else Binary("-", Val(run), Val(v))
    home.append(t.Assign(state.name, merged(op, Val(held), own)))
    total = fold(b, op, v, term, b.row, "chunk")
    so_far = merged(op, Val(held), total.expr)
    if name in b.begun:
        following = Binary("+", Origin(b.row), Block(b.row))
        so_far = Select(begins(following), nothing, so_far)
    b.updates.append(t.Assign(held, so_far))
