"""Cotangents as kernels take them best."""

from __future__ import annotations

from torch import Tensor


def gathered(cotangent: Tensor) -> Tensor:
    """The cotangent with its last rank next to one another and no element in two places.

    `o.sum().backward()` hands over one number spread over all of `O`, with strides of 0. The copy engine takes no such
    tensor, and a kernel that reads it element by element loses more than the copy costs.
    """
    if cotangent.dim() and all(
        n == 1 or (s != 0 if k < cotangent.dim() - 1 else s == 1)
        for k, (n, s) in enumerate(zip(cotangent.shape, cotangent.stride(), strict=True))
    ):
        return cotangent
    return cotangent.contiguous()
