"""Whether the warps of a kernel can specialise, and who then does what.

    roles(plan, program) -> Roles, or Unfit with the reason

On Hopper a kernel runs fastest when one warp only copies (a producer, which keeps rings of stream tiles full) and
groups of four warps only compute (consumers, 64 rows of the tile each). What a tile program must be like for this, and
which statement then belongs to whom, is found here; nothing is looked at but its statements and their axes:

    resident   tiles [tile, full] that stay in shared memory: left operands of score products
    rings      tiles [stream, full] that pass through shared memory: right operands of products
    scalars    values without axes, computed once before the warps part
    rows       the rest of the prologue, by the consumers
    bodies     for every range of the sweep: score products, what happens to their results in registers, and the
               products that accumulate, whose left operand comes from these registers

Source: the roles are those of FlashAttention-3 (Shah et al. 2024, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attndsl.cascade.nodes import Expr, Position
from attndsl.cascade.walk import walk
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import (
    AccDot,
    Assign,
    Compute,
    Declare,
    Dot,
    Fold,
    Load,
    Origin,
    Plan,
    Range,
    Role,
    Stmt,
    TileProgram,
)


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a kernel stays with the portable form."""

    reason: str


@dataclass(frozen=True, slots=True)
class Body:
    """One range of the sweep, in the order in which a consumer works through it."""

    masked: bool
    scores: tuple[Dot, ...]
    middle: tuple[Stmt, ...]
    sums: tuple[AccDot, ...]


@dataclass(frozen=True, slots=True)
class Roles:
    """Who does what; `rings` maps the value a stream tile is called by to its load."""

    tile: str
    stream: str
    resident: dict[str, Load]
    rings: dict[str, Load]
    scalars: tuple[Stmt, ...]
    rows: tuple[Stmt, ...]
    bodies: tuple[Body, ...]


class _No(Exception):
    pass


def roles(plan: Plan, program: TileProgram) -> Roles | Unfit:
    """The roles of a kernel's warps."""
    try:
        return _roles(plan, program)
    except _No as no:
        return Unfit(str(no))


def _roles(plan: Plan, program: TileProgram) -> Roles:
    tiles, sweep = program.of(Role.TILE), program.sweep
    if sweep is None:
        raise _No("it sweeps over nothing")
    if len(tiles) != 1:
        raise _No(f"it tiles {len(tiles)} axes, and warps specialise over one")
    if program.rounds is not None:
        raise _No("it sweeps in rounds")
    if sweep.ordered or sweep.descending:
        raise _No("its sweep hands something from tile to tile in order")
    if program.loops:
        raise _No(f"a loop over `{program.loops[0].axis}` is around its sweep")
    tile, stream = tiles[0].name, sweep.axis
    full = {a.name: a.rank for a in program.of(Role.FULL)}
    rank = {tile: tiles[0].rank, stream: program.axis(stream).rank, **full}
    prologue = {s.name: s for s in program.prologue if isinstance(s, Load)}
    bodies = tuple(_body(r, tile, stream) for r in sweep.ranges)
    resident: dict[str, Load] = {}
    rings: dict[str, Load] = {}
    for r, body in zip(sweep.ranges, bodies, strict=True):
        loads = {s.name: s for s in r.body if isinstance(s, Load)}
        for dot in body.scores:
            left, right = prologue.get(dot.left), loads.get(dot.right)
            if left is None or not _block(plan, left, tile, rank):
                raise _No(f"`{dot.left}`, left in a product, is no tile of memory")
            if right is None or not _block(plan, right, stream, rank):
                raise _No(f"`{dot.right}`, right in a product, is no tile of memory")
            resident[left.name] = left
            rings.setdefault(right.name, right)
        for acc in body.sums:
            right = loads.get(acc.right)
            if right is None or not _block(plan, right, stream, rank):
                raise _No(f"`{acc.right}`, right in a sum of products, is no tile of memory")
            rings.setdefault(right.name, right)
    if not resident:
        raise _No("its scores are no product of tiles")
    _one_box_each((*resident.values(), *rings.values()), set(rank))
    bodies = tuple(_without(b, rings) for b in bodies)
    _registers_only(program, bodies, resident, rings, tile, stream)
    scalars, rows = _parted(program, resident)
    return Roles(tile, stream, resident, rings, scalars, rows, bodies)


def _body(r: Range, tile: str, stream: str) -> Body:
    scores: list[Dot] = []
    sums: list[AccDot] = []
    middle: list[Stmt] = []
    for s in r.body:
        match s:
            case Dot():
                if s.dims != (tile, stream):
                    raise _No(f"the product `{s.name}` is not one of rows and keys")
                if _feeds(middle, s):
                    raise _No(f"the product `{s.name}` waits for another's result")
                scores.append(s)
            case AccDot():
                sums.append(s)
            case Compute() | Load() | Fold() | Assign():
                middle.append(s)
            case _:
                raise _No(f"its sweep holds a {type(s).__name__.lower()}")
    names = {s.name for s in sums}
    for m in middle:
        if names & used(m):
            raise _No("what it accumulates is read inside the sweep")
    return Body(r.masked, tuple(scores), tuple(middle), tuple(sums))


def _feeds(middle: Iterable[Stmt], s: Dot) -> bool:
    made = {m.name for m in middle if isinstance(m, Compute | Fold | Assign)}
    return s.left in made or s.right in made


def _without(body: Body, rings: dict[str, Load]) -> Body:
    middle = tuple(s for s in body.middle if not (isinstance(s, Load) and s.name in rings))
    return Body(body.masked, body.scores, middle, body.sums)


def _block(plan: Plan, load: Load, along: str, rank: dict[str, str]) -> bool:
    """Whether a load is a tile of memory: an axis, whole rows of the last, all else fixed.

    Past its end a tensor reads as 0, so its axes must end where the program's do.
    """
    ends = plan.buffer(load.tensor).ranks
    last = load.subs[-1]
    row = last.name if isinstance(last, Position) else ""
    if load.guard is not None or len(load.subs) > 5 or load.dims != (along, row):
        return False
    moving = [k for k, s in enumerate(load.subs) if s == Position(along)]
    fixed = [s for s in load.subs[:-1] if s != Position(along)]
    if len(moving) != 1 or any(_spans(s, set(rank)) for s in fixed):
        return False
    return ends[moving[0]] == rank[along] and ends[-1] == rank.get(row)


def _one_box_each(loads: tuple[Load, ...], axes: set[str]) -> None:
    """A tensor is described to the copy engine once, with the shape of its tiles."""
    shapes: dict[str, tuple[Expr | None, ...]] = {}
    for load in loads:
        shape = tuple(s if _spans(s, axes) else None for s in load.subs)
        if shapes.setdefault(load.tensor, shape) != shape:
            raise _No(f"`{load.tensor}` is read in tiles of two shapes")


def banded(program: TileProgram) -> bool:
    """Whether both ends of the sweep move with the tile, as those of a window do; such sweeps are short."""
    assert program.sweep is not None
    made = {s.name: s for s in program.prologue if isinstance(s, Compute) and not s.dims}

    def moves(name: str) -> bool:
        found = made.get(name)
        if found is None:
            return False
        return any(isinstance(n, Origin) for n in walk(found.expr)) or any(map(moves, used(found)))

    ranges = program.sweep.ranges
    return moves(ranges[0].lo) and moves(ranges[-1].hi)


def kept_portable(program: TileProgram, found: Roles) -> str | None:
    """Why `backend="auto"` leaves a kernel portable at any size though its warps could specialise.

    `configs.worth_warps` asks for the sizes of a call besides.
    """
    sums = len({acc.name for body in found.bodies for acc in body.sums})
    if sums != 1:
        return (
            "it carries no sum of products"
            if not sums
            else f"it carries {sums} sums of products, not one"
        )
    return "both ends of its sweep move with its tile" if banded(program) else None


def _spans(e: Expr, axes: set[str]) -> bool:
    return any(isinstance(n, Position) and n.name in axes for n in walk(e))


def _registers_only(
    program: TileProgram,
    bodies: tuple[Body, ...],
    resident: dict[str, Load],
    rings: dict[str, Load],
    tile: str,
    stream: str,
) -> None:
    """What lies in shared memory feeds products and nothing else; what lies in registers has the products' layouts."""
    shared = {*resident, *rings}
    rest = [s for s in program.prologue if s not in resident.values()]
    # Before and after the sweep there is room to hold a resident tile in registers too.
    for s in (m for b in bodies for m in b.middle):
        apart = shared & used(s)
        if apart:
            raise _No(f"`{min(apart)}` is read outside products")
    full = {a.name for a in program.of(Role.FULL)}
    allowed = {(), (tile,), (stream,), (tile, stream), *((tile, f) for f in full)}
    allowed |= {(f,) for f in full}
    for s in (*rest, *(m for b in bodies for m in b.middle), *program.epilogue):
        dims = getattr(s, "dims", ())
        if dims not in allowed:
            raise _No(f"`{getattr(s, 'name', s)}` spans {', '.join(dims)}")
        if isinstance(s, Fold) and not s.dims:
            raise _No(f"`{s.name}` is one value for all rows of a tile")
    declared = {s.name: s for s in program.prologue if isinstance(s, Declare)}
    for body in bodies:
        for acc in body.sums:
            if acc.name not in declared or acc.over != stream:
                raise _No(f"`{acc.name}` accumulates over another axis than `{stream}`")


def _parted(
    program: TileProgram, resident: dict[str, Load]
) -> tuple[tuple[Stmt, ...], tuple[Stmt, ...]]:
    """The prologue's scalars, and its rest; a resident tile that more than products need is in both memories."""
    scalars: list[Stmt] = []
    rows: list[Stmt] = []
    late: set[str] = set()
    also = {n for s in (*program.prologue, *program.epilogue) for n in used(s)}
    for s in program.prologue:
        if isinstance(s, Load) and s.name in resident and s.name not in also:
            continue
        if isinstance(s, Compute | Load) and not s.dims and not late & used(s):
            scalars.append(s)
            continue
        if isinstance(s, Compute | Load | Fold | Declare):
            late.add(s.name)
            rows.append(s)
            continue
        raise _No(f"its prologue holds a {type(s).__name__.lower()}")
    return tuple(scalars), tuple(rows)
