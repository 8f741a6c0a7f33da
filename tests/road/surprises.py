"""Programs that once ended in no number or in no kernel, compared with their own dense evaluation as `programs` are."""

from __future__ import annotations

from typing import Any

from tests.road.programs import DOT, add

QKT = "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]"


def over_time(name: str, more: str, body: str, **kw: Any) -> None:
    """A program of one sequence, of a length that no chunk has."""
    add(name, more, body, qkv=QKT, out="O[b,h,t,f]", t=19, **kw)


# --- rows of a chunk beyond the end: no number is made of zeros ------------------------------------------------------

over_time(
    "delta_of_unit_keys",
    "beta[b,h,t]",
    """u[t,e] = K[t,e] * rsqrt(sum[e](K[t,e]**2))
    H[t,e,f] = H[t-1,e,f] - sigmoid(beta[t]) * u[t,e] * (u[t,c] * H[t-1,c,f]) + u[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
)
over_time(
    "delta_of_unit_keys_backward_in_time",
    "",
    """u[t,e] = K[t,e] * rsqrt(sum[e](K[t,e]**2))
    H[t,e,f] = H[t+1,e,f] - u[t,e] * (u[t,c] * H[t+1,c,f]) + u[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
)
over_time(
    "delta_with_a_steep_gate",
    "g[b,h,t], beta[b,h,t]",
    """k[t,e] = K[t,e] / 4
    p[t] = sigmoid(beta[t])
    H[t,e,f] = exp(-6 - g[t]) * (H[t-1,e,f] - p[t] * k[t,e] * (k[t,c] * H[t-1,c,f])) + k[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
)
over_time(
    "delta_with_steep_gates_of_features",
    "g[b,h,t,e]",
    """k[t,e] = K[t,e] / 4
    w[t,e] = exp(-9 - g[t,e])
    H[t,e,f] = w[t,e] * H[t-1,e,f] - k[t,e] * (k[t,c] * w[t,c] * H[t-1,c,f]) + k[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
)
over_time(
    "delta_gated_by_inverse_squares",
    "g[b,h,t]",
    """u[t,e] = K[t,e] / sqrt(sum[e](K[t,e]**2))
    a[t] = exp(-1 / g[t]**2)
    H[t,e,f] = a[t] * (H[t-1,e,f] - u[t,e] * (u[t,c] * H[t-1,c,f])) + u[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
)

# --- a stabiliser that reads a row's own value -----------------------------------------------------------------------

add(
    "own_key_apart",
    "",
    f"""S[i,j] = {DOT} where j < i
    D[i] = Q[i,e] * K[i,e] / sqrt(|e|)
    M[i] = max(D[i], max[j](S[i,j]))
    P[i,j] = exp(S[i,j] - M[i])
    d[i] = exp(D[i] - M[i])
    O[i,f] = (P[i,j] * V[j,f] + d[i] * V[i,f]) / (d[i] + sum[j](P[i,j]))""",
)
add(
    "maximum_of_norm_and_scores",
    "",
    f"""S[i,j] = {DOT} where j != i
    D[i] = sqrt(Q[i,e] * Q[i,e])
    M[i] = max(D[i], max[j](S[i,j]))
    P[i,j] = exp(S[i,j] - M[i])
    O[i,f] = P[i,j] * V[j,f]""",
)

# --- truth values of pairs, feature by feature -----------------------------------------------------------------------

add(
    "all_features_above",
    "",
    f"""S[i,j] = {DOT}
    k[i,j] = 1 if all[e](Q[i,e] + K[j,e] > -3) else 0
    O[i,f] = k[i,j] * sigmoid(S[i,j]) * V[j,f]""",
)
add(
    "any_feature_above",
    "",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = S[i,j] if any[e](Q[i,e] > K[j,e] + 1) else -1.0
    O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
)

# --- logarithms of sums, and weights, over what a row's filter lets through ------------------------------------------

over_time(
    "log_of_a_running_sum",
    "",
    "O[t,f] = Q[t,e] * K[t,e] + logsumexp[l : l <= t](V[l,f])",
)
add(
    "log_of_a_sum_of_same_ids",
    "doc[b,j]: int, g[b,j]",
    f"""c[j] = logsumexp[l : doc[l] == doc[j]](g[l])
    S[i,j] = {DOT} - c[j] where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "weights_of_keys_up_to_a_row",
    "g[b,j]",
    "O[i,f] = softmax[j : j <= i](g[j]) * V[j,f] + Q[i,e] * K[i,e]",
)

# --- what a step asks of its past, divided ---------------------------------------------------------------------------

over_time(
    "delta_divided_by_a_norm",
    "beta[b,h,t], g[b,h,t]",
    """p[t] = sigmoid(beta[t])
    a[t] = exp(-softplus(g[t]))
    n[t] = 1 + sum[e](K[t,e]**2)
    H[t,e,f] = a[t] * (H[t-1,e,f] - p[t] * (K[t,c] * H[t-1,c,f]) * K[t,e] / n[t]) + K[t,e] * V[t,f] / |e| init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
)
