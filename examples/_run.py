"""What the runners share: random inputs, and the comparison of an operator with its own reference.

    op = load(__file__)                 # the .attn file beside the runner
    q, k, v = normal(2, 4, 100, 64), …
    compare(op, Q=q, K=k, V=v, w=32)    # prints the relative errors; exit status 1 if one is large

On a GPU the inputs are bfloat16; elsewhere float32, through the operator's CPU form.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import attndsl

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
TOLERANCE = 2e-2 if DEVICE.type == "cuda" else 1e-4

torch.manual_seed(0)


def load(runner: str) -> Any:
    """The operator of the `.attn` file beside a runner."""
    return attndsl.load(Path(runner).with_suffix(".attn"))


def normal(*shape: int) -> Tensor:
    """Standard normal inputs."""
    return torch.randn(shape, device=DEVICE, dtype=torch.float32).to(DTYPE)


def uniform(low: float, high: float, *shape: int) -> Tensor:
    """Uniform inputs; float32 on every device, as side inputs (slopes, gates) may be."""
    return torch.rand(shape, device=DEVICE) * (high - low) + low


def ints(values: Any) -> Tensor:
    """Integer inputs: ids, lengths, tables of positions."""
    return torch.as_tensor(values, device=DEVICE, dtype=torch.int32)


def compare(op: Any, **arguments: Any) -> None:
    """Run `op` forward and backward, and print its errors against the same program in float64."""
    names = [n for n, x in arguments.items() if isinstance(x, Tensor) and x.is_floating_point()]
    got = {n: x.detach().requires_grad_() for n, x in arguments.items() if n in names}
    want = {n: x.detach().double().requires_grad_() for n, x in got.items()}
    outputs = _tuple(op(**{**arguments, **got}))
    references = _tuple(op.reference(**{**arguments, **want}))
    errors = {
        f"output {n}": _error(o, r)
        for n, (o, r) in enumerate(zip(outputs, references, strict=True))
    }
    cotangents = [torch.randn_like(o) for o in outputs]
    torch.autograd.backward(outputs, cotangents)
    torch.autograd.backward(references, [c.double() for c in cotangents])
    errors |= {f"d{n}": _error(got[n].grad, want[n].grad) for n in names}
    for name, error in errors.items():
        print(f"{name:>12}  {error:.1e}")
    if not all(error <= TOLERANCE for error in errors.values()):
        sys.exit(1)


def _tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _error(got: Tensor | None, want: Tensor | None) -> float:
    """The norm of the difference over the norm of what was wanted; infinities must be equal."""
    if got is None or want is None:
        return float("inf")
    finite = torch.isfinite(want)
    if not torch.equal(got[~finite].double(), want[~finite]):
        return float("inf")
    a, b = got.detach()[finite].double(), want.detach()[finite]
    return float((a - b).norm() / b.norm().clamp_min(1e-30))
