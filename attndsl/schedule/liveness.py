"""Which tiles of values a sweep holds in registers at once: what decides how large its tiles may be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from attndsl.cascade.nodes import DType
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import (
    Compute,
    Declare,
    Dot,
    Fold,
    For,
    Load,
    Pick,
    Role,
    Scan,
    Solve,
    Stmt,
    TileProgram,
)

Dims = tuple[str, ...]

TILE = 64
"""Rows and columns of the tile by which crowding is judged; 4 warps hold it."""
FEATURES = 128
THREADS = 128
MOST = 272
"""Registers a thread up to which such tiles were measured fast; sums count what does not live at once too."""
MOST_WITH_VECTORS = 300


def flat(body: Iterable[Stmt]) -> Iterator[Stmt]:
    """Every statement of a body, those inside loops after the loop."""
    for s in body:
        yield s
        if isinstance(s, For):
            yield from flat(s.body)


def held(
    body: tuple[Stmt, ...], full: Iterable[str], cheap: Collection[str] = ()
) -> tuple[Dims, ...]:
    """The dims of the two-dimensional values that live at the fullest moment of one turn of a sweep.

    Tiles that only feed products wait in shared memory and are not counted; `full` names the FULL axes, whose loads are
    such tiles. A load of a value for each pair holds its 64-bit addresses too, and counts three times; but for those in
    `cheap`: they pass through shared memory, or their addresses go with them.
    """
    features = set(full)
    turn = list(flat(body))
    last = {name: k for k, s in enumerate(turn) for name in used(s)}
    live: dict[str, tuple[Dims, ...]] = {}
    most: tuple[Dims, ...] = ()
    for k, s in enumerate(turn):
        live = {n: d for n, d in live.items() if last.get(n, -1) > k or n == getattr(s, "name", "")}
        match s:
            case Dot() | Fold() | Scan() | Solve() | Pick() if len(s.dims) > 1:
                live[s.name] = (s.dims,)
            case Compute() | Declare() if len(s.dims) > 1 and s.dtype is not DType.BOOL:
                live[s.name] = (s.dims,)
            case Load() if len(s.dims) > 1 and not features & set(s.dims):
                live[s.name] = (s.dims,) * (1 if s.name in cheap else 3)
        now = tuple(d for dims in live.values() for d in dims)
        if len(now) > len(most):
            most = now
    return most


def crowded(program: TileProgram) -> bool:
    """Whether a kernel holds so many sums and pairs that its tiles shrink, where heads have 128 features.

    Measured on an H100, with two sums: up to three tiles of pairs a kernel is as fast as plain attention's, with four
    or more it takes two to six times as long.
    """
    return _registers(program, vectors=False) > MOST


def roomy(program: TileProgram) -> bool:
    """Whether a kernel that was cut from a crowded one fits, with the vectors that it brings along the stream too.

    Measured on an H200: cut kernels of up to five such vectors ran without spills, one of eight did not.
    """
    return _registers(program, vectors=True) <= MOST_WITH_VECTORS


def _registers(program: TileProgram, vectors: bool) -> int:
    if program.sweep is None or not program.sweep.ranges:
        return 0
    full = {a.name for a in program.of(Role.FULL)}
    body = program.sweep.ranges[-1].body
    sums = sum(isinstance(s, Declare) and bool(full & {*s.dims}) for s in program.prologue)
    loads = [s for s in flat(body) if isinstance(s, Load)]
    # With bands, what stands in them and tiles of features that are computed pass through shared memory (measured on an
    # H200: dK and dV of such rows take 1.24 ms in one kernel, 2.28 in two).
    bands = {a.name for a in program.of(Role.BAND)}
    passing = bands | full if bands else set()
    pairs = sum(not passing & {*d} for d in held(body, full, {s.name for s in loads}))
    # A thread has a quarter of the columns of a product, so a quarter of what stands along them.
    along = sum(s.dims == (program.sweep.axis,) for s in loads) if vectors else 0
    tiles = (sums * FEATURES + pairs * TILE * 3 // 2) * TILE // THREADS
    return tiles + along * TILE // 4
