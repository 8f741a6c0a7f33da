"""Programs and inputs that several tests share."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

import attndsl
from attndsl.runtime.operator import CompiledAttention

ALIBI = """
attention alibi(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], slope[h], G: int) -> O[b,h,i,f], LSE[b,h,i] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) - slope * (i - j)   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
  LSE[i] = logsumexp[j](S[i,j])
}
"""

WINDOW = """
attention window(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], w: int = 5, cap: float, strict: bool = False)
    -> O[b,h,i,f] {
  batch b, h
  S[i,j] = cap * tanh(Q[i,e] * K[j,e] / cap)   where j <= i, i - j < w if strict else i - j <= w
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


@cache
def compiled(text: str, backend: str | None = "eager") -> CompiledAttention:
    """One operator for all tests: it is stateless but for its caches."""
    return attndsl.compile(text, backend=backend)


def alibi_inputs(
    n: int = 21, m: int | None = None, dtype: torch.dtype = torch.float32, grad: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and slopes: 2 batch entries, 4 heads over 2."""
    g = torch.Generator().manual_seed(n)
    m = n if m is None else m
    shapes = [(2, 4, n, 8), (2, 2, m, 8), (2, 2, m, 12), (4,)]
    drawn = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]
    q, k, v, s = (x.requires_grad_(grad) for x in drawn)
    return q, k, v, s
