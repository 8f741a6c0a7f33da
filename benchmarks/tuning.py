"""The tuner beside what it is judged by: the default, the model's first choice, and the best that was found.

    PYTHONPATH=. python benchmarks/tuning.py causal alibi --seconds 30 --shape h=16 --out benchmarks/results/….json

Wall time counts everything, from reading the program to the last process's end; nothing is compiled beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import EXAMPLES, machine

from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.tuning.machine import machine_of
from attndsl.tuning.tune import Found, sizes_at, tune


def row(found: Found, program: str, wall: float) -> dict[str, Any]:
    """One kernel: times in ms, and every trial."""
    by_config = {tuple(t.config.items()): t for t in found.outcome.trials}
    guess = by_config.get(tuple(found.space.candidates[0].config.items()))
    best, first = found.outcome.best, found.outcome.first
    return {
        "program": program,
        "kernel": found.kernel.name,
        "default_ms": first.ms if first and first.measured else None,
        "guess_ms": guess.ms if guess and guess.measured else None,
        "best_ms": best.ms if best else None,
        "best": dict(best.config) if best else None,
        "kept": dict(found.entry.config) if found.entry else None,
        "wall_s": round(wall, 1),
        "tried": len(found.outcome.trials),
        "of": len(found.space.candidates),
        "trials": [
            [list(t.config.values()), round(t.ms, 4) if t.measured else str(t.failure)[:60]]
            for t in found.outcome.trials
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--shape", default="")
    parser.add_argument("--no-backward", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    given = {k: int(v) for k, v in (x.split("=") for x in args.shape.split(",") if x)}
    gpu = machine_of(torch.cuda.get_device_properties(0))
    rows = []
    for program in args.programs:
        with tempfile.TemporaryDirectory() as cold:
            os.environ["TRITON_CACHE_DIR"] = cold
            begin = time.perf_counter()
            (cascade, *_) = load_cascades(read_source(EXAMPLES / f"{program}.attn"))
            found = tune(
                cascade,
                sizes_at(cascade, given),
                "bf16",
                gpu,
                seconds=args.seconds,
                backward=not args.no_backward,
            )
            wall = time.perf_counter() - begin
        for f in found:
            r = row(f, program, wall)
            rows.append(r)
            shown = {k: v for k, v in r.items() if k != "trials"}
            print(json.dumps(shown), flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join("  " + json.dumps(r) for r in rows)
        head = json.dumps({"machine": machine(), "seconds": args.seconds, "shape": given})[1:-1]
        args.out.write_text(f'{{{head},\n "rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
