"""One kernel that stands at one position of a sequence after the other, and carries the states of its recurrences.

    H[t,e,f] = a[t] * H[t-1,e,f] + K[t,e] * V[t,f]

The expressions of a step are evaluated as everywhere (`builder`); what this builder adds is where states are read: at
the position before, in what is carried; at the position itself, in what the step makes of it. A state's features lie
along axes of their own, one of them in tiles of columns where no sum runs over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from attndsl.analysis.ranks import Kind, Ranks, lengths
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import free, walk
from attndsl.schedule import tile as t
from attndsl.schedule.builder import Builder
from attndsl.schedule.fetched import fetched_ahead
from attndsl.schedule.forms import factors, inline, product_of
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.points import each_point
from attndsl.schedule.products import fold
from attndsl.schedule.tile import Axis, Role, Val
from attndsl.schedule.values import CHOICE, X


class WalkBuilder(Builder):
    """A builder that walks over positions of the rank `time`; `held` has states by their distance from where it is."""

    multiplies = False
    pads_sums = False

    def __init__(self, cascade: Cascade, ranks: Ranks, axes: list[Axis], time: str) -> None:
        super().__init__(cascade, ranks, axes, frozenset(), frozenset(), may_root=False)
        self.time = time
        self.here = ""
        self.held: dict[tuple[str, int], X] = {}
        self.lengths = lengths(cascade, ranks.of)

    @contextmanager
    def walk(self, axis: str, rank: str, lo: Expr, hi: Expr, down: bool = False) -> Iterator[None]:
        """Statements for each position from `lo` to `hi`; there are about as many as `rank` has points."""
        first, end = self.value(self.eval(lo), "first"), self.value(self.eval(hi), "end")
        self.axes[axis] = Axis(axis, rank, Role.WALK)
        body: list[t.Stmt] = []
        outer = self.here
        home = self.points[-1][1] if self.points else self.prologue
        self.points.append((axis, body))
        self.here = axis
        yield
        self.here = outer
        self.points.pop()
        loop = t.For(axis, tuple(body), lo=first, hi=end, down=down)
        home.extend(fetched_ahead(loop, self.inputs, self.names))

    @contextmanager
    def point(self, index: str) -> Iterator[str]:
        """Statements for each point of a feature."""
        rank = self.ranks.of.get(index, index)
        axis = self.names.fresh(f"{rank}_pt")
        self.axes[axis] = Axis(axis, rank, Role.POINT)
        body: list[t.Stmt] = []
        home = self.turn
        self.points.append((axis, body))
        yield axis
        self.points.pop()
        home.append(t.For(axis, tuple(body)))

    @property
    def turn(self) -> list[t.Stmt]:
        """The statements of the position that is being built."""
        return self.points[-1][1]

    # --- states ------------------------------------------------------------------------------------------------------

    def features(self, d: Define) -> dict[str, str]:
        """The axis of each feature of a state."""
        out: dict[str, str] = {}
        for i in d.indices:
            if self.ranks.kind(i) is Kind.FEATURE:
                out[i] = self.full_axis(i, frozenset(out.values()))
        return out

    def dims_of_state(self, d: Define) -> tuple[str, ...]:
        return self.order(frozenset(self.features(d).values()))

    def at(self, d: Define, position: Expr) -> tuple[Expr, ...]:
        """The subscripts of a state at a position of its walk."""
        axis = time_axis(d)
        assert axis is not None
        own = self.features(d)
        return tuple(
            position if i == axis[0] else Position(own.get(i, self.ranks.of.get(i, i)))
            for i in d.indices
        )

    def declared(self, d: Define, first: X | None = None) -> str:
        """A state that is carried, with its first value."""
        name = self.names.fresh(d.tensor)
        dims = self.dims_of_state(d)
        if first is None:
            assert d.init is not None
            axis = time_axis(d)
            assert axis is not None
            start = Define(d.tensor, d.indices, d.init, span=d.span)
            first = self.eval(inline(start, self.at(d, Const(0))), False, d.tensor + "_first")
        if first.dims or not isinstance(first.expr, Const):
            first = self.bind(self.spread(first, dims), d.tensor + "_first")
        value = first.expr
        if isinstance(value, Const):
            value = Const(float(value.value))
        home = self.points[-1][1] if self.points else self.prologue
        home.append(t.Declare(name, dims, DType.FLOAT, value, span=d.span))
        return name

    def spread(self, x: X, dims: tuple[str, ...]) -> X:
        """The value at all of `dims`."""
        for a in dims:
            if a not in x.dims:
                inside = Compare(">=", Position(a), Const(0))
                parts = [X(inside, frozenset({a}), dtype=DType.BOOL), x, X(Const(0.0))]
                x = self.combine(CHOICE, parts, x.dtype, "spread")
        return x

    def hold(self, d: Define, distance: int, name: str) -> None:
        """Have a value stand for a state at a distance from here."""
        dims = frozenset(self.dims_of_state(d))
        self.held[d.tensor, distance] = X(Val(name), dims, frozenset({self.here}))

    def forget(self) -> None:
        """Nothing is known of the states where the builder goes next."""
        self.held.clear()

    def read(self, e: Read, final: bool) -> X:
        d = self.defs.get(e.tensor)
        if d is None or d.init is None:
            return super().read(e, final)
        axis = time_axis(d)
        if axis is None:
            return super().read(e, final)
        k = d.indices.index(axis[0])
        place = shifted(e.subs[k])
        if place is None or place[0] != self.here:
            raise Refused("A0401", f"`{e.tensor}` is read at another step than its own", e.span)
        x = self.state(d, place[1], e)
        moved: dict[str, str] = {}
        for i, own, sub in zip(d.indices, self.at(d, e.subs[k]), e.subs, strict=True):
            there = Position(sub.name) if isinstance(sub, Index) else sub
            if i == axis[0] or own == there:
                continue
            assert isinstance(own, Position)
            if not self.alike(own, there):
                raise Refused("A0401", f"`{e.tensor}` mixes the entries of its past", e.span)
            assert isinstance(there, Position)
            moved[own.name] = there.name
        for old, new in moved.items():
            x = self.elsewhere(x, old, new, e)
        return x

    def state(self, d: Define, distance: int, e: Read) -> X:
        """A state at a distance from here, along its own axes."""
        key = (d.tensor, distance)
        if key not in self.held:
            axis = time_axis(d)
            assert axis is not None
            # One step on is made of the state here, as that is of the one before: a gradient asks for it.
            if distance not in (0, axis[1]) or d.where is not None:
                why = f"`{d.tensor}` is read where no walk over `{self.time}` has it at hand"
                raise Refused("A0401", why, e.span)
            here: Expr = Position(self.here)
            there = here if distance == 0 else Binary("+", here, Const(distance))
            x = self.eval(inline(d, self.at(d, there)), False, d.tensor)
            x = X(x.expr, x.dims, x.on | {self.here}, x.dtype, x.safe)
            name = self.value(self.spread(x, self.dims_of_state(d)), d.tensor)
            self.hold(d, distance, name)
        return self.held[key]

    def alike(self, own: Expr, there: Expr) -> bool:
        """Whether two places are a feature's, and another of the same extent."""
        if not (isinstance(own, Position) and isinstance(there, Position)):
            return False
        if own.name not in self.axes or there.name not in self.axes:
            return False
        a, b = self.axes[own.name], self.axes[there.name]
        one = self.extent(a.rank) == self.extent(b.rank)
        return one and a.role is Role.FULL and b.role in (Role.FULL, Role.POINT)

    def extent(self, rank: str) -> str:
        """A name for the extent of a rank: those of one have the same."""
        return self.lengths.get(rank, rank)

    def elsewhere(self, x: X, old: str, new: str, e: Read) -> X:
        """A state along another axis of the same extent, or at one point of it: a sum of which one term is not 0."""
        if self.axes[new].role is Role.FULL and len(x.dims) > 1:
            raise Refused("A0401", f"`{e.tensor}` mixes the entries of its past", e.span)
        key = ("elsewhere", x.expr, old, new, self.here)
        if key not in self.memo:
            here = self.eval(Compare("==", Position(old), Position(new)))
            one = self.combine(CHOICE, [here, x, X(Const(0.0))], x.dtype, e.tensor)
            name = self.value(one, e.tensor)
            self.memo[key] = fold(self, Reduction.SUM, name, one, old, e.tensor)
        return self.memo[key]

    # --- sums of features --------------------------------------------------------------------------------------------

    def eval(self, e: Expr, final: bool = False, name: str = "v") -> X:
        if isinstance(e, Reduce) and e.op is Reduction.SUM:
            nested = self.one_by_one(e)
            if nested != e:
                return self.eval(nested, final, name)
            if len(e.indices) == 1 and (
                (self.stands_apart(e.indices[0]) and self.moves(e.body)) or self.mixes(e)
            ):
                key = ("points", e)
                if key not in self.memo:
                    (index,) = e.indices
                    self.memo[key] = each_point(self, e.op, index, e.body, e.where, final, name)
                return self.memo[key]
        return super().eval(e, final, name)

    def stands_apart(self, index: str) -> bool:
        """Whether an index is a feature that no state has."""
        rank = self.extent(self.rank_of(index))
        held = {
            self.extent(self.rank_of(i))
            for d in self.defs.values()
            if d.init is not None and time_axis(d) is not None
            for i in d.indices
        }
        return self.ranks.kind(index) is Kind.FEATURE and rank not in held

    def mixes(self, e: Reduce) -> bool:
        """Whether a sum brings the entries of a matrix together, each of a state of two features."""
        (index,) = e.indices
        beside = {self.extent(self.rank_of(i)) for i in self.spans(e)}
        return self.extent(self.rank_of(index)) in beside and self.along(e.body, index)

    def rank_of(self, i: str) -> str:
        return self.axes[i].rank if i in self.axes else self.ranks.of.get(i, i)

    def along(self, e: Expr, index: str) -> bool:
        """Whether a state of two features is read along an index."""
        for n in walk(e):
            if not isinstance(n, Read) or n.tensor not in self.defs or index not in free(n):
                continue
            d = self.defs[n.tensor]
            if d.init is None:
                if self.along(inline(d, n.subs), index):
                    return True
            elif len(self.features(d)) > 1:
                return True
        return False

    def moves(self, e: Expr) -> bool:
        """Whether an expression is made of states."""
        for n in walk(e):
            if isinstance(n, Read) and n.tensor in self.defs:
                d = self.defs[n.tensor]
                if d.init is not None or self.moves(d.expr):
                    return True
        return False

    def one_by_one(self, e: Reduce) -> Expr:
        """A sum over several features of a product, each taken where the fewest others stand beside it.

        rewrite:  sum[f,c](H[e,f] * K[c] * D[c,f])   ->   sum[f](H[e,f] * sum[c](K[c] * D[c,f]))
        """
        bound = frozenset(e.indices)
        small = all(self.ranks.kind(i) is Kind.FEATURE for i in bound)
        if len(bound) < 2 or not small or (e.where is not None and free(e.where) & bound):
            return e
        parts = factors(e.body)
        left = list(e.indices)
        while left:
            index = min(left, key=partial(self.beside, parts))
            left.remove(index)
            inside = [f for f in parts if index in free(f)]
            parts = [f for f in parts if index not in free(f)]
            parts.append(Reduce(Reduction.SUM, (index,), product_of(inside)))
        whole = product_of(parts)
        return whole if e.where is None else Select(e.where, whole, Const(0.0))

    def beside(self, parts: Sequence[Expr], index: str) -> int:
        """How many features the factors have that have this one."""
        return len(frozenset().union(*(self.spans(f) for f in parts if index in free(f))))

    def spans(self, e: Expr) -> frozenset[str]:
        """The features of an expression."""

        def small(i: str) -> bool:
            if i in self.axes:
                return self.axes[i].role in (Role.FULL, Role.TILE)
            return self.ranks.kind(i) is Kind.FEATURE

        return frozenset(i for i in free(e) if small(i))


def shifted(e: Expr) -> tuple[str, int] | None:
    """`(t, c)` for a position `t` and constants added to it, however they are nested."""
    match e:
        case Index(name) | Position(name):
            return name, 0
        case Binary("+" | "-" as op, a, Const(value=int(c))):
            inner = shifted(a)
            return None if inner is None else (inner[0], inner[1] + (c if op == "+" else -c))
        case Binary("+", Const(value=int(c)), a):
            inner = shifted(a)
            return None if inner is None else (inner[0], inner[1] + c)
        case _:
            return None
