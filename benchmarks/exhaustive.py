"""Every configuration of a grid, none pruned: what a search is judged by.

    PYTHONPATH=. python benchmarks/exhaustive.py examples/causal.attn --shape h=16 --out benchmarks/results/….json
    PYTHONPATH=. python benchmarks/exhaustive.py examples/causal.attn --launcher backward --kernel causal_backward_dK_dV
        --list benchmarks/lists/causal.json --limit 190 --out ….json

Each candidate compiles in one of many processes and runs in a child; what fails is listed with its reason. Rows are
written as they come. With `--limit` no row is waited for after so many seconds; the same command goes on where it was
cut, and ends with 3 as long as there is more to do.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import torch
from common import Table, machine

from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.processors import processors
from attndsl.runtime.starts import with_start
from attndsl.sizes import USUAL, sizes
from attndsl.tuning.device import Compiled, Failure, Processes, Timeouts
from attndsl.tuning.problem import Problem, pose

ROWS, COLUMNS = (16, 32, 64, 128, 256), (16, 32, 64, 128, 256)
WARPS, STAGES = (4, 8, 16), (1, 2, 3, 4)


def grid(problem: Problem, kernel: str) -> list[dict[str, int]]:
    """The configurations of a kernel: its first two blocks, warps and stages."""
    (k,) = (x for x in problem.kernels if x.name == kernel)
    axes = [*k.facts["tiles"], *([k.facts["stream"]] if k.facts["stream"] else [])]
    out = []
    for rows, columns, warps, stages in product(ROWS, COLUMNS, WARPS, STAGES):
        sizes_ = (rows, columns, *[16] * len(axes))
        blocks = {f"BLOCK_{a.upper()}": n for a, n in zip(axes, sizes_, strict=False)}
        out.append({**blocks, "num_warps": warps, "num_stages": stages})
    return out


def tiles(config: dict[str, int]) -> int:
    """Points of a tile."""
    return math.prod(n for k, n in config.items() if k.startswith("BLOCK"))


def listed(path: Path, kernel: str) -> list[dict[str, int]]:
    """The configurations of a kernel in a committed list: names once, and a row of numbers for each."""
    found = json.loads(path.read_text(encoding="utf-8"))[kernel]
    return [dict(zip(found["names"], row, strict=True)) for row in found["configs"]]


def left(configs: list[dict[str, int]], rows: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Configurations without a row; the largest first, for begun last they would be waited for alone."""
    known = {tuple(r["config"].items()) for r in rows}
    wanted = [c for c in configs if tuple(c.items()) not in known]
    return sorted(wanted, key=tiles, reverse=True)


def measure(
    problem: Problem,
    kernel: str,
    configs: list[dict[str, int]],
    workers: int,
    repeats: int,
    timeout: float,
) -> Iterator[dict[str, Any]]:
    """One row for each configuration."""
    major, minor = torch.cuda.get_device_capability()
    pool = ThreadPoolExecutor(workers)
    with Processes(
        [problem],
        capability=10 * major + minor,
        workers=workers,
        timeouts=Timeouts(compile=timeout),
    ) as device:
        jobs = [pool.submit(device.compile, kernel, c) for c in configs]
        try:
            for config, job in zip(configs, jobs, strict=True):
                yield row_of(device, kernel, config, job, repeats)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def row_of(
    device: Processes, kernel: str, config: dict[str, int], job: Future[Compiled], repeats: int
) -> dict[str, Any]:
    """What came of one configuration."""
    row: dict[str, Any] = {"config": config}
    try:
        made = job.result()
        row |= {
            "registers": made.registers,
            "spills": made.spills,
            "shared": made.shared,
            "compile_s": round(made.seconds, 2),
        }
        measured = device.measure(kernel, config, repeats)
        row |= {"ms": round(measured.ms, 4), "noise": round(measured.noise, 4)}
    except Failure as failure:
        # Where a machine has its tools is no finding.
        why = re.sub(r"(?<!\S)/\S*/", "", failure.why)
        row["failed"] = f"{failure.kind}: {why[-160:]}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--shape", default="")
    parser.add_argument("--launcher", default="forward")
    parser.add_argument("--kernel")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=45.0, help="for compiling one")
    parser.add_argument("--workers", type=int, default=processors())
    parser.add_argument("--list", type=Path, help="configurations; without it, the grid")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    begin = time.monotonic()
    (cascade,) = load_cascades(read_source(args.file))
    given = {k: int(v) for k, v in (x.split("=") for x in args.shape.split(",") if x)}
    wrt = tuple(t.name for t in cascade.inputs if t.dtype == "float")
    problem = pose(
        cascade, args.launcher, sizes(with_start(cascade, "int"), USUAL, given), "bf16", wrt=wrt
    )
    assert problem is not None
    kernel = args.kernel or problem.kernels[0].name
    rows = Table(args.out).rows
    wanted = left(listed(args.list, kernel) if args.list else grid(problem, kernel), rows)
    about = {"program": cascade.name, "kernel": kernel, "extents": problem.extents}
    found = measure(problem, kernel, wanted, args.workers, args.repeats, args.timeout)
    done = 0
    try:
        with closing(found):
            for row in found:
                rows.append(row)
                done += 1
                keep(args.out, rows, about)
                if time.monotonic() - begin > args.limit:
                    break
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept")
    right = sorted((r for r in rows if "ms" in r), key=lambda r: r["ms"])
    print(f"{kernel}: {len(right)} of {len(rows)} ran, {time.monotonic() - begin:.0f} s")
    for row in right[:8]:
        print(row, flush=True)
    sys.exit(0 if done == len(wanted) else MORE)


MORE = 3
"""How a script ends that has more to do."""


def keep(path: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """The file, a line for each row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("  " + json.dumps(r) for r in rows)
    head = json.dumps({"machine": machine(), **about})[1:-1]
    partial = path.with_suffix(".tmp")
    partial.write_text(f'{{{head},\n "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
