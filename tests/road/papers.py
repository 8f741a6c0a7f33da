"""Programs as recent papers write them, and odd uses of every section: against their own dense evaluation.

The first are those that were wrong once; the kinds are masks by values, positional scores, states and outputs.
"""

from __future__ import annotations

from tests.road.programs import DOT, SOFTMAX, add

TQ = "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]"
OT = "O[b,h,t,f]"


# --- functions that are numbers for some arguments only -----------------------------------------

add(
    "fire",
    "w1[m], b1[m], w2[h,m], c[h], L[h]",
    """D[i,j] = log(softplus(c) * (i - j) + 1) / log(softplus(c) * max(softplus(L), i) + 1) where j <= i
    S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) + w2[m] * relu(w1[m] * D[i,j] + b1[m]) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    m=3,
)
add(
    "fire_mask_of_distances",
    "w1[m], w2[h,m]",
    """D[i,j] = log(1 + i - j) / log(1 + max(4, i)) where j <= i
    S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) + w2[m] * relu(w1[m] * D[i,j])
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    m=3,
)
add(
    "root_of_values",
    "x[b,j]",
    f"""S[i,j] = {DOT}
    U[j,f] = sqrt(x[j]) * V[j,f] where x[j] > 0
    O[i,f] = softmax[j](S[i,j]) * U[j,f]""",
)
add(
    "log_of_keys",
    "x[b,j]",
    """L[j,e] = K[j,e] * log(x[j]) where x[j] > 0
    S[i,j] = Q[i,e] * L[j,e]
    O[i,f] = sigmoid(S[i,j]) * V[j,f]""",
)
add(
    "log_of_rows",
    "x[b,i]",
    """T[i,j] = Q[i,e] * K[j,e] * log(x[i]) where x[i] > 0
    O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
)
add(
    "log_of_rows_in_a_sum",
    "x[b,i], w[h,m]",
    """R[i] = log(x[i]) where x[i] > 0
    T[i,j] = Q[i,e] * K[j,e] + sum[m](w[m] * tanh(R[i] * w[m]))
    O[i,f] = sigmoid(T[i,j]) * V[j,f]""",
    m=3,
)
add(
    "domain_of_a_domain",
    "x[b,j]",
    f"""y[j] = x[j] - 0.3 where x[j] > 0.3
    z[j] = sqrt(y[j])
    S[i,j] = {DOT} / (1 + z[j]) + log(y[j]) where j <= i
    {SOFTMAX}""",
)
add(
    "log_in_a_filter",
    "x[b,j]",
    f"""S[i,j] = {DOT}
    m[i] = sum[j : x[j] > 0](sigmoid(S[i,j]) * log(x[j]))
    O[i,f] = m[i] * (sigmoid(S[i,j]) * V[j,f])""",
)
add(
    "divided_by_an_id",
    "x[b,j]: int",
    f"""S[i,j] = {DOT} / x[j] where x[j] > 0
    {SOFTMAX}
    L[i] = logsumexp[j](S[i,j])""",
    out="O[b,h,i,f], L[b,h,i]",
)
add(
    "singular_positions",
    "w[h]",
    f"""S[i,j] = {DOT} + w / j + 1 / (i - 5)**2 where j > 0, i != 5
    {SOFTMAX}""",
)
add(
    "mlp_of_distances",
    "w1[m], w2[m,p], w3[h,p]",
    """D[i,j] = sqrt(i - j) where j <= i
    S[i,j] = Q[i,e] * K[j,e] + w3[p] * tanh(sum[m](w2[m,p] * tanh(w1[m] * D[i,j]))) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    m=3,
    p=2,
)

# --- states that are walked ---------------------------------------------------------------------

add(
    "rnn",
    "",
    """X[t,e] = tanh(W[e,c] * X[t-1,c] + x[t,e]) init 0
    O[t,e] = X[t,e]""",
    qkv="W[h,e,c], x[b,h,t,e]",
    out="O[b,h,t,e]",
    t=19,
    e=5,
    c=5,
)
add(
    "rnn_backward_in_time",
    "",
    """X[t,e] = sigmoid(W[e,c] * X[t+1,c] + x[t,e]) init X0[e]
    O[t,e] = X[t,e]""",
    qkv="W[h,e,c], x[b,h,t,e], X0[b,h,e]",
    out="O[b,h,t,e]",
    t=19,
    e=5,
    c=5,
)
add(
    "rnn_of_other_features",
    "",
    """X[t,e] = tanh(W[e,c] * X[t-1,c] + U[e,d] * x[t,d] + b0[e]) init 0
    O[t,f] = Y[f,e] * X[t,e]""",
    qkv="W[h,e,c], U[h,e,d], x[b,h,t,d], Y[h,f,e], b0[h,e]",
    out="O[b,h,t,f]",
    t=19,
    e=5,
    c=5,
    d=3,
)
add(
    "rnn_of_a_projection",
    "",
    """u[t,e] = U[e,d] * x[t,d]
    X[t,e] = tanh(W[e,c] * X[t-1,c] + u[t,e]) init 0
    O[t,e] = X[t,e]""",
    qkv="W[h,e,c], U[h,e,d], x[b,h,t,d]",
    out="O[b,h,t,e]",
    t=19,
    e=5,
    c=5,
    d=3,
)
add(
    "minimal_gru",
    "",
    """H[t,e] = H[t-1,e] + gate(x[t,e] + Wz[e,c] * H[t-1,c]) * (tanh(x[t,e] + Wh[e,c] * H[t-1,c]) - H[t-1,e]) init 0
    O[t,e] = H[t,e]""",
    qkv="Wz[h,e,c], Wh[h,e,c], x[b,h,t,e]",
    defs="def gate(x) = sigmoid(x)\n",
    out="O[b,h,t,e]",
    t=19,
    e=5,
    c=5,
)
for name, helpers, more in (
    (
        "gru",
        """z[t,e] = sigmoid(x[t,e] + Wz[e,c] * H[t-1,c])
        r[t,e] = sigmoid(y[t,e] + Wr[e,c] * H[t-1,c])
        g[t,e] = tanh(x[t,e] + Wh[e,c] * (r[t,c] * H[t-1,c]))""",
        ", Wr[h,e,c], y[b,h,t,e]",
    ),
    (
        "gru_that_shows_its_gate",
        """z[t,e] = sigmoid(x[t,e] + Wz[e,c] * H[t-1,c])
        g[t,e] = tanh(x[t,e] + Wh[e,c] * H[t-1,c])""",
        "",
    ),
):
    add(
        name,
        "",
        f"""{helpers}
        H[t,e] = z[t,e] * H[t-1,e] + (1 - z[t,e]) * g[t,e] init 0
        O[t,e] = H[t,e]""",
        qkv="Wz[h,e,c], Wh[h,e,c], x[b,h,t,e]" + more,
        out="O[b,h,t,e]" + (", z[b,h,t,e]" if not more else ""),
        t=19,
        e=5,
        c=5,
    )
add(
    "delta_by_its_errors",
    "beta[b,h,t], g[b,h,t]",
    """P[t,f] = K[t,e] * H[t-1,e,f]
    U[t,f] = beta[t] * (V[t,f] - exp(g[t]) * P[t,f])
    H[t,e,f] = exp(g[t]) * H[t-1,e,f] + K[t,e] * U[t,f] init 0
    O[t,f] = Q[t,e] * H[t,e,f]""",
    qkv=TQ,
    out=OT + ", U[b,h,t,f]",
    t=19,
)
add(
    "ttt_layer_norm",
    "W0[h,e,f], eta[b,h,t]",
    """p[t,f] = K[t,e] * W[t-1,e,f]
    n[t] = rsqrt(sum[f](p[t,f]**2) / |f| + 1e-3)
    E[t,f] = n[t] * p[t,f] - V[t,f]
    W[t,e,f] = W[t-1,e,f] - sigmoid(eta[t]) * K[t,e] * E[t,f] init W0[e,f]
    O[t,f] = Q[t,e] * W[t,e,f]""",
    qkv=TQ,
    out=OT,
    t=9,
)

# --- keys by page -------------------------------------------------------------------------------

add(
    "paged_keys",
    "",
    """rank j = |n| * 4
    S[i,j] = Q[i,e] * K[page[j // 4], j % 4, e] / sqrt(|e|) where j < lens
    O[i,f] = softmax[j](S[i,j]) * V[page[j // 4], j % 4, f]""",
    batch="b",
    qkv="Q[b,i,e], K[p,r,e], V[p,r,f], page[b,n]: int, lens[b]: int",
    out="O[b,i,f]",
    p=5,
    r=4,
    n=5,
)
add(
    "paged_keys_of_groups_with_an_empty_sequence",
    "",
    """rank j = |n| * 4
    S[h,i,j] = Q[h,i,e] * K[page[j // 4], j % 4, h // G, e] / sqrt(|e|) where j < lens - 1
    O[h,i,f] = softmax[j](S[h,i,j]) * V[page[j // 4], j % 4, h // G, f]""",
    batch="b",
    qkv="Q[b,h,i,e], K[p,r,g,e], V[p,r,g,f], page[b,n]: int, lens[b]: int, G: int",
    p=4,
    r=4,
    n=1,
    b=2,
    h=2,
    g=1,
    i=2,
    e=2,
    f=2,
    params={"G": 2},
)
add(
    "paged_keys_of_the_last_queries",
    "",
    """rank j = |n| * 4
    S[i,j] = Q[i,e] * K[page[j // 4], j % 4, e] / sqrt(|e|) where j <= i
    O[i,f] = softmax[j](S[i,j]) * V[page[j // 4], j % 4, f]""",
    batch="b",
    qkv="Q[b,i,e], K[p,r,e], V[p,r,f], page[b,n]: int",
    out="O[b,i,f]",
    p=5,
    r=4,
    n=5,
    i=3,
    start="end",
)
