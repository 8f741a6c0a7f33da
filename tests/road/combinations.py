"""Unusual combinations of the language's forms, each with a reference written by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace as X

import torch
from torch import Tensor, einsum

from tests.road.case import (
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

GQA = "Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int"
GROUPED = {"h": 4}


def grouped(x: X) -> X:
    """The same with one head of keys for each head of queries."""
    x.K, x.V = x.K.repeat_interleave(2, 1), x.V.repeat_interleave(2, 1)
    return x


def causal(x: X) -> Tensor:
    keep: Tensor = x.j <= x.i
    return keep


def per_head(t: Tensor) -> Tensor:
    return t[None, :, None, None]


# --- grouped heads, windows, sinks -------------------------------------------------------------


def window_sinks(x: X) -> tuple[Tensor, Tensor]:
    x = grouped(x)
    keep = causal(x) & ((x.i - x.j < 5) | (x.j < 2))
    s = masked(scaled(x), keep, -torch.inf)
    s = torch.cat([s, per_head(x.sink).expand(x.n_b, -1, x.n_i, 1)], -1)
    return weigh(torch.softmax(s, -1)[..., :-1], x.V), torch.logsumexp(s, -1)


add(
    "co_grouped_window_sinks",
    f"{GQA}, sink[h], w: int = 5, n0: int = 2",
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i, i - j < w or j < n0
    M[i] = max(sink, max[j](S[i,j]))
    P[i,j] = exp(S[i,j] - M[i])
    Z[i] = exp(sink - M[i]) + sum[j](P[i,j])
    O[i,f] = P[i,j] / Z[i] * V[j,f]
    L[i] = M[i] + log(Z[i])""",
    window_sinks,
    sizes=GROUPED,
    params={"G": 2},
)
add(
    "co_window_of_each_group",
    f"{GQA}, w[h//G]: int",
    O,
    f"""S[i,j] = {DOT} where 0 <= i - j <= w
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(grouped(x)),
            causal(x) & (x.i - x.j <= per_head(x.w.repeat_interleave(2, 0))),
        ),
        x.V,
    ),
    sizes=GROUPED,
    params={"G": 2},
)
add(
    "co_two_groupings",
    "Q[b,h,i,e], K[b,h//G,j,e], V[b,h//A,j,f], G: int, A: int",
    O,
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(scaled(X(Q=x.Q, K=x.K.repeat_interleave(2, 1), n_e=x.n_e)), causal(x)),
        x.V.repeat_interleave(4, 1),
    ),
    sizes=GROUPED,
    params={"G": 2, "A": 4},
)
add(
    "co_one_head_of_keys_for_a_batch_of_queries",
    "Q[b,h,i,e], K[j,e], V[h,j,f]",
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT}
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (
        einsum(
            "bhij,hjf->bhif",
            softmax(einsum("bhie,je->bhij", x.Q, x.K) / math.sqrt(x.n_e)),
            x.V,
        ),
        torch.logsumexp(einsum("bhie,je->bhij", x.Q, x.K) / math.sqrt(x.n_e), -1),
    ),
    sizes={"j": 23},
)

# --- gathers -----------------------------------------------------------------------------------

add(
    "co_bias_by_two_ids",
    f"{QKV}, T[h,p,q], x[b,i]: int, y[b,j]: int",
    O,
    f"""S[i,j] = {DOT} + T[x[i], y[j]] where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(scaled(x) + x.T[:, x.x[:, :, None], x.y[:, None, :]].transpose(0, 1), causal(x)),
        x.V,
    ),
    sizes={"p": 4, "q": 5},
)
add(
    "co_bias_by_place_and_kind_of_head",
    f"{QKV}, T[p,q], x[b,i]: int, y[h]: int",
    O,
    f"""S[i,j] = {DOT} + T[x[i], y] * (i - j) where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x) + x.T[x.x[:, None, :], x.y[None, :, None]][..., None] * (x.i - x.j),
            causal(x),
        ),
        x.V,
    ),
    sizes={"p": 4, "q": 4},
)
add(
    "co_slope_by_two_ids_and_distance",
    f"{QKV}, T[p,q], x[b,n]: int",
    O,
    f"""S[i,j] = {DOT} - softplus(T[x[i], x[j]]) * abs(i - j)
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x)
            - torch.nn.functional.softplus(x.T)[x.x[:, :, None], x.x[:, None, :]][:, None]
            * (x.i - x.j).abs()
        ),
        x.V,
    ),
    sizes={"p": 4, "q": 4},
)
add(
    "co_rows_by_two_ids",
    f"{QKV}, R[p,q,e], x[b,i]: int, y[b,j]: int",
    O,
    f"""S[i,j] = {DOT} + Q[i,e] * R[x[i], y[j], e] where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x) + einsum("bhie,bije->bhij", x.Q, x.R[x.x[:, :, None], x.y[:, None, :]]),
            causal(x),
        ),
        x.V,
    ),
    sizes={"p": 4, "q": 4},
)
add(
    "co_permuted_values",
    "Q[b,h,i,e], K[b,h,j,e], V[b,h,n,f], p[b,j]: int",
    O,
    f"""S[i,j] = {DOT}
    O[i,f] = softmax[j](S[i,j]) * V[p[j], f]""",
    lambda x: weigh(softmax(scaled(x)), torch.stack([x.V[k][:, x.p[k]] for k in range(x.n_b)])),
    sizes={"n": 4},
)
add(
    "co_gathered_queries",
    "Q[b,h,n,e], K[b,h,j,e], V[b,h,j,f], p[i]: int",
    O,
    f"""S[i,j] = Q[p[i], e] * K[j,e] / sqrt(|e|)
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(einsum("bhie,bhje->bhij", x.Q[:, :, x.p], x.K) / math.sqrt(x.n_e)), x.V
    ),
    sizes={"n": 4, "j": 11},
)
add(
    "co_selected_blocks",
    "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], s[b,i,c]: int, w: int = 4",
    O,
    """rank r = w
    S[i,c,r] = Q[i,e] * K[s[i,c]*w + r, e] / sqrt(|e|)
    O[i,f] = softmax[c,r](S[i,c,r]) * V[s[i,c]*w + r, f]""",
    lambda x: torch.stack(
        [
            torch.stack(
                [
                    (
                        lambda rows: einsum(
                            "hj,hjf->hf",
                            softmax(
                                einsum("he,hje->hj", x.Q[k, :, i], x.K[k][:, rows])
                                / math.sqrt(x.n_e)
                            ),
                            x.V[k][:, rows],
                        )
                    )((x.s[k, i][:, None] * 4 + torch.arange(4)).flatten())
                    for i in range(x.n_i)
                ],
                1,
            )
            for k in range(x.n_b)
        ]
    ),
    sizes={"j": 16, "c": 3, "i": 9},
)
add(
    "co_toeplitz_in_a_window",
    f"{QKV}, R[h,d,e], w: int = 6",
    O,
    f"""S[i,j] = {DOT} + Q[i,e] * R[i - j, e] where 0 <= i - j < w
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x) + einsum("bhie,hije->bhij", x.Q, x.R[:, (x.i - x.j).clamp(0, 5)]),
            causal(x) & (x.i - x.j < 6),
        ),
        x.V,
    ),
    sizes={"d": 6},
)

# --- several outputs ---------------------------------------------------------------------------


def many(x: X) -> tuple[Tensor, ...]:
    s = scaled(x)
    p = softmax(s, causal(x))
    log_p = torch.where(p > 0, torch.log(torch.where(p > 0, p, 1.0)), 0.0)
    return (
        weigh(p, x.V),
        weigh(p, x.U),
        lse(s, causal(x)),
        -(p * log_p).sum(-1),
        p.sum(-2),
        (p * x.j).sum(-1),
    )


add(
    "co_six_outputs",
    f"{QKV}, U[b,h,j,g]",
    f"{O}, W[b,h,i,g], L[b,h,i], H[b,h,i], c[b,h,j], m[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * V[j,f]
    W[i,g] = P[i,j] * U[j,g]
    L[i] = logsumexp[j](S[i,j])
    H[i] = L[i] - sum[j](P[i,j] * S[i,j])
    c[j] = sum[i](P[i,j])
    m[i] = P[i,j] * j""",
    many,
    sizes={"g": 3},
)
add(
    "co_weights_and_their_square",
    QKV,
    f"{O}, W[b,h,i,j], q[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    W[i,j] = softmax[j](S[i,j])
    O[i,f] = W[i,j] * V[j,f]
    q[i] = sum[j](W[i,j]**2)""",
    lambda x: (lambda p: (weigh(p, x.V), p, (p * p).sum(-1)))(softmax(scaled(x), causal(x))),
)
add(
    "co_values_by_key_and_query",
    QKV,
    f"{O}, U[b,h,j,f]",
    f"""S[i,j] = {DOT}
    {SOFTMAX}
    U[j,f] = softmax[i](S[i,j]) * V[i,f]""",
    lambda x: (
        weigh(softmax(scaled(x)), x.V),
        einsum("bhij,bhif->bhjf", torch.softmax(scaled(x), -2), x.V),
    ),
)
add(
    "co_slots",
    QKV,
    O,
    f"""S[i,j] = {DOT}
    A[i,j] = softmax[i](S[i,j]) + 1e-3
    O[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]""",
    lambda x: weigh(ratio(torch.softmax(scaled(x), -2) + 1e-3), x.V),
    sizes={"i": 5, "j": 21},
)

# --- scans and filters -------------------------------------------------------------------------

add(
    "co_forgetting_in_a_window",
    f"{GQA}, g[b,h,j]",
    f"{O}, L[b,h,i]",
    f"""assume g <= 0
    C[j] = sum[l : l <= j](g[l])
    S[i,j] = 20 * tanh({DOT} / 20) + C[i] - C[j] where 0 <= i - j < 7
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (lambda s, keep: (weigh(softmax(s, keep), x.V), lse(s, keep)))(
        20 * torch.tanh(scaled(grouped(x)) / 20)
        + x.g.cumsum(-1)[..., :, None]
        - x.g.cumsum(-1)[..., None, :],
        causal(x) & (x.i - x.j < 7),
    ),
    sizes=GROUPED,
    params={"G": 2},
    make={"g": lambda x, g: -torch.rand((x.b, x.h, x.j), generator=g, dtype=torch.float64)},
)
add(
    "co_scan_backward",
    f"{QKV}, g[b,h,j]",
    O,
    f"""C[j] = sum[l : l > j](g[l])
    S[i,j] = {DOT} + C[j] where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(scaled(x) + (x.g.sum(-1, keepdim=True) - x.g.cumsum(-1))[..., None, :], causal(x)),
        x.V,
    ),
)
add(
    "co_scan_of_the_same_parity",
    f"{QKV}, g[b,h,j]",
    O,
    f"""C[j] = sum[l : l <= j and (j - l) % 2 == 0](g[l])
    S[i,j] = {DOT} + C[j] where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x)
            + einsum(
                "bhl,jl->bhj",
                x.g,
                ((x.j <= x.j.mT) & ((x.j.mT - x.j) % 2 == 0)).double(),
            )[..., None, :],
            causal(x),
        ),
        x.V,
    ),
)
add(
    "co_sum_in_a_moving_window",
    f"{QKV}, g[b,h,j], w: int = 4",
    O,
    f"""C[j] = sum[l : j - w < l <= j](g[l]) / w
    S[i,j] = {DOT} * C[j] where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x)
            * einsum(
                "bhl,jl->bhj",
                x.g,
                ((x.j <= x.j.mT) & (x.j > x.j.mT - 4)).double(),
            )[..., None, :]
            / 4,
            causal(x),
        ),
        x.V,
    ),
)
add(
    "co_sum_between_key_and_query",
    f"{QKV}, g[b,h,j]",
    O,
    f"""S[i,j] = {DOT} - sum[l : j < l <= i](softplus(g[l])) where j <= i
    {SOFTMAX}""",
    lambda x: (
        lambda c: weigh(softmax(scaled(x) - c[..., :, None] + c[..., None, :], causal(x)), x.V)
    )(torch.nn.functional.softplus(x.g).cumsum(-1)),
)
add(
    "co_sum_strictly_between",
    f"{QKV}, g[b,h,j]",
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} - sum[l : j < l < i and l % 2 == 0](g[l]) where abs(i - j) < 9
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (lambda s, keep: (weigh(softmax(s, keep), x.V), lse(s, keep)))(
        scaled(x)
        - einsum(
            "bhl,ijl->bhij",
            x.g,
            (
                (torch.arange(x.n_j) > x.j[..., None])
                & (torch.arange(x.n_j) < x.i[..., None])
                & (torch.arange(x.n_j) % 2 == 0)
            ).double(),
        ),
        (x.i - x.j).abs() < 9,
    ),
)
add(
    "co_sum_between_at_a_start",
    f"{QKV}, g[b,h,j]",
    O,
    f"""S[i,j] = {DOT} * (1 + sum[l : j <= l and i >= l](g[l]))
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x)
            * (
                1
                + einsum(
                    "bhl,ijl->bhij",
                    x.g,
                    (
                        (torch.arange(x.n_j) >= x.j[..., None])
                        & (torch.arange(x.n_j) <= x.i[..., None])
                    ).double(),
                )
            )
        ),
        x.V,
    ),
    sizes={"i": 3},
    start="end",
)
add(
    "co_count_of_a_filter",
    f"{QKV}, d[b,n]: int",
    O,
    f"""y[i] = sum[j : d[j] == d[i] and j <= i](1)
    S[i,j] = {DOT} * log(y[i] + 1) where j <= i, d[i] == d[j]
    {SOFTMAX}""",
    lambda x: (
        lambda keep: weigh(
            softmax(scaled(x) * torch.log(keep.sum(-1, keepdim=True) + 1.0), keep), x.V
        )
    )(((x.d[:, :, None] == x.d[:, None, :]) & causal(x))[:, None]),
)
add(
    "co_filter_with_arithmetic",
    QKV,
    f"{O}, a[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    a[i] = sum[j : 2 * j >= i and (i + j) % 3 != 1](S[i,j])
    O[i,f] = softmax[j](S[i,j]) * V[j,f] + a[i]""",
    lambda x: (lambda a: (weigh(softmax(scaled(x), causal(x)), x.V) + a[..., None], a))(
        masked(scaled(x), causal(x) & (2 * x.j >= x.i) & ((x.i + x.j) % 3 != 1)).sum(-1)
    ),
    start=0,
)
add(
    "co_running_maximum",
    f"{QKV}, g[b,h,j]",
    O,
    f"""C[j] = max[l : l <= j](g[l])
    S[i,j] = {DOT} + g[j] - C[j] where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(scaled(x) + (x.g - x.g.cummax(-1).values)[..., None, :], causal(x)), x.V
    ),
)

# --- starts ------------------------------------------------------------------------------------

for word, start in (
    ("number", 4),
    ("end", "end"),
    ("tensor", torch.tensor([0, 9])),
):
    add(
        f"co_start_by_{word}",
        f"{GQA}, slope[h], w: int = 8",
        f"{O}, L[b,h,i]",
        f"""S[i,j] = {DOT} - slope * abs(i - j) where i - w < j <= i + 2
        {SOFTMAX}
        L[i] = logsumexp[j](S[i,j])""",
        lambda x: (lambda s, keep: (weigh(softmax(s, keep), x.V), lse(s, keep)))(
            scaled(grouped(x)) - per_head(x.slope) * (x.i - x.j).abs(),
            (x.j > x.i - 8) & (x.j <= x.i + 2),
        ),
        sizes={"h": 4, "i": 3, "j": 23},
        params={"G": 2},
        start=start,
    )
add(
    "co_start_beyond_the_keys",
    QKV,
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} where i - j < 12, j <= i
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (lambda s, keep: (weigh(softmax(s, keep), x.V), lse(s, keep)))(
        scaled(x), (x.i - x.j < 12) & causal(x)
    ),
    sizes={"i": 9, "j": 7},
    start=6,
)
add(
    "co_start_and_a_table_of_rows",
    f"{QKV}, R[h,j,e]",
    O,
    f"""S[i,j] = {DOT} + Q[i,e] * R[i - j, e] where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x) + einsum("bhie,hije->bhij", x.Q, x.R[:, (x.i - x.j).clamp(0)]), causal(x)
        ),
        x.V,
    ),
    sizes={"i": 2, "j": 17},
    start="end",
)

# --- layouts -----------------------------------------------------------------------------------

add(
    "co_features_first",
    "Q[e,i,h,b], K[h,e,b,j], V[f,b,j,h]",
    "O[f,i,h,b], L[i,b,h]",
    """S[i,j] = Q[e,i] * K[e,j] / sqrt(|e|) where j <= i
    O[f,i] = softmax[j](S[i,j]) * V[f,j]
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (
        lambda s: (
            einsum("bhij,fbjh->fihb", softmax(s, causal(x)), x.V),
            lse(s, causal(x)).permute(2, 0, 1),
        )
    )(einsum("eihb,hebj->bhij", x.Q, x.K) / math.sqrt(x.n_e)),
)
add(
    "co_transposed_keys",
    "Q[b,i,h,e], K[b,h//G,e,j], V[b,j,h//G,f], G: int",
    "O[b,i,h,f], c[j,b,h]",
    """P[i,j] = softmax[j](Q[i,e] * K[e,j] / sqrt(|e|))
    O[i,f] = P[i,j] * V[j,f]
    c[j] = max[i](P[i,j])""",
    lambda x: (
        lambda p: (
            einsum("bhij,bjhf->bihf", p, x.V.repeat_interleave(2, 2)),
            p.amax(-2).permute(2, 0, 1),
        )
    )(softmax(einsum("bihe,bhej->bhij", x.Q, x.K.repeat_interleave(2, 1)) / math.sqrt(x.n_e))),
    sizes={"h": 4, "i": 11, "j": 14},
    params={"G": 2},
)
for length in ((1, 1), (2, 2), (1, 17), (17, 129), (129, 2)):
    add(
        f"co_lengths_{length[0]}_{length[1]}",
        f"{QKV}, B[h,i,j]",
        f"{O}, L[b,h,i]",
        f"""S[i,j] = {DOT} + B[i,j]
        {SOFTMAX}
        L[i] = logsumexp[j](S[i,j])""",
        lambda x: (lambda s: (weigh(softmax(s), x.V), torch.logsumexp(s, -1)))(scaled(x) + x.B),
        sizes={"i": length[0], "j": length[1]},
    )
for e, f in ((40, 72), (100, 16), (192, 40), (16, 100), (1, 1)):
    add(
        f"co_head_dims_{e}_{f}",
        QKV,
        O,
        f"""S[i,j] = {DOT} where j <= i
        O[i,f] = relu(S[i,j])**2 * V[j,f] + softmax[j](S[i,j]) * V[j,f]""",
        lambda x: weigh(
            masked(torch.relu(scaled(x)) ** 2, causal(x)) + softmax(scaled(x), causal(x)), x.V
        ),
        sizes={"e": e, "f": f},
    )

# --- factors that are positive by the numbers they lie between -----------------------------------

add(
    "co_running_product_of_open_gates",
    f"{QKV}, g[b,h,j]",
    O,
    """C[i,j] = prod[l : j < l <= i](1 - 0.9 * sigmoid(g[l]))
    A[i,j] = C[i,j] * (Q[i,e] * K[j,e])   where j <= i
    O[i,f] = A[i,j] * V[j,f]""",
    lambda x: (
        lambda c: weigh(
            masked(torch.exp(c[..., :, None] - c[..., None, :]), x.j <= x.i)
            * einsum("bhie,bhje->bhij", x.Q, x.K),
            x.V,
        )
    )(torch.log(1 - 0.9 * torch.sigmoid(x.g)).cumsum(-1)),
)

add(
    "co_many_terms_side_by_side",
    QKV,
    O,
    f"""S[i,j] = ({DOT}){" + (i - j) / 1024" * 400} where {" or ".join(f"j == i - {2 * k}" for k in range(150))}
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(scaled(x) + 0.390625 * (x.i - x.j), (x.j <= x.i) & ((x.i - x.j) % 2 == 0)), x.V
    ),
)

# --- groups of heads beside all heads, over one sweep ----------------------------------------------


def groups_and_all(x: X) -> Tensor:
    p = torch.exp(-torch.relu(einsum("bhie,bhje->bhij", x.Q, x.K)))
    own = einsum("bhij,bhjf->bhif", p, x.V)
    return own.unflatten(1, (3, 2)).sum(2) + einsum("gh,bhif->bgif", x.W, own)


def groups_and_rests(x: X) -> Tensor:
    p = torch.exp(-torch.relu(einsum("bhie,bhje->bhij", x.Q, x.K)))
    own = einsum("bhij,bhjf->bhif", p, x.V)
    at, g = torch.arange(x.n_h), torch.arange(3)[:, None]
    keep = (at // 2 == g) & (at != 2) & (at % 3 == g)
    return einsum("g,gh,bhif->bgif", x.w, keep.double(), own)


HEADS = "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]"
WEIGHT = "P[h,i,j] = exp(-relu(sum[e](Q[h,i,e] * K[h,j,e])))"
add(
    "co_sum_of_a_group_and_of_all_heads",
    f"{HEADS}, W[g,h]",
    "O[b,g,i,f]",
    f"""{WEIGHT}
    O[g,i,f] = sum[h,j : h // 2 == g](P[h,i,j] * V[h,j,f]) + sum[h,j](W[g,h] * P[h,i,j] * V[h,j,f])""",
    groups_and_all,
    batch="b",
    sizes={"h": 6, "g": 3},
)
add(
    "co_sum_of_some_of_a_group",
    f"{HEADS}, w[g]",
    "O[b,g,i,f]",
    f"""{WEIGHT}
    O[g,i,f] = w[g] * sum[h,j : h // 2 == g and h != 2 and h % 3 == g](P[h,i,j] * V[h,j,f])""",
    groups_and_rests,
    batch="b",
    sizes={"h": 6, "g": 3},
    start=0,
)

# --- empty rows --------------------------------------------------------------------------------


def early(x: X) -> tuple[Tensor, ...]:
    keep = x.j < x.i - 3
    s = scaled(x)
    p = masked(torch.exp(s), keep)
    return (
        weigh(ratio(p), x.V),
        lse(s, keep),
        masked(s, keep, -torch.inf).amax(-1),
        masked(s, keep, torch.inf).amin(-1),
        p.sum(-1),
        masked(torch.tanh(s), keep, 1.0).prod(-1),
    )


add(
    "co_empty_rows",
    QKV,
    f"{O}, L[b,h,i], M[b,h,i], m[b,h,i], Z[b,h,i], p[b,h,i]",
    f"""S[i,j] = {DOT} where j < i - 3
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])
    M[i] = max[j](S[i,j])
    m[i] = min[j](S[i,j])
    Z[i] = sum[j](exp(S[i,j]))
    p[i] = prod[j](tanh(S[i,j]))""",
    early,
)
add(
    "co_empty_rows_off_by_one_in_place",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j < i
    M[i] = max[j](S[i,j])
    P[i,j] = exp(S[i,j] - M[i])
    O[i,f] = P[i,j] / (sum[j](P[i,j]) + exp(-M[i])) * V[j,f]""",
    lambda x: weigh(
        torch.softmax(
            torch.cat(
                [
                    masked(scaled(x), x.j < x.i, -torch.inf),
                    torch.zeros(x.n_b, x.n_h, x.n_i, 1, dtype=x.Q.dtype),
                ],
                -1,
            ),
            -1,
        )[..., :-1],
        x.V,
    ),
)
add(
    "co_empty_rows_off_by_one_by_reciprocals",
    QKV,
    f"{O}, U[b,h,i,f]",
    f"""S[i,j] = {DOT} where j < i, i < 9
    M[i] = max[j](S[i,j])
    P[i,j] = exp(S[i,j] - M[i])
    R[i] = 1 / (exp(-M[i]) + sum[j](P[i,j]))
    O[i,f] = P[i,j] * R[i] * V[j,f]
    L[i] = logsumexp[j](S[i,j])
    U[i,f] = 1 / (1 + exp(-L[i])) * softmax[j](S[i,j]) * V[j,f]""",
    lambda x: (lambda p: (weigh(p / (1 + p.sum(-1, keepdim=True)), x.V),) * 2)(
        masked(torch.exp(scaled(x)), (x.j < x.i) & (x.i < 9))
    ),
)
add(
    "co_empty_rows_off_by_one",
    f"{GQA}, m[b,j]: bool",
    O,
    f"""S[i,j] = {DOT} where 0 < i - j < 4, m[j]
    E[i,j] = exp(S[i,j])
    O[i,f] = E[i,j] / (1 + sum[j](E[i,j])) * V[j,f]""",
    lambda x: (lambda p: weigh(p / (1 + p.sum(-1, keepdim=True)), x.V))(
        masked(
            torch.exp(scaled(grouped(x))),
            (x.i - x.j > 0) & (x.i - x.j < 4) & x.m[:, None, None, :],
        )
    ),
    sizes=GROUPED,
    params={"G": 2},
)
add(
    "co_empty_rows_sparsemax",
    f"{QKV}, m[b,j]: bool",
    O,
    f"""S[i,j] = {DOT} where 0 < i - j < 4, m[j]
    O[i,f] = sparsemax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        sparse(scaled(x), (x.i - x.j > 0) & (x.i - x.j < 4) & x.m[:, None, None, :]), x.V
    ),
)


def sparse(s: Tensor, keep: Tensor) -> Tensor:
    keep = keep.expand_as(s)
    s = s.masked_fill(~keep, -1e9)
    z = s.sort(-1, descending=True).values
    k = torch.arange(1, s.shape[-1] + 1)
    inside = 1 + k * z > z.cumsum(-1)
    count = inside.sum(-1, keepdim=True)
    t = (z.cumsum(-1).gather(-1, count - 1) - 1) / count
    return torch.relu(s - t).masked_fill(~keep, 0.0)


add(
    "co_no_key_for_anyone",
    f"{QKV}, m[b,j]: bool",
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} where m[j]
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (
        weigh(softmax(scaled(x), x.m[:, None, None, :]), x.V),
        lse(scaled(x), x.m[:, None, None, :]),
    ),
    make={"m": lambda x, g: torch.arange(x.b)[:, None].expand(x.b, x.j) == 1},
)

# --- far offsets -------------------------------------------------------------------------------

for c in (300, -300):
    name = "up" if c > 0 else "down"
    add(
        f"co_offset_{name}_by_key",
        f"{QKV}, g[b,h,j]",
        f"{O}, L[b,h,i]",
        f"""S[i,j] = {DOT} + {c} * g[j] where j <= i
        {SOFTMAX}
        L[i] = logsumexp[j](S[i,j])""",
        lambda x, c=c: (lambda s: (weigh(softmax(s, causal(x)), x.V), lse(s, causal(x))))(
            scaled(x) + c * x.g[..., None, :]
        ),
        make={"g": lambda x, g: (torch.rand((x.b, x.h, x.j), generator=g) < 0.5).double()},
    )
    add(
        f"co_offset_{name}_beside_one",
        f"{QKV}, s[h]",
        f"{O}, Z[b,h,i]",
        f"""S[i,j] = {DOT} + {c} where j <= i
        M[i] = max(s, max[j](S[i,j]))
        P[i,j] = exp(S[i,j] - M[i])
        Z[i] = sum[j](P[i,j]) + exp(s - M[i])
        O[i,f] = P[i,j] / Z[i] * V[j,f]""",
        lambda x, c=c: (
            lambda s: (
                weigh(torch.softmax(s, -1)[..., :-1], x.V),
                torch.exp(s - s.amax(-1, keepdim=True)).sum(-1),
            )
        )(
            torch.cat(
                [
                    masked(scaled(x) + c, causal(x), -torch.inf),
                    per_head(x.s).expand(x.n_b, -1, x.n_i, 1),
                ],
                -1,
            )
        ),
    )

# --- several scores ----------------------------------------------------------------------------

add(
    "co_difference_and_norm",
    "Q[b,h,a,i,e], K[b,h,a,j,e], V[b,h,j,f], lam[h]",
    O,
    """S[a,i,j] = Q[a,i,e] * K[a,j,e] / sqrt(|e|) where j <= i
    P[a,i,j] = softmax[j](S[a,i,j])
    D[i,f] = sum[j]((P[0,i,j] - lam * P[1,i,j]) * V[j,f])
    O[i,f] = D[i,f] * rsqrt(sum[f](D[i,f]**2) / |f| + 1e-5)""",
    lambda x: (lambda d: d * torch.rsqrt((d * d).mean(-1, keepdim=True) + 1e-5))(
        (lambda p: weigh(p[:, :, 0] - per_head(x.lam) * p[:, :, 1], x.V))(
            softmax(einsum("bhaie,bhaje->bhaij", x.Q, x.K) / math.sqrt(x.n_e), causal(x))
        )
    ),
    sizes={"a": 2},
)
add(
    "co_two_caches",
    "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], A[b,h,k,e], B[b,h,k,f]",
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,k] = Q[i,e] * A[k,e] / sqrt(|e|)
    M[i] = max(max[j](S[i,j]), max[k](T[i,k]))
    P[i,j] = exp(S[i,j] - M[i])
    R[i,k] = exp(T[i,k] - M[i])
    Z[i] = sum[j](P[i,j]) + sum[k](R[i,k])
    O[i,f] = sum[j](P[i,j] * V[j,f]) / Z[i] + sum[k](R[i,k] * B[k,f]) / Z[i]
    L[i] = M[i] + log(Z[i])""",
    lambda x: (
        lambda s: (
            weigh(torch.softmax(s, -1), torch.cat([x.V, x.B], 2)),
            torch.logsumexp(s, -1),
        )
    )(
        torch.cat(
            [
                masked(scaled(x), causal(x), -torch.inf),
                einsum("bhie,bhke->bhik", x.Q, x.A) / math.sqrt(x.n_e),
            ],
            -1,
        )
    ),
    sizes={"k": 5},
)
add(
    "co_standardised_temperature",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    n[i] = sum[j : j <= i](1)
    m[i] = sum[j](S[i,j]) / n[i]
    v[i] = sum[j]((S[i,j] - m[i])**2) / n[i]
    O[i,f] = softmax[j]((S[i,j] - m[i]) * rsqrt(v[i] + 0.1)) * V[j,f]""",
    lambda x: (
        lambda n, s: (
            lambda m: (lambda v: weigh(softmax((s - m) * torch.rsqrt(v + 0.1), causal(x)), x.V))(
                masked((s - m) ** 2, causal(x)).sum(-1, keepdim=True) / n
            )
        )(masked(s, causal(x)).sum(-1, keepdim=True) / n)
    )(causal(x).sum(-1, keepdim=True), scaled(x)),
)
add(
    "co_chosen_score",
    f"{QKV}, A[b,h,i,g], B[b,h,j,g], z[b,n]: int",
    O,
    f"""S[i,j] = (({DOT}) if z[i] == z[j] else (A[i,g] * B[j,g])) where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            torch.where(
                (x.z[:, :, None] == x.z[:, None, :])[:, None],
                scaled(x),
                einsum("bhig,bhjg->bhij", x.A, x.B),
            ),
            causal(x),
        ),
        x.V,
    ),
    sizes={"g": 3},
)
add(
    "co_largest_difference",
    QKV,
    O,
    f"""S[i,j] = -max[e](abs(Q[i,e] - K[j,e])) where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(-(x.Q[..., :, None, :] - x.K[..., None, :, :]).abs().amax(-1), causal(x)), x.V
    ),
)
add(
    "co_noisy_or",
    QKV,
    f"{O}, p[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    p[i] = 1 - prod[j](1 - sigmoid(S[i,j]))
    O[i,f] = p[i] * sum[j](softmax[j](S[i,j]) * V[j,f])""",
    lambda x: (lambda p: (p[..., None] * weigh(softmax(scaled(x), causal(x)), x.V), p))(
        1 - masked(1 - torch.sigmoid(scaled(x)), causal(x), 1.0).prod(-1)
    ),
)
add(
    "co_floors_of_negatives",
    f"{QKV}, s[h]",
    O,
    f"""S[i,j] = {DOT} + s * ((i - j) // 3) - 0.1 * ((j - 2 * i) % 4) + (-7) // 2
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x)
            + per_head(x.s) * torch.div(x.i - x.j, 3, rounding_mode="floor")
            - 0.1 * torch.remainder(x.j - 2 * x.i, 4)
        ),
        x.V,
    ),
    start=0,
)
add(
    "co_power_of_a_sum",
    QKV,
    f"{O}, c[b,h,j]",
    f"""A[i,j] = (1 + {DOT})**2 * exp(-0.2 * (i - j)) where j <= i
    O[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]
    c[j] = sum[i](A[i,j])""",
    lambda x: (lambda a: (weigh(ratio(a), x.V), a.sum(-2)))(
        masked((1 + scaled(x)) ** 2 * torch.exp(-0.2 * (x.i - x.j).double()), causal(x))
    ),
)
add(
    "co_cauchy",
    f"{QKV}, s[h]",
    O,
    """D[i,j] = sum[e]((Q[i,e] - K[j,e])**2) where j <= i
    A[i,j] = 1 / (s**2 + 0.1 + D[i,j])
    O[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]""",
    lambda x: weigh(
        ratio(
            masked(
                1
                / (
                    per_head(x.s) ** 2
                    + 0.1
                    + (x.Q[..., :, None, :] - x.K[..., None, :, :]).pow(2).sum(-1)
                ),
                causal(x),
            )
        ),
        x.V,
    ),
)

# --- prologues and epilogues -------------------------------------------------------------------


def turned(t: Tensor, theta: Tensor) -> Tensor:
    """Neighbouring pairs of features turned by position times theta."""
    angle = torch.arange(t.shape[-2])[:, None] * theta
    a, b = t[..., 0::2], t[..., 1::2]
    return torch.stack(
        [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1
    ).flatten(-2)


add(
    "co_rotary_pairs",
    f"{QKV}, theta[c]",
    O,
    f"""rank d = |e| // 2
    x[i,d] = Q[i,2*d] * cos(i * theta[d]) - Q[i,2*d+1] * sin(i * theta[d])
    y[i,d] = Q[i,2*d] * sin(i * theta[d]) + Q[i,2*d+1] * cos(i * theta[d])
    u[j,d] = K[j,2*d] * cos(j * theta[d]) - K[j,2*d+1] * sin(j * theta[d])
    v[j,d] = K[j,2*d] * sin(j * theta[d]) + K[j,2*d+1] * cos(j * theta[d])
    S[i,j] = (x[i,d] * u[j,d] + y[i,d] * v[j,d]) / sqrt(|e|) where j <= i
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            einsum("bhie,bhje->bhij", turned(x.Q, x.theta), turned(x.K, x.theta))
            / math.sqrt(x.n_e),
            causal(x),
        ),
        x.V,
    ),
    sizes={"c": 4},
)
add(
    "co_normed_and_gated",
    f"{GQA}, a[e], g[b,h,i,f], R[b,h,i,f]",
    O,
    """q[i,e] = Q[i,e] * rsqrt(sum[e](Q[i,e]**2) / |e| + 1e-6) * a[e]
    k[j,e] = K[j,e] * rsqrt(sum[e](K[j,e]**2) / |e| + 1e-6)
    S[i,j] = q[i,e] * k[j,e] where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = R[i,f] + silu(g[i,f]) * A[i,f]""",
    lambda x: (
        lambda rms: (
            x.R
            + torch.nn.functional.silu(x.g)
            * weigh(
                softmax(einsum("bhie,bhje->bhij", rms(x.Q) * x.a, rms(grouped(x).K)), causal(x)),
                x.V,
            )
        )
    )(lambda t: t * torch.rsqrt((t * t).mean(-1, keepdim=True) + 1e-6)),
    sizes=GROUPED,
    params={"G": 2},
)
add(
    "co_projected_inside",
    "Z[b,n,c], A[h,c,e], B[h,c,e], C[h,c,f], D[h,f,m]",
    "O[b,i,m]",
    """q[h,i,e] = Z[i,c] * A[h,c,e]
    k[h,j,e] = Z[j,c] * B[h,c,e]
    v[h,j,f] = Z[j,c] * C[h,c,f]
    S[h,i,j] = q[h,i,e] * k[h,j,e] / sqrt(|e|) where j <= i
    Y[h,i,f] = softmax[j](S[h,i,j]) * v[h,j,f]
    O[i,m] = sum[h](Y[h,i,f] * D[h,f,m])""",
    lambda x: einsum(
        "bhif,hfm->bim",
        einsum(
            "bhij,bhjf->bhif",
            softmax(
                einsum("bic,hce,bjd,hde->bhij", x.Z, x.A, x.Z, x.B) / math.sqrt(x.n_e),
                causal(x),
            ),
            einsum("bjc,hcf->bhjf", x.Z, x.C),
        ),
        x.D,
    ),
    batch="b",
    sizes={"c": 5, "m": 4},
)
add(
    "co_pooled_keys",
    f"{QKV}, w: int = 4",
    O,
    """rank c = |j| // w, r = w
    k[c,e] = sum[r](K[c*w + r, e]) / w
    v[c,f] = max[r](V[c*w + r, f])
    S[i,c] = Q[i,e] * k[c,e] / sqrt(|e|) where (c + 1) * w <= i + 1
    O[i,f] = softmax[c](S[i,c]) * v[c,f]""",
    lambda x: weigh(
        softmax(
            einsum("bhie,bhce->bhic", x.Q, x.K.unflatten(2, (-1, 4)).mean(3)) / math.sqrt(x.n_e),
            (torch.arange(x.n_j // 4) + 1) * 4 <= x.i + 1,
        ),
        x.V.unflatten(2, (-1, 4)).amax(3),
    ),
    sizes={"i": 20, "j": 20},
)
add(
    "co_mixed_heads_after_softmax",
    "Q[b,h,i,e], K[b,h,j,e], V[b,g,j,f], W[g,h]",
    "O[b,g,i,f]",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    P[h,i,j] = softmax[j](S[h,i,j])
    A[g,i,j] = W[g,h] * P[h,i,j]
    O[g,i,f] = A[g,i,j] * V[g,j,f]""",
    lambda x: einsum("gh,bhij,bgjf->bgif", x.W, softmax(scaled(x), causal(x)), x.V),
    batch="b",
    sizes={"g": 3},
)

for word, batch in (("", "b"), ("_undeclared", "")):
    b = "" if batch else "b,"
    add(
        f"co_mixed_before_and_after{word}",
        "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], W[g,h], U[h,g]",
        O,
        f"""S[{b}h,i,j] = Q[{b}h,i,e] * K[{b}h,j,e] / sqrt(|e|)
        T[{b}g,i,j] = W[g,h] * S[{b}h,i,j] where j <= i
        P[{b}g,i,j] = softmax[j](T[{b}g,i,j])
        R[{b}h,i,j] = U[h,g] * P[{b}g,i,j]
        O[{b}h,i,f] = R[{b}h,i,j] * V[{b}h,j,f]""",
        lambda x: weigh(
            einsum(
                "hg,bgij->bhij",
                x.U,
                softmax(einsum("gh,bhij->bgij", x.W, scaled(x)), causal(x)),
            ),
            x.V,
        ),
        batch=batch,
        sizes={"g": 3},
    )

# --- positions, ids, times ---------------------------------------------------------------------

add(
    "co_times_of_events",
    f"{QKV}, x[b,i], y[b,j], r[h]",
    f"{O}, L[b,h,i]",
    f"""S[i,j] = {DOT} - softplus(r) * (x[i] - y[j]) where y[j] <= x[i]
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    lambda x: (lambda s, keep: (weigh(softmax(s, keep), x.V), lse(s, keep)))(
        scaled(x)
        - per_head(torch.nn.functional.softplus(x.r))
        * (x.x[:, :, None] - x.y[:, None, :])[:, None],
        (x.y[:, None, :] <= x.x[:, :, None])[:, None],
    ),
    sizes={"i": 13},
)
add(
    "co_positions_of_both",
    f"{QKV}, x[b,i]: int, y[b,j]: int",
    O,
    f"""S[i,j] = {DOT} - 0.3 * (x[i] - y[j]) where y[j] <= x[i] < y[j] + 3
    {SOFTMAX}""",
    lambda x: (lambda d: weigh(softmax(scaled(x) - 0.3 * d, (d >= 0) & (d < 3)), x.V))(
        (x.x[:, :, None] - x.y[:, None, :])[:, None]
    ),
    sizes={"i": 8},
)
add(
    "co_prefix_of_each_sequence",
    f"{QKV}, p[b]: int, d[h]: int",
    O,
    f"""S[i,j] = {DOT} where j <= i or j < p, (i - j) % (d + 1) == 0 or j == i - 1
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x),
            (causal(x) | (x.j < x.p[:, None, None, None]))
            & (((x.i - x.j) % (per_head(x.d) + 1) == 0) | (x.j == x.i - 1)),
        ),
        x.V,
    ),
)
add(
    "co_blocks_in_a_band",
    f"{GQA}, w: int = 4",
    O,
    f"""S[i,j] = {DOT} * (1 + log(i + 1) / log(|j|)) where i // w - 2 < j // w <= i // w
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(grouped(x)) * (1 + torch.log(x.i.double() + 1) / math.log(x.n_j)),
            (x.j // 4 <= x.i // 4) & (x.j // 4 > x.i // 4 - 2),
        ),
        x.V,
    ),
    sizes=GROUPED,
    params={"G": 2},
)

# --- states ------------------------------------------------------------------------------------


def phi(t: Tensor) -> Tensor:
    return torch.nn.functional.elu(t) + 1


add(
    "co_linear_both_ways_normalised",
    GQA,
    O,
    """A[i,j] = (elu(Q[i,e]) + 1) * (elu(K[j,e]) + 1)
    O[i,f] = A[i,j] / (sum[j](A[i,j]) + 1e-6) * V[j,f]""",
    lambda x: (lambda a: weigh(a / (a.sum(-1, keepdim=True) + 1e-6), x.V))(
        einsum("bhie,bhje->bhij", phi(x.Q), phi(grouped(x).K))
    ),
    sizes=GROUPED,
    params={"G": 2},
)
add(
    "co_retention_normalised",
    f"{QKV}, g[h]",
    O,
    """assume 0 < g, g < 1
    A[i,j] = Q[i,e] * K[j,e] * g**(i - j) / sqrt(|e|) where j <= i
    n[i] = max(abs(sum[j](A[i,j])), 1)
    O[i,f] = A[i,j] / n[i] * V[j,f]""",
    lambda x: (lambda a: weigh(a / a.sum(-1, keepdim=True).abs().clamp(min=1), x.V))(
        masked(scaled(x) * per_head(x.g) ** (x.i - x.j).clamp(0), causal(x))
    ),
    make={"g": lambda x, g: 0.8 + 0.15 * torch.rand(x.h, generator=g, dtype=torch.float64)},
)


def delta(x: X) -> tuple[Tensor, Tensor]:
    h = x.H0.repeat_interleave(2, 1)
    k, v = x.K.repeat_interleave(2, 1), x.V.repeat_interleave(2, 1)
    out = []
    for t in range(k.shape[2]):
        b = torch.sigmoid(x.beta[:, :, t])[..., None, None]
        a = torch.exp(-torch.nn.functional.softplus(x.g[:, :, t]))[..., None, None]
        kt, vt = k[:, :, t], v[:, :, t]
        h = a * (h - b * kt[..., :, None] * einsum("bhc,bhcf->bhf", kt, h)[..., None, :])
        h = h + b * kt[..., :, None] * vt[..., None, :]
        out.append(einsum("bhe,bhef->bhf", x.Q[:, :, t], h))
    return torch.stack(out, 2), h


add(
    "co_delta_with_groups_and_a_first_state",
    "Q[b,h,t,e], K[b,h//G,t,e], V[b,h//G,t,f], g[b,h,t], beta[b,h,t], H0[b,h//G,e,f], G: int",
    "O[b,h,t,f], F[b,h,e,f]",
    """a[t] = exp(-softplus(g[t]))
    c[t] = sigmoid(beta[t])
    H[t,e,f] = a[t] * (H[t-1,e,f] - c[t] * K[t,e] * (K[t,d] * H[t-1,d,f])) + c[t] * K[t,e] * V[t,f]   init H0[e,f]
    O[t,f] = Q[t,e] * H[t,e,f]
    F[e,f] = H[|t|-1,e,f]""",
    delta,
    sizes={"h": 4, "t": 13},
    params={"G": 2},
    make={
        "K": lambda x, g: (
            0.3 * torch.randn((x.b, x.h // x.G, x.t, x.e), generator=g, dtype=torch.float64)
        )
    },
)


def shared(x: X) -> Tensor:
    k, v = (y.repeat_interleave(x.G, 1) for y in (x.K, x.V))
    h = torch.zeros(x.n_b, x.n_h, x.n_e, x.n_f, dtype=x.Q.dtype)
    out = []
    for t in range(x.n_t):
        h = (
            torch.sigmoid(x.g[:, :, t])[..., None, None] * h
            + k[:, :, t, :, None] * v[:, :, t, None, :]
        )
        out.append(einsum("bhe,bhef->bhf", x.Q[:, :, t], h))
    return torch.stack(out, 2)


# The heads of a group, and no others, are summed into what they share.
add(
    "co_recurrence_of_shared_keys",
    "Q[b,h,t,e], K[b,h//G,t,e], V[b,h//G,t,f], g[b,h,t], G: int",
    "O[b,h,t,f]",
    """H[t,e,f] = sigmoid(g[t]) * H[t-1,e,f] + K[t,e] * V[t,f]   init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    shared,
    sizes={"h": 4, "t": 13},
    params={"G": 2},
)


def shifted(x: X) -> Tensor:
    h = torch.zeros(x.n_b, x.n_h, x.n_e, x.n_f, dtype=x.Q.dtype)
    out = []
    for t in range(x.n_t):
        k = x.K[:, :, t] + (x.K[:, :, t - 1] if t else 0 * x.K[:, :, 0])
        h = torch.sigmoid(x.g[:, :, t])[..., None] * h + k[..., None] * x.V[:, :, t, None, :]
        out.append(einsum("bhe,bhef->bhf", x.Q[:, :, t], h))
    return torch.stack(out, 2)


add(
    "co_recurrence_with_a_shift",
    "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], g[b,h,t,e]",
    "O[b,h,t,f]",
    """k[t,e] = K[t,e] + (K[t-1,e] if t > 0 else 0)
    H[t,e,f] = sigmoid(g[t,e]) * H[t-1,e,f] + k[t,e] * V[t,f]   init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    shifted,
    sizes={"t": 13},
)


def reversed_(x: X) -> Tensor:
    h = torch.zeros(x.n_b, x.n_h, x.n_e, x.n_f, dtype=x.Q.dtype)
    out = []
    for t in reversed(range(x.n_t)):
        h = torch.sigmoid(x.g)[:, None, None] * h + x.K[:, :, t, :, None] * x.V[:, :, t, None, :]
        out.append(einsum("bhe,bhef->bhf", x.Q[:, :, t], h))
    return torch.stack(out[::-1], 2)


add(
    "co_recurrence_backward_in_time",
    "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], g[h]",
    "O[b,h,t,f]",
    """H[t,e,f] = sigmoid(g) * H[t+1,e,f] + K[t,e] * V[t,f]   init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    reversed_,
    sizes={"t": 13},
)

# --- roots, definitions ------------------------------------------------------------------------


def budget(x: X) -> Tensor:
    s = scaled(x)
    keep = causal(x).expand_as(s)
    low, high = torch.full_like(s[..., :1], -40), torch.full_like(s[..., :1], 40)
    for _ in range(100):
        t = (low + high) / 2
        more = masked(torch.sigmoid(s.detach() + t), keep).sum(-1, keepdim=True) > 0.9
        low, high = torch.where(more, low, t), torch.where(more, t, high)
    t = ((low + high) / 2).detach()
    # one Newton step from the root: its value is the root's, its derivative the implicit function's
    p = masked(torch.sigmoid(s + t), keep)
    slope = (p * (1 - p)).sum(-1, keepdim=True).detach()
    t = t - (p.sum(-1, keepdim=True) - 0.9) / slope
    return weigh(masked(torch.sigmoid(s + t), keep), x.V)


add(
    "co_sigmoids_of_a_budget",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
    t[i] = solve[x : -40 <= x <= 40](sum[j](sigmoid(S[i,j] + x)) == 0.9, iters=60)
    O[i,f] = sigmoid(S[i,j] + t[i]) * V[j,f]""",
    budget,
)
