"""Walks over positions in Triton's interpreter: a momentum, forward and back over a border of blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.codegen.configs import choose_walk
from attndsl.codegen.triton import render_module
from attndsl.runtime.stages import plan_passes
from tests.unit.codegen.running import run
from tests.unit.schedule.harness import load

MOMENTUM = (
    "attention t(Q[b,t,e], K[b,t,e], V[b,t,f], g[b,t], H0[b,e,f]) -> O[b,t,f] {\n  batch b\n"
    "  M[t,e,f] = g[t] * M[t-1,e,f] + K[t,e] * V[t,f]   init 0\n"
    "  H[t,e,f] = 0.9 * tanh(H[t-1,e,f]) + M[t,e,f]     init H0[e,f]\n  O[t,f] = Q[t,e] * H[t,e,f]\n}"
)

SCRIPT = """
torch.manual_seed(0)
n, e, f = 67, 5, 18
shapes = dict(Q=(1, n, e), K=(1, n, e), V=(1, n, f), g=(1, n), H0=(1, e, f))
inputs = {k: torch.randn(s, dtype=torch.float64) for k, s in shapes.items()}
inputs["g"] = torch.tanh(inputs["g"])
q, k, v, g, h = leaves = [x.clone().requires_grad_() for x in inputs.values()]
m, rows = torch.zeros_like(h), []
for t in range(n):
    m = g[:, t, None, None] * m + k[:, t, :, None] * v[:, t, None, :]
    h = 0.9 * h.tanh() + m
    rows.append((q[:, t, :, None] * h).sum(1))
out = torch.stack(rows, 1)
extents = dict(b=1, t=n, e=e, f=f)
made = module.forward(inputs, extents, {})
torch.testing.assert_close(made["O"], out.detach(), rtol=1e-9, atol=1e-9)
given = torch.randn_like(out)
back = module.backward({**inputs, COTANGENT: given}, extents, {})
for name, want in zip(GRADIENTS, torch.autograd.grad(out, leaves, given)):
    torch.testing.assert_close(back[name], want, rtol=1e-9, atol=1e-9)
"""


def test_a_momentum_agrees_with_a_loop(tmp_path: Path) -> None:
    names = ("Q", "K", "V", "g", "H0")
    passes = plan_passes(load(MOMENTUM), names)
    text = render_module("t", passes.forward, passes.backward, "header")
    script = SCRIPT.replace("COTANGENT", repr(passes.cotangents["O"]))
    run(tmp_path, text, script.replace("GRADIENTS", repr([passes.gradients[x] for x in names])))


def test_states_that_no_program_holds_are_refused_with_their_size() -> None:
    facts = {
        "pads": {"e": "e"},
        "fixed": {"f": 16},
        "tiles": ("f",),
        "pairs": (("f", "e"),) * 4,
    }
    assert choose_walk(facts, {"e": 128}, 2, 2**17)["num_warps"] == 2
    with pytest.raises(
        ValueError, match=r"A0510: the states do not fit.*131072 registers of 65536"
    ):
        choose_walk(facts, {"e": 2048}, 2, 2**17)
