"""A process's first call on a card: who compiles which kernel, and how often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

ROOT = Path(__file__).parents[2]
CALL = """
import json, sys, threading
from concurrent.futures import ThreadPoolExecutor
import torch
import attndsl
from triton import knobs

seen = []


def listen(src, metadata, metadata_group, times, cache_hit):
    seen.append([src.name, bool(cache_hit), threading.current_thread().name])


knobs.compilation.listener = listen
op = attndsl.load(sys.argv[1])
made = [torch.randn(1, 2, 256, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
made = [x.requires_grad_() for x in made]
up = torch.randn_like(made[0])
# The backward pass is all that its thread does on the card.
first = [(o := op(*made)), *torch.autograd.grad(o, made, up)]
count = len(seen)
again = [(o := op(*made)), *torch.autograd.grad(o, made, up)]
later = len(seen) - count
same = all(torch.equal(x, y) for x, y in zip(first, again))
# Nor has this thread done anything on the card, for tensors that lie elsewhere.
others = [x.detach().clone() for x in made]
torch.cuda.synchronize()
with ThreadPoolExecutor(1) as pool, torch.no_grad():
    same = same and torch.equal(pool.submit(op, *others).result(), first[0])
wide = [x.detach().double().requires_grad_() for x in made]
o = torch.nn.functional.scaled_dot_product_attention(*wide, is_causal=True)
exact = [o, *torch.autograd.grad(o, wide, up.double())]
error = max(float((x.double() - y).norm() / y.norm()) for x, y in zip(first, exact))
print(json.dumps({"seen": seen[:count], "same": same, "later": later, "error": error}))
"""


def test_each_kernel_is_compiled_once_and_beside_the_first(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, str(ROOT / "examples" / "causal.attn")],
        env={
            **os.environ,
            "ATTNDSL_CACHE_DIR": str(tmp_path / "attndsl"),
            "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    names = [name for name, _, _ in said["seen"]]
    assert len(names) == len(set(names)) > 2
    assert not any(hit for _, hit, _ in said["seen"])
    beside = [n for n, _, thread in said["seen"] if thread.startswith("attndsl-compiling")]
    assert len(beside) == len(names) - 1
    assert said["same"]
    assert said["later"] == 0
    assert said["error"] < 1e-2
