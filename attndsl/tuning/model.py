"""A model of a kernel's time: which unit of a multiprocessor is busy longest, how well others hide behind it, waves.

It need not be right, only order configurations: what is first in its order runs where nothing is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from attndsl.schedule.cost import Cost
from attndsl.tuning.machine import REGISTERS, Machine

# Of the machine's peaks, what kernels reach at best.
PRODUCTS_REACHED = 0.75
MEMORY_REACHED = 0.9
LANES = 128
# Clocks that pass at every step of a sweep whatever its size (copies, barriers, reductions), and once a block.
STEP_CLOCKS = 150.0
BLOCK_CLOCKS = 3000.0
# What a sweep takes longer whose copies are asked for in the same step, or one step ahead, instead of two.
EXPOSED = {1: 1.4, 2: 1.15}
# Registers a thread that the estimate leaves out: addresses, masks, operands of products.
UNCOUNTED = 50
# Bytes a clock that a multiprocessor gets from the second-level cache.
CACHE_BYTES = 64.0


@dataclass(frozen=True, slots=True)
class Load:
    """One configuration of a kernel: its work, and how it is cut.

    `blocks` in the grid; `rows` and `columns` of a tile of pairs; `stream` points that a sweep may visit; `fetched`
    bytes for a point of the stream.
    """

    cost: Cost
    blocks: int
    rows: int
    columns: int
    stream: int
    warps: int
    stages: int
    shared: int
    registers: int
    fetched: int
    itemsize: int


def resident(load: Load, machine: Machine) -> int:
    """How many blocks share a multiprocessor."""
    registers = min(255, max(64, load.registers + UNCOUNTED)) * load.warps * 32
    return max(
        1,
        min(
            machine.shared_all // max(1, load.shared + 1024),
            REGISTERS // registers,
            machine.warps // load.warps,
            32,
        ),
    )


def predict(load: Load, machine: Machine) -> float:
    """Seconds that a kernel takes, about."""
    cost = load.cost
    at_once = resident(load, machine)
    per_block = 1.0 / max(1, load.blocks)
    share = at_once * machine.multiprocessors
    # Clocks of one multiprocessor for one block, on each unit.
    products = cost.flops * per_block / _product_rate(load, machine)
    specials = cost.exps * per_block / 16.0
    plain = cost.pointwise * per_block / LANES
    visited = 1.0 if cost.visited is None else cost.visited
    points = visited * load.stream if load.columns > 1 else 0.0
    fetch = points * load.fetched / CACHE_BYTES
    steps = points / load.columns
    # Warp groups, of one block or of several, hide each other's waits.
    groups = at_once * max(1, load.warps // 4)
    vector = specials + plain
    hidden = min(products, vector) / groups
    waits = steps * STEP_CLOCKS / min(groups, 4)
    busy = max(products, vector, fetch) + hidden + waits
    exposed = EXPOSED.get(load.stages, 1.0) if steps else 1.0
    block = busy * _crowding(load) * exposed + BLOCK_CLOCKS / at_once
    waves = load.blocks / share
    # Blocks of one length end together, in whole waves; where lengths differ, the rest is filled.
    uneven = cost.visited is not None and cost.visited < 0.95
    waves = max(1.0, waves + 0.3) if uneven else math.ceil(waves)
    clocks = waves * at_once * block
    memory = cost.moved / (machine.peaks.bandwidth * MEMORY_REACHED)
    return max(clocks / machine.clock, memory)


def _product_rate(load: Load, machine: Machine) -> float:
    """Operations of matrix products in a clock of one multiprocessor."""
    peak = machine.peaks.flops[load.itemsize] / (machine.multiprocessors * machine.clock)
    reached = PRODUCTS_REACHED
    if machine.capability == 90 and load.itemsize == 2:
        # A warp group multiplies 64 rows at a time; with fewer, the older instruction does.
        if load.rows < 64 or load.rows < 16 * load.warps:
            reached *= 0.45
        if load.columns < 64:
            reached *= 0.5 + load.columns / 128
    return peak * reached


def _crowding(load: Load) -> float:
    """What spilling costs: registers beyond the hardware's go to memory and back at every step."""
    most = min(255, REGISTERS // (32 * load.warps))
    return 1.0 + max(0, load.registers + UNCOUNTED - most) / 120.0
