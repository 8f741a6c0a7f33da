"""The configurations of a kernel: block sizes, warps, stages; pruned by arithmetic, ordered by a model of their time.

    space = explore(kernel, extents, params, itemsize=2, machine=MACHINES["H100"])
    space.candidates[0].config       # {"BLOCK_I": 128, "BLOCK_J": 64, "num_warps": 8, "num_stages": 3}
    space.rejected[0].why            # "524288 bytes of shared memory, and a block has 232448"

A kernel is a tile program in a dialect. What is particular to a dialect is which numbers its configurations hold and
what they take, in `Dialect`; the rest is arithmetic on the tile program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from attndsl.cascade.bind import Number
from attndsl.codegen.configs import choice, choose_warps, demand, padded
from attndsl.codegen.names import identifier
from attndsl.schedule.cost import Cost, kernel_cost
from attndsl.schedule.tile import For, Role, Scan
from attndsl.schedule.tile import Load as Load_
from attndsl.tuning.device import Config
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.machine import REGISTERS, Machine
from attndsl.tuning.model import Load, predict

# What the estimate of registers may exceed the hardware's 255 by: it is an estimate, and some spill less than it says.
ESTIMATE = 1.25
MOST_REGISTERS = 255


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration, and the time that the model expects, in seconds."""

    config: Config
    seconds: float
    load: Load | None = None
    """What the model knew of it."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A configuration that is not tried, and the figure that speaks against it."""

    config: Config
    why: str


@dataclass(frozen=True, slots=True)
class Space:
    """All configurations of a kernel; candidates in the order in which to try them."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]

    def configs(self, *firsts: Config | None) -> list[Config]:
        """What to try in order; before all `firsts`, of which the first is what would run without tuning."""
        out: list[Config] = []
        for config in (*firsts, *(c.config for c in self.candidates)):
            if config is not None and config not in out:
                out.append(config)
        return out


@dataclass(frozen=True, slots=True)
class Dialect:
    """What configurations of a dialect look like.

    `configs` gives all of them for the facts of a kernel and the size of an element; `demand` the shared memory in
    bytes and the registers a thread that one takes, as `codegen.configs.demand`.
    """

    name: str
    configs: Callable[[Mapping[str, Any], int], Iterator[dict[str, int]]]
    demand: Callable[[dict[str, Any], dict[str, int], int, int, int], tuple[int, int]]


ROWS = (16, 32, 64, 128, 256)
COLUMNS = (16, 32, 64, 128, 256)
WARPS = (4, 8, 16)
STAGES = (1, 2, 3, 4)
# One number for each position: a chunk takes no room, and few long ones wait less often.
LONG = (512, 1024)


def axes_of(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The axes that have a block: tiles, then the stream."""
    return (*facts["tiles"], *([facts["stream"]] if facts["stream"] else []))


def portable_configs(facts: Mapping[str, Any], itemsize: int) -> Iterator[dict[str, int]]:
    """All configurations of a portable kernel."""
    axes = axes_of(facts)
    rows: tuple[int, ...] = ROWS if axes else (1,)
    rows += LONG if facts.get("scans") and not facts["tiles"] else ()
    columns = COLUMNS if len(axes) > 1 else (1,)
    stages = STAGES if facts["stream"] else (1,)
    fixed = facts.get("fixed", {})
    warps_of = (1, 2, *WARPS) if facts.get("walks") else WARPS  # a step's latency is what counts
    for r, c, warps, depth in product(rows, columns, warps_of, stages):
        blocks = (r, c, *[16] * len(axes))
        if any(n != fixed.get(a, n) for a, n in zip(axes, blocks, strict=False)):
            continue
        yield {
            **{f"BLOCK_{a.upper()}": n for a, n in zip(axes, blocks, strict=False)},
            "num_warps": warps,
            "num_stages": depth,
        }


PORTABLE = Dialect("triton", portable_configs, demand)


def explore(
    kernel: Kernel,
    extents: Mapping[str, int],
    params: Mapping[str, Number],
    itemsize: int,
    machine: Machine,
    dialect: Dialect = PORTABLE,
) -> Space:
    """Every configuration of a kernel at one size: the candidates in order, and the others with their reasons."""
    facts = kernel.facts
    pads = {a: padded(extents[r], itemsize) for a, r in facts["pads"].items()}
    longest = {
        identifier(a.name): power(extents[a.rank])
        for a in kernel.program.axes
        if a.role in (Role.TILE, Role.STREAM)
    }
    scans, looped = _scans(kernel), _looped(kernel, extents)
    costs: dict[tuple[int, ...], Cost] = {}
    candidates: list[Candidate] = []
    rejected: list[Rejected] = []
    for config in dialect.configs(facts, itemsize):
        blocks = {a: config[f"BLOCK_{a.upper()}"] for a in axes_of(facts)}
        warps, stages = config["num_warps"], config["num_stages"]
        shared, registers = dialect.demand(facts, {**pads, **blocks}, itemsize, warps, stages)
        why = _against(blocks, longest, shared, registers, warps, itemsize, machine)
        if why:
            rejected.append(Rejected(config, why))
            continue
        shape = tuple(blocks.values())
        if shape not in costs:
            named = {
                a.name: blocks[identifier(a.name)]
                for a in kernel.program.axes
                if identifier(a.name) in blocks
            }
            costs[shape] = kernel_cost(
                kernel.plan, kernel.program, extents, params, itemsize, named
            )
        load = Load(
            costs[shape],
            blocks=_count(kernel, extents, blocks),
            rows=next(iter(blocks.values()), 1),
            columns=blocks.get(facts["stream"], 1),
            stream=_stream(kernel, extents),
            warps=warps,
            stages=stages,
            shared=shared,
            registers=registers,
            fetched=_fetched(facts, pads, itemsize),
            itemsize=itemsize,
            chunks="chunks" in facts,
            scans=scans,
            looped=looped,
        )
        candidates.append(Candidate(config, predict(load, machine), load))
    # Equal predictions in the order of the grid, so that the order is the same everywhere.
    return Space(tuple(sorted(candidates, key=lambda c: c.seconds)), tuple(rejected))


def explore_warps(kernel: Kernel, extents: Mapping[str, int], machine: Machine) -> Space:
    """Configurations of a kernel whose warps specialise: its own choice, and rings that are deeper or wider.

    They are few. What does not fit is out when it is compiled.
    """
    first = default(kernel, extents, 2, machine)
    if first is None or kernel.warps is None:
        return Space((), ())
    block = f"BLOCK_{kernel.warps['stream']}"
    others = [{**first, block: n, "STAGES": k} for n, k in product((128, 64, 32), (2, 3, 4))]
    configs = [first, *(c for c in others if c != first)]
    return Space(tuple(Candidate(c, 0.0) for c in configs), ())


def default(
    kernel: Kernel, extents: Mapping[str, int], itemsize: int, machine: Machine
) -> dict[str, int] | None:
    """What the generated module chooses by itself; None where a kernel whose warps specialise does not fit."""
    if kernel.warps is not None:
        return choose_warps(kernel.warps, dict(extents), machine.shared_block)
    named = {r: extents[r] for r in set(kernel.facts["pads"].values())}
    return choice(kernel.facts, named, itemsize, machine.shared_block)


def power(n: int) -> int:
    """The power of two from `n` up, and at least the smallest tile."""
    return max(16, 1 << max(0, n - 1).bit_length())


def _against(
    blocks: Mapping[str, int],
    longest: Mapping[str, int],
    shared: int,
    registers: int,
    warps: int,
    itemsize: int,
    machine: Machine,
) -> str:
    """Why a configuration is not worth compiling; nothing if it is."""
    for axis, n in blocks.items():
        if n > longest[axis]:
            return f"{n} points of {axis} in a tile, and there are {longest[axis]} at most"
    if shared > machine.shared_block:
        return f"{shared} bytes of shared memory, and a block has {machine.shared_block}"
    most = min(MOST_REGISTERS, REGISTERS // (32 * warps))
    if registers > ESTIMATE * most:
        return f"about {registers} registers a thread, and {warps} warps have {most} each"
    # A warp multiplies 16 rows at a time, by 8 columns.
    points = 1
    for n in blocks.values():
        points *= n
    if len(blocks) > 1 and points < warps * 16 * 8:
        return f"{points} points in a tile, and {warps} warps multiply {warps * 128} at a time"
    return ""


def _count(kernel: Kernel, extents: Mapping[str, int], blocks: Mapping[str, int]) -> int:
    """How many blocks the grid has."""
    out = 1
    for a in kernel.program.of(Role.GRID):
        out *= extents[a.rank]
    for a in kernel.program.of(Role.TILE):
        out *= -(-extents[a.rank] // blocks[identifier(a.name)])
    return out


def _stream(kernel: Kernel, extents: Mapping[str, int]) -> int:
    """How many points the sweep walks over, all turns of the loops around it together."""
    out = 1
    for a in (*kernel.program.of(Role.STREAM), *kernel.program.of(Role.LOOP)):
        out *= extents[a.rank]
    return out


def _fetched(facts: Mapping[str, Any], pads: Mapping[str, int], itemsize: int) -> int:
    """Bytes that a block fetches for one point of the stream."""
    out = 0
    for dims in facts["streamed"]:
        n = itemsize
        for d in dims:
            n *= pads.get(d, 1)
        out += n
    return out


def _scans(kernel: Kernel) -> int:
    """How many running sums of pairs a step takes."""
    sweep = kernel.program.sweep
    body = sweep.ranges[0].body if sweep is not None else ()
    return sum(isinstance(s, Scan) and len(s.dims) > 1 for s in body)


def _looped(kernel: Kernel, extents: Mapping[str, int]) -> int:
    """How many rows and columns a step loads in loops over points, all turns together."""
    sweep = kernel.program.sweep
    out = 0
    for s in sweep.ranges[0].body if sweep is not None else ():
        if isinstance(s, For) and s.guard is None:
            loads = sum(isinstance(x, Load_) and len(x.dims) == 1 for x in s.body)
            out += loads * extents[kernel.program.axis(s.axis).rank]
    return out
