"""When a call has few queries: whether its keys are split over the card, and into how many slices."""

from __future__ import annotations

import math
from functools import cache

import torch

from attndsl.schedule.split import ROWS, SPLIT
from attndsl.schedule.tile import Plan, Role, TileProgram

# A tile of rows costs nothing beside the keys up to about this many.
MOST_ROWS = 64
LEAST_KEYS = 512
# A slice shorter than this spends its time on starting.
LEAST_SLICE = 256


class FewQueries:
    """The choice for one program, from extents alone."""

    def __init__(self, forward: Plan, split: Plan) -> None:
        whole, slices = forward.steps[0], split.steps[0]
        assert isinstance(whole, TileProgram)
        assert isinstance(slices, TileProgram)
        assert slices.sweep is not None
        self.whole = tuple(a.rank for a in whole.of(Role.GRID))
        self.grid = tuple(a.rank for a in slices.of(Role.GRID) if a.rank != SPLIT)
        (self.row,) = (a.rank for a in whole.of(Role.TILE))
        self.packed = any(a.rank == ROWS for a in slices.axes)
        self.stream = slices.axis(slices.sweep.axis).rank

    def sizes(self, extents: dict[str, int], device: torch.device) -> dict[str, int] | None:
        """The extents that the split pass adds, or None where the whole pass serves better."""
        return self.slices(extents, multiprocessors(device))

    def slices(self, extents: dict[str, int], blocks: int) -> dict[str, int] | None:
        """The same for a device that runs so many blocks at once."""
        programs = math.prod(extents[r] for r in self.grid)
        keys, rows = extents[self.stream], extents[self.row]
        if self.packed and programs:
            rows = rows * math.prod(extents[r] for r in self.whole) // programs
        if not 0 < rows <= MOST_ROWS or keys < LEAST_KEYS:
            return None
        programs *= -(-rows // 16)
        slices = max(1, min(blocks // max(1, programs), keys // LEAST_SLICE))
        if slices == 1 and not self.packed:
            return None
        return {SPLIT: slices, ROWS: rows}


@cache
def multiprocessors(device: torch.device) -> int:
    """How many blocks run at once; some for Triton's interpreter."""
    if device.type != "cuda":
        return 8
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count
