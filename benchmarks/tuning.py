"""The tuner beside what it is judged by: the default, the model's first choice, and the best that was found.

    PYTHONPATH=. python benchmarks/tuning.py causal alibi --seconds 30 --shape h=16 --out benchmarks/results/….json

Wall time counts everything, from reading the program to the last process's end; nothing is compiled beforehand.
`--keep attndsl/tuning/defaults.jsonl` adds what was found to the defaults that come with the package.
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

from attndsl.cascade.nodes import Cascade
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.runtime.tuned import triton_version
from attndsl.tuning.database import add
from attndsl.tuning.machine import Machine, machine_of
from attndsl.tuning.tune import Found, entries, sizes_at, tune


def row(found: Found, program: str, wall: float) -> dict[str, Any]:
    """One kernel: times in ms, and every trial."""
    by_config = {tuple(t.config.items()): t for t in found.outcome.trials}
    guess = by_config.get(tuple(found.space.candidates[0].config.items()))
    best, first = found.outcome.best, found.outcome.first
    return {
        "program": program,
        "kernel": found.kernel.name,
        "runs": found.runs,
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
    parser.add_argument("programs", nargs="*", help="examples; all of them without")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--shape", default="")
    parser.add_argument("--no-backward", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("tuning.json"))
    parser.add_argument("--keep", type=Path, help="a database to add to")
    args = parser.parse_args()
    given = {k: int(v) for k, v in (x.split("=") for x in args.shape.split(",") if x)}
    gpu = machine_of(torch.cuda.get_device_properties(0))
    rows = []
    failed: list[str] = []
    for program in args.programs or sorted(p.stem for p in EXAMPLES.glob("*.attn")):
        try:
            found, wall = searched(program, given, gpu, args.seconds, not args.no_backward)
        except Exception as error:  # one that fails is recorded, and does not keep others from it
            failed.append(f"{program}: {type(error).__name__}: {error}"[:300])
            print(failed[-1], flush=True)
            continue
        for f in found:
            r = row(f, program, wall)
            rows.append(r)
            shown = {k: v for k, v in r.items() if k != "trials"}
            print(json.dumps(shown), flush=True)
        if args.keep is not None:
            add(args.keep, entries(found))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join("  " + json.dumps(r) for r in rows)
        about = {"seconds": args.seconds, "shape": given, "failed": failed}
        head = json.dumps({"machine": machine(), **about})[1:-1]
        args.out.write_text(f'{{{head},\n "rows": [\n{lines}\n]}}\n')


def searched(
    program: str, given: dict[str, int], gpu: Machine, seconds: float, backward: bool
) -> tuple[list[Found], float]:
    """What a search finds with nothing in Triton's cache, and the seconds that all of it took."""
    with tempfile.TemporaryDirectory() as cold:
        os.environ["TRITON_CACHE_DIR"] = cold
        begin = time.perf_counter()
        (cascade, *_) = load_cascades(read_source(EXAMPLES / f"{program}.attn"))
        at = sizes_at(cascade, {k: n for k, n in given.items() if k in extents_of(cascade)})
        version = triton_version()
        found = tune(cascade, at, "bf16", gpu, seconds=seconds, backward=backward, triton=version)
        return found, time.perf_counter() - begin


def extents_of(cascade: Cascade) -> set[str]:
    """What `--shape` may say of a program."""
    return {r.name for r in cascade.ranks} | {p.name for p in cascade.params}


if __name__ == "__main__":
    main()
