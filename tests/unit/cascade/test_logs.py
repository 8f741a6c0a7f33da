"""Logarithms of weights come from their exponents: finite where the weight is 0, in the reference and in kernels."""

from __future__ import annotations

import pytest
import torch

import attndsl
from attndsl.cascade.printer import print_expr
from attndsl.frontend import load_cascades
from attndsl.source import Source

HEAD = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[j]) -> H[b,i] {{
  batch b
  S[i,j] = Q[i,e] * K[j,e]   where j <= i
  {}
}}"""


def last(lines: str) -> str:
    (c,) = load_cascades(Source("t", HEAD.format(lines)))
    return print_expr(c.body[-1].expr)


@pytest.mark.parametrize(
    ("lines", "made"),
    [
        (
            "P[i,j] = softmax[j](S[i,j])\n  H[i] = sum[j](P[i,j] * log(P[i,j]))",
            "S[b,i,j_3] - M_S[b,i] - log(Z_S[b,i])",
        ),
        (
            "E[i,j] = exp(S[i,j])\n  H[i] = sum[j](log(E[i,j] / (1 + sum[j](E[i,j]))))",
            "S[b,i,j_1] - log(1 + sum",
        ),
        ("E[i,j] = exp(S[i,j])\n  H[i] = sum[j](log(2 * E[i,j]))", "S[b,i,j_1] + log(2)"),
    ],
)
def test_the_exponent_is_taken(lines: str, made: str) -> None:
    assert made in last(lines)


@pytest.mark.parametrize(
    "inside", ["u[j] * exp(S[i,j])", "exp(S[i,j]) / u[j]", "sigmoid(S[i,j])", "exp(S[i,j]) + 1"]
)
def test_what_may_be_negative_or_is_no_product_stays(inside: str) -> None:
    assert "log(" in last(f"P[i,j] = {inside}\n  H[i] = sum[j](log(P[i,j]))")


@pytest.mark.parametrize("scale", [1.0, 300.0, 1e4])
def test_an_entropy_is_finite(scale: float) -> None:
    op = attndsl.compile(
        HEAD.format("P[i,j] = softmax[j](S[i,j])\n  H[i] = -sum[j](P[i,j] * log(P[i,j]))"),
        backend="eager",
    )
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 9, 4, generator=g, dtype=torch.float64) for _ in range(3))
    inputs = [(q * scale).requires_grad_(), k.requires_grad_(), v, torch.ones(9).double()]
    made, want = op(*inputs), op.reference(*inputs)
    assert torch.isfinite(want).all()
    torch.testing.assert_close(made, want, rtol=1e-9, atol=1e-9 * scale)
    for x, y in zip(
        torch.autograd.grad(made.sum(), inputs[:2]),
        torch.autograd.grad(want.sum(), inputs[:2]),
        strict=True,
    ):
        assert torch.isfinite(y).all()
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-9 * scale)
