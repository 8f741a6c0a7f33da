"""Rows that stand along the diagonals of a tile of pairs: `Q[i,e] * R[i - j, e]` as a product on the matrix units.

The pairs of a tile of I and J positions meet I + J - 1 rows of the table, which lie side by side: a *band*. One product
with the band holds all that the tile needs, and what belongs to a pair is found in it on the pair's diagonal.

    a score      sum[e](Q[i,e] * R[i - j, e])      ->  G at w = i - j - first, where G[i,w] = dot[e](Q, R[first + w])
    a sum        O[i,e] += P[i,j] * R[i - j, e]    ->  O[i,e] += dot[w](B, R[first + w])
    a gradient   dR[i - j, e] += P[i,j] * Q[i,e]   ->  dR[first + w, e] += dot[i](B, Q)
                                                       where B[i,w] is P at j = i - first - w, and 0 where there is none

requires: the row is made of one sum of the two positions, each with the factor 1 or -1, and of what a tile knows as a
          whole: `R[max(min(i - j, 8), -8) + 8, e]` is one too
source:   Huang et al. 2018 (arXiv:1809.04281), section 3.4.1, where a whole matrix is skewed instead of a tile
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
from attndsl.cascade.walk import children, substitute, with_children
from attndsl.schedule import tile as t
from attndsl.schedule.affine import affine
from attndsl.schedule.forms import positions
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.memory import clamp
from attndsl.schedule.tile import Axis, Role, Val
from attndsl.schedule.values import STREAMED, X


@dataclass(frozen=True, slots=True)
class Band:
    """The rows that a tile meets: the factor of each position on a diagonal, and the row of each point of the band."""

    signs: dict[str, int]
    row: Expr

    def column(self) -> Expr:
        """Where the row of a pair stands in the band."""
        out: Expr | None = None
        for a, k in self.signs.items():
            here: Expr = Binary("-", Position(a), t.Origin(a))
            if k < 0:
                here = Binary("-", _last(a), here)
            out = here if out is None else Binary("+", out, here)
        assert out is not None
        return out

    def point(self, of: str, band: str) -> Expr:
        """Where the point of one axis stands in its tile that meets a row of the band at a point of the other."""
        out: Expr = Position(band)
        for a, k in self.signs.items():
            if a != of:
                here: Expr = Binary("-", Position(a), t.Origin(a))
                out = Binary("-", out, here if k > 0 else Binary("-", _last(a), here))
        return out if self.signs[of] > 0 else Binary("-", _last(of), out)


def _last(axis: str) -> Expr:
    return Binary("-", t.Block(axis), Const(1))


def band_at(kernel: Kernel, row: Expr, rank: str) -> Band | None:
    """The band of a row that pairs of the tile and the stream find along their diagonals; None where they do not."""
    tiles = [a.name for a in kernel.axes.values() if a.role is Role.TILE]
    if not kernel.meets_bands or kernel.stream is None or len(tiles) != 1 or kernel.points:
        return None
    search = _Diagonals(kernel, (tiles[0], kernel.stream))
    try:
        found = search.row(row)
    except _NoBand:
        return None
    if not search.signs:
        return None
    return Band(search.signs, substitute(found, {_POINT: Position(band_axis(kernel, rank))}))


# Instead of the axis, which a kernel gets where it has a band.
_POINT = "%band"


class _NoBand(Exception):
    """An expression is not the same along diagonals."""


@dataclass(slots=True)
class _Diagonals:
    """Writes what is the same along diagonals as an expression over the points of the band.

    rewrite:  f(i - j + c)   ->   f(first + w + c), where `first` is the least `i - j` of the tile
    """

    kernel: Kernel
    sides: tuple[str, str]
    signs: dict[str, int] = field(default_factory=dict)

    def row(self, e: Expr) -> Expr:
        if not self.kernel.dims_of(e):
            return e
        parts = affine(e, lambda x: not isinstance(x, Position) and not self.kernel.dims_of(x))
        if parts is not None:
            return self.line(*parts)
        inside = children(e)
        if not inside:
            raise _NoBand
        return with_children(e, tuple(self.row(x) for x in inside))

    def line(self, slopes: dict[str, int], rest: Expr) -> Expr:
        here = {a: slopes.get(a, 0) for a in self.sides}
        if any(abs(k) != 1 for k in here.values()):
            raise _NoBand
        self.signs = self.signs or here
        first = rest
        # The other way along the same diagonals, the first point is the last.
        back = here != self.signs
        if back and any(here[a] != -k for a, k in self.signs.items()):
            raise _NoBand
        for a, k in slopes.items():
            at: Expr = Position(a)
            if a in self.sides:
                low = (k > 0) != back
                at = t.Origin(a) if low else Binary("+", t.Origin(a), _last(a))
            elif self.kernel.dims_of(at):
                raise _NoBand
            at = at if abs(k) == 1 else Binary("*", Const(abs(k)), at)
            first = at if first == Const(0) and k > 0 else Binary("+" if k > 0 else "-", first, at)
        return Binary("-" if back else "+", first, Position(_POINT))


def band_axis(kernel: Kernel, rank: str) -> str:
    """The axis of the rows that a tile meets; there is one, since it has as many for every table."""
    found = [a.name for a in kernel.axes.values() if a.role is Role.BAND]
    if not found:
        found = [kernel.names.fresh("band")]
        kernel.axes[found[0]] = Axis(found[0], kernel.ranks.of.get(rank, rank), Role.BAND)
    return found[0]


def row_in_band(kernel: Kernel, band: Band, rank: str) -> str:
    """Which rows of a band the table has."""
    x = kernel.eval(band.row)
    low = Compare(">=", x.expr, Const(0))
    high = Compare("<", x.expr, Extent(kernel.ranks.of.get(rank, rank)))
    return kernel.value(X(Logic("and", (low, high)), x.dims, x.on, DType.BOOL), "in_band")


def rows_of(kernel: Kernel, band: Band, rank: str) -> X:
    """The rows of a band, counted along the rank of the table; rows that no pair of the domain meets may be any."""
    return clamp(kernel, kernel.eval(band.row), rank, Position(next(iter(band.signs))))


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
    if kernel.types.tensors[e.tensor] is not DType.FLOAT:
        return None
    decl = kernel.inputs.get(name)
    ranks = decl.ranks if decl is not None else kernel.defs[name].indices
    band = band_at(kernel, positions(subs[rows[0]]), ranks[rows[0]])
    if band is None:
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
