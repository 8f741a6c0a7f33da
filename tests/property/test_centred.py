"""Sums of squares around late values: one sweep with the mean, equal to the reference, and as exact far from 0."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl import driver
from attndsl.analysis.centred import coefficients
from attndsl.cascade.nodes import Binary, Const, Param, Unary
from attndsl.runtime.operator import CompiledAttention

HEAD = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,j], c[b,i]) -> A[b,i]{} {{
  batch b
  S[i,j] = Q[i,e] * K[j,e] + u[j]{}
  {}
}}"""
DOMAINS = ["", "   where j <= i", "   where j < i - 2"]
BODIES = {
    "variance": "m[i] = sum[j](S[i,j]) / (1 + sum[j](1 if S[i,j] > -1e30 else 0))\n"
    "  A[i] = sum[j]((S[i,j] - m[i])**2) / |j|",
    "over all keys": "m[i] = sum[j](S[i,j]) / |j|\n  A[i] = sum[j]((m[i] - S[i,j])**2)",
    "around the log-sum-exp": "m[i] = logsumexp[j](S[i,j])\n  A[i] = sum[j]((S[i,j] - m[i]) * (S[i,j] - c[i]))",
    "scaled": "m[i] = sum[j](S[i,j]) / |j|\n  A[i] = sum[j](2 * (S[i,j] - m[i])**2 / (1 + c[i]**2) - S[i,j] * c[i])",
}


@cache
def op(body: str, domain: int) -> CompiledAttention:
    return attndsl.compile(HEAD.format("", DOMAINS[domain], BODIES[body]), backend="eager")


def inputs(n: int, offset: float, dtype: torch.dtype) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(n)
    q, k, v = (torch.randn(2, n, 4, generator=g, dtype=torch.float64) for _ in range(3))
    u = torch.full((2, n), offset, dtype=torch.float64)
    c = torch.randn(2, n, generator=g, dtype=torch.float64)
    return [x.to(dtype) for x in (q, k, v, u, c)]


@pytest.mark.parametrize("body", BODIES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(n=st.integers(1, 40), domain=st.integers(0, 2), offset=st.sampled_from([0.0, 300.0, -300.0]))
def test_it_equals_the_reference(body: str, n: int, domain: int, offset: float) -> None:
    o = op(body, domain)
    given_ = [x.requires_grad_() for x in inputs(n, offset, torch.float64)]
    made, want = o(*given_), o.reference(*given_)
    torch.testing.assert_close(made, want, rtol=1e-10, atol=1e-8)
    for x, y in zip(
        torch.autograd.grad(made.sum(), given_, allow_unused=True),
        torch.autograd.grad(want.sum(), given_, allow_unused=True),
        strict=True,
    ):
        if x is not None or y is not None:
            zero = torch.zeros_like(y if x is None else x)  # an input that plays no part
            torch.testing.assert_close(
                zero if x is None else x, zero if y is None else y, rtol=1e-9, atol=1e-7
            )


@pytest.mark.parametrize("offset", [0.0, 300.0, -300.0])
def test_far_from_zero_it_keeps_its_digits(offset: float) -> None:
    """In float32 over 600 keys: a sum of squares less a square would keep two digits of a variance of 4 at 300."""
    o = op("over all keys", 0)
    single = inputs(600, offset, torch.float32)
    exact = o.reference(*(x.double() for x in single))
    got = o(*single).double()
    assert ((got - exact) / exact).abs().max() < 2e-5


def test_standardised_scores_take_two_sweeps() -> None:
    program = driver.load(Path("examples/standardised.attn"))
    assert program.forward is not None
    assert len(program.forward.steps) == 2


def test_a_variance_is_one_sweep() -> None:
    from attndsl.runtime.stages import plan_passes

    assert len(plan_passes(op("variance", 1).cascade, ()).forward.steps) == 1


@pytest.mark.parametrize(
    ("e", "powers"),
    [
        (Binary("**", Binary("-", Param("x"), Param("u")), Const(2)), {0, 1, 2}),
        (Unary("-", Binary("*", Param("x"), Param("u"))), {1}),
        (Binary("*", Param("x"), Binary("*", Param("x"), Param("x"))), None),
        (Binary("/", Param("u"), Param("x")), None),
    ],
)
def test_coefficients(e: Binary | Unary, powers: set[int] | None) -> None:
    found = coefficients(e, Param("x"))
    assert (None if found is None else set(found)) == powers
