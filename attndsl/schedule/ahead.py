"""What a chunk can compute before its state is known, in a kernel of its own, of all chunks at once.

    walk:   U = k . H * reach + A . V;   x = (I - M)^-1 U;   H = H * decay + k . x
    ->
    ahead:  w = (I - M)^-1 (k * reach);  x' = (I - M)^-1 (A . V)                 every chunk at once
    walk:   x = w . H + x';              H = H * decay + k . x                   one chunk after the other

A kernel by chunks takes them in turn, for the state that they carry; for whatever else it does to a chunk, the next one
waits. What does not depend on the state is computed ahead, by a kernel without a sweep, and read from memory. A value
that is linear in the state, as the solution of a triangular system is, goes in two parts: what the state is multiplied
by, and the rest. The two kernels have chunks of the same length (`TileProgram.follows`).

It costs memory that is written and read once, so it pays only where much work leaves the walk (`cost`).

source: Yang et al. 2024 (arXiv:2406.06484), section 3.2, derived for any tile program that carries a state
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from attndsl.cascade.nodes import Binary, Call, DType, Expr, Position
from attndsl.cascade.walk import walk
from attndsl.schedule import tile as t
from attndsl.schedule.carried import Split, live, updated
from attndsl.schedule.feature_tiles import in_tiles
from attndsl.schedule.liveness import flat
from attndsl.schedule.specialise import defined, used
from attndsl.schedule.tile import Role, Val
from attndsl.source import Span

# What a turn of a walk takes, in loads of a tile of 16 bits: a product as much as a load, a triangular system as the
# products that it takes in a row, exponentials of a tile half, a loop over points the registers that it holds even
# where it is not run. Every chunk of a kernel ahead runs beside others: there memory counts, and half.
# Estimates by which what was measured faster comes out so: benchmarks/results/linear-delta.json.
SYSTEM = 12.0
LOOP = 2.0
EXPONENTIAL = 0.5
BESIDE = 0.5
EXACT = 3.0


@dataclass(slots=True)
class Cut:
    """What is stored ahead and loaded in the walk."""

    split: Split
    known: dict[str, t.Buffer]
    made: list[t.Buffer] = field(default_factory=list)
    stores: list[t.Store] = field(default_factory=list)
    loads: dict[str, t.Load] = field(default_factory=dict)

    def load(self, value: str, what: str, like: str | None, span: Span | None) -> t.Load:
        """A value of the kernel ahead, in the storage type of `like`, as a load of the walk."""
        if value in self.loads:
            return self.loads[value]
        program, dims = self.split.program, self.split.dims[value]
        axes = [a for a in program.axes if a.role is Role.GRID or a.name in dims]
        axes.sort(key=lambda a: a.role is not Role.GRID)
        taken = {*self.known, *(b.name for b in self.made)}
        tensor = base = f"{program.writes[-1]}.{what}"
        k = 2
        while tensor in taken:
            tensor, k = f"{base}_{k}", k + 1
        subs = tuple(Position(a.name) for a in axes)
        shape = tuple(a.rank for a in axes)
        self.made.append(t.Buffer(tensor, shape, t.BufferKind.TEMP, DType.FLOAT, like))
        self.stores.append(t.Store(tensor, subs, value, dims, span=span))
        load = t.Load(self.split.fresh(value), dims, DType.FLOAT, tensor, subs, dims, span=span)
        self.loads[value] = load
        return load

    def type_of(self, s: t.Dot | t.AccDot) -> str | None:
        """The input whose storage type a product's operands have; None where nothing is rounded."""
        if s.exact:
            return None
        b = self.known[s.like]
        return b.name if b.kind is t.BufferKind.INPUT and b.like is None else b.like

    def solved(self, s: t.Solve) -> list[t.Stmt] | None:
        """A solution as products of states with what is loaded, and what is loaded besides."""
        if s.matrix in self.split.moving or s.right not in self.split.moving:
            return None
        found = self.split.parts(s.right)
        if found is None or not found[0]:
            return None
        parts, rest = found
        first = parts[0].product
        like = None if first.exact else first.like
        out: list[t.Stmt] = []

        def through(value: str, axis: str, what: str) -> str:
            name = self.split.fresh(value)
            self.split.keep(t.Solve(name, (s.dims[0], axis), s.matrix, value, s.lower, like))
            load = self.load(name, what, self.type_of(first), s.span)
            out.append(load)
            return load.name

        total: Expr = Val(through(rest, s.dims[1], "rest"))
        for p in parts:
            left = through(p.left, p.product.over, "of")
            past = self.split.fresh("past")
            out.append(dataclasses.replace(p.product, name=past, dims=s.dims, left=left))
            total = Binary("+", total, Val(past))
        out.append(t.Compute(s.name, s.dims, DType.FLOAT, total, span=s.span))
        return out

    def operands(self, s: t.Dot | t.AccDot) -> list[t.Stmt]:
        """A product with the state, or into it, with operands that are computed for nothing else loaded."""
        program, out = self.split.program, list[t.Stmt]()
        computed = {x.name for x in self.split.body if isinstance(x, t.Compute)}
        rows = {a.name for a in program.axes if a.role in (Role.STREAM, Role.PAIR)}
        for side in ("left", "right"):
            value: str = getattr(s, side)
            dims = self.split.dims.get(value, ())
            if (
                value in computed - self.split.moving
                and len(dims) == 2
                and len(rows & {*dims}) == 1
            ):
                load = self.load(value, value, self.type_of(s), s.span)
                out.append(load)
                s = dataclasses.replace(s, **{side: load.name})  # type: ignore[arg-type]
        return [*out, s]


# The kernel ahead, the walk that reads what it made, and the tensors between.
_Kernels: TypeAlias = tuple[t.TileProgram, t.TileProgram, tuple[t.Buffer, ...]]


def ahead(program: t.TileProgram, buffers: tuple[t.Buffer, ...]) -> _Kernels | None:
    """The kernel ahead, the walk that reads what it made, and the tensors between; None where it does not pay."""
    if program.sweep is None or not program.of(Role.PAIR) or len(program.sweep.ranges) != 1:
        return None
    if program.loops or program.rounds is not None:
        return None
    known = {b.name: b for b in buffers}
    best, found = cost(program.sweep.ranges[0].body, known), None
    for cut in (_systems, _everything):
        made = cut(program, known)
        if made is None:
            continue
        before, rest, new = made
        assert rest.sweep is not None
        every = {**known, **{b.name: b for b in new}}
        took = cost(rest.sweep.ranges[0].body, every)
        took += BESIDE * cost((*before.prologue, *before.epilogue), every, memory=True)
        if took < best:
            best, found = took, made
    return found


def _systems(program: t.TileProgram, known: dict[str, t.Buffer]) -> _Kernels | None:
    """The two kernels, where systems alone are solved ahead."""
    cut = _begin(program, known)
    body: list[t.Stmt] = []
    for s in cut.split.body:
        done = cut.solved(s) if isinstance(s, t.Solve) else None
        body += done if done is not None else [s]
    return _end(cut, body)


def _everything(program: t.TileProgram, known: dict[str, t.Buffer]) -> _Kernels | None:
    """The two kernels, where systems are solved ahead and all else is computed that is known."""
    cut = _begin(program, known)
    sums = _known_sums(cut)
    body: list[t.Stmt] = []
    for k, s in enumerate(cut.split.body):
        if k in sums:
            body += sums[k]
            continue
        done = cut.solved(s) if isinstance(s, t.Solve) else None
        if isinstance(s, t.Dot | t.AccDot) and (used(s) | updated(s)) & cut.split.moving:
            done = cut.operands(s)
        body += done if done is not None else [s]
    return _end(cut, body)


def _known_sums(cut: Cut) -> dict[int, list[t.Stmt]]:
    """What stands, by its place in the body, for statements that add what is known to a sum that moves."""
    split, sums = cut.split, dict[int, list[t.Stmt]]()
    like = cut.known[split.program.writes[-1]].like
    solved = {s.right for s in split.body if isinstance(s, t.Solve)}
    for s in split.body:
        if not isinstance(s, t.Declare) or s.name not in split.moving - solved:
            continue
        found = split.known_part(s.name)
        if found is None:
            continue
        rest, places = found
        load = cut.load(rest, "rest", like, s.span)
        more = t.Assign(s.name, Binary("+", Val(s.name), Val(load.name)), span=s.span)
        sums |= {k: [load, more] if k == min(places) else [] for k in places}
    return sums


def _begin(program: t.TileProgram, known: dict[str, t.Buffer]) -> Cut:
    """A cut through which nothing passes yet."""
    assert program.sweep is not None
    every = [x for s in (*program.prologue, *program.sweep.ranges[0].body) for x in flat((s,))]
    split = Split(program, {n for s in every for n in (*used(s), *updated(s), defined(s) or "")})
    split.dims = {s.name: s.dims for s in every if defined(s) is not None}  # type: ignore[union-attr]
    split.find_moving()
    return Cut(split, known)


def _end(cut: Cut, body: list[t.Stmt]) -> _Kernels | None:
    """The two kernels of a cut, of which `body` is what is left of the walk; None if nothing passes through it."""
    program = cut.split.program
    sweep = program.sweep
    assert sweep is not None
    carried = {s.name for s in program.prologue if isinstance(s, t.Declare)}
    walk_body = live(tuple(body), carried)
    read = {s.tensor for s in flat((*program.prologue, *walk_body)) if isinstance(s, t.Load)}
    stores = [s for s in cut.stores if s.tensor in read]
    if not stores:
        return None
    axes = program.axes
    if not program.of(Role.TILE):  # a sum over the features that are kept may have left the walk
        loops = {s.axis for s in flat(walk_body) if isinstance(s, t.For)}
        axes = tuple(a for a in axes if a.role is not Role.POINT or a.name in loops)
        axes, walk_body = in_tiles(axes, walk_body)
    rest_of = dataclasses.replace(
        program,
        axes=axes,
        sweep=dataclasses.replace(
            sweep, ranges=(dataclasses.replace(sweep.ranges[0], body=walk_body),)
        ),
        reads=tuple(r for r in (*program.reads, *(s.tensor for s in stores)) if r in read),
    )
    made = tuple(b for b in cut.made if b.name in read)
    return _before(cut.split, stores), rest_of, made


def _before(split: Split, stores: list[t.Store]) -> t.TileProgram:
    """The kernel ahead: what its stores need, one program for each chunk."""
    program = split.program
    assert program.sweep is not None
    first = [s for s in split.body if split.local(s)]
    body = live((*program.prologue, *first, *split.extra, *stores), set())
    over = {d for s in flat(body) for d in getattr(s, "dims", ())}
    over |= {s.axis for s in flat(body) if isinstance(s, t.For)}
    roles = {program.sweep.axis: Role.TILE}
    roles |= {a.name: Role.FULL for a in program.of(Role.TILE)}
    kept = (Role.GRID, Role.PAIR)
    axes = tuple(
        dataclasses.replace(a, role=roles.get(a.name, a.role))
        for a in program.axes
        if a.role in kept or a.name in over or a.name == program.sweep.axis
    )
    reads = {s.tensor for s in flat(body) if isinstance(s, t.Load)}
    before, after = _loops_last(body)
    return t.TileProgram(
        f"{program.name}_ahead",
        axes,
        tuple(r for r in program.reads if r in reads),
        tuple(s.tensor for s in stores),
        program.params,
        before,
        (),
        None,
        after,
        follows=program.name,
    )


def _loops_last(body: Sequence[t.Stmt]) -> tuple[tuple[t.Stmt, ...], tuple[t.Stmt, ...]]:
    """The statements, with what no loop adds to stored before the first loop; and the stores after the last one.

    A loop over points holds its registers beside whatever waits for a later store, even where it is not run.
    """
    stores = [s for s in body if isinstance(s, t.Store)]
    rest = [s for s in body if not isinstance(s, t.Store)]
    looped = {n for s in rest if isinstance(s, t.For) for n in updated(s)}
    early: list[t.Store] = []
    needed: set[int] = set()
    for s in stores if looped else ():
        names, found = set(used(s)), set[int]()
        for k in reversed(range(len(rest))):
            made = {defined(rest[k]), *updated(rest[k])}
            if made & names:
                names |= used(rest[k])
                found.add(k)
        if not names & looped:
            early.append(s)
            needed |= found
    before = [x for k, x in enumerate(rest) if k in needed]
    after = [x for k, x in enumerate(rest) if k not in needed]
    return (*before, *early, *after), tuple(s for s in stores if s not in early)


def cost(body: Sequence[t.Stmt], known: dict[str, t.Buffer], memory: bool = False) -> float:
    """What a turn takes, in loads of a tile of 16 bits; of `memory` alone."""
    out = 0.0
    for s in body:
        wide = 2.0
        if isinstance(s, t.Load | t.Store):
            b = known[s.tensor]
            wide = 1.0 if b.like is not None or b.kind is t.BufferKind.INPUT else 2.0
        match s:
            case t.Load() if len(s.dims) > 1:
                out += wide
            case t.Store() if memory:
                out += wide
            case _ if memory:
                continue
            case t.Solve():
                out += SYSTEM
            case t.Dot() | t.AccDot():
                out += EXACT if s.exact else 1.0
            case t.For():
                out += LOOP
            case t.Compute() if len(s.dims) > 1:
                out += EXPONENTIAL * sum(
                    isinstance(n, Call) and n.fn in ("exp", "exp2") for n in walk(s.expr)
                )
    return out


def split_ahead(
    steps: Sequence[t.Step], buffers: tuple[t.Buffer, ...]
) -> tuple[tuple[t.Step, ...], tuple[t.Buffer, ...]]:
    """Every kernel by chunks in two, where that pays."""
    out: list[t.Step] = []
    for s in steps:
        found = ahead(s, buffers) if isinstance(s, t.TileProgram) else None
        if found is None:
            out.append(s)
            continue
        before, rest, made = found
        out += [before, rest]
        buffers += made
    return tuple(out), buffers
