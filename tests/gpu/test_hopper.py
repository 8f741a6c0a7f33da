"""Kernels whose warps specialise, on a Hopper card: against float64, and bitwise equal on repeat."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import attndsl

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = ["full", "causal", "softcap", "window", "sigmoid", "softpick", "off_by_one", "prefix_lm"]
SHAPES = [(2, 4, 256, 128), (1, 4, 333, 64), (2, 3, 1000, 128), (1, 2, 517, 96), (1, 2, 1, 64)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9,
        reason="needs a Hopper card",
    ),
]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_against_float64(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn", backend="hopper")
    torch.manual_seed(0)
    x = [torch.randn(shape, device="cuda", dtype=dtype).requires_grad_() for _ in range(3)]
    wide = [t.detach().double().requires_grad_() for t in x]

    def evaluated(call, tensors):  # type: ignore[no-untyped-def]
        out = call(*tensors)
        out = out[0] if isinstance(out, tuple) else out
        cotangent = torch.ones_like(out).cumsum(-1) / out.shape[-1]
        return [out.detach(), *torch.autograd.grad(out, tensors, cotangent)]

    exact = evaluated(op.reference, wide)
    dense = evaluated(op.reference, x)
    made = evaluated(op, x)
    again = evaluated(op, x)
    for a, b, r, e in zip(made, again, dense, exact, strict=True):
        assert torch.equal(a, b)
        if float(e.norm()) > 0:
            assert relative(a, e) <= 1.5 * relative(r, e) + 2 * torch.finfo(dtype).eps
