"""A model of a kernel's time: which unit of a multiprocessor is busy longest, how well others hide behind it, waves.

It need not be right, only order configurations: what is first in its order runs where nothing is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from attndsl.schedule.cost import Cost
from attndsl.tuning.machine import REGISTERS, Machine

# Of the machine's peaks, what kernels reach at best. All numbers here were fitted together to measured times of kernels
# of the examples on an H100 and an H200 (benchmarks/model.py): the order of configurations counts, not the times, so
# that one alone says little.
PRODUCTS_REACHED = 1.0
MEMORY_REACHED = 0.9
LANES = 128
# Clocks that pass at every step of a sweep whatever its size (copies, barriers, reductions), and once a block. Warps
# wait for each other; where a state is carried, products of a step wait for each other besides.
STEP_CLOCKS = 360.0
CARRIED = 5.2
BLOCK_CLOCKS = 1500.0
# What a sweep takes longer whose copies are asked for in the same step, or one step ahead, instead of two; what it
# gains from a third.
EXPOSED = {1: 2.2, 2: 1.14, 4: 0.97}
# Registers a thread that the estimate leaves out: addresses, masks, operands of products; first where they say how many
# blocks share a multiprocessor, then where they say what spills, which begins before all are taken; and how many more
# than there are take twice the time.
UNCOUNTED = 60
CROWDED = 90
SPILLED = 116.0
# Bytes a clock that a multiprocessor gets from the second-level cache.
CACHE_BYTES = 64.0
# A warp group multiplies 64 rows at a time, a warp 16: how what is reached falls where there are more warps than rows,
STARVED = 2.0
# for narrow tiles of the stream, and with every doubling of the rows of a warp beyond 16.
NARROW = 2.0
TALL = 0.52
# Operations of a running sum for each of its points, for one column, and how they grow with the columns; clocks of a
# row or column loaded by a warp.
SCANNED = 15.0
SCAN_POWER = 0.52
LOADED = 0.03


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
    chunks: bool = False
    """A state is carried from step to step: products of a step wait for each other."""
    scans: int = 0
    """Running sums along the stream, in every step."""
    looped: int = 0
    """Rows and columns that a step loads one feature at a time."""


def resident(load: Load, machine: Machine) -> int:
    """How many blocks share a multiprocessor."""
    registers = min(255, max(64, load.registers + UNCOUNTED)) * load.warps * 32
    return max(
        1,
        min(
            machine.shared_all // max(1, load.shared + 1024),
            REGISTERS // registers,
            machine.warps // load.warps,
            -(-load.blocks // machine.multiprocessors),
            32,
        ),
    )


def predict(load: Load, machine: Machine) -> float:
    """Seconds that a kernel takes, about."""
    cost = load.cost
    at_once = resident(load, machine)
    per_block = 1.0 / max(1, load.blocks)
    share = at_once * machine.multiprocessors
    visited = 1.0 if cost.visited is None else cost.visited
    points = visited * load.stream if load.columns > 1 else 0.0
    steps = points / load.columns
    # Clocks of one multiprocessor for one block, on each unit.
    products = cost.flops * per_block / _product_rate(load, machine)
    vector = cost.exps * per_block / 16.0 + cost.pointwise * per_block / LANES
    vector += _summed(load, points) + _looped(load, steps)
    fetch = points * load.fetched / CACHE_BYTES
    # Blocks hide each other's waits; warps of one block meet at every tile.
    hidden = min(products, vector) / at_once
    waits = steps * STEP_CLOCKS * math.sqrt(load.warps / 4) / min(at_once, 4)
    busy = max(products, vector, fetch) + hidden + waits * (CARRIED if load.chunks else 1.0)
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
        # Where a state is carried, positions of a chunk are rows of products too.
        rows = min(load.rows, load.columns) if load.chunks and load.columns > 1 else load.rows
        reached *= min(1.0, rows / max(64, 16 * load.warps)) ** STARVED
        if load.columns < 64:
            reached *= (load.columns / 64) ** NARROW
        reached /= 1.0 + TALL * math.log2(max(1.0, load.rows / (16 * load.warps)))
    return peak * reached


def _summed(load: Load, points: float) -> float:
    """Clocks of running sums along the stream."""
    if not load.scans:
        return 0.0
    operations: float = SCANNED * points * load.rows * load.columns**SCAN_POWER
    return load.scans * operations / LANES


def _looped(load: Load, steps: float) -> float:
    """Clocks of rows and columns that are loaded one feature at a time: each thread loads what its points need."""
    held = max(1.0, load.rows * load.columns / (32 * load.warps))
    return load.looped * LOADED * steps * load.warps * 2 * math.sqrt(held)


def _crowding(load: Load) -> float:
    """What spilling costs: registers beyond the hardware's go to memory and back at every step."""
    most = min(255, REGISTERS // (32 * load.warps))
    return 1.0 + max(0, load.registers + CROWDED - most) / SPILLED
