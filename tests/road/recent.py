"""Attention of papers of 2023 to 2026, with references of their own: scores, masks, weights, blocks, pages."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as fn
from torch import Tensor, einsum

from tests.road.case import DOT, QKV, O, add, lse, masked, scaled, softmax, weigh
from tests.road.recent_words import (
    causal,
    mk,
    sig,
    unit_rows,
)

# nGPT: normalised q and k with learned scale per dim
add(
    "re_ngpt",
    QKV + ", sqk[h,e]",
    O,
    """QN[i,e] = sqk[e] * Q[i,e] / sqrt(sum[d](Q[i,d]**2) + 1e-6)
KN[j,e] = sqk[e] * K[j,e] / sqrt(sum[d](K[j,d]**2) + 1e-6)
S[i,j] = QN[i,e] * KN[j,e] * sqrt(|e|) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(
            einsum(
                "bhie,bhje->bhij", unit_rows(x.Q) * x.sqk[:, None], unit_rows(x.K) * x.sqk[:, None]
            )
            * math.sqrt(x.n_e),
            causal(x),
        ),
        x.V,
    ),
)
# qk norm with rmsnorm + learned weights + gqa + mean over heads
add(
    "re_qkrms",
    "Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], wq[e], wk[e], G: int",
    "O[b,h,i,f]",
    """QN[i,e] = Q[i,e] * rsqrt(1e-5 + sum[d](Q[i,d]**2) / |e|) * wq[e]
KN[j,e] = K[j,e] * rsqrt(1e-5 + sum[d](K[j,d]**2) / |e|) * wk[e]
S[i,j] = QN[i,e] * KN[j,e] / sqrt(|e|) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(
            einsum(
                "bhie,bhje->bhij",
                x.Q * (x.Q.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * x.wq,
                (
                    x.K * (x.K.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * x.wk
                ).repeat_interleave(3, 1),
            )
            / math.sqrt(x.n_e),
            causal(x),
        ),
        x.V.repeat_interleave(3, 1),
    ),
    sizes={"h": 6, "G": 3},
)


# cog attention: signed softmax
def cog(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    keep = causal(x)
    return weigh(s.sign() * softmax(s.abs(), keep), x.V)


add(
    "re_cog",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
A[i,j] = softmax[j](abs(S[i,j]))
O[i,f] = sign(S[i,j]) * A[i,j] * V[j,f]""",
    cog,
)


# multi-token attention: key-query convolution over scores before softmax
def mta(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    keep = causal(x)
    s = masked(s, keep)
    acc = torch.zeros_like(s)
    n = x.n_i
    for a in range(3):
        for c in range(3):
            t = torch.zeros_like(s)
            # s[i-a, j-c]
            t[..., a:, c:] = s[..., : n - a, : n - c]
            acc = acc + x.w[:, a, c][:, None, None] * t
    return weigh(softmax(acc, keep), x.V)


add(
    "re_mta",
    QKV + ", w[h,x,y]",
    O,
    f"""S[i,j] = ({DOT}) if j <= i else 0
T[i,j] = sum[x,y](w[x,y] * (S[i-x, j-y] if i - x >= 0 and j - y >= 0 else 0)) where j <= i
O[i,f] = softmax[j](T[i,j]) * V[j,f]""",
    mta,
    sizes={"x": 3, "y": 3},
    start=0,
)


# convolution inside the contraction : keys convolved
def mtak(x: SimpleNamespace) -> Tensor:
    kc = sum(
        x.w[:, c][:, None, None] * torch.nn.functional.pad(x.K, (0, 0, c, 0))[..., : x.n_j, :]
        for c in range(3)
    )
    s = einsum("bhie,bhje->bhij", x.Q, kc) / math.sqrt(x.n_e)
    return weigh(softmax(s, causal(x)), x.V)


add(
    "re_mta_keys",
    QKV + ", w[h,y]",
    O,
    """KC[j,e] = sum[y](w[y] * (K[j-y,e] if j - y >= 0 else 0))
S[i,j] = Q[i,e] * KC[j,e] / sqrt(|e|) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    mtak,
    sizes={"y": 3},
    start=0,
)


# tensor product attention
def tpa(x: SimpleNamespace) -> Tensor:
    q = einsum("bnhr,bnre->bhne", x.aq, x.bq) / x.n_r
    k = einsum("bnhs,bnse->bhne", x.ak, x.bk) / x.n_s
    v = einsum("bnhs,bnsf->bhnf", x.av, x.bv) / x.n_s
    s = einsum("bhie,bhje->bhij", q, k) / math.sqrt(x.n_e)
    return weigh(softmax(s, causal(x)), v)


add(
    "re_tpa",
    "aq[b,i,h,r], bq[b,i,r,e], ak[b,j,h,s], bk[b,j,s,e], av[b,j,h,s], bv[b,j,s,f]",
    O,
    """Q[h,i,e] = aq[i,h,r] * bq[i,r,e] / |r|
K[h,j,e] = ak[j,h,s] * bk[j,s,e] / |s|
V[h,j,f] = av[j,h,s] * bv[j,s,f] / |s|
S[h,i,j] = Q[h,i,e] * K[h,j,e] / sqrt(|e|) where j <= i
O[h,i,f] = softmax[j](S[h,i,j]) * V[h,j,f]""",
    tpa,
    batch="b",
    sizes={"r": 3, "s": 2},
)


# stick breaking with remainder to own value (v2)
def stick(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    keep = x.j < x.i
    lb = masked(fn.logsigmoid(s), keep)
    l1 = masked(fn.logsigmoid(-s), keep)
    c = l1.flip(-1).cumsum(-1).flip(-1) - l1  # sum over later keys
    a = masked(torch.exp(lb + c), keep)
    rem = 1 - a.sum(-1)
    return weigh(a, x.V) + rem[..., None] * x.V


add(
    "re_stick_remainder",
    "Q[b,h,n,e], K[b,h,n,e], V[b,h,n,f]".replace("Q[b,h,n,e]", "Q[b,h,i,e]")
    .replace("K[b,h,n,e]", "K[b,h,j,e]")
    .replace("V[b,h,n,f]", "V[b,h,j,f]"),
    O,
    f"""S[i,j] = {DOT} where j < i
R[i,j] = sum[l : j < l < i](logsigmoid(-S[i,l]))
A[i,j] = exp(logsigmoid(S[i,j]) + R[i,j])
O[i,f] = A[i,j] * V[j,f] + (1 - sum[j](A[i,j])) * V[i,f]""",
    stick,
)


# XSA exclusive self attention: remove projection on own value
def xsa(x: SimpleNamespace) -> Tensor:
    y = weigh(softmax(scaled(x), causal(x)), x.V)
    return y - (y * x.V).sum(-1, keepdim=True) / (x.V.square().sum(-1, keepdim=True) + 1e-6) * x.V


add(
    "re_xsa",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
Y[i,f] = softmax[j](S[i,j]) * V[j,f]
O[i,f] = Y[i,f] - sum[c](Y[i,c] * V[i,c]) / (sum[c](V[i,c]**2) + 1e-6) * V[i,f]""",
    xsa,
)
# gated attention output (Qwen)
add(
    "re_gated_out",
    QKV + ", gate[b,h,i,f]",
    O,
    f"""S[i,j] = {DOT} where j <= i
O[i,f] = sigmoid(gate[i,f]) * (softmax[j](S[i,j]) * V[j,f])""",
    lambda x: sig(x.gate) * weigh(softmax(scaled(x), causal(x)), x.V),
)


# canon / key shift convs
def canon(x: SimpleNamespace) -> Tensor:
    def c(t: Tensor) -> Tensor:
        return t + sum(
            x.w[:, a][:, None, :] * fn.pad(t, (0, 0, a, 0))[..., : x.n_j, :] for a in range(4)
        )

    s = einsum("bhie,bhje->bhij", c(x.Q), c(x.K)) / math.sqrt(x.n_e)
    return weigh(softmax(s, causal(x)), x.V)


add(
    "re_canon",
    QKV + ", w[h,c,e]",
    O,
    """QC[i,e] = Q[i,e] + sum[c](w[c,e] * (Q[i-c,e] if i >= c else 0))
KC[j,e] = K[j,e] + sum[c](w[c,e] * (K[j-c,e] if j >= c else 0))
S[i,j] = QC[i,e] * KC[j,e] / sqrt(|e|) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    canon,
    sizes={"c": 4},
    start=0,
)


# differential v2: pairs of heads, sigmoid lambda per token
def diff2(x: SimpleNamespace) -> Tensor:
    k = x.K.repeat_interleave(2, 1)
    v = x.V.repeat_interleave(2, 1)
    s = einsum("bhie,bhje->bhij", x.Q, k) / math.sqrt(x.n_e)
    y = weigh(softmax(s, causal(x)), v)
    return y[:, 0::2] - sig(x.lam)[..., None] * y[:, 1::2]


add(
    "re_diff2",
    "Q[b,p,u,i,e], K[b,p,j,e], V[b,p,j,f], lam[b,p,i]",
    "O[b,p,i,f]",
    """S[u,i,j] = Q[u,i,e] * K[j,e] / sqrt(|e|) where j <= i
Y[u,i,f] = softmax[j](S[u,i,j]) * V[j,f]
O[i,f] = Y[0,i,f] - sigmoid(lam[i]) * Y[1,i,f]""",
    lambda x: (lambda y: y[:, :, 0] - sig(x.lam)[..., None] * y[:, :, 1])(
        einsum(
            "bpuij,bpjf->bpuif",
            softmax(einsum("bpuie,bpje->bpuij", x.Q, x.K) / math.sqrt(x.n_e), causal(x)),
            x.V,
        )
    ),
    batch="b, p",
    sizes={"p": 2, "u": 2},
)


# entmax mixture: mix of softmax and sparsemax by head
def sparsemax(s: Tensor, keep: Tensor) -> Tensor:
    s = s.masked_fill(~keep.expand_as(s), -1e9)
    z, _ = s.sort(-1, descending=True)
    cs = z.cumsum(-1)
    k = torch.arange(1, s.shape[-1] + 1, dtype=s.dtype)
    ok = 1 + k * z > cs
    kk = ok.sum(-1, keepdim=True)
    tau = (cs.gather(-1, kk - 1) - 1) / kk
    return (s - tau).clamp(min=0)


add(
    "re_mix_sparse",
    QKV + ", a[h]",
    O,
    f"""S[i,j] = {DOT} where j <= i
W[i,j] = sigmoid(a) * softmax[j](S[i,j]) + (1 - sigmoid(a)) * sparsemax[j](S[i,j])
O[i,f] = W[i,j] * V[j,f]""",
    lambda x: weigh(
        sig(x.a)[:, None, None] * softmax(scaled(x), causal(x))
        + (1 - sig(x.a))[:, None, None] * sparsemax(scaled(x), causal(x)),
        x.V,
    ),
)


# log-sum-exp-weighted merge of two softmaxes (local and global)
def locglob(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    loc = causal(x) & (x.i - x.j < 4)
    glob = causal(x) & (x.j % 5 == 0)
    a, c = lse(s, loc), lse(s, glob)
    g = sig(a - c + x.beta[:, None])[..., None]
    return g * weigh(softmax(s, loc), x.V) + (1 - g) * weigh(softmax(s, glob), x.V), a, c


add(
    "re_local_global_lse",
    QKV + ", beta[h], w: int = 4, st: int = 5",
    O + ", A[b,h,i], C[b,h,i]",
    f"""S[i,j] = {DOT} where j <= i
L[i,j] = S[i,j] where i - j < w
H[i,j] = S[i,j] where j % st == 0
A[i] = logsumexp[j](L[i,j])
C[i] = logsumexp[j](H[i,j])
g[i] = sigmoid(A[i] - C[i] + beta)
O[i,f] = g[i] * (softmax[j](L[i,j]) * V[j,f]) + (1 - g[i]) * (softmax[j](H[i,j]) * V[j,f])""",
    locglob,
)


# sliding + dilated by head
def perhead(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    keep = causal(x) & torch.where(
        (x.dil > 1)[:, None, None],
        ((x.i - x.j) % x.dil.clamp(min=1)[:, None, None] == 0),
        (x.i - x.j < 5)[None],
    )
    return weigh(softmax(s, keep), x.V)


add(
    "re_window_dilated_by_head",
    QKV + ", dil[h]: int",
    O,
    f"""S[i,j] = {DOT} where j <= i, (i - j) % dil == 0 if dil > 1 else i - j < 5
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    perhead,
    make={"dil": lambda k, g: torch.tensor([1, 3])},
)


# hard-window alibi
def hwa(x: SimpleNamespace) -> Tensor:
    keep = causal(x)[None] & (x.slope[:, None, None].abs() * (x.i - x.j) < 3)
    return weigh(softmax(scaled(x) - x.slope.abs()[:, None, None] * (x.i - x.j), keep), x.V)


add(
    "re_hard_window_alibi",
    QKV + ", slope[h]",
    O,
    f"""S[i,j] = {DOT} - abs(slope) * (i - j) where j <= i, abs(slope) * (i - j) < 3
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    hwa,
)


# softcap + sinks + documents
def scd(x: SimpleNamespace) -> Tensor:
    s = 5 * torch.tanh(scaled(x) / 5)
    keep = causal(x) & (x.doc[:, None, :, None] == x.doc[:, None, None, :])
    s2 = torch.cat(
        [
            s.masked_fill(~keep.expand_as(s), -torch.inf),
            x.sink[None, :, None, None].expand(*s.shape[:3], 1),
        ],
        -1,
    )
    return weigh(torch.softmax(s2, -1)[..., :-1], x.V)


add(
    "re_cap_sink_docs",
    QKV.replace("V[b,h,j,f]", "V[b,h,j,f], doc[b,j]: int, sink[h], cap: float = 5.0"),
    O,
    f"""S[i,j] = cap * tanh({DOT} / cap) where j <= i, doc[i] == doc[j]
M[i] = max(sink, max[j](S[i,j]))
P[i,j] = exp(S[i,j] - M[i])
O[i,f] = P[i,j] / (exp(sink - M[i]) + sum[j](P[i,j])) * V[j,f]""",
    scd,
)


# paged cache, decode
def paged(x: SimpleNamespace) -> Tensor:
    pos = torch.arange(x.n_j)
    pg = x.table[:, pos // 4]  # b,j
    k = x.KP[pg, pos % 4].permute(0, 2, 1, 3)
    v = x.VP[pg, pos % 4].permute(0, 2, 1, 3)
    k = k.repeat_interleave(2, 1)
    v = v.repeat_interleave(2, 1)
    s = einsum("bhie,bhje->bhij", x.Q, k) / math.sqrt(x.n_e)
    keep = (pos[None, :] < x.len[:, None])[:, None, None, :]
    return weigh(softmax(s, keep), v)


add(
    "re_paged_gqa",
    "Q[b,h,i,e], KP[p,s,h//G,e], VP[p,s,h//G,f], table[b,m]: int, len[b]: int, G: int",
    O,
    """rank j = |m| * |s|
S[i,j] = Q[i,e] * KP[table[j // |s|], j % |s|, e] / sqrt(|e|) where j < len
O[i,f] = softmax[j](S[i,j]) * VP[table[j // |s|], j % |s|, f]""",
    paged,
    sizes={"i": 1, "p": 7, "s": 4, "m": 3, "j": 12, "h": 4, "G": 2},
    make={"len": lambda k, g: torch.tensor([9, 12])},
)
# value dim bigger, gqa odd
add(
    "re_gqa_odd",
    "Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int",
    O,
    f"""S[i,j] = {DOT} where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(
        softmax(
            einsum("bhie,bhje->bhij", x.Q, x.K.repeat_interleave(5, 1)) / math.sqrt(x.n_e),
            causal(x),
        ),
        x.V.repeat_interleave(5, 1),
    ),
    sizes={"h": 5, "G": 5, "e": 5, "f": 9},
)
# additive mask with log
add(
    "re_log_mask",
    QKV + ", m[b,j]",
    O,
    f"""S[i,j] = {DOT} + log(m[j]) where j <= i
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    lambda x: weigh(softmax(scaled(x) + x.m.log()[:, None, None, :], causal(x)), x.V),
    make={"m": mk("b,j", lambda t: t.abs() + 0.1)},
)


# cosine attention with clipped logit scale (Swin v2) and 2-D relative bias
def swin(x: SimpleNamespace) -> Tensor:
    w = 4
    n = x.n_i
    a = torch.arange(n)
    dy = (a[:, None] // w - a[None, :] // w) + x.n_i // w - 1
    dx = (a[:, None] % w - a[None, :] % w) + w - 1
    b = x.tab[:, dy, dx]
    s = einsum("bhie,bhje->bhij", unit_rows(x.Q), unit_rows(x.K)) * x.ls.clamp(max=1.0).exp()[
        :, None, None
    ] + 16 * sig(b)
    return weigh(softmax(s), x.V)


add(
    "re_swin2",
    QKV + ", ls[h], tab[h,y,x], w: int = 4",
    O,
    """nq[i] = sqrt(sum[d](Q[i,d]**2) + 1e-6)
nk[j] = sqrt(sum[d](K[j,d]**2) + 1e-6)
S[i,j] = Q[i,e] * K[j,e] / (nq[i] * nk[j]) * exp(min(ls, 1.0))
    + 16 * sigmoid(tab[i // w - j // w + |j| // w - 1, i % w - j % w + w - 1])
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    swin,
    sizes={"i": 16, "j": 16, "y": 7, "x": 7},
)
# rational attention: (1+s)^2 poly kernel normalised (rational)
add(
    "re_rational",
    QKV,
    O,
    f"""S[i,j] = {DOT} where j <= i
R[i,j] = (1 + S[i,j] + S[i,j]**2) / (2 + S[i,j]**2)
O[i,f] = R[i,j] / (sum[j](abs(R[i,j])) + 1e-3) * V[j,f]""",
    lambda x: (
        lambda s: (lambda r: weigh(r / (r.abs().sum(-1, keepdim=True) + 1e-3), x.V))(
            masked((1 + s + s * s) / (2 + s * s), causal(x))
        )
    )(scaled(x)),
)


# NSA block selection given selected ids (sel[b,h,i,r])
def nsa(x: SimpleNamespace) -> Tensor:
    s = scaled(x)
    keep = causal(x)
    blk = torch.arange(x.n_j) // 4
    m = (x.sel[..., None] == blk).any(-2)
    keep = keep & m
    return weigh(softmax(s, keep), x.V)


add(
    "re_nsa_selected",
    QKV + ", sel[b,h,i,r]: int, w: int = 4",
    O,
    f"""S[i,j] = {DOT} where j <= i, any[r](sel[i,r] == j // w)
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    nsa,
    sizes={"r": 2},
)


# NSA in full: compression + selection by top-score threshold + window, gates
def nsafull(x: SimpleNamespace) -> Tensor:
    w = 4
    nb = x.n_j // w
    n = x.n_i
    s = scaled(x)
    keep = causal(x)
    kc = x.K.view(x.n_b, x.n_h, nb, w, -1).mean(3)
    vc = x.V.view(x.n_b, x.n_h, nb, w, -1).mean(3)
    sc = einsum("bhie,bhce->bhic", x.Q, kc) / math.sqrt(x.n_e)
    ck = (torch.arange(nb)[None, :] + 1) * w - 1 <= torch.arange(n)[:, None]
    oc = einsum("bhic,bhcf->bhif", softmax(sc, ck), vc)
    ow = weigh(softmax(s, keep & (x.i - x.j < 5)), x.V)
    g = sig(x.g)
    return g[..., 0:1] * oc + g[..., 1:2] * ow


add(
    "re_nsa_compress_window",
    QKV + ", g[b,h,i,u], w: int = 4",
    O,
    f"""rank c = |j| // w, o = w
KC[c,e] = sum[o](K[c*w + o, e]) / w
VC[c,f] = sum[o](V[c*w + o, f]) / w
T[i,c] = Q[i,e] * KC[c,e] / sqrt(|e|) where (c + 1) * w - 1 <= i
S[i,j] = {DOT} where i - 5 < j <= i
O[i,f] = sigmoid(g[i,0]) * (softmax[c](T[i,c]) * VC[c,f]) + sigmoid(g[i,1]) * (softmax[j](S[i,j]) * V[j,f])""",
    nsafull,
    sizes={"i": 20, "j": 20, "u": 2},
)


# MoBA with a threshold for the blocks' mean keys
def moba_thr(x: SimpleNamespace) -> Tensor:
    w = 4
    nb = x.n_j // w
    s = scaled(x)
    kc = x.K.view(x.n_b, x.n_h, nb, w, -1).mean(3)
    g = einsum("bhie,bhce->bhic", x.Q, kc)
    keep = causal(x) & (
        (g.repeat_interleave(w, -1) > x.tau[:, None, None]) | (x.i // w == x.j // w)
    )
    return weigh(softmax(s, keep), x.V)


add(
    "re_moba_threshold",
    QKV + ", tau[h], w: int = 4",
    O,
    f"""rank c = |j| // w, o = w
KC[c,e] = sum[o](K[c*w + o, e]) / w
G[i,c] = Q[i,e] * KC[c,e]
S[i,j] = {DOT} where j <= i, G[i, j // w] > tau or i // w == j // w
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    moba_thr,
    sizes={"i": 20, "j": 20},
)


# MoBA by rank-count top k
def moba_topk(x: SimpleNamespace) -> Tensor:
    w = 4
    nb = x.n_j // w
    s = scaled(x)
    kc = x.K.view(x.n_b, x.n_h, nb, w, -1).mean(3)
    g = einsum("bhie,bhce->bhic", x.Q, kc)
    vis = torch.arange(nb)[None, :] < torch.arange(x.n_i)[:, None] // w
    gm = g.masked_fill(~vis, -torch.inf)
    rank = (gm[..., None, :] > gm[..., :, None]).sum(-1)
    selc = (rank < 2) & vis
    keep = causal(x) & (selc.repeat_interleave(w, -1) | (x.i // w == x.j // w))
    return weigh(softmax(s, keep), x.V)


add(
    "re_moba_rank",
    QKV + ", w: int = 4, top: int = 2",
    O,
    f"""rank c = |j| // w, o = w, d = |j| // w
KC[c,e] = sum[o](K[c*w + o, e]) / w
G[i,c] = Q[i,e] * KC[c,e]
N[i,c] = sum[d : d < i // w](1 if G[i,d] > G[i,c] else 0)
S[i,j] = {DOT} where j <= i, (N[i, j // w] < top and j // w < i // w) or i // w == j // w
O[i,f] = softmax[j](S[i,j]) * V[j,f]""",
    moba_topk,
    sizes={"i": 20, "j": 20},
)


def pg(x: SimpleNamespace, nm: str) -> Tensor:
    pos = torch.arange(x.n_j)
    return getattr(x, nm)[x.table[:, pos // x.n_s], pos % x.n_s]


def mla(x: SimpleNamespace) -> Tensor:
    c = pg(x, "C")
    r = pg(x, "KR")
    s = (einsum("bhid,bjd->bhij", x.Q, c) + einsum("bhir,bjr->bhij", x.QR, r)) / math.sqrt(
        x.n_d + x.n_r
    )
    return einsum(
        "bhij,bjc->bhic", softmax(s, (torch.arange(x.n_j)[None] < x.len[:, None])[:, None, None]), c
    )


def same(x: SimpleNamespace) -> Tensor:
    c = pg(x, "P")
    return einsum(
        "bhij,bjc->bhic",
        softmax(
            einsum("bhie,bje->bhij", x.Q, c) / math.sqrt(x.n_e),
            (torch.arange(x.n_j)[None] < x.len[:, None])[:, None, None],
        ),
        c,
    )


ln = {
    "len": lambda k, g: torch.tensor([9, 12]),
    "table": lambda k, g: torch.tensor([[0, 1, 2], [2, 3, 5]]),
}
add(
    "re_paged_same",
    "Q[b,h,i,e], P[p,s,e], table[b,m]: int, len[b]: int",
    "O[b,h,i,e]",
    """rank j = |m| * |s|
S[i,j] = Q[i,c] * P[table[j // |s|], j % |s|, c] / sqrt(|e|) where j < len
O[i,e] = softmax[j](S[i,j]) * P[table[j // |s|], j % |s|, e]""",
    same,
    sizes={"i": 3, "p": 7, "s": 4, "m": 3, "j": 12},
    make=ln,
)
add(
    "re_paged_mla",
    "Q[b,h,i,d], QR[b,h,i,r], C[p,s,d], KR[p,s,r], table[b,m]: int, len[b]: int",
    "O[b,h,i,d]",
    """rank j = |m| * |s|
S[i,j] = (Q[i,c] * C[table[j // |s|], j % |s|, c] + QR[i,r] * KR[table[j // |s|], j % |s|, r])
    / sqrt(|d| + |r|) where j < len
O[i,d] = softmax[j](S[i,j]) * C[table[j // |s|], j % |s|, d]""",
    mla,
    sizes={"i": 3, "p": 7, "s": 4, "m": 3, "j": 12, "d": 6, "r": 3},
    make=ln,
)
