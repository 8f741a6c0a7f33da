"""Programs whose recurrences have no faster form: one position after the other.

    M[t,e,f] = b[t] * M[t-1,e,f] + K[t,e] * V[t,f];   H[t,e,f] = a[t] * H[t-1,e,f] + M[t,e,f]

One program for each point of the batch, and for each tile of columns where no entry of one column asks for another,
carries the states and walks the sequence. It takes as many steps as there are positions, so it comes last: where a
recurrence is a sum over its past (`cascade.unroll`), chunks of it are computed at once.

States that run the other way and ask for these (gradients) need every one of them again, from the last to the first.
A first kernel stores the states at the beginning of every block of positions; a second goes through the blocks from the
last, makes the states of one again, into a buffer that the next block takes over, and walks back through them.

source: checkpoints, Griewank 1992 (Optimization Methods and Software 1), of which this is the form with one level
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attndsl.analysis.ranks import Kind, Ranks, alike, classify, declared_rank
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Position,
    Read,
)
from attndsl.cascade.types import Types, time_axis
from attndsl.cascade.unroll import reason
from attndsl.cascade.walk import reads
from attndsl.schedule import tile as t
from attndsl.schedule.beside import is_counted, side_by_side
from attndsl.schedule.kernels import finish_kernel
from attndsl.schedule.outcomes import Needs, Refused
from attndsl.schedule.prepare import as_declared
from attndsl.schedule.tile import Axis, Buffer, BufferKind, HostSum, Plan, Role, Val
from attndsl.schedule.values import X
from attndsl.schedule.walk_targets import Column, Target, columns_of, targets_of
from attndsl.schedule.walked import WalkBuilder

# Positions to a block: the states of one are kept twice for every so many positions.
BLOCK = 64
BLOCKS, STEPS = ".blocks", ".steps"


def recurs(c: Cascade) -> bool:
    """Whether a cascade has recurrences left."""
    return any(d.init is not None and time_axis(d) is not None for d in c.body)


def with_features(c: Cascade, known: dict[str, Kind] | None) -> dict[str, Kind]:
    """`known`, and what a state has behind its time: features, which a program holds whole."""
    kinds = dict(known or {})
    if not recurs(c):
        return kinds
    of = declared_rank(c)
    groups = alike(c, of)
    for d in c.body:
        axis = time_axis(d) if d.init is not None else None
        if axis is None:
            continue
        for i in d.indices[d.indices.index(axis[0]) + 1 :]:
            group = next((g for g in groups if of.get(i, i) in g), {of.get(i, i)})
            if not group & {*c.batch}:
                for r in group:
                    kinds.setdefault(r, Kind.FEATURE)
    return kinds


def plan_walks(
    cascade: Cascade,
    name: str,
    residuals: tuple[str, ...],
    like: dict[str, str],
    known: dict[str, Kind] | None,
) -> Plan:
    """The kernels of a pass that walks positions.

    Raises: Refused, with the reason.
    """
    c = explicit_domains(as_declared(side_by_side(cascade)))
    ranks = classify(c, with_features(c, known))
    long = dict.fromkeys(ranks.of.values())
    kinds = ranks.kinds | {r + BLOCKS: Kind.BATCH for r in long}
    of = ranks.of | {r + BLOCKS: r + BLOCKS for r in long} | {r + STEPS: r for r in long}
    ranks = Ranks(kinds, of)
    try:
        return _Walks(c, ranks, name, residuals, like).plan()
    except Needs as need:  # a walk is one kernel: there is none before it
        raise Refused("A0404", f"{need.why}, and walks one position after the other") from None


@dataclass(slots=True)
class _Walks:
    c: Cascade
    ranks: Ranks
    name: str
    residuals: tuple[str, ...]
    like: dict[str, str]

    def plan(self) -> Plan:
        c = self.c
        first, second = self.directions()
        for d in (*first, *second):
            others = [
                i for i in self.ranks.sequence(d.indices) if self.ranks.of.get(i, i) != self.time
            ]
            if others:
                raise Refused(
                    "A0404", f"the state `{d.tensor}` keeps the sequence `{others[0]}`", d.span
                )
        for d in (*first, *second):
            small = [i for i in d.indices if self.ranks.kind(i) is Kind.FEATURE]
            if len(small) > 2 and is_counted(c, d):
                why = f"the states in `{d.tensor}` stand side by side, and are no output"
                raise Refused("A0404", why, d.span)
            if len(small) > 2:
                why = f"the state `{d.tensor}` has {len(small)} features, and a program holds two"
                raise Refused("A0404", why, d.span)
        column = self.column
        down = self.axis_of((second or first)[0])[1] < 0
        targets = targets_of(c, self.ranks, self.time, down, column)
        steps: list[t.Step] = []
        if second:
            steps.append(self.checkpoints(first, column))
            steps.append(self.back(first, second, targets, column))
        else:
            steps.append(self.forward(first, targets, column))
        steps += [
            HostSum(x.d.tensor, x.written, tuple(range(len(x.extra)))) for x in targets if x.extra
        ]
        every = [d.tensor for d in (*first, *second)]
        names = ", ".join(f"`{x}`" for x in every)
        notes = [f"{names}: |{self.time}| steps, one position after the other"]
        notes.append("no faster form: " + reason(c, first[0].tensor))
        blocks = [(self.number, self.time, BLOCK), (self.place, "", BLOCK)] if second else []
        if column is not None:
            blocks.append((column.number, column.rank, column.width))
        buffers = self.buffers(first if second else (), targets)
        used = {r for b in buffers for r in b.ranks}
        axes = {a.rank for s in steps if isinstance(s, t.TileProgram) for a in s.axes}
        kept = tuple(b for b in blocks if b[0] in used | axes or second)
        params = tuple((p.name, p.dtype) for p in c.params)
        return Plan(self.name, buffers, tuple(steps), params, tuple(notes), kept)

    # --- what there is -----------------------------------------------------------------------------------------------

    @property
    def recurrences(self) -> list[Define]:
        return [d for d in self.c.body if d.init is not None and time_axis(d) is not None]

    def axis_of(self, d: Define) -> tuple[str, int]:
        axis = time_axis(d)
        assert axis is not None
        return self.ranks.of.get(axis[0], axis[0]), axis[1]

    @property
    def time(self) -> str:
        """The rank that is walked.

        Raises: Refused, where there are several.
        """
        found = {self.axis_of(d)[0] for d in self.recurrences}
        if len(found) > 1:
            names = " and ".join(f"`{r}`" for r in sorted(found))
            raise Refused("A0401", f"recurrences run over {names}", self.recurrences[-1].span)
        return found.pop()

    @property
    def column(self) -> Column | None:
        return columns_of(self.c, self.ranks)

    @property
    def number(self) -> str:
        return self.time + BLOCKS

    @property
    def place(self) -> str:
        return self.time + STEPS

    def directions(self) -> tuple[list[Define], list[Define]]:
        """The recurrences that run one way and need no others, and those that run the other way.

        Raises: Refused, where both need each other.
        """
        up = [d for d in self.recurrences if self.axis_of(d)[1] > 0]
        down = [d for d in self.recurrences if self.axis_of(d)[1] < 0]
        if not up or not down:
            return (up or down), []
        for first, second in ((up, down), (down, up)):
            theirs = {d.tensor for d in second}
            if not any(self.needs(d) & theirs for d in first):
                return first, second
        raise Refused("A0401", "recurrences that run both ways ask for each other", up[0].span)

    def needs(self, d: Define) -> set[str]:
        """Every tensor that a recurrence is made of."""
        defs = {x.tensor: x for x in self.c.body}
        seen: set[str] = set()
        todo = [d]
        while todo:
            x = todo.pop()
            for e in (x.expr, x.init, x.where):
                for n in reads(e) if e is not None else ():
                    if n not in seen:
                        seen.add(n)
                        if n in defs:
                            todo.append(defs[n])
        return seen

    def grid(self) -> list[str]:
        """The batch ranks that something here has, those declared first."""
        c, of = self.c, self.ranks.of
        found = [of.get(i, i) for d in c.body for i in d.indices]
        batch = [r for r in dict.fromkeys(found) if self.ranks.kind(r) is Kind.BATCH]
        return sorted(batch, key=lambda r: c.batch.index(r) if r in c.batch else len(c.batch))

    def builder(self, column: Column | None) -> WalkBuilder:
        axes = [Axis(r, r, Role.GRID) for r in self.grid()]
        if column is not None:
            axes.append(Axis(column.rank, column.rank, Role.TILE, column.width))
        return WalkBuilder(self.c, self.ranks, axes, self.time)

    def buffers(self, kept: Sequence[Define], targets: Sequence[Target]) -> tuple[Buffer, ...]:
        c, of = self.c, self.ranks.of
        out = [Buffer(i.name, i.ranks, BufferKind.INPUT, i.dtype) for i in c.inputs]
        types = Types(c)
        for d in kept:
            for name, rank in ((before(d), self.number), (inside(d), self.place)):
                out.append(Buffer(name, self.stored(d, rank), BufferKind.TEMP))
        for x in targets:
            ranks = tuple(of.get(i, i) for i in x.d.indices)
            kind = BufferKind.RESIDUAL if x.d.tensor in self.residuals else BufferKind.OUTPUT
            if x.extra:
                out.append(Buffer(x.written, (*x.extra, *ranks), BufferKind.TEMP))
            dtype = types.tensors[x.d.tensor]
            out.append(Buffer(x.d.tensor, ranks, kind, dtype, self.like.get(x.d.tensor)))
        return tuple(out)

    def stored(self, d: Define, rank: str) -> tuple[str, ...]:
        """The ranks of states in memory: the batch, their time as the number of a block or a place in one, features.

        Features lie as they do in a kernel, where columns stand first.
        """
        of, column = self.ranks.of, self.column
        ranks = [of.get(i, i) for i in d.indices if of.get(i, i) != self.time]
        batch = [r for r in ranks if self.ranks.kind(r) is Kind.BATCH]
        small = sorted(r for r in ranks if r not in batch)
        if column is not None and column.rank in small:
            small = [column.rank, *(r for r in small if r != column.rank)]
        return (*batch, rank, *small)

    # --- kernels -----------------------------------------------------------------------------------------------------

    def forward(
        self, states: list[Define], targets: Sequence[Target], column: Column | None
    ) -> t.TileProgram:
        """The walk from the first state to the last."""
        b = self.builder(column)
        carried = {d.tensor: b.declared(d) for d in states}
        totals = [x.begin(b) for x in targets]
        down = self.axis_of(states[0])[1] < 0
        with b.walk(self.time, self.time, Const(0), Extent(self.time), down):
            self.turn(b, states, carried, targets, totals)
        stores = [s for x, held in zip(targets, totals, strict=True) for s in x.end(b, held)]
        return self.finished(b, self.name, [x.written for x in targets], stores)

    def turn(
        self,
        b: WalkBuilder,
        states: list[Define],
        carried: dict[str, str],
        targets: Sequence[Target] = (),
        totals: Sequence[str | None] = (),
    ) -> None:
        """One position: what is made there, and the states after it."""
        for d in states:
            b.hold(d, -self.axis_of(d)[1], carried[d.tensor])
        for x, held in zip(targets, totals, strict=True):
            x.each(b, held)
        here = Position(b.here)
        made = []
        for d in states:
            new = b.read(Read(d.tensor, b.at(d, here)), False)
            made.append(t.Assign(carried[d.tensor], new.expr, span=d.span))
        b.turn.extend(made)
        b.forget()

    def checkpoints(self, states: list[Define], column: Column | None) -> t.TileProgram:
        """The walk that stores the states before each block of positions."""
        b = self.builder(column)
        carried = {d.tensor: b.declared(d) for d in states}
        down = self.axis_of(states[0])[1] < 0
        with b.walk("block", self.number, Const(0), Extent(self.number), down):
            block = Position("block")
            b.forget()
            for d in states:
                b.turn.append(self.store(b, d, before(d), block, carried[d.tensor]))
            with b.walk(self.time, self.place, *self.ends(block), down):
                self.turn(b, states, carried)
        return self.finished(b, f"{self.name}_states", [before(d) for d in states], [])

    def back(
        self,
        first: list[Define],
        second: list[Define],
        targets: Sequence[Target],
        column: Column | None,
    ) -> t.TileProgram:
        """The walk of the second states, which makes the first again, block by block."""
        b = self.builder(column)
        carried = {d.tensor: b.declared(d) for d in second}
        totals = [x.begin(b) for x in targets]
        down = self.axis_of(second[0])[1] < 0
        again = f"{self.time}_again"
        with b.walk("block", self.number, Const(0), Extent(self.number), down):
            block = Position("block")
            start = Binary("*", block, Const(BLOCK))
            states: dict[str, str] = {}
            for d in first:
                states[d.tensor] = b.declared(d, self.load(b, d, before(d), block))
            with b.walk(again, self.place, *self.ends(block), not down):
                b.forget()
                place = Binary("-", Position(again), start)
                for d in first:
                    b.turn.append(self.store(b, d, inside(d), place, states[d.tensor]))
                self.turn(b, first, states)
            b.turn.append(t.Fence())
            with b.walk(self.time, self.place, *self.ends(block), down):
                place = Binary("-", Position(self.time), start)
                b.forget()
                for d in first:
                    past = self.load(b, d, inside(d), place)
                    assert isinstance(past.expr, Val)
                    b.hold(d, -self.axis_of(d)[1], past.expr.name)
                self.turn(b, second, carried, targets, totals)
            b.turn.append(t.Fence())
        stores = [s for x, held in zip(targets, totals, strict=True) for s in x.end(b, held)]
        writes = [*(inside(d) for d in first), *(x.written for x in targets)]
        return self.finished(b, self.name, writes, stores)

    def ends(self, block: Expr) -> tuple[Expr, Expr]:
        """The first position of a block, and the one after its last."""
        start = Binary("*", block, Const(BLOCK))
        return start, Call("min", (Binary("+", start, Const(BLOCK)), Extent(self.time)))

    def places(
        self, b: WalkBuilder, d: Define, at: Expr
    ) -> tuple[tuple[Expr, ...], tuple[str, ...]]:
        """Subscripts of a state in memory, and those of its axes that may reach past an end."""
        where = b.bind(b.eval(at), "at").expr
        dims = b.dims_of_state(d)
        batch = [s for s in b.at(d, where) if s != where and s.name not in dims]  # type: ignore[union-attr]
        return (*batch, where, *map(Position, dims)), dims

    def store(self, b: WalkBuilder, d: Define, tensor: str, at: Expr, value: str) -> t.Store:
        subs, bounds = self.places(b, d, at)
        return t.Store(tensor, subs, value, bounds, span=d.span)

    def load(self, b: WalkBuilder, d: Define, tensor: str, at: Expr) -> X:
        subs, bounds = self.places(b, d, at)
        name = b.names.fresh(f"{d.tensor}_before")
        dims = b.dims_of_state(d)
        b.turn.append(t.Load(name, dims, DType.FLOAT, tensor, subs, bounds, span=d.span))
        if tensor == before(d):
            b.read_buffers[tensor] = None
        return X(Val(name), frozenset(dims), frozenset({b.here}))

    def finished(
        self, b: WalkBuilder, name: str, writes: list[str], stores: list[t.Stmt]
    ) -> t.TileProgram:
        return finish_kernel(b, name, stores, tuple(writes), (), "forward")


def before(d: Define) -> str:
    """The buffer of a state before each block."""
    return f"{d.tensor}.blocks"


def inside(d: Define) -> str:
    """The buffer of a state before each position of one block."""
    return f"{d.tensor}.steps"
