"""Programs with values that move while a sweep runs: domains, scans and products made of maxima and sums."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from tests.road.case import DOT, QKV, SOFTMAX, O, add, masked, ratio, scaled, softmax, weigh


def causal(x: SimpleNamespace) -> Tensor:
    keep: Tensor = x.j <= x.i
    return keep


def weights(x: SimpleNamespace) -> Tensor:
    return softmax(scaled(x), causal(x))


CAUSAL = f"S[i,j] = {DOT} where j <= i"
WEIGHTS = f"{CAUSAL}\n    P[i,j] = softmax[j](S[i,j])"

# --- domains -----------------------------------------------------------------------------------


def near_the_top(x: SimpleNamespace) -> Tensor:
    s = masked(scaled(x), causal(x), -torch.inf)
    return s >= s.detach().amax(-1, keepdim=True) - x.d


add(
    "mv_near_the_maximum",
    f"{QKV}, d: float",
    O,
    f"""{CAUSAL}
    M[i] = max[j](S[i,j])
    T[i,j] = S[i,j] where S[i,j] >= M[i] - d
    O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
    lambda x: weigh(softmax(scaled(x), near_the_top(x)), x.V),
    params={"d": 0.7},
)
add(
    "mv_above_the_mean",
    QKV,
    f"{O}, N[b,h,i]",
    f"""S[i,j] = {DOT}
    M[i] = sum[j](S[i,j]) / |j|
    N[i] = sum[j : S[i,j] > M[i]](exp(S[i,j]))
    T[i,j] = S[i,j] where S[i,j] >= M[i]
    {SOFTMAX.replace("S[", "T[")}""",
    lambda x: (
        weigh(softmax(scaled(x), scaled(x) >= scaled(x).mean(-1, keepdim=True)), x.V),
        masked(scaled(x).exp(), scaled(x) > scaled(x).mean(-1, keepdim=True)).sum(-1),
    ),
)
add(
    "mv_pruned_weights",
    f"{QKV}, least: float",
    O,
    f"""{WEIGHTS}
    R[i,j] = P[i,j] where P[i,j] > least
    O[i,f] = R[i,j] / sum[j](R[i,j]) * V[j,f]""",
    lambda x: weigh(ratio(masked(weights(x), weights(x) > x.least)), x.V),
    params={"least": 0.1},
)
add(
    "mv_first_of_the_mass",
    QKV,
    O,
    f"""{WEIGHTS}
    C[i,j] = sum[l : l < j](P[i,l])
    T[i,j] = S[i,j] where C[i,j] < 0.8
    {SOFTMAX.replace("S[", "T[")}""",
    lambda x: weigh(
        softmax(
            scaled(x),
            causal(x) & (weights(x).detach().cumsum(-1) - weights(x).detach() < 0.8),
        ),
        x.V,
    ),
)
add(
    "mv_columns_that_were_wanted",
    QKV,
    O,
    f"""{WEIGHTS}
    X[j] = max[i](P[i,j])
    T[i,j] = S[i,j] where X[j] > 0.4
    {SOFTMAX.replace("S[", "T[")}""",
    lambda x: weigh(
        softmax(scaled(x), causal(x) & (weights(x).detach().amax(-2, keepdim=True) > 0.4)), x.V
    ),
)
add(
    "mv_window_by_gates",
    f"{QKV}, g[b,h,j]",
    O,
    f"""C[j] = sum[l : l <= j](abs(g[l]))
    S[i,j] = {DOT} where j <= i, C[i] - C[j] < 2
    {SOFTMAX}""",
    lambda x: weigh(
        softmax(
            scaled(x),
            causal(x)
            & (
                x.g.abs().cumsum(-1)[..., :, None] - x.g.abs().cumsum(-1)[..., None, :] < 2
            ).detach(),
        ),
        x.V,
    ),
)

# --- scans -------------------------------------------------------------------------------------

add(
    "mv_rest_of_the_mass",
    QKV,
    O,
    f"""{WEIGHTS}
    C[i,j] = sum[l : l <= j](P[i,l])
    O[i,f] = P[i,j] * (1 - C[i,j]) * V[j,f]""",
    lambda x: weigh(masked(weights(x) * (1 - weights(x).cumsum(-1)), causal(x)), x.V),
)
add(
    "mv_mass_behind",
    QKV,
    O,
    f"""{WEIGHTS}
    C[i,j] = sum[l : j < l](P[i,l])
    O[i,f] = P[i,j] * tanh(C[i,j]) * V[j,f]""",
    lambda x: weigh(
        weights(x) * torch.tanh(weights(x).flip(-1).cumsum(-1).flip(-1) - weights(x)), x.V
    ),
)

# --- products and recurrences ------------------------------------------------------------------

add(
    "mv_noisy_or",
    QKV,
    f"{O}, G[b,h,i]",
    f"""{CAUSAL}
    P[i,j] = sigmoid(S[i,j])
    G[i] = 1 - prod[j](1 - P[i,j])
    O[i,f] = G[i] * (P[i,j] * V[j,f])""",
    lambda x: (
        (1 - masked(1 - scaled(x).sigmoid(), causal(x), 1.0).prod(-1))[..., None]
        * weigh(masked(scaled(x).sigmoid(), causal(x)), x.V),
        1 - masked(1 - scaled(x).sigmoid(), causal(x), 1.0).prod(-1),
    ),
)


def gated_unit(x: SimpleNamespace) -> Tensor:
    h = torch.zeros_like(x.V[..., 0, :])
    out = []
    for t in range(x.n_j):
        z = x.Z[..., t, :].sigmoid()
        h = (1 - z) * h + z * x.V[..., t, :].tanh()
        out.append(h)
    return torch.stack(out, -2)


add(
    "mv_gated_unit",
    "V[b,h,t,f], Z[b,h,t,f]",
    "O[b,h,t,f]",
    """H[t,f] = (1 - sigmoid(Z[t,f])) * H[t-1,f] + sigmoid(Z[t,f]) * tanh(V[t,f]) init 0
    O[t,f] = H[t,f]""",
    gated_unit,
    sizes={"t": 19},
)


def behind_a_guard(x: SimpleNamespace) -> Tensor:
    h = torch.zeros_like(x.K[..., 0, :, None] * x.V[..., 0, None, :])
    out = []
    for t in range(x.n_j):
        new = x.K[..., t, :, None] * x.V[..., t, None, :]
        out.append((x.Q[..., t, :, None] * (h if t > 0 else new)).sum(-2))
        h = x.g[..., t, None, None].sigmoid() * h + new
    return torch.stack(out, -2)


add(
    "mv_past_behind_a_guard",
    "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], g[b,h,t]",
    "O[b,h,t,f]",
    """H[t,e,f] = sigmoid(g[t]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * (H[t-1,e,f] if t > 0 else K[t,e] * V[t,f])""",
    behind_a_guard,
    sizes={"t": 19},
)
