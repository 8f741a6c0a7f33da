"""One kernel in the making: its axes, its named values, and where each statement belongs.

A value is placed by what it depends on: the program's own tile (prologue), a loop, the stream (sweep), the final state
(epilogue), a point loop. That is all the hoisting there is. Equal expressions become one value.

What is evaluated how is elsewhere (`builder`); `eval` and `read` are the two knots of that recursion.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from attndsl.analysis.following import Following
from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.nodes import (
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Param,
    Position,
    Read,
)
from attndsl.cascade.signs import assumed_positive
from attndsl.cascade.types import Types
from attndsl.cascade.walk import free, replaced, with_children
from attndsl.internal import InternalError
from attndsl.schedule import tile as t
from attndsl.schedule.cancelled import cancelled
from attndsl.schedule.forms import inline
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.tile import Axis, Role, Val
from attndsl.schedule.values import (
    FINAL,
    ROUND,
    RUNNING,
    STREAMED,
    MaskStmt,
    Names,
    State,
    SweepStmt,
    X,
)
from attndsl.source import Span

# The roles whose axes a value may span.
_SPANS = (Role.TILE, Role.BAND, Role.STREAM, Role.FULL)
_ORDER = (
    Role.GRID,
    Role.LOOP,
    Role.TILE,
    Role.BAND,
    Role.STREAM,
    Role.FULL,
    Role.POINT,
    Role.WALK,
)


class Kernel(ABC):
    """The state that the builders of one kernel share.

    `axes` are fixed beforehand, but for the FULL and POINT axes found on the way. `available` names body tensors that
    earlier kernels left in memory; `rows` the sequence ranks for which a kernel keeps rows: row statistics are computed
    there. `may_root`: scores may be masked once, at their root, instead of term by term. `search`: the root that this
    kernel finds, in rounds.
    """

    needs_at_points = False
    """Whether a sum that is read point by point is made by an earlier kernel; no other can be."""

    multiplies = True
    """Whether terms of three ranks are products on the matrix units; else they are taken point by point."""

    meets_bands = True
    """Whether rows that stand along diagonals of the tile and the stream are multiplied as a band of them."""

    shares_sums = True
    """Whether sums of the same terms over the same domain are one."""

    pads_sums = True
    """Whether what a sum must not see is made 0 beforehand; where not, the sum leaves a FULL axis' padding out."""

    factors_on_weights = True
    """Whether factors of rows multiply what is computed rather than a loaded tile."""

    def __init__(
        self,
        cascade: Cascade,
        ranks: Ranks,
        axes: list[Axis],
        available: frozenset[str],
        rows: frozenset[str],
        may_root: bool = True,
        search: str | None = None,
    ) -> None:
        self.cascade = cascade
        self.ranks = ranks
        self.axes = {a.name: a for a in axes}
        self.available = available
        self.rows = rows
        self.may_root = may_root
        self.search = search
        self.refines = (
            False  # a search goes on from a guess in memory, and finds its bracket itself
        )
        # Inside a function with steps: its argument is computed as it is written.
        self.steps = 0
        # The reductions that the loops and the stream were made for.
        self.walked: frozenset[str] = frozenset()
        self.defs: dict[str, Define] = {d.tensor: d for d in cascade.body}
        self.inputs = {i.name: i for i in cascade.inputs}
        self.stream = next((a.name for a in axes if a.role is Role.STREAM), None)
        self.following = Following(cascade, ranks, available)
        self.reduces = self.following.reduced
        self.like = self._storage_like()
        # Names of the launcher's, not to be taken.
        self.names = Names({"tl": 1, "pid": 1})
        self.memo: dict[tuple[object, ...], X] = {}
        self.made: dict[str, X] = {}  # computed values, by name
        self.known: dict[tuple[str, str, str], bool] = {}
        # Conditions `h // G == g` that give loops their bounds, whether they may, and what is known of the reductions:
        # that one has none of them, and that not all have the same (`loops.solve_loops`).
        self.groups: dict[str, Compare] = {}
        self.grouped = True
        self.ungrouped = False
        self.mixed = False
        # Subscripts that the loops' bounds make equal to a grid index.
        self.equal: dict[Expr, Expr] = {}
        # Statements, by place.
        self.prologue: list[t.Stmt] = []
        self.loop_body: dict[str, list[t.Stmt]] = {a.name: [] for a in axes if a.role is Role.LOOP}
        self.sweep: list[SweepStmt] = []
        self.commits: list[t.Stmt] = []
        self.epilogue: list[t.Stmt] = []
        self.round: list[t.Stmt] = []  # before each round of a search
        self.rounds: t.Rounds | None = None
        self.guess: X | None = None
        # Which way the sweep must run: down, up, or no matter.
        self.descends: bool | None = None
        self.points: list[tuple[str, list[t.Stmt]]] = []
        self.guard: str | None = None  # of loops over points
        # States, and what they stand on.
        self.states: dict[tuple[object, ...], State] = {}
        self.sums: dict[tuple[object, ...], State] = {}  # sums among them, by their terms
        self.standing: dict[str, str] = {}  # values that stand for states in `before_step`
        self.root: tuple[str, tuple[Expr, ...], Expr | None] | None = None
        self.rooted: set[bool] = set()
        # Of each state and streamed store, for the stream's ranges.
        self.domains: list[Expr | None] = []
        # What the kernel is passed.
        self.read_buffers: dict[str, None] = {}
        self.params: dict[str, None] = {}

    @cached_property
    def floats(self) -> frozenset[str]:
        """Parameters and tensors that hold no integers."""
        types = Types(self.cascade)
        kinds = {**types.params, **types.tensors}
        return frozenset(n for n, kind in kinds.items() if kind is DType.FLOAT)

    @cached_property
    def positive(self) -> frozenset[str]:
        """Inputs that are assumed to be larger than 0."""
        return assumed_positive(self.cascade)

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """While the argument of a function with steps is evaluated: a rounding more would put it on the other side."""
        self.steps += 1
        try:
            yield
        finally:
            self.steps -= 1

    @contextmanager
    def guarded(self, cond: X) -> Iterator[None]:
        """While loops over points are built whose results are used only where a condition of the tile holds."""
        self.guard = self.value(cond, "guard")
        try:
            yield
        finally:
            self.guard = None

    @abstractmethod
    def eval(self, e: Expr, final: bool = False, name: str = "v") -> X:
        """The value of an expression whose indices are axes of this kernel; states' last values if `final`."""

    @abstractmethod
    def read(self, e: Read, final: bool) -> X:
        """The value of a tensor at subscripts over the kernel's axes."""

    def without_itself(self, d: Define, body: Expr, where: Expr | None) -> Expr | None:
        """The terms of a sum that do not read the target that they make: all of them, but for chunks."""
        return body

    def sum_made(self, state: State, d: Define, body: Expr, where: Expr | None) -> None:  # noqa: B027
        """What else a running sum takes, once its terms of the sweep are built: nothing, but for chunks."""

    def running_extreme(self, state: State, d: Define, body: Expr, where: Expr | None) -> bool:
        """Whether a maximum of what came before each row was taken by a scan: never, but for chunks."""
        return False

    def product_apart(
        self, axis: str, factors: list[Expr], where: Expr | None, final: bool, name: str
    ) -> X | None:
        """A sum over a feature axis of what knows rows, columns and the axis at once, as a product; None if it is none.

        There is none, but for chunks.
        """
        return None

    def sum_apart(self, state: State, d: Define, factors: list[Expr], where: Expr | None) -> bool:
        """Whether such a sum over the stream was taken by a product."""
        return False

    # --- facts of the cascade ---------------------------------------------------------------------------------------

    @cached_property
    def types(self) -> Types:
        """Kinds of values."""
        return Types(self.cascade)

    def _storage_like(self) -> str:
        """The input whose storage type products take where their factors do not say."""
        floats = [i for i in self.cascade.inputs if i.dtype is DType.FLOAT]
        data = [i for i in floats if i.ranks and self.ranks.kind(i.ranks[-1]) is Kind.FEATURE]
        return (data or floats or list(self.cascade.inputs))[0].name

    # --- axes --------------------------------------------------------------------------------------------------------

    def sorted_axes(self) -> list[str]:
        """Names of all axes, in the order of the program: by role, features by name."""

        def key(a: str) -> tuple[int, str]:
            role = self.axes[a].role
            return _ORDER.index(role), a if role is Role.FULL else ""

        return sorted(self.axes, key=key)

    def order(self, dims: frozenset[str]) -> tuple[str, ...]:
        """Axes in the order of the program."""
        return tuple(a for a in self.sorted_axes() if a in dims)

    def position(self, axis: str) -> X:
        """Where the kernel stands on an axis."""
        role = self.axes[axis].role
        on: frozenset[str] = frozenset()
        if role is Role.STREAM:
            on = frozenset({STREAMED})
        elif role in (Role.LOOP, Role.POINT, Role.WALK):
            on = frozenset({axis})
        dims = frozenset({axis}) if role in _SPANS else frozenset()
        return X(Position(axis), dims, on, DType.INT)

    def full_axis(self, index: str, taken: frozenset[str]) -> str:
        """The FULL axis for an index, another than those in `taken`."""
        rank = self.ranks.of.get(index, index)
        name = rank
        while name in taken:
            name += "_"
        if name not in self.axes:
            self.axes[name] = Axis(name, rank, Role.FULL)
        return name

    def kind(self, axis: str) -> Kind:
        """The kind of an axis or an index."""
        return self.ranks.kind(self.axes[axis].rank if axis in self.axes else axis)

    def dims_of(self, e: Expr) -> frozenset[str]:
        """The tile axes an expression would span."""
        return frozenset(i for i in free(e) if i in self.axes and self.axes[i].role in _SPANS)

    def on_of(self, e: Expr | None) -> frozenset[str]:
        """What the positions in an expression depend on."""
        if e is None:
            return frozenset()
        return frozenset().union(*(self.position(i).on for i in free(e)))

    def carries_stream(self, subs: tuple[Expr, ...]) -> bool:
        """Whether a read moves along the stream."""
        return self.stream is not None and any(self.stream in free(s) for s in subs)

    def inlined(self, d: Define, subs: tuple[Expr, ...]) -> Expr:
        """The right side of a definition here, with subscripts that are known to be equal made the same.

        Raises: Refused A0401 for a recurrence, whose right side reads the tensor itself.
        """
        if d.init is not None:
            raise Refused("A0401", f"`{d.tensor}` is a recurrence", d.span)
        e = inline(d, subs)
        for old, new in self.equal.items():
            e = replaced(e, old, new)
        if any(not isinstance(s, Position | Index) for s in subs):
            e = cancelled(e)
        return e

    # --- placement ---------------------------------------------------------------------------------------------------

    def place(self, on: frozenset[str]) -> list[t.Stmt] | list[SweepStmt]:
        """Where a statement with these dependences belongs."""
        for axis, body in reversed(self.points):
            if axis in on:
                return body
        if FINAL in on:
            return self.epilogue
        if STREAMED in on or RUNNING in on:
            return self.sweep
        for axis in reversed(self.loop_body):
            if axis in on:
                return self.loop_body[axis]
        if ROUND in on:
            return self.round
        return self.prologue

    def bind(self, x: X, name: str, span: Span | None = None) -> X:
        """Give an expression a name of its own, unless it is one already."""
        if isinstance(x.expr, (Val, Const, Param, Extent)) or (
            isinstance(x.expr, Position) and not x.safe
        ):
            return x
        key = ("bind", x.expr, FINAL in x.on)
        if key in self.memo:
            return self.memo[key]
        v = self.names.fresh(name)
        stmt = t.Compute(v, self.order(x.dims), x.dtype, x.expr, x.safe, span=span)
        self.place(x.on).append(stmt)
        out = X(Val(v), x.dims, x.on, x.dtype)
        self.memo[key] = self.made[v] = out
        return out

    def value(self, x: X, name: str) -> str:
        """The name of a value that holds `x`, constants included."""
        b = self.bind(x, name)
        if isinstance(b.expr, Val):
            return b.expr.name
        key = ("value", x.expr, FINAL in x.on)
        if key not in self.memo:
            v = self.names.fresh(name)
            self.place(x.on).append(t.Compute(v, self.order(x.dims), x.dtype, x.expr))
            self.memo[key] = self.made[v] = X(Val(v), x.dims, x.on, x.dtype)
        made = self.memo[key].expr
        assert isinstance(made, Val)
        return made.name

    def reference(self, a: Expr, b: Expr) -> X | None:
        """A number near both sides of a difference in an exponent, where the kernel knows one."""
        return None

    def combine(self, make: Expr, parts: list[X], dtype: DType, name: str, safe: bool = False) -> X:
        """A pointwise node over `parts`; parts that live elsewhere, or span less, are computed there first."""
        dims = frozenset().union(*(p.dims for p in parts)) if parts else frozenset()
        on = frozenset().union(*(p.on for p in parts)) if parts else frozenset()
        here = self.place(on)
        done = []
        for p in parts:
            lower = p.dims != dims or self.place(p.on) is not here
            done.append(self.bind(p, name + "_p") if lower or p.safe else p)
        return X(with_children(make, tuple(d.expr for d in done)), dims, on, dtype, safe)

    def dims_of_value(self, v: str) -> frozenset[str]:
        """What a value of the sweep spans."""
        for s in self.sweep:
            if (
                isinstance(s, (MaskStmt, t.Compute, t.Load, t.Dot, t.Fold, t.Scan, t.Pick))
                and s.name == v
            ):
                return frozenset(s.dims)
        raise InternalError(f"`{v}` is no value of the sweep")
