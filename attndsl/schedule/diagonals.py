"""Places of a scattered sum that depend on a distance alone, as those of a table by `i - j`.

diagonal_subs(program, scatter)   # (h, min(max(i - j0 + start + |j| - 1, 0), |r| - 1)), or None

All terms of a tile that are as far from its diagonal go to one place. So a tile has as many places as it has diagonals,
and not as it has terms: what is on one of them is added up first.
"""

from __future__ import annotations

from collections.abc import Mapping

from attndsl.cascade.nodes import Binary, Call, Expr, Position, Unary
from attndsl.cascade.walk import free, rewrite, walk
from attndsl.schedule.affine import affine
from attndsl.schedule.tile import Compute, Origin, Role, Scatter, TileProgram, Val


def diagonal_subs(program: TileProgram, s: Scatter) -> tuple[Expr, ...] | None:
    """Where the terms of a diagonal go, by the row at which it meets the tile's first column; None if terms of one
    diagonal may go to different places, or the kernel has no tile of rows and columns."""
    rows, sweep = program.of(Role.TILE), program.sweep
    if len(rows) != 1 or sweep is None:
        return None
    row, column = rows[0].name, sweep.axis
    bodies = (r.body for r in sweep.ranges)
    body = next((b for b in bodies if s in b), ())
    made = {x.name: x for x in (*program.prologue, *body) if isinstance(x, Compute)}
    if s.value not in made or set(made[s.value].dims) != {row, column}:
        return None
    subs = tuple(_written_out(e, made) for e in s.subs)
    scalars = {x.name for x in made.values() if not x.dims}
    if any(isinstance(n, Val) and n.name not in scalars for e in subs for n in walk(e)):
        return None
    blocks = {a.name for a in program.axes if a.role is not Role.GRID}
    moving = [e for e in subs if free(e) & blocks]
    if len(moving) != 1 or not _of_distance(moving[0], row, column):
        return None
    return tuple(
        rewrite(e, lambda n: Origin(column) if n == Position(column) else None) for e in subs
    )


def _written_out(e: Expr, made: Mapping[str, Compute]) -> Expr:
    """An expression over positions, without the values on its way that have axes."""

    def written(n: Expr) -> Expr | None:
        if isinstance(n, Val) and n.name in made and made[n.name].dims:
            return _written_out(made[n.name].expr, made)
        return None

    return rewrite(e, written)


def _of_distance(e: Expr, row: str, column: str) -> bool:
    """Whether a whole number is the same along a diagonal: whatever is computed of `row - column`, and of nothing else
    that has axes."""
    parts = affine(e)
    if parts is not None:
        slopes = {a: k for a, k in parts[0].items() if k}
        return not slopes or (slopes.keys() == {row, column} and slopes[row] == -slopes[column])
    match e:
        case Call(_, args):
            return all(_of_distance(a, row, column) for a in args)
        case Binary(_, left, right):
            return _of_distance(left, row, column) and _of_distance(right, row, column)
        case Unary(_, arg):
            return _of_distance(arg, row, column)
        case _:
            return False
