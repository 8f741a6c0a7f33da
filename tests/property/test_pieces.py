"""Calls with few heads: the kernels of walks in pieces, in Triton's interpreter, against the dense form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["linear", "simple_gla", "gla"])
def test_a_call_with_few_heads(name: str) -> None:
    code = f"from tests.property.test_pieces import portable; portable({name!r})"
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env, cwd=ROOT)


def portable(name: str) -> None:
    """Pieces of 32 positions, the last of them not full, on a processor that runs eight programs at once."""
    from attndsl.schedule import composed, few_heads, pieces
    from tests.property.test_chunks import case, error

    pieces.LEAST = pieces.LEAST_OF_SCANS = 32
    few_heads.MORE = 0.0
    op, given = case(name, 150, torch.float32)
    one = [x[:1, :1].contiguous() if x.shape[0] == 2 else x for x in given]
    leaves = [x.detach().requires_grad_() for x in one]
    out: Any = op(*leaves)
    up = torch.randn_like(out)
    grads = torch.autograd.grad(out, leaves, up)
    (call,) = op._engine.calls.values()
    assert call.extents[composed.PIECES] > 1
    assert call.stage.passes.forward.name == f"{name}_pieces"
    wide = [x.double().requires_grad_() for x in one]
    want = op.reference(*wide)
    want_grads = torch.autograd.grad(want, wide, up.double())
    assert error([out], [want]) < 1e-5
    assert error(list(grads), list(want_grads)) < 1e-4


def test_a_state_passes_from_call_to_call() -> None:
    code = "from tests.property.test_pieces import halves; halves('simple_gla')"
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env, cwd=ROOT)


def halves(name: str) -> None:
    """Pieces begin with the state of the call before, where there is one."""
    from attndsl.schedule import few_heads, pieces
    from tests.property.test_chunks import case, error

    pieces.LEAST = pieces.LEAST_OF_SCANS = 32
    few_heads.MORE = 0.0
    op, given = case(name, 200, torch.float32)
    one = [x[:1, :1].contiguous() for x in given]
    whole, last = op(*one, return_state=True)
    first, state = op(*(x[:, :, :20] for x in one), return_state=True)
    rest, after = op(*(x[:, :, 20:] for x in one), state=state, return_state=True)
    assert error([torch.cat([first, rest], 2)], [whole.double()]) < 1e-5
    assert error([after], [last.double()]) < 1e-5
