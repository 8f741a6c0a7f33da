"""Gradients of gathered reads (`table[h, i - j + …]`, `table[h, bucket[…]]`): sums into places that data decides.

    dtable[h,m] = sum[b,i,j : sub(i,j) == m](x)

One kernel walks (i, j) and adds each term to its place in a 64-bit fixed-point buffer: integer addition does not depend
on the order, so the result is the same at every repeat. The scale comes from the largest term, which a kernel by rows
has found before (`amax`), so nothing overflows and 2**-40 of the largest term is the resolution or better.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.walk import free, substitute
from attndsl.schedule.normal import conjunction, conjuncts, inline, is_scatter, scatter_target

if TYPE_CHECKING:
    from attndsl.schedule import tile as t


@dataclass(frozen=True, slots=True)
class Scattered:
    """One scattered gradient: its accumulator, its scale, and the row tensors that bound its terms."""

    fixed: str
    scale: str
    amax: str
    row: str
    column: str | None
    needs: tuple[str, ...]


def split_scatters(
    c: Cascade, ranks: Ranks, order: tuple[str, ...]
) -> tuple[Cascade, dict[str, Scattered]]:
    """Add, for every scattered sum, the definition of its largest term by row."""
    body: list[Define] = []
    out: dict[str, Scattered] = {}
    for d in c.body:
        e = d.expr
        if isinstance(e, Reduce) and is_scatter(e, ranks):
            extra, s = _bound(d, e, ranks, order)
            body.append(extra)
            out[d.tensor] = s
        body.append(d)
    return dataclasses.replace(c, body=tuple(body)), out


def _bound(d: Define, e: Reduce, ranks: Ranks, order: tuple[str, ...]) -> tuple[Define, Scattered]:
    found = scatter_target(e, ranks)
    assert found is not None
    _, _, rest = found
    key = {r: k for k, r in enumerate(order)}
    seq = sorted(ranks.sequence(e.indices), key=lambda i: key.get(ranks.of.get(i, i), len(key)))
    row, column = seq[0], (seq[1] if len(seq) > 1 else None)
    batch = [i for i in (*e.indices, *d.indices) if ranks.kind(i) is Kind.BATCH]
    features = tuple(
        i for i in (*d.indices, *e.indices) if ranks.kind(i) is Kind.FEATURE and i in free(e.body)
    )
    fixed = [f for f in _factors(e.body) if not free(f) & set(features)]
    moving = [f for f in _factors(e.body) if free(f) & set(features)]
    size: Expr = Call("abs", (_product(fixed),)) if fixed else Const(1.0)
    if column is not None:
        size = Reduce(Reduction.MAX, (column,), Call("max", (size, Const(0.0))), rest)
    for f in moving:
        names = tuple(i for i in features if i in free(f))
        over = Reduce(Reduction.MAX, names, Call("abs", (f,)))
        if column is not None and column in free(f):
            over = Reduce(Reduction.MAX, (column,), over)
        size = Binary("*", size, over)
    kept = tuple(dict.fromkeys([*batch, row]))
    name = f"{d.tensor}.amax"
    s = Scattered(f"{d.tensor}.fixed", f"{d.tensor}.scale", name, row, column, (name,))
    return Define(name, kept, size, span=d.span), s


def _factors(e: Expr) -> list[Expr]:
    match e:
        case Binary("*", a, b):
            return _factors(a) + _factors(b)
        case _:
            return [e]


def _product(factors: list[Expr]) -> Expr:
    out = factors[0]
    for f in factors[1:]:
        out = Binary("*", out, f)
    return out


def build_scatter(
    c: Cascade,
    ranks: Ranks,
    tensor: str,
    s: Scattered,
    available: frozenset[str],
    rows: frozenset[str],
    name: str,
) -> list[t.TileProgram | t.HostScale]:
    """The scale, and the kernel that walks (row, column) and adds."""
    from attndsl.schedule import tile as t
    from attndsl.schedule.builder import Builder
    from attndsl.schedule.plan import finish_kernel
    from attndsl.schedule.tile import Axis, Role

    d = c.define(tensor)
    e = d.expr
    assert isinstance(e, Reduce)
    found = scatter_target(e, ranks)
    assert found is not None
    sub, target, rest = found
    of = ranks.of
    grid = tuple(
        dict.fromkeys(of.get(i, i) for i in (*d.indices, *e.indices) if ranks.kind(i) is Kind.BATCH)
    )
    row = of.get(s.row, s.row)
    axes = [Axis(r, r, Role.GRID) for r in grid] + [Axis(row, row, Role.TILE)]
    column = None
    if s.column is not None:
        rank = of.get(s.column, s.column)
        column = rank if rank != row else rank + "_s"
        axes.append(Axis(column, rank, Role.STREAM))
    b = Builder(c, ranks, axes, available, rows - {row})
    here: dict[str, Expr] = {i: Position(of.get(i, i)) for i in (*d.indices, *e.indices)}
    here[s.row] = Position(row)
    if s.column is not None and column is not None:
        here[s.column] = Position(column)
    here.pop(target.name, None)
    body, where = substitute(e.body, here), None if rest is None else substitute(rest, here)
    place = substitute(sub, here)
    where = conjunction(conjuncts(where))
    b.read_buffers[s.scale] = None
    scale = b.names.fresh("scale")
    b.prologue.append(t.Load(scale, (), t.DType.FLOAT, s.scale, ()))
    b.domains.append(where)
    features = [i for i in d.indices if ranks.kind(i) is Kind.FEATURE]
    if len(features) > 1:
        from attndsl.schedule.builder import Refused

        raise Refused(
            "A0408", f"the gradient of a table with {len(features)} feature ranks", d.span
        )
    points: dict[str, str] = {}
    inner: list[object] = []
    if features:
        axis = b.full_axis(of.get(features[0], features[0]), frozenset())
        fixed = [f for f in _factors(body) if axis not in free(f)]
        if fixed:
            b.eval(_product(fixed), False, tensor)
        point = b.names.fresh(f"{axis}_pt")
        b.axes[point] = Axis(point, b.axes[axis].rank, Role.POINT)
        points[features[0]] = point
        here[features[0]] = Position(point)
        body = substitute(body, {axis: Position(point)})
        guard = _guard(b, where)
        at = b.clamp(b.eval(place), _rank(c, ranks, tensor, target), place)
        b.points.append((point, inner))  # type: ignore[arg-type]
    else:
        guard = _guard(b, where)
        at = b.clamp(b.eval(place), _rank(c, ranks, tensor, target), place)
    x = b.eval(body, False, tensor)
    spans = x.dims | at.dims
    value = b.value(x, tensor + "_t")
    subs: list[Expr] = []
    for i in d.indices:
        if i == target.name:
            subs.append(at.expr)
        elif i in points:
            subs.append(Position(points[i]))
        else:
            subs.append(here[i])
    stmt = t.Scatter(s.fixed, tuple(subs), value, scale, b.order(spans), guard)
    home = inner if features else (b.sweep if b.stream is not None else b.epilogue)
    home.append(stmt)  # type: ignore[arg-type]
    if features:
        b.points.pop()
        loop = t.For(next(iter(points.values())), tuple(inner))  # type: ignore[arg-type]
        (b.sweep if b.stream is not None else b.epilogue).append(loop)  # type: ignore[union-attr]
    count = tuple(of.get(i, i) for i in e.indices)
    return [
        t.HostScale(s.scale, s.amax, count),
        finish_kernel(b, name, [], (s.fixed,), (), "forward"),
    ]


def _rank(c: Cascade, ranks: Ranks, tensor: str, target: Position) -> str:
    return ranks.of.get(target.name, target.name)


def _guard(b: object, where: Expr | None) -> str | None:
    from attndsl.cascade.nodes import Const as _Const
    from attndsl.schedule.builder import Builder

    assert isinstance(b, Builder)
    if b.stream is not None:
        made = b.mask(where).expr
    elif where is not None:
        made = b.bind(b.eval(where, False, "mask"), "mask").expr
    else:
        return None
    assert not isinstance(made, _Const)
    return made.name  # type: ignore[union-attr]


_ = (Index, Read, inline)
