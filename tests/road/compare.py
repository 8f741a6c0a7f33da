"""A program by its kernels, by its interpreter, and by PyTorch's own gradients of the interpreter."""

from __future__ import annotations

import torch
from torch import Tensor

import attndsl
from tests.road.case import declared

SIZES = {"b": 2, "h": 2, "e": 3, "f": 2, "d": 2, "g": 3, "r": 2, "y": 4}


def random_inputs(text: str, n: int, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs with values on a grid that no kink touches, and ids below the extents they index."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {**SIZES, "i": n, "j": n, "n": n, "x": 2 * n - 1, "G": 2 - seed % 2}
    out = {}
    for name, dims, kind in declared(text):
        shape = [eval(d, {}, sizes) for d in dims]
        if kind == "bool":
            out[name] = torch.rand(shape, generator=generator) < 0.6
        elif kind == "int":
            out[name] = torch.randint(0, 4, shape, generator=generator)
        else:
            out[name] = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return out


def compare(
    text: str, n: int, seed: int, backend: str = "eager", dtype: torch.dtype = torch.float64
) -> str:
    """ "ok"; AssertionError where outputs or gradients differ, DiagnosticError where it is refused."""
    op = attndsl.compile(text, backend=backend)
    inputs = random_inputs(text, n, seed, dtype)
    floats = [k for k, x in inputs.items() if x.is_floating_point()]
    ours = {k: x.requires_grad_() if k in floats else x for k, x in inputs.items()}
    wide = {
        k: x.detach().double().requires_grad_() if k in floats else x for k, x in inputs.items()
    }
    want = op.reference(**wide)
    got = op(**ours)
    want, got = (x if isinstance(x, tuple) else (x,) for x in (want, got))
    bound = 1e-8 if dtype is torch.float64 else 3e-3
    names = [o.name for o in op.cascade.outputs]
    for name, g, w in zip(names, got, want, strict=True):
        near(name, g, w, bound)
    generator = torch.Generator().manual_seed(seed)
    upstream = [
        torch.randn(w.shape, generator=generator, dtype=torch.float64) * torch.isfinite(w)
        for w in want
    ]
    exact = torch.autograd.grad(want, [wide[k] for k in floats], upstream, allow_unused=True)
    made = torch.autograd.grad(
        got, [ours[k] for k in floats], [u.to(g.dtype) for u, g in zip(upstream, got, strict=True)]
    )
    for name, g, w in zip(floats, made, exact, strict=True):
        near(f"gradient of {name}", g, torch.zeros_like(g) if w is None else w, 10 * bound)
    return "ok"


def near(name: str, got: Tensor, want: Tensor, bound: float) -> None:
    assert got.shape == want.shape, f"{name}: {tuple(got.shape)} for {tuple(want.shape)}"
    a, b = got.detach().double(), want.detach().double()
    finite = torch.isfinite(b)
    assert torch.equal(a[~finite].nan_to_num(7), b[~finite].nan_to_num(7)), (
        f"{name}: infinities differ"
    )
    assert torch.isfinite(a[finite]).all(), f"{name}: not finite"
    if finite.any():
        error = ((a - b)[finite].abs().max() / b[finite].abs().max().clamp(min=1)).item()
        assert error <= bound, f"{name}: off by {error:.2e}"
