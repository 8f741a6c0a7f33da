"""Inputs of 8 bits at calls: the eager form and Triton's interpreter against float64, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.callerrors import CallError
from attndsl.codegen.triton import render_module
from attndsl.runtime.stages import plan_passes
from tests.unit.codegen.running import run
from tests.unit.schedule.harness import load

EIGHT = torch.float8_e4m3fn
TEXT = """
attention quantised(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], qs[b,h,m], ks[b,h//G,n], vs[b,h//G], G: int)
    -> O[b,h,i,f], LSE[b,h,i] {
  batch b, h
  assume qs > 0, ks > 0
  S[i,j] = Q[i,e] * K[j,e] * qs[i // 128] * ks[j // 128] / sqrt(|e|)   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f] * vs
  LSE[i] = logsumexp[j](S[i,j])
}
"""
SIGMOID = """
attention weighed(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
  batch b
  O[i,f] = sigmoid(Q[i,e] * K[j,e] / sqrt(|e|) - 2) * V[j,f]
}
"""


def quantised(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """A tensor in e4m3, and a scale for each block of positions."""
    n = x.shape[2]
    scale = torch.stack([c.abs().amax((-1, -2)) for c in x.split(block, 2)], -1) / 448
    spread = scale.repeat_interleave(block, -1)[..., :n, None]
    return (x / spread).to(EIGHT), scale


def drawn(n: int = 200, dim: int = 64) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, n, dim, generator=g) for h in (4, 2, 2))
    (q, qs), (k, ks), (v, vs) = quantised(q, 128), quantised(k, 128), quantised(v, n)
    return [q, k, v, qs, ks, vs[..., 0]]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


def test_eager_errs_as_dense_weights_of_8_bits_do() -> None:
    op = attndsl.compile(TEXT)
    x = drawn()
    o, lse = op(*x)
    wide, stats = op.reference(*x, dtype=torch.float64)
    assert o.dtype is torch.bfloat16
    assert lse.dtype is torch.float32
    assert torch.allclose(lse.double(), stats, atol=1e-5)
    q, k, v = (t.double() for t in x[:3])
    q = q * x[3].repeat_interleave(128, -1)[..., :200, None]
    k = k * x[4].repeat_interleave(128, -1)[..., :200, None]
    k, v = (t.repeat_interleave(2, 1) for t in (k, v * x[5][..., None, None]))
    s = (q @ k.mT / math.sqrt(64)).masked_fill(torch.ones(200, 200).triu(1).bool(), -math.inf)
    p = torch.exp(s - s.amax(-1, keepdim=True))
    dense = (p * 256).to(EIGHT).double() @ v / (p * 256).sum(-1, keepdim=True)
    assert relative(o, wide) < 1.2 * relative(dense.bfloat16(), wide)


def test_weights_of_16_bits_err_less() -> None:
    """A sigmoid's are not kept inside the type of 8 bits; the other side of the product is converted."""
    op = attndsl.compile(SIGMOID)
    x = [t[:, 0] for t in drawn()[:3]]
    assert relative(op(*x), op.reference(*x, dtype=torch.float64)) < 4e-3


def test_triton_agrees(tmp_path: Path) -> None:
    cascade = load(TEXT)
    text = render_module("quantised", *_passes(cascade), "header")
    x = drawn(70, 32)
    wide, _ = attndsl.compile(TEXT).reference(*x, dtype=torch.float64)
    names = ("Q", "K", "V", "qs", "ks", "vs")
    given = {n: t.to(torch.float32).tolist() for n, t in zip(names, x, strict=True)}
    run(
        tmp_path,
        text,
        f"""
given = {{n: torch.tensor(x) for n, x in {given!r}.items()}}
for n in "QKV":
    given[n] = given[n].to(torch.float8_e4m3fn)
extents = dict(b=2, h=4, i=70, j=70, e=32, f=32, m=1, n=1)
out = module.forward(given, extents, {{"G": 2, "start": 0}})
wide = torch.tensor({wide.tolist()!r}, dtype=torch.float64)
assert out["O"].dtype == torch.bfloat16
error = (out["O"].double() - wide).norm() / wide.norm()
assert error < 4e-3, error
""",
    )


def _passes(cascade):  # type: ignore[no-untyped-def]
    passes = plan_passes(cascade, (), eight=("Q", "K", "V"))
    return passes.forward, passes.backward


@pytest.mark.parametrize("which", [0, 3])
def test_gradients_are_refused(which: int) -> None:
    """Of the inputs themselves, and of what stands beside them."""
    op, x = attndsl.compile(TEXT), drawn()
    x[which].requires_grad_()
    with pytest.raises(CallError, match="A0515") as refused:
        op(*x)
    assert "torch.no_grad()" in str(refused.value)
    with torch.no_grad():
        assert op(*x)[0].isfinite().all()


def test_partial_results_are_refused() -> None:
    with pytest.raises(CallError, match="A0515"):
        attndsl.compile(SIGMOID).partial(*[t[:, 0] for t in drawn()[:3]])


def test_inputs_of_one_product_have_one_type() -> None:
    x = drawn()
    x[1] = x[1].to(torch.bfloat16)
    with pytest.raises(CallError, match="A0501"):
        attndsl.compile(TEXT)(*x)


def test_the_same_operator_takes_16_bits() -> None:
    """A stage for each kind of inputs."""
    op, x = attndsl.compile(TEXT), drawn()
    first = op(*x)[0]
    y = [t.to(torch.bfloat16) for t in x[:3]] + x[3:]
    assert relative(op(*y)[0], op.reference(*x, dtype=torch.float64)[0]) < 5e-3
    assert torch.equal(op(*x)[0], first)
