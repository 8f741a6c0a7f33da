"""Variants of what comes out, of heads and batches, and of what surrounds the attention."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.road.case import DOT, QKV, SOFTMAX, O, add, lse, masked, ratio, scaled, softmax, weigh

X = SimpleNamespace
S = f"S[i,j] = {DOT}   where j <= i\n"


def causal(x: X) -> Tensor:
    return x.j <= x.i


def p(x: X) -> Tensor:
    return softmax(scaled(x), causal(x))


def plogp(a: Tensor) -> Tensor:
    return a * torch.log(torch.where(a > 0, a, 1.0))


def outputs(name: str, more: str, outs: str, body: str, fn, **kw) -> None:  # type: ignore[no-untyped-def]
    add(name, QKV + (f", {more}" if more else ""), outs, S + body, fn, **kw)


QK = "Q[b,h,i,e], K[b,h,j,e]"
outputs(
    "lse_and_max",
    "",
    f"{O}, L[b,h,i], M[b,h,i]",
    SOFTMAX + "\nL[i] = logsumexp[j](S[i,j])\nM[i] = max[j](S[i,j])",
    lambda x: (
        weigh(p(x), x.V),
        lse(scaled(x), causal(x)),
        masked(scaled(x), causal(x), -torch.inf).amax(-1),
    ),
)
outputs(
    "entropy_2",
    "",
    f"{O}, H[b,h,i]",
    "P[i,j] = softmax[j](S[i,j])\nO[i,f] = P[i,j] * V[j,f]\nH[i] = logsumexp[j](S[i,j]) - sum[j](P[i,j] * S[i,j])",
    lambda x: (weigh(p(x), x.V), -plogp(p(x)).sum(-1)),
)
outputs(
    "entropy_by_logs",
    "",
    f"{O}, H[b,h,i]",
    "P[i,j] = softmax[j](S[i,j])\nO[i,f] = P[i,j] * V[j,f]\nH[i] = -sum[j](P[i,j] * log(P[i,j]))",
    lambda x: (weigh(p(x), x.V), -plogp(p(x)).sum(-1)),
)
outputs(
    "column_sums_2",
    "",
    f"{O}, C[b,h,j]",
    "P[i,j] = softmax[j](S[i,j])\nO[i,f] = P[i,j] * V[j,f]\nC[j] = sum[i](P[i,j])",
    lambda x: (weigh(p(x), x.V), p(x).sum(-2)),
)
outputs(
    "column_max",
    "",
    f"{O}, C[b,h,j]",
    "P[i,j] = softmax[j](S[i,j])\nO[i,f] = P[i,j] * V[j,f]\nC[j] = max[i](P[i,j])",
    lambda x: (weigh(p(x), x.V), p(x).amax(-2)),
)
add("weights_out", QK, "P[b,h,i,j]", S + "P[i,j] = softmax[j](S[i,j])", p)
add("scores_out", QK, "S[b,h,i,j]", S, lambda x: masked(scaled(x), causal(x)))
outputs(
    "weights_and_values",
    "",
    f"{O}, P[b,h,i,j]",
    "P[i,j] = softmax[j](S[i,j])\nO[i,f] = P[i,j] * V[j,f]",
    lambda x: (weigh(p(x), x.V), p(x)),
)
outputs(
    "two_values",
    "W[b,h,j,g]",
    f"{O}, Y[b,h,i,g]",
    "P[i,j] = softmax[j](S[i,j])\nO[i,f] = P[i,j] * V[j,f]\nY[i,g] = P[i,j] * W[j,g]",
    lambda x: (weigh(p(x), x.V), weigh(p(x), x.W)),
    sizes={"g": 11},
)
outputs(
    "value_product",
    "W[b,h,j,f]",
    O,
    "O[i,f] = softmax[j](S[i,j]) * V[j,f] * W[j,f]",
    lambda x: weigh(p(x), x.V * x.W),
)
outputs(
    "outer_values",
    "W[b,h,j,g]",
    "O[b,h,i,f,g]",
    "O[i,f,g] = softmax[j](S[i,j]) * V[j,f] * W[j,g]",
    lambda x: torch.einsum("bhij,bhjf,bhjg->bhifg", p(x), x.V, x.W),
    sizes={"g": 3},
)
outputs(
    "mean_position",
    "",
    f"{O}, Y[b,h,i]",
    "P[i,j] = softmax[j](S[i,j])\nO[i,f] = P[i,j] * V[j,f]\nY[i] = sum[j](P[i,j] * (i - j))",
    lambda x: (weigh(p(x), x.V), (p(x) * (x.i - x.j)).sum(-1)),
)
outputs(
    "variance",
    "",
    f"{O}, Y[b,h,i,f]",
    "P[i,j] = softmax[j](S[i,j])\nO[i,f] = P[i,j] * V[j,f]\nY[i,f] = P[i,j] * V[j,f]**2 - O[i,f]**2",
    lambda x: (weigh(p(x), x.V), weigh(p(x), x.V**2) - weigh(p(x), x.V) ** 2),
)
outputs(
    "mean_values",
    "",
    O,
    "Z[i] = sum[j](exp(0 * S[i,j]))\nO[i,f] = exp(0 * S[i,j]) / Z[i] * V[j,f]",
    lambda x: weigh(ratio(masked(torch.ones_like(scaled(x)), causal(x))), x.V),
)
outputs(
    "gate_out",
    "g[b,h,i,f]",
    O,
    "A[i,f] = softmax[j](S[i,j]) * V[j,f]\nO[i,f] = A[i,f] * sigmoid(g[i,f])",
    lambda x: weigh(p(x), x.V) * x.g.sigmoid(),
)
outputs(
    "gate_out_at_once",
    "g[b,h,i,f]",
    O,
    "O[i,f] = softmax[j](S[i,j]) * V[j,f] * g[i,f]",
    lambda x: weigh(p(x), x.V) * x.g,
)
outputs(
    "residual",
    "R[b,h,i,f], a[h]",
    O,
    "O[i,f] = R[i,f] + a * (softmax[j](S[i,j]) * V[j,f])",
    lambda x: x.R + x.a[:, None, None] * weigh(p(x), x.V),
)
outputs(
    "values_minus_own",
    "",
    O,
    "O[i,f] = softmax[j](S[i,j]) * V[j,f] - V[i,f]",
    lambda x: weigh(p(x), x.V) - x.V,
    sizes={},
)
outputs(
    "norm_out",
    "g[f]",
    O,
    "A[i,f] = softmax[j](S[i,j]) * V[j,f]\nO[i,f] = g[f] * A[i,f] * rsqrt(sum[f](A[i,f]**2) / |f| + 1e-3)",
    lambda x: (lambda a: x.g * a * (a.square().mean(-1, True) + 1e-3).rsqrt())(weigh(p(x), x.V)),
)
outputs(
    "projected_out",
    "W[h,f,c]",
    "Y[b,h,i,c]",
    "O[i,f] = softmax[j](S[i,j]) * V[j,f]\nY[i,c] = O[i,f] * W[f,c]",
    lambda x: torch.einsum("bhif,hfc->bhic", weigh(p(x), x.V), x.W),
    sizes={"c": 5},
)
outputs(
    "silu_values",
    "",
    O,
    "O[i,f] = softmax[j](S[i,j]) * silu(V[j,f])",
    lambda x: weigh(p(x), F.silu(x.V)),
)
outputs(
    "values_times_feature",
    "g[f]",
    O,
    "O[i,f] = softmax[j](S[i,j]) * V[j,f] * g[f]",
    lambda x: weigh(p(x), x.V * x.g),
)
outputs(
    "value_pairs",
    "",
    O,
    "O[i,f] = softmax[j](S[i,j]) * max(V[i,f], 2 * V[j,f])",
    lambda x: torch.einsum(
        "bhij,bhijf->bhif", p(x), torch.maximum(x.V[:, :, :, None], 2 * x.V[:, :, None])
    ),
)
outputs(
    "rotated_values",
    "w[f]",
    O,
    "O[i,f] = softmax[j](S[i,j]) * V[j,f] * cos((i - j) * w[f])",
    lambda x: torch.einsum(
        "bhij,bhjf,ijf->bhif", p(x), x.V, torch.cos((x.i - x.j)[..., None] * x.w)
    ),
)
outputs(
    "kernel_out_only",
    "",
    "Y[b,h,i]",
    "A[i,f] = softmax[j](S[i,j]) * V[j,f]\nY[i] = sum[f](A[i,f]**2)",
    lambda x: weigh(p(x), x.V).square().sum(-1),
)
outputs(
    "softmax_in_two_steps_of_values",
    "",
    O,
    "A[i,f] = softmax[j](S[i,j]) * V[j,f]\nO[i,f] = softmax[f](A[i,f])",
    lambda x: torch.softmax(weigh(p(x), x.V), -1),
)
outputs(
    "cumulated_values",
    "",
    O,
    "C[j,f] = sum[l : l <= j](V[l,f])\nO[i,f] = softmax[j](S[i,j]) * C[j,f] / (i + 1)",
    lambda x: weigh(p(x), x.V.cumsum(2)) / (x.i + 1),
)
add(
    "keys_centred",
    QKV,
    O,
    "m[e] = sum[j](K[j,e]) / |j|\nT[i,j] = Q[i,e] * (K[j,e] - m[e])   where j <= i\n"
    "O[i,f] = softmax[j](T[i,j]) * V[j,f]",
    lambda x: weigh(
        softmax(torch.einsum("bhie,bhje->bhij", x.Q, x.K - x.K.mean(2, True)), causal(x)), x.V
    ),
)
add(
    "keys_max_normed",
    QKV,
    O,
    "m[e] = max[j](abs(K[j,e]))\nT[i,j] = Q[i,e] * (K[j,e] / m[e])   where j <= i\n"
    "O[i,f] = softmax[j](T[i,j]) * V[j,f]",
    lambda x: weigh(
        softmax(torch.einsum("bhie,bhje->bhij", x.Q, x.K / x.K.abs().amax(2, True)), causal(x)), x.V
    ),
)
add(
    "keys_softmaxed",
    QKV,
    O,
    "k[j,e] = softmax[j](K[j,e])\nT[i,j] = softmax[e](Q[i,e]) * k[j,e]\nO[i,f] = T[i,j] * V[j,f]",
    lambda x: weigh(torch.einsum("bhie,bhje->bhij", x.Q.softmax(-1), x.K.softmax(2)), x.V),
)

# --- heads and batches -------------------------------------------------------------------------


def many(t: Tensor, g: int) -> Tensor:
    return t.repeat_interleave(g, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None) -> Tensor:
    return weigh(softmax(torch.einsum("bhie,bhje->bhij", q, k) / math.sqrt(q.shape[-1]), keep), v)


add(
    "grouped",
    "Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int",
    O,
    S + SOFTMAX,
    lambda x: attend(x.Q, many(x.K, 3), many(x.V, 3), causal(x)),
    sizes={"h": 6, "G": 3},
)
add(
    "grouped_apart",
    "Q[b,h,i,e], K[b,h//G,j,e], V[b,h//N,j,f], G: int, N: int",
    O,
    S + SOFTMAX,
    lambda x: attend(x.Q, many(x.K, 2), many(x.V, 3), causal(x)),
    sizes={"h": 6, "G": 2, "N": 3},
)
add(
    "one_key_head",
    "Q[b,h,i,e], K[b,j,e], V[b,j,f]",
    O,
    S + SOFTMAX,
    lambda x: attend(x.Q, x.K[:, None], x.V[:, None], causal(x)),
)
add(
    "one_value_head",
    "Q[b,h,i,e], K[b,h,j,e], V[b,j,f]",
    O,
    S + SOFTMAX,
    lambda x: attend(x.Q, x.K, x.V[:, None].expand(-1, 2, -1, -1), causal(x)),
)
add(
    "one_batch_of_keys",
    "Q[b,h,i,e], K[h,j,e], V[h,j,f]",
    O,
    S + SOFTMAX,
    lambda x: attend(x.Q, x.K[None], x.V[None].expand(2, -1, -1, -1), causal(x)),
)
add(
    "sequence_first",
    "Q[b,i,h,e], K[b,j,h,e], V[b,j,h,f]",
    "O[b,i,h,f], L[b,i,h]",
    S + SOFTMAX + "\nL[i] = logsumexp[j](S[i,j])",
    lambda x: (
        attend(*(t.transpose(1, 2) for t in (x.Q, x.K, x.V)), causal(x)).transpose(1, 2),
        lse(torch.einsum("bihe,bjhe->bhij", x.Q, x.K) / math.sqrt(x.n_e), causal(x)).transpose(
            1, 2
        ),
    ),
)
add(
    "features_first",
    "Q[b,h,e,i], K[b,h,e,j], V[b,h,f,j]",
    "O[b,h,f,i]",
    "S[i,j] = Q[e,i] * K[e,j]   where j <= i\nO[f,i] = softmax[j](S[i,j]) * V[f,j]",
    lambda x: weigh(softmax(torch.einsum("bhei,bhej->bhij", x.Q, x.K), causal(x)), x.V.mT).mT,
)
add(
    "packed",
    "X[b,n,c,h,e]",
    "O[b,h,i,e]",
    "S[i,j] = X[i,0,e] * X[j,1,e] / sqrt(|e|)   where j <= i\nO[i,e] = softmax[j](S[i,j]) * X[j,2,e]",
    lambda x: attend(*(x.X[:, :, c].transpose(1, 2) for c in range(3)), causal(x)),
    sizes={"c": 3},
)
add(
    "no_batch",
    "Q[i,e], K[j,e], V[j,f]",
    "O[i,f], L[i]",
    S + SOFTMAX + "\nL[i] = logsumexp[j](S[i,j])",
    lambda x: (lambda s: (softmax(s, causal(x)) @ x.V, lse(s, causal(x))))(
        x.Q @ x.K.T / math.sqrt(x.n_e)
    ),
    batch="",
)
add(
    "three_batches",
    "Q[b,g,h,i,e], K[b,g,j,e], V[b,g,j,f], s[g,h]",
    "O[b,g,h,i,f]",
    f"S[i,j] = {DOT} - s * (i-j)   where j <= i\n{SOFTMAX}",
    lambda x: torch.einsum(
        "bghij,bgjf->bghif",
        softmax(
            torch.einsum("bghie,bgje->bghij", x.Q, x.K) / math.sqrt(x.n_e)
            - x.s[..., None, None] * (x.i - x.j),
            causal(x),
        ),
        x.V,
    ),
    batch="b, g, h",
    sizes={"g": 3},
)
add(
    "heads_written",
    QKV,
    "O[b,h,i,f]",
    "S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|)   where j <= i\nO[h,i,f] = softmax[j](S[h,i,j]) * V[h,j,f]",
    lambda x: attend(x.Q, x.K, x.V, causal(x)),
    batch="b",
)
add(
    "heads_summed",
    QKV + ", W[h,f,c]",
    "Y[b,i,c]",
    "S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|)   where j <= i\n"
    "O[h,i,f] = softmax[j](S[h,i,j]) * V[h,j,f]\nY[i,c] = O[h,i,f] * W[h,f,c]",
    lambda x: torch.einsum("bhif,hfc->bic", attend(x.Q, x.K, x.V, causal(x)), x.W),
    batch="b",
    sizes={"c": 5},
)
add(
    "one_score_for_all_heads",
    "Q[b,h,i,e], K[b,h,j,e], V[b,j,f]",
    "O[b,i,f]",
    "S[i,j] = Q[h,i,e] * K[h,j,e]   where j <= i\nO[i,f] = softmax[j](S[i,j]) * V[j,f]",
    lambda x: torch.einsum(
        "bij,bjf->bif", softmax(torch.einsum("bhie,bhje->bij", x.Q, x.K), causal(x)), x.V
    ),
    batch="b",
)
add(
    "squares_of_scores",
    "Q[b,h,i,e], K[b,h,j,e]",
    "N[b,h,i], L[b,h,i]",
    f"""S[i,j] = {DOT}
    A[i,j] = S[i,j] * rsqrt(sum[j](S[i,j]**2) + 0.5)
    N[i] = sum[j](A[i,j] * S[i,j])
    L[i] = sum[j](A[i,j])""",
    lambda x: (
        (scaled(x) ** 2).sum(-1) * ((scaled(x) ** 2).sum(-1) + 0.5).rsqrt(),
        scaled(x).sum(-1) * ((scaled(x) ** 2).sum(-1) + 0.5).rsqrt(),
    ),
)
