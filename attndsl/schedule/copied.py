"""What the copy engine can bring and take: tiles of memory, whole rows of an axis each.

    block(plan, load, "j", {"j": "j", "e": "e"})    # whether a load is one

Tensors are described to it once, with their shapes and the shape of their tiles; past the end they read as 0, and
nothing is written.
"""

from __future__ import annotations

from attndsl.cascade.nodes import DType, Expr, Position
from attndsl.cascade.walk import walk
from attndsl.schedule.tile import BufferKind, Compute, Declare, Fold, Load, Plan, Store, TileProgram


class Unfitting(Exception):
    """Why the warps of a kernel cannot specialise."""


def copied(plan: Plan, load: Load) -> bool:
    """Whether a tensor may have the inputs' type, which is the copy engine's; a call where it has not is portable."""
    buffer = plan.buffer(load.tensor)
    here = buffer.kind is BufferKind.INPUT or buffer.like is not None
    return buffer.dtype is DType.FLOAT and here


def block(plan: Plan, load: Load, along: str, rank: dict[str, str]) -> bool:
    """Whether a load is a tile of memory: an axis, whole rows of the last, all else fixed.

    Past its end a tensor reads as 0, so its axes must end where the program's do.
    """
    last = load.subs[-1]
    row = last.name if isinstance(last, Position) else ""
    if load.guard is not None or load.dims != (along, row):
        return False
    return _whole_rows(plan, load, along, rank)


def _whole_rows(plan: Plan, s: Load | Store, along: str, rank: dict[str, str]) -> bool:
    ends, last = plan.buffer(s.tensor).ranks, s.subs[-1]
    moving = [k for k, x in enumerate(s.subs) if x == Position(along)]
    fixed = [x for x in s.subs[:-1] if x != Position(along)]
    if len(moving) != 1 or len(s.subs) > 5 or any(_spans(x, set(rank)) for x in fixed):
        return False
    return (
        isinstance(last, Position)
        and ends[moving[0]] == rank[along]
        and ends[-1] == rank.get(last.name)
    )


def leaves(plan: Plan, program: TileProgram, store: Store, tile: str, rank: dict[str, str]) -> bool:
    """Whether a store is one of a tile in the inputs' type; what lies past the tensor's end is not written."""
    made = (*program.prologue, *program.epilogue)
    dims = {s.name: s.dims for s in made if isinstance(s, Compute | Load | Fold | Declare)}
    buffer = plan.buffer(store.tensor)
    return (
        buffer.dtype is DType.FLOAT
        and buffer.like is not None
        and dims.get(store.value, ())[:1] == (tile,)
        and len(dims[store.value]) == 2
        and store.tensor not in program.reads
        and _whole_rows(plan, store, tile, rank)
    )


def one_box_each(loads: tuple[Load, ...], axes: set[str]) -> None:
    """A tensor is described to the copy engine once, with the shape of its tiles."""
    shapes: dict[str, tuple[Expr | None, ...]] = {}
    for load in loads:
        shape = tuple(s if _spans(s, axes) else None for s in load.subs)
        if shapes.setdefault(load.tensor, shape) != shape:
            raise Unfitting(f"`{load.tensor}` is read in tiles of two shapes")


def _spans(e: Expr, axes: set[str]) -> bool:
    return any(isinstance(n, Position) and n.name in axes for n in walk(e))
