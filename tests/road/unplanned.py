"""Programs written from the language reference alone, each with a reference written by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor, einsum

from tests.road.case import (
    CASES,
    DOT,
    QKV,
    SOFTMAX,
    O,
    add,
    lse,
    masked,
    ratio,
    scaled,
    softmax,
    weigh,
)


def shared(x: SimpleNamespace, s: Tensor, keep: Tensor | None = None) -> Tensor:
    return weigh(softmax(s, keep), x.V)


def causal(x: SimpleNamespace) -> Tensor:
    keep: Tensor = x.j <= x.i
    return keep


# --- scores -----------------------------------------------------------------------------------

add(
    "un_cubed_distance",
    QKV,
    O,
    f"""S[i,j] = -sum[e](abs(Q[i,e] - K[j,e])**3) where j <= i
    {SOFTMAX}""",
    lambda x: shared(
        x, -(x.Q[..., :, None, :] - x.K[..., None, :, :]).abs().pow(3).sum(-1), causal(x)
    ),
)
add(
    "un_clipped_both_sides",
    QKV,
    O,
    f"""S[i,j] = min(max({DOT}, -0.5), 0.5)
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x).clamp(-0.5, 0.5)),
)
add(
    "un_power_of_two_scores",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    M[i] = max[j](S[i,j])
    P[i,j] = exp2(S[i,j] - M[i])
    O[i,f] = P[i,j] / sum[j](P[i,j]) * V[j,f]""",
    lambda x: shared(x, scaled(x) * math.log(2), causal(x)),
)
add(
    "un_power_by_parameter",
    f"{QKV}, p: int = 3",
    O,
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = abs(S[i,j])**p
    O[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]""",
    lambda x: weigh(ratio(masked(scaled(x).abs() ** 3, causal(x))), x.V),
)
add(
    "un_if_in_score",
    QKV,
    O,
    f"""S[i,j] = ({DOT} if (i + j) % 3 == 0 else tanh({DOT})) where j <= i
    {SOFTMAX}""",
    lambda x: shared(
        x, torch.where((x.i + x.j) % 3 == 0, scaled(x), torch.tanh(scaled(x))), causal(x)
    ),
)
add(
    "un_sign_of_score",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](abs(S[i,j])) * sign(S[i,j]) * V[j,f]""",
    lambda x: weigh(softmax(scaled(x).abs(), causal(x)) * scaled(x).sign(), x.V),
)
add(
    "un_rational_score",
    QKV,
    O,
    f"""S[i,j] = {DOT}
    R[i,j] = S[i,j] / (1 + abs(S[i,j]))
    O[i,f] = softmax[j](4 * R[i,j]) * V[j,f]""",
    lambda x: shared(x, 4 * scaled(x) / (1 + scaled(x).abs())),
)
add(
    "un_score_of_scores_products",
    f"{QKV}, A[b,h,i,g], B[b,h,j,g]",
    O,
    f"""S[i,j] = ({DOT}) * sigmoid(A[i,g] * B[j,g]) where j <= i
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x) * torch.sigmoid(einsum("bhig,bhjg->bhij", x.A, x.B)), causal(x)),
    sizes={"g": 3},
)
add(
    "un_double_where",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = S[i,j] where (i - j) % 2 == 0
    O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
    lambda x: shared(x, scaled(x), causal(x) & ((x.i - x.j) % 2 == 0)),
)
add(
    "un_leading_minus",
    QKV,
    O,
    f"""S[i,j] = -(-({DOT})) - -1.5 where not j > i
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), causal(x)),
)
add(
    "un_chained_where",
    f"{QKV}, w: int = 5",
    O,
    f"""S[i,j] = {DOT} where 0 <= i - j < w, not (j == 3)
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), (x.i - x.j >= 0) & (x.i - x.j < 5) & (x.j != 3)),
)
add(
    "un_gaussian_positions",
    f"{QKV}, s[h]",
    O,
    f"""S[i,j] = {DOT} - (i - j)**2 / (1 + s * s)
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x) - (x.i - x.j) ** 2 / (1 + x.s**2)[None, :, None, None]),
)
add(
    "un_cosine_positions",
    f"{QKV}, w[h,r]",
    O,
    f"""S[i,j] = {DOT} + sum[r](w[r] * cos((i - j) * 0.3 * (r + 1))) where j <= i
    {SOFTMAX}""",
    lambda x: shared(
        x,
        scaled(x)
        + einsum(
            "hr,ijr->hij",
            x.w,
            torch.cos((x.i - x.j)[..., None].double() * 0.3 * (torch.arange(3) + 1)),
        ),
        causal(x),
    ),
    sizes={"r": 3},
)

# --- offsets, long tails -----------------------------------------------------------------------

for shift in (300, -300):
    word = "up" if shift > 0 else "down"
    add(
        f"un_offset_{word}",
        QKV,
        f"{O}, L[b,h,i], M[b,h,i]",
        f"""S[i,j] = {DOT} + {shift} where j <= i
        {SOFTMAX}
        L[i] = logsumexp[j](S[i,j])
        M[i] = max[j](S[i,j])""",
        lambda x, c=shift: (
            shared(x, scaled(x), causal(x)),
            lse(scaled(x) + c, causal(x)),
            masked(scaled(x) + c, causal(x), -torch.inf).amax(-1),
        ),
    )
    add(
        f"un_offset_by_hand_{word}",
        QKV,
        O,
        f"""S[i,j] = {DOT} + {shift} where j <= i
        P[i,j] = exp(S[i,j])
        O[i,f] = P[i,j] / sum[j](P[i,j]) * V[j,f]""",
        lambda x: shared(x, scaled(x), causal(x)),
    )

# --- domains ----------------------------------------------------------------------------------

add(
    "un_antidiagonal",
    QKV,
    O,
    f"""S[i,j] = {DOT} where i + j >= |i| - 3
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), x.i + x.j >= x.n_i - 3),
)
add(
    "un_antidiagonal_band",
    QKV,
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} where |i + j - 12| < 4
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""".replace("|i + j - 12|", "abs(i + j - 12)"),
    lambda x: (
        shared(x, scaled(x), (x.i + x.j - 12).abs() < 4),
        lse(scaled(x), (x.i + x.j - 12).abs() < 4),
    ),
)
add(
    "un_steep",
    QKV,
    O,
    f"""S[i,j] = {DOT} where 2 * j <= 3 * i, j >= i // 2
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), (2 * x.j <= 3 * x.i) & (x.j >= x.i // 2)),
    start=0,  # rows stand 3 apart and keys 2: equal lengths do not say where
)
add(
    "un_quadratic_domain",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j * j <= i
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), x.j * x.j <= x.i),
)
add(
    "un_checkerboard_or_self",
    QKV,
    O,
    f"""S[i,j] = {DOT} where i == j or (i % 2 != j % 2 and j < i)
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), (x.i == x.j) | ((x.i % 2 != x.j % 2) & (x.j < x.i))),
)
add(
    "un_window_by_float",
    f"{QKV}, r: float = 0.25",
    O,
    f"""S[i,j] = {DOT} where i - j <= r * |j|, j <= i
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), (x.i - x.j <= 0.25 * x.n_j) & causal(x)),
)
add(
    "un_window_of_row",
    f"{QKV}, w[b,i]: int",
    O,
    f"""S[i,j] = {DOT} where i - j <= w[i], j - i <= w[i]
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), ((x.i - x.j).abs() <= x.w[:, :, None])[:, None]),
)
add(
    "un_window_of_key",
    f"{QKV}, w[b,j]: int",
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} where 0 < i - j <= w[j]
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (
        shared(x, scaled(x), ((x.i - x.j > 0) & (x.i - x.j <= x.w[:, None, :]))[:, None]),
        lse(scaled(x), ((x.i - x.j > 0) & (x.i - x.j <= x.w[:, None, :]))[:, None]),
    ),
)
add(
    "un_all_masked",
    f"{QKV}, m[b,j]: bool",
    f"{O}, L[b,h,i], Z[b,h,i]",
    f"""S[i,j] = {DOT} where m[j] and not m[j]
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])
    Z[i] = sum[j](exp(S[i,j]))""",
    lambda x: (
        0 * x.V[..., :1, :].expand(-1, -1, x.n_i, -1) + 0 * x.Q.sum() + 0 * x.K.sum(),
        (0 * x.Q.sum(-1)).masked_fill(torch.ones((), dtype=torch.bool), -torch.inf),
        0 * x.Q.sum(-1),
    ),
)
add(
    "un_graph",
    f"{QKV}, src[b,i]: int, dst[b,j]: int, edge[r,s]: bool",
    O,
    f"""S[i,j] = {DOT} where edge[src[i], dst[j]]
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x), x.edge[x.src[:, :, None], x.dst[:, None, :]][:, None]),
    sizes={"r": 4, "s": 4},
)
add(
    "un_doc_and_window",
    f"{QKV}, d[b,n]: int",
    O,
    f"""S[i,j] = {DOT} where (d[i] == d[j] or d[j] == 0) and j <= i and i - j < 9
    {SOFTMAX}""",
    lambda x: shared(
        x,
        scaled(x),
        (
            ((x.d[:, :, None] == x.d[:, None, :]) | (x.d[:, None, :] == 0))
            & causal(x)
            & (x.i - x.j < 9)
        )[:, None],
    ),
)
add(
    "un_three_dimensional",
    f"{QKV}, w: int = 3, h2: int = 2",
    O,
    f"""S[i,j] = {DOT} where abs(i // (w * h2) - j // (w * h2)) <= 1,
        abs(i // w % h2 - j // w % h2) <= 1, abs(i % w - j % w) <= 1
    {SOFTMAX}""",
    lambda x: shared(
        x,
        scaled(x),
        ((x.i // 6 - x.j // 6).abs() <= 1)
        & ((x.i // 3 % 2 - x.j // 3 % 2).abs() <= 1)
        & ((x.i % 3 - x.j % 3).abs() <= 1),
    ),
)

# --- normalizers ---------------------------------------------------------------------------------

add(
    "un_norm_two",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = S[i,j] / sqrt(sum[j](S[i,j]**2) + 0.1) * V[j,f]""",
    lambda x: weigh(
        masked(scaled(x), causal(x))
        / (masked(scaled(x), causal(x)) ** 2).sum(-1, keepdim=True).add(0.1).sqrt(),
        x.V,
    ),
)
add(
    "un_softmin",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](-S[i,j]) * V[j,f]""",
    lambda x: shared(x, -scaled(x), causal(x)),
)
add(
    "un_squared_softmax",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j]**2 * V[j,f]""",
    lambda x: weigh(softmax(scaled(x), causal(x)) ** 2, x.V),
)
add(
    "un_focal",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * (1 - P[i,j]) * V[j,f]""",
    lambda x: weigh((lambda p: p * (1 - p))(softmax(scaled(x), causal(x))), x.V),
)
add(
    "un_threshold_of_weights",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = relu(P[i,j] - 0.05) * V[j,f]""",
    lambda x: weigh(torch.relu(softmax(scaled(x), causal(x)) - 0.05), x.V),
)
add(
    "un_softmax_of_softmax",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = softmax[j](3 * P[i,j]) * V[j,f]""",
    lambda x: shared(x, 3 * softmax(scaled(x), causal(x)), causal(x)),
)
add(
    "un_softmax_both_ways",
    QKV,
    O,
    f"""S[i,j] = {DOT}
    O[i,f] = softmax[j](S[i,j]) * softmax[i](S[i,j]) * V[j,f]""",
    lambda x: weigh(softmax(scaled(x)) * softmax(scaled(x).mT).mT, x.V),
)
add(
    "un_mean_subtracted",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    n[i] = sum[j](1 if j <= i else 0)
    m[i] = sum[j](S[i,j]) / n[i]
    O[i,f] = softmax[j](S[i,j] - m[i]) * V[j,f] - softmax[j](S[i,j]) * V[j,f] + m[i]""",
    lambda x: (masked(scaled(x), causal(x)).sum(-1) / (x.i[:, 0] + 1))[..., None] + 0 * x.V,
)
add(
    "un_range_normalised",
    QKV,
    O,
    f"""S[i,j] = {DOT}
    hi[i] = max[j](S[i,j])
    lo[i] = min[j](S[i,j])
    O[i,f] = (S[i,j] - lo[i]) / (hi[i] - lo[i] + 1e-3) * V[j,f]""",
    lambda x: weigh(
        (scaled(x) - scaled(x).amin(-1, True))
        / (scaled(x).amax(-1, True) - scaled(x).amin(-1, True) + 1e-3),
        x.V,
    ),
)
add(
    "un_temperature_of_entropy",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    L[i] = logsumexp[j](S[i,j])
    P[i,j] = exp(S[i,j] - L[i])
    H[i] = sum[j](-P[i,j] * (S[i,j] - L[i]))
    O[i,f] = softmax[j](S[i,j] * (1 + H[i])) * V[j,f]""",
    lambda x: shared(
        x,
        scaled(x)
        * (
            1
            + masked(
                -softmax(scaled(x), causal(x)) * (scaled(x) - lse(scaled(x), causal(x))[..., None]),
                causal(x),
            ).sum(-1, True)
        ),
        causal(x),
    ),
)
add(
    "un_log_softmax",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = (S[i,j] - logsumexp[j](S[i,j])) * V[j,f]""",
    lambda x: weigh(masked(scaled(x) - lse(scaled(x), causal(x))[..., None], causal(x)), x.V),
)
add(
    "un_power_mean",
    f"{QKV}, p: float = 2.5",
    O,
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    Y[i,f] = P[i,j] * softplus(V[j,f])**p
    O[i,f] = Y[i,f]**(1 / p)""",
    lambda x: weigh(softmax(scaled(x), causal(x)), fn.softplus(x.V) ** 2.5) ** (1 / 2.5),
)
add(
    "un_harmonic_value",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = 1 / sum[j](P[i,j] / (1 + exp(V[j,f])))""",
    lambda x: 1 / weigh(softmax(scaled(x), causal(x)), 1 / (1 + x.V.exp())),
)
add(
    "un_log_sum_exp_values",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    L[i] = logsumexp[j](S[i,j])
    O[i,f] = logsumexp[j](S[i,j] + V[j,f]) - L[i]""",
    lambda x: (
        lse((scaled(x)[..., None] + x.V[..., None, :, :]).mT, causal(x)[..., None, :])
        - lse(scaled(x), causal(x))[..., None]
    ),
)
add(
    "un_max_pool_value",
    QKV,
    O,
    """O[i,f] = max[j](V[j,f] + Q[i,e] * K[j,e] / 8)""",
    lambda x: (einsum("bhie,bhje->bhij", x.Q, x.K)[..., None] / 8 + x.V[..., None, :, :]).amax(-2),
)
add(
    "un_solve_cubic",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    M[i] = max[j](S[i,j])
    t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x)**3) == 1, iters=30)
    O[i,f] = relu(S[i,j] - t[i])**3 * V[j,f]""",
    lambda x: root(x, scaled(x), 3.0),
)
add(
    "un_solve_budget",
    QKV,
    f"{O}, t[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    t[i] = solve[x : -60 <= x <= 60](sum[j](sigmoid(S[i,j] - x)) == 0.7, iters=60)
    O[i,f] = sigmoid(S[i,j] - t[i]) * V[j,f]""",
    lambda x: budget(x),
)


def root(x: SimpleNamespace, s: Tensor, power: float) -> Tensor:
    s = s.masked_fill(~causal(x), -torch.inf)
    hi = s.detach().amax(-1, True)
    lo = hi - 1
    for _ in range(80):
        mid = (lo + hi) / 2
        over = torch.relu(s.detach() - mid).pow(power).sum(-1, True) > 1
        lo, hi = torch.where(over, mid, lo), torch.where(over, hi, mid)
    t = (lo + hi) / 2
    f = torch.relu(s - t).pow(power).sum(-1, True) - 1
    slope = power * torch.relu(s.detach() - t).pow(power - 1).sum(-1, True)
    t = t + (f - f.detach()) / slope
    return weigh(torch.relu(s - t).pow(power), x.V)


def budget(x: SimpleNamespace) -> tuple[Tensor, Tensor]:
    s = scaled(x).masked_fill(~causal(x), -torch.inf)
    lo, hi = torch.full_like(s[..., :1], -60), torch.full_like(s[..., :1], 60)
    for _ in range(90):
        mid = (lo + hi) / 2
        over = torch.sigmoid(s.detach() - mid).sum(-1, True) > 0.7
        lo, hi = torch.where(over, mid, lo), torch.where(over, hi, mid)
    t = ((lo + hi) / 2).detach()
    f = torch.sigmoid(s - t).sum(-1, True)
    p = torch.sigmoid(s.detach() - t)
    t = t + (f - f.detach()) / (p * (1 - p)).sum(-1, True)
    return weigh(torch.sigmoid(s - t), x.V), t[..., 0]


# --- outputs -----------------------------------------------------------------------------------

add(
    "un_mass_in_window",
    QKV,
    f"{O}, W[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    W[i] = sum[j : i - j < 4](P[i,j])
    O[i,f] = P[i,j] * V[j,f]""",
    lambda x: (
        shared(x, scaled(x), causal(x)),
        masked(softmax(scaled(x), causal(x)), x.i - x.j < 4).sum(-1),
    ),
)
add(
    "un_expected_position",
    QKV,
    "O[b,h,i,f], m[b,h,i], v[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    m[i] = sum[j](P[i,j] * j)
    v[i] = sum[j](P[i,j] * (j - m[i])**2)
    O[i,f] = P[i,j] * V[j,f]""",
    lambda x: moments(x),
)
add(
    "un_received_mass",
    QKV,
    "O[b,h,i,f], c[b,h,j]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    c[j] = sum[i](P[i,j]**2)
    O[i,f] = P[i,j] * V[j,f]""",
    lambda x: (
        shared(x, scaled(x), causal(x)),
        (softmax(scaled(x), causal(x)) ** 2).sum(-2),
    ),
)
add(
    "un_sum_over_everything",
    QKV,
    "y[b,h]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * V[j,f]
    y = sum[i,f](O[i,f]**2)""",
    lambda x: shared(x, scaled(x), causal(x)).pow(2).sum((-1, -2)),
)
add(
    "un_residual_output",
    f"{QKV}, X[b,h,i,f], g[f]",
    O,
    f"""S[i,j] = {DOT} where j <= i
    Y[i,f] = softmax[j](S[i,j]) * V[j,f] + X[i,f]
    r[i] = rsqrt(sum[f](Y[i,f]**2) / |f| + 1e-5)
    O[i,f] = Y[i,f] * r[i] * (1 + g[f])""",
    lambda x: (lambda y: y * (y.pow(2).mean(-1, True) + 1e-5).rsqrt() * (1 + x.g))(
        shared(x, scaled(x), causal(x)) + x.X
    ),
)
add(
    "un_sign_by_feature",
    f"{QKV}, T[f]",
    O,
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f] * (T[f] if f % 2 == 0 else -T[f])""",
    lambda x: shared(x, scaled(x), causal(x)) * x.T * torch.where(torch.arange(6) % 2 == 0, 1, -1),
)
add(
    "un_query_own_value",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](S[i,j]) * (V[j,f] - V[i,f])""",
    lambda x: shared(x, scaled(x), causal(x)) - x.V,
)
add(
    "un_no_self_correction",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    Y[i,f] = P[i,j] * V[j,f]
    O[i,f] = Y[i,f] - V[i,f] * sum[g](Y[i,g] * V[i,g]) / (sum[g](V[i,g]**2) + 1e-4)""",
    lambda x: (lambda y: y - x.V * (y * x.V).sum(-1, True) / (x.V.pow(2).sum(-1, True) + 1e-4))(
        shared(x, scaled(x), causal(x))
    ),
)


def moments(x: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor]:
    p = softmax(scaled(x), causal(x))
    m = (p * x.j).sum(-1, True)
    return weigh(p, x.V), m[..., 0], (p * (x.j - m) ** 2).sum(-1)


# --- gathers, index arithmetic ---------------------------------------------------------------------

add(
    "un_gather_of_gather",
    f"{QKV}, a[b,j]: int, c[r]: int, T[h,u]",
    O,
    f"""S[i,j] = {DOT} + T[c[a[j]]] where j <= i
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x) + x.T[:, x.c[x.a]].transpose(0, 1)[:, :, None, :], causal(x)),
    sizes={"r": 4, "u": 4},
)
add(
    "un_keys_reversed",
    QKV,
    O,
    """S[i,j] = Q[i,e] * K[|j| - 1 - j, e] / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: shared(x, einsum("bhie,bhje->bhij", x.Q, x.K.flip(-2)) / math.sqrt(x.n_e), causal(x)),
)
add(
    "un_repeated_keys",
    "Q[b,h,i,e], K[b,h,n,e], V[b,h,n,f], r: int = 2",
    O,
    """rank j = r * |n|
    S[i,j] = Q[i,e] * K[j // r, e] / sqrt(|e|) + 0.1 * (j % r)
    O[i,f] = softmax[j](S[i,j]) * V[j // r, f]""",
    lambda x: weigh(
        softmax(
            einsum("bhie,bhje->bhij", x.Q, x.K.repeat_interleave(2, -2)) / math.sqrt(x.n_e)
            + 0.1 * (torch.arange(2 * x.n_n) % 2)
        ),
        x.V.repeat_interleave(2, -2),
    ),
)
add(
    "un_pooled_keys",
    QKV,
    O,
    """rank p = |j| // 4
    rank r = 4
    k[p,e] = sum[r](K[p*4 + r, e]) / 4
    v[p,f] = sum[r](V[p*4 + r, f]) / 4
    S[i,p] = Q[i,e] * k[p,e] / sqrt(|e|) where p * 4 + 3 <= i
    O[i,f] = softmax[p](S[i,p]) * v[p,f]""",
    lambda x: pooled(x),
    sizes={"i": 20, "j": 20},
)
add(
    "un_tied_key_value",
    "Q[b,h,i,e], K[b,h,j,e]",
    "O[b,h,i,e]",
    """S[i,j] = Q[i,a] * K[j,a] / sqrt(|a|) where j <= i
    O[i,e] = softmax[j](S[i,j]) * K[j,e]""",
    lambda x: weigh(softmax(scaled(x), causal(x)), x.K),
)
add(
    "un_half_features",
    QKV,
    O,
    """rank c = |e| // 2
    S[i,j] = (Q[i,c + 0] * K[j,c + 0] - Q[i,c + |c|] * K[j,c + |c|]) / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: shared(
        x,
        (
            einsum("bhie,bhje->bhij", x.Q[..., :4], x.K[..., :4])
            - einsum("bhie,bhje->bhij", x.Q[..., 4:], x.K[..., 4:])
        )
        / math.sqrt(x.n_e),
        causal(x),
    ),
)
add(
    "un_toeplitz_of_blocks",
    f"{QKV}, T[h,r]",
    O,
    f"""S[i,j] = {DOT} + T[max(i // 3 - j // 3, 0)] where j <= i
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x) + x.T[:, (x.i // 3 - x.j // 3).clamp(min=0)], causal(x)),
    sizes={"r": 7},
)
add(
    "un_ragged_queries",
    f"{QKV}, lq[b]: int, lk[b]: int",
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} where i <= 5 * lq, j <= 5 * lk
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (
        shared(x, scaled(x), ragged(x)),
        lse(scaled(x), ragged(x)),
    ),
)


def ragged(x: SimpleNamespace) -> Tensor:
    keep: Tensor = (x.i <= 5 * x.lq[:, None, None, None]) & (x.j <= 5 * x.lk[:, None, None, None])
    return keep


def pooled(x: SimpleNamespace) -> Tensor:
    k, v = x.K.unflatten(-2, (-1, 4)).mean(-2), x.V.unflatten(-2, (-1, 4)).mean(-2)
    s = einsum("bhie,bhje->bhij", x.Q, k) / math.sqrt(x.n_e)
    return weigh(softmax(s, torch.arange(x.n_j // 4) * 4 + 3 <= x.i), v)


# --- scans, recurrences ----------------------------------------------------------------------------

add(
    "un_gate_between",
    f"{QKV}, g[b,h,l]",
    O,
    f"""S[i,j] = {DOT} + sum[l : j < l <= i](logsigmoid(g[l])) where j <= i
    {SOFTMAX}""",
    lambda x: shared(
        x,
        scaled(x) + (lambda c: c[..., :, None] - c[..., None, :])(fn.logsigmoid(x.g).cumsum(-1)),
        causal(x),
    ),
    sizes={"l": 19},
)
add(
    "un_running_mean_keys",
    QKV,
    O,
    """k[j,e] = sum[l : l <= j](K[l,e]) / (j + 1)
    S[i,j] = Q[i,e] * k[j,e] / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: shared(
        x,
        einsum("bhie,bhje->bhij", x.Q, x.K.cumsum(-2) / (torch.arange(19)[:, None] + 1))
        / math.sqrt(x.n_e),
        causal(x),
    ),
)
add(
    "un_scan_backward",
    f"{QKV}, g[b,h,j]",
    O,
    f"""C[j] = sum[l : l >= j](g[l])
    S[i,j] = {DOT} + C[j] where j >= i
    {SOFTMAX}""",
    lambda x: shared(x, scaled(x) + x.g.flip(-1).cumsum(-1).flip(-1)[..., None, :], x.j >= x.i),
)
add(
    "un_decay_recurrence",
    "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], g[b,h,t]",
    "O[b,h,t,f]",
    """a[t] = sigmoid(g[t])
    H[t,e,f] = a[t] * H[t-1,e,f] + (1 - a[t]) * K[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    lambda x: recur(x, torch.sigmoid(x.g), 1 - torch.sigmoid(x.g)),
    sizes={"t": 19},
)
add(
    "un_recurrence_read_before",
    "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]",
    "O[b,h,t,f]",
    """H[t,e,f] = 0.9 * H[t-1,e,f] + K[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t-1,e,f]""",
    lambda x: recur(x, torch.full_like(x.Q[..., 0], 0.9), 1.0, before=True),
    sizes={"t": 19},
)
add(
    "un_recurrence_backward",
    "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]",
    "O[b,h,t,f]",
    """H[t,e,f] = 0.8 * H[t+1,e,f] + K[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    lambda x: recur(
        SimpleNamespace(Q=x.Q.flip(-2), K=x.K.flip(-2), V=x.V.flip(-2)),
        torch.full_like(x.Q[..., 0], 0.8),
        1.0,
    ).flip(-2),
    sizes={"t": 19},
)
add(
    "un_recurrence_init",
    "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], H0[b,h,e,f]",
    "O[b,h,t,f], F[b,h,e,f]",
    """H[t,e,f] = 0.7 * H[t-1,e,f] + K[t,e] * V[t,f] init H0[e,f]
    O[t,f] = Q[t,e] * H[t,e,f]
    F[e,f] = H[|t|-1,e,f]""",
    lambda x: with_last(x),
    sizes={"t": 19},
)
add(
    "un_linear_normalised",
    QKV,
    O,
    """q[i,e] = exp(min(Q[i,e], 3))
    k[j,e] = exp(min(K[j,e], 3))
    A[i,j] = q[i,e] * k[j,e] where j < i
    O[i,f] = A[i,j] / (1 + sum[j](A[i,j])) * V[j,f]""",
    lambda x: linear(x),
)


def recur(x: SimpleNamespace, a: Tensor, b: Any, before: bool = False) -> Tensor:
    h = torch.zeros(*x.Q.shape[:2], x.Q.shape[-1], x.V.shape[-1], dtype=x.Q.dtype)
    if hasattr(x, "H0"):
        h = x.H0
    rows = []
    for t in range(x.Q.shape[2]):
        new = a[..., t, None, None] * h + (
            b[..., t, None, None] if isinstance(b, Tensor) else b
        ) * (x.K[..., t, :, None] * x.V[..., t, None, :])
        rows.append(einsum("bhe,bhef->bhf", x.Q[..., t, :], h if before else new))
        h = new
    x.last = h
    return torch.stack(rows, -2)


def with_last(x: SimpleNamespace) -> tuple[Tensor, Tensor]:
    out = recur(x, torch.full_like(x.Q[..., 0], 0.7), 1.0)
    return out, x.last


def linear(x: SimpleNamespace) -> Tensor:
    a = einsum("bhie,bhje->bhij", x.Q.clamp(max=3).exp(), x.K.clamp(max=3).exp())
    a = masked(a, x.j < x.i)
    return weigh(a / (1 + a.sum(-1, True)), x.V)


# --- start ----------------------------------------------------------------------------------------

for label, start in (("end", "end"), ("number", 7), ("tensor", torch.tensor([3, 11]))):
    add(
        f"un_start_{label}_mod",
        f"{QKV}, T[h,r]",
        f"{O}, L[b,h,i]",
        f"""S[i,j] = {DOT} + T[(i + j) % 4] where j <= i, (i - j) % 5 != 2
        {SOFTMAX}
        L[i] = logsumexp[j](S[i,j])""",
        lambda x: (
            shared(x, scaled(x) + started(x), causal(x) & ((x.i - x.j) % 5 != 2)),
            lse(scaled(x) + started(x), causal(x) & ((x.i - x.j) % 5 != 2)),
        ),
        sizes={"i": 4, "j": 19, "r": 4},
        start=start,
    )


def started(x: SimpleNamespace) -> Tensor:
    at = (x.i + x.j) % 4
    if at.dim() == 2:
        return x.T[:, at]  # [h, i, j]
    return x.T[:, at[:, 0]].transpose(0, 1)


# --- odd sizes --------------------------------------------------------------------------------------

for e, f in ((1, 1), (3, 5), (17, 33)):
    add(
        f"un_head_dims_{e}_{f}",
        QKV,
        O,
        f"""S[i,j] = {DOT} where j <= i
        {SOFTMAX}""",
        lambda x: shared(x, scaled(x), causal(x)),
        sizes={"e": e, "f": f},
    )

UNPLANNED = {name: case for name, case in CASES.items() if name.startswith("un_")}
