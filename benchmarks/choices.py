"""What runs where nothing is known, and the model's first choice, beside others of all kinds, over all examples.

    PYTHONPATH=. python benchmarks/choices.py --out benchmarks/results/tuning/choices-h200.json
    PYTHONPATH=. python benchmarks/choices.py --pose build/choices --card H200          # what needs no GPU, beforehand
    PYTHONPATH=. python benchmarks/choices.py --posed build/choices causal alibi --pass backward --seconds 85

A search (`examples.py`) tries what the model finds promising, so that what the model is blind to is not seen. Here a
kernel's configurations are taken by their kind, all that differ in tiles or warps, each with the stages that the model
would give it: the most promising, and others at even distances of all that it expects to take up to `WORSE` times as
long. Compilers work side by side, and one process times what they have made, alone on the card. A program is measured
when all of its candidates are compiled, or not at all.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import EXAMPLES, Table
from posing import SHAPE, Listed, Posed, pose_all, posed_at

from attndsl.processors import processors
from attndsl.tuning.child import ChildError
from attndsl.tuning.device import Compiled, Config, Failure, Processes, Staff, Timeouts
from attndsl.tuning.machine import MACHINES, Machine, machine_of
from attndsl.tuning.problem import Problem

# Times of a candidate, and how many times the best one may take until it is not timed to the end.
REPEATS, HOPELESS = 7, 1.5
NEAR = 1.15

Jobs = Mapping[tuple[str, int], Future[Compiled]]
"""What is compiled, by kernel and number of the configuration."""


class Run:
    """Programs of one pass, compiled ahead of being timed; of each kernel `how` many configurations.

    `only` says of which: "differ" where the model chooses otherwise than the module, "entries" where there is one.
    """

    def __init__(
        self,
        which: str,
        machine: Machine,
        how: tuple[int, int],
        workers: int,
        end: float,
        only: str = "",
    ) -> None:
        self.which, self.machine, self.how, self.end = which, machine, how, end
        self.only = only
        timeouts = Timeouts(start=25.0, compile=60.0, run=20.0)
        self.staff = Staff(workers, timeouts, runner="benchmarks.beside")
        self.pool = ThreadPoolExecutor(workers)

    def opened(self, problems: Sequence[Problem]) -> Processes:
        """A device that lends its processes from the staff."""
        capability = self.machine.capability
        return Processes(problems, capability=capability, workers=0, staff=self.staff)

    def mine(self, launcher: str) -> bool:
        """Whether a launcher is of this pass."""
        return launcher.startswith("backward") == (self.which == "backward")

    def wanted(self, made: Posed) -> list[Listed]:
        """The kernels of a program that are measured."""
        mine = [k for k in made.kernels if self.mine(k.launcher)]
        match self.only:
            case "differ":
                return [k for k in mine if k.own != k.first]
            case "entries":
                return [k for k in mine if k.entry is not None]
            case _:
                return mine

    def compiled(self, made: Posed) -> Jobs:
        """What is compiled of a program: candidates of this pass, and of the others what is launched before it."""
        device, mine = self.opened(made.problems), self.wanted(made)
        wanted = [
            (c, k.kernel, config)
            for k in made.kernels
            for c, config in enumerate(k.configs(*self.how) if k in mine else [k.own])
            if k in mine or (not k.special and (self.mine(k.launcher) or self.which == "backward"))
        ]
        wanted.sort(key=lambda w: w[0])
        return {(k, c): self.pool.submit(device.compile, k, config) for c, k, config in wanted}

    def rows(self, made: Posed, jobs: Jobs) -> list[dict[str, Any]]:
        """A program's kernels, each with what it was tried with; none if time is over before."""
        rows = []
        with self.opened([p for p in made.problems if self.mine(p.launcher)]) as device:
            for k in self.wanted(made):
                if time.monotonic() > self.end:
                    return []
                tried = k.configs(*self.how)
                times = self.timed(device, k.kernel, tried, jobs)
                rows.append(row(made.program, self.which, k, tried, times))
        return rows

    def timed(
        self, device: Processes, kernel: str, tried: Sequence[Config], jobs: Jobs
    ) -> list[float | str]:
        """Milliseconds of each configuration, or what went wrong."""
        out: list[float | str] = []
        for c, config in enumerate(tried):
            best = min((x for x in out if isinstance(x, float)), default=float("inf"))
            try:
                jobs[kernel, c].result()
                out.append(device.measure(kernel, config, REPEATS, HOPELESS * best).ms)
            except (Failure, ChildError) as error:
                out.append(str(error)[:80])
        return out

    def close(self) -> None:
        """End all processes; what has not begun does not."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.staff.close()


def row(
    program: str, which: str, k: Listed, tried: Sequence[Config], times: Sequence[float | str]
) -> dict[str, Any]:
    """One kernel: times in ms."""

    def of(config: Config) -> float | None:
        found = times[tried.index(config)]
        return found if isinstance(found, float) else None

    known = [(ms, n) for n, ms in enumerate(times) if isinstance(ms, float)]
    best = min(known, default=None)
    return {
        "program": program,
        "kernel": k.kernel,
        "pass": which,
        "runs": k.runs,
        "own_ms": of(k.own),
        "first_ms": of(k.first),
        "guess_ms": of(k.guess),
        **({} if k.entry is None else {"entry_ms": of(k.entry), "entry": dict(k.entry)}),
        "best_ms": best and best[0],
        "best": best and dict(tried[best[1]]),
        "tried": len(known),
        "of": k.of,
        "trials": [
            [list(c.values()), round(ms, 4) if isinstance(ms, float) else ms]
            for c, ms in zip(tried, times, strict=True)
        ],
    }


def shown(r: Mapping[str, Any]) -> str:
    """A row in a line: what is chosen, over the best."""
    best = r["best_ms"]
    parts = [f"{r['kernel']:40}", "-" if best is None else f"{best:.4f} ms"]
    for what in ("own", "first", "guess", *(["entry"] if "entry_ms" in r else [])):
        ms = r[f"{what}_ms"]
        parts.append(f"{what} {ms / best:.3f}" if ms and best else f"{what} -")
    return "  ".join([*parts, f"{r['tried']} of {r['of']}", str(r["best"])])


def summary(rows: Sequence[Mapping[str, Any]]) -> None:
    """How many are within 15 % of the best."""
    for what in ("own", "first", "guess"):
        over = [r[f"{what}_ms"] / r["best_ms"] for r in rows if r["best_ms"] and r[f"{what}_ms"]]
        near = sum(x <= NEAR for x in over)
        print(f"{what}: {near} of {len(over)} kernels within 15 % of the best; {len(rows)} in all")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs="*", help="examples; all of them without")
    parser.add_argument("--pass", dest="which", choices=("forward", "backward"))
    parser.add_argument("--only", choices=("differ", "entries"), default="", help="some kernels")
    parser.add_argument("--pose", type=Path, help="write what there is to measure here, and end")
    parser.add_argument("--posed", type=Path, help="measure what was written there")
    parser.add_argument("--card", default="H200", choices=list(MACHINES), help="for `--pose`")
    parser.add_argument("--most", type=int, default=5, help="promising kinds of a kernel")
    parser.add_argument("--spread", type=int, default=3, help="and so many of the others")
    parser.add_argument("--workers", type=int, default=max(1, processors() - 1))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="to measure in")
    parser.add_argument("--out", type=Path, default=Path("choices.json"))
    args = parser.parse_args()
    names = args.programs
    if not names:  # in no order that means anything: one that is cut short is a sample
        every = sorted(p.stem for p in EXAMPLES.glob("*.attn"))
        names = random.Random(0).sample(every, len(every))
    how = (args.most, args.spread)
    if args.pose is not None:
        pose_all(args.pose, names, MACHINES[args.card])
        return
    end = time.monotonic() + args.seconds
    machine = machine_of(torch.cuda.get_device_properties(0))
    table = Table(args.out, most=args.most, spread=args.spread, shape=SHAPE)
    with TemporaryDirectory() as made:
        folder = args.posed or Path(made)
        if args.posed is None:
            pose_all(folder, names, machine)
        for which in ("forward", "backward") if args.which is None else (args.which,):
            missing = table.missing(names, "program", **{"pass": which})
            there = [posed_at(folder, n) for n in missing if (folder / f"{n}.posed").exists()]
            measured(there, Run(which, machine, how, args.workers, end, args.only), table)
    summary(table.rows)


def measured(programs: Sequence[Posed], run: Run, table: Table) -> None:
    """One after the other as they are compiled, while others are."""
    begin = time.monotonic()
    try:
        left = {p.program: (p, run.compiled(p)) for p in programs if run.wanted(p)}
        while left and time.monotonic() < run.end:
            ready = (n for n, (_, jobs) in left.items() if all(j.done() for j in jobs.values()))
            name = next(ready, None)
            if name is None:
                time.sleep(0.05)
                continue
            program, jobs = left.pop(name)
            took = [j.result().seconds for j in jobs.values() if j.exception() is None]
            at = time.monotonic() - begin
            try:
                rows = run.rows(program, jobs)
            except ChildError as error:
                print(f"{name}: {error}"[:300], file=sys.stderr, flush=True)
                continue
            if rows:
                table.add(*rows)
            mean, now = sum(took) / max(1, len(took)), time.monotonic() - begin
            print(
                f"{name}: {len(took)} compiled, {mean:.1f} s each; {at:.0f} to {now:.0f} s",
                flush=True,
            )
            for r in rows:
                print(shown(r), flush=True)
    finally:
        run.close()


if __name__ == "__main__":
    main()
