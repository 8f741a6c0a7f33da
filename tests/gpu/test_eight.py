"""Inputs of 8 bits on a card: both forms of their kernels against float64, and bitwise equal on repeat."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.callerrors import CallError

EIGHT = torch.float8_e4m3fn
HEAD = "attention a(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f]{more}, G: int) -> O[b,h,i,f] {{\n  batch b, h\n"
SCORE = "  S[i,j] = Q[i,e] * K[j,e]{scale} / sqrt(|e|){mask}\n"
TEXT = HEAD + "{assume}" + SCORE + "  O[i,f] = softmax[j](S[i,j]) * V[j,f]{value}\n}}"
SIGMOID = HEAD + SCORE + "  O[i,f] = sigmoid(S[i,j] - 2) * V[j,f]\n}}"
PLAIN = {"more": "", "scale": "", "assume": "", "value": ""}
TENSOR = {
    "more": ", qs[b,h], ks[b,h//G], vs[b,h//G]",
    "scale": " * qs * ks",
    "assume": "  assume qs > 0, ks > 0\n",
    "value": " * vs",
}
BLOCK = TENSOR | {
    "more": ", qs[b,h,m], ks[b,h//G,n], vs[b,h//G]",
    "scale": " * qs[i // 128] * ks[j // 128]",
}
WHOLE = 1 << 20  # one block for all positions
WAYS = {"plain": (PLAIN, 0), "tensor": (TENSOR, WHOLE), "block": (BLOCK, 128)}
# Batch, heads, heads of keys, length, head dim.
SHAPES = [
    (2, 4, 4, 256, 128),
    (1, 4, 2, 333, 64),
    (2, 6, 3, 1000, 128),
    (1, 2, 2, 517, 96),
    (1, 2, 1, 1, 64),
]
SHAPES += [(1, 2, 2, 300, 256), (3, 7, 7, 1530, 128)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9),
        reason="needs a card with numbers of 8 bits",
    ),
]


def backends() -> list[str]:
    hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
    return ["triton", "hopper"] if hopper else ["triton"]


def quantised(x: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """A tensor in e4m3, the scale of each block of positions, and what both stand for."""
    n = x.shape[2]
    if not block:
        y = x.to(EIGHT)
        return y, x.new_ones(()), y.double()
    scale = torch.stack([c.abs().amax((-1, -2)) for c in x.split(block, 2)], -1) / 448
    spread = scale.repeat_interleave(min(block, n), -1)[..., :n, None]
    y = (x / spread).to(EIGHT)
    return y, scale[..., 0] if block == WHOLE else scale, y.double() * spread.double()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("mask", ["", "   where j <= i"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", WAYS)
def test_against_float64(way: str, shape: tuple[int, ...], mask: str, backend: str) -> None:
    words, block = WAYS[way]
    batch, heads, few, n, dim = shape
    g = torch.Generator("cuda").manual_seed(0)
    drawn = [torch.randn(batch, h, n, dim, device="cuda", generator=g) for h in (heads, few, few)]
    (q, qs, wide_q), (k, ks, wide_k) = (quantised(x, block) for x in drawn[:2])
    v, vs, wide_v = quantised(drawn[2], block and WHOLE)
    op = attndsl.compile(TEXT.format(mask=mask, **words), backend=backend)
    rest = [qs, ks, vs] if block else []
    out = op(q, k, v, *rest, G=heads // few)
    assert out.dtype is torch.bfloat16
    assert all(torch.equal(out, op(q, k, v, *rest, G=heads // few)) for _ in range(10))
    wide_k, wide_v = (x.repeat_interleave(heads // few, 1) for x in (wide_k, wide_v))
    s = wide_q @ wide_k.mT / math.sqrt(dim)
    if mask:
        s = s.masked_fill(torch.ones(n, n, device="cuda").triu(1).bool(), -math.inf)
    p = torch.exp(s - s.amax(-1, keepdim=True))
    z = p.sum(-1, keepdim=True)
    wide, dense = p @ wide_v / z, (p * 256).to(EIGHT).double() / 256 @ wide_v / z
    # Weights of 8 bits are taken off a running maximum, and the units sum them with 14 bits.
    assert relative(out, wide) < 1.2 * relative(dense.bfloat16(), wide) + 2e-3


@pytest.mark.parametrize("backend", backends())
def test_weights_of_16_bits(backend: str) -> None:
    op = attndsl.compile(SIGMOID.format(mask="", **PLAIN), backend=backend)
    x = [torch.randn(2, 4, 300, 128, device="cuda").to(EIGHT) for _ in range(3)]
    assert relative(op(*x), op.reference(*x, dtype=torch.float64)) < 4e-3


def test_strided_inputs() -> None:
    """Heads behind positions, as a projection leaves them."""
    op = attndsl.compile(TEXT.format(mask="", **PLAIN), backend=backends()[-1])
    x = [torch.randn(2, 700, 4, 128, device="cuda").to(EIGHT).transpose(1, 2) for _ in range(3)]
    assert torch.equal(op(*x), op(*(t.contiguous() for t in x)))


def test_gradients_are_refused() -> None:
    op = attndsl.compile(TEXT.format(mask="", **PLAIN))
    x = [torch.randn(1, 2, 64, 64, device="cuda").to(EIGHT).requires_grad_() for _ in range(3)]
    with pytest.raises(CallError, match="A0515"):
        op(*x)
