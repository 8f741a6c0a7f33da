"""Chunks: a kernel that walks rows and columns together, and carries what earlier columns left in a small state.

    sweep over chunks
      O[i,f]  = q[i,e] . H[e,f] * decay to the row          what came before the chunk
      O[i,f] += (q . k * gates, masked)[i,j] v[j,f]         inside the chunk: the tiles of the quadratic schedule
      store O
      H[e,f]  = H * decay across + k[j,e] . v[j,f]          what this chunk leaves

A `ChunkBuilder` is the builder of the quadratic schedule on the diagonal tile, so masks, normalizers, epilogues and
stores are what they are there. Each running sum is split by `analysis.linearity` and gets a carried state besides.
Where columns come after the row (gradients of keys and values), the chunks are walked from the last to the first.

source: Yang et al. 2023 (arXiv:2312.06635), section 4; one kernel over chunks: Qin et al. 2024 (arXiv:2401.04658)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from attndsl.analysis.anchors import Anchor, Gate, at
from attndsl.analysis.linearity import NotLinear, Splitter, Term
from attndsl.analysis.ranks import Ranks
from attndsl.analysis.reach import Reach, reach
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
    Position,
    Read,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.ordered import ordered
from attndsl.cascade.walk import free, reads, rewrite, substitute, walk
from attndsl.schedule import tile as t
from attndsl.schedule.builder import Builder
from attndsl.schedule.feature_tiles import in_tiles
from attndsl.schedule.forms import is_large, positions, product_of
from attndsl.schedule.masks import mask_of, masked
from attndsl.schedule.memory import bare_like, is_load
from attndsl.schedule.middles import contracted, summed
from attndsl.schedule.nearby import across, within
from attndsl.schedule.outcomes import Needs
from attndsl.schedule.products import factors_of, fold
from attndsl.schedule.restarts import Restart, at_hand
from attndsl.schedule.running import running, runs
from attndsl.schedule.specialise import masked_body, used
from attndsl.schedule.tile import Axis, Block, Origin, Role, Val
from attndsl.schedule.values import CHOICE, FINAL, STREAMED, State, SweepStmt, X


class ChunkBuilder(Builder):
    """A builder whose running sums also take what a carried state holds."""

    needs_at_points = True
    # The tile becomes the stream, and the stream its pair.
    meets_bands = False
    # Each target has a carried state of its own.
    shares_sums = False
    # The form that chunks were measured in.
    factors_on_weights = False

    def __init__(
        self,
        cascade: Cascade,
        ranks: Ranks,
        axes: list[Axis],
        available: frozenset[str],
        rows: frozenset[str],
    ) -> None:
        super().__init__(cascade, ranks, axes, available, rows, may_root=False)
        (self.row,) = (a.name for a in axes if a.role is Role.TILE)
        assert self.stream is not None
        self.col: str = self.stream
        self.ordered = ordered(cascade)
        self.ascending: bool | None = None
        self.member = ""
        self.target = ""
        self.solved: X | None = (
            None  # the target at the columns of its own chunk, where it reads itself
        )
        self.outer: Expr = Const(1.0)  # what multiplies the sum in which it does
        self.matrix: Expr | None = None  # what multiplies it there
        self.later: list[Callable[[], None]] = []  # what waits until it is known
        self.restarted: Mapping[str, Restart] = {}  # sums that begin anew, each with its partner
        self.begun: frozenset[str] = frozenset()  # the reductions that they are made of
        self.direct: set[Read] = set()  # reads of them as they are
        self.carried: list[t.Stmt] = []  # the states themselves
        self.updates: list[t.Stmt] = []  # at the end of a chunk

    def sum_made(self, state: State, d: Define, body: Expr, where: Expr | None) -> None:
        seen = reach(where, self.row, self.col, self.ordered)
        if self.ascending not in (None, seen.ascending):
            if d.tensor == self.target:
                raise NotLinear("sums run in both directions", d.span)
            raise Needs(d.tensor, f"`{d.tensor}` is summed in the other direction")
        self.ascending = seen.ascending
        if runs(self, body, where):
            running(self, state, d, body, seen)
            return
        for term in Splitter(self.row, self.col, self.seen, self.ordered).terms(body):
            self.carry(state, d, term, seen)

    def running_extreme(self, state: State, d: Define, body: Expr, where: Expr | None) -> bool:
        seen = reach(where, self.row, self.col, self.ordered)
        if self.ascending not in (None, seen.ascending):
            raise NotLinear("sums run in both directions", d.span)
        if self.row in free(body) or seen.row is not None or seen.same or not seen.itself:
            raise NotLinear(f"`{d.tensor}` is no extreme of all that came before", d.span)
        self.ascending = seen.ascending
        running(self, state, d, body, seen)
        return True

    def product_apart(
        self, axis: str, factors: list[Expr], where: Expr | None, final: bool, name: str
    ) -> X | None:
        return contracted(self, axis, factors, where, final, name)

    def sum_apart(self, state: State, d: Define, factors: list[Expr], where: Expr | None) -> bool:
        return summed(self, state, d, factors, where)

    # --- targets that read themselves at earlier points ----------------------------------------------------------

    def reads_itself(self, e: Expr) -> bool:
        """Whether an expression reads the target, directly or by way of what is computed from it on the spot."""
        return any(
            isinstance(n, Read) and (n.tensor == self.member or self.by_way(n.tensor))
            for n in walk(e)
        )

    def by_way(self, tensor: str) -> bool:
        d = self.defs.get(tensor)
        if not self.member or d is None or tensor in self.available or is_large(d.expr, self.ranks):
            return False
        return self.reads_itself(d.expr)

    def opened(self, e: Expr) -> Expr:
        """With what is computed from the target written out."""

        def rule(n: Expr) -> Expr | None:
            if isinstance(n, Read) and n.tensor != self.member and self.by_way(n.tensor):
                return self.opened(self.inlined(self.defs[n.tensor], n.subs))
            return None

        return rewrite(e, rule)

    def without_itself(self, d: Define, body: Expr, where: Expr | None) -> Expr | None:
        """The terms that go into products with the chunk; the matrix of those that read the target is for `close`."""
        if not self.reads_itself(body):
            return None if runs(self, body, where) else body
        body = self.opened(body)
        rest, times = affine(body, lambda e: isinstance(e, Read) and e.tensor == self.member)
        whole = self.defs[self.member].expr
        factor: Expr | None = Const(1.0)
        if d.tensor != self.member:
            _, factor = affine(whole, lambda e: isinstance(e, Read) and e.tensor == d.tensor)
        if times is None or factor is None or self.matrix is not None:
            raise NotLinear(f"`{self.member}` reads itself in more than one way", d.span)
        x = self.eval(times, False, "weight")
        v = masked(self, x, where, 0.0, "weight", always=True)
        self.outer = factor
        self.matrix = Val(v)
        return rest

    def read(self, e: Read, final: bool) -> X:
        if e.tensor in self.restarted and e.tensor != self.target and e not in self.direct:
            here = within(self, e)
            if here is not None:
                return here
            self.direct.add(e)
            beside = across(self, e)
            found = self.read(e, final) if beside is None else self.eval(beside, final, e.tensor)
            self.direct.discard(e)
            return found
        if e.tensor == self.member and self.carries_stream(e.subs):
            if self.solved is None:
                dims = frozenset().union(*(self.dims_of(s) for s in e.subs))
                name = self.names.fresh(self.member)
                self.solved = X(Val(name), dims, frozenset({FINAL}))
                self.made[name] = self.solved
            return self.solved
        d = self.defs.get(e.tensor)
        made_here = (
            d is not None and e.tensor not in self.available and is_large(d.expr, self.ranks)
        )
        if made_here and not final:
            raise Needs(e.tensor, f"`{e.tensor}` must be known before what a chunk leaves")
        return super().read(e, final)

    def close(self, store: t.Store) -> t.Store:
        """Solve for the target inside the chunk, `(I - matrix) x = what is known`; then do what waited for it."""
        if self.matrix is None:
            return store
        rows = self.ranks.sequence(self.defs[self.member].indices)
        where: dict[str, Expr] = {i: Position(self.row) for i in rows}
        outer = self.eval(
            at_positions(self.outer, self.defs[self.member], where, self), True, "factor"
        )
        matrix = self.names.fresh("matrix")
        assert isinstance(self.matrix, Val)
        dims = self.order(frozenset({self.row, self.col}))
        product = Binary("*", Val(self.matrix.name), self.bind(outer, "factor").expr)
        self.epilogue.append(t.Compute(matrix, dims, DType.FLOAT, product))
        subs = tuple(Position(self.col) if s == Position(self.row) else s for s in store.subs)
        x = self.read(Read(self.member, subs), True)
        assert isinstance(x.expr, Val)
        ascending = self.ascending is not False
        solve = t.Solve(x.expr.name, self.order(x.dims), matrix, store.value, ascending)
        self.epilogue.append(solve)
        for action in self.later:
            action()
        bounds = tuple(self.col if a == self.row else a for a in store.bounds)
        return dataclasses.replace(store, subs=subs, value=x.expr.name, bounds=bounds)

    def seen(self, e: Read) -> Expr | None:
        """What a tensor over rows and columns is made of."""
        d = self.defs.get(e.tensor)
        if d is None or e.tensor in self.available or d.init is not None:
            return None
        return None if is_large(d.expr, self.ranks) else self.inlined(d, e.subs)

    def reference(self, a: Expr, b: Expr) -> X | None:
        """What both sides of an exponent inside a chunk are near: the columns' side where the chunk begins.

        They are where the exponent is 0 at one point, or of sums that begin anew. A score and a running maximum may be
        far apart, and either without bound.
        """
        names = reads(a) | reads(b)
        if names and names <= self.restarted.keys() and all(map(self.in_chunk, names)):
            return X(Const(0.0))  # they are sums of the chunk
        for e, other in ((a, b), (b, a)):
            if self.col not in free(e) or self.row in free(e):
                continue
            alike = positions(at(e, self.col, Position(self.row))) == positions(other)
            if alike or names <= self.restarted.keys():
                begin = self.anchor(Origin(self.row)).inside
                return self.eval(at(e, self.col, begin), False, "reference")
        return None

    def in_chunk(self, tensor: str) -> bool:
        """Whether a restarting sum is added up where it is read."""
        return at_hand(self.cascade, self.ranks, tensor, self.restarted[tensor])

    # --- anchors: where a state stands ---------------------------------------------------------------------------

    @property
    def before(self) -> Anchor:
        """The anchor of the state as a chunk finds it."""
        first, size = Origin(self.row), Block(self.row)
        return self.anchor(
            Binary("-", first, Const(1)) if self.ascending else Binary("+", first, size)
        )

    @property
    def after(self) -> Anchor:
        """The anchor of the state as a chunk leaves it."""
        first, size = Origin(self.row), Block(self.row)
        last = Binary("-", Binary("+", first, size), Const(1))
        return self.anchor(last if self.ascending else first)

    @property
    def middle(self) -> Anchor:
        """The anchor inside a chunk."""
        half = Binary("//", Block(self.row), Const(2))
        return self.anchor(Binary("+", Origin(self.row), half))

    def anchor(self, place: Expr) -> Anchor:
        last = Binary("-", Extent(self.axes[self.col].rank), Const(1))
        return Anchor(place, Call("min", (Call("max", (place, Const(0))), last)))

    def from_before(self, gate: Gate) -> Expr:
        """What a gate leaves of the state on the way to a row.

        Before the first chunk there is no state, and none of its anchor either: a point that stands in for it may lie
        after a row, `exp(C[0] - C[1])`, and such an exponent has no bound. What multiplies a state of 0 must be finite.
        """
        e, anchor = gate.at_row(self.col, self.before), self.before
        if gate.meets(self.row, self.col):
            return e
        return Select(Compare("==", anchor.place, anchor.inside), e, Const(0.0))

    # --- one term ------------------------------------------------------------------------------------------------

    def carry(self, state: State, d: Define, term: Term, seen: Reach) -> None:
        """Give a running sum the columns before the chunk, and keep those of the chunk for the next."""
        col, axis = self.col, None
        if term.over is not None:
            axis = self.full_axis(term.over, frozenset(state.dims))
            here: dict[str, Expr] = {term.over: Position(axis)}
        else:
            here = {}

        def product(parts: Iterable[Expr]) -> list[Expr]:
            return [substitute(p, here) for p in parts]

        name = d.tensor
        left = product([*term.left, *map(self.from_before, term.inner)])
        right = product([*term.right, *(g.at_column(col, self.after) for g in term.inner)])
        row = product([*term.row, *map(self.from_before, term.gates)])
        row = seen.to_row(col, self.before, row)
        column = product([*term.column, *(g.at_column(col, self.after) for g in term.gates)])
        column = seen.from_column(col, self.after, column)
        inner = product(g.across(col, self.before, self.after) for g in term.inner)
        outer = product(g.across(col, self.before, self.after) for g in term.gates)
        outer = seen.across(col, self.before, self.after, outer)

        kept = tuple(a for a in state.dims if a != self.row)
        if len(kept) > 1:
            raise NotLinear(f"`{name}` keeps {len(kept)} features beside its rows", d.span)
        if any(self.dims_of(f) - {col} - set(kept) for f in column) or any(
            self.dims_of(f) - {self.row} - set(kept) for f in row
        ):
            raise NotLinear(f"a factor of `{name}` spans features that it does not keep", d.span)
        if axis is not None:  # a product of tiles has the features that its sides have, no more
            kept = tuple(a for a in kept if any(a in self.dims_of(f) for f in column))
            if any(self.dims_of(f) & set(state.dims) - {self.row, *kept} for f in outer + inner):
                raise NotLinear(f"`{name}` decays by features that nothing it sums has", d.span)
        dims = self.order(frozenset(kept) | (frozenset({axis}) if axis else frozenset()))
        decay = self.eval(product_of([*outer, *inner]), False, "decay") if outer or inner else None
        # A distance is that to the anchor and that from it on: of the second, the columns' part is a state of its own.
        parts: list[tuple[list[Expr], list[Expr]]] = [(row, column)]
        if term.far is not None:
            to_row = term.far.to_row(col, self.before.place)
            since = term.far.between(Position(col), self.after.place)
            parts = [(row, [*column, since]), ([*row, to_row], column)]
        held = [self.names.fresh(f"{name}_state") for _ in parts]
        for h, (rows, _) in zip(held, parts, strict=True):
            self.carried.append(t.Declare(h, dims, DType.FLOAT, Const(0.0)))
            self.read_state(state, h, dims, axis, left, (rows, seen.row), name)
        if term.far is not None:
            step = term.far.between(self.before.place, self.after.place)
            further = Binary("*", Val(held[1]), self.bind(self.eval(step), "step").expr)
            self.updates.append(t.Assign(held[0], Binary("+", Val(held[0]), further)))
        for h, (_, columns) in zip(held, parts, strict=True):
            write = partial(self.write_state, h, dims, axis, (right, columns), decay, seen)
            if any(map(self.reads_itself, columns)):
                self.later.append(write)
            else:
                write()

    def read_state(
        self,
        state: State,
        held: str,
        dims: tuple[str, ...],
        axis: str | None,
        left: list[Expr],
        rows: tuple[list[Expr], Expr | None],
        name: str,
    ) -> None:
        """`state += sum[axis](left * held) * row`, at the head of a chunk, for the rows that see any column."""
        row, seeing = rows
        scale = self.bind(self.eval(product_of(row), False, "reach"), "reach").expr if row else None
        past: Expr = Val(held)
        if axis is not None:
            x = self.eval(product_of(left), False, "left")
            v = self.value(x, "left")
            out = self.names.fresh("past")
            like = bare_like(self, left)
            if len(dims) == 2:
                self.prologue.append(t.Dot(out, state.dims, v, held, axis, like))
            elif is_load(self, v):
                kept = self.order(frozenset({self.row}))
                self.prologue.append(t.Dot(out, kept, v, held, axis, like, exact=True))
            else:
                both = self.names.fresh("past")
                span = self.order(frozenset({self.row, axis}))
                self.prologue.append(
                    t.Compute(both, span, DType.FLOAT, Binary("*", Val(v), Val(held)))
                )
                kept = self.order(frozenset({self.row}))
                self.prologue.append(t.Fold(out, kept, Reduction.SUM, both, axis))
            past = Val(out)
        more = past if scale is None else Binary("*", past, scale)
        if seeing is not None:
            keep = self.bind(self.eval(seeing, False, "keep"), "keep").expr
            more = Select(keep, more, Const(0.0))
        self.prologue.append(t.Assign(state.name, Binary("+", Val(state.name), more)))

    def write_state(
        self,
        held: str,
        dims: tuple[str, ...],
        axis: str | None,
        sides: tuple[list[Expr], list[Expr]],
        decay: X | None,
        seen: Reach,
    ) -> None:
        """`held = held * decay + sum[col](right * column)`, at the end of a chunk."""
        right, column = sides
        scale = None if decay is None else self.value(decay, "decay")
        if len(dims) == 2:
            assert axis is not None
            a = self.operand(right, seen, "right")
            b = self.operand(column, seen, "column")
            pair = (a, b) if dims[0] == axis else (b, a)
            like = bare_like(self, right + column)
            self.updates.append(t.AccDot(held, *pair, self.col, like, scale))
            return
        old: Expr = Val(held) if scale is None else Binary("*", Val(held), Val(scale))
        chunk = self.weighed(right + column, seen) or self.folded(right + column, seen)
        self.updates.append(t.Assign(held, Binary("+", old, chunk)))

    def folded(self, factors: list[Expr], seen: Reach) -> Expr:
        """What a chunk leaves of one number for each feature."""
        x = self.eval(product_of(factors), False, "column")
        v = masked(self, x, seen.column, 0.0, "column", always=True)
        tile = X(Val(v), self.dims_of_value(v), frozenset({STREAMED}))
        return fold(self, Reduction.SUM, v, tile, self.col, "chunk").expr

    def weighed(self, factors: list[Expr], seen: Reach) -> Expr | None:
        """The same as a product of a tile as it lies in memory with one number for each position; None if it is none.

        Such a tile waits where products take it from. Summed up in registers it would be there a second time.
        """
        every = factors_of(self, product_of(factors), frozenset({self.col}))
        tiles = [f for f in every if len(self.dims_of(f)) == 2]
        rest = [f for f in every if f not in tiles]
        if len(tiles) != 1 or any(self.dims_of(f) - {self.col} for f in rest):
            return None
        x = self.eval(tiles[0], False, "column")
        v = self.value(x, "column")
        if not is_load(self, v) or FINAL in x.on:
            return None
        parts = [mask_of(self, seen.column), self.eval(product_of(rest), False), X(Const(0.0))]
        weight = self.value(self.combine(CHOICE, parts, DType.FLOAT, "weight"), "weight")
        out = self.names.fresh("chunk")
        kept = self.order(x.dims - {self.col})
        dot = t.Dot(out, kept, v, weight, self.col, bare_like(self, tiles), exact=True)
        self.place(x.on).append(dot)
        return Val(out)

    def operand(self, group: list[Expr], seen: Reach, name: str) -> str:
        """One side of what a chunk leaves; 0 where there is no column."""
        x = self.eval(product_of(group), False, name)
        v = self.value(x, name)
        if seen.column is None and any(
            isinstance(s, t.Load) and s.name == v for s in (*self.prologue, *self.sweep)
        ):
            return v
        if FINAL in x.on:
            keep = mask_of(self, seen.column)
            kept = self.combine(CHOICE, [keep, x, X(Const(0.0))], DType.FLOAT, name)
            return self.value(kept, name)
        return masked(self, x, seen.column, 0.0, name, always=True)


def affine(e: Expr, target: Callable[[Expr], bool]) -> tuple[Expr | None, Expr | None]:
    """What an expression is without the target, and what the target is multiplied by; None for nothing.

    Raises: NotLinear.
    """

    def both(
        f: Callable[[Expr], Expr], parts: tuple[Expr | None, Expr | None]
    ) -> tuple[Expr | None, Expr | None]:
        return tuple(None if p is None else f(p) for p in parts)  # type: ignore[return-value]

    def plus(op: str, a: Expr | None, b: Expr | None) -> Expr | None:
        if b is None:
            return a
        return Binary(op, Const(0.0) if a is None else a, b)

    if not any(target(n) for n in walk(e)):
        return e, None
    if target(e):
        return None, Const(1.0)
    match e:
        case Unary("-", a):
            return both(lambda x: Unary("-", x), affine(a, target))
        case Binary("+" | "-" as op, a, b):
            (x, p), (y, q) = affine(a, target), affine(b, target)
            return plus(op, x, y), plus(op, p, q)
        case Binary("*", a, b) if not any(target(n) for n in walk(a)):
            return both(lambda x: Binary("*", a, x), affine(b, target))
        case Binary("*", a, b) if not any(target(n) for n in walk(b)):
            return both(lambda x: Binary("*", x, b), affine(a, target))
        case Binary("/", a, b) if not any(target(n) for n in walk(b)):
            return both(lambda x: Binary("/", x, b), affine(a, target))
        case _:
            raise NotLinear("it is not linear in itself", e.span)


def at_positions(e: Expr, d: Define, where: dict[str, Expr], b: Builder) -> Expr:
    """An expression over a definition's indices, at the kernel's axes."""
    here = {i: where.get(i, Position(b.ranks.of.get(i, i))) for i in d.indices}
    return substitute(e, here)


def assemble(
    b: ChunkBuilder, name: str, stores: list[t.Stmt], writes: tuple[str, ...]
) -> t.TileProgram:
    """One sweep over chunks of everything that was built for a tile of rows."""
    row, col = b.row, b.col
    top, moving = _moving(b.prologue, row)
    body = (*moving, *masked_body([*b.sweep, *b.commits]), *b.epilogue, *stores, *b.updates)
    lo, hi = b.names.fresh("lo"), b.names.fresh("hi")
    ends = [Extent(b.axes[a].rank) for a in (row, col)]
    end: Expr = ends[0] if ends[0] == ends[1] else Call("max", tuple(ends))
    top += [
        t.Compute(lo, (), DType.INT, Const(0)),
        t.Compute(hi, (), DType.INT, end),
        *b.carried,
    ]
    roles = {row: Role.STREAM, col: Role.PAIR}
    axes = tuple(
        dataclasses.replace(b.axes[a], role=roles.get(a, b.axes[a].role)) for a in b.sorted_axes()
    )
    axes, body = in_tiles(axes, body)
    ascending = b.ascending is not False
    sweep = t.Sweep(row, (t.Range(lo, hi, True, body),), descending=not ascending)
    return t.TileProgram(
        name, axes, tuple(b.read_buffers), writes, tuple(b.params), tuple(top), (), sweep, ()
    )


def _moving(body: list[t.Stmt], row: str) -> tuple[list[t.Stmt], list[t.Stmt]]:
    """Statements that are the same for every chunk, and those that are not."""
    top: list[t.Stmt] = []
    moving: list[t.Stmt] = []
    names: set[str] = set()
    for s in body:
        if _depends(s, row) or used(s) & names:
            moving.append(s)
            names |= _made(s)
        else:
            top.append(s)
    return top, moving


def _depends(s: SweepStmt, row: str) -> bool:
    if isinstance(s, t.For):
        return any(_depends(x, row) for x in s.body)
    dims = getattr(s, "dims", ())
    exprs = [getattr(s, "expr", None), *getattr(s, "subs", ())]
    return row in dims or any(e is not None and t.stands_on(e, row) for e in exprs)


def _made(s: t.Stmt) -> set[str]:
    if isinstance(s, t.For):
        return set().union(*(_made(x) for x in s.body))
    name = getattr(s, "name", None)
    return {name} if isinstance(name, str) else set()
