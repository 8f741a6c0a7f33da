"""Gradients that are sums over rows of scores: what cancels in them cancels in 16 bits too."""

from __future__ import annotations

import pytest
import torch

import attndsl
from attndsl.cascade.autodiff import differentiate
from attndsl.cascade.printer import print_cascade
from attndsl.cascade.starts import apply_start

HEAD = "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]"
DOT = "Q[i,e] * K[j,e] / sqrt(|e|)"


def program(more: str, score: str) -> str:
    return f"""attention p({HEAD}, {more}) -> O[b,h,i,f] {{
      batch b, h
      S[i,j] = {score}   where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }}"""


SLOPE = program("w[h]", f"{DOT} - w * (i - j)")
CASES = {
    "slope": SLOPE,
    "offset": program("w[h]", f"{DOT} * (3 + w)"),
    "temperature of each query": program("w[b,h,i]", f"{DOT} / (3 + w[i])"),
    "scaled distance": program("w[h]", f"{DOT} - w * sqrt(i - j) / 4"),
    "row of a rank of its own": program("w[b,i]", f"{DOT} + w[i] * (i - j) / 64"),
}


def backward(text: str) -> str:
    return print_cascade(differentiate(apply_start(attndsl.compile(text).cascade)).backward)


def test_rows_are_corrected_by_what_does_not_cancel() -> None:
    text = backward(SLOPE)
    assert "W[i]      = sum[j_5]((i + start - j_5) * dS[i,j_5]) - (E[i] - D[i] if " in text
    assert "> 1.52587890625e-05 * abs(E[i]) * max(1.0, abs(L_S[i]) / 64.0) else 0.0)" in text
    assert "else 0.0) * sum[j_6]((i + start - j_6) * P_S[i,j_6])" in text
    assert "dw        = -sum[b_1,i_3](W[b_1,h,i_3])" in text


def test_no_other_gradient_pays_for_it() -> None:
    assert "E[i]" not in backward(program("w[h,j]", f"{DOT} + w[j]"))


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_scales_in_bf16(name: str) -> None:
    """Kernels keep `P` and `dP` in float32; with `D` alone these are off by 0.1 to 5 %."""
    op = attndsl.compile(CASES[name], backend="eager")
    torch.manual_seed(0)
    n, shapes = 160, {"w[h]": (2,), "w[b,h,i]": (2, 2, 160), "w[b,i]": (2, 160)}
    inputs = [torch.randn(2, 2, n, 16, dtype=torch.bfloat16) for _ in range(3)]
    kind = next(k for k in shapes if k in CASES[name])
    inputs.append(torch.rand(shapes[kind]))
    given = [x.requires_grad_() for x in inputs]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    out, want = op(*given), op.reference(*wide)
    upstream = torch.randn_like(out)
    got = torch.autograd.grad(out, given[3], upstream)[0].double()
    exact = torch.autograd.grad(want, wide[3], upstream.double())[0]
    assert ((got - exact).norm() / exact.norm()).item() < 1e-4
