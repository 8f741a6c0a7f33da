"""More attention of recent papers: two softmaxes, slots, positions that data give, sinks with values."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as fn
from torch import Tensor, einsum

from tests.road.case import DOT, QKV, O, add, lse, masked, ratio, scaled, softmax, weigh
from tests.road.recent_words import (
    causal,
    mk,
    sig,
)


# MEGA-like EMA then attention
def mega(x: SimpleNamespace) -> Tensor:
    n = x.n_j
    a = sig(x.al)  # h,e
    H = torch.zeros(x.n_b, x.n_h, x.n_e, dtype=torch.float64)
    L = []
    for t in range(n):
        H = a * x.X[:, :, t] + (1 - a * sig(x.de)) * H
        L.append(H)
    Y = torch.stack(L, 2)
    q = Y * x.gq[:, None]
    k = Y * x.gk[:, None]
    s = einsum("bhie,bhje->bhij", q, k) / math.sqrt(x.n_e)
    return weigh(softmax(s, causal(x)), x.V)


add(
    "re_mega",
    "X[b,h,j,e], V[b,h,j,f], al[h,e], de[h,e], gq[h,e], gk[h,e]",
    "O[b,h,i,f]",
    """H[j,e] = sigmoid(al[e]) * X[j,e] + (1 - sigmoid(al[e]) * sigmoid(de[e])) * H[j-1,e]   init 0
rank i = |j|
S[i,j] = H[i,e] * gq[e] * H[j,e] * gk[e] / sqrt(|e|) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    mega,
)


# two-axis softmax normalised jointly over two key sets
def cat2(x: SimpleNamespace) -> Tensor:
    s1 = einsum("bhie,bhje->bhij", x.Q, x.K) / math.sqrt(x.n_e)
    s2 = einsum("bhie,bhke->bhik", x.Q, x.L) / math.sqrt(x.n_e)
    s1 = s1.masked_fill(~causal(x), -torch.inf)
    p = torch.softmax(torch.cat([s1, s2], -1), -1)
    n = x.n_j
    return weigh(p[..., :n], x.V) + einsum("bhik,bhkf->bhif", p[..., n:], x.U)


add(
    "re_prefix_tuning_joint",
    QKV + ", L[b,h,k,e], U[b,h,k,f]",
    O,
    f"""S[i,j] = {DOT} where j <= i
T[i,k] = Q[i,e] * L[k,e] / sqrt(|e|)
M[i] = max(max[j](S[i,j]), max[k](T[i,k]))
P[i,j] = exp(S[i,j] - M[i])
R[i,k] = exp(T[i,k] - M[i])
Z[i] = sum[j](P[i,j]) + sum[k](R[i,k])
O[i,f] = (P[i,j] * V[j,f] + R[i,k] * U[k,f]) / Z[i]""",
    cat2,
    sizes={"k": 5},
)
# per-token temperature with both i and j, entropic
add(
    "re_token_temps",
    QKV + ", tq[b,h,i], tk[b,h,j]",
    O,
    f"""S[i,j] = {DOT} * softplus(tq[i]) + tk[j] where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(scaled(x) * fn.softplus(x.tq)[..., None] + x.tk[..., None, :], causal(x)), x.V
    ),
)
# cross attention with lengths on both sides
add(
    "re_cross_lengths",
    QKV + ", nq[b]: int, nk[b]: int",
    "O[b,h,i,f], LSE[b,h,i]",
    f"""S[i,j] = {DOT} where i < nq, j < nk
O[i,f] = softmax[j](S[i,j]) * V[j,f]
LSE[i] = logsumexp[j](S[i,j])""",
    lambda x: (lambda s, k: (weigh(softmax(s, k), x.V), lse(s, k)))(
        scaled(x),
        (
            (torch.arange(x.n_i)[None, :] < x.nq[:, None])[:, None, :, None]
            & (torch.arange(x.n_j)[None, :] < x.nk[:, None])[:, None, None, :]
        ),
    ),
    sizes={"i": 7, "j": 19},
    make={"nq": lambda k, g: torch.tensor([5, 0]), "nk": lambda k, g: torch.tensor([11, 4])},
)


# sinks per head with key+value of zero token; sink value learned
def sinkv(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    k = causal(x)
    s2 = torch.cat(
        [s.masked_fill(~k, -torch.inf), einsum("bhie,he->bhi", x.Q, x.ks)[..., None]], -1
    )
    p = torch.softmax(s2, -1)
    return weigh(p[..., :-1], x.V) + p[..., -1:] * x.vs[:, None]


add(
    "re_sink_kv",
    QKV + ", ks[h,e], vs[h,f]",
    O,
    f"""S[i,j] = {DOT} where j <= i
T[i] = Q[i,e] * ks[e]
M[i] = max(T[i], max[j](S[i,j]))
P[i,j] = exp(S[i,j] - M[i])
E[i] = exp(T[i] - M[i])
O[i,f] = (P[i,j] * V[j,f] + E[i] * vs[f]) / (E[i] + sum[j](P[i,j]))""",
    sinkv,
)
# ALiBi bidirectional with different slopes for left/right
add(
    "re_alibi_sided",
    QKV + ", l[h], r[h]",
    O,
    f"""S[i,j] = {DOT} - (l * (i - j) if j <= i else r * (j - i))
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(
            scaled(x)
            - torch.where(
                x.j <= x.i, x.l[:, None, None] * (x.i - x.j), x.r[:, None, None] * (x.j - x.i)
            )
        ),
        x.V,
    ),
)


# CoPE contextual position encoding: gates sum positions, interpolate int positions
def cope(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    k = causal(x)
    g = masked(sig(s), k)
    p = g.flip(-1).cumsum(-1).flip(-1)
    p = p.clamp(max=x.n_p - 1.0)
    z = einsum("bhie,hpe->bhip", x.Q, x.pe)
    lo = p.floor().long()
    hi = p.ceil().long()
    w = p - lo
    b = z.gather(-1, lo) * (1 - w) + z.gather(-1, hi) * w
    return weigh(softmax(s + b, k), x.V)


add(
    "re_cope",
    QKV + ", pe[h,p,e]",
    O,
    f"""S[i,j] = {DOT} where j <= i
P[i,j] = min(sum[l : j <= l <= i](sigmoid(S[i,l])), |p| - 1) where j <= i
Z[i,p] = Q[i,e] * pe[p,e]
B[i,j] = sum[p](max(1 - abs(P[i,j] - p), 0) * Z[i,p]) where j <= i
T[i,j] = S[i,j] + B[i,j]
O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
    cope,
    sizes={"p": 4},
)


# Selective attention (learned mask F accumulates)
def selat(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    k = causal(x)
    r = masked(s.relu(), x.j < x.i)
    acc = r.cumsum(-2) - r
    return weigh(softmax(s - masked(acc, k), k), x.V)


add(
    "re_selective2",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
F[i,j] = sum[l : j < l < i](relu(S[l,j]))
O[i,f] = softmax[j](S[i,j] - F[i,j]) * V[j,f]""",
    selat,
)


# Infini-attention: local softmax + compressive memory by segments; gate
def infini(x: SimpleNamespace) -> Tensor:
    w = 5
    loc = (x.i // w == x.j // w) & causal(x)
    past = x.j // w < x.i // w
    y = weigh(softmax(scaled(x), loc), x.V)
    a = masked(einsum("bhie,bhje->bhij", fn.elu(x.Q) + 1, fn.elu(x.K) + 1), past)
    m = weigh(a, x.V) / (a.sum(-1, keepdim=True) + 1e-6)
    g = sig(x.beta)[:, None, None]
    return g * m + (1 - g) * y


add(
    "re_infini",
    QKV + ", beta[h], w: int = 5",
    O,
    f"""S[i,j] = {DOT} where j <= i, i // w == j // w
A[i,j] = (elu(Q[i,e]) + 1) * (elu(K[j,e]) + 1) where j // w < i // w
Y[i,f] = softmax[j](S[i,j]) * V[j,f]
M[i,f] = A[i,j] * V[j,f] / (sum[j](A[i,j]) + 1e-6)
O[i,f] = sigmoid(beta) * M[i,f] + (1 - sigmoid(beta)) * Y[i,f]""",
    infini,
)
# Power attention deg 2 with gating
add(
    "re_power2",
    QKV + ", lg[b,h,j]",
    O,
    """assume lg <= 0
C[j] = sum[l : l <= j](lg[l])
D[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i
A[i,j] = D[i,j]**2 * exp(C[i] - C[j])
O[i,f] = A[i,j] * V[j,f] / (sum[j](A[i,j]) + 1e-6)""",
    lambda x: (lambda a: weigh(a, x.V) / (a.sum(-1, keepdim=True) + 1e-6))(
        masked(
            scaled(x) ** 2
            * torch.exp(
                masked(x.lg.cumsum(-1)[..., :, None] - x.lg.cumsum(-1)[..., None, :], causal(x))
            ),
            causal(x),
        )
    ),
    make={"lg": mk("b,h,j", fn.logsigmoid)},
)
# elliptical attention: per-feature metric
add(
    "re_elliptical",
    QKV + ", m[h,e]",
    O,
    """S[i,j] = -(m[e]**2 * (Q[i,e] - K[j,e])**2) / (2 * sqrt(|e|)) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(
            -(x.m.square()[:, None, None] * (x.Q[..., :, None, :] - x.K[..., None, :, :]) ** 2).sum(
                -1
            )
            / (2 * math.sqrt(x.n_e)),
            causal(x),
        ),
        x.V,
    ),
)
# hyperbolic (Lorentz) attention
add(
    "re_lorentz",
    QKV + ", beta[h]",
    O,
    """q0[i] = sqrt(1 + sum[e](Q[i,e]**2))
k0[j] = sqrt(1 + sum[e](K[j,e]**2))
S[i,j] = exp(beta) * (Q[i,e] * K[j,e] - q0[i] * k0[j]) where j <= i
Y[i,f] = softmax[j](S[i,j]) * V[j,f]
O[i,f] = Y[i,f] / sqrt(1 + sum[f](Y[i,f]**2))""",
    lambda x: (lambda y: y / (1 + y.square().sum(-1, keepdim=True)).sqrt())(
        weigh(
            softmax(
                x.beta.exp()[:, None, None]
                * (
                    einsum("bhie,bhje->bhij", x.Q, x.K)
                    - (1 + x.Q.square().sum(-1)).sqrt()[..., None]
                    * (1 + x.K.square().sum(-1)).sqrt()[..., None, :]
                ),
                causal(x),
            ),
            x.V,
        )
    ),
)
# hyperconnection-like mixing of streams before attention
add(
    "re_hyper",
    "X[b,n,i,d], A[n], Bm[n], Wq[h,d,e], Wk[h,d,e], Wv[h,d,f]",
    "O[b,h,i,f]",
    """rank j = |i|
Y[i,d] = A[n] * X[n,i,d]
U[i,d] = Bm[n] * X[n,i,d]
Q[h,i,e] = Y[i,d] * Wq[h,d,e]
K[h,i,e] = U[i,d] * Wk[h,d,e]
V[h,i,f] = U[i,d] * Wv[h,d,f]
S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
O[h,i,f] = softmax[j](S[h,i,j]) * V[h,j,f]""",
    lambda x: (
        lambda q, k, v: weigh(
            softmax(einsum("bhie,bhje->bhij", q, k) / math.sqrt(x.n_e), causal(x)), v
        )
    )(
        einsum("n,bnid,hde->bhie", x.A, x.X, x.Wq),
        einsum("n,bnid,hde->bhie", x.Bm, x.X, x.Wk),
        einsum("n,bnid,hdf->bhif", x.Bm, x.X, x.Wv),
    ),
    batch="b",
    sizes={"n": 3, "d": 5},
)


# shaped attention: a*I + b*softmax - c*uniform
def shaped(x: SimpleNamespace) -> Tensor:
    k = causal(x)
    u = ratio(masked(torch.ones(x.n_i, x.n_j).double(), k))
    return (
        x.a[:, None, None] * x.V
        + x.bb[:, None, None] * weigh(softmax(scaled(x), k), x.V)
        - x.c[:, None, None] * einsum("ij,bhjf->bhif", u, x.V)
    )


add(
    "re_shaped",
    QKV + ", a[h], bb[h], c[h]",
    O,
    f"""S[i,j] = {DOT} where j <= i
U[j,f] = sum[l : l <= j](V[l,f])
O[i,f] = a * V[i,f] + bb * (softmax[j](S[i,j]) * V[j,f]) - c * U[i,f] / (i + 1)""",
    shaped,
)
# NoPE + scaled log(n) and yarn temp (scalable softmax): s*log n
add(
    "re_ssmax",
    QKV + ", s[h]",
    O,
    f"""S[i,j] = s * log(i + 1) * {DOT} where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(x.s[:, None, None] * torch.log(x.i.double() + 1) * scaled(x), causal(x)), x.V
    ),
)


# SLIM: slot memory, inverted attention (softmax over queries then renormalised)
def inverted(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    p = torch.softmax(s, -2)
    return weigh(p / (p.sum(-1, keepdim=True) + 1e-6), x.V)


add(
    "re_slot_inverted",
    QKV,
    O,
    f"""S[i,j] = {DOT}
A[i,j] = softmax[i](S[i,j])
O[i,f] = A[i,j] / (sum[j](A[i,j]) + 1e-6) * V[j,f]""",
    inverted,
    sizes={"i": 5},
    start=0,
)


# attention free transformer AFT-full, AFT-local
add(
    "re_aft_full",
    "Q[b,i,f], K[b,j,f], V[b,j,f], w[i,j]",
    "O[b,i,f]",
    """E[i,j,f] = exp(K[j,f] + w[i,j]) where j <= i
O[i,f] = sigmoid(Q[i,f]) * (sum[j](E[i,j,f] * V[j,f]) / sum[j](E[i,j,f]))""",
    lambda x: (
        sig(x.Q)
        * (lambda e: (e * x.V[:, None]).sum(2) / e.sum(2))(
            masked(torch.exp(x.K[:, None] + x.w[None, :, :, None]), causal(x)[None, :, :, None])
        )
    ),
    batch="b",
)
add(
    "re_aft_softmax",
    "Q[b,i,f], K[b,j,f], V[b,j,f], w[i,j]",
    "O[b,i,f]",
    """E[i,j,f] = K[j,f] + w[i,j] where j <= i
O[i,f] = sigmoid(Q[i,f]) * (softmax[j](E[i,j,f]) * V[j,f])""",
    lambda x: (
        sig(x.Q)
        * (lambda e: (e * x.V[:, None]).sum(2) / e.sum(2))(
            masked(torch.exp(x.K[:, None] + x.w[None, :, :, None]), causal(x)[None, :, :, None])
        )
    ),
    batch="b",
)
# tree attention: ancestors mask bool + position ids depth
add(
    "re_tree_mask",
    QKV + ", anc[b,i,j]: bool, dep[b,j]: int, slope[h]",
    O,
    f"""S[i,j] = {DOT} - slope * (dep[i] - dep[j]) where anc[i,j]
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(
            scaled(x)
            - x.slope[:, None, None] * (x.dep[:, None, :, None] - x.dep[:, None, None, :]),
            x.anc[:, None],
        ),
        x.V,
    ),
)
# xPos: decay per dim
add(
    "re_xpos",
    QKV + ", z[e]",
    O,
    """S[i,j] = Q[i,e] * K[j,e] * sigmoid(z[e])**(i - j) / sqrt(|e|) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(
            (
                x.Q[..., :, None, :]
                * x.K[..., None, :, :]
                * sig(x.z) ** (x.i - x.j)[..., None].clamp(min=0)
            ).sum(-1)
            / math.sqrt(x.n_e),
            causal(x),
        ),
        x.V,
    ),
)


# Fourier / RoPE with partial rotary computed angles
def rope(x: SimpleNamespace) -> Tensor:
    half = x.n_r // 2

    def ro(t: Tensor, pos: Tensor) -> Tensor:
        a = pos[:, None] * x.freq
        c, s = a.cos(), a.sin()
        u, v = t[..., :half], t[..., half : x.n_r]
        return torch.cat([u * c - v * s, v * c + u * s, t[..., x.n_r :]], -1)

    p = torch.arange(x.n_i).double()
    return weigh(
        softmax(einsum("bhie,bhje->bhij", ro(x.Q, p), ro(x.K, p)) / math.sqrt(x.n_e), causal(x)),
        x.V,
    )


add(
    "re_partial_rope",
    "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], freq[m]",
    O,
    """S[i,j] = (
      sum[m]((Q[i,m+0] * K[j,m+0] + Q[i,m+|m|] * K[j,m+|m|]) * cos((i - j) * freq[m])
          + (Q[i,m+0] * K[j,m+|m|] - Q[i,m+|m|] * K[j,m+0]) * sin((i - j) * freq[m]))
      + sum[e](Q[i,e] * K[j,e] if e >= 2 * |m| else 0)) / sqrt(|e|) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: rope(SimpleNamespace(**{**vars(x), "n_r": 4})),
    sizes={"m": 2},
)
