"""Recurrences of recent papers, stepped one position at a time by their references."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as fn
from torch import Tensor, einsum

from tests.road.case import QKV, O, add, masked, weigh
from tests.road.recent_words import (
    O_T,
    QKV_T,
    T,
    causal,
    gate,
    log_gate,
    log_gate_e,
    mk,
    of_state,
    outer,
    read_out,
    sig,
    states,
    unit,
)


# KDA: per-channel decay then delta rule
def kda(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        H = x.g[:, :, t].exp()[..., None] * H
        k = x.K[:, :, t]
        r = einsum("bhe,bhef->bhf", k, H)
        return H + x.beta[:, :, t, None, None] * outer(k, x.V[:, :, t] - r)

    return read_out(x, states(x.n_t, step, *of_state(x)))


add(
    "re_kda",
    QKV_T + ", g[b,h,t,e], beta[b,h,t]",
    O_T,
    """assume g <= 0
H[t,e,f] = exp(g[t,e]) * H[t-1,e,f] - beta[t] * K[t,e] * sum[c](K[t,c] * exp(g[t,c]) * H[t-1,c,f])
    + beta[t] * K[t,e] * V[t,f]   init 0
O[t,f] = Q[t,e] * H[t,e,f]""",
    kda,
    sizes=T,
    make={"K": unit, "g": log_gate_e, "beta": gate},
)


# comba: feedback with q corrected k~ = b*k, output q - d k
def comba(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        k = x.K[:, :, t]
        p = x.P[:, :, t]
        a = x.g[:, :, t].exp()[:, :, None, None]
        r = einsum("bhe,bhef->bhf", p, H)
        return a * (H - x.beta[:, :, t, None, None] * outer(k, r)) + x.beta[
            :, :, t, None, None
        ] * outer(k, x.V[:, :, t])

    H = states(x.n_t, step, *of_state(x))
    return einsum("bhte,bhtef->bhtf", x.Q - x.d[:, None, None] * x.K, H)


add(
    "re_comba",
    QKV_T + ", P[b,h,t,e], g[b,h,t], beta[b,h,t], d[h]",
    O_T,
    """assume g <= 0
H[t,e,f] = exp(g[t]) * (H[t-1,e,f] - beta[t] * K[t,e] * (P[t,c] * H[t-1,c,f])) + beta[t] * K[t,e] * V[t,f]   init 0
O[t,f] = (Q[t,e] - d * K[t,e]) * H[t,e,f]""",
    comba,
    sizes=T,
    make={"K": unit, "P": unit, "g": log_gate, "beta": gate},
)


# GSA gated slot attention: two recurrences, softmax over slots
def gsa(x: SimpleNamespace) -> Tensor:
    a = x.loga.exp()

    def s1(H: Tensor, t: int) -> Tensor:
        return a[:, :, t, :, None] * H + (1 - a[:, :, t])[..., None] * x.K[:, :, t, None, :]

    def s2(H: Tensor, t: int) -> Tensor:
        return a[:, :, t, :, None] * H + (1 - a[:, :, t])[..., None] * x.V[:, :, t, None, :]

    KM = states(x.n_t, s1, *(x.n_b, x.n_h, x.n_m, x.n_e))
    VM = states(x.n_t, s2, *(x.n_b, x.n_h, x.n_m, x.n_f))
    p = torch.softmax(einsum("bhte,bhtme->bhtm", x.Q, KM), -1)
    return einsum("bhtm,bhtmf->bhtf", p, VM)


add(
    "re_gsa",
    QKV_T + ", loga[b,h,t,m]",
    O_T,
    """assume loga <= 0
KM[t,m,e] = exp(loga[t,m]) * KM[t-1,m,e] + (1 - exp(loga[t,m])) * K[t,e]   init 0
VM[t,m,f] = exp(loga[t,m]) * VM[t-1,m,f] + (1 - exp(loga[t,m])) * V[t,f]   init 0
S[t,m] = Q[t,e] * KM[t,m,e]
O[t,f] = softmax[m](S[t,m]) * VM[t,m,f]""",
    gsa,
    sizes={**T, "m": 4},
    make={"loga": mk("b,h,t,m", lambda t: fn.logsigmoid(t))},
)


# mLSTM (xLSTM): stabilised exponential gating with m state
def mlstm(x: SimpleNamespace) -> Tensor:
    C = torch.zeros(of_state(x), dtype=torch.float64)
    N = torch.zeros(x.n_b, x.n_h, x.n_e, dtype=torch.float64)
    o = []
    for t in range(x.n_t):
        f = x.logf[:, :, t].exp()
        i = x.ig[:, :, t].exp()
        C = f[..., None, None] * C + i[..., None, None] * outer(x.K[:, :, t], x.V[:, :, t])
        N = f[..., None] * N + i[..., None] * x.K[:, :, t]
        q = x.Q[:, :, t]
        o.append(
            einsum("bhe,bhef->bhf", q, C)
            / torch.maximum((q * N).sum(-1).abs(), torch.ones(()).double())[..., None]
        )
    return torch.stack(o, 2)


add(
    "re_mlstm_quadratic",
    "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], logf[b,h,j], ig[b,h,j]",
    O,
    """assume logf <= 0
C[j] = sum[l : l <= j](logf[l])
D[i,j] = C[i] - C[j] + ig[j] where j <= i
M[i] = max[j](D[i,j])
W[i,j] = Q[i,e] * K[j,e] * exp(D[i,j] - M[i])
N[i] = max(abs(sum[j](W[i,j])), exp(-M[i]))
O[i,f] = W[i,j] / N[i] * V[j,f]""",
    lambda x: mlstm(SimpleNamespace(**{**vars(x), "n_t": x.n_i})),
    make={"logf": mk("b,h,j", fn.logsigmoid)},
)


# sLSTM
def slstm(x: SimpleNamespace) -> Tensor:
    c = torch.zeros(x.n_b, x.n_h, x.n_e, dtype=torch.float64)
    n = c.clone()
    h = c.clone()
    o = []
    for t in range(x.n_t):
        z = torch.tanh(x.Z[:, :, t] + einsum("hed,bhd->bhe", x.Rz, h))
        i = x.I[:, :, t].exp()
        f = sig(x.Fg[:, :, t] + einsum("hed,bhd->bhe", x.Rf, h))
        c = f * c + i * z
        n = f * n + i
        h = sig(x.Og[:, :, t]) * c / n
        o.append(h)
    return torch.stack(o, 2)


add(
    "re_slstm",
    "Z[b,h,t,e], I[b,h,t,e], Fg[b,h,t,e], Og[b,h,t,e], Rz[h,e,d], Rf[h,e,d]",
    "Y[b,h,t,e]",
    """rank u = 2
B[t,e] = sigmoid(Og[t-1,e]) * H[t-1,0,e] / H[t-1,1,e] if t > 0 else 0
F[t,e] = sigmoid(Fg[t,e] + Rf[e,d] * B[t,d])
W[t,e] = exp(I[t,e]) * tanh(Z[t,e] + Rz[e,d] * B[t,d])
H[t,u,e] = (F[t,e] * H[t-1,0,e] + W[t,e]) if u == 0 else (F[t,e] * H[t-1,1,e] + exp(I[t,e]))  init 0
Y[t,e] = sigmoid(Og[t,e]) * H[t,0,e] / H[t,1,e]""",
    slstm,
    sizes={"t": 7, "e": 4, "d": 4},
)


# log-linear attention, with a table of Fenwick levels
def loglin(x: SimpleNamespace) -> Tensor:
    s = einsum("bhie,bhje->bhij", x.Q, x.K)
    C = x.loga.cumsum(-1)
    d = torch.exp(masked(C[..., :, None] - C[..., None, :], causal(x), 0))
    n = x.n_i
    lev = torch.zeros(n, n, dtype=torch.long)
    for i in range(n):
        for j in range(n):
            lev[i, j] = (i ^ j).bit_length() if j <= i else 0
    lm = torch.gather(x.lam, 3, lev.expand(x.n_b, x.n_h, n, n))
    return weigh(masked(s * d * lm, causal(x)), x.V)


def levmake(k: SimpleNamespace, g: torch.Generator) -> Tensor:
    n = k.i
    return torch.tensor(
        [[(i ^ j).bit_length() if j <= i else 0 for j in range(n)] for i in range(n)]
    )


add(
    "re_loglinear",
    QKV + ", loga[b,h,j], lam[b,h,i,l], lev[i,j]: int",
    O,
    """assume loga <= 0
C[j] = sum[m : m <= j](loga[m])
A[i,j] = Q[i,e] * K[j,e] * exp(C[i] - C[j]) * lam[i, lev[i,j]] where j <= i
O[i,f] = A[i,j] * V[j,f]""",
    loglin,
    sizes={"l": 6},
    make={"loga": mk("b,h,j", fn.logsigmoid), "lev": levmake},
)


# MesaNet: two steps towards the inverse, written out
def mesa_states(x: SimpleNamespace) -> tuple[Tensor, Tensor]:
    """Decayed sums of keys by keys, and of keys by values."""

    def decayed(v: Tensor) -> Tensor:
        def step(H: Tensor, t: int) -> Tensor:
            return x.a[:, :, t, None, None] * H + outer(x.K[:, :, t], v[:, :, t])

        return states(x.n_t, step, x.n_b, x.n_h, x.n_e, v.shape[-1])

    return decayed(x.K), decayed(x.V)


def mesa1(x: SimpleNamespace) -> Tensor:
    G, H = mesa_states(x)
    q = x.Q - 0.1 * einsum("bhted,bhtd->bhte", G, x.Q)
    q = q - 0.1 * (einsum("bhted,bhtd->bhte", G, q) - x.Q)
    return einsum("bhte,bhtef->bhtf", q, H)


add(
    "re_mesa_unrolled",
    QKV_T + ", a[b,h,t]",
    O_T,
    """G[t,e,d] = a[t] * G[t-1,e,d] + K[t,e] * K[t,d]  init 0
H[t,e,f] = a[t] * H[t-1,e,f] + K[t,e] * V[t,f]  init 0
X[t,e] = Q[t,e] - 0.1 * sum[d](G[t,e,d] * Q[t,d])
Y[t,e] = X[t,e] - 0.1 * (sum[d](G[t,e,d] * X[t,d]) - Q[t,e])
O[t,f] = Y[t,e] * H[t,e,f]""",
    mesa1,
    sizes=T,
    make={"a": gate},
)


# PaTH, its linear form
def pathlin(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        w = x.W[:, :, t]
        r = einsum("bhe,bhef->bhf", w, H)
        return H - x.beta[:, :, t, None, None] * outer(w, r) + outer(x.K[:, :, t], x.V[:, :, t])

    return read_out(x, states(x.n_t, step, *of_state(x)))


add(
    "re_path_linear",
    QKV_T + ", W[b,h,t,e], beta[b,h,t]",
    O_T,
    """H[t,e,f] = H[t-1,e,f] - beta[t] * W[t,e] * (W[t,c] * H[t-1,c,f]) + K[t,e] * V[t,f]  init 0
O[t,f] = Q[t,e] * H[t,e,f]""",
    pathlin,
    sizes=T,
    make={"W": unit, "beta": gate},
)


# two step delta: two householder per token with gate
def gdp(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        H = x.a[:, :, t, None, None] * H
        for u in range(2):
            k = x.KK[:, :, t, u]
            H = H + x.bb[:, :, t, u, None, None] * outer(
                k, x.VV[:, :, t, u] - einsum("bhe,bhef->bhf", k, H)
            )
        return H

    return read_out(x, states(x.n_t, step, *of_state(x)))


add(
    "re_gated_delta_product",
    "Q[b,h,t,e], KK[b,h,t,u,e], VV[b,h,t,u,f], a[b,h,t], bb[b,h,t,u]",
    O_T,
    """G[t,e,f] = a[t] * H[t-1,e,f] - bb[t,0] * KK[t,0,e] * (sum[c](KK[t,0,c] * a[t] * H[t-1,c,f]) - VV[t,0,f])
H[t,e,f] = G[t,e,f] - bb[t,1] * KK[t,1,e] * (sum[c](KK[t,1,c] * G[t,c,f]) - VV[t,1,f])  init 0
O[t,f] = Q[t,e] * H[t,e,f]""",
    gdp,
    sizes={**T, "u": 2},
    make={
        "KK": mk("b,h,t,u,e", lambda t: t / t.norm(dim=-1, keepdim=True)),
        "bb": mk("b,h,t,u", torch.sigmoid),
        "a": gate,
    },
)


# Hyena: a long filter of each feature
def hyena(x: SimpleNamespace) -> Tensor:
    L = (x.i - x.j).clamp(min=0)
    f = masked(x.filt[:, L].permute(0, 3, 1, 2), causal(x))
    return x.Q * einsum("hfij,bhjf->bhif", f, x.K * x.V)


add(
    "re_hyena",
    "Q[b,h,i,f], K[b,h,j,f], V[b,h,j,f], filt[h,j,f]",
    O,
    """U[j,f] = K[j,f] * V[j,f]
Y[i,f] = sum[j : j <= i](filt[i - j, f] * U[j,f])
O[i,f] = Q[i,f] * Y[i,f]""",
    hyena,
)
# Hyena scalar filter per head
add(
    "re_toeplitz_filter",
    "Q[b,h,i,f], K[b,h,j,f], V[b,h,j,f], filt[h,j]",
    O,
    """A[i,j] = filt[i - j] where j <= i
Y[i,f] = A[i,j] * (K[j,f] * V[j,f])
O[i,f] = Q[i,f] * Y[i,f]""",
    lambda x: (
        x.Q
        * einsum(
            "hij,bhjf->bhif", masked(x.filt[:, (x.i - x.j).clamp(min=0)], causal(x)), x.K * x.V
        )
    ),
)


# mamba3-like complex rotation states: two recurrences re/im coupled
def m3(x: SimpleNamespace) -> Tensor:
    Hr = torch.zeros(of_state(x), dtype=torch.float64)
    Hi = Hr.clone()
    o = []
    for t in range(x.n_t):
        c, s = x.th[:, :, t].cos()[..., None], x.th[:, :, t].sin()[..., None]
        a = x.a[:, :, t, None, None]
        Hr, Hi = a * (c * Hr - s * Hi) + outer(x.K[:, :, t], x.V[:, :, t]), a * (s * Hr + c * Hi)
        o.append(
            einsum("bhe,bhef->bhf", x.Q[:, :, t], Hr) - einsum("bhe,bhef->bhf", x.P[:, :, t], Hi)
        )
    return torch.stack(o, 2)


COMPLEX = QKV_T + ", P[b,h,t,e], th[b,h,t,e], a[b,h,t]"

add(
    "re_complex_state",
    COMPLEX,
    O_T,
    """rank u = 2
H[t,u,e,f] = a[t] * (cos(th[t,e]) * H[t-1,0,e,f] - sin(th[t,e]) * H[t-1,1,e,f]) + K[t,e] * V[t,f]
    if u == 0 else a[t] * (cos(th[t,e]) * H[t-1,1,e,f] + sin(th[t,e]) * H[t-1,0,e,f])  init 0
O[t,f] = Q[t,e] * H[t,0,e,f] - sum[e](P[t,e] * H[t,1,e,f])""",
    m3,
    sizes=T,
    make={"a": gate},
)
add(
    "re_complex_state_as_written",
    COMPLEX,
    O_T,
    """X[t,e,f] = a[t] * (cos(th[t,e]) * X[t-1,e,f] - sin(th[t,e]) * Y[t-1,e,f]) + K[t,e] * V[t,f]  init 0
Y[t,e,f] = a[t] * (sin(th[t,e]) * X[t-1,e,f] + cos(th[t,e]) * Y[t-1,e,f])  init 0
O[t,f] = Q[t,e] * X[t,e,f] - sum[e](P[t,e] * Y[t,e,f])""",
    m3,
    sizes=T,
    make={"a": gate},
)


def oscillator(x: SimpleNamespace) -> tuple[Tensor, Tensor]:
    place, speed, out = x.p0, x.v0, []
    for t in range(x.n_t):
        speed = 0.9 * speed - 0.3 * place + x.F[:, :, t]
        place = place + 0.3 * speed
        out.append((place, speed))
    return torch.stack([p for p, _ in out], 2), torch.stack([s for _, s in out], 2)


add(
    "re_oscillator",
    "F[b,h,t,e], p0[b,h,e], v0[b,h,e]",
    "X[b,h,t,e], Y[b,h,t,e]",
    """Y[t,e] = 0.9 * Y[t-1,e] - 0.3 * X[t-1,e] + F[t,e]  init v0[e]
X[t,e] = X[t-1,e] + 0.3 * Y[t,e]  init p0[e]""",
    oscillator,
    sizes=T,
)


def exchange(x: SimpleNamespace) -> Tensor:
    a = torch.ones(x.n_b, x.n_h, x.n_f, dtype=torch.float64)
    b, out = 2 * a, []
    for t in range(x.n_t):
        a, b = 0.5 * b + x.V[:, :, t], a * x.g[:, :, t, None]
        out.append(a * b)
    return torch.stack(out, 2)


add(
    "re_two_states_of_each_other_alone",
    "V[b,h,t,f], g[b,h,t]",
    O_T,
    """A[t,f] = 0.5 * B[t-1,f] + V[t,f]  init 1
B[t,f] = A[t-1,f] * g[t]  init 2
O[t,f] = A[t,f] * B[t,f]""",
    exchange,
    sizes=T,
)
add(
    "re_complex_state_by_a_matrix",
    COMPLEX,
    O_T,
    """rank u = 2, w = 2
M[t,e,u,w] = cos(th[t,e]) if u == w else (sin(th[t,e]) if u > w else -sin(th[t,e]))
H[t,u,e,f] = a[t] * sum[w](M[t,e,u,w] * H[t-1,w,e,f]) + (K[t,e] * V[t,f] if u == 0 else 0)  init 0
O[t,f] = Q[t,e] * H[t,0,e,f] - sum[e](P[t,e] * H[t,1,e,f])""",
    m3,
    sizes=T,
    make={"a": gate},
)


# mamba3 trapezoid: x_t uses K[t-1]V[t-1]
def m3t(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        H = x.a[:, :, t, None, None] * H + x.g[:, :, t, None, None] * outer(
            x.K[:, :, t], x.V[:, :, t]
        )
        if t > 0:
            H = H + (x.a[:, :, t] * x.l[:, :, t])[..., None, None] * outer(
                x.K[:, :, t - 1], x.V[:, :, t - 1]
            )
        return H

    return read_out(x, states(x.n_t, step, *of_state(x)))


add(
    "re_mamba3_trapezoid",
    QKV_T + ", a[b,h,t], g[b,h,t], l[b,h,t]",
    O_T,
    """H[t,e,f] = a[t] * H[t-1,e,f] + g[t] * K[t,e] * V[t,f]
    + (a[t] * l[t] * K[t-1,e] * V[t-1,f] if t > 0 else 0)   init 0
O[t,f] = Q[t,e] * H[t,e,f]""",
    m3t,
    sizes=T,
    make={"a": gate},
)


# rwkv4: wkv with time-first bonus
def rwkv4(x: SimpleNamespace) -> Tensor:
    n = x.n_t
    num = torch.zeros(x.n_b, x.n_h, x.n_f, dtype=torch.float64)
    den = num.clone()
    o = []
    w = -x.w.exp()
    for t in range(n):
        k, v = x.K[:, :, t], x.V[:, :, t]
        e = (x.u + k).exp()
        o.append(sig(x.Rr[:, :, t]) * (num + e * v) / (den + e))
        num = w.exp() * num + k.exp() * v
        den = w.exp() * den + k.exp()
    return torch.stack(o, 2)


add(
    "re_rwkv4",
    "Rr[b,h,t,f], K[b,h,t,f], V[b,h,t,f], w[h,f], u[h,f]",
    O_T,
    """A[t,f] = exp(-exp(w[f])) * A[t-1,f] + exp(K[t,f]) * V[t,f]   init 0
B[t,f] = exp(-exp(w[f])) * B[t-1,f] + exp(K[t,f])   init 0
O[t,f] = sigmoid(Rr[t,f]) * ((A[t-1,f] if t > 0 else 0) + exp(u[f] + K[t,f]) * V[t,f])
    / ((B[t-1,f] if t > 0 else 0) + exp(u[f] + K[t,f]))""",
    rwkv4,
    sizes=T,
)


# Titans
def titans(x: SimpleNamespace) -> Tensor:
    M = torch.zeros(of_state(x), dtype=torch.float64)
    S = M.clone()
    o = []
    for t in range(x.n_t):
        k = x.K[:, :, t]
        err = einsum("bhe,bhef->bhf", k, M) - x.V[:, :, t]
        S = x.eta[:, :, t, None, None] * S - x.th[:, :, t, None, None] * outer(k, err)
        M = (1 - x.al[:, :, t])[..., None, None] * M + S
        o.append(einsum("bhe,bhef->bhf", x.Q[:, :, t], M))
    return torch.stack(o, 2)


TITANS = QKV_T + ", eta[b,h,t], th[b,h,t], al[b,h,t]"
TITANS_INPUTS = {"K": unit, "eta": gate, "th": gate, "al": gate}

add(
    "re_titans",
    TITANS,
    O_T,
    """rank u = 2
E[t,f] = K[t,c] * H[t-1,0,c,f] - V[t,f]
H[t,u,e,f] = eta[t] * H[t-1,1,e,f] - th[t] * K[t,e] * E[t,f]
    + ((1 - al[t]) * H[t-1,0,e,f] if u == 0 else 0)  init 0
O[t,f] = Q[t,e] * H[t,0,e,f]""",
    titans,
    sizes=T,
    make=TITANS_INPUTS,
)
add(
    "re_titans_as_written",
    TITANS,
    O_T,
    """S[t,e,f] = eta[t] * S[t-1,e,f] - th[t] * K[t,e] * (sum[c](K[t,c] * M[t-1,c,f]) - V[t,f])  init 0
M[t,e,f] = (1 - al[t]) * M[t-1,e,f] + S[t,e,f]  init 0
O[t,f] = Q[t,e] * M[t,e,f]""",
    titans,
    sizes=T,
    make=TITANS_INPUTS,
)
add(
    "re_titans_with_a_helper",
    TITANS,
    O_T,
    """E[t,f] = K[t,c] * M[t-1,c,f] - V[t,f]
S[t,e,f] = eta[t] * S[t-1,e,f] - th[t] * K[t,e] * E[t,f]  init 0
M[t,e,f] = (1 - al[t]) * M[t-1,e,f] + S[t,e,f]  init 0
O[t,f] = Q[t,e] * M[t,e,f]""",
    titans,
    sizes=T,
    make=TITANS_INPUTS,
)
add(
    "re_titans_by_a_matrix",
    TITANS,
    O_T,
    """rank u = 2, w = 2
A[t,u,w] = (1 - al[t] if w == 0 else eta[t]) if u == 0 else (0 if w == 0 else eta[t])
H[t,u,e,f] = A[t,u,w] * H[t-1,w,e,f]
    - th[t] * K[t,e] * (sum[c](K[t,c] * H[t-1,0,c,f]) - V[t,f])  init 0
O[t,f] = Q[t,e] * H[t,0,e,f]""",
    titans,
    sizes=T,
    make=TITANS_INPUTS,
)


# Moneta-like: l_p loss retention: error sign*abs^2
def moneta(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        k = x.K[:, :, t]
        e = einsum("bhe,bhef->bhf", k, H) - x.V[:, :, t]
        return x.a[:, :, t, None, None] * H - x.th[:, :, t, None, None] * outer(
            k, torch.tanh(10 * e) * e.abs() ** 2
        )

    return read_out(x, states(x.n_t, step, *of_state(x)))


add(
    "re_moneta",
    QKV_T + ", a[b,h,t], th[b,h,t]",
    O_T,
    """E[t,f] = K[t,c] * H[t-1,c,f] - V[t,f]
H[t,e,f] = a[t] * H[t-1,e,f] - th[t] * K[t,e] * tanh(10 * E[t,f]) * abs(E[t,f])**2   init 0
O[t,f] = Q[t,e] * H[t,e,f]""",
    moneta,
    sizes=T,
    make={"K": unit, "a": gate, "th": gate},
)


# Yaad: huber loss
def yaad(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        k = x.K[:, :, t]
        e = einsum("bhe,bhef->bhf", k, H) - x.V[:, :, t]
        n = (e.square().sum(-1, keepdim=True) + 1e-9).sqrt()
        return x.a[:, :, t, None, None] * H - x.th[:, :, t, None, None] * outer(
            k, torch.where(n <= x.de[:, :, t, None], e, x.de[:, :, t, None] * e / n)
        )

    return read_out(x, states(x.n_t, step, *of_state(x)))


add(
    "re_yaad",
    QKV_T + ", a[b,h,t], th[b,h,t], de[b,h,t]",
    O_T,
    """E[t,f] = K[t,c] * H[t-1,c,f] - V[t,f]
N[t] = sqrt(sum[g](E[t,g]**2) + 1e-9)
H[t,e,f] = a[t] * H[t-1,e,f] - th[t] * K[t,e] * (E[t,f] if N[t] <= de[t] else de[t] * E[t,f] / N[t])   init 0
O[t,f] = Q[t,e] * H[t,e,f]""".replace("sum[g](E[t,g]**2)", "sum[f](E[t,f]**2)"),
    yaad,
    sizes=T,
    make={"K": unit, "a": gate, "th": gate, "de": mk("b,h,t", lambda t: t.abs() + 0.5)},
)


# Longhorn: closed form
def longhorn(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        k = x.K[:, :, t]
        d = (x.be[:, :, t] / (1 + x.be[:, :, t] * (k * k).sum(-1)))[..., None, None]
        return (1 - d * (k * k)[..., None]) * H + d * outer(k, x.V[:, :, t])

    return read_out(x, states(x.n_t, step, *of_state(x)))


add(
    "re_longhorn",
    QKV_T + ", be[b,h,t]",
    O_T,
    """D[t] = be[t] / (1 + be[t] * sum[e](K[t,e]**2))
H[t,e,f] = (1 - D[t] * K[t,e]**2) * H[t-1,e,f] + D[t] * K[t,e] * V[t,f]   init 0
O[t,f] = Q[t,e] * H[t,e,f]""",
    longhorn,
    sizes=T,
    make={"be": gate},
)
# MetaLA / self-augment
add(
    "re_metala",
    QKV_T + ", a[b,h,t,e], w[h,e]",
    O_T,
    """H[t,e,f] = a[t,e] * H[t-1,e,f] + (1 - a[t,e]) * V[t,f]   init 0
O[t,f] = Q[t,e] * H[t,e,f] + sigmoid(sum[e](Q[t,e] * w[e] * (1 - a[t,e]))) * V[t,f]""",
    lambda x: (
        read_out(
            x,
            states(
                x.n_t,
                lambda H, t: x.a[:, :, t, :, None] * H + outer(1 - x.a[:, :, t], x.V[:, :, t]),
                *of_state(x),
            ),
        )
        + sig((x.Q * x.w[:, None] * (1 - x.a)).sum(-1))[..., None] * x.V
    ),
    sizes=T,
    make={"a": mk("b,h,t,e", torch.sigmoid)},
)


# RWKV7 style with v residual
def rw7(x: SimpleNamespace) -> Tensor:
    def step(H: Tensor, t: int) -> Tensor:
        r = einsum("bhe,bhef->bhf", x.kk[:, :, t], H)
        return (
            x.w[:, :, t].exp()[..., None] * H
            - outer(x.kk[:, :, t] * x.a[:, :, t], r)
            + outer(x.K[:, :, t], x.V[:, :, t])
        )

    H = states(x.n_t, step, *of_state(x))
    return read_out(x, H) + (x.Q * x.u[:, None] * x.K).sum(-1, keepdim=True) * x.V


add(
    "re_rwkv7_bonus",
    QKV_T + ", kk[b,h,t,e], a[b,h,t,e], w[b,h,t,e], u[h,e]",
    O_T,
    """assume w <= 0
H[t,e,f] = exp(w[t,e]) * H[t-1,e,f] - kk[t,e] * a[t,e] * (kk[t,c] * H[t-1,c,f]) + K[t,e] * V[t,f]   init 0
O[t,f] = Q[t,e] * H[t,e,f] + Q[t,e] * u[e] * K[t,e] * V[t,f]""",
    rw7,
    sizes=T,
    make={"kk": unit, "a": mk("b,h,t,e", torch.sigmoid), "w": log_gate_e},
)
# YOSO-like, cosformer
add(
    "re_cosformer",
    QKV,
    O,
    """A[i,j] = relu(Q[i,e]) * relu(K[j,e]) * cos(1.5707963 * (i - j) / |j|) where j <= i
O[i,f] = A[i,j] / (sum[j](A[i,j]) + 1e-6) * V[j,f]""",
    lambda x: (lambda a: weigh(a / (a.sum(-1, keepdim=True) + 1e-6), x.V))(
        masked(
            einsum("bhie,bhje->bhij", x.Q.relu(), x.K.relu())
            * torch.cos(1.5707963 * (x.i - x.j).double() / x.n_j),
            causal(x),
        )
    ),
)

add(
    "re_mlstm_recurrent",
    QKV_T + ", logf[b,h,t], ig[b,h,t]",
    O_T,
    """assume logf <= 0
C[t,e,f] = exp(logf[t]) * C[t-1,e,f] + exp(ig[t]) * K[t,e] * V[t,f]   init 0
N[t,e] = exp(logf[t]) * N[t-1,e] + exp(ig[t]) * K[t,e]   init 0
O[t,f] = Q[t,e] * C[t,e,f] / max(abs(sum[c](Q[t,c] * N[t,c])), 1.0)""",
    mlstm,
    sizes=T,
    make={"logf": log_gate},
)


def mesa_once(x: SimpleNamespace) -> Tensor:
    G, H = mesa_states(x)
    return einsum("bhte,bhtef->bhtf", x.Q - 0.1 * einsum("bhted,bhtd->bhte", G, x.Q), H)


add(
    "re_mesa_sum",
    QKV_T + ", a[b,h,t]",
    O_T,
    """G[t,e,d] = a[t] * G[t-1,e,d] + K[t,e] * K[t,d]  init 0
H[t,e,f] = a[t] * H[t-1,e,f] + K[t,e] * V[t,f]  init 0
X[t,e] = Q[t,e] - 0.1 * sum[d](G[t,e,d] * Q[t,d])
O[t,f] = X[t,e] * H[t,e,f]""",
    mesa_once,
    sizes=T,
    make={"a": gate},
)


# linear attention with delta on normalised key inside program, swish gate output rmsnorm
def gdn(x: SimpleNamespace) -> Tensor:
    def nn(t: Tensor) -> Tensor:
        return t * (t.square().sum(-1, keepdim=True) + 1e-6).rsqrt()

    k = nn(x.K)
    q = nn(x.Q)
    H = torch.zeros(x.n_b, x.n_h, x.n_e, x.n_f, dtype=torch.float64)
    o = []
    for t in range(x.n_t):
        H = torch.exp(-x.A.exp() * fn.softplus(x.dt[:, :, t] + x.bias))[..., None, None] * H
        r = einsum("bhe,bhef->bhf", k[:, :, t], H)
        H = (
            H
            + (sig(x.be[:, :, t])[..., None] * k[:, :, t])[..., :, None]
            * (x.V[:, :, t] - r)[..., None, :]
        )
        o.append(einsum("bhe,bhef->bhf", q[:, :, t], H))
    o = torch.stack(o, 2)
    return o * (o.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * x.w * fn.silu(x.z)


add(
    "re_gated_deltanet_layer",
    QKV_T + ", dt[b,h,t], A[h], bias[h], be[b,h,t], z[b,h,t,f], w[f]",
    "O[b,h,t,f]",
    """qn[t,e] = Q[t,e] * rsqrt(sum[d](Q[t,d]**2) + 1e-6)
kn[t,e] = K[t,e] * rsqrt(sum[d](K[t,d]**2) + 1e-6)
a[t] = exp(-exp(A) * softplus(dt[t] + bias))
bt[t] = sigmoid(be[t])
H[t,e,f] = a[t] * (H[t-1,e,f] - bt[t] * kn[t,e] * (kn[t,c] * H[t-1,c,f])) + bt[t] * kn[t,e] * V[t,f]   init 0
Y[t,f] = qn[t,e] * H[t,e,f]
O[t,f] = Y[t,f] * rsqrt(sum[c](Y[t,c]**2) / |f| + 1e-5) * w[f] * silu(z[t,f])""",
    gdn,
    sizes=T,
)


# S4D / mamba1 selective scan: state per channel n
def mamba1(x: SimpleNamespace) -> Tensor:
    H = torch.zeros(x.n_b, x.n_d, x.n_s, dtype=torch.float64)
    o = []
    for t in range(x.n_t):
        dt = fn.softplus(x.dt[:, t])
        H = (
            torch.exp(-dt[..., None] * x.A.exp()) * H
            + dt[..., None] * x.B[:, t, None, :] * x.u[:, t, :, None]
        )
        o.append((H * x.C[:, t, None, :]).sum(-1) + x.D * x.u[:, t])
    return torch.stack(o, 1)


add(
    "re_mamba1",
    "u[b,t,d], dt[b,t,d], A[d,s], B[b,t,s], C[b,t,s], D[d]",
    "Y[b,t,d]",
    """g[t,d] = softplus(dt[t,d])
H[t,d,s] = exp(-g[t,d] * exp(A[d,s])) * H[t-1,d,s] + g[t,d] * B[t,s] * u[t,d]   init 0
Y[t,d] = C[t,s] * H[t,d,s] + D[d] * u[t,d]""",
    mamba1,
    batch="b",
    sizes={**T, "d": 5, "s": 3},
)


def mingru(x: SimpleNamespace) -> Tensor:
    H, out = torch.zeros(x.n_b, x.n_d, dtype=torch.float64), []
    for t in range(x.n_t):
        z = sig(x.z[:, t])
        H = (1 - z) * H + z * x.c[:, t]
        out.append(H)
    return torch.stack(out, 1)


add(
    "re_mingru",
    "z[b,t,d], c[b,t,d]",
    "Y[b,t,d]",
    """Y[t,d] = (1 - sigmoid(z[t,d])) * Y[t-1,d] + sigmoid(z[t,d]) * c[t,d]   init 0""",
    mingru,
    batch="b",
    sizes={**T, "d": 5},
)


# Griffin RG-LRU
def rglru(x: SimpleNamespace) -> Tensor:
    H = torch.zeros(x.n_b, x.n_d, dtype=torch.float64)
    o = []
    for t in range(x.n_t):
        a = torch.exp(-8 * fn.softplus(x.lam) * sig(x.r[:, t]))
        H = a * H + (1 - a * a).sqrt() * (sig(x.g[:, t]) * x.u[:, t])
        o.append(H)
    return torch.stack(o, 1)


add(
    "re_rglru",
    "u[b,t,d], r[b,t,d], g[b,t,d], lam[d]",
    "Y[b,t,d]",
    """a[t,d] = exp(-8 * softplus(lam[d]) * sigmoid(r[t,d]))
Y[t,d] = a[t,d] * Y[t-1,d] + sqrt(1 - a[t,d]**2) * (sigmoid(g[t,d]) * u[t,d])   init 0""",
    rglru,
    batch="b",
    sizes={**T, "d": 5},
)
