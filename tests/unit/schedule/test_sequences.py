"""Reductions over several sequences: one is streamed, the others are loops within their windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl.cascade.autodiff import differentiate
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Call, Const, Extent
from attndsl.schedule import plan_backward, plan_forward
from attndsl.schedule.tile import Role
from tests.unit.schedule.harness import draw, kernels, load, run

TEXT = (
    "attention t(Q[b,i,e], K[b,j,e], L[b,k,e], V[b,j,f], U[b,k,f], w: int, n: int) -> {outputs} {{\n  batch b\n"
    "  S[i,j,k] = {score}{domain}\n  {body}\n}}"
)
SCORES = st.sampled_from(
    [
        "Q[i,e] * K[j,e] * L[k,e]",
        "Q[i,e] * K[j,e] * L[k,e] / sqrt(|e|) - 0.1 * (i - k)",
        "Q[i,e] * K[j,e] + Q[i,e] * L[k,e]",
        "abs(Q[i,e] * K[j,e] * L[k,e])",
    ]
)
DOMAINS = st.sampled_from(
    [
        "",
        "i - w < j <= i, i - n < k <= i",
        "j <= i, k <= i",
        "k <= j <= i",
        "j < k",
        "i - w < k, k <= i",
        "i // n == k // n, j <= i",
        "j <= i or k <= i",
        "k <= i, j != i",
    ]
)
RESULTS = st.sampled_from(
    [
        ("O[b,i,f]", "O[i,f] = softmax[j,k](S[i,j,k]) * V[j,f] * U[k,f]"),
        ("O[b,i,f]", "O[i,f] = softmax[j,k](S[i,j,k]) * (V[j,f] + U[k,f])"),
        (
            "O[b,i,f], M[b,i]",
            "M[i] = max[j,k](S[i,j,k])\n  O[i,f] = sigmoid(S[i,j,k]) * V[j,f] * U[k,f]",
        ),
        ("O[b,i]", "O[i] = logsumexp[j,k](S[i,j,k])"),
        ("O[b,j,f]", "O[j,f] = sum[i,k](sigmoid(S[i,j,k]) * U[k,f] * Q[i,f])"),
        ("O[b,k]", "O[k] = max[j,i](S[i,j,k])"),
    ]
)


def check(text: str, n: int, w: int, m: int, seed: int) -> None:
    """Forward and backward kernels in float64 against the interpreter, with tiles smaller than the sequences."""
    cascade = load(text)
    extents = {"b": 2, "i": n, "j": n, "k": n, "e": 4, "f": 4}
    params = {"w": w, "n": m}
    inputs = draw(cascade, extents, seed)
    tiles = {"i": 4, "j": 4, "k": 4}
    g = differentiate(cascade)
    made = run(plan_forward(g.forward, g.residuals), g.forward, inputs, params, tiles=tiles)
    leaves = {n: x.clone().requires_grad_() for n, x in inputs.items()}
    exact = interpret(cascade, leaves, params)
    for name, want in exact.items():
        torch.testing.assert_close(made[name], want.detach(), rtol=1e-9, atol=1e-9)
    given = {name: torch.randn_like(x) for name, x in exact.items()}
    finite = {name: torch.where(torch.isfinite(x), x, 0.0) for name, x in exact.items()}
    total = sum((given[name] * torch.isfinite(exact[name]) * x).sum() for name, x in finite.items())
    assert isinstance(total, torch.Tensor)
    wanted = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    given = {name: x * torch.isfinite(exact[name]) for name, x in given.items()}
    backward = plan_backward(g.forward, g.backward, g.gradients)
    named = {g.cotangents[o]: x for o, x in given.items()}
    have = {**inputs, **made, **named}
    back = run(
        backward,
        g.backward,
        {x.name: have[x.name] for x in g.backward.inputs},
        {p.name: params[p.name] for p in g.backward.params if p.name in params},
        tiles=tiles,
    )
    for name, want in zip(leaves, wanted, strict=True):
        if name in g.gradients and want is not None:
            torch.testing.assert_close(back[g.gradients[name]], want, rtol=1e-7, atol=1e-8)


@settings(deadline=None, max_examples=20)
@given(
    SCORES,
    DOMAINS,
    RESULTS,
    st.integers(1, 11),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 9),
)
def test_random_programs(
    score: str, domain: str, result: tuple[str, str], n: int, w: int, m: int, seed: int
) -> None:
    outputs, body = result
    where = f"   where {domain}" if domain else ""
    check(TEXT.format(outputs=outputs, score=score, domain=where, body=body), n, w, m, seed)


def test_windows_bound_the_loops() -> None:
    """A loop walks what the tile's window holds, not the whole sequence; in the backward pass too."""
    text = TEXT.format(
        outputs="O[b,i,f]",
        score="Q[i,e] * K[j,e] * L[k,e]",
        domain="   where i - w < j <= i, i - n < k <= i",
        body="O[i,f] = softmax[j,k](S[i,j,k]) * V[j,f] * U[k,f]",
    )
    g = differentiate(load(text))
    plans = plan_forward(g.forward, g.residuals), plan_backward(g.forward, g.backward, g.gradients)
    seen = 0
    for kernel in (k for plan in plans for k in kernels(plan) if k.sweep is not None):
        (loop,) = kernel.loops
        made = {
            s.name: s.expr for s in kernel.prologue if hasattr(s, "name") and hasattr(s, "expr")
        }
        assert isinstance(made[loop.lo], Call)
        assert isinstance(made[loop.hi], Call)
        assert made[loop.lo] != Const(0)
        assert made[loop.hi] != Extent(kernel.axis(loop.axis).rank)
        seen += 1
    assert seen == 4


@pytest.mark.parametrize("order", ["j,l", "l,j"])
def test_one_sequence_twice(order: str) -> None:
    """Pairs of keys of one sequence: the stream and the loop walk the same rank."""
    text = (
        "attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {\n  batch b\n  S[i,j] = Q[i,e] * K[j,e]\n"
        f"  O[i,f] = sum[{order} : l < j](sigmoid(S[i,j] - S[i,l]) * V[j,f])\n}}"
    )
    cascade = load(text)
    inputs = draw(cascade, {"b": 2, "i": 9, "j": 11, "e": 4, "f": 3})
    made = run(plan_forward(cascade), cascade, inputs, tiles={"i": 4, "j": 4})
    torch.testing.assert_close(made["O"], interpret(cascade, inputs)["O"])
    kernel = kernels(plan_forward(cascade))[-1]
    assert {a.rank for a in (*kernel.of(Role.STREAM), *kernel.of(Role.LOOP))} == {"j"}
