"""Where the sweep of a tile begins and ends: what that depends on.

moving_ends(program)     # (True, True) for a window
jumps(program)           # True for a window beside the first keys
counted_ends(program)    # the statements that say so of numbers alone, or None
"""

from __future__ import annotations

from collections.abc import Mapping

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Expr,
    Extent,
    Logic,
    Param,
    Select,
    Unary,
)
from attndsl.cascade.walk import walk
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import Block, Compute, Origin, TileProgram, Val

NUMBERS = (Binary, Call, Compare, Const, Extent, Logic, Param, Select, Unary, Block, Origin, Val)
CALLS = frozenset({"min", "max", "abs"})


def _made(program: TileProgram) -> dict[str, Compute]:
    """The values without axes that are computed before the sweep."""
    return {s.name: s for s in program.prologue if isinstance(s, Compute) and not s.dims}


def moving_ends(program: TileProgram) -> tuple[bool, bool]:
    """Whether the sweep's ends move with the tile: both ends of a window's do, one of a causal sweep's."""
    assert program.sweep is not None
    made = _made(program)
    ranges = program.sweep.ranges
    hi: Expr = Val(ranges[-1].hi)
    match made.get(ranges[-1].hi):
        case Compute(expr=Call("max", (Val(first), end))) if first == ranges[0].lo:
            hi = end  # no less than where the sweep begins: that it moves with that says nothing
    return _moves(Val(ranges[0].lo), made), _moves(hi, made)


def jumps(program: TileProgram) -> bool:
    """Whether the sweep leaves points out, and both ends of its last stretch move with the tile."""
    assert program.sweep is not None
    made = _made(program)
    ranges = program.sweep.ranges
    gaps = [k for k in range(1, len(ranges)) if ranges[k - 1].hi != ranges[k].lo]

    def beyond(name: str, bound: str) -> list[Expr]:
        """A number without that which it is no less than."""
        match made.get(name):
            case Compute(expr=Call("max", args)) if Val(bound) in args:
                return [x for x in args if x != Val(bound)]
        return [Val(name)]

    if not gaps:
        return False
    first, last = ranges[gaps[-1]], ranges[-1]
    ends = beyond(first.lo, ranges[gaps[-1] - 1].hi), beyond(last.hi, first.lo)
    return all(any(_moves(x, made) for x in end) for end in ends)


def counted_ends(program: TileProgram) -> tuple[Compute, ...] | None:
    """What the ends of all ranges follow from, in order, if the host can tell them: of where a tile begins, extents and
    parameters. None where data say so (ids, a width for each head)."""
    assert program.sweep is not None
    made = _made(program)
    needed = {n for r in program.sweep.ranges for n in (r.lo, r.hi)}
    out: list[Compute] = []
    for name in reversed(made):
        if name in needed:
            s = made[name]
            if not all(map(_number, walk(s.expr))):
                return None
            out.append(s)
            needed |= used(s)
    return tuple(reversed(out)) if needed <= made.keys() else None


def moving(program: TileProgram, ends: tuple[Compute, ...]) -> tuple[Compute, ...]:
    """Those of the statements that depend on where the tile begins."""
    made = _made(program)
    return tuple(s for s in ends if _moves(s.expr, made))


def _moves(x: Expr, made: Mapping[str, Compute]) -> bool:
    """Whether a number depends on where the tile begins."""
    names = {n.name for n in walk(x) if isinstance(n, Val)} & made.keys()
    return any(isinstance(n, Origin) for n in walk(x)) or any(
        _moves(made[n].expr, made) for n in names
    )


def _number(n: object) -> bool:
    return isinstance(n, NUMBERS) and not (isinstance(n, Call) and n.fn not in CALLS)
