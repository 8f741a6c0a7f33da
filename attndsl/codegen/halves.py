"""Which tiles of float32 are multiplied as two halves of 16 bits, taken apart once before the kernel.

A row is `scale * (first + second)`, with halves of float16 and a power of two as the scale: 22 bits of every number,
down to 2**-37 of the largest of the row. Of the four products of two rows three count:

    a @ b  =  scale_a * scale_b * (first_a @ first_b + first_a @ second_b + second_a @ first_b)

Where a product runs over the rows of a tile (`P @ V`), their scales go to the weights, which are taken apart in
registers, with a scale for each row of theirs. So a tile may come in halves where it is an operand of such products,
and no more.

Scores that a pass makes again must come out as they were: where they are 1e4 large, the last bits of 22 and of 24 are
apart by 1e-3, and weights by as much. So all kernels that multiply take halves, those of gradients too, or none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from attndsl.codegen.programs import statements, tile_axes
from attndsl.schedule.liveness import flat
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import AccDot, Dot, Load, Plan, Role, Stmt, TileProgram


def inner(program: TileProgram, s: Dot | AccDot, halves: frozenset[str]) -> bool:
    """Whether a product of two tiles in halves runs over what their rows hold."""
    features = program.axis(s.over).role is Role.FULL
    return isinstance(s, Dot) and features and {s.left, s.right} <= halves


def weighed(program: TileProgram, s: Dot | AccDot, halves: frozenset[str]) -> bool:
    """Whether a product runs over the rows of a tile in halves, and the other factor is computed."""
    rows = program.axis(s.over).role is not Role.FULL
    return rows and s.right in halves and s.left not in halves


def in_halves(plan: Plan, program: TileProgram) -> frozenset[str]:
    """The loads of a kernel that may come in halves.

    None, where another product needs whole tiles beside them, or a second sum of products more registers.
    """
    return _in_halves(plan, program) if plan.apart else frozenset()


def taken_apart(*plans: Plan) -> tuple[Plan, ...]:
    """The plans of a module, allowed to take tiles in halves if all of their kernels that multiply can.

    Not with inputs of 8 bits: weights go to their type, and nothing else is float32.
    """
    for plan in plans:
        if plan.eight:
            return plans
        steps = [s for s in plan.steps if isinstance(s, TileProgram)]
        for p in (*steps, *(s.again for s in steps if s.again is not None)):
            if any(isinstance(s, Dot | AccDot) for s in _flat(p)) and not _in_halves(plan, p):
                return plans
    return tuple(dataclasses.replace(plan, apart=True) for plan in plans)


def _in_halves(plan: Plan, program: TileProgram) -> frozenset[str]:
    if program.sweep is None or program.loops or program.of(Role.PAIR):
        return frozenset()
    every = list(_flat(program))
    loads = [s for s in every if isinstance(s, Load)]
    found = frozenset(s.name for s in loads if _is_of_rows(plan, program, s))
    while True:
        kept = found - {n for s in every for n in _otherwise(program, s, found)}
        # One argument describes all tiles of a tensor: either all come so, or none.
        whole = {s.tensor for s in loads if s.name in found} & {
            s.tensor for s in loads if s.name not in kept
        }
        kept -= {s.name for s in loads if s.tensor in whole}
        if kept == found:
            break
        found = kept
    body = program.sweep.ranges[-1].body if program.sweep.ranges else ()
    products = [s for s in flat(body) if isinstance(s, Dot | AccDot)]
    sums = sum(weighed(program, s, found) for s in products)
    others = len(products) - sums - sum(inner(program, s, found) for s in products)
    return frozenset() if others or sums > 1 else found


def _flat(program: TileProgram) -> Iterator[Stmt]:
    yield from flat(tuple(statements(program)))


def _is_of_rows(plan: Plan, program: TileProgram, s: Load) -> bool:
    axes = tile_axes(plan, program, s)
    if axes is None:
        return False
    (rows, _), (last, row) = axes
    return rows == last - 1 and row.role is Role.FULL and len(s.subs) in (3, 4)


def _otherwise(program: TileProgram, s: Stmt, halves: frozenset[str]) -> frozenset[str]:
    """The tiles of `halves` that a statement takes in another way."""
    taken = frozenset(used(s)) & halves
    if isinstance(s, Dot | AccDot) and not s.exact and taken:
        if inner(program, s, halves):
            return frozenset()
        if weighed(program, s, halves):
            return taken - {s.right}
    return taken
