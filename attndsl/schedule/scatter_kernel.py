"""The kernel of a scattered gradient: it walks (row, column) and adds each term to its place."""

from __future__ import annotations

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import Cascade, Define, DType, Expr, Position, Reduce
from attndsl.cascade.walk import free, substitute
from attndsl.internal import InternalError
from attndsl.schedule import tile as t
from attndsl.schedule.banded import band_scatter
from attndsl.schedule.builder import Builder
from attndsl.schedule.forms import factors, product_of, scatter_target
from attndsl.schedule.kernels import finish_kernel
from attndsl.schedule.masks import mask_of
from attndsl.schedule.memory import clamp
from attndsl.schedule.products import factors_of
from attndsl.schedule.scatter import Scattered
from attndsl.schedule.tile import Axis, Role, Val
from attndsl.schedule.values import SweepStmt, X


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
    d = c.define(tensor)
    e = d.expr
    assert isinstance(e, Reduce)
    found = scatter_target(e, ranks)
    assert found is not None
    places, rest = found
    of = ranks.of
    axes, here = _axes(d, e, ranks, s)
    b = Builder(c, ranks, axes, available, rows - {of.get(s.row, s.row)})
    for _, target in places:
        here.pop(target, None)
    body = substitute(e.body, here)
    where = conjunction(conjuncts(None if rest is None else substitute(rest, here)))
    b.read_buffers[s.scale] = None
    scale = b.names.fresh("scale")
    b.prologue.append(t.Load(scale, (), DType.FLOAT, s.scale, ()))
    b.domains.append(where)
    features = _features(d, ranks, {target for _, target in places})
    stmt = None
    if len(places) == 1 and len(features) == 1:
        stmt = _by_bands(b, d, s, body, where, here, places[0], features[0], scale)
    if stmt is not None:
        b.sweep.append(stmt)
    else:
        _by_points(b, d, s, body, where, here, places, features, scale)
    count = tuple(of.get(i, i) for i in e.indices)
    return [
        t.HostScale(s.scale, s.amax, count),
        finish_kernel(b, name, [], (s.fixed,), (), "forward"),
    ]


def _features(d: Define, ranks: Ranks, targets: set[str]) -> list[str]:
    """The indices of a table's entry."""
    return [i for i in d.indices if ranks.kind(i) is Kind.FEATURE and i not in targets]


def _by_bands(
    b: Builder,
    d: Define,
    s: Scattered,
    body: Expr,
    where: Expr | None,
    here: dict[str, Expr],
    place: tuple[Expr, str],
    feature: str,
    scale: str,
) -> t.Scatter | None:
    """The rows that a tile adds to, where they are a band."""
    sub, target = place
    rank = b.ranks.of.get(target, target)
    axis = b.full_axis(b.ranks.of.get(feature, feature), frozenset())
    if b.stream is None:
        return None
    parts = factors_of(b, body, frozenset({axis}))
    found = band_scatter(b, parts, substitute(sub, here), rank, axis, where, d.tensor)
    if found is None:
        return None
    at, value, inside = found
    subs = tuple(at.expr if i == target else here[i] for i in d.indices)
    return t.Scatter(s.fixed, subs, value, scale, (axis,), inside)


def _by_points(
    b: Builder,
    d: Define,
    s: Scattered,
    body: Expr,
    where: Expr | None,
    here: dict[str, Expr],
    places: tuple[tuple[Expr, str], ...],
    features: list[str],
    scale: str,
) -> None:
    """Add every term to its place; those of a vector of features point by point."""
    of = b.ranks.of
    inner: list[t.Stmt] = []
    point: str | None = None
    if features:
        axis = b.full_axis(of.get(features[0], features[0]), frozenset())
        fixed = [f for f in factors(body) if axis not in free(f)]
        if fixed:  # outside the loop over points
            b.eval(product_of(fixed), False, d.tensor)
        point = b.names.fresh(f"{axis}_pt")
        b.axes[point] = Axis(point, b.axes[axis].rank, Role.POINT)
        here[features[0]] = Position(point)
        body = substitute(body, {axis: Position(point)})
    guard = _guard(b, where)
    at: dict[str, X] = {}
    for sub, target in places:
        place = substitute(sub, here)
        at[target] = clamp(b, b.eval(place), of.get(target, target), place)
    if point is not None:
        b.points.append((point, inner))
    x = b.eval(body, False, d.tensor)
    value = b.value(x, d.tensor + "_t")
    subs = tuple(at[i].expr if i in at else here[i] for i in d.indices)
    spans = x.dims.union(*(y.dims for y in at.values()))
    stmt = t.Scatter(s.fixed, subs, value, scale, b.order(spans), guard)
    home: list[t.Stmt] | list[SweepStmt] = b.epilogue if b.stream is None else b.sweep
    if point is None:
        home.append(stmt)
    else:
        inner.append(stmt)
        b.points.pop()
        home.append(t.For(point, tuple(inner)))


def _axes(d: Define, e: Reduce, ranks: Ranks, s: Scattered) -> tuple[list[Axis], dict[str, Expr]]:
    """The axes of the walk, and where the sum's indices stand on them."""
    of = ranks.of
    both = (*d.indices, *e.indices)
    here: dict[str, Expr] = {i: Position(of.get(i, i)) for i in both}
    grid = dict.fromkeys(of.get(i, i) for i in both if ranks.kind(i) is Kind.BATCH)
    row = of.get(s.row, s.row)
    here[s.row] = Position(row)
    axes = [Axis(r, r, Role.GRID) for r in grid] + [Axis(row, row, Role.TILE)]
    if s.column is not None:
        rank = of.get(s.column, s.column)
        column = rank if rank != row else rank + "_s"
        here[s.column] = Position(column)
        axes.append(Axis(column, rank, Role.STREAM))
    return axes, here


def _guard(b: Builder, where: Expr | None) -> str | None:
    """The value that says whether a term is inside its domain."""
    if b.stream is not None:
        made = mask_of(b, where).expr
    elif where is not None:
        made = b.bind(b.eval(where, False, "mask"), "mask").expr
    else:
        return None
    if not isinstance(made, Val):
        raise InternalError(f"the condition of a scatter is {type(made).__name__}")
    return made.name
