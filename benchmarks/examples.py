"""What runs without tuning, and the model's first choice, beside the best of the most promising, over all examples.

    PYTHONPATH=. python benchmarks/examples.py --most 24 --limit 220 --out benchmarks/results/tuning/examples-….json
    PYTHONPATH=. python benchmarks/examples.py causal alibi --backward --keep attndsl/tuning/defaults.jsonl

Several programs are searched at once, in processes that outlive one search: importing is most of what a short one
takes. They take turns on the card (`attndsl.tuning.turns`), so that no kernel is timed beside another. Nothing is begun
after `--limit` seconds. With `--hopper` each form of a kernel has a row, of which one `runs` by default. `--keep` adds
what was faster than what runs without tuning, beyond noise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch
from common import EXAMPLES, Table, machine
from tuning import extents_of, row

from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.runtime.tuned import triton_version
from attndsl.tuning.database import add, entry_of
from attndsl.tuning.device import Processes, Staff
from attndsl.tuning.machine import machine_of
from attndsl.tuning.tune import entries, sizes_at, tune


def serve(args: argparse.Namespace) -> None:
    """Search for programs whose names come on the standard input, a line of JSON for each."""
    gpu = machine_of(torch.cuda.get_device_properties(0))
    staff = Staff(args.workers)

    def opened(problems: Any, *, capability: int, workers: int) -> Processes:
        return Processes(problems, capability=capability, workers=workers, staff=staff)

    for line in sys.stdin:
        program = line.strip()
        begin = time.perf_counter()
        try:
            (cascade, *_) = load_cascades(read_source(EXAMPLES / f"{program}.attn"))
            known = extents_of(cascade)
            at = sizes_at(cascade, {k: n for k, n in shape(args).items() if k in known})
            found = tune(
                cascade,
                at,
                "bf16",
                gpu,
                seconds=args.seconds,
                backward=args.backward,
                triton=triton_version(),
                workers=args.workers,
                open_device=opened,
                most=args.most,
                spread=args.spread,
                specialise=args.hopper,
            )
        except Exception as error:  # one that fails is recorded, and does not keep others from it
            said: dict[str, Any] = {"failed": f"{program}: {type(error).__name__}: {error}"[:300]}
        else:
            wall = time.perf_counter() - begin
            faster = [e for e in entries(found) if e.ms < e.default_ms]
            said = {
                "rows": [row(f, program, wall) for f in found],
                "faster": [json.loads(e.line()) for e in faster],
            }
        print(json.dumps(said), flush=True)
    staff.close()


def searched(names: list[str], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What comes of each program."""
    waiting: SimpleQueue[str] = SimpleQueue()
    for name in names:
        waiting.put(name)
    said: SimpleQueue[dict[str, Any]] = SimpleQueue()
    begin = time.monotonic()
    options = [a for a in sys.argv[1:] if a not in names]

    def work(number: int) -> None:
        with tempfile.TemporaryDirectory() as cold:
            process = subprocess.Popen(
                [sys.executable, __file__, "--serve", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "TRITON_CACHE_DIR": cold},
            )
            assert process.stdin is not None
            assert process.stdout is not None
            while time.monotonic() - begin < args.limit:
                try:
                    name = waiting.get_nowait()
                except Empty:
                    break
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
                line = process.stdout.readline()
                said.put(json.loads(line) if line else {"failed": f"{name}: the process died"})
                if not line:
                    break
            process.stdin.close()
            process.wait()

    with ThreadPoolExecutor(args.at_once) as pool:
        jobs = [pool.submit(work, k) for k in range(args.at_once)]
        while not all(j.done() for j in jobs) or not said.empty():
            try:
                yield said.get(timeout=0.5)
            except Empty:
                continue


def shape(args: argparse.Namespace) -> dict[str, int]:
    """What `--shape` says."""
    return {k: int(v) for k, v in (x.split("=") for x in args.shape.split(",") if x)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs="*", help="examples; all of them without")
    parser.add_argument("--most", type=int, default=24, help="candidates of a kernel")
    parser.add_argument("--spread", type=int, default=0, help="and so many of the others")
    parser.add_argument("--seconds", type=float, default=30.0, help="for one program")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds to begin programs in")
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--workers", type=int, default=3, help="compilers of each at once")
    parser.add_argument("--shape", default="h=16")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--hopper", action="store_true", help="kernels whose warps specialise too")
    parser.add_argument("--out", type=Path, default=Path("examples.json"))
    parser.add_argument("--keep", type=Path, help="a database to add to")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args)
        return
    names = args.programs
    if not names:  # in no order that means anything: one that is cut short is a sample
        every = sorted(p.stem for p in EXAMPLES.glob("*.attn"))
        names = random.Random(0).sample(every, len(every))
    rows = Table(args.out).rows  # a run that was cut short goes on
    names = [n for n in names if n not in {r["program"] for r in rows}]
    failed: list[str] = []
    for said in searched(names, args):
        failed += [said["failed"]] if "failed" in said else []
        rows += said.get("rows", [])
        for r in said.get("rows", []):
            print(line(r), flush=True)
        if args.keep is not None and said.get("faster"):
            add(args.keep, [entry_of(e) for e in said["faster"]])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        about = {"most": args.most, "spread": args.spread, "shape": shape(args), "failed": failed}
        head = json.dumps({"machine": machine(), **about})[1:-1]
        text = ",\n".join("  " + json.dumps(r) for r in rows)
        args.out.write_text(f'{{{head},\n "rows": [\n{text}\n]}}\n')
    print(*failed, sep="\n")
    summary(rows)
    known = {r["program"] for r in rows} | {f.partition(":")[0] for f in failed}
    sys.exit(0 if known.issuperset(names) else MORE)


MORE = 3
"""How a script ends that has more to do."""


def line(r: dict[str, Any]) -> str:
    """One kernel in a line: times of the default and of the model's first choice over the best."""
    best = r["best_ms"]
    parts = [f"{r['kernel']:40} {'' if best is None else f'{best:.4f} ms'}"]
    for what in ("default", "guess"):
        ms = r[f"{what}_ms"]
        parts.append(f"{what} {ms / best:.3f}" if ms and best else f"{what} -")
    return "  ".join([*parts, f"{r['tried']} of {r['of']}", f"{r['wall_s']} s", str(r["best"])])


def summary(rows: list[dict[str, Any]]) -> None:
    """How many are within 15 % of the best."""
    for what in ("default", "guess"):
        over = [r[f"{what}_ms"] / r["best_ms"] for r in rows if r["best_ms"] and r[f"{what}_ms"]]
        near = sum(x <= 1.15 for x in over)
        print(f"{what}: {near} of {len(over)} kernels within 15 % of the best; {len(rows)} in all")
    over = list(choices(rows).values())
    near = sum(x <= 1.15 for x in over)
    print(f"what runs by default, beside the best of both forms: {near} of {len(over)}")


def choices(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Of each kernel in both its forms, the time of what runs by default over the best of them."""
    forms: dict[str, list[dict[str, Any]]] = {}
    for r in rows:
        forms.setdefault(r["kernel"].removesuffix("_hopper"), []).append(r)
    out: dict[str, float] = {}
    for kernel, mine in forms.items():
        runs = [r["default_ms"] for r in mine if r.get("runs", True) and r["default_ms"]]
        best = [r["best_ms"] for r in mine if r["best_ms"]]
        if runs and best:
            out[kernel] = runs[0] / min(best)
    return out


if __name__ == "__main__":
    main()
