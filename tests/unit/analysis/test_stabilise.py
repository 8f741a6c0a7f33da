"""Exponentials written without a maximum: given one where no output can tell, else kept and warned of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.analysis.stabilise import stabilised
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade
from attndsl.cascade.verify import verify
from attndsl.frontend import check, load_cascades
from attndsl.source import Source

HEAD = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,j]) -> {} {{
  batch b
  S[i,j] = Q[i,e] * K[j,e] + u[j]   where j <= i
  {}
}}"""
SOUND = [
    ("O[b,i,f]", "P[i,j] = exp(S[i,j])\n  O[i,f] = P[i,j] / sum[j](P[i,j]) * V[j,f]"),
    ("O[b,i,f]", "P[i,j] = exp2(S[i,j])\n  O[i,f] = P[i,j] / sum[j](P[i,j]) * V[j,f]"),
    (
        "O[b,i,f], L[b,i]",
        "Z[i] = sum[j](exp(S[i,j]))\n  O[i,f] = exp(S[i,j]) / Z[i] * V[j,f]\n  L[i] = log(Z[i])",
    ),
    (
        "O[b,i,f], H[b,i]",
        "Z[i] = sum[j](exp(S[i,j]))\n  O[i,f] = exp(S[i,j]) / Z[i] * V[j,f]\n"
        "  H[i] = log(Z[i]) - sum[j](exp(S[i,j]) * S[i,j]) / Z[i]",
    ),
    (
        "O[b,i,f]",
        "N[i] = sqrt(sum[j](exp(S[i,j])**2))\n  O[i,f] = exp(S[i,j]) / N[i] * V[j,f]",
    ),
    (
        "O[b,i,f]",
        "T[i,j] = Q[i,e] * abs(K[j,e])\n  A[i,j] = exp(S[i,j]) / sum[j](exp(S[i,j]))\n"
        "  B[i,j] = exp(T[i,j]) / sum[j](exp(T[i,j]))\n  O[i,f] = (A[i,j] - 0.5 * B[i,j]) * V[j,f]",
    ),
    (
        "O[b,i,f]",
        "O[i,f] = sum[j : j != 3](exp(S[i,j]) * V[j,f]) / sum[j : j != 3](exp(S[i,j]))",
    ),
    ("C[b,j]", "P[i,j] = exp(S[i,j])\n  C[j] = sum[i](P[i,j] / sum[j](P[i,j]))"),
]


def cascade(outputs: str, lines: str) -> Cascade:
    (c,) = load_cascades(Source("t.attn", HEAD.format(outputs, lines)))
    return c


def inputs(offset: float, dtype: torch.dtype) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 12, 4, generator=g, dtype=torch.float64) for _ in range(3))
    u = torch.full((2, 12), offset, dtype=torch.float64)
    u[:, :5] *= -1
    return [x.to(dtype) for x in (q, k, v, u)]


@pytest.mark.parametrize(("outputs", "lines"), SOUND)
def test_the_program_means_the_same(outputs: str, lines: str) -> None:
    c = cascade(outputs, lines)
    made = stabilised(c)
    assert made.inserted
    assert not made.left
    verify(made.cascade)
    x = dict(zip("QKVu", inputs(2.0, torch.float64), strict=True))
    want, got = interpret(c, x), interpret(made.cascade, x)
    for o in c.outputs:
        torch.testing.assert_close(got[o.name], want[o.name])
    assert stabilised(made.cascade).cascade == made.cascade  # once is enough


@pytest.mark.parametrize("offset", [-300.0, 300.0])
@pytest.mark.parametrize(("outputs", "lines"), SOUND)
def test_large_scores_in_single_precision(outputs: str, lines: str, offset: float) -> None:
    op = attndsl.compile(HEAD.format(outputs, lines), backend="eager")
    single, wide = inputs(offset, torch.float32), inputs(offset, torch.float64)
    for x in (*single, *wide):
        x.requires_grad_()
    got, want = op(*single), op.reference(*wide)
    got, want = ((y,) if isinstance(y, Tensor) else y for y in (got, want))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3)
    weights = [torch.randn(y.shape, generator=torch.Generator().manual_seed(1)) for y in got]
    for y in (got, want):
        sum((a * w.to(a.dtype)).sum() for a, w in zip(y, weights, strict=True)).backward()
    for a, b in zip(single, wide, strict=True):
        if b.grad is None:
            continue
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("outputs", "lines", "told"),
    [
        (
            "O[b,i,f]",
            "P[i,j] = exp(S[i,j])\n  O[i,f] = P[i,j] / (1 + sum[j](P[i,j])) * V[j,f]",
            "O",
        ),
        (
            "O[b,i,f]",
            "P[i,j] = exp(S[i,j])\n  O[i,f] = P[i,j] / (sum[j](P[i,j]) + 1e-6) * V[j,f]",
            "O",
        ),
        ("O[b,i,f]", "O[i,f] = (exp(S[i,j]) - 1) * V[j,f]", "O"),
        (
            "O[b,i,f], A[b,i]",
            "P[i,j] = exp(S[i,j])\n  O[i,f] = P[i,j] / sum[j](P[i,j]) * V[j,f]\n  A[i] = sum[j](tanh(P[i,j]))",
            "A",
        ),
    ],
)
def test_where_an_output_can_tell(outputs: str, lines: str, told: str) -> None:
    c = cascade(outputs, lines)
    made = stabilised(c)
    assert made.cascade == c
    assert [x.output for x in made.left] == [told]
    result = check(Source("t.attn", HEAD.format(outputs, lines)))
    assert result.ok
    assert [d.code for d in result.diagnostics] == ["A0301"]


@pytest.mark.parametrize(
    "lines",
    [
        "M[i] = max[j](S[i,j])\n  O[i,f] = exp(S[i,j] - M[i]) * V[j,f]",
        "O[i,f] = exp(30 * tanh(S[i,j])) * V[j,f]",
        "O[i,f] = exp(logsigmoid(S[i,j])) * V[j,f]",
        "D[i,j] = sum[e]((Q[i,e] - K[j,e])**2)\n  O[i,f] = exp(-D[i,j]) * V[j,f] * tanh(S[i,j])",
        "O[i,f] = S[i,j] * exp(u[j]) * V[j,f]",
    ],
)
def test_what_needs_none(lines: str) -> None:
    c = cascade("O[b,i,f]", lines)
    made = stabilised(c)
    assert made.cascade == c
    assert not made.left
