"""Time of a process's first call: with caches empty, with an entry in the database, with compiled kernels on disk.

    PYTHONPATH=. python benchmarks/starting.py --out benchmarks/results/starting-h100.json

Each row is a process of its own. PyTorch is imported and the tensors are on the card before the clock starts; `load_s`
is importing attndsl and reading the program, `call_s` the first call until its result is there, `again_s` the second
call of the same kind. A row's process finds what those before it left in the caches, unless it is said to be cold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import EXAMPLES, write

CHILD = """
import json, sys, time
import torch
made = [torch.randn(4, 16, 4096, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
made = [x.requires_grad_(sys.argv[2] == "backward") for x in made]
(made[0][0, 0] @ made[1][0, 0].T).sum().item()
t = [time.perf_counter()]
import attndsl
op = attndsl.load(sys.argv[1])
t.append(time.perf_counter())
for _ in range(2):
    out = op(*made)
    if sys.argv[2] == "backward":
        torch.autograd.grad(out.sum(), made)
    torch.cuda.synchronize()
    t.append(time.perf_counter())
import attndsl.runtime.tuned as tuned
known = [bool(c.config) for c in op._engine.calls.values()]
print(json.dumps({"load_s": t[1] - t[0], "call_s": t[2] - t[1], "again_s": t[3] - t[2], "known": known == [True]}))
"""


def tuned(env: dict[str, str], program: Path, seconds: float) -> None:
    """Put an entry into the database of this environment."""
    command = [
        sys.executable,
        "-m",
        "attndsl",
        "tune",
        str(program),
        "--shape",
        "h=16,i=4096,j=4096",
    ]
    subprocess.run([*command, "--budget", f"{seconds:.0f}s"], env=env, check=True)


def first_call(env: dict[str, str], program: Path, how: str) -> dict[str, Any]:
    """One process."""
    command = [sys.executable, "-c", CHILD, str(program), how]
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    row: dict[str, Any] = json.loads(said.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="causal")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    program = EXAMPLES / f"{args.program}.attn"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as top:

        def at(modules: str, kernels: str) -> dict[str, str]:
            folders = {"ATTNDSL_CACHE_DIR": modules, "TRITON_CACHE_DIR": kernels}
            return {**os.environ, **{k: str(Path(top) / v) for k, v in folders.items()}}

        def row(what: str, how: str, env: dict[str, str]) -> None:
            rows.append(
                {
                    "program": args.program,
                    "what": what,
                    "pass": how,
                    **first_call(env, program, how),
                }
            )
            print(
                "  ".join(
                    f"{k} {v:.3f}" if isinstance(v, float) else str(v) for k, v in rows[-1].items()
                ),
                flush=True,
            )

        tuned(at("tuned", "by the tuner"), program, args.seconds)
        for how in ("forward", "backward"):
            row("entry, kernels cold", how, at("tuned", f"entry {how}"))
            row("entry, kernels on disk", how, at("tuned", f"entry {how}"))
            row("entry, kernels left by the tuner", how, at("tuned", "by the tuner"))
        for how in ("forward", "backward"):
            row("all caches cold", how, at(f"cold {how}", f"cold {how}"))
            row("kernels on disk", how, at(f"cold {how}", f"cold {how}"))
    if args.out is not None:
        write(args.out, rows)


if __name__ == "__main__":
    main()
