"""Programs by chunks on a GPU: kernels ahead and the walks that read what they made, in every type and chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.schedule.composed import PIECES
from attndsl.testing import make_inputs, reference, relative_error

pytestmark = pytest.mark.gpu

EXAMPLES = Path(__file__).parents[2] / "examples"
GATES = ("g", "loga", "beta", "w")
MOST = {torch.bfloat16: 1.5e-2, torch.float32: 3e-5}


def inputs_of(op: Any, n: int, d: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Keys of length 1, gates that keep most of the past."""
    sizes = {
        r: {"b": 1, "h": 2}.get(r, d if r in "ef" else n)
        for i in op.cascade.inputs
        for r in i.ranks
    }
    made = make_inputs(op, {**sizes, "c": d}, dtype=torch.float64, device="cuda", seed=n)
    out: dict[str, Tensor] = {}
    for name, x in made.items():
        match name:
            case "K":
                x = torch.nn.functional.normalize(x, dim=-1)
            case "beta":
                x = torch.sigmoid(x)
            case "g" | "loga":
                x = 0.2 * x
        out[name] = x.float() if name in GATES else x.to(dtype)
    return out


@pytest.mark.parametrize("name", ["deltanet", "gated_delta", "gla"])
@pytest.mark.parametrize(
    ("n", "d", "dtype"),
    [(65, 64, torch.bfloat16), (300, 100, torch.bfloat16), (63, 64, torch.float32)],
)
def test_gradients_and_outputs(name: str, n: int, d: int, dtype: torch.dtype) -> None:
    op: Any = attndsl.load(EXAMPLES / f"{name}.attn", backend="triton")
    given = inputs_of(op, n, d, dtype)
    leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
    out = op(**leaves)
    up = torch.randn(out.shape, device="cuda").to(out.dtype)
    grads = torch.autograd.grad(out, list(leaves.values()), up)
    want = reference(op, given, upstream={"O": up})
    assert relative_error(out, want.outputs["O"]) < MOST[dtype]
    for k, g in zip(leaves, grads, strict=True):
        assert relative_error(g, want.gradients[k]) < MOST[dtype], k


def test_a_repeated_call_is_bitwise_the_same() -> None:
    op: Any = attndsl.load(EXAMPLES / "deltanet.attn", backend="triton")
    given = inputs_of(op, 200, 64, torch.bfloat16)
    first = op(**given)
    for _ in range(3):
        torch.testing.assert_close(op(**given), first, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["linear_identity", "retnet", "simple_gla", "gla"])
@pytest.mark.parametrize(("n", "d"), [(2100, 64), (2048, 128)])
def test_few_heads_in_pieces(name: str, n: int, d: int) -> None:
    op: Any = attndsl.load(EXAMPLES / f"{name}.attn", backend="triton")
    given = inputs_of(op, n, d, torch.bfloat16)
    leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
    out = op(**leaves)
    assert all(call.extents[PIECES] > 1 for call in op._engine.calls.values())
    up = torch.randn(out.shape, device="cuda").to(out.dtype)
    grads = torch.autograd.grad(out, list(leaves.values()), up)
    want = reference(op, given, upstream={"O": up})
    assert relative_error(out, want.outputs["O"]) < MOST[torch.bfloat16]
    for k, g in zip(leaves, grads, strict=True):
        assert relative_error(g, want.gradients[k]) < MOST[torch.bfloat16], k
