"""What a chunk can compute before its state is known, in a kernel of its own, of all chunks at once.

    walk:   U = k . H * reach + A . V;   x = (I - M)^-1 U;   H = H * decay + k . x
    ->
    ahead:  w = (I - M)^-1 (k * reach);  x' = (I - M)^-1 (A . V)                 every chunk at once
    walk:   x = w . H + x';              H = H * decay + k . x                   one chunk after the other

A kernel by chunks takes them in turn, for the state that they carry; for whatever else it does to a chunk, the next one
waits. What does not depend on the state is computed ahead, by a kernel without a sweep, and read from memory. A value
that is linear in the state, as the solution of a triangular system is, goes in two parts: what the state is multiplied
by, and the rest. The two kernels have chunks of the same length (`TileProgram.follows`).

It costs memory that is written and read once, so it pays only where much work leaves the walk (`worth`).

source: Yang et al. 2024 (arXiv:2406.06484), section 3.2, derived for any tile program that carries a state
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from attndsl.cascade.nodes import Binary, DType, Expr, Position
from attndsl.cascade.walk import walk
from attndsl.schedule import tile as t
from attndsl.schedule.specialise import defined, used
from attndsl.schedule.tile import Role, Val

# What a product of a chunk takes one after the other, in bytes that memory moves meanwhile for one multiprocessor, and
# the products in a row of a triangular system. Measured: benchmarks/results/linear-delta-h100.json.
PRODUCT = 8 << 10
SYSTEM = 12


@dataclass(frozen=True, slots=True)
class Part:
    """One factor of a state: `sum[over](left * state)`, each of dims and storage type as the product that has it."""

    left: str
    product: t.Dot


@dataclass(slots=True)
class Split:
    """The statements of one kernel by chunks, and what of them is made ahead."""

    program: t.TileProgram
    names: set[str]
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)
    extra: list[t.Stmt] = field(default_factory=list)

    @property
    def body(self) -> tuple[t.Stmt, ...]:
        assert self.program.sweep is not None
        return self.program.sweep.ranges[0].body

    def fresh(self, base: str) -> str:
        k = 1
        while (name := f"{base}_{k}") in self.names:
            k += 1
        self.names.add(name)
        return name

    # --- what depends on the state ------------------------------------------------------------------------------------

    def find_moving(self) -> None:
        """The values that depend on what is carried, those that are updated by such values among them."""
        changed = {n for s in self.body for n in updated(s)}
        self.moving = {
            s.name for s in self.program.prologue if isinstance(s, t.Declare) and s.name in changed
        }
        while True:
            before = len(self.moving)
            for s in self.body:
                if used(s) & self.moving or updated(s) & self.moving:
                    made = defined(s)
                    self.moving |= updated(s) | ({made} if made is not None else set())
            if len(self.moving) == before:
                return

    def local(self, s: t.Stmt) -> bool:
        return not (used(s) | updated(s) | {defined(s) or ""}) & self.moving

    # --- sums that are linear in the state ----------------------------------------------------------------------------

    def parts(self, name: str) -> tuple[list[Part], str] | None:
        """An accumulator as factors of states and the rest, which `extra` makes; None if it is something else."""
        parts: list[Part] = []
        products = {s.name: s for s in self.body if isinstance(s, t.Dot)}
        rest = self.fresh(name + "_rest")
        made: list[t.Stmt] = []
        for s in self.body:
            match s:
                case t.Declare() if s.name == name:
                    made.append(dataclasses.replace(s, name=rest))
                case t.AccDot() if s.name == name:
                    if s.scale is not None or {s.left, s.right} & self.moving:
                        return None
                    made.append(dataclasses.replace(s, name=rest))
                case t.Assign(_, Binary("+", Val(old), more)) if s.name == name == old:
                    factors, scale = self.factor(more, products)
                    if factors is None:
                        if self.spans(more) is None:
                            return None
                        made.append(t.Assign(rest, Binary("+", Val(rest), more), span=s.span))
                        continue
                    left = factors.left
                    if scale is not None:
                        left = self.fresh(left)
                        value = Binary("*", Val(factors.left), scale)
                        self.keep(t.Compute(left, self.dims[factors.left], DType.FLOAT, value))
                    parts.append(Part(left, factors))
                case t.Solve() if s.right == name:
                    break
                case _ if name in updated(s):
                    return None
        if not made or not parts:
            return None
        for s in made:
            self.keep(s)
        return parts, rest

    def factor(self, e: Expr, products: dict[str, t.Dot]) -> tuple[t.Dot | None, Expr | None]:
        """A product of something known with a state, and what multiplies each of its rows."""
        scale: Expr | None = None
        match e:
            case Binary("*", Val(name), s) if name in products:
                scale = s
            case Val(name):
                pass
            case _:
                return None, None
        product = products.get(name)
        if product is None or product.left in self.moving or product.right not in self.moving:
            return None, None
        if scale is not None and self.spans(scale) not in ((), product.dims[:1]):
            return None, None
        return product, scale

    def spans(self, e: Expr) -> tuple[str, ...] | None:
        """The axes of an expression of known values; None if it depends on the state."""
        out: set[str] = set()
        for n in walk(e):
            if isinstance(n, Val):
                if n.name in self.moving:
                    return None
                out |= {*self.dims.get(n.name, ())}
            elif isinstance(n, Position):
                out.add(n.name)
        return tuple(a.name for a in self.program.axes if a.name in out)

    def keep(self, s: t.Stmt) -> None:
        """A statement of the kernel ahead."""
        self.extra.append(s)
        if isinstance(s, t.Compute | t.Declare | t.Solve):
            self.dims[s.name] = s.dims


def updated(s: t.Stmt) -> set[str]:
    """The values that a statement updates in place."""
    match s:
        case t.Assign() | t.AccDot():
            return {s.name}
        case t.For():
            return set().union(*map(updated, s.body))
        case _:
            return set()


def ahead(
    program: t.TileProgram, buffers: tuple[t.Buffer, ...]
) -> tuple[t.TileProgram, t.TileProgram, tuple[t.Buffer, ...]] | None:
    """The kernel ahead, the walk that reads what it made, and the tensors between; None where it does not pay."""
    sweep = program.sweep
    if sweep is None or len(sweep.ranges) != 1:
        return None
    if [a.rank for a in program.of(Role.PAIR)] != [program.axis(sweep.axis).rank]:
        return None
    known = {b.name: b for b in buffers}
    every = [*program.prologue, *sweep.ranges[0].body]
    split = Split(program, {n for s in every for n in (*used(s), defined(s) or "")})
    split.dims = {s.name: s.dims for s in every if defined(s) is not None}  # type: ignore[union-attr]
    split.find_moving()
    made: list[t.Buffer] = []
    stores: list[t.Store] = []
    body: list[t.Stmt] = []
    for s in split.body:
        done = _solved(split, s, known, made, stores) if isinstance(s, t.Solve) else None
        body += done if done is not None else [s]
    if not stores:
        return None
    before = _before(split, stores)
    if before is None or not worth(before, stores, program):
        return None
    walk_body = _live(tuple(body), {s.name for s in program.prologue if isinstance(s, t.Declare)})
    ranges = (dataclasses.replace(sweep.ranges[0], body=walk_body),)
    read = {s.tensor for s in _flat(walk_body) if isinstance(s, t.Load)}
    rest = dataclasses.replace(
        program,
        sweep=dataclasses.replace(sweep, ranges=ranges),
        reads=(*(r for r in program.reads if r in read), *(b.name for b in made)),
    )
    return before, rest, tuple(made)


def _solved(
    split: Split,
    s: t.Solve,
    known: dict[str, t.Buffer],
    made: list[t.Buffer],
    stores: list[t.Store],
) -> list[t.Stmt] | None:
    """A solution as products of states with what is loaded, and what is loaded besides; None if it is no such sum."""
    place = next(
        (x for x in split.body if isinstance(x, t.Store) and Position(s.dims[0]) in x.subs), None
    )
    if s.matrix in split.moving or place is None or s.right not in split.moving:
        return None
    found = split.parts(s.right)
    if found is None:
        return None
    parts, rest = found
    like = parts[0].product.like
    if any(p.product.exact for p in parts):
        return None
    at = dict(zip(split.program.writes, split.program.writes, strict=True))
    out: list[t.Stmt] = []

    def through(value: str, axis: str, kind: str) -> str:
        """A value solved for ahead, and loaded."""
        solved = split.fresh(value)
        split.keep(t.Solve(solved, (s.dims[0], axis), s.matrix, value, s.lower, like))
        target = known[at[place.tensor]]
        ranks = {a.name: a.rank for a in split.program.axes}
        subs = tuple(Position(axis) if x == Position(s.dims[1]) else x for x in place.subs)
        shape = tuple(
            ranks[axis] if x == Position(s.dims[1]) else r
            for x, r in zip(place.subs, target.ranks, strict=True)
        )
        tensor = f"{target.name}.{kind}"
        made.append(t.Buffer(tensor, shape, t.BufferKind.TEMP, DType.FLOAT, _type(like, known)))
        bounds = tuple(axis if b == s.dims[1] else b for b in place.bounds)
        stores.append(t.Store(tensor, subs, solved, bounds, span=place.span))
        loaded = split.fresh(value)
        dims = (s.dims[0], axis)
        out.append(t.Load(loaded, dims, DType.FLOAT, tensor, subs, bounds, span=s.span))
        return loaded

    total: Expr = Val(through(rest, s.dims[1], "rest"))
    for k, p in enumerate(parts):
        left = through(p.left, p.product.over, f"of{k}" if k else "of")
        past = split.fresh("past")
        out.append(dataclasses.replace(p.product, name=past, dims=s.dims, left=left, span=s.span))
        total = Binary("+", total, Val(past))
    out.append(t.Compute(s.name, s.dims, DType.FLOAT, total, span=s.span))
    return out


def _type(like: str, known: dict[str, t.Buffer]) -> str | None:
    """The input whose storage type a product's operands have."""
    b = known[like]
    return b.name if b.kind is t.BufferKind.INPUT and b.like is None else b.like


def _before(split: Split, stores: list[t.Store]) -> t.TileProgram | None:
    """The kernel ahead: what its stores need, one program for each chunk."""
    program = split.program
    (pair,) = program.of(Role.PAIR)
    assert program.sweep is not None
    first = [s for s in split.body if split.local(s)]
    body = _live((*program.prologue, *first, *split.extra, *stores), set())
    over = {d for s in _flat(body) for d in getattr(s, "dims", ())}
    over |= {s.axis for s in _flat(body) if isinstance(s, t.For)}
    roles = {program.sweep.axis: Role.TILE, pair.name: Role.PAIR}
    roles |= {a.name: Role.FULL for a in program.of(Role.TILE)}
    axes = tuple(
        dataclasses.replace(a, role=roles.get(a.name, a.role))
        for a in program.axes
        if a.role is Role.GRID or a.name in over or a.name in roles
    )
    reads = {s.tensor for s in _flat(body) if isinstance(s, t.Load)}
    return t.TileProgram(
        f"{program.name}_ahead",
        axes,
        tuple(r for r in program.reads if r in reads),
        tuple(s.tensor for s in stores),
        program.params,
        tuple(s for s in body if not isinstance(s, t.Store)),
        (),
        None,
        tuple(stores),
        follows=program.name,
    )


def worth(before: t.TileProgram, stores: list[t.Store], program: t.TileProgram) -> bool:
    """Whether what leaves the walk takes longer, one chunk after the other, than the traffic of what it reads instead.

    A chunk of 64 positions with 64 features counts as one tile; it is written once, and read once for each.
    """
    work = 0
    for s in before.prologue:
        match s:
            case t.Solve():
                work += SYSTEM * PRODUCT
            case t.Dot() | t.AccDot():
                work += PRODUCT
    return work > len(stores) * 2 * 2 * (8 << 10)


def _flat(body: tuple[t.Stmt, ...]) -> list[t.Stmt]:
    out: list[t.Stmt] = []
    for s in body:
        out.append(s)
        if isinstance(s, t.For):
            out += _flat(s.body)
    return out


def _live(body: tuple[t.Stmt, ...], carried: set[str]) -> tuple[t.Stmt, ...]:
    """Without what neither a store nor a carried value needs."""
    live = set(carried)
    out: list[t.Stmt] = []
    for s in reversed(body):
        made = {defined(s)} if defined(s) is not None else updated(s)
        if made and not made & live:
            continue
        live |= used(s)
        out.append(s)
    return tuple(reversed(out))


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
