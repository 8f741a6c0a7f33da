"""The interpreter against the mathematics written by hand in PyTorch, at random sizes, masks and parameters."""

from __future__ import annotations

import math
from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade
from attndsl.frontend import load_cascades
from attndsl.source import Source

QUICK = settings(max_examples=25, deadline=None)
SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**31)


@cache
def load(text: str) -> Cascade:
    (cascade,) = load_cascades(Source("test.attn", text))
    return cascade


class Draw:
    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=self.generator)

    def below(self, n: int, *shape: int) -> Tensor:
        return torch.randint(0, n, shape, generator=self.generator)


def agree(
    text: str, inputs: dict[str, Tensor], want: Tensor, leaves: dict[str, Tensor], **params: float
) -> None:
    """Equal values, and equal gradients of a random functional."""
    got = next(iter(interpret(load(text), inputs, params).values()))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    up = Draw(0).normal(*want.shape)
    mine = torch.autograd.grad(got, list(leaves.values()), up, allow_unused=True)
    theirs = torch.autograd.grad(want, list(leaves.values()), up, allow_unused=True)
    for name, a, b in zip(leaves, mine, theirs, strict=True):
        a, b = (torch.zeros_like(leaves[name]) if x is None else x for x in (a, b))
        torch.testing.assert_close(
            a, b, rtol=1e-7, atol=1e-8, msg=lambda m, name=name: f"gradient of {name}: {m}"
        )


def leaf(x: Tensor) -> Tensor:
    return x.requires_grad_()


def masked_softmax(s: Tensor, allowed: Tensor) -> Tensor:
    """Weights that are 0 in rows where nothing is allowed."""
    some = allowed.any(-1, keepdim=True)
    s = torch.where(allowed | ~some, s, -math.inf)
    return torch.where(some, s.softmax(-1), 0.0) * allowed


SOFTMAX = """
attention variant(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], slope[h], docs[b,i]: int, G: int,
                  cap: float, w: int, n0: int) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = SCORE    where DOMAIN
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""
PLAIN = "Q[i,e] * K[j,e] / sqrt(|e|)"
SCORES = {
    "plain": PLAIN,
    "alibi": f"{PLAIN} - slope * (i - j)",
    "softcap": f"cap * tanh({PLAIN} / cap)",
    "both": f"cap * tanh({PLAIN} / cap) - slope * abs(i - j)",
}
DOMAINS = {
    "everywhere": "j >= 0",
    "causal": "j <= i",
    "window": "i - w < j <= i",
    "sinks": "j <= i, i - j < w or j < n0",
    "documents": "docs[i] == docs[j]",
    "causal documents": "j <= i, docs[i] == docs[j]",
    "later": "j > i",
}


@QUICK
@given(
    st.sampled_from(sorted(SCORES)), st.sampled_from(sorted(DOMAINS)), SIZES, SIZES, SIZES,
    st.sampled_from([1, 2, 3]), st.integers(1, 2), SEEDS,
)  # fmt: skip
def test_softmax_variants(
    score: str, domain: str, n: int, e: int, f: int, group: int, heads: int, seed: int
) -> None:
    draw = Draw(seed)
    h = group * heads
    leaves = {
        "Q": leaf(draw.normal(2, h, n, e)),
        "K": leaf(draw.normal(2, heads, n, e)),
        "V": leaf(draw.normal(2, heads, n, f)),
        "slope": leaf(draw.normal(h)),
    }
    docs = draw.below(3, 2, n)
    cap, w, n0 = 1.5, 1 + seed % 4, seed % 3
    q, slope = leaves["Q"], leaves["slope"][:, None, None]
    k, v = (leaves[x].repeat_interleave(group, 1) for x in "KV")
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    s = q @ k.mT / math.sqrt(e)
    if score in ("softcap", "both"):
        s = cap * torch.tanh(s / cap)
    if score == "alibi":
        s = s - slope * (i - j)
    if score == "both":
        s = s - slope * (i - j).abs()
    same = docs[:, None, :, None] == docs[:, None, None, :]
    true = torch.ones(2, 1, n, n, dtype=torch.bool)
    allowed = {
        "everywhere": true,
        "causal": true & (j <= i),
        "window": true & (j <= i) & (j > i - w),
        "sinks": true & (j <= i) & ((i - j < w) | (j < n0)),
        "documents": same,
        "causal documents": same & (j <= i),
        "later": true & (j > i),
    }[domain]
    want = masked_softmax(s, allowed.expand_as(s)) @ v
    text = SOFTMAX.replace("SCORE", SCORES[score]).replace("DOMAIN", DOMAINS[domain])
    inputs, params = dict(leaves), {"cap": cap, "w": w, "n0": n0, "G": group}
    if "docs" in DOMAINS[domain]:
        inputs["docs"] = docs
    else:
        text = text.replace(" docs[b,i]: int,", "")
    if "slope" not in SCORES[score]:
        text = text.replace(" slope[h],", "")
        inputs.pop("slope")
        leaves.pop("slope")
    agree(text, inputs, want, leaves, **params)


TABLE = """
attention table(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], T[h,r]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] + T[i - j + |j| - 1]
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


@QUICK
@given(SIZES, SIZES, st.integers(1, 3), SEEDS)
def test_toeplitz_bias(n: int, d: int, h: int, seed: int) -> None:
    draw = Draw(seed)
    leaves = {x: leaf(draw.normal(2, h, n, d)) for x in "QKV"} | {
        "T": leaf(draw.normal(h, 2 * n - 1))
    }
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    s = leaves["Q"] @ leaves["K"].mT + leaves["T"][:, i - j + n - 1]
    agree(TABLE, leaves, s.softmax(-1) @ leaves["V"], leaves)


GLA = """
attention gla(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], loga[b,h,j,e]) -> O[b,h,i,f] {
  batch b, h
  assume loga <= 0
  C[j,e] = sum[l : l <= j](loga[l,e])
  A[i,j] = Q[i,e] * K[j,e] * exp(C[i,e] - C[j,e])    where j <= i
  O[i,f] = A[i,j] * V[j,f]
}
"""


@QUICK
@given(SIZES, SIZES, SIZES, st.floats(0.01, 30.0), SEEDS)
def test_gated_linear_attention_is_its_recurrence(
    n: int, e: int, f: int, strength: float, seed: int
) -> None:
    draw = Draw(seed)
    leaves = {
        "Q": leaf(draw.normal(1, 2, n, e)),
        "K": leaf(draw.normal(1, 2, n, e)),
        "V": leaf(draw.normal(1, 2, n, f)),
        "loga": leaf(-strength * draw.normal(1, 2, n, e).abs()),
    }
    q, k, v, loga = leaves.values()
    state = torch.zeros(1, 2, e, f, dtype=torch.float64)
    rows = []
    for t in range(n):
        state = state * loga[:, :, t, :, None].exp() + k[:, :, t, :, None] * v[:, :, t, None]
        rows.append((q[:, :, t, :, None] * state).sum(-2))
    agree(GLA, leaves, torch.stack(rows, 2), leaves)


DELTA = """
attention delta(Q[b,t,e], K[b,t,e], V[b,t,f], g[b,t], beta[b,t]) -> O[b,t,f] {
  batch b
  H[t,e,f] = exp(g[t]) * (H[t-1,e,f] - beta[t] * K[t,e] * (K[t,c] * H[t-1,c,f])) + beta[t] * K[t,e] * V[t,f]   init 0
  O[t,f]   = Q[t,e] * H[t,e,f]
}
"""


@QUICK
@given(SIZES, SIZES, SIZES, SEEDS)
def test_gated_delta_rule(n: int, e: int, f: int, seed: int) -> None:
    draw = Draw(seed)
    leaves = {x: leaf(draw.normal(2, n, d)) for x, d in zip("QKV", (e, e, f), strict=True)}
    leaves |= {x: leaf(draw.normal(2, n)) for x in ("g", "beta")}
    q, k, v, g, beta = leaves.values()
    h = torch.zeros(2, e, f, dtype=torch.float64)
    rows = []
    for t in range(n):
        gate, b = g[:, t].exp()[:, None, None], beta[:, t, None, None]
        kt = k[:, t, :, None]
        h = gate * (h - b * kt * (kt * h).sum(1, keepdim=True)) + b * kt * v[:, t, None]
        rows.append((q[:, t, :, None] * h).sum(1))
    agree(DELTA, leaves, torch.stack(rows, 1), leaves)


ENTMAX = """
attention entmax(S0[i,j], V[j,f]) -> O[i,f] {
  S[i,j] = S0[i,j] / 2    where j <= i
  O[i,f] = WEIGHTS * V[j,f]
}
"""
BY_HAND = """
attention entmax(S0[i,j], V[j,f]) -> O[i,f] {
  S[i,j] = S0[i,j] / 2    where j <= i
  M[i]   = max[j](S[i,j])
  t[i]   = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x)**2) == 1, iters=12)
  O[i,f] = relu(S[i,j] - t[i])**2 * V[j,f]
}
"""


def entmax15(s: Tensor) -> Tensor:
    """By sorting: Peters, Niculae and Martins (2019), Algorithm 2; `s` is halved already."""
    x = s.sort(-1, descending=True).values
    count = torch.arange(1, s.shape[-1] + 1, dtype=s.dtype)
    mean, square = x.cumsum(-1) / count, x.square().cumsum(-1) / count
    tau = mean - ((1 - count * (square - mean**2)) / count).clamp(min=0).sqrt()
    support = (tau <= x).sum(-1, keepdim=True)
    return (s - tau.gather(-1, support - 1)).clamp(min=0) ** 2


def sparsemax(s: Tensor) -> Tensor:
    """By sorting: Martins and Astudillo (2016), Algorithm 1."""
    x = s.sort(-1, descending=True).values
    count = torch.arange(1, s.shape[-1] + 1, dtype=s.dtype)
    support = (1 + count * x > x.cumsum(-1)).sum(-1, keepdim=True)
    tau = (x.cumsum(-1).gather(-1, support - 1) - 1) / support
    return (s - tau).clamp(min=0)


@QUICK
@given(
    st.sampled_from(["sparsemax", "entmax15", "solve"]),
    st.integers(1, 12),
    st.floats(0.1, 20.0),
    SEEDS,
)
def test_root_finding_normalizers_are_their_sorting_algorithms(
    kind: str, n: int, scale: float, seed: int
) -> None:
    draw = Draw(seed)
    s, v = leaf(scale * draw.normal(n, n)), leaf(draw.normal(n, 3))
    algorithm = sparsemax if kind == "sparsemax" else entmax15
    rows = [
        algorithm(s[i, : i + 1] / 2 if kind != "entmax15" else s[i, : i + 1] / 4) @ v[: i + 1]
        for i in range(n)
    ]
    text = BY_HAND if kind == "solve" else ENTMAX.replace("WEIGHTS", f"{kind}[j](S[i,j])")
    agree(text, {"S0": s, "V": v}, torch.stack(rows), {"S0": s, "V": v})
