"""Time of a process's first call: with caches empty, with an entry in the database, with compiled kernels on disk.

    PYTHONPATH=. python benchmarks/starting.py --out benchmarks/results/starting-h100.json

Each row is a process of its own. PyTorch is imported and the tensors are on the card before the clock starts. Then, in
this order: `triton_s` is importing Triton and the first launch of a kernel that does nothing, which any program with a
Triton kernel waits for; `load_s` importing attndsl and reading the program; `call_s` the first call until its result is
there; `again_s` the second of the same kind. A row's process finds what those before it left in the caches, unless it
is said to be cold. Entries of the database hold what runs without one: a look-up costs the same whatever it finds.
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

import torch
from common import EXAMPLES, Table

from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.runtime.tuned import triton_version
from attndsl.tuning.database import Entry, add
from attndsl.tuning.keys import key_of
from attndsl.tuning.machine import machine_of
from attndsl.tuning.problem import hash_of
from attndsl.tuning.space import default
from attndsl.tuning.tune import posed, sizes_at

CHILD = """
import json, sys, time
import torch
made = [torch.randn(4, 16, 4096, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
made = [x.requires_grad_(sys.argv[2] == "backward") for x in made]
(made[0][0, 0] @ made[1][0, 0].T).sum().item()
t = [time.perf_counter()]
import triton


@triton.jit
def nothing(x):
    pass


nothing[(1,)](made[0].detach())
torch.cuda.synchronize()
t.append(time.perf_counter())
import attndsl
op = attndsl.load(sys.argv[1])
t.append(time.perf_counter())
for _ in range(2):
    out = op(*made)
    if sys.argv[2] == "backward":
        torch.autograd.grad(out.sum(), made)
    torch.cuda.synchronize()
    t.append(time.perf_counter())
names = ("triton_s", "load_s", "call_s", "again_s")
known = [bool(c.config) for c in op._engine.calls.values()]
print(json.dumps({**{n: b - a for n, a, b in zip(names, t, t[1:])}, "known": known == [True]}))
"""


def noted(path: Path, program: Path) -> None:
    """Put entries for both passes into a database."""
    gpu = machine_of(torch.cuda.get_device_properties(0))
    (cascade, *_) = load_cascades(read_source(program))
    at = sizes_at(cascade, {"h": 16})
    names = tuple(t.name for t in cascade.inputs)
    entries = []
    for p in posed(cascade, at, "bf16", gpu, names):
        for k in p.kernels:
            config = default(k, p.extents, p.itemsize, gpu)
            key = key_of(k, hash_of(cascade), p.extents, p.floats(), gpu.name)
            assert config is not None
            entries.append(Entry(key, config, 1.0, 1.0, triton_version()))
    add(path, entries)


def first_call(env: dict[str, str], child: Path, program: Path, how: str) -> dict[str, Any]:
    """One process."""
    command = [sys.executable, str(child), str(program), how]
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    row: dict[str, Any] = json.loads(said.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="causal")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    program = EXAMPLES / f"{args.program}.attn"
    table = None if args.out is None else Table(args.out)
    with tempfile.TemporaryDirectory() as top:
        child = Path(top) / "child.py"
        child.write_text(CHILD)
        for database in ("entry", "no entry"):
            for how in ("forward", "backward"):
                known = {
                    "program": args.program,
                    "what": f"{database}, kernels on disk",
                    "pass": how,
                }
                if table is not None and table.has(**known):
                    continue
                folder = Path(top) / f"{database} {how}"
                env = {"ATTNDSL_CACHE_DIR": str(folder), "TRITON_CACHE_DIR": str(folder / "triton")}
                if database == "entry":
                    noted(folder / "tuning.jsonl", program)
                for disk in ("caches cold", "kernels on disk"):
                    about = {"program": args.program, "what": f"{database}, {disk}", "pass": how}
                    # Also one that is known: it leaves on disk what the next one finds there.
                    row = {**about, **first_call({**os.environ, **env}, child, program, how)}
                    print("  ".join(_shown(k, v) for k, v in row.items()), flush=True)
                    if table is not None and not table.has(**about):
                        table.add(row)


def _shown(name: str, value: Any) -> str:
    return f"{name} {value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
