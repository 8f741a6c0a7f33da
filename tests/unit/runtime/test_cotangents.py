"""Cotangents that are spread or transposed reach kernels gathered, and others as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attndsl
from attndsl.runtime.cotangents import gathered
from attndsl.runtime.stages import Stage

CAUSAL = """
attention causal(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


@pytest.mark.parametrize(
    "cotangent",
    [
        torch.ones(()).expand(2, 3, 5, 4),
        torch.randn(2, 3, 4, 5).transpose(2, 3),
        torch.randn(2, 1, 5, 4).expand(2, 3, 5, 4),
    ],
)
def test_spread_and_transposed(cotangent: torch.Tensor) -> None:
    made = gathered(cotangent)
    assert made.is_contiguous()
    assert torch.equal(made, cotangent)


@pytest.mark.parametrize(
    "cotangent",
    [
        torch.randn(2, 3, 5, 4),
        torch.randn(2, 5, 3, 4).transpose(1, 2),
        torch.randn(2, 3, 5, 8)[..., :4],
        torch.randn(2, 1, 5, 4).expand(2, 1, 5, 4),
    ],
)
def test_left_as_they_are(cotangent: torch.Tensor) -> None:
    assert gathered(cotangent) is cotangent


def test_a_sum_brings_them_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    run = Stage.backward

    def watched(self: Stage, tensors: Any, grads: Any, *rest: Any) -> Any:
        seen.extend(g.stride() for g in grads.values())
        return run(self, tensors, grads, *rest)

    monkeypatch.setattr(Stage, "backward", watched)
    op = attndsl.compile(CAUSAL, backend="eager")
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64).requires_grad_() for _ in range(3))
    op(q, k, v).sum().backward()
    assert seen == [(40, 20, 4, 1)]
    want = torch.autograd.grad(op.reference(q, k, v).sum(), [q, k, v])
    for x, g in zip((q, k, v), want, strict=True):
        torch.testing.assert_close(x.grad, g)
