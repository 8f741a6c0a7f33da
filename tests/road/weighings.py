"""How weights are made: powers, statistics of rows, groups, mixtures, sums along keys, roots, and what is kept of them.

Compared with their own dense evaluation, as `programs` are; the causal scores `S` are there for a program that weighs.
"""

from __future__ import annotations

from typing import Any

from tests.road.programs import DOT, SOFTMAX, add


def weigh(name: str, more: str, body: str, **kw: Any) -> None:
    """A program of weights `A`, made of causal scores."""
    add(name, more, f"S[i,j] = {DOT} where j <= i\n{body}\nO[i,f] = A[i,j] * V[j,f]", **kw)


weigh(
    "divided_by_max",
    "",
    """P[i,j] = exp(S[i,j])
    A[i,j] = P[i,j] / max[j](P[i,j])""",
)
weigh(
    "mean_shift",
    "",
    """m[i] = sum[j](S[i,j]) / (i + 1)
    P[i,j] = exp(S[i,j] - m[i])
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
)
weigh(
    "half_max_shift",
    "",
    """M[i] = max[j](S[i,j])
    P[i,j] = exp(S[i,j] - M[i] / 2)
    A[i,j] = P[i,j] / (1 + sum[j](P[i,j]))""",
)
add(
    "local_maxima_sum",
    "w: int = 5",
    """rank u = |j| // w, r = w
    S[i,u,r] = Q[i,e] * K[u*w + r, e] / sqrt(|e|)
    L[i,u] = max[r](S[i,u,r])
    P[i,u,r] = exp(S[i,u,r] - L[i,u])
    z[i,u] = sum[r](P[i,u,r])
    N[i,u,f] = sum[r](P[i,u,r] * V[u*w + r, f])
    M[i] = max[u](L[i,u])
    Z[i] = sum[u](z[i,u] * exp(L[i,u] - M[i]))
    O[i,f] = N[i,u,f] * exp(L[i,u] - M[i]) / Z[i]""",
    j=20,
    params={"w": 5},
)
weigh(
    "p_norm",
    "p[h]",
    """P[i,j] = exp(S[i,j])
    A[i,j] = P[i,j] / sum[j](P[i,j]**softplus(p))**(1 / softplus(p))""",
)
weigh(
    "p_norm_weights",
    "a: float = 3.0",
    """P[i,j] = abs(S[i,j])**a
    A[i,j] = P[i,j] / (sum[j](P[i,j]**2) + 0.1)**0.5""",
    params={"a": 3.0},
)
weigh(
    "power_exp",
    "a[h]",
    """P[i,j] = exp(S[i,j])**a
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
)
weigh(
    "power_exp_max",
    "a: float = 2.5",
    """M[i] = max[j](S[i,j])
    P[i,j] = exp(S[i,j] - M[i])**a
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
    params={"a": 2.5},
)
weigh(
    "softmax_power_renorm",
    "a[h]",
    """P[i,j] = softmax[j](S[i,j])
    T[i,j] = P[i,j]**(1 + softplus(a))
    A[i,j] = T[i,j] / sum[j](T[i,j])""",
)
weigh(
    "tsallis",
    "q: float = 1.5",
    """M[i] = max[j](S[i,j])
    P[i,j] = (1 + (q - 1) * (M[i] - S[i,j]))**(-1 / (q - 1))
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
    params={"q": 1.5},
)
weigh(
    "tsallis_cut",
    "q: float = 0.5",
    """M[i] = max[j](S[i,j])
    P[i,j] = relu(1 + (1 - q) * (S[i,j] - M[i]))**(1 / (1 - q))
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
    params={"q": 0.5},
)
add(
    "student_mixture",
    "nu[h], mix[h]",
    """D[i,j] = sum[e]((Q[i,e] - K[j,e])**2) where j <= i
    T[i,j] = (1 + D[i,j] / (1 + softplus(nu)))**(-(2 + softplus(nu)) / 2)
    G[i,j] = exp(-D[i,j] / 2)
    P[i,j] = sigmoid(mix) * T[i,j] + (1 - sigmoid(mix)) * G[i,j]
    O[i,f] = P[i,j] / sum[j](P[i,j]) * V[j,f]""",
)
weigh(
    "rational",
    "",
    """P[i,j] = (1 + S[i,j]**2) / (2 + S[i,j]**2 + S[i,j]**4)
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
)
add(
    "cosine_inline",
    "t[h]",
    f"""q[i,e] = Q[i,e] * rsqrt(sum[c](Q[i,c]**2) + 1e-6)
    k[j,e] = K[j,e] * rsqrt(sum[c](K[j,c]**2) + 1e-6)
    S[i,j] = q[i,e] * k[j,e] * exp(t) where j <= i
    {SOFTMAX}""",
)
add(
    "l2_denominator",
    "",
    f"""S[i,j] = Q[i,e] * K[j,e] / (sqrt(sum[e](Q[i,e]**2)) * sqrt(sum[e](K[j,e]**2)) + 0.01) where j <= i
    {SOFTMAX}""",
)
weigh(
    "log_cosh",
    "",
    """P[i,j] = log((exp(S[i,j]) + exp(-S[i,j])) / 2) + 0.01
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
)
weigh(
    "log_cosh_score",
    "",
    """L[i,j] = abs(S[i,j]) + softplus(-2 * abs(S[i,j]))
    A[i,j] = softmax[j](L[i,j])""",
)
weigh(
    "temp_variance",
    "",
    """n[i] = i + 1
    m[i] = sum[j](S[i,j]) / n[i]
    v[i] = sum[j]((S[i,j] - m[i])**2) / n[i]
    A[i,j] = softmax[j](S[i,j] / sqrt(v[i] + 0.1))""",
)
weigh(
    "temp_variance_moments",
    "",
    """m[i] = sum[j](S[i,j]) / (i + 1)
    v[i] = sum[j](S[i,j]**2) / (i + 1) - m[i]**2
    A[i,j] = softmax[j](S[i,j] * rsqrt(v[i] + 0.5))""",
)
weigh(
    "temp_entropy",
    "",
    """P[i,j] = softmax[j](S[i,j])
    H[i] = -sum[j](P[i,j] * log(P[i,j]))
    A[i,j] = softmax[j](S[i,j] * (1 + H[i]))""",
)
weigh(
    "temp_entropy_lse",
    "",
    """L[i] = logsumexp[j](S[i,j])
    H[i] = L[i] - sum[j](exp(S[i,j] - L[i]) * S[i,j])
    A[i,j] = softmax[j](S[i,j] / (0.5 + H[i]))""",
)
weigh(
    "temp_max",
    "",
    """M[i] = max[j](abs(S[i,j]))
    A[i,j] = softmax[j](4 * S[i,j] / (M[i] + 0.1))""",
)
weigh(
    "temp_range",
    "",
    """R[i] = max[j](S[i,j]) - min[j](S[i,j])
    A[i,j] = softmax[j](3 * (S[i,j] - min[j](S[i,j])) / (R[i] + 0.5))""",
)
add(
    "temp_keys_std",
    "",
    f"""S[i,j] = {DOT}
    m[j] = sum[i](S[i,j]) / |i|
    v[j] = sum[i]((S[i,j] - m[j])**2) / |i|
    A[i,j] = softmax[j]((S[i,j] - m[j]) * rsqrt(v[j] + 0.5))
    O[i,f] = A[i,j] * V[j,f]""",
)
add(
    "grouped_own_score",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|)
    P[i,g,r] = softmax[r](S[i,g,r])
    W[i,g] = softmax[g](c[i,g])
    O[i,f] = W[i,g] * P[i,g,r] * V[g*w + r, f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "grouped_own_score_nested",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    Y[i,g,f] = sum[r](softmax[r](S[i,g,r]) * V[g*w + r, f])
    O[i,f] = softmax[g](Q[i,e] * C[g,e] / sqrt(|e|)) * Y[i,g,f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "softmax_of_group_sums",
    "w: int = 5",
    """rank g = |j| // w, r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    T[i,g] = sum[r](S[i,g,r])
    W[i,g] = softmax[g](T[i,g])
    O[i,f] = W[i,g] * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    params={"w": 5},
)
add(
    "grouped_max_score",
    "w: int = 5",
    """rank g = |j| // w, r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    W[i,g] = softmax[g](max[r](S[i,g,r]))
    P[i,g,r] = softmax[r](S[i,g,r])
    O[i,f] = W[i,g] * P[i,g,r] * V[g*w + r, f]""",
    j=20,
    params={"w": 5},
)
add(
    "mixture_experts",
    "C[b,h,g,e], K2[b,h,g,j,e], V2[b,h,g,j,f]",
    """S[i,g,j] = Q[i,e] * K2[g,j,e] / sqrt(|e|)
    W[i,g] = softmax[g](Q[i,e] * C[g,e])
    O[i,f] = W[i,g] * softmax[j](S[i,g,j]) * V2[g,j,f]""",
    g=3,
    qkv="Q[b,h,i,e]",
)
weigh(
    "gated_renormed",
    "u[b,h,j]",
    """P[i,j] = softmax[j](S[i,j])
    G[i,j] = P[i,j] * sigmoid(u[j])
    A[i,j] = G[i,j] / (sum[j](G[i,j]) + 1e-6)""",
)
weigh(
    "gated_pair_renormed",
    "B[h,i,j]",
    """P[i,j] = softmax[j](S[i,j])
    G[i,j] = P[i,j] * sigmoid(B[i,j])
    A[i,j] = G[i,j] / sum[j](G[i,j])""",
)
weigh(
    "mix_two_softmaxes",
    "K2[b,h,j,e], mu[b,h,i]",
    """T[i,j] = Q[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    g[i] = sigmoid(mu[i])
    A[i,j] = g[i] * softmax[j](S[i,j]) + (1 - g[i]) * softmax[j](T[i,j])""",
)
add(
    "mix_m_softmaxes",
    "K2[b,h,m,j,e], mu[b,h,i,m]",
    """S[i,m,j] = Q[i,e] * K2[m,j,e] / sqrt(|e|) where j <= i
    A[i,j] = sum[m](softmax[m](mu[i,m]) * softmax[j](S[i,m,j]))
    O[i,f] = A[i,j] * V[j,f]""",
    m=3,
    qkv="Q[b,h,i,e], V[b,h,j,f]",
)
add(
    "log_mixture",
    "K2[b,h,j,e]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = Q[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    P[i,j] = softmax[j](S[i,j])
    R[i,j] = softmax[j](T[i,j])
    G[i,j] = sqrt(P[i,j] * R[i,j])
    O[i,f] = G[i,j] / sum[j](G[i,j]) * V[j,f]""",
)
weigh(
    "diff_lambda_head",
    "Q2[b,h,i,e], K2[b,h,j,e], lq[h,e], lk[h,e]",
    """T[i,j] = Q2[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    lam = exp(lq[e] * lk[e]) + 0.2
    A[i,j] = softmax[j](S[i,j]) - lam * softmax[j](T[i,j])""",
)
add(
    "diff_head_norm",
    "Q2[b,h,i,e], K2[b,h,j,e], lam[h], g[f]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = Q2[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    Y[i,f] = (softmax[j](S[i,j]) - lam * softmax[j](T[i,j])) * V[j,f]
    O[i,f] = Y[i,f] * rsqrt(sum[f](Y[i,f]**2) / |f| + 1e-5) * g[f]""",
)
add(
    "talking_both",
    "W[g,h], X[k,g]",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    T[g,i,j] = sum[h](W[g,h] * S[h,i,j])
    P[g,i,j] = softmax[j](T[g,i,j])
    U[k,i,j] = sum[g](X[k,g] * P[g,i,j])
    O[k,i,f] = U[k,i,j] * V[k,j,f]""",
    batch="b",
    out="O[b,k,i,f]",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,k,j,f]",
    k=2,
    g=2,
)
add(
    "kl",
    "K2[b,h,j,e]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = Q[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    P[i,j] = softmax[j](S[i,j])
    R[i,j] = softmax[j](T[i,j])
    D[i] = sum[j](P[i,j] * (log(P[i,j]) - log(R[i,j])))""",
    out="D[b,h,i]",
    qkv="Q[b,h,i,e], K[b,h,j,e]",
)
add(
    "kl_lse",
    "K2[b,h,j,e]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = Q[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    L[i] = logsumexp[j](S[i,j])
    M[i] = logsumexp[j](T[i,j])
    D[i] = sum[j](exp(S[i,j] - L[i]) * (S[i,j] - T[i,j])) - L[i] + M[i]
    {SOFTMAX}""",
    out="O[b,h,i,f], D[b,h,i]",
)
add(
    "js",
    "K2[b,h,j,e]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = Q[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    P[i,j] = softmax[j](S[i,j])
    R[i,j] = softmax[j](T[i,j])
    X[i,j] = (P[i,j] + R[i,j]) / 2
    D[i] = sum[j](P[i,j] * log(P[i,j] / X[i,j]) + R[i,j] * log(R[i,j] / X[i,j])) / 2""",
    out="D[b,h,i]",
    qkv="Q[b,h,i,e], K[b,h,j,e]",
)
add(
    "column_weights",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    c[j] = sum[i](A[i,j])
    O[i,f] = A[i,j] / (c[j] + 0.1) * V[j,f]""",
)
add(
    "everything_out",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    c[j] = sum[i](A[i,j]**2)
    O[i,f] = A[i,j] * V[j,f]
    m[i] = max[j](A[i,j])
    H[i] = -sum[j](A[i,j] * log(A[i,j] + 1e-9))""",
    out="O[b,h,i,f], A[b,h,i,j], c[b,h,j], m[b,h,i], H[b,h,i]",
)
add(
    "stick_strict",
    "",
    f"""S[i,j] = {DOT} where j < i
    A[i,j] = exp(logsigmoid(S[i,j]) + sum[l : j < l < i](logsigmoid(-S[i,l])))
    R[i] = 1 - sum[j](A[i,j])
    O[i,f] = A[i,j] * V[j,f] + R[i] * V[i,f]""",
)
weigh(
    "cope_linear",
    "a[h]",
    """c[i,j] = sum[l : j <= l <= i](sigmoid(S[i,l]))
    A[i,j] = softmax[j](S[i,j] - softplus(a) * c[i,j])""",
)
weigh(
    "fox_between",
    "f0[b,h,n]",
    """D[i,j] = sum[l : j < l <= i](logsigmoid(f0[l])) where j <= i
    A[i,j] = softmax[j](S[i,j] + D[i,j])""",
)
weigh(
    "cumsum_weights",
    "",
    """P[i,j] = softmax[j](S[i,j])
    A[i,j] = sum[l : l <= j](P[i,l])""",
)
weigh(
    "cumsum_scores_softmax",
    "",
    """C[i,j] = sum[l : l <= j](relu(S[i,l]))
    A[i,j] = softmax[j](S[i,j] - C[i,j])""",
)
weigh(
    "selective2",
    "",
    """R[i,j] = relu(S[i,j])
    F[i,j] = sum[l : l < i](R[l,j])
    A[i,j] = softmax[j](S[i,j] - F[i,j])""",
)
weigh(
    "sparsemax_sink",
    "sink[h]",
    """M[i] = max(sink, max[j](S[i,j]))
    t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x)) + relu(sink - x) == 1, iters=24)
    A[i,j] = relu(S[i,j] - t[i])""",
)
add(
    "entmax15_window",
    "",
    f"""S[i,j] = {DOT} where i - 5 < j <= i
    A[i,j] = entmax15[j](S[i,j])
    O[i,f] = A[i,j] * V[j,f]""",
)
weigh(
    "entmax_alpha2",
    "a[h]",
    """al = 1.2 + sigmoid(a)
    T[i,j] = (al - 1) * S[i,j]
    M[i] = max[j](T[i,j])
    t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(T[i,j] - x)**(1 / (al - 1))) == 1, iters=40)
    A[i,j] = relu(T[i,j] - t[i])**(1 / (al - 1))""",
)
weigh(
    "solve_sigmoid_budget",
    "",
    """b0[i] = solve[x : -40 <= x <= 40](sum[j](sigmoid(S[i,j] + x)) == 0.5, iters=60)
    A[i,j] = sigmoid(S[i,j] + b0[i])""",
)
weigh(
    "solve_temperature",
    "",
    """M[i] = max[j](S[i,j])
    t[i] = solve[x : 0.01 <= x <= 50](sum[j](exp((S[i,j] - M[i]) * x)) == 0.4 + 0.6 * (i + 1), iters=60)
    A[i,j] = softmax[j](S[i,j] * t[i])""",
)
weigh(
    "sigmoid_row_bias",
    "bq[b,h,i]",
    "A[i,j] = sigmoid(S[i,j] + bq[i] - log(i + 1))",
)
weigh(
    "capped_simplex",
    "",
    """M[i] = max[j](S[i,j])
    t[i] = solve[x : M[i] - 2 <= x <= M[i]](sum[j](min(relu(S[i,j] - x), 0.6)) == 0.5, iters=40)
    A[i,j] = min(relu(S[i,j] - t[i]), 0.6)""",
)
add(
    "simplicial_sum",
    "L[b,h,k,e], U[b,h,k,f]",
    """S[i,j,k] = (Q[i,e] * K[j,e] + Q[i,e] * L[k,e]) / sqrt(|e|) where j <= i, k <= i
    O[i,f] = softmax[j,k](S[i,j,k]) * (V[j,f] + U[k,f])""",
    k=19,
)
add(
    "simplicial_sigmoid",
    "L[b,h,k,e], U[b,h,k,f]",
    """S[i,j,k] = Q[i,e] * K[j,e] * L[k,e] / sqrt(|e|) where i - 4 < j <= i, i - 3 < k <= i
    O[i,f] = sigmoid(S[i,j,k]) * V[j,f] * U[k,f]""",
    k=19,
)
add(
    "additive_softmax",
    "w[h,a]",
    f"""S[i,j] = w[a] * tanh(Q[i,a] + K[j,a]) where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,a], K[b,h,j,a], V[b,h,j,f]",
    a=5,
)
add(
    "additive_gated",
    "w[h,a], g[h,a]",
    f"""S[i,j] = w[a] * tanh(Q[i,a] + K[j,a]) * sigmoid(g[a] + K[j,a]) where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,a], K[b,h,j,a], V[b,h,j,f]",
    a=5,
)
add(
    "max_over_features",
    "",
    f"""S[i,j] = max[e](Q[i,e] + K[j,e]) where j <= i
    {SOFTMAX}""",
)
add(
    "lse_over_features",
    "",
    f"""S[i,j] = logsumexp[e](Q[i,e] + K[j,e]) where j <= i
    {SOFTMAX}""",
)
add(
    "softmax_over_features",
    "",
    f"""S[i,j] = softmax[e](Q[i,e]) * log(softmax[e](K[j,e])) where j <= i
    {SOFTMAX}""",
)
add(
    "hellinger",
    "",
    f"""p[i,e] = softmax[e](Q[i,e])
    k[j,e] = softmax[e](K[j,e])
    S[i,j] = -sum[e]((sqrt(p[i,e]) - sqrt(k[j,e]))**2) where j <= i
    {SOFTMAX}""",
)
weigh(
    "running_den",
    "",
    """M[i] = max[j](S[i,j])
    P[i,j] = exp(S[i,j] - M[i])
    d[i,j] = sum[l : l <= j](P[i,l])
    A[i,j] = P[i,j] / (d[i,j] + 0.1)""",
)
weigh(
    "suffix_den",
    "",
    """M[i] = max[j](S[i,j])
    P[i,j] = exp(S[i,j] - M[i])
    d[i,j] = sum[l : l >= j](P[i,l])
    A[i,j] = P[i,j] / (d[i,j] + 0.1)""",
)
weigh(
    "geometric",
    "",
    """p[i,j] = sigmoid(S[i,j])
    A[i,j] = p[i,j] * exp(sum[l : l < j](log(1 - p[i,l] + 1e-6)))""",
)
weigh(
    "geometric_prod",
    "",
    """p[i,j] = sigmoid(S[i,j])
    A[i,j] = p[i,j] * prod[l : l < j](1 - p[i,l])""",
)
weigh(
    "entropy_reg",
    "t[h]",
    """P[i,j] = softmax[j](S[i,j])
    H[i] = -sum[j](P[i,j] * log(P[i,j]))
    A[i,j] = P[i,j] * sigmoid(t * H[i])""",
)
weigh(
    "renorm_twice",
    "",
    """P[i,j] = softmax[j](S[i,j])
    R[i,j] = softmax[j](P[i,j])
    T[i,j] = R[i,j] / max[j](R[i,j])
    A[i,j] = T[i,j] / sum[j](T[i,j])""",
)
weigh(
    "two_temps_gate",
    "t[h], g[b,h,i]",
    "A[i,j] = sigmoid(g[i]) * softmax[j](S[i,j]) + (1 - sigmoid(g[i])) * softmax[j](S[i,j] * exp(t))",
)
weigh(
    "lse_gate",
    "",
    """L[i] = logsumexp[j](S[i,j])
    A[i,j] = softmax[j](S[i,j]) * sigmoid(L[i])""",
)
weigh(
    "sigmoid_lse_bias",
    "",
    """L[i] = logsumexp[j](S[i,j])
    A[i,j] = sigmoid(S[i,j] - L[i])""",
)
weigh(
    "softmax_vs_mean",
    "",
    """P[i,j] = softmax[j](S[i,j])
    m[i] = 1 / (i + 1)
    A[i,j] = relu(P[i,j] - m[i]) / (sum[j](relu(P[i,j] - m[i])) + 0.01)""",
)
weigh(
    "layernorm_scores",
    "g[h], c[h]",
    """m[i] = sum[j](S[i,j]) / sum[j](1 + 0 * S[i,j])
    v[i] = sum[j]((S[i,j] - m[i])**2) / sum[j](1 + 0 * S[i,j])
    A[i,j] = softmax[j](g * (S[i,j] - m[i]) * rsqrt(v[i] + 1e-2) + c)""",
)
weigh(
    "zscore_max",
    "",
    """M[i] = max[j](S[i,j])
    d[i] = sqrt(sum[j]((S[i,j] - M[i])**2) + 0.1)
    A[i,j] = softmax[j]((S[i,j] - M[i]) / d[i])""",
)
weigh(
    "kurtosis_temp",
    "",
    """m[i] = sum[j](S[i,j]) / (i + 1)
    k[i] = sum[j]((S[i,j] - m[i])**4) / (i + 1)
    A[i,j] = softmax[j](S[i,j] / (1 + k[i]**0.25 + 0.01))""",
)
weigh(
    "norm4",
    "",
    """Z[i] = (sum[j](S[i,j]**4) + 0.1)**0.25
    A[i,j] = S[i,j] / Z[i]""",
)
weigh(
    "softmax_minus",
    "",
    "A[i,j] = softmax[j](S[i,j]) - softmax[j](-S[i,j])",
)
weigh(
    "signed_softmax",
    "",
    """M[i] = max[j](abs(S[i,j]))
    P[i,j] = sign(S[i,j]) * exp(abs(S[i,j]) - M[i])
    A[i,j] = P[i,j] / sum[j](abs(P[i,j]))""",
)
weigh(
    "sinh_norm",
    "",
    """P[i,j] = exp(S[i,j]) - exp(-S[i,j])
    A[i,j] = P[i,j] / (sum[j](abs(P[i,j])) + 0.1)""",
)
weigh(
    "cosh_norm",
    "",
    """P[i,j] = exp(S[i,j]) + exp(-S[i,j])
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
)
weigh(
    "logit_adjust",
    "n[b,j]",
    "A[i,j] = softmax[j](S[i,j] + log(sigmoid(n[j])))",
)
weigh(
    "exp_pow",
    "",
    """P[i,j] = exp(-abs(S[i,j])**1.5)
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
)
weigh(
    "clip_by_row_quantile",
    "",
    """M[i] = max[j](S[i,j])
    m[i] = min[j](S[i,j])
    A[i,j] = softmax[j](max(S[i,j], (M[i] + m[i]) / 2))""",
)
weigh(
    "second_max",
    "",
    """M[i] = max[j](S[i,j])
    T[i] = max[j](S[i,j] if S[i,j] < M[i] else -1e3)
    A[i,j] = softmax[j](S[i,j] - T[i]) * (M[i] - M[i] + 1)""",
)
weigh(
    "margin",
    "",
    """M[i] = max[j](S[i,j])
    A[i,j] = relu(1 - (M[i] - S[i,j])) / sum[j](relu(1 - (M[i] - S[i,j])))""",
)
weigh(
    "median_shift",
    "",
    """lo[i] = min[j](S[i,j]) - 1
    hi[i] = max[j](S[i,j]) + 1
    t[i] = solve[x : lo[i] <= x <= hi[i]](sum[j](tanh(3 * (S[i,j] - x))) == 0, iters=60)
    A[i,j] = softmax[j](abs(S[i,j] - t[i]))""",
)
weigh(
    "entropy_target",
    "",
    """M[i] = max[j](S[i,j])
    t[i] = solve[x : 0.05 <= x <= 20](log(sum[j](exp((S[i,j] - M[i]) * x))) == 0.5 * log(i + 1), iters=60)
    A[i,j] = softmax[j](S[i,j] * t[i])""",
)
weigh(
    "solve_twice",
    "",
    """M[i] = max[j](S[i,j])
    t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x)) == 1, iters=20)
    u[i] = solve[x : -30 <= x <= 30](sum[j](sigmoid(S[i,j] - t[i] + x)) == 0.3, iters=60)
    A[i,j] = sigmoid(S[i,j] - t[i] + u[i])""",
)
add(
    "sparsemax_docs",
    "d[b,n]: int",
    f"""S[i,j] = {DOT} where j <= i, d[i] == d[j]
    A[i,j] = sparsemax[j](S[i,j])
    O[i,f] = A[i,j] * V[j,f]""",
)
weigh(
    "sparsemax_gate",
    "u[b,h,j]",
    """P[i,j] = sparsemax[j](S[i,j])
    G[i,j] = P[i,j] * sigmoid(u[j])
    A[i,j] = G[i,j] / (sum[j](G[i,j]) + 1e-3)""",
)
weigh(
    "entmax_entropy",
    "",
    """P[i,j] = entmax15[j](S[i,j])
    A[i,j] = P[i,j]**2 / (sum[j](P[i,j]**2))""",
)
add(
    "sparsemax_output",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = sparsemax[j](S[i,j])
    O[i,f] = A[i,j] * V[j,f]""",
    out="O[b,h,i,f], A[b,h,i,j]",
)
add(
    "sparsemax_diff",
    "Q2[b,h,i,e], K2[b,h,j,e], l[h]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = Q2[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    O[i,f] = (sparsemax[j](S[i,j]) - sigmoid(l) * sparsemax[j](T[i,j])) * V[j,f]""",
)
add(
    "colmax",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    O[j] = max[i](A[i,j])""",
    out="O[b,h,j]",
    qkv="Q[b,h,i,e], K[b,h,j,e]",
)
add(
    "col_lse",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    O[j] = logsumexp[i](A[i,j])""",
    out="O[b,h,j]",
    qkv="Q[b,h,i,e], K[b,h,j,e]",
)
add(
    "col_entropy",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    c[j] = sum[i](A[i,j])
    O[j] = sum[i](A[i,j] / c[j] * log(A[i,j] / c[j]))""",
    out="O[b,h,j]",
    qkv="Q[b,h,i,e], K[b,h,j,e]",
)
add(
    "sinkhorn",
    "",
    f"""S[i,j] = {DOT}
    P[i,j] = softmax[j](S[i,j])
    c[j] = sum[i](P[i,j])
    R[i,j] = P[i,j] / c[j]
    z[i] = sum[j](R[i,j])
    O[i,f] = R[i,j] / z[i] * V[j,f]""",
)
add(
    "cov_out",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    m[i,f] = A[i,j] * V[j,f]
    O[i,f] = sum[j](A[i,j] * (V[j,f] - m[i,f])**2)""",
)
add(
    "std_out",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    m[i,f] = A[i,j] * V[j,f]
    O[i,f] = sqrt(sum[j](A[i,j] * V[j,f]**2) - m[i,f]**2 + 0.1)""",
)
add(
    "two_out_hard",
    "t[h]",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    B[i,j] = A[i,j] if A[i,j] > 0.1 else 0
    O[i,f] = B[i,j] * V[j,f]
    R[i] = 1 - sum[j](B[i,j])""",
    out="O[b,h,i,f], R[b,h,i]",
)
add(
    "output_gate_norm",
    "g[b,h,i,f]",
    f"""S[i,j] = {DOT} where j <= i
    Y[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = Y[i,f] * sigmoid(g[i,f]) / sqrt(sum[f](Y[i,f]**2) + 1e-5)""",
)
add(
    "softmax_f_out",
    "",
    f"""S[i,j] = {DOT} where j <= i
    Y[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = softmax[f](Y[i,f])""",
)
add(
    "group_query_pool",
    "w: int = 4",
    """rank a = |i| // w, r = w
    q[a,e] = sum[r](Q[a*w + r, e]) / w
    S[a,j] = q[a,e] * K[j,e] / sqrt(|e|)
    O[a,f] = softmax[j](S[a,j]) * V[j,f]""",
    out="O[b,h,a,f]",
    i=20,
    j=17,
    params={"w": 4},
)
add(
    "grouped_sum_softmax",
    "w: int = 5",
    """rank g = |j| // w, r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    P[i,g,r] = softmax[g,r](S[i,g,r])
    m[i,g] = sum[r](P[i,g,r])
    B[i,g] = m[i,g]**2 / sum[g](m[i,g]**2)
    O[i,f] = B[i,g] * P[i,g,r] / m[i,g] * V[g*w + r, f]""",
    j=20,
    params={"w": 5},
)
add(
    "group_lse",
    "w: int = 5",
    """rank g = |j| // w, r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    L[i,g] = logsumexp[r](S[i,g,r])
    W[i,g] = sparsemax[g](L[i,g])
    O[i,f] = W[i,g] * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    params={"w": 5},
)
add(
    "group_score_bias",
    "B[b,h,g], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|) + B[g]
    O[i,f] = softmax[g,r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "group_score_row_bias",
    "B[b,h,i,g], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|) + B[i,g]
    O[i,f] = softmax[g,r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "group_gate_sigmoid",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    G[i,g] = sigmoid(Q[i,e] * C[g,e] / sqrt(|e|))
    P[i,g,r] = softmax[g,r](S[i,g,r])
    O[i,f] = G[i,g] * P[i,g,r] * V[g*w + r, f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "group_own_causal",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|) where g*w + r <= i
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|) where g*w <= i
    O[i,f] = softmax[g](c[i,g]) * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    i=20,
    g=4,
    params={"w": 5},
)
add(
    "group_own_flat",
    "C[b,h,g,e], w: int = 5",
    f"""S[i,j] = {DOT}
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|)
    M[i,g] = max[j : j // w == g](S[i,j])
    Z[i,g] = sum[j : j // w == g](exp(S[i,j] - M[i,g]))
    W[i,g] = softmax[g](c[i,g])
    O[i,f] = W[i, j // w] * exp(S[i,j] - M[i, j // w]) / Z[i, j // w] * V[j,f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "group_own_max",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|) + max[r](S[i,g,r])
    O[i,f] = softmax[g](c[i,g]) * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "group_blocked_keys",
    "C[b,h,g,e], K2[b,h,g,r,e], V2[b,h,g,r,f]",
    """S[i,g,r] = Q[i,e] * K2[g,r,e] / sqrt(|e|)
    W[i,g] = softmax[g](Q[i,e] * C[g,e])
    O[i,f] = W[i,g] * softmax[r](S[i,g,r]) * V2[g,r,f]""",
    qkv="Q[b,h,i,e]",
    g=3,
    r=7,
)
weigh(
    "stick_prod",
    "",
    """p[i,j] = sigmoid(S[i,j])
    A[i,j] = p[i,j] * prod[l : j < l <= i](1 - p[i,l])""",
)
add(
    "stick_prod_inline",
    "",
    f"""p[i,j] = sigmoid({DOT}) where j < i
    A[i,j] = p[i,j] * prod[l : j < l < i](1 - p[i,l])
    O[i,f] = A[i,j] * V[j,f]""",
)
add(
    "stick_prod_rest",
    "",
    f"""p[i,j] = sigmoid({DOT}) where j <= i
    A[i,j] = p[i,j] * prod[l : l > j](1 - p[i,l])
    R[i] = 1 - sum[j](A[i,j])
    O[i,f] = A[i,j] * V[j,f]""",
    out="O[b,h,i,f], R[b,h,i]",
)
weigh(
    "fox_prod",
    "f0[b,h,n]",
    """D[i,j] = prod[l : j < l <= i](sigmoid(f0[l])) where j <= i
    A[i,j] = exp(S[i,j] - max[j](S[i,j])) * D[i,j]""",
)
weigh(
    "fox_prod_softmax",
    "f0[b,h,n]",
    """D[i,j] = prod[l : j < l <= i](sigmoid(f0[l])) where j <= i
    P[i,j] = exp(S[i,j] - max[j](S[i,j])) * D[i,j]
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
)
add(
    "decay_prod_linear",
    "g[b,h,n]",
    """D[i,j] = prod[l : j < l <= i](sigmoid(g[l])) where j <= i
    O[i,f] = Q[i,e] * K[j,e] * D[i,j] * V[j,f]""",
)
add(
    "decay_cumprod",
    "g[b,h,j]",
    """G[j] = prod[l : l <= j](sigmoid(g[l]))
    O[i,f] = relu(Q[i,e]) * relu(K[j,e]) * G[j] * V[j,f]""",
)
weigh(
    "cumprod_positive",
    "",
    """p[i,j] = exp(-softplus(S[i,j]))
    A[i,j] = prod[l : l <= j](p[i,l])""",
)
add(
    "grp_tail",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    O[i,f] = softmax[g](Q[i,e] * C[g,e] / sqrt(|e|)) * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=23,
    g=4,
    params={"w": 5},
)
add(
    "grp_lse_out",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|)
    L[i,g] = logsumexp[r](S[i,g,r])
    O[i,f] = softmax[g](c[i,g]) * softmax[r](S[i,g,r]) * V[g*w + r, f]
    W[i,g] = softmax[g](c[i,g] + L[i,g])""",
    out="O[b,h,i,f], L[b,h,i,g], W[b,h,i,g]",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "grp_mask",
    "C[b,h,g,e], m[b,g]: bool, w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|) where m[g]
    O[i,f] = softmax[g](c[i,g]) * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "grp_start_end",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|) where g*w + r <= i
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|) where g*w <= i
    O[i,f] = softmax[g](c[i,g]) * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    i=7,
    g=4,
    params={"w": 5},
    start="end",
)
add(
    "grp_pooled_own",
    "w: int = 5",
    """rank g = |j| // w, r = w
    C[g,e] = sum[r](K[g*w + r, e]) / w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|)
    O[i,f] = softmax[g](c[i,g]) * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    params={"w": 5},
)
add(
    "grp_sparse_own",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    O[i,f] = sparsemax[g](Q[i,e] * C[g,e]) * softmax[r](S[i,g,r]) * V[g*w + r, f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "grp_values_too",
    "C[b,h,g,e], U[b,h,g,f], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[g*w + r, e] / sqrt(|e|)
    W[i,g] = softmax[g](Q[i,e] * C[g,e])
    O[i,f] = W[i,g] * softmax[r](S[i,g,r]) * V[g*w + r, f] + W[i,g] * U[g,f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "grp_rev_sub",
    "C[b,h,g,e], w: int = 5",
    """rank r = w
    S[i,g,r] = Q[i,e] * K[r + w*g, e] / sqrt(|e|)
    O[i,f] = softmax[g](Q[i,e] * C[g,e]) * softmax[r](S[i,g,r]) * V[r + w*g, f]""",
    j=20,
    g=4,
    params={"w": 5},
)
add(
    "grp_by_ids",
    "C[b,h,g,e], z[b,j]: int",
    f"""S[i,j] = {DOT}
    c[i,g] = Q[i,e] * C[g,e] / sqrt(|e|)
    W[i,g] = softmax[g](c[i,g])
    O[i,f] = softmax[j](S[i,j] + log(W[i, z[j]])) * V[j,f]""",
    g=4,
)
add(
    "grp_bias_by_ids",
    "C[b,h,g,e], z[b,j]: int",
    f"""S[i,j] = {DOT} + Q[i,e] * C[z[j], e]
    {SOFTMAX}""",
    g=4,
)
weigh(
    "cum_own_gate",
    "",
    """g[i,j] = sigmoid(S[i,j])
    C[i,j] = sum[l : j < l <= i](g[i,l])
    A[i,j] = softmax[j](S[i,j] * exp(-C[i,j]))""",
)
weigh(
    "cope_real",
    "z[b,h,i,p]",
    """g[i,j] = sigmoid(S[i,j])
    C[i,j] = min(sum[l : j <= l <= i](g[i,l]), |p| - 1.001)
    E[i,j] = sum[p](relu(1 - abs(C[i,j] - p)) * z[i,p])
    A[i,j] = softmax[j](S[i,j] + E[i,j])""",
    p=4,
)
weigh(
    "sel_two",
    "",
    """R[i,j] = relu(S[i,j]) if j < i else 0
    F[i,j] = sum[l : l < i](R[l,j])
    A[i,j] = softmax[j](S[i,j] - F[i,j])""",
)
weigh(
    "gates_at_each_key",
    "u[b,h,j]",
    """F[i,j] = sum[l : j < l <= i](sigmoid(S[l,j] + u[j]))
    A[i,j] = softmax[j](S[i,j] - F[i,j])""",
)
weigh(
    "col_then_row",
    "",
    """c[j] = logsumexp[i](S[i,j])
    A[i,j] = softmax[j](S[i,j] - c[j])""",
)
add(
    "dual_softmax",
    "",
    f"""S[i,j] = {DOT}
    A[i,j] = softmax[j](S[i,j]) * softmax[i](S[i,j])
    O[i,f] = A[i,j] * V[j,f]""",
)
add(
    "sinkhorn2",
    "",
    f"""S[i,j] = {DOT}
    P[i,j] = exp(S[i,j] - max[j](S[i,j]))
    r[i] = 1 / sum[j](P[i,j])
    c[j] = 1 / sum[i](P[i,j] * r[i])
    r2[i] = 1 / sum[j](P[i,j] * c[j])
    A[i,j] = P[i,j] * r2[i] * c[j]
    O[i,f] = A[i,j] * V[j,f]""",
)
weigh(
    "focal",
    "",
    """P[i,j] = softmax[j](S[i,j])
    A[i,j] = P[i,j] * (1 - P[i,j])**2""",
)
weigh(
    "logit_softcap_stat",
    "",
    """s[i] = sqrt(sum[j](S[i,j]**2) / (i + 1) + 0.1)
    A[i,j] = softmax[j](s[i] * tanh(S[i,j] / s[i]))""",
)
weigh(
    "gated_softmax_of_lse_diff",
    "K2[b,h,j,e]",
    """T[i,j] = Q[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    a[i] = logsumexp[j](S[i,j])
    c[i] = logsumexp[j](T[i,j])
    g[i] = sigmoid(a[i] - c[i])
    A[i,j] = g[i] * softmax[j](S[i,j]) + (1 - g[i]) * softmax[j](T[i,j])""",
)
weigh(
    "poe",
    "K2[b,h,j,e]",
    """T[i,j] = Q[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    P[i,j] = softmax[j](S[i,j]) * softmax[j](T[i,j])
    A[i,j] = P[i,j] / sum[j](P[i,j])""",
)
weigh(
    "max_of_two",
    "K2[b,h,j,e]",
    """T[i,j] = Q[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    A[i,j] = max(softmax[j](S[i,j]), softmax[j](T[i,j]))""",
)
weigh(
    "diff3",
    "Q2[b,h,i,e], K2[b,h,j,e], Q3[b,h,i,e], K3[b,h,j,e], l[h,m]",
    """T[i,j] = Q2[i,e] * K2[j,e] / sqrt(|e|) where j <= i
    U[i,j] = Q3[i,e] * K3[j,e] / sqrt(|e|) where j <= i
    A[i,j] = softmax[j](S[i,j]) - l[0] * softmax[j](T[i,j]) + l[1] * softmax[j](U[i,j])""",
    m=2,
)
add(
    "head_mean_then_log",
    "",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    P[h,i,j] = softmax[j](S[h,i,j])
    W[i,j] = sum[h](P[h,i,j]) / |h|
    H[i] = -sum[j](W[i,j] * log(W[i,j]))""",
    batch="b",
    out="H[b,i]",
    qkv="Q[b,h,i,e], K[b,h,j,e]",
)
add(
    "head_max",
    "",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    T[i,j] = max[h](S[h,i,j])
    O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
    batch="b",
    out="O[b,i,f]",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,j,f]",
)
add(
    "head_softmax",
    "",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    P[h,i,j] = softmax[h](S[h,i,j])
    O[h,i,f] = P[h,i,j] * V[h,j,f] / (i + 1)""",
    batch="b",
)
add(
    "talk_norm",
    "W[g,h]",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    P[h,i,j] = softmax[j](S[h,i,j])
    U[g,i,j] = sum[h](softmax[h](W[g,h]) * P[h,i,j])
    A[g,i,j] = U[g,i,j]**2 / sum[j](U[g,i,j]**2)
    O[g,i,f] = A[g,i,j] * V[g,j,f]""",
    batch="b",
    out="O[b,g,i,f]",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,g,j,f]",
    g=2,
)
add(
    "kl_prior",
    "p[b,h,i,j]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    q[i,j] = softmax[j](p[i,j]) where j <= i
    D[i] = sum[j](P[i,j] * log(P[i,j] / q[i,j]))
    O[i,f] = P[i,j] * V[j,f]""",
    out="O[b,h,i,f], D[b,h,i]",
)
add(
    "cos_out",
    "",
    f"""S[i,j] = {DOT} where j <= i
    Y[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = Y[i,f] * rsqrt(sum[f](Y[i,f]**2) + 1e-6) * rsqrt(sum[f](V[i,f]**2) + 1e-6)""",
)
add(
    "rms_pair",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    d[i] = sqrt(sum[j](A[i,j] * sum[f]((V[j,f] - V[i,f])**2)) + 0.1)
    O[i,f] = A[i,j] * V[j,f] / d[i]""",
)
add(
    "two_hop",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    Y[i,f] = A[i,j] * V[j,f]
    O[i,f] = A[i,j] * Y[j,f]""",
)
add(
    "query_refine",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = softmax[j](S[i,j])
    R[i,e] = Q[i,e] + sum[j](A[i,j] * K[j,e])
    T[i,j] = R[i,e] * K[j,e] / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
)
add(
    "simplicial_own_norms",
    "L[b,h,k,e], U[b,h,k,f]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,k] = Q[i,e] * L[k,e] / sqrt(|e|)
    O[i,f] = (softmax[j](S[i,j]) * V[j,f]) * (softmax[k](T[i,k]) * U[k,f])""",
    k=13,
)
add(
    "add_mlp2",
    "W1[a,c], w2[c]",
    f"""T[i,j,c] = sum[a](tanh(Q[i,a] + K[j,a]) * W1[a,c]) where j <= i
    S[i,j] = w2[c] * relu(T[i,j,c])
    {SOFTMAX}""",
    qkv="Q[b,h,i,a], K[b,h,j,a], V[b,h,j,f]",
    a=5,
    c=3,
)
add(
    "min_over_features",
    "",
    f"""S[i,j] = -max[e](abs(Q[i,e] - K[j,e])) where j <= i
    {SOFTMAX}""",
)
add(
    "inner_softmax_pair",
    "",
    f"""G[i,j,e] = softmax[e](Q[i,e] * K[j,e]) where j <= i
    S[i,j] = sum[e](G[i,j,e] * Q[i,e])
    {SOFTMAX}""",
)
add(
    "inner_norm_pair",
    "",
    f"""d[i,j] = sqrt(sum[e]((Q[i,e] + K[j,e])**2) + 0.1) where j <= i
    S[i,j] = Q[i,e] * K[j,e] / d[i,j]
    {SOFTMAX}""",
)
weigh(
    "solve_power",
    "",
    """P[i,j] = softmax[j](S[i,j])
    t[i] = solve[x : 0.1 <= x <= 8](sum[j](P[i,j]**x) == 0.3 + 0.5 * 1, iters=60)
    A[i,j] = P[i,j]**t[i]""",
)
weigh(
    "solve_decreasing_inc",
    "",
    """t[i] = solve[x : -20 <= x <= 20](sum[j](softplus(S[i,j] + x)) == 1.5, iters=60)
    A[i,j] = softplus(S[i,j] + t[i])""",
)
weigh(
    "solve_mean",
    "",
    """t[i] = solve[x : -20 <= x <= 20](sum[j](S[i,j] - x) == 0, iters=60)
    A[i,j] = softmax[j](abs(S[i,j] - t[i]))""",
)
weigh(
    "solve_with_param",
    "k0: float = 0.5",
    """t[i] = solve[x : -20 <= x <= 20](sum[j](sigmoid(4 * (S[i,j] - x))) == k0, iters=60)
    A[i,j] = sigmoid(4 * (S[i,j] - t[i]))""",
    params={"k0": 0.5},
)
weigh(
    "solve_two_sums",
    "c[h]",
    """M[i] = max[j](S[i,j])
    t[i] = solve[x : M[i] - 3 <= x <= M[i]](sum[j](relu(S[i,j] - x)) + 0.1 * sum[j](relu(S[i,j] - x)**2) == 1, iters=60)
    A[i,j] = relu(S[i,j] - t[i])""",
)
weigh(
    "solve_cube_mean",
    "",
    """t[i] = solve[x : -20 <= x <= 20](sum[j]((S[i,j] - x)**3) == 0, iters=60)
    A[i,j] = softmax[j](abs(S[i,j] - t[i]))""",
)
weigh(
    "solve_quad",
    "",
    """m[i] = sum[j](S[i,j]**2)
    t[i] = solve[x : 0 <= x <= 20](x + x**3 == m[i] / (i + 1), iters=60)
    A[i,j] = softmax[j](S[i,j] * t[i])""",
)
weigh(
    "solve_row_only",
    "r[b,h,i]",
    """t[i] = solve[x : 0 <= x <= 20](x + exp(x) == 1.5 + r[i]**2, iters=60)
    A[i,j] = softmax[j](S[i,j] * t[i])""",
)
