"""Which kernels are worth specialising their warps: what was measured, as facts of tile programs.

kept_portable(program, roles(plan, program))    # a reason, or None
worth_sweeps(program, roles(plan, program))     # {128: 4096}: by head dim, from so many positions on
"""

from __future__ import annotations

from attndsl.schedule.ends import jumps, moving_ends
from attndsl.schedule.tile import Load, TileProgram
from attndsl.schedule.warps import Roles, pairs_held


def kept_portable(program: TileProgram, found: Roles) -> str | None:
    """Why `backend="auto"` leaves a kernel portable at any size though its warps could specialise.

    Measured program by program (benchmarks/results/hopper-rule-h200.json). `worth_sweeps` and
    `configs.worth_warps` ask for the sizes of a call besides.
    """
    sums = max(len(body.sums) for body in found.bodies)
    short = all(moving_ends(program))
    if not sums:
        return "it carries no sum of products"
    beside = (s for b in found.bodies for s in (*b.early, *b.middle))
    if any(isinstance(s, Load) and {found.tile, found.stream} <= {*s.dims} for s in beside):
        # A table by distance, forward: 1.87 ms (training-h200.json); the portable kernel took 1.42 on a slower card.
        return "it loads a value for each pair of a row and a key"
    if sums + max(map(pairs_held, found.bodies)) > 4:
        # dK of softpick, four tiles and a sum: 2.53 instead of 1.61 ms; a gradient of each query's temperature, five:
        # 1.29 instead of 1.18 (tuning/examples-h200.json). dQ of softcap, three: 0.82 and 0.89.
        return "it holds more than four tiles of scores and sums at a time"
    if jumps(program) and all(len(b.scores) == 1 for b in found.bodies):
        # What is loaded ahead is waited for where a stretch ends: a window beside the first keys takes 0.49 instead of
        # 0.34 ms (tuning/examples-h200.json); dQ, which multiplies more in a step, 0.37 instead of 0.41.
        return "its sweep jumps to a short stretch of keys, with one product of scores in a step"
    if found.across and (short or found.looked_up):
        return "its sweeps are short, and do not pay for a sum that is cleared before and read back behind"
    return None


def worth_sweeps(program: TileProgram, found: Roles) -> dict[int, int]:
    """Head dims at which such a kernel was measured faster than the portable one, and along how many positions.

    At 64 a sum of two products of scores (dQ) is not faster, and neither are short sweeps with one product. Two sums do
    not fit beyond 128. What is added to memory is cleared before and read back behind: half a sweep earns that later.
    """
    one = all(len(b.scores) == 1 for b in found.bodies)
    if found.across:
        return {64: 4096, 128: 16384 if any(moving_ends(program)) else 4096}
    if any(len(b.sums) > 1 for b in found.bodies):
        return dict.fromkeys((64, 96, 128), 4096)
    if one and found.looked_up:
        return {128: 4096, 256: 4096}
    few = (64,) if one and not all(moving_ends(program)) else ()
    return dict.fromkeys((*few, 96, 128, 192, 256), 4096)
