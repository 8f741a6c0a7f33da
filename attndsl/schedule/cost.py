"""What kernels cost at given extents: floating-point operations of matrix products, bytes of memory, and bounds.

    costs(plan, extents, params, itemsize=2)     # one Cost for each kernel
    bound(cost, GPUS["H100"])                     # seconds, and what takes them

Operations are counted over the tiles that a sweep visits, whose ranges the plan has in closed form; where these depend
on data (documents), over all. Bytes count every tensor that a kernel touches once, as if it stayed in the cache from
then on: a lower bound.

A kernel that walks chunks multiplies positions of a chunk with those of the same chunk alone, and does once a chunk
what it does with its state: such a sweep is counted by chunks, and costs grow with its length.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attndsl.cascade.bind import Number, eval_int
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Logic,
    Param,
    Position,
    Select,
    Unary,
)
from attndsl.cascade.walk import rewrite, walk
from attndsl.schedule import tile as t
from attndsl.schedule.tile import Role


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peaks of a GPU as its data sheet gives them: dense products, per second, and bytes per second."""

    name: str
    flops: Mapping[int, float]
    """By bytes of an element: 2 for fp16 and bf16 on tensor cores, 4 for fp32 without them."""
    bandwidth: float
    specials: float
    """Exponentials and the like: 16 a clock and multiprocessor."""


# Sources: NVIDIA A100 (DS-10031-001), H100 and H200 (SXM) data sheets: dense rates without sparsity, HBM bandwidth;
# multiprocessors and boost clocks from the architecture whitepapers; 16 special functions a clock and multiprocessor
# from the CUDA C++ programming guide, throughput of native arithmetic instructions, compute capabilities 8.0 and 9.0.
GPUS = {
    "A100": Gpu("A100 SXM 80GB", {2: 312e12, 4: 19.5e12, 8: 19.5e12}, 2.039e12, 108 * 16 * 1.41e9),
    "H100": Gpu("H100 SXM", {2: 989e12, 4: 67e12, 8: 67e12}, 3.35e12, 132 * 16 * 1.83e9),
    "H200": Gpu("H200 SXM", {2: 989e12, 4: 67e12, 8: 67e12}, 4.8e12, 132 * 16 * 1.83e9),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """One kernel: `flops` of its matrix products, `exps` of exponentials and the like, `moved` bytes.

    `visited` is the part of the stream that a sweep walks over, of all tiles together; None if data decides.
    """

    kernel: str
    flops: int
    exps: int
    moved: int
    visited: float | None
    pointwise: int = 0
    """Other operations on single values: additions, comparisons, selections, the steps of reductions."""
    rounds: int = 1
    """How often it walks over its stream at most: all are counted, and it stops as soon as every root stands."""

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.moved if self.moved else 0.0

    def of_one_round(self) -> Cost:
        """What a kernel costs that finds its roots in the first round."""
        flops, exps, pointwise = (x // self.rounds for x in (self.flops, self.exps, self.pointwise))
        return dataclasses.replace(self, flops=flops, exps=exps, pointwise=pointwise, rounds=1)


def bound(cost: Cost, gpu: Gpu, itemsize: int) -> tuple[float, str]:
    """The least time on a GPU in seconds, and what takes it: `products`, `exponentials`, `arithmetic` or `memory`.

    Arithmetic on single values runs on ordinary cores, at their rate for float32, with a multiplication and an addition
    counted as two.
    """
    times = {
        "products": cost.flops / gpu.flops[itemsize],
        "exponentials": cost.exps / gpu.specials,
        "arithmetic": cost.pointwise / gpu.flops[4],
        "memory": cost.moved / gpu.bandwidth,
    }
    what = max(times, key=times.__getitem__)
    return times[what], what


def costs(
    plan: t.Plan, extents: Mapping[str, int], params: Mapping[str, Number], itemsize: int
) -> list[Cost]:
    """The cost of each kernel of a plan, in launch order."""
    return [
        _Kernel(plan, p, extents, params, itemsize).cost()
        for p in plan.steps
        if isinstance(p, t.TileProgram)
    ]


ON_CHIP = 227 * 1024
"""Bytes of shared memory that a block can have on Hopper."""


@dataclass(frozen=True, slots=True)
class Again:
    """Values of pairs that several sweeps need: made in each (`times`), at `flops` of products more than once.

    What else could be done: kept in memory they take `kept` bytes, and move `moved`; on chip, the float32 scores of 16
    rows have room up to `longest` points of the stream.
    """

    times: int
    flops: int
    kept: int
    moved: int
    longest: int = ON_CHIP // (16 * 4)


def again(
    plan: t.Plan, extents: Mapping[str, int], params: Mapping[str, Number], itemsize: int
) -> Again | None:
    """What a pass pays for making its scores anew in every sweep; None where one makes them."""
    found = [
        _Kernel(plan, p, extents, params, itemsize)
        for p in plan.steps
        if isinstance(p, t.TileProgram) and p.sweep is not None
    ]
    made = [(k, *k.pairs()) for k in found]
    made = [(k, flops, points) for k, flops, points in made if flops]
    times = sum(k.program.rounds.count if k.program.rounds else 1 for k, _, _ in made)
    if times < 2:
        return None
    flops = sum(f * (k.program.rounds.count if k.program.rounds else 1) for k, f, _ in made)
    kept = 4 * max(points for _, _, points in made)
    return Again(times, flops - max(f for _, f, _ in made), kept, kept * times)


def kernel_cost(
    plan: t.Plan,
    program: t.TileProgram,
    extents: Mapping[str, int],
    params: Mapping[str, Number],
    itemsize: int,
    blocks: Mapping[str, int],
) -> Cost:
    """The cost of one kernel with the tiles that `blocks` gives by axis: coarse ones visit more of what is masked."""
    return _Kernel(plan, program, extents, params, itemsize, blocks).cost()


# Tiles by which the ranges of a sweep are counted; what kernels take is of this order.
BLOCK = 64
# So many tiles stand for all where there are more: ranges change evenly from tile to tile.
SAMPLES = 64
SCALAR = (Role.POINT, Role.WALK)
# Functions that go to the special function unit.
SPECIAL = frozenset(
    {"exp", "exp2", "expm1", "log", "log2", "log1p", "tanh", "sigmoid", "erf", "sin", "cos"}
)

# What functions take besides: special functions, and other operations, a multiplication and an addition being two.
WORK = {
    "sigmoid": (2, 2),  # an exponential and a reciprocal
    "softplus": (1, 22),  # an exponential and a polynomial
    "logsigmoid": (1, 22),
    "silu": (2, 3),
    "gelu": (1, 4),
}
POWER = (2, 4)  # a logarithm and an exponential


def _work(e: Expr) -> tuple[int, int]:
    """Special functions and other operations that an expression takes at each point."""
    specials = others = 0
    for n in walk(e):
        match n:
            case Call(fn) if fn in WORK:
                specials, others = specials + WORK[fn][0], others + WORK[fn][1]
            case Call(fn) if fn in SPECIAL:
                specials += 1
            case Binary("**", _, exponent) if not isinstance(exponent, Const):
                specials, others = specials + POWER[0], others + POWER[1]
            case Binary() | Unary() | Compare() | Logic() | Select():
                others += 1
            case _:
                pass
    return specials, others


class _Kernel:
    def __init__(
        self,
        plan: t.Plan,
        program: t.TileProgram,
        extents: Mapping[str, int],
        params: Mapping[str, Number],
        itemsize: int,
        blocks: Mapping[str, int] | None = None,
    ) -> None:
        self.blocks = blocks or {}
        self.plan = plan
        self.program = program
        # Ranks that the plan alone knows.
        own = {n: -(-extents[of] // w) if of else w for n, of, w in plan.blocks}
        self.extents = {**extents, **own}
        self.params = {"start": 0, **params}
        self.itemsize = itemsize
        self.turns = {loop.axis: self.loop_turns(loop) for loop in program.loops}
        paired = {a.name for a in program.of(Role.PAIR)}
        self.chunked = paired | {a.name for a in program.of(Role.STREAM)} if paired else set()
        self.walking = False
        """Whether statements of the sweep are counted."""

    def size(self, axis: str) -> int:
        return self.extents[self.program.axis(axis).rank]

    def cost(self) -> Cost:
        p = self.program
        outer = math.prod(self.size(a.name) for a in p.of(Role.GRID))
        visited = self.visited() if p.sweep is not None else 1.0
        flops = exps = pointwise = 0.0
        for once, stmts, part in self.parts(1.0 if visited is None else visited):
            self.walking = p.sweep is not None and stmts is p.sweep.ranges[0].body
            for s, times in _flat(stmts, {a.name: self.size(a.name) for a in p.axes}):
                flops += outer * once * part * times * self.products(s)
                exps += outer * once * part * times * self.specials(s)
                pointwise += outer * once * part * times * self.operations(s)
        moved = sum(self.bytes(n) for n in dict.fromkeys((*p.reads, *p.writes)))
        rounds = p.rounds.count if p.rounds is not None else 1
        return Cost(p.name, round(flops), round(exps), moved, visited, round(pointwise), rounds)

    def parts(self, visited: float) -> Iterator[tuple[int, tuple[t.Stmt, ...], float]]:
        """Statements, how often a program runs them in loops, and which part of the stream they see."""
        p = self.program
        yield 1, p.prologue, 1.0
        turns = 1
        if p.rounds is not None:
            turns = p.rounds.count
            yield turns, p.rounds.prologue, 1.0
            yield turns, p.rounds.epilogue, 1.0
        for loop in p.loops:
            turns *= self.turns[loop.axis]
            yield turns, loop.prologue, 1.0
        if p.sweep is not None:
            # Ranges differ in their masks alone.
            yield turns, p.sweep.ranges[0].body, visited
        yield 1, p.epilogue, 1.0

    def points(self, dims: tuple[str, ...]) -> int:
        """Points of a value, of all tiles and all chunks together."""
        spanned = {d for d in dims if self.program.axis(d).role not in SCALAR}
        bands = {d for d in spanned if self.program.axis(d).role is Role.BAND}
        out = math.prod(self.size(d) for d in spanned - self.chunked - bands)
        for _ in bands:
            out *= self.band(spanned)
        for a in self.program.of(Role.TILE):
            if a.name not in spanned:  # made again for every tile
                out *= self.tiles(a.name)
        return out * self.within_chunks(len(spanned & self.chunked))

    def band(self, spanned: set[str]) -> int:
        """Points of a BAND axis, of all tiles of the stream together where the value does not span that."""
        sides = [self.blocks.get(a, BLOCK) for a in self.program.banded()]
        moving = self.program.of(Role.STREAM)
        again = 1 if {a.name for a in moving} & spanned else self.tiles(moving[0].name)
        return 2 * max(sides) * again

    def tiles(self, axis: str) -> int:
        return -(-self.size(axis) // self.blocks.get(axis, BLOCK))

    def within_chunks(self, axes: int) -> int:
        """Points of so many axes of one chunk's positions, of all chunks together."""
        sweep = self.program.sweep
        if sweep is None and axes:  # a kernel of all chunks at once: its tiles are the chunks
            (row,) = self.program.of(Role.TILE)[:1]
            return int(min(self.blocks.get(row.name, BLOCK), self.size(row.name)) ** axes)
        if not self.chunked or sweep is None or not self.walking:
            return 1
        length = max(self.size(a) for a in self.chunked)
        chunk = min(self.blocks.get(sweep.axis, BLOCK), length)
        return int(length * chunk ** (axes - 1)) if axes else -(-length // max(1, chunk))

    def products(self, s: t.Stmt) -> int:
        match s:
            case t.Dot(dims=dims, over=over):
                return 2 * self.points((*dims, over))
            case t.AccDot(name=name, over=over):
                return 2 * self.points((*self.dims(name), over))
            case t.Solve(dims=dims):  # each row takes those before it
                rank = self.program.axis(dims[0]).rank
                moving = (*self.program.of(Role.STREAM), *self.program.of(Role.TILE))
                return self.points((*dims, *(a.name for a in moving if a.rank == rank)))
            case _:
                return 0

    def pairs(self) -> tuple[int, int]:
        """Operations of the products that make values of pairs in one walk over the stream, and how many pairs."""
        p = self.program
        assert p.sweep is not None
        part = self.visited()
        part = 1.0 if part is None else part
        outer = math.prod(self.size(a.name) for a in p.of(Role.GRID))
        turns = math.prod(self.turns[loop.axis] for loop in p.loops)
        axes = (*(a.name for a in p.of(Role.TILE)), p.sweep.axis)
        sizes = {a.name: self.size(a.name) for a in p.axes}
        made = [
            self.products(s) * times
            for s, times in _flat(p.sweep.ranges[0].body, sizes)
            if isinstance(s, t.Dot) and {*axes} <= {*s.dims}
        ]
        scale = outer * turns * part
        return round(sum(made) * scale), round(self.points(axes) * scale)

    def specials(self, s: t.Stmt) -> int:
        match s:
            case t.Compute(dims=dims, expr=e):
                return self.points(dims) * _work(e)[0]
            case _:
                return 0

    def operations(self, s: t.Stmt) -> int:
        match s:
            case t.Compute(dims=dims, expr=e):
                return self.points(dims) * _work(e)[1]
            case t.Fold(dims=dims, over=over):
                return self.points((*dims, over))
            case t.Scan(dims=dims):
                return self.points(dims)
            case t.Assign(name=name, expr=e):
                return self.points(self.dims(name)) * sum(isinstance(n, Binary) for n in walk(e))
            case _:
                return 0

    def dims(self, name: str) -> tuple[str, ...]:
        sweep = self.program.sweep
        body = sweep.ranges[0].body if sweep is not None else ()
        whole = (*self.program.prologue, *body)
        declared = (s for s, _ in _flat(whole, {}) if isinstance(s, t.Declare))
        return next((s.dims for s in declared if s.name == name), ())

    def bytes(self, name: str) -> int:
        b = self.plan.buffer(name)
        n = math.prod(self.extents[r] for r in b.ranks)
        if b.kind is t.BufferKind.FIXED:
            return 8 * n
        match b.dtype:
            case DType.BOOL:
                return n
            case DType.INT:
                return 8 * n
            case DType.FLOAT:
                like = b.like is not None or b.kind is t.BufferKind.INPUT
                return n * (self.itemsize if like else max(4, self.itemsize))

    # --- numbers that the kernel computes for itself ---

    def env(self, origin: int) -> dict[str, Number]:
        """Scalars of the program whose tiles start at `origin`, as far as they do not depend on data."""
        p = self.program
        env: dict[str, Number] = {**self.params, **{f"|{r}|": n for r, n in self.extents.items()}}
        for a in p.axes:
            env[a.name] = 0
            env[f"%block {a.name}"] = self.blocks.get(a.name, BLOCK)
            env[f"%origin {a.name}"] = origin if a.role is Role.TILE else 0
        for s in p.prologue:
            if isinstance(s, t.Compute) and s.dtype is DType.INT and not s.dims:
                value = self.number(s.expr, env)
                if value is not None:
                    env[f"%{s.name}"] = value
        return env

    def number(self, e: Expr, env: Mapping[str, Number]) -> int | None:
        def rule(n: Expr) -> Expr | None:
            match n:
                case t.Val(name=name):
                    return Param(f"%{name}")
                case t.Block(axis=axis):
                    return Param(f"%block {axis}")
                case t.Origin(axis=axis):
                    return Param(f"%origin {axis}")
                case Position(name=name):
                    return Param(name)
                case _:
                    return None

        try:
            return eval_int(rewrite(e, rule), env)
        except (KeyError, ValueError, OverflowError, ZeroDivisionError):
            return None

    def visited(self) -> float | None:
        """The part of the stream that the tiles visit, on average."""
        sweep = self.program.sweep
        assert sweep is not None
        size = self.size(sweep.axis)
        tiles = self.program.of(Role.TILE)
        seen = 0
        origins = self.origins(tiles[0]) if tiles else range(1)
        for origin in origins:
            env = self.env(origin)
            for r in sweep.ranges:
                lo, hi = env.get(f"%{r.lo}"), env.get(f"%{r.hi}")
                if lo is None or hi is None:
                    return None
                seen += max(0, min(int(hi), size) - int(lo))
        return seen / (len(origins) * size) if size else 0.0

    def origins(self, axis: t.Axis) -> range:
        """First positions of the tiles of an axis, or of some of them at even distances."""
        size, block = self.size(axis.name), self.blocks.get(axis.name, BLOCK)
        return range(0, size, block * max(1, -(-size // block) // SAMPLES))

    def loop_turns(self, loop: t.Loop) -> int:
        env = self.env(0)
        lo, hi = env.get(f"%{loop.lo}"), env.get(f"%{loop.hi}")
        return int(hi) - int(lo) if lo is not None and hi is not None else self.size(loop.axis)


def _flat(stmts: tuple[t.Stmt, ...], sizes: Mapping[str, int]) -> Iterator[tuple[t.Stmt, int]]:
    """Statements with the loops over points unfolded, and how often each runs: those for rare values, never."""
    for s in stmts:
        if isinstance(s, t.For) and s.guard is not None:
            continue
        if isinstance(s, t.For):
            times = sizes.get(s.axis, 1)
            yield from ((inner, times * n) for inner, n in _flat(s.body, sizes))
        else:
            yield s, 1
