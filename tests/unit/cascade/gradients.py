"""The derived backward program of a text against autograd through the interpreter."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from attndsl.cascade.autodiff import Gradient, differentiate
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade
from attndsl.cascade.printer import print_expr
from attndsl.cascade.starts import apply_start
from attndsl.cascade.verify import verify, verify_types
from attndsl.frontend import load_cascades
from attndsl.source import Source


@cache
def derived(text: str, shifted: bool = False) -> tuple[Cascade, Gradient]:
    """The program of a text and its gradient, both well-formed; `shifted` if a call gives `start`."""
    (cascade,) = load_cascades(Source("test.attn", text))
    gradient = differentiate(apply_start(cascade) if shifted else cascade)
    for program in (gradient.forward, gradient.backward):
        verify(program)
        verify_types(program)
    return cascade, gradient


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def agree(
    text: str,
    inputs: dict[str, Tensor],
    params: dict[str, int | float | bool] | None = None,
    *,
    start: int = 0,
    tolerance: float = 1e-9,
) -> dict[str, Tensor]:
    """Check every gradient to a tolerance relative to the largest; return them by input."""
    cascade, gradient = derived(text, shifted=start != 0)
    params = params or {}
    floats = {n: inputs[n].detach().requires_grad_() for n in gradient.gradients}
    outputs = interpret(cascade, {**inputs, **floats}, params, start=start)
    given = {n: numbers(*outputs[n].shape, seed=k + 1) for k, n in enumerate(gradient.cotangents)}
    want = torch.autograd.grad(
        [outputs[n] for n in given], list(floats.values()), list(given.values()), allow_unused=True
    )
    available = {k: v.detach() for k, v in inputs.items()}
    available |= interpret(gradient.forward, available, params, start=start)
    available |= {gradient.cotangents[n]: g for n, g in given.items()}
    taken = {t.name: available[t.name] for t in gradient.backward.inputs}
    known = {p.name for p in gradient.backward.params}
    got = interpret(
        gradient.backward, taken, {n: v for n, v in params.items() if n in known}, start=start
    )
    plain = interpret(
        explicit_domains(gradient.backward),
        taken,
        {n: v for n, v in params.items() if n in known},
        start=start,
    )
    for name, value in got.items():
        torch.testing.assert_close(plain[name], value, msg=lambda m: f"explicit domains: {m}")
    result = {n: got[gradient.gradients[n]] for n in floats}
    for (name, mine), theirs in zip(result.items(), want, strict=True):
        expected = torch.zeros_like(mine) if theirs is None else theirs
        scale = 1 + float(expected.abs().max()) if expected.numel() else 1.0
        assert torch.isfinite(mine).all(), f"gradient of {name} is not finite: {mine}"
        torch.testing.assert_close(
            mine,
            expected,
            rtol=0,
            atol=tolerance * scale,
            msg=lambda m, name=name: f"gradient of {name}: {m}",
        )
    return result


def backward(text: str) -> dict[str, str]:
    """The definitions of the derived backward program, as text, batch indices included."""
    _, gradient = derived(text)
    return {
        d.tensor: print_expr(d.expr) + (f" where {print_expr(d.where)}" if d.where else "")
        for d in gradient.backward.body
    }
