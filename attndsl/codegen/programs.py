"""What printers ask about a tile program: its statements, and what its loads and stores look like."""

from __future__ import annotations

from collections.abc import Iterator

from attndsl.cascade.nodes import DType, Expr, Position
from attndsl.schedule.liveness import flat
from attndsl.schedule.tile import (
    SIXTEEN,
    Across,
    Assign,
    Axis,
    BufferKind,
    Compute,
    Declare,
    Load,
    Pick,
    Plan,
    Reach,
    Role,
    Scatter,
    Stmt,
    Store,
    TileProgram,
    TileReach,
)

TILED = (Role.TILE, Role.STREAM)
MOVING = (Role.STREAM, Role.PAIR)
BLOCKED = (Role.TILE, Role.STREAM, Role.PAIR, Role.BAND, Role.FULL)
STRIDED = BufferKind.INPUT  # user tensors come with strides of their own


def statements(program: TileProgram) -> Iterator[Stmt]:
    """Every statement of a program, those inside loops included."""
    yield from flat(program.prologue)
    if program.rounds is not None:
        yield from flat(program.rounds.prologue)
    for loop in program.loops:
        yield from flat(loop.prologue)
    for r in program.sweep.ranges if program.sweep else ():
        yield from flat(r.body)
    if program.rounds is not None:
        yield from flat(program.rounds.epilogue)
    yield from flat(program.epilogue)


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions of one statement, those of an inner loop left out."""
    match s:
        case Compute() | Declare() | Assign():
            return (s.expr,)
        case Load() | Store() | Scatter() | Across() | Reach():
            return s.subs
        case Pick():
            return (s.at,)
        case TileReach():
            return (*s.subs, *s.of_subs)
    return ()


def lone(sub: Expr, program: TileProgram) -> Axis | None:
    """The axis whose block a subscript is, if it is nothing else."""
    if isinstance(sub, Position):
        axis = program.axis(sub.name)
        return axis if axis.role in BLOCKED else None
    return None


def tile_axes(
    plan: Plan, program: TileProgram, s: Load
) -> tuple[tuple[int, Axis], tuple[int, Axis]] | None:
    """The two axes of a load that the copy engine can make: rows of a tensor in an input's type, or parts of them."""
    buffer = plan.buffer(s.tensor)
    own = buffer.kind is BufferKind.TEMP and buffer.like not in (None, SIXTEEN)
    if not (buffer.kind is STRIDED or own) or s.dtype is not DType.FLOAT or s.guard is not None:
        return None
    spans = [(k, a) for k, x in enumerate(s.subs) if (a := lone(x, program)) is not None]
    if len(spans) != 2 or len(s.dims) != 2:
        return None
    (k, block), (last, row) = spans
    # Past its own end a tensor reads as 0, so its axes must end where the program's do.
    ends = (buffer.ranks[k], buffer.ranks[last]) == (block.rank, row.rank)
    moves = block.role in (*TILED, Role.PAIR)
    fits = moves and last == len(s.subs) - 1 and s.dims == (block.name, row.name)
    return ((k, block), (last, row)) if ends and fits else None


def is_gather(plan: Plan, program: TileProgram, s: Load) -> bool:
    """Whether every pair of two tiles reads an input at an address of its own."""
    roles = [program.axis(d).role for d in s.dims]
    blocks = sum(lone(x, program) is not None for x in s.subs)
    pairs = roles in ([Role.TILE, Role.STREAM], [Role.TILE, Role.TILE])
    own = plan.buffer(s.tensor).kind is STRIDED
    return own and pairs and blocks < 2 and s.guard is None and not s.bounds
