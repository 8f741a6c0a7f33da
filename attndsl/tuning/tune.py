"""Tuning a program: pose its problems, search, and say what was found.

found = tune(cascade, sizes, "bf16", machine, seconds=30)
store().add(f.entry for f in found if f.entry)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from attndsl import __version__
from attndsl.cascade.nodes import Cascade, DType
from attndsl.cascade.starts import START, resolve_start
from attndsl.processors import processors
from attndsl.runtime.stages import refusals
from attndsl.runtime.starts import with_start
from attndsl.sizes import USUAL, Sizes, sizes
from attndsl.tuning.database import Entry, now
from attndsl.tuning.device import Config, Device, Processes
from attndsl.tuning.first import first_choice, takes_warps
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.keys import key_of
from attndsl.tuning.machine import Machine
from attndsl.tuning.problem import Problem, backend_for, hash_of, pose
from attndsl.tuning.search import Outcome, Report, search
from attndsl.tuning.space import Space, default, explore, explore_warps

# Of the budget, what ending the processes takes.
ENDING = 0.5
# A gain within this many standard errors is noise: the default stays.
SURE = 2.0


class Opened(Protocol):
    """Something that makes a device for problems, to be closed after use."""

    def __call__(
        self, problems: Sequence[Problem], *, capability: int, workers: int
    ) -> AbstractContextManager[Device]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What tuning found for one kernel: its space, what was tried, and the entry to keep, if any was right."""

    kernel: Kernel
    space: Space
    outcome: Outcome
    entry: Entry | None
    """The default's configuration where none was faster beyond noise."""
    runs: bool = True
    """Whether it is this form of the kernel that calls run without an entry (`runs_without`)."""

    @property
    def noise(self) -> float:
        """The standard error of the entry's time, as a part of it."""
        config = None if self.entry is None else self.entry.config
        kept = next((t for t in self.outcome.trials if t.config == config), None)
        return kept.measured.noise if kept is not None and kept.measured else float("inf")


def tune(
    cascade: Cascade,
    at: Sizes,
    dtype: str,
    machine: Machine,
    *,
    seconds: float,
    backward: bool = True,
    wrt: tuple[str, ...] | None = None,
    triton: str = "",
    workers: int | None = None,
    open_device: Opened = Processes,
    most: int | None = None,
    spread: int = 0,
    specialise: bool = False,
    report: Report = lambda event: None,
) -> list[Found]:
    """Search for every kernel that a call of these sizes launches, and its backward pass for the inputs `wrt`.

    Without `wrt` these are all float inputs, or none without `backward`. Of each kernel the `most` promising are tried,
    and `spread` of the others, from all over the space. With `specialise`, so are kernels whose warps specialise, which
    calls on Hopper may take.

    Raises: DiagnosticError where no schedule is legal; CallError (A0510) where no tile fits; ChildError if the GPU's
    process cannot even start.
    """
    begun = time.monotonic()
    if wrt is None:
        floats = tuple(t.name for t in cascade.inputs if t.dtype is DType.FLOAT)
        wrt = floats if backward else ()
    problems = posed(cascade, at, dtype, machine, wrt, specialise)
    with refusals(cascade.name):
        every = [(k, p) for p in problems for k in p.every]
        own = {k.name: default(k, p.extents, p.itemsize, machine) for k, p in every}
        firsts = {
            k.name: first_choice(k, p.extents, p.usual, p.itemsize, machine) for k, p in every
        }
    kernels = [(k, p) for k, p in every if firsts[k.name] is not None]
    count = workers or processors()
    with open_device(problems, capability=machine.capability, workers=count) as device:
        # While the device's processes start.
        spaces = {
            k.name: explore(k, p.extents, p.params, p.itemsize, machine)
            if k.warps is None
            else explore_warps(k, p.extents, machine)
            for k, p in kernels
        }
        runs = {k.name: runs_without(k, p, machine) for k, p in kernels}
        wanted = {
            # Of a form that calls do not take, what it would run is enough for a sample.
            k: chosen(
                s.configs(firsts[k], own[k]),
                *((most, spread) if most is None or runs[k] else (1, 0)),
            )
            for k, s in spaces.items()
        }
        outcomes = search(
            wanted, device, seconds=seconds - ENDING, workers=count, report=report, begun=begun
        )
    hash_ = hash_of(cascade)
    return [
        Found(
            k,
            spaces[k.name],
            outcomes[k.name],
            entry_for(k, p, hash_, machine, outcomes[k.name], triton),
            runs[k.name],
        )
        for k, p in kernels
    ]


def runs_without(kernel: Kernel, problem: Problem, machine: Machine) -> bool:
    """Whether calls without an entry run this form of a kernel, of the forms that the problem has."""

    def worth(special: Kernel) -> bool:
        return takes_warps(special, problem.extents, problem.itemsize, machine)

    if kernel.warps is not None:
        return worth(kernel)
    rivals = [s for s in problem.special if s.program is kernel.program]
    return not any(map(worth, rivals))


def chosen(configs: Sequence[Config], most: int | None, spread: int) -> list[Config]:
    """The `most` promising, and `spread` of the others at even distances in the order of expectation."""
    if most is None or most >= len(configs):
        return list(configs)
    rest = configs[most:]
    count = min(spread, len(rest))
    return [*configs[:most], *(rest[(2 * k + 1) * len(rest) // (2 * count)] for k in range(count))]


def posed(
    cascade: Cascade,
    at: Sizes,
    dtype: str,
    machine: Machine,
    wrt: tuple[str, ...],
    specialise: bool = False,
) -> list[Problem]:
    """The passes that a call of these sizes runs: forward, split where queries are few, and backward."""
    out: list[Problem] = []
    count, backend = machine.multiprocessors, backend_for(machine.capability)
    few = pose(cascade, "forward_split", at, dtype, wrt=wrt, multiprocessors=count, backend=backend)
    forward = few or pose(
        cascade, "forward", at, dtype, wrt=wrt, backend=backend, specialise=specialise
    )
    assert forward is not None
    out.append(forward)
    if wrt:
        behind = pose(
            cascade, "backward", at, dtype, wrt=wrt, backend=backend, specialise=specialise
        )
        out += [] if behind is None else [behind]
    return out


def sizes_at(cascade: Cascade, given: Mapping[str, int]) -> Sizes:
    """Sizes of a language model's layer, with what is given; where queries are fewer than keys, they are the last.

    Raises: CallError if what is given does not fit the program.
    """
    shifted = with_start(cascade, "int")
    found = sizes(shifted, USUAL, given)
    if START not in found.params:
        return found
    from attndsl.cascade.bind import bind

    shapes = found.shapes
    plain = {n: v for n, v in found.params.items() if n != START}
    binding = bind(cascade, shapes, plain)
    shifts = resolve_start(cascade, binding, "end")
    return replace(found, params={**plain, START: next(iter(shifts.values()), 0)})


def entry_for(
    kernel: Kernel,
    problem: Problem,
    program: str,
    machine: Machine,
    outcome: Outcome,
    triton: str,
) -> Entry | None:
    """What to keep of a search: the best, or the default where that is as fast.

    None if none was right, or where the default was not tried or its time not found: the best may be slower than it.
    """
    best, first = outcome.best, outcome.first
    if best is None or best.measured is None or first is None:
        return None
    if first.failure is not None and first.failure.kind == "disturbed":
        return None
    chosen = best
    if first.measured is not None and first is not best:
        noise = SURE * (best.measured.noise + first.measured.noise)
        if first.ms < best.ms * (1 + noise):
            chosen = first
    return Entry(
        key=key_of(kernel, program, problem.extents, problem.floats(), machine.name),
        config=dict(chosen.config),
        ms=round(chosen.ms, 5),
        default_ms=round(first.ms, 5) if first.measured else 0.0,
        triton=triton,
        when=now(),
        more={"tried": len(outcome.trials), "attndsl": __version__},
    )


def entries(found: Iterable[Found]) -> list[Entry]:
    """What there is to keep."""
    return [f.entry for f in found if f.entry is not None]
