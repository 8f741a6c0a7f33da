"""Sums of rows that threads may keep apart until the sweep ends.

    kept_apart(program, bodies) -> {Z: Z_tile}

A row of scores lies in four threads. Where a sum over the stream is only carried on,

    Z_tile = sum[j](P);   Z = Z * alpha + Z_tile

each thread can carry on its own part, since multiplication by what all of a row share distributes over the parts: they
meet once behind the sweep, and not in every step, where all that follows would wait for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from attndsl.cascade.nodes import Const, Expr, Reduction
from attndsl.cascade.sums import factors, product, summands
from attndsl.cascade.walk import walk
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import Assign, Declare, Fold, Stmt, TileProgram, Val
from attndsl.schedule.warps import Body


def kept_apart(program: TileProgram, bodies: Sequence[Body]) -> dict[str, str]:
    """Rows that are sums over the stream and nothing else reads inside it, each with what it is carried on by."""
    if program.loops or program.sweep is None:
        return {}
    stream = program.sweep.axis
    zeros = {
        s.name: s.dims
        for s in program.prologue
        if isinstance(s, Declare) and s.expr == Const(0.0) and len(s.dims) == 1
    }
    out: dict[str, str] = {}
    for name, dims in zeros.items():
        parts = {_part(name, dims, stream, (*b.early, *b.middle), b) for b in bodies}
        if len(parts) == 1 and (part := parts.pop()) is not None:
            out[name] = part
    return out


def _part(
    name: str, dims: tuple[str, ...], stream: str, body: Sequence[Stmt], whole: Body
) -> str | None:
    """What a step adds to a row, if that is all that a step does with it."""
    reads = [s for s in (*body, *whole.sums, *whole.across) if name in used(s)]
    writes = [s for s in body if isinstance(s, Assign) and s.name == name]
    if len(writes) != 1 or [s for s in reads if s is not writes[0]]:
        return None
    folds = {
        s.name: s
        for s in body
        if isinstance(s, Fold) and s.op is Reduction.SUM and s.over == stream and s.dims == dims
    }
    step = carried_on(name, writes[0].expr)
    if step is None or step[1] not in folds or folds[step[1]].src == name:
        return None
    if [s for s in (*body, *whole.sums, *whole.across) if step[1] in used(s)] != writes:
        return None
    return step[1]


def carried_on(name: str, e: Expr) -> tuple[Expr, str] | None:
    """`factor` and `added` of `name * factor + added`."""
    terms = summands(e)
    added = [t.name for t in terms if isinstance(t, Val) and t.name != name]
    others = [t for t in terms if not (isinstance(t, Val) and t.name != name)]
    if len(added) != 1 or len(others) != 1:
        return None
    of = factors(others[0])
    if Val(name) not in of:
        return None
    of.remove(Val(name))
    if any(name in _names(f) for f in of):
        return None
    return product(of), added[0]


def _names(e: Expr) -> set[str]:
    return {x.name for x in walk(e) if isinstance(x, Val)}
