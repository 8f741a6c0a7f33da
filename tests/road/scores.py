"""Variants of the score."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.road.case import DOT, QKV, SOFTMAX, O, add, scaled, softmax, weigh

X = SimpleNamespace
CAUSAL = "where j <= i"


def causal(x: X) -> Tensor:
    return x.j <= x.i


def simple(name: str, more: str, score: str, fn, keep=None, where: str = "", **kw) -> None:  # type: ignore[no-untyped-def]
    """Softmax of one score over `QKV` and more inputs."""
    inputs = QKV + (f", {more}" if more else "")
    add(
        name,
        inputs,
        O,
        f"S[i,j] = {score}   {where}\n{SOFTMAX}",
        lambda x: weigh(softmax(fn(x), keep(x) if keep else None), x.V),
        **kw,
    )


def gather(q: Tensor, r: Tensor, at: Tensor) -> Tensor:
    """q[b,h,i,e] * r[h,at[i,j],e] summed over e."""
    return torch.einsum("bhie,hije->bhij", q, r[:, at])


simple(
    "two_dots",
    "P[b,h,i,d], R[b,h,j,d]",
    "Q[i,e]*K[j,e]/sqrt(|e|) + P[i,d]*R[j,d]/sqrt(|d|)",
    lambda x: scaled(x) + torch.einsum("bhid,bhjd->bhij", x.P, x.R) / math.sqrt(5),
    causal,
    CAUSAL,
    sizes={"d": 5},
)
simple(
    "dots_multiplied",
    "P[b,h,i,d], R[b,h,j,d]",
    "(Q[i,e]*K[j,e]) * (P[i,d]*R[j,d]) / |e|",
    lambda x: (
        torch.einsum("bhie,bhje->bhij", x.Q, x.K)
        * torch.einsum("bhid,bhjd->bhij", x.P, x.R)
        / x.n_e
    ),
    sizes={"d": 3},
)
simple(
    "larger_of_two_dots",
    "P[b,h,i,e], R[b,h,j,e]",
    "max(sum[e](Q[i,e]*K[j,e]), sum[e](P[i,e]*R[j,e]))",
    lambda x: torch.maximum(
        torch.einsum("bhie,bhje->bhij", x.Q, x.K), torch.einsum("bhie,bhje->bhij", x.P, x.R)
    ),
    causal,
    CAUSAL,
)
simple(
    "relative_rows",
    "R[h,r,e]",
    "(Q[i,e]*K[j,e] + Q[i,e]*R[i-j+|j|-1,e])/sqrt(|e|)",
    lambda x: scaled(x) + gather(x.Q, x.R, x.i - x.j + x.n_j - 1) / math.sqrt(x.n_e),
    causal,
    CAUSAL,
    sizes={"r": 37},
)
simple(
    "relative_rows_of_keys",
    "R[h,r,e], T[h,r,e]",
    "(Q[i,e]*K[j,e] + Q[i,e]*R[i-j+|j|-1,e] + K[j,e]*T[i-j+|j|-1,e])/sqrt(|e|)",
    lambda x: (
        scaled(x)
        + (
            gather(x.Q, x.R, x.i - x.j + x.n_j - 1)
            + torch.einsum("bhje,hije->bhij", x.K, x.T[:, x.i - x.j + x.n_j - 1])
        )
        / math.sqrt(x.n_e)
    ),
    sizes={"r": 37},
)
simple(
    "clipped_relative_rows",
    "R[h,r,e]",
    "(Q[i,e]*K[j,e] + Q[i,e]*R[max(min(j-i, 4), -4) + 4, e])/sqrt(|e|)",
    lambda x: scaled(x) + gather(x.Q, x.R, (x.j - x.i).clamp(-4, 4) + 4) / math.sqrt(x.n_e),
    sizes={"r": 9},
)
add(
    "relative_values",
    QKV + ", R[h,r,f]",
    O,
    f"S[i,j] = {DOT} {CAUSAL}\nA[i,j] = softmax[j](S[i,j])\nO[i,f] = A[i,j] * V[j,f] + A[i,j] * R[min(i-j, 5), f]",
    lambda x: (
        lambda p: (
            weigh(p, x.V) + torch.einsum("bhij,hijf->bhif", p, x.R[:, (x.i - x.j).clamp(0, 5)])
        )
    )(softmax(scaled(x), causal(x))),
    sizes={"r": 6},
)
simple(
    "taxicab_distance",
    "",
    "-sum[e](abs(Q[i,e] - K[j,e]))",
    lambda x: -(x.Q[:, :, :, None] - x.K[:, :, None]).abs().sum(-1),
    causal,
    CAUSAL,
)
simple(
    "squared_distance_2",
    "",
    "-sum[e]((Q[i,e] - K[j,e])**2) / 4",
    lambda x: -(x.Q[:, :, :, None] - x.K[:, :, None]).square().sum(-1) / 4,
)
simple(
    "euclidean",
    "",
    "-sqrt(sum[e]((Q[i,e] - K[j,e])**2) + 0.1)",
    lambda x: -((x.Q[:, :, :, None] - x.K[:, :, None]).square().sum(-1) + 0.1).sqrt(),
)
add(
    "cosine",
    QKV + ", tau[h]",
    O,
    f"""q[i,e] = Q[i,e] * rsqrt(sum[e](Q[i,e]**2) + 0.01)
    k[j,e] = K[j,e] * rsqrt(sum[e](K[j,e]**2) + 0.01)
    S[i,j] = q[i,e] * k[j,e] * exp(tau)
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            torch.einsum(
                "bhie,bhje->bhij",
                x.Q * (x.Q.square().sum(-1, True) + 0.01).rsqrt(),
                x.K * (x.K.square().sum(-1, True) + 0.01).rsqrt(),
            )
            * x.tau.exp()[:, None, None]
        ),
        x.V,
    ),
)
add(
    "rms_norms",
    QKV + ", gq[e], gk[e]",
    O,
    f"""q[i,e] = gq[e] * Q[i,e] / sqrt(sum[e](Q[i,e]**2)/|e| + 1e-3)
    k[j,e] = gk[e] * K[j,e] / sqrt(sum[e](K[j,e]**2)/|e| + 1e-3)
    S[i,j] = q[i,e] * k[j,e] / sqrt(|e|)   where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            torch.einsum(
                "bhie,bhje->bhij",
                x.gq * x.Q / (x.Q.square().mean(-1, True) + 1e-3).sqrt(),
                x.gk * x.K / (x.K.square().mean(-1, True) + 1e-3).sqrt(),
            )
            / math.sqrt(x.n_e),
            causal(x),
        ),
        x.V,
    ),
)
add(
    "layer_norm_keys",
    QKV,
    O,
    f"""m[j] = sum[e](K[j,e]) / |e|
    v[j] = sum[e]((K[j,e] - m[j])**2) / |e|
    k[j,e] = (K[j,e] - m[j]) * rsqrt(v[j] + 1e-3)
    S[i,j] = Q[i,e] * k[j,e]
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(torch.einsum("bhie,bhje->bhij", x.Q, F.layer_norm(x.K, (x.n_e,), eps=1e-3))), x.V
    ),
)
add(
    "additive_2",
    "Q[b,h,i,a], K[b,h,j,a], V[b,h,j,f], w[h,a]",
    O,
    f"S[i,j] = w[a] * tanh(Q[i,a] + K[j,a])\n{SOFTMAX}",
    lambda x: weigh(
        softmax((x.w[:, None, None] * torch.tanh(x.Q[:, :, :, None] + x.K[:, :, None])).sum(-1)),
        x.V,
    ),
    sizes={"a": 7},
)
add(
    "graph_attention",
    "u[b,h,i], w[b,h,j], V[b,h,j,f], adj[b,i,j]: bool",
    O,
    """X[i,j] = u[i] + w[j]   where adj[i,j]
    S[i,j] = relu(X[i,j]) - 0.2 * relu(-X[i,j])
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(F.leaky_relu(x.u[..., None] + x.w[..., None, :], 0.2), x.adj[:, None]), x.V
    ),
)
simple(
    "factors_of_rows_keys_heads",
    "a[b,h,i], c[b,h,j], t[h]",
    "Q[i,e]*K[j,e] * sigmoid(a[i]) * c[j] / (1 + t**2)",
    lambda x: (
        torch.einsum("bhie,bhje->bhij", x.Q, x.K)
        * x.a.sigmoid()[..., None]
        * x.c[..., None, :]
        / (1 + x.t**2)[:, None, None]
    ),
    causal,
    CAUSAL,
)
simple(
    "gated_score",
    "u[b,h,i], w[b,h,j]",
    "sigmoid(u[i] * w[j]) * (Q[i,e] * K[j,e])",
    lambda x: (
        torch.sigmoid(x.u[..., None] * x.w[..., None, :])
        * torch.einsum("bhie,bhje->bhij", x.Q, x.K)
    ),
)
simple("bias_per_head", "B[h,i,j]", DOT + " + B[i,j]", lambda x: scaled(x) + x.B, causal, CAUSAL)
simple("bias_shared", "B[i,j]", DOT + " + B[i,j]", lambda x: scaled(x) + x.B)
simple("bias_of_keys", "B[b,j]", DOT + " + B[j]", lambda x: scaled(x) + x.B[:, None, None])
simple(
    "bias_of_rows", "B[h,i]", DOT + " + B[i]", lambda x: scaled(x) + x.B[:, :, None], causal, CAUSAL
)
simple(
    "bias_and_factor",
    "B[b,i,j], C[h,j]",
    DOT + " * C[j] + B[i,j]",
    lambda x: scaled(x) * x.C[:, None] + x.B[:, None],
    causal,
    CAUSAL,
)


def holes(x: X, g: torch.Generator) -> Tensor:
    out = torch.randn(x.i, x.j, generator=g, dtype=torch.float64)
    out[torch.rand(x.i, x.j, generator=g) < 0.4] = -torch.inf
    out[3] = -torch.inf  # a row without a key
    return out


simple(
    "bias_of_minus_infinity",
    "B[i,j]",
    DOT + " + B[i,j]",
    lambda x: scaled(x) + x.B,
    make={"B": holes},
    still=frozenset("B"),
)
simple(
    "bias_of_minus_infinity_causal",
    "B[i,j]",
    DOT + " + B[i,j]",
    lambda x: scaled(x) + x.B,
    causal,
    CAUSAL,
    make={"B": holes},
    still=frozenset("B"),
)
simple(
    "toeplitz",
    "T[h,r]",
    DOT + " + T[i-j+|j|-1]",
    lambda x: scaled(x) + x.T[:, x.i - x.j + x.n_j - 1],
    sizes={"r": 37},
)
simple(
    "toeplitz_causal",
    "T[h,r]",
    DOT + " + T[i-j]",
    lambda x: scaled(x) + x.T[:, (x.i - x.j).clamp(min=0)],
    causal,
    CAUSAL,
    sizes={"r": 19},
)
simple(
    "swin",
    "T[h,y,x], w: int",
    DOT + " + T[i//w - j//w + |y|//2, i%w - j%w + w - 1]",
    lambda x: scaled(x) + x.T[:, x.i // 4 - x.j // 4 + 4, x.i % 4 - x.j % 4 + 3],
    sizes={"y": 9, "x": 7},
    params={"w": 4},
)
simple(
    "int_buckets",
    "T[h,r], at[i,j]: int",
    DOT + " + T[at[i,j]]",
    lambda x: scaled(x) + x.T[:, x.at],
    sizes={"r": 4},
)
simple(
    "buckets_by_distance",
    "T[h,r], at[n]: int",
    DOT + " + T[at[abs(i-j)]]",
    lambda x: scaled(x) + x.T[:, x.at[(x.i - x.j).abs()]],
    sizes={"r": 4},
)
simple(
    "clipped_table",
    "T[h,r]",
    DOT + " + T[min(i-j, 7)]",
    lambda x: scaled(x) + x.T[:, (x.i - x.j).clamp(0, 7)],
    causal,
    CAUSAL,
    sizes={"r": 8},
)
simple(
    "table_by_types",
    "T[h,x,y], kind[b,n]: int",
    DOT + " + T[kind[i], kind[j]]",
    lambda x: scaled(x) + x.T[:, x.kind[:, :, None], x.kind[:, None, :]].transpose(0, 1),
    sizes={"x": 4, "y": 4},
)
simple(
    "low_rank",
    "U[h,i,r], W[h,j,r]",
    DOT + " + U[i,r]*W[j,r]",
    lambda x: scaled(x) + torch.einsum("hir,hjr->hij", x.U, x.W),
    causal,
    CAUSAL,
    sizes={"r": 3},
)
simple(
    "distance_slope",
    "s[h]",
    DOT + " - exp(s) * abs(i-j)",
    lambda x: scaled(x) - x.s.exp()[:, None, None] * (x.i - x.j).abs(),
)
simple(
    "kerple",
    "r1[h], r2[h]",
    DOT + " - softplus(r1) * log(1 + softplus(r2) * abs(i-j))",
    lambda x: (
        scaled(x)
        - F.softplus(x.r1)[:, None, None]
        * torch.log(1 + F.softplus(x.r2)[:, None, None] * (x.i - x.j).abs())
    ),
    causal,
    CAUSAL,
)
simple(
    "power_of_distance",
    "s[h], p: float",
    DOT + " - s * (i - j + 1)**p",
    lambda x: scaled(x) - x.s[:, None, None] * (x.i - x.j + 1).clamp(min=0).double() ** 0.5,
    causal,
    CAUSAL,
    params={"p": 0.5},
)
simple(
    "sandwich",
    "s[h]",
    DOT + " + s * cos((i - j) / 3)",
    lambda x: scaled(x) + x.s[:, None, None] * torch.cos((x.i - x.j).double() / 3),
)
add(
    "forgetting",
    QKV + ", g[b,h,n]",
    O,
    f"C[j] = sum[l : l <= j](logsigmoid(g[l]))\nS[i,j] = {DOT} + C[i] - C[j]   where j <= i\n{SOFTMAX}",
    lambda x: (
        lambda c: weigh(softmax(scaled(x) + c[..., :, None] - c[..., None, :], causal(x)), x.V)
    )(F.logsigmoid(x.g).cumsum(-1)),
)
simple(
    "softcap_and_slope",
    "s[h], cap: float = 5.0",
    f"cap * tanh({DOT} / cap) - s * (i-j)",
    lambda x: 5 * torch.tanh(scaled(x) / 5) - x.s[:, None, None] * (x.i - x.j),
    causal,
    CAUSAL,
)
simple(
    "log_length",
    "",
    DOT + " * log(i + 2)",
    lambda x: scaled(x) * torch.log(x.i.double() + 2),
    causal,
    CAUSAL,
)
simple(
    "scale_by_name",
    "scale: float",
    "scale * (Q[i,e] * K[j,e])",
    lambda x: 0.3 * torch.einsum("bhie,bhje->bhij", x.Q, x.K),
    causal,
    CAUSAL,
    params={"scale": 0.3},
)
simple(
    "bilinear",
    "W[h,e,d], R[b,h,j,d]",
    "Q[i,e] * W[e,d] * R[j,d] + Q[i,e] * K[j,e]",
    lambda x: (
        torch.einsum("bhie,hed,bhjd->bhij", x.Q, x.W, x.R)
        + torch.einsum("bhie,bhje->bhij", x.Q, x.K)
    ),
    sizes={"d": 5},
)
add(
    "rotary",
    QKV + ", c[n,e], s[n,e]",
    O,
    f"""q[i,e] = Q[i,e] * c[i,e] + Q[i, (e + |e|//2) % |e|] * s[i,e]
    k[j,e] = K[j,e] * c[j,e] + K[j, (e + |e|//2) % |e|] * s[j,e]
    S[i,j] = q[i,e] * k[j,e] / sqrt(|e|)   where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            torch.einsum(
                "bhie,bhje->bhij",
                x.Q * x.c + x.Q.roll(x.n_e // 2, -1) * x.s,
                x.K * x.c + x.K.roll(x.n_e // 2, -1) * x.s,
            )
            / math.sqrt(x.n_e),
            causal(x),
        ),
        x.V,
    ),
)
add(
    "rotary_computed",
    QKV + ", w[e]",
    O,
    f"""q[i,e] = Q[i,e] * cos(i * w[e]) + (-Q[i, e + |e|//2] if e < |e|//2 else Q[i, e - |e|//2]) * sin(i * w[e])
    k[j,e] = K[j,e] * cos(j * w[e]) + (-K[j, e + |e|//2] if e < |e|//2 else K[j, e - |e|//2]) * sin(j * w[e])
    S[i,j] = q[i,e] * k[j,e] / sqrt(|e|)   where j <= i
    {SOFTMAX}""",
    lambda x: (
        lambda rot: weigh(
            softmax(
                torch.einsum("bhie,bhje->bhij", rot(x.Q), rot(x.K)) / math.sqrt(x.n_e), causal(x)
            ),
            x.V,
        )
    )(
        lambda y: (
            y * torch.cos(x.i * x.w)
            + torch.cat([-y[..., x.n_e // 2 :], y[..., : x.n_e // 2]], -1) * torch.sin(x.i * x.w)
        )
    ),
)
add(
    "from_one_input",
    "X[b,n,c], Wq[h,c,e], Wk[h,c,e], Wv[h,c,f]",
    "O[b,h,i,f]",
    f"""Q[i,e] = X[i,c] * Wq[c,e]
    K[j,e] = X[j,c] * Wk[c,e]
    V[j,f] = X[j,c] * Wv[c,f]
    S[i,j] = {DOT}   where j <= i
    {SOFTMAX}""",
    lambda x: (
        lambda q, k, v: weigh(
            softmax(torch.einsum("bhie,bhje->bhij", q, k) / math.sqrt(x.n_e), causal(x)), v
        )
    )(*(torch.einsum("bnc,hcd->bhnd", x.X, w) for w in (x.Wq, x.Wk, x.Wv))),
    sizes={"c": 10},
)
add(
    "latent",
    "Q[b,h,i,e], C[b,j,r], U[h,e,r], W[h,f,r]",
    O,
    """q[i,r] = Q[i,e] * U[e,r]
    S[i,j] = q[i,r] * C[j,r] / sqrt(|e|)   where j <= i
    c[i,r] = softmax[j](S[i,j]) * C[j,r]
    O[i,f] = c[i,r] * W[f,r]""",
    lambda x: torch.einsum(
        "bhir,hfr->bhif",
        torch.einsum(
            "bhij,bjr->bhir",
            softmax(
                torch.einsum("bhie,her,bjr->bhij", x.Q, x.U, x.C) / math.sqrt(x.n_e), causal(x)
            ),
            x.C,
        ),
        x.W,
    ),
    sizes={"r": 5},
)
simple(
    "chosen_score",
    "P[b,h,i,e], doc[b,n]: int",
    "Q[i,e]*K[j,e] if doc[i] == doc[j] else P[i,e]*K[j,e]",
    lambda x: torch.where(
        (x.doc[:, :, None] == x.doc[:, None])[:, None],
        torch.einsum("bhie,bhje->bhij", x.Q, x.K),
        torch.einsum("bhie,bhje->bhij", x.P, x.K),
    ),
    causal,
    CAUSAL,
)
simple(
    "self_is_different",
    "t[h]",
    f"{DOT} if i != j else t",
    lambda x: torch.where(x.i == x.j, x.t[:, None, None], scaled(x)),
    causal,
    CAUSAL,
)
simple("offset_of_300", "", DOT + " + 300", lambda x: scaled(x) + 300, causal, CAUSAL)
simple("offset_of_minus_300", "", DOT + " - 300", lambda x: scaled(x) - 300, causal, CAUSAL)
simple("huge", "", DOT + " * 10000", lambda x: scaled(x) * 10000, causal, CAUSAL)
simple(
    "with_a_def",
    "s[h]",
    DOT + " - s * (i-j)",
    lambda x: scaled(x) - x.s[:, None, None] * (x.i - x.j),
    causal,
    CAUSAL,
)
simple(
    "multiplicities",
    "m[b,j]: int",
    DOT + " + log(m[j] + 1)",
    lambda x: scaled(x) + torch.log(x.m.double() + 1)[:, None, None],
)
add(
    "conv_keys",
    QKV + ", w0[h], w1[h]",
    O,
    f"""k[j,e] = w0 * K[j,e] + w1 * (K[j-1,e] if j > 0 else 0)
    S[i,j] = Q[i,e] * k[j,e] / sqrt(|e|)   where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            torch.einsum(
                "bhie,bhje->bhij",
                x.Q,
                x.w0[:, None, None] * x.K
                + x.w1[:, None, None] * F.pad(x.K, (0, 0, 1, 0))[:, :, :-1],
            )
            / math.sqrt(x.n_e),
            causal(x),
        ),
        x.V,
    ),
)
simple(
    "score_of_neighbours",
    "",
    "Q[i,e]*K[j,e] + (Q[i,e]*K[j-1,e] if j > 0 else 0)",
    lambda x: torch.einsum("bhie,bhje->bhij", x.Q, x.K + F.pad(x.K, (0, 0, 1, 0))[:, :, :-1]),
    causal,
    CAUSAL,
)
simple(
    "slope_and_bias",
    "s[h], B[h,i,j]",
    DOT + " + B[i,j] - s * (i-j)",
    lambda x: scaled(x) + x.B - x.s[:, None, None] * (x.i - x.j),
    causal,
    CAUSAL,
)
simple(
    "table_of_few",
    "T[h,r]",
    DOT + " + T[i-j]",
    lambda x: scaled(x) + x.T[:, (x.i - x.j).clamp(min=0)],
    lambda x: x.j < x.i - 2,
    "where j < i - 2",
    sizes={"r": 19},
)
simple(
    "table_of_none",
    "T[h,r]",
    DOT + " + T[min(i, 3)]",
    lambda x: scaled(x) + x.T[:, x.i.clamp(max=3)],
    lambda x: (x.j < 0) & (x.i < 0),
    "where i - j > 40",
    sizes={"r": 4},
)
add(
    "weights_of_slopes",
    "Q[b,h,i,e], K[b,h,j,e], s[h]",
    "P[b,h,i,j]",
    f"S[i,j] = {DOT} - s * (i-j)   {CAUSAL}\nP[i,j] = softmax[j](S[i,j])",
    lambda x: softmax(scaled(x) - x.s[:, None, None] * (x.i - x.j), causal(x)),
)
simple(
    "choice_of_axes",
    "u[i], w[b,j], doc[h,n]: int",
    "Q[i,e]*K[j,e] + (u[i] if doc[i] == doc[j] else w[j])",
    lambda x: (
        torch.einsum("bhie,bhje->bhij", x.Q, x.K)
        + torch.where(x.doc[:, :, None] == x.doc[:, None], x.u[:, None], x.w[:, None, None])
    ),
)
