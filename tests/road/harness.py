"""Running a case: outputs and gradients of the operator against its reference in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import attndsl
from attndsl.runtime import stages
from tests.road import (  # noqa: F401 (they fill CASES)
    combinations,
    domains,
    moving,
    normalizers,
    outputs,
    recent,
    recent_more,
    recent_states,
    scores,
    unplanned,
)
from tests.road.case import CASES, Case

__all__ = ["CASES", "Case", "check", "small_tiles"]

BOUNDS = {
    torch.float64: 1e-8,
    torch.float32: 3e-4,
    torch.float16: 3e-2,
    torch.bfloat16: 2e-1,
}


@contextmanager
def small_tiles(size: int = 8) -> Iterator[None]:
    """Eager kernels made inside take tiles of this size, so that short inputs span several."""
    load = stages.load_module

    def loaded(text: str, name: str) -> Any:
        module = load(text, name)
        if hasattr(module, "block_size"):
            module.block_size = lambda grid, most: size
        return module

    with patch.object(stages, "load_module", loaded):
        yield


def close(name: str, got: Tensor, want: Tensor, bound: float) -> None:
    assert got.shape == want.shape, f"{name}: {tuple(got.shape)} for {tuple(want.shape)}"
    a, b = got.detach().double().cpu(), want.detach().double()
    finite = torch.isfinite(b)
    assert torch.equal(a[~finite], b[~finite]), f"{name}: infinities differ"
    assert torch.isfinite(a[finite]).all(), f"{name}: not finite"
    size = b[finite].abs().max().clamp(min=1e-2) if finite.any() else torch.tensor(1.0)
    error = ((a - b)[finite].abs().max() / size).item() if finite.any() else 0.0
    assert error <= bound, f"{name}: off by {error:.2e}"


def check(
    case: Case,
    *,
    backend: str | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    gradients: bool = True,
    op: attndsl.CompiledAttention | None = None,
    device: str = "cpu",
    bound: float | None = None,
    **sizes: int,
) -> None:
    """Outputs, and gradients of every float input; AssertionError where one is off."""
    op = op or attndsl.compile(case.text, backend=backend)
    inputs = case.inputs(seed, dtype, **sizes)
    tracked = [n for n, x in inputs.items() if x.is_floating_point() and n not in case.still]
    wide = {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}
    inputs = {n: x.to(device) for n, x in inputs.items()}
    for n in tracked:
        inputs[n] = inputs[n].requires_grad_(gradients)
        wide[n] = wide[n].detach().requires_grad_()
    want = case.expected(wide, **sizes)
    begins = case.start.to(device) if isinstance(case.start, torch.Tensor) else case.start
    start = {} if begins is None else {"start": begins}
    got = op(**inputs, **case.params, **start)
    got = got if isinstance(got, tuple) else (got,)
    names = [o.name for o in op.cascade.outputs]
    assert len(got) == len(want), f"{len(got)} outputs for {len(want)}"
    bound = bound or BOUNDS[dtype]
    for name, g, w in zip(names, got, want, strict=True):
        close(name, g, w, bound)
    if not gradients:
        return
    generator = torch.Generator().manual_seed(seed + 1)
    upstream = [
        torch.randn(w.shape, generator=generator, dtype=torch.float64) * torch.isfinite(w.detach())
        for w in want
    ]
    made = torch.autograd.grad(
        got,
        [inputs[n] for n in tracked],
        [u.to(g.device, g.dtype) for u, g in zip(upstream, got, strict=True)],
    )
    exact = torch.autograd.grad(want, [wide[n] for n in tracked], upstream, allow_unused=True)
    for name, g, w in zip(tracked, made, exact, strict=True):
        close(f"gradient of {name}", g, torch.zeros_like(g) if w is None else w, 10 * bound)
