"""A scan in Triton's interpreter: stick-breaking attention, rows and columns, against a loop over the keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.codegen.triton import render_module
from attndsl.runtime.stages import plan_passes
from tests.unit.codegen.running import run
from tests.unit.schedule.harness import load
from tests.unit.schedule.test_scans import STICK

SCRIPT = """
torch.manual_seed(0)
q, k, v = (torch.randn(2, 40, 16, dtype=torch.{dtype}, requires_grad=True) for _ in range(3))
scores = q @ k.mT
rows = []
for i in range(40):
    left, taken = torch.ones(2, dtype=q.dtype), [None] * 40
    for j in reversed(range(40)):
        part = torch.sigmoid(scores[:, i, j]) if j < i else torch.zeros(2, dtype=q.dtype)
        taken[j] = left * part
        left = left * (1 - part)
    rows.append(torch.stack(taken, -1))
out = torch.stack(rows, -2) @ v
extents = dict(b=2, i=40, j=40, e=16, f=16)
inputs = dict(Q=q.detach(), K=k.detach(), V=v.detach())
tiles = {{"BLOCK_I": 16, "BLOCK_J": 16}}
made = module.forward(inputs, extents, {{"start": 0}}, tiles)
torch.testing.assert_close(made["O"], out.detach(), rtol={tolerance}, atol={tolerance})
given = torch.randn_like(out)
back = module.backward({{**inputs, **made, {cotangent!r}: given}}, extents, {{"start": 0}}, tiles)
for name, want in zip({gradients!r}, torch.autograd.grad(out, (q, k, v), given)):
    torch.testing.assert_close(back[name], want, rtol={tolerance}, atol={tolerance})
"""


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_stick_breaking_agrees_with_a_loop(tmp_path: Path, dtype: str, tolerance: float) -> None:
    passes = plan_passes(load(STICK), ("Q", "K", "V"))
    text = render_module("t", passes.forward, passes.backward, "header")
    script = SCRIPT.format(
        dtype=dtype,
        tolerance=tolerance,
        cotangent=passes.cotangents["O"],
        gradients=[passes.gradients[x] for x in ("Q", "K", "V")],
    )
    run(tmp_path, text, script)
