"""Programs after recent papers: rows of `programs`, which `papers` leads to.

None of them was wrong when it was written; together they use most features of the language.
"""

from __future__ import annotations

from tests.road.programs import add

add(
    "p_mla_rotary",
    "",
    """A[h,i,c] = Q[h,i,d] * Wk[h,d,c]
    S[h,i,j] = (A[h,i,c] * C[j,c] + QR[h,i,r] * KR[j,r]) / sqrt(|d| + |r|) where j <= i
    U[h,i,c] = softmax[j](S[h,i,j]) * C[j,c]
    O[h,i,f] = U[h,i,c] * Wv[h,c,f]""",
    qkv="Q[b,h,i,d], QR[b,h,i,r], C[b,j,c], KR[b,j,r], Wk[h,d,c], Wv[h,c,f]",
    batch="b",
    d=5,
    r=4,
    c=6,
)
add(
    "p_depth_attention",
    "",
    """S[i,l] = Q[i,e] * K[l,i,e] / sqrt(|e|)
    O[i,f] = softmax[l](S[i,l]) * V[l,i,f]""",
    qkv="Q[b,i,e], K[b,l,i,e], V[b,l,i,f]",
    out="O[b,i,f]",
    batch="b",
    l=4,
)
add(
    "p_cross_layer",
    "",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    VM[j,f] = w[l] * V[l,j,f]
    O[i,f] = softmax[j](S[i,j]) * VM[j,f]""",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,h,l,j,f], w[l]",
    l=3,
)
add(
    "p_bias2d_window_table",
    "table[h,y,x], w: int = 5",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) + table[i // w - j // w + 3, i % w - j % w + w - 1]
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    y=7,
    x=9,
)
add(
    "p_headwin_softcap_temp",
    "win[h]: int, tau[h], cap: float = 5.0",
    """S[i,j] = cap * tanh(Q[i,e] * K[j,e] / sqrt(|e|) / cap) * exp(tau) where i - win < j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]
    LSE[i] = logsumexp[j](S[i,j])""",
    out="O[b,h,i,f], LSE[b,h,i]",
)
add(
    "p_multi_latent",
    "",
    """S[i,m] = Q[i,e] * L[m,e]
    T[m,j] = L[m,e] * K[j,e]
    W[m,f] = softmax[j](T[m,j]) * V[j,f]
    O[i,f] = softmax[m](S[i,m]) * W[m,f]""",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], L[h,m,e]",
    m=3,
)
add(
    "p_agent",
    "",
    """T[m,j] = tau * A[m,e] * K[j,e] + B1[m,j]
    W[m,f] = softmax[j](T[m,j]) * V[j,f]
    S[i,m] = tau * Q[i,e] * A[m,e] + B2[i,m]
    O[i,f] = softmax[m](S[i,m]) * W[m,f]""",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], A[b,h,m,e], B1[h,m,j], B2[h,i,m], tau: float = 0.3",
    m=3,
)
add(
    "p_fox_window_gqa",
    "",
    """F[j] = sum[l : l <= j](logsigmoid(lf[l]))
    S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) + F[i] - F[j] where i - w < j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    qkv="Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], lf[b,h,j], w: int = 6, G: int",
    params={"G": 2},
    h=4,
)
add(
    "p_fox_norm_gate",
    "lf[b,h,j], g[b,h,i,f]",
    """F[j] = sum[l : l <= j](logsigmoid(lf[l]))
    S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) + F[i] - F[j] where j <= i
    Y[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = Y[i,f] * rsqrt(sum[f](Y[i,f]**2) / |f| + 1e-5) * silu(g[i,f])""",
)
add(
    "p_ttt_linear",
    "",
    """W[t,e,f] = W[t-1,e,f] - 0.1 * sigmoid(eta[t]) * K[t,e] * (K[t,c] * W[t-1,c,f] - V[t,f]) init W0[e,f]
    O[t,f] = Q[t,e] * W[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], eta[b,h,t], W0[h,e,f]",
    out="O[b,h,t,f]",
    t=19,
)
add(
    "p_gsa",
    "",
    """A[t,m] = sigmoid(al[t,m])
    KT[t,m,e] = A[t,m] * KT[t-1,m,e] + (1 - A[t,m]) * K[t,e] init 0
    VT[t,m,f] = A[t,m] * VT[t-1,m,f] + (1 - A[t,m]) * V[t,f] init 0
    S[t,m] = Q[t,e] * KT[t,m,e]
    O[t,f] = softmax[m](S[t,m]) * VT[t,m,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], al[b,h,t,m]",
    out="O[b,h,t,f]",
    m=3,
    t=19,
)
add(
    "p_path_attention",
    "",
    """H[t,e,f] = H[t-1,e,f] - beta[t] * w[t,e] * (w[t,c] * H[t-1,c,f]) + K[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], w[b,h,t,e], beta[b,h,t]",
    out="O[b,h,t,f]",
    t=19,
)
add(
    "p_loglinear",
    "lam[b,h,i,l], lv[i,j]: int, la[b,h,j]",
    """F[j] = sum[l2 : l2 <= j](logsigmoid(la[l2]))
    A[i,j] = Q[i,e] * K[j,e] * exp(F[i] - F[j]) * lam[i, lv[i,j]] where j <= i
    O[i,f] = A[i,j] * V[j,f]""",
    l=5,
)
add(
    "p_prod_softmax_renorm",
    "L[b,h,j,e]",
    """A[i,j] = Q[i,e]*K[j,e] where j <= i
    B[i,j] = Q[i,e]*L[j,e]
    P[i,j] = softmax[j](A[i,j])
    R[i,j] = softmax[j](B[i,j])
    O[i,f] = P[i,j] * R[i,j] / (sum[j](P[i,j] * R[i,j]) + 1e-6) * V[j,f]""",
)
add(
    "p_hyperbolic",
    "c: float = 1.0",
    """qn[i] = sqrt(1 + sum[e](Q[i,e]**2))
    kn[j] = sqrt(1 + sum[e](K[j,e]**2))
    X[i,j] = max(qn[i] * kn[j] - Q[i,e] * K[j,e], 1.0001) where j <= i
    D[i,j] = log(X[i,j] + sqrt(X[i,j]**2 - 1))
    O[i,f] = softmax[j](-c * D[i,j]) * V[j,f]""",
)
add(
    "p_poincare",
    "",
    """q2[i] = sum[e](Q[i,e]**2)
    qh[i,e] = Q[i,e] / (1 + sqrt(1 + q2[i]))
    k2[j] = sum[e](K[j,e]**2)
    kh[j,e] = K[j,e] / (1 + sqrt(1 + k2[j]))
    D[i,j] = sum[e]((qh[i,e] - kh[j,e])**2)
    a[i] = 1 - sum[e](qh[i,e]**2)
    c[j] = 1 - sum[e](kh[j,e]**2)
    X[i,j] = 1 + 2 * D[i,j] / (a[i] * c[j]) + 1e-3
    S[i,j] = -log(X[i,j] + sqrt(X[i,j]**2 - 1))
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_poly_kernel",
    "c[h], p: int = 3",
    """A[i,j] = (Q[i,e] * K[j,e] / |e| + softplus(c))**p where j <= i
    O[i,f] = A[i,j] / (sum[j](abs(A[i,j])) + 1e-3) * V[j,f]""",
)
add(
    "p_cosine_learned",
    "tau[h]",
    """qn[i,e] = Q[i,e] * rsqrt(sum[e](Q[i,e]**2) + 1e-6)
    kn[j,e] = K[j,e] * rsqrt(sum[e](K[j,e]**2) + 1e-6)
    S[i,j] = qn[i,e] * kn[j,e] * exp(min(tau, log(100))) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_gru_inline",
    "",
    """H[t,e] = sigmoid(x[t,e] + Wz[e,c] * H[t-1,c]) * H[t-1,e] + (1 - sigmoid(x[t,e]
        + Wz[e,c] * H[t-1,c])) * tanh(x[t,e] + Wh[e,c] * H[t-1,c]) init 0
    O[t,e] = H[t,e]""",
    qkv="y[b,h,t], Wz[h,e,c], Wh[h,e,c], x[b,h,t,e]",
    out="O[b,h,t,e]",
    e=5,
    c=5,
    t=19,
)
add(
    "p_lstm_slstm",
    "",
    """M[t,e] = max(logsigmoid(f0[t,e]) + M[t-1,e], i0[t,e]) init -1e30
    c[t,e] = exp(logsigmoid(f0[t,e]) + M[t-1,e] - M[t,e]) * c[t-1,e] + exp(i0[t,e] - M[t,e]) * tanh(z0[t,e]) init 0
    n[t,e] = exp(logsigmoid(f0[t,e]) + M[t-1,e] - M[t,e]) * n[t-1,e] + exp(i0[t,e] - M[t,e]) init 0
    O[t,e] = sigmoid(o0[t,e]) * c[t,e] / n[t,e]""",
    qkv="i0[b,h,t,e], f0[b,h,t,e], z0[b,h,t,e], o0[b,h,t,e]",
    out="O[b,h,t,e]",
    e=5,
    t=19,
)
add(
    "p_mamba1",
    "",
    """H[t,d,n] = exp(-softplus(dt[t,d]) * exp(A[d,n])) * H[t-1,d,n] + softplus(dt[t,d]) * B[t,n] * x[t,d] init 0
    O[t,d] = C[t,n] * H[t,d,n] + D[d] * x[t,d]""",
    qkv="A[d,n], B[b,t,n], C[b,t,n], x[b,t,d], dt[b,t,d], D[d]",
    out="O[b,t,d]",
    batch="b",
    d=5,
    n=3,
    t=19,
)
add(
    "p_minlstm",
    "",
    """F[t,e] = sigmoid(f0[t,e]) / (sigmoid(f0[t,e]) + sigmoid(i0[t,e]))
    H[t,e] = F[t,e] * H[t-1,e] + (1 - F[t,e]) * x[t,e] init 0
    O[t,e] = H[t,e]""",
    qkv="f0[b,t,e], i0[b,t,e], x[b,t,e]",
    out="O[b,t,e]",
    batch="b",
    e=5,
    t=19,
)
add(
    "p_kda",
    "",
    """H[t,e,f] = exp(-softplus(ga[t,e])) * H[t-1,e,f] - sigmoid(beta[t]) * K[t,e] * (K[t,c]
        * (exp(-softplus(ga[t,c])) * H[t-1,c,f])) + sigmoid(beta[t]) * K[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], ga[b,h,t,e], beta[b,h,t]",
    out="O[b,h,t,f]",
    t=19,
)
add(
    "p_comba",
    "",
    """H[t,e,f] = exp(-softplus(al[t])) * (H[t-1,e,f] - beta[t] * K[t,e] * (K[t,c] * H[t-1,c,f]))
        + beta[t] * K[t,e] * V[t,f] init 0
    O[t,f] = (Q[t,e] - sigmoid(dd) * K[t,e]) * H[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], al[b,h,t], beta[b,h,t], dd[h]",
    out="O[b,h,t,f]",
    t=19,
)
add(
    "p_lightning2_decay_bias",
    "",
    """s[h] = 2**(-8 * (h + 1) / |h|)
    A[h,i,j] = Q[h,i,e] * K[h,j,e] * exp(-s[h] * (i - j)) where j <= i
    O[h,i,f] = A[h,i,j] * V[h,j,f]""",
    batch="b",
)
add(
    "p_power_attention",
    "la[b,h,j]",
    """F[j] = sum[m : m <= j](logsigmoid(la[m]))
    S[i,j] = (Q[i,e] * K[j,e] / sqrt(|e|))**2 * exp(F[i] - F[j]) where j <= i
    O[i,f] = S[i,j] / (sum[j](S[i,j]) + 1e-6) * V[j,f]""",
)
add(
    "p_based_taylor_win",
    "w: int = 4",
    """X[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    A[i,j] = 1 + X[i,j] + X[i,j]**2 / 2
    L[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]
    S[i,j] = X[i,j] where i - j < w
    W[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = L[i,f] + W[i,f]""",
)
add(
    "p_lasp_lolcats",
    "g[h], w: int = 4",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where i - w < j <= i
    M[i] = max[j](S[i,j])
    A[i,j] = sigmoid(g) * exp(S[i,j] - M[i])
    B[i,j] = (elu(Q[i,e]) + 1) * (elu(K[j,e]) + 1) where j <= i - w
    N[i,f] = sum[j](A[i,j] * V[j,f]) + sum[j](B[i,j] * V[j,f])
    O[i,f] = N[i,f] / (sum[j](A[i,j]) + sum[j](B[i,j]))""",
)
add(
    "p_infini",
    "bt[h], w: int = 5",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i, j // w == i // w
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    L[i,j] = (elu(Q[i,e]) + 1) * (elu(K[j,e]) + 1) where j // w < i // w
    B[i,f] = L[i,j] / sum[j](L[i,j]) * V[j,f]
    O[i,f] = sigmoid(bt) * B[i,f] + (1 - sigmoid(bt)) * A[i,f]""",
)
add(
    "p_mask_by_values",
    "x[b,i], y[b,j]",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where x[i] > y[j]
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_value_gate",
    "",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    G[i,j] = sigmoid(Q[i,e] * V[j,e])
    O[i,f] = softmax[j](S[i,j]) * G[i,j] * V[j,f]""",
    e=6,
)
add(
    "p_pairwise_value_gate",
    "",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    O[i,f] = sum[j](softmax[j](S[i,j]) * sigmoid(V[i,f] + V[j,f]) * V[j,f])""",
)
add(
    "p_out_fib",
    "",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    out="O[f,i,b,h]",
)
add(
    "p_out_bihf",
    "",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]
    L[i] = logsumexp[j](S[i,j])""",
    out="L[h,i,b], O[b,i,h,f]",
)
add(
    "p_out_bhjf_two",
    "",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * V[j,f]
    C[j] = sum[i](P[i,j])
    D[j,e] = P[i,j] * Q[i,e]
    E[i] = -sum[j](P[i,j] * log(P[i,j]))""",
    out="D[b,h,j,e], E[b,h,i], C[b,h,j], O[b,h,i,f]",
)
add(
    "p_float_params_mix",
    "a: float = 0.5, n: int = 3, on: bool = True",
    """S[i,j] = (a * Q[i,e] * K[j,e] / sqrt(|e|) + n * (j % n)) if on else 0.0
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_time_decay_float_pos",
    "ts[b,j], lam[h]",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) - softplus(lam) * (ts[i] - ts[j]) where ts[j] <= ts[i]
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_xpos",
    "",
    """S[i,j] = sum[e](Q[i,e] * K[j,e] * ((e + 1) / |e|)**((i - j) / 8)) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_mta_conv",
    "ck[h,x]",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)
    T[i,j] = ck[0] * S[i,j] + (ck[1] * S[i,j-1] if j > 0 else 0) where j <= i
    O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
    x=2,
)
add(
    "p_key_conv",
    "ck[h,x]",
    """KC[j,e] = ck[0] * K[j,e] + (ck[1] * K[j-1,e] if j >= 1 else 0) + (ck[2] * K[j-2,e] if j >= 2 else 0)
    S[i,j] = Q[i,e] * KC[j,e] / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    x=3,
)
add(
    "p_cosformer",
    "",
    """A[i,j] = relu(Q[i,e]) * relu(K[j,e]) * cos(1.5707963 * (i - j) / |j|) where j <= i
    O[i,f] = A[i,j] / max(sum[j](A[i,j]), 0.1) * V[j,f]""",
)
add(
    "p_nystrom2",
    "",
    """A[i,m] = Q[i,e] * L[m,e]
    B[m,n] = L[m,e] * L[n,e]
    C[n,j] = L[n,e] * K[j,e]
    D[n,f] = softmax[j](C[n,j]) * V[j,f]
    E[m,f] = softmax[n](B[m,n]) * D[n,f]
    O[i,f] = softmax[m](A[i,m]) * E[m,f]""",
    qkv="Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], L[h,m,e]",
    m=4,
    n=4,
)
add(
    "p_lsh_two_rounds",
    "c1[b,h,j]: int, c2[b,h,j]: int",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) - log(1 if c1[i] != c1[j] or c2[i] != c2[j] else 2)
        where c1[i] == c1[j] or c2[i] == c2[j], j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_softmax1_window_rel",
    "rel[h,x,e]",
    """S[i,j] = (Q[i,e] * K[j,e] + Q[i,e] * rel[i - j, e]) / sqrt(|e|) where 0 <= i - j < 4
    Z[i] = 1 + sum[j](exp(S[i,j]))
    O[i,f] = exp(S[i,j]) / Z[i] * V[j,f]""",
    x=4,
)
add(
    "p_rel_values",
    "rk[h,x,e], rv[h,x,f]",
    """S[i,j] = (Q[i,e] * K[j,e] + Q[i,e] * rk[min(max(i - j, 0), 3), e]) / sqrt(|e|) where j <= i
    P[i,j] = softmax[j](S[i,j])
    O[i,f] = P[i,j] * (V[j,f] + rv[min(max(i - j, 0), 3), f])""",
    x=4,
)
add(
    "p_disentangled",
    "Kr[h,x,e], Qr[h,x,e], k: int = 3",
    """S[i,j] = (Q[i,e] * K[j,e] + Q[i,e] * Kr[min(max(i - j + k, 0), 2*k - 1), e] + K[j,e] * Qr[min(max(j
        - i + k, 0), 2*k - 1), e]) / sqrt(3 * |e|)
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    x=6,
)
add(
    "p_medusa_tree_dec",
    "anc[i,m]: bool, KN[b,h,m,e], VN[b,h,m,f]",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)
    T[i,m] = Q[i,e] * KN[m,e] / sqrt(|e|) where anc[i,m]
    M[i] = max(max[j](S[i,j]), max[m](T[i,m]))
    A[i,j] = exp(S[i,j] - M[i])
    B[i,m] = exp(T[i,m] - M[i])
    Z[i] = sum[j](A[i,j]) + sum[m](B[i,m])
    O[i,f] = (sum[j](A[i,j] * V[j,f]) + sum[m](B[i,m] * VN[m,f])) / Z[i]""",
    m=5,
    i=5,
)
add(
    "p_yoco_lse_merge",
    "K2[b,h,n,e], V2[b,h,n,f]",
    """S[i,j] = Q[i,e] * K[j,e] where j <= i
    T[i,n] = Q[i,e] * K2[n,e]
    L1[i] = logsumexp[j](S[i,j])
    L2[i] = logsumexp[n](T[i,n])
    A[i,f] = softmax[j](S[i,j]) * V[j,f]
    B[i,f] = softmax[n](T[i,n]) * V2[n,f]
    O[i,f] = sigmoid(L1[i] - L2[i]) * A[i,f] + sigmoid(L2[i] - L1[i]) * B[i,f]""",
    n=7,
)
add(
    "p_diff_v2",
    "",
    """S[h,i,j] = Q[h,i,e] * K[h//G,j,e] / sqrt(|e|) where j <= i
    A[h,i,f] = softmax[j](S[h,i,j]) * V[h//G,j,f]
    rank m = |h| // 2
    O[m,i,f] = A[2*m,i,f] - sigmoid(lam[2*m,i]) * A[2*m+1,i,f]""",
    qkv="Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], lam[b,h,i], G: int",
    out="O[b,m,i,f]",
    batch="b",
    params={"G": 2},
    h=4,
    m=2,
)
add(
    "p_tensor_product_att",
    "",
    """Q[h,i,e] = AQ[i,h,r] * BQ[i,r,e] / |r|
    K[h,j,e] = AK[j,h,r] * BK[j,r,e] / |r|
    V[h,j,f] = AV[j,h,r] * BV[j,r,f] / |r|
    S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    O[h,i,f] = softmax[j](S[h,i,j]) * V[h,j,f]""",
    qkv="AQ[b,i,h,r], AK[b,j,h,r], AV[b,j,h,r], BQ[b,i,r,e], BK[b,j,r,e], BV[b,j,r,f]",
    batch="b",
    r=2,
)
add(
    "p_mfa_shared_qk2",
    "",
    """Y[h,i,c] = X[i,e] * W[h,e,c]
    S[h,i,j] = Y[h,i,c] * X[j,c] where j <= i
    O[h,i,f] = softmax[j](S[h,i,j]) * X[j,f]""",
    qkv="X[b,i,e], W[h,e,c]",
    batch="b",
    c=8,
    f=8,
)
add(
    "p_slot_attention_iter",
    "",
    """S[j,m] = K[j,e] * L[m,e] / sqrt(|e|)
    A[j,m] = softmax[m](S[j,m]) + 1e-6
    W[j,m] = A[j,m] / sum[j](A[j,m])
    O[m,f] = W[j,m] * V[j,f]""",
    qkv="K[b,j,e], V[b,j,f], L[b,m,e]",
    out="O[b,m,f]",
    batch="b",
    m=3,
)
add(
    "p_triangle_attention",
    "",
    """S[n,i,j] = Q[n,i,e] * K[n,j,e] / sqrt(|e|) + bias[i,j]
    O[n,i,f] = sigmoid(g[n,i,f]) * (softmax[j](S[n,i,j]) * V[n,j,f])""",
    qkv="Q[b,h,n,i,e], K[b,h,n,j,e], V[b,h,n,j,f], bias[b,h,i,j], g[b,h,n,i,f]",
    out="O[b,h,n,i,f]",
    n=3,
)
add(
    "p_ipa_points",
    "T[b,i,h,p,x], U[b,j,h,p,x], g[h], z[b,h,i,j]",
    """D[h,i,j] = sum[p,x]((T[i,h,p,x] - U[j,h,p,x])**2)
    S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) + z[h,i,j] - softplus(g[h]) * D[h,i,j] / 2
    O[h,i,f] = softmax[j](S[h,i,j]) * V[h,j,f]""",
    batch="b",
    p=2,
    x=3,
)
add(
    "p_graphormer",
    "spd[b,i,j]: int, bs[h,s], deg[b,j]: int, be[h,s]",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) + bs[spd[i,j]] + be[deg[j]]
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    s=4,
)
add(
    "p_edge_gat",
    "src[b,i,n]: int, ev[b,i,n,e]",
    """S[i,n] = Q[i,e] * (K[src[i,n],e] + ev[i,n,e]) / sqrt(|e|)
    O[i,f] = softmax[n](S[i,n]) * V[src[i,n],f]""",
    n=3,
)
add(
    "p_hier_two_level",
    "w: int = 4",
    """rank n = (|j| + w - 1) // w
    C[n,e] = sum[j : j // w == n](K[j,e]) / w
    G[i,n] = Q[i,e] * C[n,e] where n <= i // w
    A[i,n] = softmax[n](G[i,n])
    S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) + log(A[i, j // w] + 1e-6) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_quest_minmax",
    "w: int = 4",
    """rank n = (|j| + w - 1) // w
    hi[n,e] = max[j : j // w == n](K[j,e])
    lo[n,e] = min[j : j // w == n](K[j,e])
    U[i,n] = sum[e](max(Q[i,e] * hi[n,e], Q[i,e] * lo[n,e]))
    S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i, U[i, j // w] > 0
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
)
add(
    "p_mod_router",
    "r[b,j]",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i, r[j] > 0
    Y[i,f] = softmax[j](S[i,j]) * V[j,f]
    O[i,f] = sigmoid(r[i]) * Y[i,f] + (1 - sigmoid(r[i])) * V[i,f]""",
)
add(
    "p_moh_heads",
    "r[b,i,h]",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    g[i,h] = softmax[h](r[i,h])
    O[i,f] = sum[h](g[i,h] * (softmax[j](S[h,i,j]) * V[h,j,f]))""",
    out="O[b,i,f]",
    batch="b",
)
add(
    "p_switchhead",
    "wv[b,j,h,x], W[h,x,f,d]",
    """S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
    U[h,j,d] = sum[x](sigmoid(wv[j,h,x]) * (V[h,j,f] * W[h,x,f,d]))
    O[h,i,d] = softmax[j](S[h,i,j]) * U[h,j,d]""",
    out="O[b,h,i,d]",
    batch="b",
    x=2,
    d=3,
)
add(
    "p_mega_ema",
    "",
    """H[t,e] = sigmoid(al[e]) * be[e] * X[t,e] + (1 - sigmoid(al[e]) * sigmoid(de[e])) * H[t-1,e] init 0
    S[t,j] = H[t,e] * H[j,e] / sqrt(|e|) where j <= t
    O[t,f] = softmax[j](S[t,j]) * V[j,f]""",
    qkv="X[b,t,e], V[b,j,f], al[e], de[e], be[e]",
    out="O[b,t,f]",
    batch="b",
    t=19,
)
add(
    "p_hyena_gate",
    "",
    """C[i,f] = sum[j : j <= i](hk[i - j] * V[j,f])
    O[i,f] = Q2[i,f] * C[i,f]""",
    qkv="V[b,h,j,f], Q2[b,h,i,f], hk[h,j]",
)
add(
    "p_aft_full",
    "",
    """M[f] = max[j](K[j,f])
    N[i,f] = sum[j : j <= i](exp(w[i,j] + K[j,f] - M[f]) * V[j,f])
    D[i,f] = sum[j : j <= i](exp(w[i,j] + K[j,f] - M[f]))
    O[i,f] = sigmoid(Q[i,f]) * N[i,f] / D[i,f]""",
    qkv="Q[b,i,f], K[b,j,f], V[b,j,f], w[i,j]",
    out="O[b,i,f]",
    batch="b",
)
add(
    "p_rwkv4",
    "",
    """a[t,f] = exp(-exp(w[f])) * a[t-1,f] + exp(K[t,f]) * V[t,f] init 0
    d[t,f] = exp(-exp(w[f])) * d[t-1,f] + exp(K[t,f]) init 0
    p[t,f] = exp(-exp(w[f])) * (a[t-1,f] if t > 0 else 0) * exp(exp(w[f])) + exp(u[f] + K[t,f]) * V[t,f]
    q[t,f] = (d[t-1,f] if t > 0 else 0) + exp(u[f] + K[t,f])
    O[t,f] = sigmoid(R[t,f]) * p[t,f] / q[t,f]""",
    qkv="R[b,t,f], K[b,t,f], V[b,t,f], u[f], w[f]",
    out="O[b,t,f]",
    batch="b",
    t=19,
)
add(
    "p_bidirectional_states",
    "",
    """A[t,e,f] = 0.9 * A[t-1,e,f] + K[t,e] * V[t,f] init 0
    B[t,e,f] = 0.9 * B[t+1,e,f] + K[t,e] * V[t,f] init 0
    O[t,f] = Q[t,e] * A[t,e,f] + Q[t,e] * B[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]",
    out="O[b,h,t,f]",
    t=19,
)
add(
    "p_second_order_delta",
    "",
    """G[t,e,f] = H[t-1,e,f] - b1[t] * K[t,e] * (K[t,c] * H[t-1,c,f]) + b1[t] * K[t,e] * V[t,f]
    H[t,e,f] = G[t,e,f] - b2[t] * K2[t,e] * (K2[t,c] * G[t,c,f]) + b2[t] * K2[t,e] * V2[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], b1[b,h,t], b2[b,h,t], K2[b,h,t,e], V2[b,h,t,f]",
    out="O[b,h,t,f]",
    t=9,
)
add(
    "p_oja",
    "",
    """H[t,e,f] = H[t-1,e,f] + 0.1 * V[t,f] * (K[t,e] - (V[t,g] * H[t-1,e,g])) init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], b1[b,h,t]",
    out="O[b,h,t,f]",
    t=9,
)
add(
    "p_longhorn",
    "",
    """d[t,f] = be[t,f] / (1 + be[t,f]**2)
    H[t,e,f] = (1 - d[t,f]**2 * K[t,e]**2 * 0.1) * H[t-1,e,f] + d[t,f] * V[t,f] * K[t,e] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], be[b,h,t,f]",
    out="O[b,h,t,f]",
    t=9,
)
add(
    "p_mesa_diag",
    "",
    """D[t,e] = sigmoid(g[t]) * D[t-1,e] + K[t,e]**2 init 1
    H[t,e,f] = sigmoid(g[t]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0
    q[t,e] = Q[t,e] / (D[t,e] + 1)
    O[t,f] = q[t,e] * H[t,e,f]""",
    qkv="Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], g[b,h,t]",
    out="O[b,h,t,f]",
    t=19,
)
add(
    "p_zloss",
    "",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    L[i] = logsumexp[j](S[i,j])
    O[i,f] = softmax[j](S[i,j]) * V[j,f]
    z = sum[i](L[i]**2) / |i|""",
    out="O[b,h,i,f], z[b,h]",
)
add(
    "p_cross_entropy",
    "",
    """S[i,v] = Q[i,e] * W[v,e]
    L[i] = logsumexp[v](S[i,v]) - sum[e](Q[i,e] * W[y[i],e])""",
    qkv="Q[b,i,e], W[v,e], y[b,i]: int",
    out="L[b,i]",
    batch="b",
    v=11,
)
add(
    "p_attn_rollout_two",
    "",
    """S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
    P[i,j] = softmax[j](S[i,j])
    A[i,f] = P[i,j] * V[j,f]
    B[i,f] = 0.5 * A[i,f] + 0.5 * V[i,f]
    O[i,f] = P[i,j] * B[j,f]""",
)
