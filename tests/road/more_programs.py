"""More programs: where rows see nothing, kinds of tables, heads, layouts, projections, and other scores."""

from __future__ import annotations

from tests.road.programs import DOT, SOFTMAX, add

add(
    "two_norms",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    R[i,j] = relu(S[i,j])
    O[i,f] = (P[i,j] + R[i,j] / (1 + sum[j](R[i,j]))) * V[j,f]""",
)
add(
    "mixture",
    "w[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,j] = {DOT} where i - j < 5, j <= i
    O[i,f] = (sigmoid(w[i]) * softmax[j](S[i,j]) + (1 - sigmoid(w[i])) * softmax[j](T[i,j])) * V[j,f]""",
)
add(
    "disjoint_ranges",
    "",
    f"""S[i,j] = {DOT} where j < 3
    T[i,j] = {DOT} where j >= 10
    {SOFTMAX} + softmax[j](T[i,j]) * V[j,f]""",
)
add(
    "never_seen_rows",
    "",
    f"""S[i,j] = {DOT} where j < i - 12
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])
    M[i] = max[j](S[i,j])""",
    out="O[b,h,i,f], L[b,h,i], M[b,h,i]",
)
add(
    "zero_keys",
    "",
    f"""S[i,j] = {DOT} where j < i - 100
    {SOFTMAX}""",
)
add(
    "one_position",
    "slope[h]",
    f"""S[i,j] = {DOT} - slope * (i - j) where j <= i
    {SOFTMAX}""",
    i=1,
    j=1,
)
add(
    "one_query",
    "slope[h]",
    f"""S[i,j] = {DOT} - slope * (i - j) where j <= i
    {SOFTMAX}""",
    start="end",
    i=1,
    j=100,
)
add(
    "head_dims_40_72",
    "",
    f"""S[i,j] = {DOT} where j <= i
    {SOFTMAX}""",
    e=40,
    f=72,
)
add(
    "head_dims_96_80",
    "t[h]",
    f"""S[i,j] = {DOT} * t where j <= i
    {SOFTMAX}""",
    e=96,
    f=80,
)
add(
    "big_scores",
    "",
    f"""S[i,j] = 40 * {DOT} where j <= i
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    out="O[b,h,i,f], L[b,h,i]",
)
add(
    "sum_offset",
    "c[b,h,i]",
    f"""S[i,j] = {DOT} + 300 * c[i] where j <= i
    {SOFTMAX}""",
)
add(
    "key_offset",
    "c[b,h,j]",
    f"""S[i,j] = {DOT} + 300 * c[j] where j <= i
    {SOFTMAX}""",
)
add(
    "logits_mul",
    "g[b,h,i], k[b,h,j]",
    f"""S[i,j] = {DOT} * g[i] * k[j] + g[i] - k[j] where j <= i
    {SOFTMAX}""",
)
add(
    "exp_decay",
    "lam[h]",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](S[i,j]) * exp(-exp(lam) * (i - j)) * V[j,f]""",
)
add(
    "exp_fast_decay",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](S[i,j]) * exp(-20 * (i - j)) * V[j,f]""",
    i=40,
    j=40,
)
add(
    "ratio_positions",
    "",
    f"""S[i,j] = {DOT} * (j + 1) / (i + 1) where j <= i
    {SOFTMAX}""",
)
add(
    "mod_bias",
    "T[h,r]",
    f"""S[i,j] = {DOT} + T[(i - j) % |r|] where j <= i
    {SOFTMAX}""",
    r=4,
)
add(
    "table_of_two",
    "T[h,r,c], w: int",
    f"""S[i,j] = {DOT} + T[i // w - j // w + 3, i % w - j % w + 4]
    {SOFTMAX}""",
    params={"w": 5},
    r=7,
    c=9,
    i=20,
    j=20,
)
add(
    "type_table",
    "tq[b,i]: int, tk[b,j]: int, T[h,u,v]",
    f"""S[i,j] = {DOT} + T[tq[i], tk[j]] where j <= i
    {SOFTMAX}""",
    u=4,
    v=4,
)
add(
    "int_dist",
    "dist[b,i,j]: int, T[h,u]",
    f"""S[i,j] = {DOT} + T[dist[i,j]]
    {SOFTMAX}""",
    u=4,
)
add(
    "edge_feat",
    "E[b,i,j,d], w[h,d]",
    f"""S[i,j] = {DOT} + E[i,j,d] * w[d]
    {SOFTMAX}""",
    d=3,
)
add(
    "dist_rows",
    "dist[b,i,j]: int, R[h,u,e]",
    f"""S[i,j] = {DOT} + Q[i,e] * R[dist[i,j],e]
    {SOFTMAX}""",
    u=4,
)
add(
    "value_rows",
    "dist[b,i,j]: int, R[h,u,f]",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * V[j,f] + P[i,j] * R[dist[i,j],f]""",
    u=4,
)
add(
    "bias_b1",
    "B[b,i,j]",
    f"""S[i,j] = {DOT} + B[i,j] where j <= i
    {SOFTMAX}""",
)
add(
    "bias_none",
    "B[i,j]",
    f"""S[i,j] = {DOT} + B[i,j]
    {SOFTMAX}""",
)
add(
    "bias_key",
    "B[b,j]",
    f"""S[i,j] = {DOT} + B[j] where j <= i
    {SOFTMAX}""",
)
add(
    "bias_low",
    "U[h,i,r], W[h,j,r]",
    f"""S[i,j] = {DOT} + U[i,r] * W[j,r] where j <= i
    {SOFTMAX}""",
    r=3,
)
add(
    "qk_norm_learn",
    "g[h]",
    f"""nq[i] = rsqrt(sum[e](Q[i,e] * Q[i,e]) + 1e-6)
    nk[j] = rsqrt(sum[e](K[j,e] * K[j,e]) + 1e-6)
    S[i,j] = exp(g) * Q[i,e] * K[j,e] * nq[i] * nk[j] where j <= i
    {SOFTMAX}""",
)
add(
    "poly",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,j] = (1 + S[i,j]) ** 2
    O[i,f] = A[i,j] * V[j,f] / sum[j](A[i,j])""",
)
add(
    "elu1",
    "",
    """q[i,e] = elu(Q[i,e]) + 1
    k[j,e] = elu(K[j,e]) + 1
    A[i,j] = q[i,e] * k[j,e] where j <= i
    O[i,f] = A[i,j] * V[j,f] / (sum[j](A[i,j]) + 1e-6)""",
)
add(
    "retention_gn",
    "gam[h]",
    """A[i,j] = Q[i,e] * K[j,e] * exp(-(i - j) * exp(gam)) where j <= i
    Y[i,f] = A[i,j] * V[j,f]
    mu[i] = sum[f](Y[i,f]) / |f|
    O[i,f] = (Y[i,f] - mu[i]) * rsqrt(sum[f]((Y[i,f] - mu[i])**2) / |f| + 1e-5)""",
)
add(
    "unit_step",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = (1.0 if S[i,j] > 0 else 0.0) * V[j,f]""",
)
add(
    "clip",
    "",
    f"""S[i,j] = max(-1, min(1, {DOT})) where j <= i
    {SOFTMAX}""",
)
add(
    "sign_abs",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = sign(S[i,j]) * sqrt(abs(S[i,j]) + 0.01) * V[j,f] / (i + 1)""",
)
add(
    "floor",
    "",
    f"""S[i,j] = {DOT} + floor(0.3 * (i - j)) * 0.1 where j <= i
    {SOFTMAX}""",
)
add(
    "log2",
    "",
    f"""S[i,j] = {DOT} * log2(2 + i) where j <= i
    {SOFTMAX}""",
)
add(
    "all_before",
    "m[b,j]: bool",
    f"""ok[i] = all[j : j <= i](m[j])
    S[i,j] = {DOT} where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = A[i,f] if ok[i] else -A[i,f]""",
)
add(
    "count_out",
    "m[b,j]: bool",
    f"""n[i] = sum[j : j <= i](1 if m[j] else 0)
    S[i,j] = {DOT} where j <= i, m[j]
    {SOFTMAX}""",
    out="O[b,h,i,f], n[b,i]",
)
add(
    "argmaxpos",
    "",
    f"""S[i,j] = {DOT} where j <= i
    M[i] = max[j](S[i,j])
    A[i] = max[j](j if S[i,j] >= M[i] else -1)
    {SOFTMAX}""",
    out="O[b,h,i,f], A[b,h,i]",
)
add(
    "topk_threshold",
    "t[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](S[i,j] if S[i,j] > t[i] else -30.0) * V[j,f]""",
)
add(
    "sinks_tensor",
    "sk[h,n], sv[h,n,f]",
    f"""S[i,j] = {DOT} where j <= i
    M[i] = max(max[j](S[i,j]), max[n](sk[n]))
    Z[i] = sum[j](exp(S[i,j] - M[i])) + sum[n](exp(sk[n] - M[i]))
    O[i,f] = (sum[j](exp(S[i,j] - M[i]) * V[j,f]) + sum[n](exp(sk[n] - M[i]) * sv[n,f])) / Z[i]""",
    n=4,
)
add(
    "two_kv",
    "K2[b,h,m,e], V2[b,h,m,f]",
    f"""S[i,j] = {DOT} where j <= i
    T[i,m] = Q[i,e] * K2[m,e] / sqrt(|e|)
    M[i] = max(max[j](S[i,j]), max[m](T[i,m]))
    Z[i] = sum[j](exp(S[i,j] - M[i])) + sum[m](exp(T[i,m] - M[i]))
    O[i,f] = (exp(S[i,j] - M[i]) * V[j,f] + exp(T[i,m] - M[i]) * V2[m,f]) / Z[i]""",
    m=7,
)
add(
    "colsum",
    "",
    f"""S[i,j] = {DOT} where j <= i
    P[i,j] = softmax[j](S[i,j])
    C[j] = sum[i](P[i,j])
    O[i,f] = P[i,j] * V[j,f]""",
    out="O[b,h,i,f], C[b,h,j]",
)
add(
    "gqa_tensor",
    "",
    f"""S[i,j] = {DOT} - slope * (i - j) + B[j] where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int, slope[h], B[h//G,j]",
    h=4,
    G=2,
)
add(
    "gqa_start",
    "",
    f"""S[i,j] = {DOT} - slope * (i - j) where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int, slope[h]",
    start="end",
    h=4,
    G=2,
    i=3,
    j=30,
)
add(
    "gqa_start_b",
    "",
    f"""S[i,j] = {DOT} - slope * (i - j) where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int, slope[h]",
    start=[4, 20],
    h=4,
    G=2,
    i=3,
    j=30,
)
add(
    "mla",
    "",
    """q[i,r] = Q[i,e] * Wk[r,e]
    S[i,j] = q[i,r] * c[j,r] / sqrt(|e|) where j <= i
    A[i,r] = softmax[j](S[i,j]) * c[j,r]
    O[i,f] = A[i,r] * Wv[r,f]""",
    qkv="Q[b,h,i,e], c[b,j,r], Wk[h,r,e], Wv[h,r,f]",
    r=6,
)
add(
    "mla_naive",
    "",
    """k[j,e] = c[j,r] * Wk[r,e]
    v[j,f] = c[j,r] * Wv[r,f]
    S[i,j] = Q[i,e] * k[j,e] / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](S[i,j]) * v[j,f]""",
    qkv="Q[b,h,i,e], c[b,j,r], Wk[h,r,e], Wv[h,r,f]",
    r=6,
)
add(
    "qkv_proj",
    "",
    """q[i,e] = X[i,c] * Wq[c,e]
    k[j,e] = X[j,c] * Wk[c,e]
    v[j,f] = X[j,c] * Wv[c,f]
    S[i,j] = q[i,e] * k[j,e] / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](S[i,j]) * v[j,f]""",
    qkv="X[b,n,c], Wq[h,c,e], Wk[h,c,e], Wv[h,c,f]",
    c=7,
)
add(
    "full_block",
    "",
    """q[h,i,e] = X[i,c] * Wq[h,c,e]
    k[h,j,e] = X[j,c] * Wk[h,c,e]
    v[h,j,f] = X[j,c] * Wv[h,c,f]
    S[h,i,j] = q[h,i,e] * k[h,j,e] / sqrt(|e|) where j <= i
    A[h,i,f] = softmax[j](S[h,i,j]) * v[h,j,f]
    O[i,c] = A[h,i,f] * Wo[h,f,c]""",
    qkv="X[b,n,c], Wq[h,c,e], Wk[h,c,e], Wv[h,c,f], Wo[h,f,c]",
    out="O[b,i,c]",
    batch="b",
    c=7,
)
add(
    "packed",
    "",
    """S[i,j] = X[i,0,e] * X[j,1,e] / sqrt(|e|) where j <= i
    O[i,e] = softmax[j](S[i,j]) * X[j,2,e]""",
    qkv="X[b,n,c,h,e]",
    out="O[b,h,i,e]",
    c=3,
)
add(
    "kv_packed",
    "",
    """S[i,j] = Q[i,e] * X[j,0,e] / sqrt(|e|) where j <= i
    O[i,e] = softmax[j](S[i,j]) * X[j,1,e]""",
    qkv="Q[b,h,i,e], X[b,h,j,c,e]",
    out="O[b,h,i,e]",
    c=2,
)
add(
    "featfirst_full",
    "",
    """S[i,j] = Q[e,i] * K[e,j] / sqrt(|e|)
    O[f,i] = softmax[j](S[i,j]) * V[f,j]""",
    qkv="Q[b,h,e,i], K[b,h,e,j], V[b,h,f,j]",
    out="O[b,h,f,i]",
)
add(
    "kT",
    "",
    f"""S[i,j] = Q[i,e] * K[e,j] / sqrt(|e|) where j <= i
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[b,h,e,j], V[b,h,j,f]",
)
add(
    "kT_full",
    "",
    f"""S[i,j] = Q[i,e] * K[e,j] / sqrt(|e|)
    {SOFTMAX}""",
    qkv="Q[b,h,i,e], K[b,h,e,j], V[b,h,j,f]",
)
add(
    "vT",
    "",
    f"""S[i,j] = {DOT} where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[f,j]""",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,h,f,j]",
)
add(
    "norm_keys_seq",
    "",
    """k[j,e] = softmax[j](K[j,e])
    q[i,e] = softmax[e](Q[i,e])
    G[e,f] = k[j,e] * V[j,f]
    O[i,f] = q[i,e] * G[e,f]""",
)
add(
    "linear_noncausal",
    "",
    """k[j,e] = exp(K[j,e])
    G[e,f] = k[j,e] * V[j,f]
    z[e] = sum[j](k[j,e])
    O[i,f] = Q[i,e] * G[e,f] / (1 + sum[e](Q[i,e]**2 * z[e]))""",
)
add(
    "mean_pool_query",
    "",
    """m[e] = sum[i](Q[i,e]) / |i|
    s[j] = m[e] * K[j,e] / sqrt(|e|)
    O[f] = softmax[j](s[j]) * V[j,f]""",
    out="O[b,h,f]",
)
add(
    "pool_gate",
    "",
    f"""m[f] = sum[j](V[j,f]) / |j|
    S[i,j] = {DOT} where j <= i
    {SOFTMAX} * sigmoid(m[f])""",
)
add(
    "centred_keys",
    "",
    f"""m[e] = sum[j](K[j,e]) / |j|
    S[i,j] = Q[i,e] * (K[j,e] - m[e]) / sqrt(|e|) where j <= i
    {SOFTMAX}""",
)
add(
    "norm_over_keys",
    "",
    f"""va[e] = sqrt(sum[j](K[j,e]**2) / |j| + 0.1)
    S[i,j] = Q[i,e] * K[j,e] / va[e] where j <= i
    {SOFTMAX}""",
)
add(
    "rank0_out",
    "",
    f"""S[i,j] = {DOT} where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O = sum[i](sum[f](A[i,f] ** 2))""",
    out="O[b,h]",
)
add(
    "loss",
    "Y[b,h,i,f]",
    f"""S[i,j] = {DOT} where j <= i
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i] = sum[f]((A[i,f] - Y[i,f]) ** 2)""",
    out="O[b,h,i]",
)
add(
    "shift_read",
    "",
    f"""S[i,j] = {DOT} + (sum[e](Q[i-1,e] * K[j,e]) if i > 0 else 0.0) where j <= i
    {SOFTMAX}""",
)
add(
    "token_shift",
    "mu[h,e]",
    f"""k[j,e] = K[j,e] + mu[e] * (K[j-1,e] if j > 0 else 0.0)
    S[i,j] = Q[i,e] * k[j,e] / sqrt(|e|) where j <= i
    {SOFTMAX}""",
)
add(
    "pos_gather",
    "pos[b,j]: int, R[r,e]",
    f"""k[j,e] = K[j,e] + R[pos[j],e]
    S[i,j] = Q[i,e] * k[j,e] / sqrt(|e|) where j <= i
    {SOFTMAX}""",
    r=4,
)
add(
    "block_sparse_tbl",
    "allow[h,p,q]: bool",
    f"""S[i,j] = {DOT} where allow[i // 4, j // 4]
    {SOFTMAX}""",
    p=5,
    q=5,
)
add(
    "landmark",
    "isl[b,j]: bool",
    f"""S[i,j] = {DOT} where j <= i, (isl[j] or i - j < 4)
    {SOFTMAX}""",
)
add(
    "per_head_win",
    "w[h]: int",
    f"""S[i,j] = {DOT} where i - w <= j <= i
    {SOFTMAX}""",
)
add(
    "per_q_win",
    "lo[b,i]: int, hi[b,i]: int",
    f"""S[i,j] = {DOT} where lo[i] <= j < hi[i] + 8
    {SOFTMAX}""",
)
add(
    "segment_pos",
    "seg[b,n]: int, slope[h]",
    f"""S[i,j] = {DOT} - slope * (i - j) where seg[i] >= seg[j], j <= i
    {SOFTMAX}""",
)
add(
    "strided",
    "s: int",
    f"""S[i,j] = {DOT} where (i - j) % s == 0, j <= i
    {SOFTMAX}""",
    params={"s": 3},
)
add(
    "bool_param",
    "causal: bool",
    f"""S[i,j] = {DOT} where j <= i or not causal
    {SOFTMAX}""",
    params={"causal": True},
)
add(
    "bool_param_f",
    "causal: bool",
    f"""S[i,j] = {DOT} where j <= i or not causal
    {SOFTMAX}""",
    params={"causal": False},
)
add(
    "float_param",
    "tau: float = 0.7, eps: float = 1e-3",
    f"""S[i,j] = {DOT} / tau where j <= i
    P[i,j] = exp(S[i,j] - max[j](S[i,j]))
    O[i,f] = P[i,j] * V[j,f] / (eps + sum[j](P[i,j]))""",
)
add(
    "out_order",
    "",
    f"""S[i,j] = {DOT} where j <= i
    L[i] = logsumexp[j](S[i,j])
    {SOFTMAX}""",
    out="L[b,h,i], O[b,i,h,f]",
)
add(
    "bwd_only_lse",
    "",
    f"""S[i,j] = {DOT} where j <= i
    L[i] = logsumexp[j](S[i,j])""",
    qkv="Q[b,h,i,e], K[b,h,j,e]",
    out="L[b,h,i]",
)
add(
    "future_only",
    "",
    f"""S[i,j] = {DOT} where j > i
    {SOFTMAX}""",
)
add(
    "future_win",
    "",
    f"""S[i,j] = {DOT} where i < j < i + 6
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    out="O[b,h,i,f], L[b,h,i]",
)
add(
    "diag_excluded",
    "",
    f"""S[i,j] = {DOT} where j != i
    {SOFTMAX}""",
)
add(
    "self_only",
    "",
    f"""S[i,j] = {DOT} where j == i
    {SOFTMAX}""",
)
add(
    "mult3",
    "Q2[b,h,i,d], K2[b,h,j,d]",
    f"""S[i,j] = {DOT} * (Q2[i,d] * K2[j,d]) where j <= i
    {SOFTMAX}""",
    d=4,
)
add(
    "dot_minus_max",
    "",
    f"""S[i,j] = {DOT} - max[e](Q[i,e]) where j <= i
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    out="O[b,h,i,f], L[b,h,i]",
)
add(
    "hyper",
    "",
    f"""d2[i,j] = sum[e]((Q[i,e] - K[j,e])**2)
    nq[i] = sum[e](Q[i,e]**2)
    nk[j] = sum[e](K[j,e]**2)
    S[i,j] = -log(1 + 2 * d2[i,j] / ((1 + nq[i]) * (1 + nk[j]))) where j <= i
    {SOFTMAX}""",
)
add(
    "rbf",
    "ls[h]",
    """S[i,j] = exp(-sum[e]((Q[i,e] - K[j,e])**2) * exp(ls)) where j <= i
    O[i,f] = S[i,j] * V[j,f] / sum[j](S[i,j])""",
)
add(
    "kernel_poly_learn",
    "a[h], c[h]",
    f"""S[i,j] = (exp(a) * {DOT} + c) ** 3 where j <= i
    O[i,f] = S[i,j] * V[j,f] / (i + 1)""",
)
add(
    "addmlp",
    "",
    f"""S[i,j] = w[a] * gelu(A[i,a] + B[j,a]) where j <= i
    {SOFTMAX}""",
    qkv="A[b,h,i,a], B[b,h,j,a], V[b,h,j,f], w[h,a]",
    a=5,
)
add(
    "gatv2",
    "",
    """x[i,a] = X[i,c] * W[a,c]
    S[i,j] = w[a] * max(x[i,a] + x[j,a], 0.2 * (x[i,a] + x[j,a]))
    O[i,a] = softmax[j](S[i,j]) * x[j,a]""",
    qkv="X[b,n,c], w[h,a], W[h,a,c]",
    out="O[b,h,i,a]",
    a=5,
    c=4,
)
add(
    "heads_bias_of_all_batches",
    "u[h,i], w[h,j]",
    f"""S[i,j] = 3 * tanh((u[i] + w[j]) / 3)
    T[i,j] = w[j] * {DOT} where i % 2 == j % 2
    A[i,j] = softmax[j](S[i,j]) * softmax[j](T[i,j])
    O[i,f] = A[i,j] * V[j,f]""",
)
GROUPED = "Q[b,h,i,e], K[b,h,g,j,e], V[b,h,g,j,f]"
add(
    "groups_by_their_lse",
    "",
    """S[i,g,j] = Q[i,e] * K[g,j,e] / sqrt(|e|)
    L[i,g] = logsumexp[j](S[i,g,j])
    O[i,f] = softmax[g](0.5 * L[i,g]) * softmax[j](S[i,g,j]) * V[g,j,f]""",
    qkv=GROUPED,
    g=3,
)

# Normalizers and outputs that nobody planned for.
CAUSAL = "where j <= i"
add(
    "quantile_norm",
    "",
    f"""S[i,j] = {DOT} {CAUSAL}
    A[i,j] = exp(S[i,j]) / (1 + exp(S[i,j]))
    Z[i] = sum[j](A[i,j]**2)
    O[i,f] = A[i,j] * V[j,f] / sqrt(Z[i] + 1)""",
)
add(
    "two_temps",
    "t[h]",
    f"""S[i,j] = {DOT} {CAUSAL}
    O[i,f] = (0.5 * softmax[j](S[i,j]) + 0.5 * softmax[j](exp(t) * S[i,j])) * V[j,f]""",
)
add(
    "variance_out",
    "",
    f"""S[i,j] = {DOT} {CAUSAL}
    P[i,j] = softmax[j](S[i,j])
    m[i] = sum[j](P[i,j] * S[i,j])
    W[i] = sum[j](P[i,j] * (S[i,j] - m[i])**2)
    O[i,f] = P[i,j] * V[j,f]""",
    out="O[b,h,i,f], m[b,h,i], W[b,h,i]",
)
add(
    "renyi",
    "",
    f"""S[i,j] = {DOT} {CAUSAL}
    P[i,j] = softmax[j](S[i,j])
    H[i] = -log(sum[j](P[i,j]**2))
    O[i,f] = P[i,j] * V[j,f]""",
    out="O[b,h,i,f], H[b,h,i]",
)
add(
    "maxpool",
    "",
    f"""S[i,j] = {DOT} {CAUSAL}
    M[i] = max[j](S[i,j])
    A[i,j] = relu(S[i,j] - M[i] + 1)
    O[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]""",
)
add(
    "gauss_dist",
    "s[h]",
    f"""S[i,j] = -exp(s) * sum[e]((Q[i,e] - K[j,e])**2) {CAUSAL}
    {SOFTMAX}""",
)
add(
    "laplace",
    "",
    f"""S[i,j] = -sum[e](abs(Q[i,e] - K[j,e])) {CAUSAL}
    {SOFTMAX}""",
)
add(
    "cosine",
    "t[h]",
    f"""nk[j] = sqrt(sum[e](K[j,e]**2) + 1e-3)
    S[i,j] = exp(t) * Q[i,e] * K[j,e] / (sqrt(sum[e](Q[i,e]**2)+1e-3) * nk[j]) {CAUSAL}
    {SOFTMAX}""",
)
add(
    "sel_gate",
    "g[b,h,i]",
    f"""X[i,j] = sigmoid({DOT} + g[i]) {CAUSAL}
    F[i,j] = sum[l : l < i](X[l,j])
    S[i,j] = {DOT} - log(1 + F[i,j]) {CAUSAL}
    {SOFTMAX}""",
)
add(
    "sel_cross",
    "",
    f"""X[i,j] = relu({DOT})
    F[i,j] = sum[l : l <= i](X[l,j])
    A[i,j] = exp(-F[i,j]) * X[i,j]
    O[i,f] = A[i,j] / (1 + sum[j](A[i,j])) * V[j,f]""",
)
add(
    "coverage",
    "",
    f"""S[i,j] = {DOT} {CAUSAL}
    P[i,j] = softmax[j](S[i,j])
    U[i,j] = sum[l : l < i](P[l,j])
    O[i,f] = P[i,j] * V[j,f]
    L[i] = sum[j](min(P[i,j], U[i,j]))""",
    out="O[b,h,i,f], L[b,h,i]",
)
add(
    "clip_norm",
    "c[h]",
    f"""S[i,j] = {DOT} {CAUSAL}
    A[i,j] = softplus(S[i,j])
    O[i,f] = A[i,j] * V[j,f] / max(sum[j](A[i,j]), exp(c))""",
)
add(
    "even_odd",
    "",
    f"""S[i,j] = {DOT} where j <= i, (i - j) % 2 == 0
    T[i,j] = {DOT} where j <= i, (i - j) % 2 == 1
    O[i,f] = softmax[j](S[i,j]) * V[j,f] - 0.3 * softmax[j](T[i,j]) * V[j,f]""",
)
add(
    "sink_vec",
    "z[h,f]",
    f"""S[i,j] = {DOT} {CAUSAL}
    M[i] = max(0, max[j](S[i,j]))
    P[i,j] = exp(S[i,j] - M[i])
    O[i,f] = (P[i,j] * V[j,f] + exp(-M[i]) * z[f]) / (sum[j](P[i,j]) + exp(-M[i]))""",
)
add(
    "solve",
    "",
    f"""S[i,j] = {DOT} {CAUSAL}
    t[i] = solve[x : -50 <= x <= 50](sum[j](sigmoid(S[i,j] - x)) == 0.7, iters=40)
    O[i,f] = sigmoid(S[i,j] - t[i]) * V[j,f]""",
)
