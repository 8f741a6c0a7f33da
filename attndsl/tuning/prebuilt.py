"""Kernels compiled ahead of their first call, in a folder to be carried: what `attndsl compile --tuned` adds.

    build(cascade, sizes, "bf16", targets=("sm_90",), folder=Path("build/causal.kernels"))
    install(Path("build/causal.kernels"))          # elsewhere: no later call of these kinds runs a compiler

The folder holds entries of the database, and what Triton's cache holds of each kernel under the very key that a launch
looks for. Triton writes whole paths into that; here they are names, and become paths where they are installed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attndsl.cascade.nodes import Cascade, DType
from attndsl.codegen.aot import SHARED_MEMORY, CompileError
from attndsl.codegen.configs import choice, choose_warps
from attndsl.processors import processors
from attndsl.sizes import Sizes
from attndsl.tuning.child import Child, ChildError
from attndsl.tuning.database import Entry, add, read
from attndsl.tuning.device import Config
from attndsl.tuning.first import FITTED, first_choice
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.keys import key_of
from attndsl.tuning.problem import Problem, backend_for, hash_of, pose

ENTRIES = "tuning.jsonl"
GROUP = "__grp__"
SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """One kernel with one configuration for one target."""

    problem: Problem
    kernel: Kernel
    config: Config
    target: str

    def message(self) -> dict[str, Any]:
        """The request to a process that compiles."""
        p = self.problem
        return {
            "do": "compile",
            "capability": _capability(self.target),
            "module": str(p.module),
            "kernel": self.kernel.name,
            "launcher": p.launcher,
            "tensors": p.tensors(),
            "extents": p.extents,
            "params": p.params,
            "told": p.told(self.kernel.name, self.config),
        }


def build(
    cascade: Cascade,
    at: Sizes,
    dtype: str,
    *,
    targets: Sequence[str],
    folder: Path,
    entries: Sequence[Entry],
    backward: bool = True,
    workers: int | None = None,
) -> int:
    """Compile each kernel as `entries` have it and as it runs where they say nothing; how many that were.

    Raises: CompileError with the compiler's words; ValueError (A0510) where no tile fits.
    """
    jobs: list[Wanted] = []
    used: dict[Any, Entry] = {}
    for target in targets:
        for problem in _problems(cascade, at, dtype, backward, target):
            for kernel in problem.every:
                mine = _entries(cascade, problem, kernel, entries)
                used |= {e.key: e for e in mine}
                firsts = _firsts(kernel, problem, target)
                configs = [*firsts, *(e.config for e in mine if e.config not in firsts)]
                jobs += [Wanted(problem, kernel, c, target) for c in configs]
    folder.mkdir(parents=True, exist_ok=True)
    add(folder / ENTRIES, used.values())
    _compile(jobs, folder, workers or processors())
    for path in folder.glob(f"*/{GROUP}*.json"):
        _rewrite(path, lambda p: Path(p).name)
    (folder / f"{ENTRIES}.lock").unlink(missing_ok=True)
    return len(jobs)


def install(folder: str | os.PathLike[str]) -> int:
    """Put what `attndsl compile --tuned` wrote into Triton's cache and the user's database.

        attndsl.install("build/causal/causal.kernels")

    Returns how many parts (a kernel's code) were not there yet.

    Raises: OSError where these cannot be written, DatabaseError if the folder is of a later version.
    """
    from triton import knobs

    from attndsl.tuning.store import store

    fresh = 0
    folder = Path(folder)
    for source in sorted(p for p in folder.iterdir() if p.is_dir()):
        target = Path(knobs.cache.dir) / source.name
        fresh += not target.exists()
        shutil.copytree(source, target, dirs_exist_ok=True)
        for path in target.glob(f"{GROUP}*.json"):
            _rewrite(path, lambda p, target=target: str(target / Path(p).name))
    store().add(read(folder / ENTRIES).entries.values())
    return fresh


def _problems(
    cascade: Cascade, at: Sizes, dtype: str, backward: bool, target: str
) -> Iterator[Problem]:
    """The passes of a call without gradients, and of one with all of them, in all forms that calls may take there."""
    backend = backend_for(_capability(target))
    floats = tuple(t.name for t in cascade.inputs if t.dtype is DType.FLOAT)
    passes: list[tuple[str, tuple[str, ...]]] = [("forward", ())]
    passes += [("forward", floats), ("backward", floats)] if backward else []
    for launcher, wrt in passes:
        found = pose(cascade, launcher, at, dtype, wrt=wrt, backend=backend, specialise=True)
        if found is not None:
            yield found


def _entries(
    cascade: Cascade, problem: Problem, kernel: Kernel, entries: Sequence[Entry]
) -> list[Entry]:
    """What is known of a kernel, on whatever card and at whatever lengths."""
    key = key_of(kernel, hash_of(cascade), problem.extents, problem.floats(), "")
    same = ("program", "kernel", "dtypes", "dims")
    return [e for e in entries if all(getattr(e.key, f) == getattr(key, f) for f in same)]


def _capability(target: str) -> int:
    return int(target.removeprefix("sm_"))


def _firsts(kernel: Kernel, problem: Problem, target: str) -> list[Config]:
    """What runs where nothing is known: in calls, and in the module by itself.

    None of a kernel whose warps specialise and that does not fit.
    """
    smem, capability = SHARED_MEMORY[target], _capability(target)
    if kernel.warps is not None:
        found = choose_warps(kernel.warps, problem.extents, smem)
        return [] if found is None else [found]
    named = {r: problem.extents[r] for r in set(kernel.facts["pads"].values())}
    own = choice(kernel.facts, named, problem.itemsize, smem)
    card = FITTED.get(capability)
    if card is None:
        return [own]
    chosen = first_choice(kernel, problem.extents, problem.usual, problem.itemsize, card)
    return [own] if chosen is None or chosen == own else [chosen, own]


def _compile(jobs: Sequence[Wanted], folder: Path, workers: int) -> None:
    """Compile with the folder as Triton's cache."""
    env = {"TRITON_CACHE_DIR": str(folder.resolve()), "TRITON_INTERPRET": "0"}
    count = max(1, min(workers, len(jobs)))

    def work(mine: Sequence[Wanted]) -> None:
        with Child("attndsl.tuning.compiling", {"do": "open"}, env=env) as child:
            for job in mine:
                try:
                    child.ask(job.message(), SECONDS)
                except ChildError as error:
                    about = f"{job.kernel.name} for {job.target} with {dict(job.config)}"
                    raise CompileError(f"{about}: {error}") from None

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, [jobs[k::count] for k in range(count)]))


def _rewrite(path: Path, change: Any) -> None:
    """A group of files with each path changed."""
    group = json.loads(path.read_text(encoding="utf-8"))
    group["child_paths"] = {n: change(p) for n, p in group["child_paths"].items()}
    path.write_text(json.dumps(group), encoding="utf-8")
