"""A search in Triton's interpreter: the rounds of a root, forward and backward, in float32 and float64."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.codegen.triton import render_module
from attndsl.runtime.stages import plan_passes
from tests.unit.codegen.running import run
from tests.unit.schedule.harness import load

TEXT = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
  batch b
  S[i,j] = Q[i,e] * K[j,e]   where j <= i
  O[i,f] = entmax15[j](S[i,j]) * V[j,f]
}"""

SCRIPT = """
torch.manual_seed(0)
q, k, v = (torch.randn(2, 20, 16, dtype=torch.{dtype}, requires_grad=True) for _ in range(3))
s = (q @ k.mT / 2).masked_fill(torch.ones(20, 20).triu(1).bool(), -math.inf)
with torch.no_grad():
    low = s.amax(-1, keepdim=True) - 1
    high = low + 1
    for _ in range(60):
        middle = (low + high) / 2
        above = ((s - middle).clamp(min=0) ** 2).sum(-1, keepdim=True) >= 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
gap = (s - low).clamp(min=0)
slope = gap.sum(-1, keepdim=True).detach()
t = low + ((gap**2).sum(-1, keepdim=True) - 1) / (2 * slope)  # carries the gradient of the root
weights = (s - t).clamp(min=0) ** 2
out = weights @ v
extents = dict(b=2, i=20, j=20, e=16, f=16)
inputs = dict(Q=q.detach(), K=k.detach(), V=v.detach())
made = module.forward(inputs, extents, {{"start": 0}}, {{"BLOCK_I": 16, "BLOCK_J": 16}})
torch.testing.assert_close(made["O"], out.detach(), rtol={tolerance}, atol={tolerance})
given = torch.randn_like(out)
back = module.backward(
    {{**inputs, **made, {cotangent!r}: given}}, extents, {{"start": 0}}, {{"BLOCK_I": 16, "BLOCK_J": 16}}
)
grads = torch.autograd.grad(out, (q, k, v), given)
for name, want in zip({gradients!r}, grads):
    torch.testing.assert_close(back[name], want, rtol={tolerance}, atol={tolerance})
"""


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-12)])
def test_entmax_agrees_with_bisection(tmp_path: Path, dtype: str, tolerance: float) -> None:
    passes = plan_passes(load(TEXT), ("Q", "K", "V"))
    text = render_module("t", passes.forward, passes.backward, "header")
    script = SCRIPT.format(
        dtype=dtype,
        tolerance=tolerance,
        cotangent=passes.cotangents["O"],
        gradients=[passes.gradients[x] for x in ("Q", "K", "V")],
    )
    run(tmp_path, text, script)


LOUD = """
torch.manual_seed(0)
q, k, v = (torch.randn(1, 20, 16) for _ in range(3))
rounded = []
halved = module.halved
module.halved = lambda x: rounded.append(x.dtype) or halved(x)
extents = dict(b=1, i=20, j=20, e=16, f=16)
inputs = dict(Q=q * 1e5, K=k, V=v)
made = module.forward(inputs, extents, {"start": 0}, {"BLOCK_I": 16, "BLOCK_J": 16})
assert rounded == [torch.float32, torch.float32], rounded
s = (q @ k.mT).masked_fill(torch.ones(20, 20).triu(1).bool(), -math.inf)
best = s.argmax(-1)[0]
torch.testing.assert_close(made["O"][0], v[0, best])
rounded.clear()
module.forward({n: x.double() for n, x in inputs.items()}, extents, {"start": 0})
assert not rounded
"""


def test_a_guess_that_overflows_changes_nothing(tmp_path: Path) -> None:
    """Scores of 1e5 are no numbers of 16 bits, and their rows have one key each; float64 is not rounded at all."""
    passes = plan_passes(load(TEXT), ())
    run(tmp_path, render_module("t", passes.forward, None, "header"), LOUD)
