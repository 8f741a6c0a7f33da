"""Sums down the columns of weights that a scan along the rows makes.

    dV[j,f] = sum[i](w[i,j] * dO[i,f])        where w holds a sum over the keys behind each key

A kernel that keeps a tile of columns cannot have `w`: the scan runs through all columns of a row. So a kernel walks the
rows in the direction of the scan, and adds the product of each tile to a 64-bit fixed-point buffer, as the gradients of
gathered tables do (`scatter`): the result does not depend on the order, and is the same at every repeat.
"""

from __future__ import annotations

import dataclasses

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.analysis.rowscans import before_of
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Position,
    Reduce,
    Reduction,
)
from attndsl.cascade.walk import free, reads, substitute
from attndsl.schedule import tile as t
from attndsl.schedule.builder import Builder
from attndsl.schedule.forms import factors, is_large, is_scatter, product_of
from attndsl.schedule.kernels import finish_kernel
from attndsl.schedule.masks import masked
from attndsl.schedule.memory import dot_like
from attndsl.schedule.operands import pad
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.products import factors_of, fold
from attndsl.schedule.scans import scanned
from attndsl.schedule.scatter import Scattered
from attndsl.schedule.tile import Axis, Role, Val
from attndsl.schedule.values import STREAMED, X


def split_columns(c: Cascade, ranks: Ranks) -> tuple[Cascade, dict[str, Scattered]]:
    """Add, for every sum down the columns of a scan, the definition of its largest term by row."""
    scans = scanned(c, ranks)
    body: list[Define] = []
    out: dict[str, Scattered] = {}
    for d in c.body:
        row = _row(d, ranks, scans)
        if row is not None:
            assert isinstance(d.expr, Reduce)
            extra = _largest(d, d.expr, ranks, row)
            (column,) = ranks.sequence(d.indices)
            names = (f"{d.tensor}.fixed", f"{d.tensor}.scale", extra.tensor)
            out[d.tensor] = Scattered(*names, row, column, (extra.tensor,))
            body.append(extra)
        body.append(d)
    return dataclasses.replace(c, body=tuple(body)), out


def _row(d: Define, ranks: Ranks, scans: dict[str, str]) -> str | None:
    """The summed sequence of a sum that keeps the sequence of a scan in its terms."""
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or not is_large(e, ranks):
        return None
    rows, kept = ranks.sequence(e.indices), ranks.sequence(d.indices)
    if is_scatter(e, ranks) or len(rows) != 1 or len(kept) != 1:
        return None
    if before_of(d, ranks) is not None:  # it has a kernel of its own, block by block
        return None
    if any(ranks.kind(i) is Kind.FEATURE for i in e.indices):
        return None
    rank = ranks.of.get(kept[0], kept[0])
    held = any(scans.get(r) == rank for r in reads(e))  # its domain may be cut by the scan
    return rows[0] if held else None


def _heads(d: Define, e: Reduce) -> tuple[dict[str, Expr], Expr | None]:
    """Kept indices that a condition gives (`h // G == g` of grouped heads), and the other conditions."""
    given: dict[str, Expr] = {}
    rest: list[Expr] = []
    for c in conjuncts(e.where):
        match c:
            case Compare("==", left, Position(g)) if g in d.indices and free(left) <= set(
                e.indices
            ):
                given[g] = left
            case _:
                rest.append(c)
    return given, conjunction(rest)


def _largest(d: Define, e: Reduce, ranks: Ranks, row: str) -> Define:
    """A bound on the terms of each row.

    rewrite:  dV[j,f] = sum[i](w[i,j] * dO[i,f])   ->   dV.amax[i] = max[j](|w[i,j]|) * max[f](|dO[i,f]|)
    """
    (column,) = ranks.sequence(d.indices)
    features = {i for i in d.indices if ranks.kind(i) is Kind.FEATURE}
    fixed = [f for f in factors(e.body) if not free(f) & features]
    given, where = _heads(d, e)
    size: Expr = Call("abs", (product_of(fixed),))
    size = Reduce(Reduction.MAX, (column,), Call("max", (size, Const(0.0))), where)
    for f in factors(e.body):
        names = tuple(i for i in d.indices if i in features and i in free(f))
        if names:
            over = Reduce(Reduction.MAX, names, Call("abs", (f,)))
            if column in free(f):
                over = Reduce(Reduction.MAX, (column,), over)
            size = Binary("*", size, over)
    size = substitute(size, given)
    kept = [i for i in (*d.indices, *e.indices) if ranks.kind(i) is Kind.BATCH and i not in given]
    return Define(f"{d.tensor}.amax", (*kept, row), size, span=d.span)


def build_columns(
    c: Cascade,
    ranks: Ranks,
    tensor: str,
    s: Scattered,
    available: frozenset[str],
    rows: frozenset[str],
    name: str,
) -> list[t.TileProgram | t.HostScale]:
    """The scale, and the kernel that walks along the rows and adds a product for each tile of columns."""
    d = c.define(tensor)
    e = d.expr
    assert isinstance(e, Reduce)
    assert s.column is not None
    of = ranks.of
    row, rank = of.get(s.row, s.row), of.get(s.column, s.column)
    column = rank if rank != row else rank + "_s"
    given, kept = _heads(d, e)
    batch = [i for i in (*d.indices, *e.indices) if ranks.kind(i) is Kind.BATCH and i not in given]
    axes = [Axis(r, r, Role.GRID) for r in dict.fromkeys(of.get(i, i) for i in batch)]
    axes += [Axis(row, row, Role.TILE), Axis(column, rank, Role.STREAM)]
    b = Builder(c, ranks, axes, available, rows - {row})
    here: dict[str, Expr] = {i: Position(of.get(i, i)) for i in (*d.indices, *e.indices)}
    here |= {g: substitute(x, here) for g, x in given.items()}
    here |= {s.row: Position(row), s.column: Position(column)}
    for i in d.indices:
        if ranks.kind(i) is Kind.FEATURE:
            here[i] = Position(b.full_axis(of.get(i, i), frozenset()))
    body = substitute(e.body, here)
    where = None if kept is None else substitute(kept, here)
    b.read_buffers[s.scale] = None
    scale = b.names.fresh("scale")
    b.prologue.append(t.Load(scale, (), DType.FLOAT, s.scale, ()))
    b.domains.append(where)
    x = _product(b, factors_of(b, body, frozenset({row})), where, row, tensor)
    value = b.value(x, tensor + "_t")
    subs = tuple(
        here[i] if isinstance(here[i], Position) else b.bind(b.eval(here[i]), "at").expr
        for i in d.indices
    )
    b.sweep.append(t.Scatter(s.fixed, subs, value, scale, b.order(x.dims)))
    return [
        t.HostScale(s.scale, s.amax, tuple(of.get(i, i) for i in e.indices)),
        finish_kernel(b, name, [], (s.fixed,), (), "forward"),
    ]


def _product(b: Builder, parts: list[Expr], where: Expr | None, row: str, name: str) -> X:
    """The sum over the tile's rows, for each column of the stream's tile."""
    assert b.stream is not None
    features = frozenset(a.name for a in b.axes.values() if a.role is Role.FULL)
    fixed = [f for f in parts if not b.dims_of(f) & features]
    moving = [f for f in parts if b.dims_of(f) & features]
    x = b.eval(product_of(fixed), False, name)
    v = masked(b, x, where, 0.0, name + "_s", always=True)
    weights = X(Val(v), b.dims_of_value(v), frozenset({STREAMED}))
    if not moving:
        return fold(b, Reduction.SUM, v, weights, row, name + "_tile")
    y = b.eval(product_of(moving), False, name)
    if len(y.dims) != 2 or row not in y.dims or weights.dims != {row, b.stream}:
        raise Refused("A0404", f"the terms of `{name}` span three ranks")
    w = pad(b, b.value(y, name), y, row, None, 0.0, False)
    out = b.names.fresh(name)
    dims = b.order((weights.dims | y.dims) - {row})
    left, right = (v, w) if dims[0] == b.stream else (w, v)
    b.sweep.append(t.Dot(out, dims, left, right, row, dot_like(b, moving)))
    return X(Val(out), frozenset(dims), frozenset({STREAMED}))
