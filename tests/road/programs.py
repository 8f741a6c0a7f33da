"""Programs of every section of the language, compared with their own dense evaluation.

The cases of `scores`, `domains`, `normalizers` and `outputs` have references written by hand. Here `op.reference` is
the reference, so that a program is all there is to write: an entry with its inputs beside queries, keys and values, and
the sizes that are not the usual ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import attndsl
from tests.road.case import declared
from tests.road.compare import near

SIZES = {"b": 2, "h": 2, "i": 19, "j": 19, "n": 19, "e": 8, "f": 6}
QKV = "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]"
DOT = "Q[i,e] * K[j,e] / sqrt(|e|)"
SOFTMAX = "O[i,f] = softmax[j](S[i,j]) * V[j,f]"


@dataclass(frozen=True, slots=True)
class Program:
    """`start` of the call, parameters, and sizes by index; `sunk` names inputs that are -inf here and there."""

    text: str
    sizes: Mapping[str, int]
    params: Mapping[str, Any]
    start: Any = None
    sunk: frozenset[str] = field(default_factory=frozenset)


PROGRAMS: dict[str, Program] = {}


def add(
    name: str,
    more: str,
    body: str,
    *,
    out: str = "O[b,h,i,f]",
    batch: str = "b, h",
    qkv: str = QKV,
    defs: str = "",
    start: Any = None,
    params: Mapping[str, Any] | None = None,
    sunk: frozenset[str] = frozenset(),
    **sizes: int,
) -> None:
    assert name not in PROGRAMS, name
    inputs = qkv + (f", {more}" if more else "")
    lines = [f"batch {batch}"] if batch else []
    lines += [line.strip() for line in body.strip().splitlines()]
    inside = "\n".join(f"  {line}" for line in lines)
    text = f"{defs}attention {name}({inputs}) -> {out} {{\n{inside}\n}}\n"
    PROGRAMS[name] = Program(text, sizes, params or {}, start, sunk)


def extent(axis: str, known: Mapping[str, Any]) -> int:
    """Of an axis as it is declared: `h // G` has one more value than its last."""
    at = {n: x - 1 if n in ("b", "h") else x for n, x in known.items()}
    last: int = eval(axis, {}, at)
    return last + 1 if axis.strip()[0] in "bh" else last


def inputs_of(p: Program, dtype: torch.dtype, seed: int = 1) -> dict[str, Tensor]:
    """Random inputs by name: normal floats, ids from 0 to 3, bools mostly true."""
    generator = torch.Generator().manual_seed(seed)
    known: dict[str, Any] = {**SIZES, **p.sizes, **p.params}
    out: dict[str, Tensor] = {}
    for name, dims, kind in declared(p.text[p.text.index("attention ") :]):
        shape = [extent(d, known) for d in dims]
        if kind == "int":
            x = torch.randint(0, 4, shape, generator=generator)
        elif kind == "bool":
            x = torch.rand(shape, generator=generator) < 0.6
        else:
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            if name in p.sunk:
                x = torch.where(torch.rand(shape, generator=generator) < 0.4, -torch.inf, x)
            x = x.to(dtype)
        out[name] = x
    return out


def check(name: str, backend: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> None:
    """AssertionError where outputs or gradients differ from the dense evaluation in float64."""
    p = PROGRAMS[name]
    op = attndsl.compile(p.text, backend=backend)
    inputs = {n: x.to(device) for n, x in inputs_of(p, dtype).items()}
    floats = [n for n, x in inputs.items() if x.is_floating_point() and n not in p.sunk]
    ours = {n: x.clone().requires_grad_(n in floats) for n, x in inputs.items()}
    wide = {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}
    wide = {n: x.clone().requires_grad_(n in floats) for n, x in wide.items()}
    start = torch.tensor(p.start, device=device) if isinstance(p.start, list) else p.start
    how = {**p.params, **({} if start is None else {"start": start})}
    want, got = op.reference(**wide, **how), op(**ours, **how)
    want, got = (x if isinstance(x, tuple) else (x,) for x in (want, got))
    bound = 1e-8 if dtype is torch.float64 else 3e-3
    for o, g, w in zip(op.cascade.outputs, got, want, strict=True):
        near(o.name, g, w, bound)
    smooth = [g.is_floating_point() for g in got]
    got, want = ([x for x, s in zip(y, smooth, strict=True) if s] for y in (got, want))
    generator = torch.Generator().manual_seed(2)
    upstream = [
        torch.randn(w.shape, generator=generator, dtype=torch.float64).to(device)
        * torch.isfinite(w)
        for w in want
    ]
    exact = torch.autograd.grad(want, [wide[n] for n in floats], upstream, allow_unused=True)
    made = torch.autograd.grad(
        got, [ours[n] for n in floats], [u.to(g.dtype) for u, g in zip(upstream, got, strict=True)]
    )
    for n, g, w in zip(floats, made, exact, strict=True):
        near(f"gradient of {n}", g, torch.zeros_like(g) if w is None else w, 10 * bound)


add(
    "alibi_neg",
    "slope[h]",
    f"""S[i,j] = {DOT} - slope * abs(i - j)
    {SOFTMAX}""",
)
add(
    "sqrt_dist",
    "",
    f"""S[i,j] = {DOT} - sqrt(i - j) where j <= i
    {SOFTMAX}""",
)
add(
    "logdist",
    "c[h]",
    f"""S[i,j] = {DOT} - c * log(1 + i - j) where j <= i
    {SOFTMAX}""",
)
add(
    "or_window",
    "",
    f"""S[i,j] = {DOT} where j <= i, (i - j < 4 or j % 5 == 0)
    {SOFTMAX}""",
)
add(
    "neither",
    "",
    f"""S[i,j] = {DOT} where not (j > i or j % 3 == 1)
    {SOFTMAX}""",
)
add(
    "chain",
    "w: int",
    f"""S[i,j] = {DOT} where i - w < j <= i + 2
    {SOFTMAX}""",
    params={"w": 3},
)
add(
    "docs",
    "doc[b,n]: int",
    f"""S[i,j] = {DOT} where doc[i] == doc[j], j <= i
    {SOFTMAX}""",
)
add(
    "len",
    "len0[b]: int",
    f"""S[i,j] = {DOT} where j < len0
    {SOFTMAX}""",
)
add(
    "lens2",
    "lq[b]: int, lk[b]: int",
    f"""S[i,j] = {DOT} where j < lk, i < lq
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    out="O[b,h,i,f], L[b,h,i]",
)
add(
    "boolmask",
    "m[b,i,j]: bool",
    f"""S[i,j] = {DOT} where m[i,j]
    {SOFTMAX}""",
)
add(
    "boolvec",
    "m[b,j]: bool",
    f"""S[i,j] = {DOT} where m[j], j <= i
    {SOFTMAX}""",
)
add(
    "condscore",
    "",
    f"""S[i,j] = {DOT} if j <= i else -abs(i - j) * 0.5
    {SOFTMAX}""",
)
add(
    "condread",
    "T[h,r]",
    f"""S[i,j] = {DOT} + (T[i - j] if 0 <= i - j < |r| else 0.0)
    {SOFTMAX}""",
    r=5,
)
add(
    "softcap_bias",
    "B[h,i,j], cap: float",
    f"""X[i,j] = {DOT}
    S[i,j] = cap * tanh(X[i,j] / cap) + B[i,j] where j <= i
    {SOFTMAX}""",
    params={"cap": 2.0},
)
add(
    "two_values",
    "W[b,h,j,g]",
    f"""S[i,j] = {DOT}
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * V[j,f]
    Y[i,g] = P[i,j] * W[j,g]""",
    out="O[b,h,i,f], Y[b,h,i,g]",
    g=3,
)
add(
    "variance",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    m[i,f] = P[i,j] * V[j,f]
    O[i,f] = P[i,j] * V[j,f]**2 - m[i,f]**2""",
)
add(
    "second_moment",
    "",
    f"""S[i,j] = {DOT}
    P[i,j] = softmax[j](S[i,j])
    m[i,f] = P[i,j] * V[j,f]
    O[i,f] = P[i,j] * (V[j,f] - m[i,f])**2""",
)
add(
    "renorm",
    "g[b,h,j]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j]) * sigmoid(g[j])
    O[i,f] = P[i,j] * V[j,f] / sum[j](P[i,j])""",
)
add(
    "power",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    R[i,j] = P[i,j] ** 2
    O[i,f] = R[i,j] * V[j,f] / sum[j](R[i,j])""",
)
add(
    "temperature",
    "t[b,h,i]",
    f"""S[i,j] = {DOT} * exp(t[i]) where j <= i
    {SOFTMAX}""",
)
add(
    "keytemp",
    "t[b,h,j]",
    f"""S[i,j] = {DOT} * softplus(t[j]) where j <= i
    {SOFTMAX}""",
)
add(
    "l2dist",
    "",
    f"""S[i,j] = -sum[e]((Q[i,e] - K[j,e])**2) where j <= i
    {SOFTMAX}""",
)
add(
    "l1dist",
    "",
    f"""S[i,j] = -sum[e](abs(Q[i,e] - K[j,e])) where j <= i
    {SOFTMAX}""",
)
add(
    "maxdist",
    "",
    f"""S[i,j] = -max[e](abs(Q[i,e] - K[j,e])) where j <= i
    {SOFTMAX}""",
)
add(
    "cos",
    "",
    f"""nq[i] = sqrt(sum[e](Q[i,e]**2))
    nk[j] = sqrt(sum[e](K[j,e]**2))
    S[i,j] = 5.0 * Q[i,e] * K[j,e] / (nq[i] * nk[j]) where j <= i
    {SOFTMAX}""",
)
add(
    "rms",
    "gq[e], gk[e]",
    f"""q[i,e] = Q[i,e] * rsqrt(sum[e](Q[i,e]**2) / |e| + 1e-6) * gq[e]
    k[j,e] = K[j,e] * rsqrt(sum[e](K[j,e]**2) / |e| + 1e-6) * gk[e]
    S[i,j] = q[i,e] * k[j,e] / sqrt(|e|) where j <= i
    {SOFTMAX}""",
)
add(
    "layernorm",
    "",
    f"""mu[i] = sum[e](Q[i,e]) / |e|
    va[i] = sum[e]((Q[i,e] - mu[i])**2) / |e|
    q[i,e] = (Q[i,e] - mu[i]) / sqrt(va[i] + 1e-5)
    S[i,j] = q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    {SOFTMAX}""",
)
add(
    "qproj",
    "",
    f"""q[i,e] = Q[i,d] * W[d,e]
    S[i,j] = q[i,e] * K[j,e] where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,d], K[b,h,j,e], V[b,h,j,f], W[h,d,e]",
    d=7,
)
add(
    "bilinear",
    "",
    f"""S[i,j] = Q[i,d] * W[d,e] * K[j,e] where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,d], K[b,h,j,e], V[b,h,j,f], W[h,d,e]",
    d=7,
)
add(
    "kproj_out",
    "W[h,f,c]",
    f"""S[i,j] = {DOT} where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,c] = A[i,f] * W[f,c]""",
    out="O[b,h,i,c]",
    c=5,
)
add(
    "outnorm",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = A[i,f] * rsqrt(sum[f](A[i,f]**2) / |f| + 1e-5)""",
)
add(
    "outmax",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = A[i,f] / (max[f](abs(A[i,f])) + 0.1)""",
)
add(
    "outsoftmax",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = softmax[f](A[i,f])""",
)
add(
    "qsoftmax",
    "",
    """q[i,e] = softmax[e](Q[i,e])
    k[j,e] = exp(K[j,e])
    A[i,j] = q[i,e] * k[j,e] where j <= i
    O[i,f] = A[i,j] * V[j,f] / sum[j](A[i,j])""",
)
add(
    "features_first",
    "",
    """S[i,j] = Q[e,i] * K[e,j] / sqrt(|e|) where j <= i
    O[f,i] = softmax[j](S[i,j]) * V[f,j]""",
    qkv="Q[b,h,e,i], K[b,h,e,j], V[b,h,f,j]",
    out="O[b,h,f,i]",
)
add(
    "one_tensor",
    "",
    """S[i,j] = X[i,e] * X[j,e] / sqrt(|e|) where j <= i
    O[i,e] = softmax[j](S[i,j]) * X[j,e]""",
    qkv="X[b,h,n,e]",
    out="O[b,h,i,e]",
)
add(
    "one_tensor_2",
    "",
    """S[i,j] = X[i,e] * X[j,e] / sqrt(|e|) where j < i
    O[i,e] = softmax[j](S[i,j]) * X[j,e] + X[i,e]""",
    qkv="X[b,h,i,e]",
    out="O[b,h,i,e]",
)
add(
    "mqa",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[b,j,e], V[b,j,f]",
)
add(
    "gqa",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int",
    h=4,
    G=2,
)
add(
    "gqa_mod",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[b,h%2,j,e], V[b,h%2,j,f]",
    h=4,
)
add(
    "bshd",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    qkv="Q[b,i,h,e], K[b,j,h,e], V[b,j,h,f]",
    out="O[b,i,h,f]",
)
add(
    "nobatch",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    qkv="Q[i,e], K[j,e], V[j,f]",
    out="O[i,f]",
    batch="",
)
add(
    "sbhd",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    qkv="Q[i,b,h,e], K[j,b,h,e], V[j,b,h,f]",
    out="O[i,b,h,f]",
)
add(
    "filter_sum",
    "g[b,h,l]",
    f"""C[j] = sum[l : l <= j](g[l])
    S[i,j] = {DOT} + C[i] - C[j] where j <= i
    {SOFTMAX}""",
    l=19,
)
add(
    "countvalid",
    "m[b,j]: bool",
    f"""n[i] = sum[j : j <= i](1.0 if m[j] else 0.0)
    S[i,j] = {DOT} where j <= i, m[j]
    {SOFTMAX} * log(1 + n[i])""",
)
add(
    "any_before",
    "m[b,j]: bool",
    f"""has[i] = any[j : j <= i](m[j])
    S[i,j] = {DOT} where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = A[i,f] if has[i] else 0.0""",
)
add(
    "prefixlm",
    "plen[b]: int",
    f"""S[i,j] = {DOT} where j <= i or j < plen
    {SOFTMAX}""",
)
add(
    "sigmoid_bias",
    "c[h]",
    f"""S[i,j] = {DOT} + c where j <= i
    O[i,f] = sigmoid(S[i,j]) * V[j,f]""",
)
add(
    "relu_norm",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = relu(S[i,j]) * V[j,f] / (i + 1)""",
)
add(
    "silu",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = silu(S[i,j]) * V[j,f] / sqrt(|j|)""",
)
add(
    "gelu_erf",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = (gelu(S[i,j]) + erf(S[i,j])) * V[j,f]""",
)
add(
    "maxnorm",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = exp(S[i,j])
    O[i,f] = P[i,j] * V[j,f] / max[j](P[i,j])""",
)
add(
    "lseout_only",
    "",
    f"""S[i,j] = {DOT} where j < i
    L[i] = logsumexp[j](S[i,j])
    M[i] = max[j](S[i,j])
    N[i] = min[j](S[i,j])""",
    qkv="Q[b,h,i,e], K[b,h,j,e]",
    out="L[b,h,i], M[b,h,i], N[b,h,i]",
)
add(
    "start_end",
    "slope[h]",
    f"""S[i,j] = {DOT} - slope * (i - j) where j <= i
    {SOFTMAX}""",
    start="end",
    i=5,
    j=19,
)
add(
    "start_n",
    "",
    f"""S[i,j] = {DOT} * log(i + 2) where j <= i
    {SOFTMAX}""",
    start=7,
    i=5,
    j=19,
)
add(
    "start_b",
    "",
    f"""S[i,j] = {DOT} where i - 6 < j <= i
    {SOFTMAX}""",
    start=[3, 11],
    i=5,
    j=19,
)
add(
    "xattn_more_q",
    "",
    f"""S[i,j] = {DOT}
    {SOFTMAX}""",
    i=33,
    j=5,
)
add(
    "t5",
    "bucket[r]: int, table[h,u]",
    f"""S[i,j] = {DOT} + table[bucket[i - j + |j| - 1]] where j <= i
    {SOFTMAX}""",
    r=37,
    u=4,
)
add(
    "rel_q",
    "R[h,r,e]",
    f"""S[i,j] = (Q[i,e] * K[j,e] + Q[i,e] * R[min(i - j, |r| - 1), e]) / sqrt(|e|) where j <= i
    {SOFTMAX}""",
    r=6,
)
add(
    "rel_v",
    "R[h,r,f]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * (V[j,f] + R[min(i - j, |r| - 1), f])""",
    r=6,
)
add(
    "neighbours_2d",
    "w: int",
    f"""S[i,j] = {DOT} where abs(i // w - j // w) <= 1, abs(i % w - j % w) <= 1
    {SOFTMAX}""",
    params={"w": 5},
    i=20,
    j=20,
)
add(
    "blockdiag_alibi",
    "slope[h]",
    f"""S[i,j] = {DOT} - slope * (i - j) where i // 6 == j // 6, j <= i
    {SOFTMAX}""",
)
add(
    "pos",
    "pq[b,i]: int, pk[b,j]: int",
    f"""S[i,j] = {DOT} where pk[j] <= pq[i]
    {SOFTMAX}""",
)
add(
    "posbias",
    "pq[b,i]: int, pk[b,j]: int, slope[h]",
    f"""S[i,j] = {DOT} - slope * abs(pq[i] - pk[j])
    {SOFTMAX}""",
)
add(
    "fposbias",
    "xq[b,i,d], xk[b,j,d]",
    f"""S[i,j] = {DOT} - sqrt(sum[d]((xq[i,d] - xk[j,d])**2) + 0.1)
    {SOFTMAX}""",
    d=3,
)
add(
    "gaussian",
    "mu[b,h,i], s[h]",
    f"""S[i,j] = {DOT} - (j - mu[i])**2 * exp(s)
    {SOFTMAX}""",
)
add(
    "dist_mult",
    "",
    f"""S[i,j] = {DOT} / (1 + i - j) where j <= i
    {SOFTMAX}""",
)
add(
    "dropoutmask",
    "keep[b,h,i,j]",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](S[i,j]) * keep[i,j] * V[j,f]""",
)
add(
    "negative_weights",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = exp(S[i,j]) - 1
    O[i,f] = P[i,j] * V[j,f] / (1 + sum[j](abs(P[i,j])))""",
)
add(
    "diff",
    "Q2[b,h,i,e], K2[b,h,j,e], lam[h]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = Q2[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    O[i,f] = (softmax[j](S[i,j]) - lam * softmax[j](T[i,j])) * V[j,f]""",
)
add(
    "colsoftmax",
    "",
    f"""S[i,j] = {DOT}
    O[i,f] = softmax[i](S[i,j]) * V[j,f]""",
)
add(
    "slot",
    "",
    f"""S[i,j] = {DOT}
    P[i,j] = softmax[i](S[i,j])
    O[i,f] = P[i,j] * V[j,f] / (sum[j](P[i,j]) + 1e-3)""",
)
add(
    "weights_out",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * V[j,f]""",
    out="O[b,h,i,f], P[b,h,i,j]",
)
add(
    "score_out",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    out="O[b,h,i,f], S[b,h,i,j]",
)
add(
    "entropy",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    H[i] = -sum[j](P[i,j] * log(P[i,j]))
    O[i,f] = P[i,j] * V[j,f]""",
    out="O[b,h,i,f], H[b,h,i]",
)
add(
    "argpos",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    E[i] = sum[j](P[i,j] * j)
    O[i,f] = P[i,j] * V[j,f] * exp(-E[i] / |j|)""",
)
add(
    "talking",
    "",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|)
    T[g,i,j] = W[g,h] * S[h,i,j]
    O[g,i,f] = softmax[j](T[g,i,j]) * V[g,j,f]""",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,g,j,f], W[g,h]",
    out="O[b,g,i,f]",
    batch="b",
    g=3,
)
add(
    "heads_explicit",
    "",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    O[h,i,f] = softmax[j](S[h,i,j]) * V[h,j,f]""",
    batch="b",
)
add(
    "outproj_heads",
    "W[h,f,c]",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    A[h,i,f] = softmax[j](S[h,i,j]) * V[h,j,f]
    O[i,c] = A[h,i,f] * W[h,f,c]""",
    out="O[b,i,c]",
    batch="b",
    c=5,
)
add(
    "neginf",
    "B[h,i,j]",
    f"""S[i,j] = {DOT} + B[i,j]
    {SOFTMAX}""",
    sunk=frozenset({"B"}),
)
add(
    "off300",
    "",
    f"""S[i,j] = {DOT} + 300.0 where j <= i
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    out="O[b,h,i,f], L[b,h,i]",
)
add(
    "intdiv",
    "",
    f"""S[i,j] = {DOT} - 0.3 * ((i - j) // 3) - 0.1 * ((j - i) % 4)
    {SOFTMAX}""",
)
add(
    "sincos",
    "om[h]",
    f"""S[i,j] = {DOT} * cos(om * (i - j)) + sin(om * j) where j <= i
    {SOFTMAX}""",
)
add(
    "min_reduce",
    "",
    f"""S[i,j] = {DOT} where j <= i
    m[i] = min[j](S[i,j])
    P[i,j] = S[i,j] - m[i]
    O[i,f] = P[i,j] * V[j,f] / (sum[j](P[i,j]) + 1)""",
)
add(
    "std",
    "",
    f"""S[i,j] = {DOT} where j <= i
    mu[i] = sum[j](S[i,j]) / (i + 1)
    sd[i] = sqrt(sum[j]((S[i,j] - mu[i])**2) / (i + 1) + 1e-3)
    O[i,f] = softmax[j]((S[i,j] - mu[i]) / sd[i]) * V[j,f]""",
)
add(
    "gate_scalar",
    "g[b,h,i,f]",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX} * silu(g[i,f])""",
)
add(
    "value_map",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](S[i,j]) * tanh(V[j,f])""",
)
add(
    "logspace",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = log(sum[j](softmax[j](S[i,j]) * exp(V[j,f])))""",
)
add(
    "batch3",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    qkv="Q[b,c,h,i,e], K[b,c,h,j,e], V[b,c,h,j,f]",
    out="O[b,c,h,i,f]",
    batch="b, c, h",
    c=2,
)
add(
    "bcast_b",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[h,j,e], V[h,j,f]",
)
add(
    "learned_q",
    "",
    f"""S[i,j] = {DOT}
    {SOFTMAX}""",
    qkv="Q[h,i,e], K[b,h,j,e], V[b,h,j,f]",
)
add(
    "defs_within_defs",
    "",
    f"""X[i,j] = {DOT}
    S[i,j] = leaned(X[i,j]) where j <= i
    {SOFTMAX}""",
    defs="def gate(x, y) = x * sigmoid(y)\ndef leaned(s) = gate(s, s) + 0.5 * s\n",
)
add(
    "rotary_of_neighbours",
    "th[d]",
    f"""a[i,d] = Q[i, 2*d] * cos(i * th[d]) - Q[i, 2*d + 1] * sin(i * th[d])
    c[i,d] = Q[i, 2*d] * sin(i * th[d]) + Q[i, 2*d + 1] * cos(i * th[d])
    p[j,d] = K[j, 2*d] * cos(j * th[d]) - K[j, 2*d + 1] * sin(j * th[d])
    r[j,d] = K[j, 2*d] * sin(j * th[d]) + K[j, 2*d + 1] * cos(j * th[d])
    S[i,j] = (a[i,d] * p[j,d] + c[i,d] * r[j,d]) / sqrt(|d|) where j <= i
    {SOFTMAX}""",
    d=4,
)
