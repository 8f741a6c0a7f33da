"""What the choice of a kernel's tile sizes depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attndsl.codegen.halves import in_halves
from attndsl.codegen.names import identifier
from attndsl.codegen.programs import is_gather, statements, tile_axes
from attndsl.schedule.liveness import flat, held
from attndsl.schedule.specialise import used
from attndsl.schedule.split import SPLIT
from attndsl.schedule.tile import (
    AccDot,
    BufferKind,
    Declare,
    Dot,
    For,
    Load,
    Plan,
    Role,
    Scatter,
    Solve,
    Stmt,
    TileProgram,
)


def kernel_facts(plan: Plan, program: TileProgram) -> dict[str, object]:
    """What the choice of tile sizes depends on (configs.py)."""
    full = {a.name: a.rank for a in program.axes if a.role is Role.FULL}
    tiles = tuple(a.name for a in program.of(Role.TILE))
    stream = program.sweep.axis if program.sweep else None

    def spelled(dims: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(identifier(pairs.get(d, d)) for d in dims)

    def counted(every: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
        """Each as it is spelled; a band is twice as long as the longer of its sides, which is the tile."""
        out: list[tuple[str, ...]] = []
        for dims in every:
            sides = tuple(tiles[0] if d in bands else d for d in dims)
            out += [spelled(sides)] * (2 if sides != dims else 1)
        return tuple(out)

    pairs = {a.name: program.stands_for(a.name) for a in program.of(Role.PAIR)}
    bands = {a.name for a in program.of(Role.BAND)}
    moving = {stream, *pairs, *bands}
    blocked = {*full, *tiles, *moving}
    # A chunk ahead of its walk has rows for tiles: numbers of one for each are no measure of what is multiplied.
    rows = {*pairs.values()}
    wide = {*full, *(x for x in tiles if x not in rows)} if pairs else {*full}
    # The ranges of a sweep do the same work; the last has the masks besides.
    swept = program.sweep.ranges[-1].body if program.sweep and program.sweep.ranges else ()
    inside = {id(s) for s in swept}
    using = swept or tuple(statements(program))
    kept = {n for s in using for n in used(s)}
    streamed: list[tuple[str, ...]] = []
    turned: set[str] = set()  # loaded at the turns of a loop in the sweep
    resident: list[tuple[str, ...]] = []
    carried: list[tuple[str, ...]] = []
    data = [
        s.tensor
        for s in statements(program)
        if isinstance(s, Load) and any(d in wide for d in s.dims)
    ]
    for s in swept:
        match s:
            case Load() if moving & {*s.dims} and any(d in wide for d in s.dims):
                streamed.append(tuple(d for d in s.dims if d in blocked))
            case For():  # at every turn, so even what the stream does not move
                again = [x for x in flat(s.body) if isinstance(x, Load) and {*x.dims} & {*full}]
                streamed += [tuple(d for d in x.dims if d in blocked) for x in again]
                turned |= {x.name for x in again}
    for s in statements(program):
        match s:
            case Load() if (
                id(s) not in inside
                and s.name not in turned
                and stream not in s.dims
                and any(d in full for d in s.dims)
                and s.name in kept
            ):
                resident.append(tuple(d for d in s.dims if d in blocked))
            case Declare() if id(s) not in inside and s.dims and stream not in s.dims:
                carried.append(s.dims)
    walks = any(isinstance(s, For) and s.lo is not None for s in statements(program))
    fixed = {identifier(a.name): a.block for a in program.axes if a.block is not None}
    multiplies = any(isinstance(s, Dot | AccDot) for s in swept)
    body = swept or tuple(_unswept(program))
    solves = any(isinstance(s, Solve) for s in body)
    loads = [s for s in statements(program) if isinstance(s, Load)]
    gathered = {s.name for s in loads if is_gather(plan, program, s)}
    turns = (x for s in swept if isinstance(s, For) for x in flat(s.body))
    points = any(isinstance(x, Load) and x.name in gathered for x in turns)
    tiled = {s.name for s in loads if tile_axes(plan, program, s) is not None}
    if pairs:  # a walk's loads are copied a chunk ahead, and their addresses move on
        tiled |= {s.name for s in loads if plan.buffer(s.tensor).kind is BufferKind.TEMP}
    # Operands in two parts are split in registers: from memory, too, they come as pairs do.
    whole = {n for s in swept if isinstance(s, Dot | AccDot) and s.exact for n in (s.left, s.right)}
    parts = [
        s.dims
        for s in swept
        if isinstance(s, Load)
        and s.name in whole
        and plan.buffer(s.tensor).kind is BufferKind.TEMP
        and plan.buffer(s.tensor).like is None
    ]
    # Products that are added to memory at every step: in registers, and rounded to 64 bits.
    made = {s.name: s.dims for s in swept if isinstance(s, Dot)}
    added = [made[s.value] for s in swept if isinstance(s, Scatter) and s.value in made]
    scattered = [d for d in added if {*d} & {*full} for _ in range(3)]
    return {
        "tiles": spelled(tiles),
        "stream": identifier(stream) if stream else None,
        "pads": {identifier(a): r for a, r in full.items()},
        "resident": counted(resident),
        "streamed": counted(streamed),
        "carried": counted(carried),
        "pairs": counted((*held(body, full, gathered | tiled), *parts, *scattered)),
        "pairs_by_address": counted((*held(body, full), *scattered)),
        "data": tuple(dict.fromkeys(data)),
        "loops": len(program.loops),
        **({"halves": True} if in_halves(plan, program) else {}),
        "few_rows": any(a.rank == SPLIT for a in program.axes),
        **({"fixed": fixed} if fixed or walks else {}),
        **({"walks": True} if walks else {}),
        **({"gathers": True} if points else {}),
        **({"chunks": True} if pairs and stream else {}),
        **({"follows": program.follows} if program.follows else {}),
        **({"solves": solves} if solves or program.follows else {}),
        **({"scans": True} if pairs and stream and not multiplies else {}),
    }


def _unswept(program: TileProgram) -> Iterator[Stmt]:
    """The statements outside the sweep, in order."""
    yield from program.prologue
    for loop in program.loops:
        yield from loop.prologue
    if program.rounds is not None:
        yield from program.rounds.epilogue
    yield from program.epilogue
