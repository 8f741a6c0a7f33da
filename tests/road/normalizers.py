"""Variants of the normalizer, the outputs, and what surrounds the attention."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.road.case import DOT, QKV, SOFTMAX, O, add, masked, ratio, scaled, softmax, weigh

X = SimpleNamespace
S = f"S[i,j] = {DOT}   where j <= i\n"


def causal(x: X) -> Tensor:
    return x.j <= x.i


def weights(name: str, more: str, body: str, fn, **kw) -> None:  # type: ignore[no-untyped-def]
    """Weights `A` computed from the causal scores `S`."""
    add(
        name,
        QKV + (f", {more}" if more else ""),
        O,
        S + body + "\nO[i,f] = A[i,j] * V[j,f]",
        lambda x: weigh(fn(x, scaled(x), causal(x)), x.V),
        **kw,
    )


def top(s: Tensor, k: Tensor) -> Tensor:
    return masked(s, k, -torch.inf).amax(-1, keepdim=True)


def sink(s: Tensor, k: Tensor, a: Tensor) -> Tensor:
    whole = torch.cat([masked(s, k, -torch.inf), a.expand(*s.shape[:-1], 1)], -1)
    return torch.softmax(whole, -1)[..., :-1]


weights(
    "by_hand",
    "",
    "M[i] = max[j](S[i,j])\nP[i,j] = exp(S[i,j] - M[i])\nZ[i] = sum[j](P[i,j])\nA[i,j] = P[i,j] / Z[i]",
    lambda x, s, k: softmax(s, k),
)
weights(
    "by_hand_unshifted",
    "",
    "Z[i] = sum[j](exp(S[i,j]))\nA[i,j] = exp(S[i,j]) / Z[i]",
    lambda x, s, k: softmax(s, k),
)
weights("by_lse", "", "A[i,j] = exp(S[i,j] - logsumexp[j](S[i,j]))", lambda x, s, k: softmax(s, k))
weights(
    "base_two",
    "",
    "M[i] = max[j](S[i,j])\nP[i,j] = exp2(S[i,j] - M[i])\nA[i,j] = P[i,j] / sum[j](P[i,j])",
    lambda x, s, k: softmax(s * math.log(2), k),
)
weights(
    "off_by_one_2",
    "",
    "M[i] = max(0, max[j](S[i,j]))\nP[i,j] = exp(S[i,j] - M[i])\nA[i,j] = P[i,j] / (exp(-M[i]) + sum[j](P[i,j]))",
    lambda x, s, k: sink(s, k, torch.zeros(())),
)
weights(
    "off_by_one_plain",
    "",
    "A[i,j] = exp(S[i,j]) / (1 + sum[j](exp(S[i,j])))",
    lambda x, s, k: sink(s, k, torch.zeros(())),
)
weights(
    "sink_per_head",
    "a[h]",
    "M[i] = max(a, max[j](S[i,j]))\nP[i,j] = exp(S[i,j] - M[i])\nA[i,j] = P[i,j] / (exp(a - M[i]) + sum[j](P[i,j]))",
    lambda x, s, k: sink(s, k, x.a[:, None, None]),
)
weights(
    "sink_per_row",
    "a[b,h,i]",
    "M[i] = max(a[i], max[j](S[i,j]))\nP[i,j] = exp(S[i,j] - M[i])\n"
    "A[i,j] = P[i,j] / (exp(a[i] - M[i]) + sum[j](P[i,j]))",
    lambda x, s, k: sink(s, k, x.a[..., None]),
)
weights(
    "two_sinks",
    "a[h], c[h]",
    "M[i] = max(a, c, max[j](S[i,j]))\nP[i,j] = exp(S[i,j] - M[i])\n"
    "A[i,j] = P[i,j] / (exp(a - M[i]) + exp(c - M[i]) + sum[j](P[i,j]))",
    lambda x, s, k: sink(s, k, torch.logaddexp(x.a, x.c)[:, None, None]),
)
weights(
    "sigmoid_bias",
    "c[h]",
    "A[i,j] = sigmoid(S[i,j] + c - log(|j|))",
    lambda x, s, k: masked(torch.sigmoid(s + x.c[:, None, None] - math.log(x.n_j)), k),
)
weights(
    "relu_over_length",
    "",
    "A[i,j] = relu(S[i,j]) / |j|",
    lambda x, s, k: masked(F.relu(s) / x.n_j, k),
)
weights(
    "relu_over_position",
    "",
    "A[i,j] = relu(S[i,j])**2 / (i + 1)",
    lambda x, s, k: masked(F.relu(s) ** 2 / (x.i + 1), k),
)
weights(
    "softplus_sum",
    "",
    "P[i,j] = softplus(S[i,j])\nA[i,j] = P[i,j] / sum[j](P[i,j])",
    lambda x, s, k: ratio(masked(F.softplus(s), k)),
)
weights(
    "elu_sum",
    "",
    "P[i,j] = elu(S[i,j]) + 1\nA[i,j] = P[i,j] / sum[j](P[i,j])",
    lambda x, s, k: ratio(masked(F.elu(s) + 1, k)),
)
weights(
    "polynomial",
    "",
    "P[i,j] = S[i,j]**4\nA[i,j] = P[i,j] / (sum[j](P[i,j]) + 0.1)",
    lambda x, s, k: masked(s**4, k) / (masked(s**4, k).sum(-1, keepdim=True) + 0.1),
)
weights(
    "signed",
    "",
    "A[i,j] = S[i,j] / (sum[j](abs(S[i,j])) + 0.1)",
    lambda x, s, k: masked(s, k) / (masked(s.abs(), k).sum(-1, keepdim=True) + 0.1),
)
weights(
    "unit_rows",
    "",
    "A[i,j] = S[i,j] * rsqrt(sum[j](S[i,j]**2) + 0.1)",
    lambda x, s, k: masked(s, k) * (masked(s**2, k).sum(-1, keepdim=True) + 0.1).rsqrt(),
)
weights(
    "softpick_2",
    "",
    "M[i] = max[j](S[i,j])\nX[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])\n"
    "A[i,j] = relu(X[i,j]) / (sum[j](abs(X[i,j])) + 1e-3)",
    lambda x, s, k: (lambda y: F.relu(y) / (y.abs().sum(-1, keepdim=True) + 1e-3))(
        masked(torch.exp(s - top(s, k)) - torch.exp(-top(s, k)), k)
    ),
)
weights(
    "softmax_gated",
    "u[b,h,j]",
    "A[i,j] = softmax[j](S[i,j]) * sigmoid(u[j])",
    lambda x, s, k: softmax(s, k) * x.u.sigmoid()[..., None, :],
)
weights(
    "softmax_gated_by_score",
    "",
    "A[i,j] = softmax[j](S[i,j]) * sigmoid(S[i,j])",
    lambda x, s, k: softmax(s, k) * masked(s, k).sigmoid(),
)
weights(
    "softmax_dropped",
    "D[b,i,j]",
    "A[i,j] = softmax[j](S[i,j]) * D[i,j]",
    lambda x, s, k: softmax(s, k) * x.D[:, None],
)
weights(
    "softmax_minus_mean",
    "",
    "A[i,j] = softmax[j](S[i,j]) - 1 / |j|",
    lambda x, s, k: softmax(s, k) - masked(torch.full_like(s, 1 / x.n_j), k),
)
weights(
    "softmax_of_softmax_powers",
    "",
    "P[i,j] = softmax[j](S[i,j])\nA[i,j] = P[i,j]**2 / (0.01 + sum[j](P[i,j]**2))",
    lambda x, s, k: softmax(s, k) ** 2 / (0.01 + (softmax(s, k) ** 2).sum(-1, keepdim=True)),
)
weights(
    "maximum_only",
    "",
    "A[i,j] = exp(S[i,j] - max[j](S[i,j])) / |j|",
    lambda x, s, k: (
        masked(torch.exp(s - masked(s, k, -torch.inf).amax(-1, keepdim=True)), k) / x.n_j
    ),
)
weights(
    "minimum_shift",
    "",
    "A[i,j] = S[i,j] - min[j](S[i,j])",
    lambda x, s, k: masked(s - masked(s, k, torch.inf).amin(-1, keepdim=True), k),
)
weights(
    "standardised_2",
    "",
    "m[i] = sum[j](S[i,j]) / (i + 1)\nv[i] = sum[j]((S[i,j] - m[i])**2) / (i + 1)\n"
    "A[i,j] = (S[i,j] - m[i]) * rsqrt(v[i] + 0.5)",
    lambda x, s, k: (
        lambda m: masked(
            (s - m) * (masked((s - m) ** 2, k).sum(-1, keepdim=True) / (x.i + 1) + 0.5).rsqrt(), k
        )
    )(masked(s, k).sum(-1, keepdim=True) / (x.i + 1)),
)
weights(
    "temper_the_weights",
    "t[h]",
    "A[i,j] = softmax[j](S[i,j] * exp(t)) * (1 + t)",
    lambda x, s, k: softmax(s * x.t.exp()[:, None, None], k) * (1 + x.t[:, None, None]),
)
weights(
    "shifted_then_floored",
    "",
    "P[i,j] = softmax[j](S[i,j])\nA[i,j] = max(P[i,j] - 0.05, 0)",
    lambda x, s, k: F.relu(softmax(s, k) - 0.05),
)
weights(
    "softmax_with_floor_in_sum",
    "",
    "M[i] = max[j](S[i,j])\nP[i,j] = exp(S[i,j] - M[i])\nA[i,j] = P[i,j] / max(sum[j](P[i,j]), 2)",
    lambda x, s, k: (lambda p: p / p.sum(-1, keepdim=True).clamp(min=2))(
        masked(torch.exp(s - top(s, k)), k)
    ),
)

QQKKV = "Q[b,h,i,e], K[b,h,j,e], P[b,h,i,e], R[b,h,j,e], V[b,h,j,f]"


def second(x: X) -> Tensor:
    return torch.einsum("bhie,bhje->bhij", x.P, x.R) / math.sqrt(x.n_e)


TWO = S + "T[i,j] = P[i,e] * R[j,e] / sqrt(|e|)   where j <= i\n"
add(
    "differential",
    QQKKV + ", lam[h]",
    O,
    TWO + "A[i,j] = softmax[j](S[i,j]) - lam * softmax[j](T[i,j])\nO[i,f] = A[i,j] * V[j,f]",
    lambda x: weigh(
        softmax(scaled(x), causal(x)) - x.lam[:, None, None] * softmax(second(x), causal(x)), x.V
    ),
)
add(
    "differential_apart",
    QQKKV + ", lam[h]",
    O,
    TWO + "O[i,f] = softmax[j](S[i,j]) * V[j,f] - lam * (softmax[j](T[i,j]) * V[j,f])",
    lambda x: weigh(
        softmax(scaled(x), causal(x)) - x.lam[:, None, None] * softmax(second(x), causal(x)), x.V
    ),
)
add(
    "two_ranges",
    QQKKV,
    O,
    S
    + "T[i,j] = P[i,e] * R[j,e]   where i - j < 4\nO[i,f] = softmax[j](S[i,j]) * V[j,f] + softmax[j](T[i,j]) * V[j,f]",
    lambda x: (
        weigh(softmax(scaled(x), causal(x)), x.V)
        + weigh(softmax(torch.einsum("bhie,bhje->bhij", x.P, x.R), x.i - x.j < 4), x.V)
    ),
)
add(
    "product_of_softmaxes",
    QQKKV,
    O,
    TWO + "O[i,f] = softmax[j](S[i,j]) * softmax[j](T[i,j]) * V[j,f]",
    lambda x: weigh(softmax(scaled(x), causal(x)) * softmax(second(x), causal(x)), x.V),
)
add(
    "two_key_sets",
    QKV + ", K2[b,h,k,e], V2[b,h,k,f]",
    O,
    S + "T[i,k] = Q[i,e] * K2[k,e] / sqrt(|e|)\nM[i] = max(max[j](S[i,j]), max[k](T[i,k]))\n"
    "Z[i] = sum[j](exp(S[i,j] - M[i])) + sum[k](exp(T[i,k] - M[i]))\n"
    "O[i,f] = exp(S[i,j] - M[i]) / Z[i] * V[j,f] + exp(T[i,k] - M[i]) / Z[i] * V2[k,f]",
    lambda x: weigh(
        torch.softmax(
            torch.cat(
                [
                    masked(scaled(x), causal(x), -torch.inf),
                    torch.einsum("bhie,bhke->bhik", x.Q, x.K2) / math.sqrt(x.n_e),
                ],
                -1,
            ),
            -1,
        ),
        torch.cat([x.V, x.V2], 2),
    ),
    sizes={"k": 7},
)
add(
    "columns_softmax",
    QKV,
    O,
    f"S[i,j] = {DOT}\nO[i,f] = softmax[i](S[i,j]) * V[j,f]",
    lambda x: weigh(torch.softmax(scaled(x), -2), x.V),
)
add(
    "slots",
    QKV,
    O,
    f"S[i,j] = {DOT}\nA[i,j] = softmax[i](S[i,j])\nO[i,f] = A[i,j] / (sum[j](A[i,j]) + 0.01) * V[j,f]",
    lambda x: (lambda a: weigh(a / (a.sum(-1, keepdim=True) + 0.01), x.V))(
        torch.softmax(scaled(x), -2)
    ),
)
add(
    "doubly",
    QKV,
    O,
    f"S[i,j] = {DOT}\nO[i,f] = softmax[i](S[i,j]) * softmax[j](S[i,j]) * V[j,f]",
    lambda x: weigh(torch.softmax(scaled(x), -2) * torch.softmax(scaled(x), -1), x.V),
)
add(
    "linear_map",
    QKV,
    O,
    "A[i,j] = (elu(Q[i,e])+1) * (elu(K[j,e])+1)   where j <= i\nO[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]",
    lambda x: weigh(
        ratio(masked(torch.einsum("bhie,bhje->bhij", F.elu(x.Q) + 1, F.elu(x.K) + 1), causal(x))),
        x.V,
    ),
)
add(
    "squared_maps",
    QKV,
    O,
    "S[i,j] = relu(Q[i,e])**2 * relu(K[j,e])**2 / |e|   where j <= i\n" + SOFTMAX,
    lambda x: weigh(
        softmax(
            torch.einsum("bhie,bhje->bhij", F.relu(x.Q) ** 2, F.relu(x.K) ** 2) / x.n_e, causal(x)
        ),
        x.V,
    ),
)
add(
    "retention",
    QKV + ", g[h]",
    O,
    "A[i,j] = Q[i,e] * K[j,e] * sigmoid(g)**(i - j)   where j <= i\nO[i,f] = A[i,j] * V[j,f]",
    lambda x: weigh(
        masked(
            torch.einsum("bhie,bhje->bhij", x.Q, x.K)
            * torch.sigmoid(x.g)[:, None, None] ** (x.i - x.j).clamp(min=0),
            causal(x),
        ),
        x.V,
    ),
)
