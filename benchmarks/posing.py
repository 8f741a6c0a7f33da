"""What `choices.py` measures, worked out without a GPU: the passes of each example, and the kinds of configurations.

pose_all(Path("build/choices"), ["causal"], MACHINES["H200"])
posed_at(Path("build/choices"), "causal").kernels[0].configs(most=5, spread=3)
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from common import EXAMPLES
from tuning import extents_of

from attndsl.cascade.nodes import DType
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.processors import processors
from attndsl.tuning.database import read
from attndsl.tuning.device import Config
from attndsl.tuning.first import first_choice
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.keys import key_of
from attndsl.tuning.machine import Machine
from attndsl.tuning.problem import Problem, hash_of
from attndsl.tuning.space import Space, default, explore
from attndsl.tuning.store import shipped_file
from attndsl.tuning.tune import chosen, posed, runs_without, sizes_at

SHAPE = {"h": 16}
# What the model expects to take so many times as long as its first choice is not tried.
WORSE = 3.0


@dataclass(frozen=True, slots=True)
class Listed:
    """A kernel with the configurations to try."""

    kernel: str
    launcher: str
    runs: bool
    """Whether it is this form of the kernel that calls run without an entry."""
    own: Config
    """What the module runs by itself."""
    first: Config
    """What a call runs without an entry."""
    guess: Config
    """What the model expects to be the fastest."""
    others: list[Config]
    """All kinds, in the order of what the model expects."""
    of: int
    entry: Config | None = None
    """What the package's entries say for this card."""

    @property
    def special(self) -> bool:
        """Whether its warps specialise: it is timed as it runs, and there are no others of it."""
        return not self.others

    def configs(self, most: int, spread: int) -> list[Config]:
        """What to try: these, the `most` promising kinds, and `spread` of the others."""
        known = [self.own, self.first, self.guess, *([] if self.entry is None else [self.entry])]
        return distinct([*known, *chosen(self.others, most, spread)])


@dataclass(frozen=True, slots=True)
class Posed:
    """A program: its passes, and their kernels."""

    program: str
    problems: list[Problem]
    kernels: list[Listed]


def pose(program: str, machine: Machine) -> Posed:
    """All that is known of a program without running it."""
    (cascade, *_) = load_cascades(read_source(EXAMPLES / f"{program}.attn"))
    at = sizes_at(cascade, {k: n for k, n in SHAPE.items() if k in extents_of(cascade)})
    floats = tuple(t.name for t in cascade.inputs if t.dtype is DType.FLOAT)
    problems = posed(cascade, at, "bf16", machine, floats, specialise=True)
    kernels = []
    for p in problems:
        for k in p.every:
            own = default(k, p.extents, p.itemsize, machine)
            if own is None:
                continue
            space = None
            if k.warps is None:
                space = explore(k, p.extents, p.params, p.itemsize, machine)
            first = first_choice(k, p.extents, p.usual, p.itemsize, machine) or own
            guess = space.candidates[0].config if space and space.candidates else own
            kernels.append(
                Listed(
                    kernel=k.name,
                    launcher=p.launcher,
                    runs=runs_without(k, p, machine),
                    own=own,
                    first=first,
                    guess=guess,
                    others=kinds(space) if space else [],
                    of=len(space.candidates) if space else 1,
                    entry=shipped_for(k, hash_of(cascade), p, machine),
                )
            )
    return Posed(program, problems, kernels)


def shipped_for(kernel: Kernel, program: str, problem: Problem, machine: Machine) -> Config | None:
    """The configuration of an entry that comes with the package."""
    key = key_of(kernel, program, problem.extents, problem.floats(), machine.name)
    same = (k for k in read(shipped_file()).entries.values() if machine.name in k.key.gpu)
    return next((e.config for e in same if replace(e.key, gpu=key.gpu) == key), None)


def kinds(space: Space) -> list[Config]:
    """Of configurations that differ in stages alone the one that the model prefers, up to `WORSE`."""
    limit = WORSE * space.candidates[0].seconds if space.candidates else 0.0
    found: dict[tuple[tuple[str, int], ...], Config] = {}
    for c in space.candidates:
        if c.seconds <= limit:
            found.setdefault(
                tuple((n, v) for n, v in c.config.items() if n != "num_stages"), c.config
            )
    return list(found.values())


def distinct(configs: Iterable[Config]) -> list[Config]:
    """Each once."""
    out: list[Config] = []
    for config in configs:
        if config not in out:
            out.append(config)
    return out


def pose_into(folder: Path, program: str, machine: Machine) -> str:
    """Write a program's problems and modules into a folder; what stood against it, or nothing."""
    try:
        made = pose(program, machine)
    except Exception as error:  # one that fails is recorded, and does not keep others from it
        return f"{program}: {type(error).__name__}: {error}"[:300]
    for p in made.problems:
        (folder / p.module.name).write_bytes(p.module.read_bytes())
    (folder / f"{program}.posed").write_bytes(pickle.dumps(made))
    return ""


def pose_all(folder: Path, names: Sequence[str], machine: Machine) -> None:
    """Those that are not there yet, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [n for n in names if not (folder / f"{n}.posed").exists()]
    with ProcessPoolExecutor(processors()) as pool:
        jobs = [pool.submit(pose_into, folder, n, machine) for n in names]
        for said in (j.result() for j in jobs):
            if said:
                print(said, file=sys.stderr, flush=True)


def posed_at(folder: Path, program: str) -> Posed:
    """What was written; the modules are where the file is."""
    made: Posed = pickle.loads((folder / f"{program}.posed").read_bytes())
    here = [replace(p, module=folder / p.module.name) for p in made.problems]
    return replace(made, problems=here)
