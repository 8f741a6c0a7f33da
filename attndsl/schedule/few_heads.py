"""Into how many pieces walks are cut, from the programs that they have, their length and the card.

pieces_of(walks, extents, 132)      # 16: of one head and 4096 positions, on a card of 132 multiprocessors
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attndsl.schedule import pieces
from attndsl.schedule.composed import PIECES
from attndsl.schedule.tile import Plan, Role, TileProgram

# Columns of a walk's tile, as `codegen.configs.choose_chunk` has them, and the chunk of 16-bit inputs.
COLUMNS = 64
CHUNK = 64
# Microseconds of an H200 at D128: a turn of a whole walk, that of a walk in pieces with that of its parts, one of the
# elementwise kernel between them, and two launches more, for which short kernels wait: at 1024 positions pieces were
# slower (benchmarks/results/linear-lengths-h200.json).
WHOLE = 1.65
CUT = 2.4
BETWEEN = 0.65
MORE = 30.0


def worth(programs: int, positions: int, processors: int) -> int:
    """How many pieces a walk over so many positions is cut into, of which so many programs run; 1 is none.

    Pieces fill the card once at most. More of them shorten the walks and lengthen the kernel between, which takes one
    after the other.
    """
    chunks = -(-positions // CHUNK)
    most = min(processors // max(1, programs), positions // pieces.LEAST)
    best, least = 1, WHOLE * chunks
    for count in range(2, most + 1):
        cost = MORE + CUT * -(-chunks // count) + BETWEEN * count
        if cost < least:
            best, least = count, cost
    return best


def cut_walks(plan: Plan) -> tuple[TileProgram, ...]:
    """The walks of a plan in pieces that have tiles of columns; those of single numbers take no time beside them."""
    return tuple(
        s
        for s in plan.steps
        if isinstance(s, TileProgram) and s.sweep is not None and s.of(Role.TILE)
        if any(a.rank == PIECES for a in s.axes)
    )


def programs(walk: TileProgram, extents: Mapping[str, int]) -> int:
    """How many programs a walk has that is not cut."""
    points = [extents[a.rank] for a in walk.of(Role.GRID) if a.rank != PIECES]
    return math.prod(points) * math.prod(tiles(walk, extents))


def tiles(walk: TileProgram, extents: Mapping[str, int]) -> list[int]:
    """How many tiles its columns have."""
    return [-(-extents[a.rank] // COLUMNS) for a in walk.of(Role.TILE)]


def pieces_of(walks: Sequence[TileProgram], extents: Mapping[str, int], processors: int) -> int:
    """The number of pieces for all walks of a call; 1 where whole walks serve better."""

    def positions(w: TileProgram) -> int:
        assert w.sweep is not None
        return extents[w.axis(w.sweep.axis).rank]

    counts = [worth(programs(w, extents), positions(w), processors) for w in walks]
    return min(counts, default=1)
