"""Squared distances as products: where the rewrite is taken, what it means, and the digits that it costs."""

from __future__ import annotations

import pytest
import torch

import attndsl
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Binary, Cascade, Read
from attndsl.cascade.rewritten import rewritten
from attndsl.cascade.walk import walk
from attndsl.frontend import check
from attndsl.source import Source

HEAD = "attention f(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]{more}) -> {out} {{\n  batch b, h\n"
SQUARE = "sum[e]((Q[i,e] - K[j,e])**2)"
SOFTMAX = "  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n}"


def program(body: str, more: str = "", out: str = "O[b,h,i,f]") -> str:
    return HEAD.format(more=more, out=out) + body


TAKEN = {
    "under a softmax": program(f"  S[i,j] = -0.5 * {SQUARE} where j <= i\n{SOFTMAX}"),
    "by its name": program(f"  D[i,j] = {SQUARE}\n  S[i,j] = -D[i,j] / |e|\n{SOFTMAX}"),
    "as a product": program(
        f"  S[i,j] = -sum[e]((Q[i,e] - K[j,e]) * (Q[i,e] - K[j,e]))\n{SOFTMAX}"
    ),
    "a Student t": program(f"  S[i,j] = -2 * log(1 + {SQUARE})\n{SOFTMAX}"),
    "a Cauchy kernel": program(f"  A[i,j] = 1 / (1 + {SQUARE})\n  O[i,f] = A[i,j] * V[j,f]\n}}"),
    "a kernel over its sum": program(
        f"  A[i,j] = exp(-{SQUARE})\n  O[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]\n}}"
    ),
}
LEFT = {
    "a length, whose slope is infinite at 0": program(f"  S[i,j] = -sqrt({SQUARE})\n{SOFTMAX}"),
    "an inverse": program(f"  A[i,j] = 1 / ({SQUARE} + 1e-3)\n  O[i,f] = A[i,j] * V[j,f]\n}}"),
    "a logarithm near 0": program(f"  S[i,j] = -log({SQUARE})\n{SOFTMAX}"),
    "a cut": program(f"  S[i,j] = -1 if {SQUARE} < 4 else -2\n{SOFTMAX}"),
    "the distance, asked for": program(f"  D[i,j] = {SQUARE}\n}}", out="D[b,h,i,j]").replace(
        ", V[b,h,j,f]", ""
    ),
    "points that are computed": program(
        f"  S[i,j] = -sum[e]((2 * Q[i,e] - K[j,e])**2)\n{SOFTMAX}"
    ),
    "weighted features": program(
        f"  S[i,j] = -sum[e](w[e] * (Q[i,e] - K[j,e])**2)\n{SOFTMAX}", ", w[e]"
    ),
    "a spread around a mean": program(
        f"  S[i,j] = Q[i,e] * K[j,e] - sum[e]((Q[i,e] - m[i])**2)\n{SOFTMAX}", ", m[b,h,i]"
    ).replace("m[b,h,i]", "m[i]"),
}  # fmt: skip


def lowered(text: str) -> Cascade:
    (cascade,) = check(Source("f.attn", text)).cascades
    return cascade


def differences(c: Cascade) -> int:
    """How many differences of two inputs a program has."""
    names = {t.name for t in c.inputs}
    return sum(
        isinstance(n, Binary)
        and n.op == "-"
        and all(isinstance(x, Read) and x.tensor in names for x in (n.left, n.right))
        for d in c.body
        for n in walk(d.expr)
    )


@pytest.mark.parametrize("name", TAKEN)
def test_taken_where_an_error_stays_what_it_is(name: str) -> None:
    c = lowered(TAKEN[name])
    made = rewritten(c)
    assert differences(c) > 0
    assert differences(made) == 0
    generator = torch.Generator().manual_seed(2)
    inputs = {
        t.name: torch.randn(1, 2, 5, 3, generator=generator, dtype=torch.float64) for t in c.inputs
    }
    torch.testing.assert_close(
        interpret(made, inputs, {})["O"], interpret(c, inputs, {})["O"], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", LEFT)
def test_left_where_an_error_would_grow(name: str) -> None:
    c = lowered(LEFT[name])
    assert rewritten(c) == c


def test_points_are_measured_once() -> None:
    c = rewritten(lowered(program(
        f"  S[i,j] = -{SQUARE} - log(1 + {SQUARE})\n{SOFTMAX}"
    )))  # fmt: skip
    assert [d.tensor for d in c.body if len(d.indices) == 3][:2] == ["S.Q", "S.K"]
    assert sum(d.tensor.startswith("S.") for d in c.body) == 2


@pytest.mark.parametrize("offset", [0.0, 10.0, 100.0])
def test_the_digits_that_it_costs(offset: float) -> None:
    """A score is off by a few roundings of the squared lengths, however near the points are to each other."""
    text = program(f"  S[i,j] = -{SQUARE}\n  L[i] = logsumexp[j](S[i,j])\n}}", out="L[b,h,i]")
    text = text.replace(", V[b,h,j,f]", "")
    op = attndsl.compile(text)
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(1, 1, 40, 32, generator=generator) + offset for _ in range(2))
    exact = op.reference(q.double(), k.double())
    lengths = 2 * float(max(q.square().sum(-1).max(), k.square().sum(-1).max()))
    error = float((op(q, k).double() - exact).abs().max())
    assert error <= 8 * 2.0**-24 * lengths
    if offset == 100.0:  # and no better: the bound is not idle
        assert error > 2.0**-24 * lengths / 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_left_of_gradients_that_are_zero(dtype: torch.dtype) -> None:
    """Rows with all weight on one key: gradients of scores are off by roundings of `dO . V`, and no more."""
    op = attndsl.compile(program(f"  S[i,j] = -{SQUARE} where j <= i\n{SOFTMAX}"))
    generator = torch.Generator().manual_seed(5)
    q, k, v, up = (torch.randn(1, 1, 60, 64, generator=generator) for _ in range(4))
    made = [x.to(dtype).requires_grad_() for x in (35 * q, 35 * k, v)]
    got = torch.autograd.grad(op(*made), made, up.to(dtype))
    exact_inputs = [x.detach().double().requires_grad_() for x in made]
    exact = torch.autograd.grad(op.reference(*exact_inputs), exact_inputs, up.to(dtype).double())
    assert float(exact[0].abs().max()) < 1e-8  # |S| is some 10**5
    products = float((up.abs() @ v.detach().abs().mT).max())
    largest = float(torch.stack([35 * q, 35 * k]).abs().max())
    # dQ = 2 * sum[j](dS * K): the one key that counts, a score's gradient off by some roundings of a product of 64; and
    # where outputs have 8 bits, by one of theirs.
    bound = 2 * largest * {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-8}[dtype] * products
    assert float(got[0].abs().max()) <= bound
    assert float(got[1].abs().max()) <= 60 * bound
