"""Delta rules with gates nearly shut: exponents from past the end, or from before the first point, have no bound.

Tiles of the eager backend end where the sequence does, so this is seen in the portable kernels alone: each runs in
Triton's interpreter, on a length that no chunk divides.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import attndsl
from tests.property.test_chunks import SIZES, error, expected, run

ROOT = Path(__file__).parents[2]

# A gate for each feature beside the delta rule, in log space.
VECTOR = """
attention vector_delta(Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], g[b,h,t,e], beta[b,h,t]) -> O[b,h,t,f] {
  batch b, h
  assume g <= 0
  H[t,e,f] = exp(g[t,e]) * H[t-1,e,f] - beta[t] * K[t,e] * (K[t,c] * exp(g[t,c]) * H[t-1,c,f])
             + beta[t] * K[t,e] * V[t,f]   init 0
  O[t,f]   = Q[t,e] * H[t,e,f]
}
"""

# By program its gate, whether it is a logarithm, and how far: float32 sums of large logarithms keep fewer digits.
# Logarithms have gradients to their own digits; gates of 0 to 1 have those divided by the gate.
PROGRAMS = {
    "gated_delta": ("g", True, 80),
    "vector_delta": ("g", True, 80),
    "rwkv7": ("w", False, 80),
    "hgrn2": ("g", False, 20),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_portable_kernels_with_gates_shut(name: str) -> None:
    code = f"from tests.property.test_shut_gates import compare; compare({name!r})"
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env, cwd=ROOT)


def compare(name: str) -> None:
    known = ROOT / "examples" / f"{name}.attn"
    op = attndsl.load(known) if known.exists() else attndsl.compile(VECTOR)
    gate, logs, far = PROGRAMS[name]
    torch.manual_seed(0)
    given = []
    for t in op.cascade.inputs:
        x = torch.randn([SIZES.get(r, 40) for r in t.ranks])
        if t.name == gate:
            x = -far * x.abs()
            x = x if logs else x.exp()
        elif t.name == "beta":
            x = x.sigmoid()
        elif len(t.ranks) == 4:
            x = torch.nn.functional.normalize(x, dim=-1)
        given.append(x)
    outs, grads = run(op, "triton", given, 40, 16, 16)
    want, want_grads = expected(op, given)
    assert error(outs, want) < 1e-5
    for k, t in enumerate(op.cascade.inputs):
        if t.name == gate and not logs:
            grads[k], want_grads[k] = grads[k] * given[k], want_grads[k] * given[k]
    assert error(grads, want_grads) < 1e-4
