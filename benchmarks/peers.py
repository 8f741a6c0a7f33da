"""Programs beside their peers at several lengths, in one file: what `attndsl bench` prints, for many programs.

    PYTHONPATH=. python benchmarks/peers.py --out benchmarks/results/peers-h200.json
    PYTHONPATH=. python benchmarks/peers.py causal alibi --budget 190 --limit 45 --out ….json

Each peer has a process of its own (`attndsl.bench.apart`). Positions of a batch are the same at all lengths, 16384.
Rows are written as they are known, also those that say why a peer has no figures; a program that has all of its rows is
not measured again. Nothing is begun that `--budget` has no room for.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from common import EXAMPLES, Table

from attndsl.bench.apart import Job, apart
from attndsl.bench.command import sequences
from attndsl.bench.run import OURS
from attndsl.cli_bench import PEERS
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source

POSITIONS = 16384
# What is missed most first. Lengths of a program that has a peer for linear attention are those of one chunk and more.
LENGTHS: dict[str, tuple[int, ...]] = {
    "causal": (1024, 4096, 16384),
    "alibi": (4096,),
    "simple_gla": (4096,),
    "window": (4096, 16384),
    "softcap": (4096,),
    "full": (4096,),
    "gla": (4096,),
    "deltanet": (4096,),
    "retnet": (4096,),
    "gated_delta": (4096,),
    "documents": (4096,),
    "bias_toeplitz": (4096,),
}
# Seconds without which no program is begun: loading PyTorch six times, and compiling.
LEAST = 30.0


def known(table: Table, program: str, against: Sequence[str]) -> bool:
    """Whether a program has a row of everyone at every length."""
    found = {(r["who"], r["length"]) for r in table.rows if r["program"] == program}
    return found >= {(w, n) for w in (OURS, *against) for n in LENGTHS[program]}


def measured(program: str, table: Table, limit: float, against: Sequence[str]) -> None:
    """All rows of a program, written as they come."""
    (cascade, *_) = load_cascades(read_source(EXAMPLES / f"{program}.attn"))
    names = {r.name for r in cascade.ranks}
    lengths = LENGTHS[program]
    shapes = []
    for n in lengths:
        given = {"b": POSITIONS // n, "h": 16, **dict.fromkeys(sequences(cascade), n)}
        shapes.append({k: v for k, v in given.items() if k in names})
    table.rows = [r for r in table.rows if r["program"] != program]
    with closing(apart(Job(cascade, shapes), against, limit=limit)) as rows:
        for row in rows:
            said: dict[str, Any] = row.as_dict()
            said["length"] = max(said["shape"].get(r, 1) for r in sequences(cascade))
            table.add(said)
            print(json.dumps({k: v for k, v in said.items() if k != "shape"}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs="*", help=", ".join(LENGTHS))
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for a peer and a size")
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="seconds to begin programs in"
    )
    parser.add_argument("--vs", type=lambda x: x.split(","), default=list(PEERS))
    parser.add_argument("--out", type=Path, default=Path("peers.json"))
    args = parser.parse_args()
    begin = time.monotonic()
    table = Table(args.out)
    for program in args.programs or LENGTHS:
        left = args.budget - (time.monotonic() - begin)
        if known(table, program, args.vs) or left < LEAST:
            continue
        try:
            measured(program, table, args.limit, args.vs)
        except Exception as error:  # ours failed: said, and no reason to leave the others out
            print(f"{program}: {type(error).__name__}: {error}"[:300], flush=True)


if __name__ == "__main__":
    main()
