"""Builds the statements of one kernel: evaluates cascade expressions into tile values, each where it belongs.

A value is placed by what it depends on: the program's own tile (prologue), a loop, the stream (sweep), the final state
(epilogue), a point loop. That is all the hoisting there is. Equal expressions become one value.

A large reduction over the stream is a *state*: declared in the prologue, updated in the sweep. Where its body reads
another running reduction through a pivot `M` (`exp(S - M)`), the body's scaling under a shift of `M` gives the
correction of what has been summed so far (analysis of `cascade.invariance`). Where there is none, the reductions do not
fuse, and the pivot must be known before: `Needs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.invariance import Kind as Shift
from attndsl.cascade.invariance import Scaling, scaling, scaling_of
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Logic,
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import children, free, substitute, walk, with_children
from attndsl.schedule import tile as t
from attndsl.schedule.normal import conjunction, conjuncts, inline
from attndsl.schedule.tile import Axis, Role, Val

LOG2E = 1.4426950408889634
TIE = 2.0**-18  # relative distance below which a recomputed score counts as the maximum it was
NEG_INF = Const(float("-inf"))
STREAMED, RUNNING, FINAL = "%stream", "%running", "%final"


class Needs(Exception):
    """A tensor must be computed by an earlier kernel; `why` is for `explain`."""

    def __init__(self, tensor: str, why: str) -> None:
        super().__init__(tensor, why)
        self.tensor = tensor
        self.why = why


class Refused(Exception):
    """No schedule of this family fits; the message is the reason, the code its kind (A04xx)."""

    def __init__(self, code: str, why: str, span: object = None) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.span = span


@dataclass(frozen=True, slots=True)
class X:
    """A pointwise expression with the axes it spans and what it depends on."""

    expr: Expr
    dims: frozenset[str] = frozenset()
    on: frozenset[str] = frozenset()
    dtype: DType = DType.FLOAT
    safe: bool = False


@dataclass(frozen=True, slots=True)
class MaskStmt:
    """`name = src where cond else fill`; an alias of `src` in an unmasked range."""

    name: str
    dims: tuple[str, ...]
    dtype: DType
    src: str
    cond: str
    fill: float | bool


@dataclass(slots=True)
class State:
    """One running reduction."""

    name: str
    reduce: Reduce
    dims: tuple[str, ...]
    new: X | None = None
    pivots: list[tuple[Read, float]] = field(default_factory=list)  # terms scale by exp(k * pivot)


@dataclass(slots=True)
class Names:
    """Fresh, readable, deterministic value names."""

    used: dict[str, int] = field(default_factory=dict)

    def fresh(self, base: str) -> str:
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in base) or "v"
        n = self.used.get(base, 0)
        self.used[base] = n + 1
        return base if n == 0 else self.fresh(f"{base}_{n}")


class Builder:
    """One kernel in the making. `axes` are fixed beforehand, but for the FULL and POINT axes found on the way."""

    def __init__(
        self,
        cascade: Cascade,
        ranks: Ranks,
        axes: list[Axis],
        available: frozenset[str],
        rows: frozenset[str],
        may_root: bool = True,
    ) -> None:
        self.cascade = cascade
        self.ranks = ranks
        self.axes = {a.name: a for a in axes}
        self.available = available  # body tensors that earlier kernels left in memory
        self.rows = (
            rows  # sequence ranks for which a kernel keeps rows: row statistics are computed there
        )
        self.defs: dict[str, Define] = {d.tensor: d for d in cascade.body}
        self.inputs = {i.name: i for i in cascade.inputs}
        self.names = Names({"tl": 1, "pid": 1})
        self.memo: dict[tuple[object, ...], X] = {}
        self.made: dict[str, X] = {}  # computed values, by name
        self.known: dict[tuple[str, str, str], bool] = {}
        self.standing: dict[str, str] = {}  # values that stand for states in `old`
        self.equal: dict[
            Expr, Expr
        ] = {}  # subscripts that the loops' bounds make equal to a grid index
        self.prologue: list[t.Stmt] = []
        self.loop_body: dict[str, list[t.Stmt]] = {a.name: [] for a in axes if a.role is Role.LOOP}
        self.sweep: list[t.Stmt | MaskStmt] = []
        self.commits: list[t.Stmt] = []
        self.epilogue: list[t.Stmt] = []
        self.points: list[tuple[str, list[t.Stmt | MaskStmt]]] = []
        self.states: dict[tuple[object, ...], State] = {}
        self.root: tuple[str, tuple[Expr, ...], Expr | None] | None = None
        self.may_root = may_root
        self.rooted: set[bool] = set()
        self.domains: list[
            Expr | None
        ] = []  # of each state and streamed store, for the stream's ranges
        self.read_buffers: dict[str, None] = {}
        self.params: dict[str, None] = {}
        self.reduces = self._reduced()
        self.shifts: dict[str, dict[str, Scaling]] = {}
        self.stream = next((a.name for a in axes if a.role is Role.STREAM), None)
        self.like = self._like()

    # --- facts of the cascade ---------------------------------------------------------------------------------------

    def _reduced(self) -> frozenset[str]:
        """Body tensors that depend on a large reduction not in memory yet."""
        out: set[str] = set()
        for d in self.cascade.body:
            if d.tensor in self.available:
                continue
            if is_large(d.expr, self.ranks) or any(
                isinstance(n, Read) and n.tensor in out for n in walk(d.expr)
            ):
                out.add(d.tensor)
        return frozenset(out)

    def _like(self) -> str:
        floats = [i for i in self.cascade.inputs if i.dtype is DType.FLOAT]
        data = [i for i in floats if i.ranks and self.ranks.kind(i.ranks[-1]) is Kind.FEATURE]
        return (data or floats or list(self.cascade.inputs))[0].name

    # --- placement --------------------------------------------------------------------------------------------------

    def place(self, on: frozenset[str]) -> list[t.Stmt | MaskStmt]:
        for axis, body in reversed(self.points):
            if axis in on:
                return body
        if FINAL in on:
            return self.epilogue  # type: ignore[return-value]
        if STREAMED in on or RUNNING in on:
            return self.sweep
        for axis in reversed(self.loop_body):
            if axis in on:
                return self.loop_body[axis]  # type: ignore[return-value]
        return self.prologue  # type: ignore[return-value]

    def order(self, dims: frozenset[str]) -> tuple[str, ...]:
        return tuple(a for a in self.sorted_axes() if a in dims)

    def sorted_axes(self) -> list[str]:
        rank = {
            Role.GRID: 0,
            Role.LOOP: 1,
            Role.TILE: 2,
            Role.STREAM: 3,
            Role.FULL: 4,
            Role.POINT: 5,
        }
        return sorted(
            self.axes,
            key=lambda a: (rank[self.axes[a].role], a if rank[self.axes[a].role] == 4 else ""),
        )

    def bind(self, x: X, name: str, span: object = None) -> X:
        """Give an expression a name of its own, unless it is one already."""
        if isinstance(x.expr, (Val, Const, Param, Extent)) or (
            isinstance(x.expr, Position) and not x.safe
        ):
            return x
        key = ("bind", x.expr, FINAL in x.on)
        if key in self.memo:
            return self.memo[key]
        v = self.names.fresh(name)
        stmt = t.Compute(v, self.order(x.dims), x.dtype, x.expr, x.safe, span=span)  # type: ignore[arg-type]
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

    # --- expressions ------------------------------------------------------------------------------------------------

    def eval(self, e: Expr, final: bool = False, name: str = "v") -> X:
        """The value of an expression whose indices are axes of this kernel."""
        match e:
            case Const(value):
                kind = (
                    DType.BOOL
                    if isinstance(value, bool)
                    else DType.INT
                    if isinstance(value, int)
                    else DType.FLOAT
                )
                return X(e, dtype=kind)
            case Param(p):
                self.params[p] = None
                return X(e, dtype=next(s.dtype for s in self.cascade.params if s.name == p))
            case Extent():
                return X(
                    dataclasses.replace(e, rank=self.ranks.of.get(e.rank, e.rank)), dtype=DType.INT
                )
            case Position(axis) | Index(axis):
                return self.position(axis)
            case Val(v):
                return self.made[v]
            case t.Block() | t.Origin():
                stream = (
                    frozenset({STREAMED}) if self.axes[e.axis].role is Role.STREAM else frozenset()
                )
                return X(e, on=stream if isinstance(e, t.Origin) else frozenset(), dtype=DType.INT)
            case Read():
                return self.read(e, final)
            case Reduce():
                return self.small_reduce(e, final, name)
            case Call("exp", (Binary("-", a, b),)):
                return self.exp_difference(a, b, final, name)
            case Unary(op, arg):
                x = self.eval(arg, final, name)
                return self.combine(e, [x], DType.BOOL if op == "not" else x.dtype, name)
            case Binary(op, a, b):
                return self.binary(e, op, a, b, final, name)
            case Compare(op, a, b):
                x, y = self.eval(a, final, name), self.eval(b, final, name)
                if op == "==" and DType.FLOAT in (x.dtype, y.dtype):
                    return self.same(x, y, name)
                return self.combine(e, [x, y], DType.BOOL, name)
            case Logic(_, args):
                return self.combine(e, [self.eval(a, final, name) for a in args], DType.BOOL, name)
            case Select():
                parts = [self.eval(c, final, name) for c in (e.cond, e.then, e.other)]
                kinds = {p.dtype for p in parts[1:]}
                kind = next(iter(kinds)) if len(kinds) == 1 else DType.FLOAT
                return self.combine(e, parts, kind, name)
            case Call(fn, args):
                parts = [self.eval(a, final, name) for a in args]
                return self.combine(e, parts, call_type(fn, parts), name)
            case _:
                raise Refused(
                    "A0402",
                    f"`{type(e).__name__.lower()}` has no tile form in this schedule",
                    e.span,
                )

    def position(self, axis: str) -> X:
        role = self.axes[axis].role
        spans = role in (Role.TILE, Role.STREAM, Role.FULL)
        on = (
            frozenset({STREAMED})
            if role is Role.STREAM
            else frozenset({axis})
            if role in (Role.LOOP, Role.POINT)
            else frozenset()
        )
        return X(Position(axis), frozenset({axis}) if spans else frozenset(), on, DType.INT)

    def binary(self, e: Binary, op: str, a: Expr, b: Expr, final: bool, name: str) -> X:
        if op == "*":
            split = self.affine_product(a, b, final, name) or self.affine_product(b, a, final, name)
            if split is not None:
                return split
        x, y = self.eval(a, final, name), self.eval(b, final, name)
        kind = (
            DType.INT
            if {x.dtype, y.dtype} <= {DType.INT, DType.BOOL} and op != "/"
            else DType.FLOAT
        )
        if op == "-" and kind is DType.FLOAT and y.dims < x.dims and self.may_be_empty(b):
            y = self.finite(y, name)
        safe = op == "/" and self.is_sum(b)
        return self.combine(e, [x, y], kind, name, safe)

    def affine_product(self, factor: Expr, line: Expr, final: bool, name: str) -> X | None:
        """`c * (i - j)` as a row vector plus a column vector, anchored to the tile so that float32 keeps its digits.

        rewrite:  c * (i - j + k)   ->   c * (i - i0) + (c * (j0 - j) + c * (i0 - j0 + k))
        """
        if len(self.dims_of(line)) != 2 or self.dims_of(factor):
            return None
        parts = affine(line)
        if parts is None:
            return None
        slopes, rest = parts
        axes = [a for a in slopes if a in self.dims_of(line)]
        if len(axes) != 2 or any(self.axes[a].role not in (Role.TILE, Role.STREAM) for a in axes):
            return None
        c = self.eval(factor, final, name)
        if c.dtype is not DType.FLOAT or c.dims:
            return None
        c = self.bind(c, name + "_slope")
        anchor: Expr = rest
        for a, k in slopes.items():
            at = t.Origin(a) if a in axes else Position(a)
            anchor = Binary("+", anchor, Binary("*", Const(k), at))
        offset = self.combine(
            Binary("*", Const(0), Const(0)),
            [c, self.bind(self.eval(anchor, final), name + "_at")],
            DType.FLOAT,
            name,
        )
        vectors: list[X] = []
        for a in axes:
            inside = Binary("-", Position(a), t.Origin(a))
            local = self.eval(
                inside if slopes[a] == 1 else Binary("*", Const(slopes[a]), inside), final
            )
            v = self.combine(Binary("*", Const(0), Const(0)), [c, local], DType.FLOAT, name)
            if self.axes[a].role is Role.STREAM:
                v = self.combine(Binary("+", Const(0), Const(0)), [v, offset], DType.FLOAT, name)
            vectors.append(self.bind(v, f"{name}_{a}"))
        return self.combine(Binary("+", Const(0), Const(0)), vectors, DType.FLOAT, name)

    def same(self, x: X, y: X, name: str) -> X:
        """Equality of two computed numbers: a score is summed in another order here than where its maximum was found."""
        y = self.finite(y, name) if y.dims < x.dims else y
        diff = self.combine(Binary("-", Const(0), Const(0)), [x, y], DType.FLOAT, name)
        size = self.combine(Call("abs", (Const(0),)), [diff], DType.FLOAT, name)
        scale = self.combine(Call("abs", (Const(0),)), [y], DType.FLOAT, name)
        one = self.combine(
            Binary("+", Const(0), Const(0)), [scale, X(Const(1.0))], DType.FLOAT, name
        )
        bound = self.combine(
            Binary("*", Const(0), Const(0)), [one, X(Const(TIE))], DType.FLOAT, name
        )
        return self.combine(Compare("<=", Const(0), Const(0)), [size, bound], DType.BOOL, name)

    def exp_difference(self, a: Expr, b: Expr, final: bool, name: str) -> X:
        """`exp(a - b)` with `b` constant along a tile axis, as `exp2(a * log2e - (b * log2e))`: one fused operation."""
        x, y = self.eval(a, final, name), self.eval(b, final, name)
        if y.dims < x.dims and x.dtype is DType.FLOAT and y.dtype is DType.FLOAT:
            if self.may_be_empty(b):
                y = self.finite(y, name)
            k = X(Const(LOG2E))
            times = Binary("*", Const(0), Const(0))
            left = self.combine(times, [x, k], DType.FLOAT, name)
            right = self.combine(times, [y, k], DType.FLOAT, name)
            diff = self.combine(Binary("-", Const(0), Const(0)), [left, right], DType.FLOAT, name)
            return self.combine(Call("exp2", (Const(0),)), [diff], DType.FLOAT, name)
        diff = self.binary(Binary("-", a, b), "-", a, b, final, name)
        return self.combine(Call("exp", (Const(0),)), [diff], DType.FLOAT, name)

    def finite(self, y: X, name: str) -> X:
        """-inf as 0: what is subtracted from a score must not make -inf - -inf of a masked point."""
        y = self.bind(y, name + "_row")
        cond = Compare("==", y.expr, NEG_INF)
        x = X(Select(cond, Const(0.0), y.expr), y.dims, y.on, DType.FLOAT)
        return self.bind(x, name + "_safe")

    def may_be_empty(self, e: Expr) -> bool:
        """Whether a value can be -inf because nothing was reduced: a maximum, a logarithm, or made of them."""
        match e:
            case Read(tensor=name) if name in self.defs:
                return self.may_be_empty(self.defs[name].expr)
            case Read(tensor=name):
                return name in self.inputs and self.is_statistic(name)
            case Reduce(op, _, _, _):
                return op is Reduction.MAX
            case Call("log" | "log2", _):
                return True
            case Call("max", args):
                return all(self.may_be_empty(a) for a in args)
            case _:
                return any(self.may_be_empty(c) for c in children(e) if not isinstance(c, Index))

    def is_statistic(self, name: str) -> bool:
        """An input without feature ranks that spans a sequence: a residual of the forward pass may be -inf."""
        kinds = [self.ranks.kind(r) for r in self.inputs[name].ranks]
        return self.inputs[name].dtype is DType.FLOAT and Kind.FEATURE not in kinds

    def is_sum(self, e: Expr) -> bool:
        """Whether a divisor is a reduction, or made of one."""
        for n in walk(e):
            if isinstance(n, Reduce):
                return True
            if (
                isinstance(n, Read)
                and n.tensor in self.defs
                and self.is_sum(self.defs[n.tensor].expr)
            ):
                return True
        return False

    # --- reads ------------------------------------------------------------------------------------------------------

    def read(self, e: Read, final: bool) -> X:
        if e.tensor in self.inputs or e.tensor in self.available:
            return self.load(e)
        d = self.defs[e.tensor]
        if d.init is not None:
            raise Refused("A0401", f"`{e.tensor}` is a recurrence", d.span)
        subs = tuple(Position(s.name) if isinstance(s, Index) else s for s in e.subs)
        if is_large(d.expr, self.ranks):
            return self.state(d, subs, final)
        if self.stream is not None and self.computed_elsewhere(d, subs):
            raise Needs(d.tensor, f"`{d.tensor}` is a row statistic, computed once a row")
        carries = self.carries_stream(subs)
        depends = e.tensor in self.reduces and not carries
        if self.root is not None and (e.tensor, subs) == self.root[:2]:
            return self.masked_root(final)
        below = self.root if self.root is not None and self.reaches(d, self.root[0]) else None
        key = ("read", e.tensor, subs, final if depends else None, below)
        if key not in self.memo:
            x = self.eval(self.inlined(d, subs), final, e.tensor)
            self.memo[key] = self.bind(x, e.tensor, d.span)
        return self.memo[key]

    def masked_root(self, final: bool) -> X:
        """The score that every term hangs on, -inf outside the domain: one mask for all that follows from it."""
        assert self.root is not None
        tensor, subs, where = self.root
        self.root = None
        x = self.read(Read(tensor, subs), final)
        v = self.masked(x, where, float("-inf"), tensor)
        self.root = (tensor, subs, where)
        return X(Val(v), self.memo_dims(v), frozenset({STREAMED}))

    def reaches(self, d: Define, tensor: str) -> bool:
        """Whether a definition reads a tensor, directly or not."""
        key = ("reaches", d.tensor, tensor)
        if key not in self.known:
            names = {n.tensor for n in walk(d.expr) if isinstance(n, Read)}
            self.known[key] = tensor in names or any(
                self.reaches(self.defs[n], tensor)
                for n in names
                if n in self.defs and n != d.tensor
            )
        return self.known[key]

    # A term *vanishes* with a score if it is 0 (for a sum) or -inf (for a maximum) where the score is -inf.

    def root_of(self, body: Expr, op: Reduction) -> Read | None:
        """The score with which the terms of a reduction vanish, if there is one."""
        if op is Reduction.SUM:
            return self.vanishing(body)
        return self.sinking(body) if op is Reduction.MAX else None

    def vanishing(self, e: Expr) -> Read | None:
        match e:
            case Binary("*", a, b):
                for x, other in ((a, b), (b, a)):
                    found = self.vanishing(x)
                    if found is not None and self.finite_beside(other, found):
                        return found
                return None
            case Binary("/", a, b):
                found = self.vanishing(a)
                return found if found is not None and self.finite_beside(b, found) else None
            case Unary("-", a):
                return self.vanishing(a)
            case Call("exp" | "exp2", (g,)):
                return self.sinking(g)
            case Read(tensor=name, subs=subs) if self.pairwise(e):
                return self.vanishing(self.inlined(self.defs[name], subs))
            case _:
                return None

    def finite_beside(self, e: Expr, root: Read) -> bool:
        """Whether a factor stays finite where the score is -inf, so that 0 times it is 0."""
        if self.vanishing(e) == root:
            return True
        names = {n.tensor for n in walk(e) if isinstance(n, Read)}
        return root.tensor not in names and not any(
            self.reaches(self.defs[n], root.tensor) for n in names if n in self.defs
        )

    def sinking(self, e: Expr) -> Read | None:
        match e:
            case Read() if self.pairwise(e):
                return Read(
                    e.tensor, tuple(Position(s.name) if isinstance(s, Index) else s for s in e.subs)
                )
            case Binary("-", a, _):
                return self.sinking(a)
            case Binary("+", a, b):
                return self.sinking(a) or self.sinking(b)
            case _:
                return None

    def pairwise(self, e: Read) -> bool:
        """A body tensor over the stream that is computed here."""
        d = self.defs.get(e.tensor)
        return (
            d is not None
            and e.tensor not in self.available
            and d.init is None
            and not is_large(d.expr, self.ranks)
            and self.carries_stream(e.subs)
        )

    def inlined(self, d: Define, subs: tuple[Expr, ...]) -> Expr:
        """The right side of a definition here, with subscripts that are known to be equal made the same."""
        e = inline(d, subs)
        for old, new in self.equal.items():
            e = replace_expr(e, old, new)
        return e

    def carries_stream(self, subs: tuple[Expr, ...]) -> bool:
        return self.stream is not None and any(self.stream in free(s) for s in subs)

    def computed_elsewhere(self, d: Define, subs: tuple[Expr, ...]) -> bool:
        """A row statistic with an inner reduction, read along the stream, of a rank that has a kernel by rows."""
        seq = self.ranks.sequence(d.indices)
        if len(seq) != 1 or self.ranks.of.get(seq[0], seq[0]) not in self.rows:
            return False
        if any(self.ranks.kind(i) is Kind.FEATURE for i in d.indices):
            return False
        return self.carries_stream(subs) and any(isinstance(n, Reduce) for n in walk(d.expr))

    def load(self, e: Read) -> X:
        e = dataclasses.replace(e, subs=tuple(self.equal.get(s, s) for s in e.subs))
        plain = tuple(Position(s.name) if isinstance(s, Index) else s for s in e.subs)
        key = ("load", e.tensor, plain)
        if key in self.memo:
            return self.memo[key]
        decl = self.inputs.get(e.tensor)
        ranks = decl.ranks if decl is not None else self.defs[e.tensor].indices
        dtype = decl.dtype if decl is not None else DType.FLOAT
        self.read_buffers[e.tensor] = None
        subs: list[Expr] = []
        parts: list[X] = []
        bounds: list[str] = []
        for s, r in zip(e.subs, ranks, strict=True):
            if isinstance(s, (Index, Position)) and self.lone(s.name, r):
                x = self.position(s.name)
                if self.axes[s.name].role in (Role.TILE, Role.STREAM, Role.FULL):
                    bounds.append(s.name)
            else:
                x = self.eval(Position(s.name) if isinstance(s, Index) else s)
                x = self.clamp(x, r, s)
            subs.append(x.expr)
            parts.append(x)
        dims = frozenset().union(*(p.dims for p in parts)) if parts else frozenset()
        on = frozenset().union(*(p.on for p in parts)) if parts else frozenset()
        if len(dims) > 2:
            raise Refused(
                "A0404", f"`{e.tensor}` is read at a point of three ranks at once", e.span
            )
        name = self.names.fresh(e.tensor.lower() if len(e.tensor) == 1 else e.tensor)
        stmt = t.Load(
            name, self.order(dims), dtype, e.tensor, tuple(subs), tuple(bounds), span=e.span
        )
        self.place(on).append(stmt)
        self.memo[key] = X(Val(name), dims, on, dtype)
        return self.memo[key]

    def lone(self, axis: str, rank: str) -> bool:
        """Whether a lone axis walks the rank of the memory axis it stands on, so that no clamp is needed."""
        return self.ranks.of.get(self.axes[axis].rank, self.axes[axis].rank) == self.ranks.of.get(
            rank, rank
        )

    def clamp(self, x: X, rank: str, s: Expr) -> X:
        """A computed subscript, kept inside the axis: points outside the domain are loaded too, and not used."""
        if all(self.kind(i) is Kind.BATCH for i in free(s)) and not any(
            isinstance(n, Read) for n in walk(s)
        ):
            return self.bind(x, "at")
        top = Binary("-", Extent(self.ranks.of.get(rank, rank)), Const(1))
        low = Call("max", (x.expr, Const(0)))
        y = X(Call("min", (low, top)), x.dims, x.on, DType.INT)
        return self.bind(y, "at")

    # --- reductions over features -----------------------------------------------------------------------------------

    def small_reduce(self, e: Reduce, final: bool, name: str) -> X:
        """A reduction over feature ranks: a matrix product, a fold of a tile, or a loop over points."""
        if len(e.indices) > 1:
            inner = Reduce(e.op, e.indices[1:], e.body, e.where)
            return self.small_reduce(Reduce(e.op, e.indices[:1], inner), final, name)
        (index,) = e.indices
        if self.ranks.kind(index) is not Kind.FEATURE:
            raise Refused(
                "A0407", f"`{e.op.value}[{index}]` runs inside another expression", e.span
            )
        axis = self.full_axis(index, free(e))
        here = {index: Position(axis)}
        body = substitute(e.body, here)
        where = None if e.where is None else substitute(e.where, here)
        key = ("reduce", e.op, axis, body, where, final if self.depends(body) else None)
        if key not in self.memo:
            self.memo[key] = self.reduce_axis(e.op, axis, body, where, final, name)
        return self.memo[key]

    def depends(self, e: Expr) -> bool:
        return any(isinstance(n, Read) and n.tensor in self.reduces for n in walk(e))

    def full_axis(self, index: str, taken: frozenset[str]) -> str:
        rank = self.ranks.of.get(index, index)
        name = rank
        while name in taken and name != index:
            name += "_"
        if name not in self.axes:
            self.axes[name] = Axis(name, rank, Role.FULL)
        return name

    def reduce_axis(
        self, op: Reduction, axis: str, body: Expr, where: Expr | None, final: bool, name: str
    ) -> X:
        """`op[axis : where](body)` for a FULL axis."""
        if op is Reduction.SUM:
            factors = self.factors(body, frozenset({axis}))
            outside = [f for f in factors if axis not in free(f)]
            inside = [f for f in factors if axis in free(f)]
            x = self.contract(axis, inside, where, final, name)
            for f in outside:
                y = self.eval(f, final, name)
                x = self.combine(Binary("*", Const(0), Const(0)), [x, y], DType.FLOAT, name)
            return self.bind(x, name)
        x = self.eval(body, final, name)
        if len(x.dims) > 2:
            return self.point_loop(op, axis, body, where, final, name)
        v = self.pad(self.value(x, name), x, axis, where, op.identity, final)
        return self.fold(op, v, x, axis, name)

    def factors(self, body: Expr, over: frozenset[str]) -> list[Expr]:
        """The factors of a product; divisors stay with a reciprocal factor of their own."""
        match body:
            case Binary("*", a, b):
                return self.factors(a, over) + self.factors(b, over)
            case Binary("/", a, b):
                return [*self.factors(a, over), Binary("/", Const(1.0), b)]
            case Unary("-", a):
                return [Const(-1.0), *self.factors(a, over)]
            case Read(tensor=name, subs=subs) if (
                name in self.defs
                and name not in self.available
                and not is_large(self.defs[name].expr, self.ranks)
                and len(frozenset().union(*(self.dims_of(s) for s in subs))) > 2
            ):
                return self.factors(self.inlined(self.defs[name], subs), over)
            case _:
                return [body]

    def kind(self, axis: str) -> Kind:
        """The kind of an axis or an index."""
        return self.ranks.kind(self.axes[axis].rank if axis in self.axes else axis)

    def dims_of(self, e: Expr) -> frozenset[str]:
        """The tile axes an expression would span."""
        roles = (Role.TILE, Role.STREAM, Role.FULL)
        return frozenset(i for i in free(e) if i in self.axes and self.axes[i].role in roles)

    def contract(
        self, axis: str, factors: list[Expr], where: Expr | None, final: bool, name: str
    ) -> X:
        """`sum[axis : where](product of factors)`, all of which carry the axis (FULL, or the stream's)."""
        spans = [self.dims_of(f) for f in factors]
        cond = frozenset() if where is None else self.dims_of(where)
        dims = frozenset().union(*spans, cond)
        if len(dims) <= 2:
            x = self.product(factors, final, name)
            v = self.pad(self.value(x, name), x, axis, where, 0.0, final)
            both = X(Val(v), x.dims | cond, x.on | self.on_of(where))
            return self.fold(Reduction.SUM, v, both, axis, name)
        split = self.split(axis, factors, spans, cond)
        if split is None:
            return self.point_loop(Reduction.SUM, axis, product_of(factors), where, final, name)
        left, right, dims_out = split
        a = self.operand(left, axis, where if cond - {axis} <= dims_out[0] else None, final, name)
        b = self.operand(
            right,
            axis,
            where if cond - {axis} and not cond - {axis} <= dims_out[0] else None,
            final,
            name,
        )
        out = self.names.fresh(name)
        xa, xb = self.memo[("operand", a)], self.memo[("operand", b)]
        on = xa.on | xb.on
        dims = (xa.dims | xb.dims) - {axis}
        stmt = t.Dot(out, self.order(dims), a, b, axis, self.dot_like(left + right))
        self.place(on).append(stmt)
        return X(Val(out), dims, on)

    def on_of(self, e: Expr | None) -> frozenset[str]:
        if e is None:
            return frozenset()
        return frozenset().union(*(self.position(i).on for i in free(e)))

    def product(self, factors: list[Expr], final: bool, name: str) -> X:
        if not factors:
            return X(Const(1.0))
        e = product_of(factors)
        return self.eval(e, final, name)

    def split(
        self, axis: str, factors: list[Expr], spans: list[frozenset[str]], cond: frozenset[str]
    ) -> tuple[list[Expr], list[Expr], tuple[frozenset[str], frozenset[str]]] | None:
        """Two groups of factors that share the contracted axis alone, the group of the first axis first."""
        kept = self.order(frozenset().union(*spans, cond) - {axis})
        if len(kept) != 2:
            return None
        first, second = frozenset({kept[0], axis}), frozenset({kept[1], axis})
        if not (cond <= first or cond <= second):
            return None
        left, right = [], []
        for f, s in zip(factors, spans, strict=True):
            if s <= first and (s & {kept[0]} or not left):
                left.append(f)
            elif s <= second:
                right.append(f)
            elif s <= first:
                left.append(f)
            else:
                return None
        has = lambda group, k: any(k in self.dims_of(f) for f in group) or k in cond  # noqa: E731
        if not (has(left, kept[0]) and has(right, kept[1])):
            return None
        return left, right, (frozenset({kept[0]}), frozenset({kept[1]}))

    def operand(
        self, group: list[Expr], axis: str, where: Expr | None, final: bool, name: str
    ) -> str:
        x = self.product(group, final, name)
        v = self.value(x, name)
        plain = self.is_load(v)
        if where is not None or (not plain and self.axes[axis].role is Role.FULL):
            v = self.pad(v, x, axis, where, 0.0, final)
        dims = x.dims | (frozenset() if where is None else self.dims_of(where))
        self.memo[("operand", v)] = X(Val(v), dims, x.on | self.on_of(where))
        return v

    def is_load(self, v: str) -> bool:
        lists = [self.prologue, self.sweep, *self.loop_body.values(), *(b for _, b in self.points)]
        return any(isinstance(s, t.Load) and s.name == v for body in lists for s in body)

    def dot_like(self, factors: list[Expr]) -> str:
        """Whose storage type the operands of a product take: the first tensor of the factors with a feature rank."""
        names: list[str] = []
        for f in factors:
            for n in walk(f):
                if isinstance(n, Read) and n.tensor in self.inputs:
                    decl = self.inputs[n.tensor]
                    if decl.dtype is DType.FLOAT and len(self.dims_of(n)) == 2:
                        names.append(n.tensor)
        plain = [n for n in names if not self.is_statistic(n)]
        return (plain or names or [self.like])[0]

    def pad(
        self, v: str, x: X, axis: str, where: Expr | None, fill: float | bool, final: bool
    ) -> str:
        """Neutral values at the points that a reduction must not see: padding, and outside its condition."""
        parts: list[X] = []
        on, dims = x.on, x.dims
        if self.axes[axis].role is Role.FULL:
            parts.append(
                X(
                    Compare("<", Position(axis), Extent(self.axes[axis].rank)),
                    frozenset({axis}),
                    dtype=DType.BOOL,
                )
            )
        if where is not None:
            parts.append(self.eval(where, final, "keep"))
        if self.axes[axis].role is Role.STREAM:
            return v
        cond = (
            parts[0]
            if len(parts) == 1
            else self.combine(Logic("and", (Const(0), Const(0))), parts, DType.BOOL, "keep")
        )
        dims, on = dims | cond.dims, on | cond.on
        key = ("pad", v, cond.expr, fill)
        if key not in self.memo:
            y = X(Select(cond.expr, Val(v), Const(fill)), dims, on, x.dtype)
            self.memo[key] = self.bind(y, v + "_kept")
        out = self.memo[key].expr
        assert isinstance(out, Val)
        return out.name

    def fold(self, op: Reduction, v: str, x: X, axis: str, name: str) -> X:
        out = self.names.fresh(name)
        dims = x.dims - {axis}
        self.place(x.on).append(t.Fold(out, self.order(dims), op, v, axis))
        return X(
            Val(out),
            dims,
            x.on,
            x.dtype
            if op in (Reduction.MAX, Reduction.MIN, Reduction.ANY, Reduction.ALL)
            else DType.FLOAT,
        )

    def point_loop(
        self, op: Reduction, axis: str, body: Expr, where: Expr | None, final: bool, name: str
    ) -> X:
        """A reduction whose terms span three ranks: point by point of the feature rank."""
        if self.axes[axis].role is not Role.FULL:
            raise Refused("A0404", f"a product over `{axis}` spans three ranks", body.span)
        point = self.names.fresh(f"{axis}_pt")
        self.axes[point] = Axis(point, self.axes[axis].rank, Role.POINT)
        here = {axis: Position(point)}
        inner: list[t.Stmt | MaskStmt] = []
        self.points.append((point, inner))
        x = self.eval(substitute(body, here), final, name)
        if where is not None:
            cond = self.eval(substitute(where, here), final, "keep")
            x = self.combine(
                Select(Const(0), Const(0), Const(0)),
                [cond, x, X(Const(op.identity))],
                DType.FLOAT,
                name,
            )
        acc = self.names.fresh(name)
        dims, on = x.dims, x.on - {point}
        fn = {Reduction.SUM: "+", Reduction.PROD: "*"}.get(op)
        xe = self.bind(x, name + "_t").expr
        update: Expr = Binary(fn, Val(acc), xe) if fn else Call(op.value, (Val(acc), xe))
        inner.append(t.Assign(acc, update))
        self.points.pop()
        home = self.place(on)
        home.append(t.Declare(acc, self.order(dims), DType.FLOAT, Const(op.identity)))
        home.append(t.For(point, tuple(inner)))  # type: ignore[arg-type]
        return X(Val(acc), dims, on)

    # --- states -----------------------------------------------------------------------------------------------------

    def state(self, d: Define, subs: tuple[Expr, ...], final: bool) -> X:
        """A large reduction over the stream: its running value in the sweep, its last one after it."""
        e = d.expr
        assert isinstance(e, Reduce)
        if self.carries_stream(subs):
            raise Needs(
                d.tensor, f"`{d.tensor}` is reduced over another rank than this kernel streams"
            )
        key = ("state", d.tensor, subs)
        if key in self.states:
            return self.value_of(self.states[key], d, final)
        seq = self.ranks.sequence(e.indices)
        if len(seq) > 1:
            raise Refused(
                "A0403",
                f"`{d.tensor}` reduces {', '.join(f'`{s}`' for s in seq)} at once: schedules stream one rank",
                d.span,
            )
        loops = {self.ranks.of.get(i, i) for i in e.indices if self.ranks.kind(i) is Kind.BATCH}
        if not loops <= set(self.loop_body):
            raise Needs(
                d.tensor, f"`{d.tensor}` sums over {', '.join(f'`{r}`' for r in sorted(loops))}"
            )
        if seq and (self.stream is None or self.stream_of(seq[0], subs) != self.stream):
            raise Needs(d.tensor, f"`{d.tensor}` streams `{seq[0]}`, this kernel does not")
        self.states[key] = self.make_state(d, subs)
        return self.value_of(self.states[key], d, final)

    def value_of(self, s: State, d: Define, final: bool) -> X:
        """A state's last value, or its running one."""
        if final:
            return X(Val(s.name), frozenset(s.dims), frozenset({FINAL}))
        if s.new is None:
            raise Needs(d.tensor, f"`{d.tensor}` must be known before it is used in the same sweep")
        return s.new

    def stream_of(self, index: str, subs: tuple[Expr, ...]) -> str:
        rank = self.ranks.of.get(index, index)
        kept = {a.rank for a in self.axes.values() if a.role is Role.TILE}
        return rank if rank not in kept else rank + "_s"

    def make_state(self, d: Define, subs: tuple[Expr, ...]) -> State:
        e = self.inlined(d, subs)
        assert isinstance(e, Reduce)
        here: dict[str, Expr] = {}
        for i in e.indices:
            if self.ranks.kind(i) is Kind.SEQUENCE:
                assert self.stream is not None
                here[i] = Position(self.stream)
            else:
                here[i] = Position(self.ranks.of.get(i, i))
        body = substitute(e.body, here)
        where = None if e.where is None else substitute(e.where, here)
        where, body = self.solve_loops(where, body)
        where = conjunction(conjuncts(where))
        name = self.names.fresh(d.tensor)
        spans = frozenset().union(self.dims_of(body), *(self.dims_of(s) for s in subs))
        dims = self.order(spans - {self.stream})
        self.prologue.append(t.Declare(name, dims, DType.FLOAT, Const(e.op.identity)))
        state = State(name, e, dims)
        if not self.ranks.sequence(e.indices):
            self.loop_state(state, d, body, where)
            return state
        pivots = self.pivots(body)
        found = self.root_of(body, e.op) if self.may_root else None
        self.rooted.add(found is not None)
        outer = self.root
        self.root = None if found is None else (found.tensor, found.subs, where)
        if e.op is Reduction.SUM:
            self.sum_state(state, d, body, where, pivots, subs)
        else:
            if pivots:
                raise Needs(
                    pivots[0].tensor,
                    f"`{pivots[0].tensor}` must be known before `{e.op.value}` of `{d.tensor}`",
                )
            self.extreme_state(state, d, body, where)
        self.root = outer
        self.domains.append(where)
        return state

    def loop_state(self, state: State, d: Define, body: Expr, where: Expr | None) -> None:
        """A reduction over batch indices alone: accumulated at each turn of the innermost loop."""
        op = state.reduce.op
        x = self.eval(body, False, d.tensor)
        if where is not None:
            cond = self.eval(where, False, "keep")
            x = self.combine(
                Select(Const(0), Const(0), Const(0)),
                [cond, x, X(Const(op.identity))],
                x.dtype,
                d.tensor,
            )
        x = self.bind(x, d.tensor)
        update = (
            Binary("+", Val(state.name), x.expr)
            if op is Reduction.SUM
            else extreme(op, Val(state.name), x.expr)
        )
        self.loop_body[next(reversed(self.loop_body))].append(t.Assign(state.name, update))

    def solve_loops(self, where: Expr | None, body: Expr) -> tuple[Expr | None, Expr]:
        """Drop `h // G == K.1` (it became the loop's bounds) and read through it: `K[h // G]` is `K[K.1]`."""
        rest = []
        for c in conjuncts(where):
            if isinstance(c, Compare) and c.op == "==" and isinstance(c.right, Position):
                grid = self.axes.get(c.right.name)
                if grid is not None and grid.role is Role.GRID and self.is_loop_only(c.left):
                    left, right = c.left, c.right
                    self.equal[left] = right
                    body = replace_expr(body, left, right)
                    rest = [replace_expr(r, left, right) for r in rest]
                    continue
            rest.append(c)
        return conjunction(rest), body

    def is_loop_only(self, e: Expr) -> bool:
        return bool(free(e)) and all(self.axes[i].role is Role.LOOP for i in free(e))

    def pivots(self, body: Expr) -> list[Read]:
        """Running tensors that the body reads, constant along the stream."""
        found: dict[Read, None] = {}

        def visit(e: Expr) -> None:
            for n in walk(e):
                if isinstance(n, Read) and n.tensor in self.reduces:
                    if self.carries_stream(n.subs) and not is_large(
                        self.defs[n.tensor].expr, self.ranks
                    ):
                        visit(self.inlined(self.defs[n.tensor], n.subs))
                    elif not self.carries_stream(n.subs):
                        plain = (Position(x.name) if isinstance(x, Index) else x for x in n.subs)
                        found[Read(n.tensor, tuple(plain))] = None

        visit(body)
        return list(found)

    def correction(self, state: State, d: Define, pivots: list[Read]) -> X | None:
        """The factor that brings what has been summed to the pivots' new values."""
        alpha: X | None = None
        assert isinstance(d.expr, Reduce)
        for p in pivots:
            k = self.exponent(d, p.tensor)
            if k == 0:
                continue
            state.pivots.append((p, k))
            x = self.factor(p, k)
            alpha = (
                x
                if alpha is None
                else self.bind(
                    self.combine(Binary("*", Const(0), Const(0)), [alpha, x], DType.FLOAT, "alpha"),
                    "alpha",
                )
            )
        return alpha

    def exponent(self, d: Define, pivot: str) -> float:
        """`k`, where the terms of a sum are multiplied by `exp(k * shift)` when the pivot is shifted."""
        assert isinstance(d.expr, Reduce)
        if pivot not in self.shifts:
            self.shifts[pivot] = scaling(self.cascade, pivot)
        s = scaling_of(d.expr.body, self.shifts[pivot])
        if s.invariant:
            return 0.0
        match s.exponent if s.kind is Shift.MUL else None:
            case Const(value):
                return float(value)
            case Unary("-", Const(value)):
                return -float(value)
            case _:
                raise Needs(
                    pivot, f"the terms of `{d.tensor}` do not scale with `{pivot}`: not separable"
                )

    def factor(self, pivot: Read, k: float) -> X:
        """`exp(k * (new - old))` of a pivot; 0 where nothing has been summed yet."""
        key = ("alpha", pivot, k)
        if key not in self.memo:
            new = self.finite(self.read(pivot, False), pivot.tensor)
            old = self.bind(self.old(pivot), pivot.tensor + "_old")
            self.memo[key] = self.ratio(old, new, k)
        return self.memo[key]

    def ratio(self, old: X, new: X, k: float) -> X:
        """`exp(k * (new - old))`, with `new` finite. For a maximum k < 0: the factor never overflows."""
        diff = X(Binary("-", old.expr, new.expr), new.dims | old.dims, new.on | old.on)
        scaled = X(Binary("*", diff.expr, Const(-k * LOG2E)), diff.dims, diff.on)
        return self.bind(X(Call("exp2", (scaled.expr,)), diff.dims, diff.on), "alpha")

    def old(self, e: Expr) -> X:
        """An expression constant along the stream, over the states' values before this step."""
        match e:
            case Read(tensor=name, subs=subs) if name in self.reduces:
                d = self.defs[name]
                if is_large(d.expr, self.ranks):
                    plain = tuple(Position(x.name) if isinstance(x, Index) else x for x in subs)
                    s = self.states[("state", name, plain)]
                    standing = self.standing.get(s.name, s.name)
                    return X(Val(standing), frozenset(s.dims), frozenset({RUNNING}))
                return self.old(self.inlined(d, subs))
            case Read():
                return self.load(e)
            case _:
                parts = [self.old(c) for c in children(e)]
                if not parts:
                    return self.eval(e)
                return self.combine(e, parts, DType.FLOAT, "old")

    def masked(
        self, x: X, where: Expr | None, fill: float | bool, name: str, always: bool = False
    ) -> str:
        """The value with `fill` outside the domain and beyond the stream's end."""
        assert self.stream is not None
        v = self.value(x, name)
        if self.root is not None and self.stream in x.dims and not always:
            return v  # it vanishes there by itself
        cond = self.mask(where)
        dims = x.dims | cond.dims
        if self.stream not in dims:
            dims |= {self.stream}
        if len(dims) > 2:
            raise Refused(
                "A0404", f"a term of `{name.removesuffix('_s')}` and its condition span three ranks"
            )
        key = ("mask", v, cond.expr, fill)
        if key not in self.memo:
            out = self.names.fresh(v + "_m")
            assert isinstance(cond.expr, Val)
            if x.dims != dims:  # spread first, so that the unmasked range has the same shape
                wide = self.names.fresh(v + "_w")
                zero = Select(Compare(">=", Position(self.stream), Const(0)), Val(v), Const(fill))
                missing = [a for a in dims - x.dims if a != self.stream]
                for a in missing:
                    zero = Select(Compare(">=", Position(a), Const(0)), zero, Const(fill))
                self.sweep.append(t.Compute(wide, self.order(dims), x.dtype, zero))
                v = wide
            self.sweep.append(MaskStmt(out, self.order(dims), x.dtype, v, cond.expr.name, fill))
            self.memo[key] = X(Val(out), dims, x.on | {STREAMED})
        made = self.memo[key].expr
        assert isinstance(made, Val)
        return made.name

    def mask(self, where: Expr | None) -> X:
        assert self.stream is not None
        key = ("domain", where)
        if key not in self.memo:
            inside: Expr = Compare("<", Position(self.stream), Extent(self.axes[self.stream].rank))
            full = conjunction([*conjuncts(where), inside])
            assert full is not None
            x = self.eval(full, False, "mask")
            self.memo[key] = self.bind(x, "mask")
        return self.memo[key]

    def extreme_state(self, state: State, d: Define, body: Expr, where: Expr | None) -> None:
        assert self.stream is not None
        op = state.reduce.op
        x = self.eval(body, False, d.tensor)
        if len(x.dims) > 2:
            raise Refused("A0404", f"`{d.tensor}` reduces a value of three ranks", d.span)
        v = self.masked(x, where, op.identity, d.tensor + "_s")
        dims = self.memo_dims(v)
        folded = self.fold(
            op, v, X(Val(v), dims, frozenset({STREAMED})), self.stream, d.tensor + "_tile"
        )
        new = self.names.fresh(state.name + "_new")
        self.sweep.append(
            t.Compute(new, state.dims, DType.FLOAT, extreme(op, Val(state.name), folded.expr))
        )
        state.new = X(Val(new), frozenset(state.dims), frozenset({RUNNING}))
        self.commits.append(t.Assign(state.name, Val(new)))

    def memo_dims(self, v: str) -> frozenset[str]:
        for s in self.sweep:
            if isinstance(s, (MaskStmt, t.Compute, t.Load, t.Dot, t.Fold)) and s.name == v:
                return frozenset(s.dims)
        raise AssertionError(v)

    def sum_state(
        self,
        state: State,
        d: Define,
        body: Expr,
        where: Expr | None,
        pivots: list[Read],
        subs: tuple[Expr, ...],
    ) -> None:
        assert self.stream is not None
        alpha = self.correction(state, d, pivots)
        factors = self.factors(body, frozenset({self.stream}))
        spans = [self.dims_of(f) for f in factors]
        cond = self.dims_of(where) if where is not None else frozenset()
        dims = frozenset().union(*spans, cond) | {self.stream}
        if len(dims) > 2:
            split = self.split(self.stream, factors, spans, cond)
            if split is not None:
                left, right, kept = split
                on_left = where is not None and cond - {self.stream} <= kept[0]
                a = self.stream_operand(
                    left, where if on_left or not cond else None, on_left or not cond, d.tensor
                )
                b = self.stream_operand(right, where, not (on_left or not cond), d.tensor)
                # A loop-invariant operand spread along the stream is masked on its own side.
                self.sweep.append(
                    t.AccDot(
                        state.name,
                        a,
                        b,
                        self.stream,
                        self.dot_like(left + right),
                        None if alpha is None else self.value(alpha, "alpha"),
                    )
                )
                return
            self.point_state(state, d, factors, where, alpha)
            return
        x = self.product(factors, False, d.tensor)
        v = self.masked(x, where, 0.0, d.tensor + "_s")
        folded = self.fold(
            Reduction.SUM,
            v,
            X(Val(v), self.memo_dims(v), frozenset({STREAMED})),
            self.stream,
            d.tensor + "_tile",
        )
        self.add(state, folded.expr, alpha)

    def add(self, state: State, term: Expr, alpha: X | None) -> None:
        base: Expr = Val(state.name)
        if alpha is not None:
            base = Binary("*", base, self.bind(alpha, "alpha").expr)
        self.sweep.append(t.Assign(state.name, Binary("+", base, term)))

    def stream_operand(
        self, group: list[Expr], where: Expr | None, carries: bool, name: str
    ) -> str:
        """One side of a product over the stream; `carries`: the side that the domain's mask goes on."""
        x = self.product(group, False, name)
        v = self.value(x, name)
        if self.root is not None and any(self.vanishing(f) is not None for f in group):
            return v  # it vanishes outside the domain by itself
        if carries and self.root is None:
            return self.masked(x, where, 0.0, name + "_s")
        if self.is_load(v):
            return v
        return self.masked(
            x, None, 0.0, name + "_s", always=True
        )  # 0 times what is past the end must be 0

    def point_state(
        self, state: State, d: Define, factors: list[Expr], where: Expr | None, alpha: X | None
    ) -> None:
        """`X[i,f] += sum[j](term of i, j and f)`: column by column of the feature rank."""
        assert self.stream is not None
        dims = frozenset().union(*(self.dims_of(f) for f in factors))
        fulls = [a for a in dims if self.axes[a].role is Role.FULL]
        if len(fulls) != 1 or len(dims) != 3:
            raise Refused("A0404", f"`{d.tensor}` sums a term that spans {len(dims)} ranks", d.span)
        (axis,) = fulls
        if alpha is not None:
            self.sweep.append(
                t.Assign(state.name, Binary("*", Val(state.name), self.bind(alpha, "alpha").expr))
            )
        fixed = [f for f in factors if axis not in self.dims_of(f)]
        moving = [f for f in factors if axis in self.dims_of(f)]
        weight = self.masked(self.product(fixed, False, d.tensor), where, 0.0, d.tensor + "_s")
        point = self.names.fresh(f"{axis}_pt")
        self.axes[point] = Axis(point, self.axes[axis].rank, Role.POINT)
        inner: list[t.Stmt | MaskStmt] = []
        self.points.append((point, inner))
        x = self.eval(substitute(product_of(moving), {axis: Position(point)}), False, d.tensor)
        term = self.combine(
            Binary("*", Const(0), Const(0)),
            [X(Val(weight), self.memo_dims(weight), frozenset({STREAMED})), x],
            DType.FLOAT,
            d.tensor,
        )
        tv = self.value(term, d.tensor + "_t")
        col = self.names.fresh(d.tensor + "_col")
        inner.append(
            t.Fold(col, self.order(term.dims - {self.stream}), Reduction.SUM, tv, self.stream)
        )
        inner.append(
            t.Assign(
                state.name,
                Select(
                    Compare("==", Position(axis), Position(point)),
                    Binary("+", Val(state.name), Val(col)),
                    Val(state.name),
                ),
            )
        )
        self.points.pop()
        self.sweep.append(t.For(point, tuple(inner)))  # type: ignore[arg-type]


def affine(e: Expr) -> tuple[dict[str, int], Expr] | None:
    """An integer expression as `sum of k * position` plus a rest without positions."""
    match e:
        case Position(name):
            return {name: 1}, Const(0)
        case Unary("-", a):
            part = affine(a)
            if part is None:
                return None
            return {i: -k for i, k in part[0].items()}, Unary("-", part[1])
        case Binary("+" | "-" as op, a, b):
            left, right = affine(a), affine(b)
            if left is None or right is None:
                return None
            sign = 1 if op == "+" else -1
            slopes = dict(left[0])
            for i, k in right[0].items():
                slopes[i] = slopes.get(i, 0) + sign * k
            rest = left[1] if right[1] == Const(0) else Binary(op, left[1], right[1])
            return slopes, rest
        case Const(int()) | Param() | Extent():
            return {}, e
        case _:
            return None


def is_large(e: Expr, ranks: Ranks) -> bool:
    """A reduction over a sequence or batch rank."""
    return isinstance(e, Reduce) and any(ranks.kind(i) is not Kind.FEATURE for i in e.indices)


def product_of(factors: list[Expr]) -> Expr:
    out = factors[0]
    for f in factors[1:]:
        out = Binary("*", out, f)
    return out


def replace_expr(e: Expr, old: Expr, new: Expr) -> Expr:
    """Every occurrence of `old` in `e`, replaced."""
    if e == old:
        return new
    subs = tuple(replace_expr(c, old, new) for c in children(e))
    return with_children(e, subs)


def extreme(op: Reduction, a: Expr, b: Expr) -> Expr:
    match op:
        case Reduction.MAX | Reduction.MIN:
            return Call(op.value, (a, b))
        case Reduction.PROD:
            return Binary("*", a, b)
        case Reduction.ANY:
            return Logic("or", (a, b))
        case _:
            return Logic("and", (a, b))


def call_type(fn: str, parts: list[X]) -> DType:
    if fn in ("max", "min", "abs", "sign") and all(p.dtype is DType.INT for p in parts):
        return DType.INT
    if fn in ("floor", "ceil"):
        return DType.INT if False else DType.FLOAT
    return DType.FLOAT


Subs = Mapping[str, Expr]
