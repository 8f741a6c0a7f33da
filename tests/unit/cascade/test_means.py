"""Gradients of means of scores stay as exact as the scores, however large these are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.cascade.autodiff import differentiate
from attndsl.cascade.means import around_their_mean
from attndsl.cascade.printer import print_expr
from attndsl.frontend import check
from attndsl.source import Source

HEAD = "attention f(Q[b,h,i,e], K[b,h,j,e]{more}) -> {out} {{\n  batch b, h\n  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)\n"
PROGRAMS = {
    "entropy": HEAD.format(more="", out="H[b,h,i]")
    + "  H[i] = logsumexp[j](S[i,j]) - sum[j](softmax[j](S[i,j]) * S[i,j])\n}",
    "mean": HEAD.format(more="", out="R[b,h,i]")
    + "  R[i] = sum[j](softmax[j](S[i,j]) * S[i,j])\n}",
    "mean beside an output": HEAD.format(more=", V[b,h,j,f]", out="O[b,h,i,f], R[b,h,i]")
    + "  R[i] = 3 * sum[j](softmax[j](S[i,j]) * S[i,j])\n  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n}",
}


def gradients(op: attndsl.CompiledAttention, inputs: list[Tensor], dense: bool) -> list[Tensor]:
    tracked = [x.detach().clone().requires_grad_() for x in inputs]
    made = (op.reference if dense else op)(*tracked)
    made = made if isinstance(made, tuple) else (made,)
    return list(torch.autograd.grad(sum(x.sum() for x in made), tracked))


@pytest.mark.parametrize("scale", [1.0, 10.0, 35.0])
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_exact_as_the_dense_form(name: str, scale: float) -> None:
    op = attndsl.compile(PROGRAMS[name])
    generator = torch.Generator().manual_seed(4)
    inputs = [
        torch.randn(1, 2, 60, 64, generator=generator) * (scale if t.name in "QK" else 1)
        for t in op.cascade.inputs
    ]
    exact = gradients(op, [x.double() for x in inputs], dense=True)
    ours, dense = gradients(op, inputs, dense=False), gradients(op, inputs, dense=True)
    # Weights that are made anew are off by the rounding of the log-sum-exp, and so is what they weigh.
    rounding = 2.0**-23 * 8 * scale**2
    for x, y, z in zip(exact, ours, dense, strict=True):
        error, usual = float((y - x).abs().max()), float((z - x).abs().max())
        assert error <= 4 * usual + rounding * float(x.abs().max())


def test_only_where_the_parts_agree() -> None:
    """The mean and what it is taken from move together, or nothing does."""
    (cascade,) = check(Source("f.attn", PROGRAMS["entropy"])).cascades
    body = differentiate(cascade).backward.body
    text = "\n".join(print_expr(d.expr) for d in body)
    assert text.count("(S[b,h,i,j] - L_S[b,h,i])") == 2  # under the exponential too
    assert "(P_S[b,h,i,j_4] * (S[b,h,i,j_4] - L_S[b,h,i]))" in text
    assert around_their_mean(body) == body  # once is enough
