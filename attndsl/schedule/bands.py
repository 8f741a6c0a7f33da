"""Rows that stand along the diagonals of a tile of pairs: `Q[i,e] * R[i - j, e]` as a product on the matrix units.

The pairs of a tile of I and J positions meet I + J - 1 rows of the table, which lie side by side: a *band*. One product
with the band holds all that the tile needs, and what belongs to a pair is found in it on the pair's diagonal.

    a score      sum[e](Q[i,e] * R[i - j, e])      ->  G at w = i - j - first, where G[i,w] = dot[e](Q, R[first + w])
    a sum        O[i,e] += P[i,j] * R[i - j, e]    ->  O[i,e] += dot[w](B, R[first + w])
    a gradient   dR[i - j, e] += P[i,j] * Q[i,e]   ->  dR[first + w, e] += dot[i](B, Q)
                                                       where B[i,w] is P at j = i - first - w, and 0 where there is none

requires: the row is the sum of the two positions, each with the factor 1 or -1, and of what a tile knows as a whole
source:   Huang et al. 2018 (arXiv:1809.04281), section 3.4.1, where a whole matrix is skewed instead of a tile
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
)
from attndsl.schedule import tile as t
from attndsl.schedule.affine import affine
from attndsl.schedule.forms import positions
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.memory import clamp
from attndsl.schedule.tile import Axis, Role, Val
from attndsl.schedule.values import STREAMED, X


@dataclass(frozen=True, slots=True)
class Band:
    """The rows that a tile meets: the factor of each position, and the first row, which is the same for all pairs."""

    signs: dict[str, int]
    first: Expr

    def column(self) -> Expr:
        """Where the row of a pair stands in the band."""
        out: Expr | None = None
        for a, k in self.signs.items():
            here: Expr = Binary("-", Position(a), t.Origin(a))
            if k < 0:
                here = Binary("-", Binary("-", t.Block(a), Const(1)), here)
            out = here if out is None else Binary("+", out, here)
        assert out is not None
        return out

    def point(self, of: str, band: str) -> Expr:
        """Where the point of one axis stands in its tile that meets a row of the band at a point of the other."""
        out: Expr = Position(band)
        for a, k in self.signs.items():
            if a != of:
                here: Expr = Binary("-", Position(a), t.Origin(a))
                out = Binary("-", out, here) if k > 0 else Binary("+", out, here)
            if k < 0 and a != of:
                out = Binary("-", out, Binary("-", t.Block(a), Const(1)))
        if self.signs[of] < 0:
            out = Binary("-", Binary("-", t.Block(of), Const(1)), out)
        return out


def band_at(kernel: Kernel, row: Expr) -> Band | None:
    """The band of a row that pairs of the tile and the stream find along their diagonals; None where they do not."""
    tiles = [a.name for a in kernel.axes.values() if a.role is Role.TILE]
    if not kernel.meets_bands or kernel.stream is None or len(tiles) != 1 or kernel.points:
        return None
    sides = (tiles[0], kernel.stream)
    parts = affine(row, lambda e: not isinstance(e, Position) and not kernel.dims_of(e))
    if parts is None:
        return None
    slopes, first = parts
    if any(abs(slopes.get(a, 0)) != 1 for a in sides):
        return None
    for a, k in slopes.items():
        at: Expr = t.Origin(a) if a in sides else Position(a)
        if a not in sides and kernel.dims_of(at):
            return None
        if k < 0 and a in sides:
            at = Binary("+", at, Binary("-", t.Block(a), Const(1)))
        at = at if abs(k) == 1 else Binary("*", Const(abs(k)), at)
        first = Binary("+" if k > 0 else "-", first, at)
    return Band({a: slopes[a] for a in sides}, first)


def band_axis(kernel: Kernel, rank: str) -> str:
    """The axis of the rows that a tile meets; there is one, since it has as many for every table."""
    found = [a.name for a in kernel.axes.values() if a.role is Role.BAND]
    if not found:
        found = [kernel.names.fresh("band")]
        kernel.axes[found[0]] = Axis(found[0], rank, Role.BAND)
    return found[0]


def _rows(kernel: Kernel, band: Band, rank: str) -> X:
    axis = band_axis(kernel, rank)
    first = kernel.bind(kernel.eval(band.first), "first")
    row = Binary("+", first.expr, Position(axis))
    return X(row, frozenset({axis}), first.on, DType.INT)


def row_in_band(kernel: Kernel, band: Band, rank: str) -> str:
    """Which rows of a band the table has."""
    x = _rows(kernel, band, rank)
    low = Compare(">=", x.expr, Const(0))
    high = Compare("<", x.expr, Extent(kernel.ranks.of.get(rank, rank)))
    return kernel.value(X(Logic("and", (low, high)), x.dims, x.on, DType.BOOL), "in_band")


def rows_of(kernel: Kernel, band: Band, rank: str) -> X:
    """The rows of a band, counted along the rank of the table; rows that no pair of the domain meets may be any."""
    at = _rows(kernel, band, rank)
    return clamp(kernel, at, rank, Position(next(iter(band.signs))))


@dataclass(frozen=True, slots=True)
class Table:
    """A factor that is a row of a table along the diagonals: its read, its feature axis, and its band."""

    read: Read
    feature: str
    row: int
    band: Band


def table_of(kernel: Kernel, e: Expr) -> Table | None:
    """What a factor of three ranks is, where it is a row of a tensor in memory."""
    match e:
        case Read(tensor=name) if name in kernel.inputs or name in kernel.available:
            pass
        case _:
            return None
    subs = [Position(s.name) if isinstance(s, Index) else s for s in e.subs]
    rows = [k for k, s in enumerate(subs) if len(kernel.dims_of(s)) == 2]
    lone = [s.name for s in subs if isinstance(s, Position) and kernel.dims_of(s)]
    if len(rows) != 1 or len(lone) != 1 or kernel.axes[lone[0]].role is not Role.FULL:
        return None
    if any(kernel.dims_of(s) - {*lone} for k, s in enumerate(subs) if k != rows[0]):
        return None
    band = band_at(kernel, positions(subs[rows[0]]))
    if band is None or kernel.types.tensors[e.tensor] is not DType.FLOAT:
        return None
    return Table(e, lone[0], rows[0], band)


def load_band(kernel: Kernel, table: Table) -> str:
    """The band of a table, as a tile of rows."""
    read = table.read
    decl = kernel.inputs.get(read.tensor)
    ranks = decl.ranks if decl is not None else kernel.defs[read.tensor].indices
    of = [kernel.ranks.of.get(r, r) for r in ranks]
    at = rows_of(kernel, table.band, of[table.row])
    key = ("band", read.tensor, at.expr, tuple(map(positions, read.subs)))
    if key not in kernel.memo:
        kernel.read_buffers[read.tensor] = None
        subs: list[Expr] = []
        on = at.on
        for k, s in enumerate(read.subs):
            s = Position(s.name) if isinstance(s, Index) else s
            x = at if k == table.row else kernel.eval(s)
            if k != table.row and not isinstance(s, Position):
                x = clamp(kernel, x, of[k], s)
            subs.append(x.expr)
            on |= x.on
        dims = at.dims | {table.feature}
        name = kernel.names.fresh(f"{read.tensor}_band")
        dtype = kernel.types.tensors[read.tensor]
        stmt = t.Load(
            name,
            kernel.order(dims),
            dtype,
            read.tensor,
            tuple(subs),
            (table.feature,),
            span=read.span,
        )
        kernel.place(on).append(stmt)
        kernel.memo[key] = kernel.made[name] = X(Val(name), dims, on)
    made = kernel.memo[key].expr
    assert isinstance(made, Val)
    return made.name


def split_table(
    kernel: Kernel, factors: Sequence[Expr]
) -> tuple[Table, list[Expr], frozenset[str]] | None:
    """The one factor of three ranks, the others, and what they span; None where it is no row of a table."""
    wide = [f for f in factors if len(kernel.dims_of(f)) > 2]
    if len(wide) != 1:
        return None
    table = table_of(kernel, wide[0])
    if table is None:
        return None
    others = [f for f in factors if f is not wide[0]]
    return table, others, frozenset().union(*map(kernel.dims_of, others))


def along_band(kernel: Kernel, band: Band, weight: str, of: str, name: str) -> str:
    """Weights of pairs, with the rows of the band for the points of one axis: 0 where a row meets none of them."""
    over = band_axis(kernel, of)
    key = ("along", weight, tuple(band.signs.items()), of)
    if key not in kernel.memo:
        dims = frozenset(band.signs) - {of} | {over}
        out = kernel.names.fresh(f"{name}_along")
        pick = t.Pick(out, kernel.order(dims), weight, of, band.point(of, over), False)
        kernel.sweep.append(pick)
        kernel.memo[key] = X(Val(out), dims, frozenset({STREAMED}))
    made = kernel.memo[key].expr
    assert isinstance(made, Val)
    return made.name
