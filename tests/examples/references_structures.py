"""References of the programs with scores of another kind, several of them, or other outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.examples.case import (
    INF,
    Draw,
    Inputs,
    Outputs,
    Params,
    Registry,
    Sizes,
    also,
    attend,
    dots,
    grid,
    only_qkv,
    softmax,
)
from tests.examples.references_domains import nothing
from tests.examples.references_normalizers import causal

STRUCTURES = Registry()


@STRUCTURES.case("entropy", only_qkv)
def entropy(x: Inputs, p: Params) -> Outputs:
    weights = softmax(dots(x), causal(x))
    logs = torch.where(causal(x), weights, 1.0).log()  # entr's gradient at 0 would be infinite
    return {"O": weights @ x["V"], "H": -(weights * logs).sum(-1)}


def draw_differential(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    names = {"Q1": s.i, "K1": s.j, "Q2": s.i, "K2": s.j}
    x = {name: d.normal(s.b, s.h, n, s.e) for name, n in names.items()}
    return {**x, "V": d.normal(s.b, s.h, s.j, s.f), "lam": d.uniform(0.2, 0.8, s.h)}, {}


@STRUCTURES.case("differential", draw_differential)
def differential(x: Inputs, p: Params) -> Outputs:
    one = {"Q": x["Q1"], "K": x["K1"]}
    two = {"Q": x["Q2"], "K": x["K2"]}
    first = attend(dots(one), causal(one), x["V"])["O"]
    second = attend(dots(two), causal(two), x["V"])["O"]
    return {"O": first - x["lam"][:, None, None] * second}


def distances(x: Inputs) -> Tensor:
    """Squared distances of all pairs."""
    return (x["Q"][:, :, :, None] - x["K"][:, :, None]).square().sum(-1)


@STRUCTURES.case("squared_distance", also(lambda d, s: {"kappa": d.uniform(0.02, 0.1, s.h)}))
def squared_distance(x: Inputs, p: Params) -> Outputs:
    return attend(-x["kappa"][:, None, None] * distances(x), causal(x), x["V"])


@STRUCTURES.case("student_t", also(lambda d, s: {"kappa": d.uniform(1.0, 3.0, s.h)}))
def student_t(x: Inputs, p: Params) -> Outputs:
    scores = -x["kappa"][:, None, None] * torch.log1p(distances(x) / x["Q"].shape[-1])
    return attend(scores, causal(x), x["V"])


def draw_additive(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    return {
        "A": d.normal(s.b, s.h, s.i, s.r),
        "B": d.normal(s.b, s.h, s.j, s.r),
        "w": d.normal(s.h, s.r),
        "V": d.normal(s.b, s.h, s.j, s.f),
    }, {}


@STRUCTURES.case("additive", draw_additive, on_axis=False, i=11)
def additive(x: Inputs, p: Params) -> Outputs:
    hidden = torch.tanh(x["A"][:, :, :, None] + x["B"][:, :, None])
    return attend(torch.einsum("bhijr,hr->bhij", hidden, x["w"]), None, x["V"])


@STRUCTURES.case(
    "standardised", also(lambda d, s: {"gain": d.uniform(0.5, 2.0, s.h)}), on_axis=False
)
def standardised(x: Inputs, p: Params) -> Outputs:
    scores = dots(x)
    var, mean = torch.var_mean(scores, dim=-1, correction=0, keepdim=True)
    scaled = x["gain"][:, None, None] * (scores - mean) / torch.sqrt(var + 1e-6)
    return attend(scaled, None, x["V"])


@STRUCTURES.case("column_sums", only_qkv)
def column_sums(x: Inputs, p: Params) -> Outputs:
    weights = softmax(dots(x), causal(x))
    return {"O": weights @ x["V"], "C": weights.sum(-2)}


@STRUCTURES.case("block_max", also(nothing, w=8))
def block_max(x: Inputs, p: Params) -> Outputs:
    scores = dots(x).masked_fill(~causal(x), -INF)
    largest = [block.amax(-1) for block in scores.split(int(p["w"]), dim=-1)]
    return {**attend(dots(x), causal(x), x["V"]), "B": torch.stack(largest, dim=-1)}


@STRUCTURES.case("weights", only_qkv)
def weights_too(x: Inputs, p: Params) -> Outputs:
    weights = softmax(dots(x), causal(x))
    return {"O": weights @ x["V"], "P": weights}


def draw_selective(d: Draw, s: Sizes) -> Inputs:
    return {"Qs": d.normal(s.b, s.i, s.e), "Ks": d.normal(s.b, s.j, s.e)}


@STRUCTURES.case("selective", also(draw_selective))
def selective(x: Inputs, p: Params) -> Outputs:
    """The paper's own steps: a query masks other keys than the first, for later queries."""
    n = x["Q"].shape[2]
    picked = dots({"Q": x["Qs"], "K": x["Ks"]}).clamp(min=0).tril(-1)
    picked = picked * (torch.arange(n, device=picked.device) > 0)
    masked = torch.cat([torch.zeros_like(picked[:, :1]), picked.cumsum(-2)[:, :-1]], dim=1)
    return attend(dots(x) - masked[:, None], causal(x), x["V"])


def draw_simplicial(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    shapes = {"Q": s.e, "K": s.e, "L": s.e, "V": s.f, "U": s.f}
    return {n: d.normal(s.b, s.h, s.i, size) for n, size in shapes.items()}, {"w1": 6, "w2": 3}


@STRUCTURES.case("simplicial2", draw_simplicial, b=1, i=17, j=17)
def simplicial2(x: Inputs, p: Params) -> Outputs:
    n, e = x["Q"].shape[2:]
    i, j = grid({"Q": x["Q"], "K": x["K"]})
    scores = torch.einsum("bhie,bhje,bhke->bhijk", x["Q"], x["K"], x["L"]) / e**0.5
    one, two = ((j <= i) & (i - j < p[w]) for w in ("w1", "w2"))
    visible = (one[:, :, None] & two[:, None, :]).flatten(-2)
    weights = softmax(scores.flatten(-2), visible).unflatten(-1, (n, n))
    return {"O": torch.einsum("bhijk,bhjf,bhkf->bhif", weights, x["V"], x["U"])}


@STRUCTURES.case("fox", also(lambda d, s: {"logf": d.uniform(-0.5, 0.0, s.b, s.h, s.j)}))
def fox(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    total = x["logf"].cumsum(-1)
    return attend(dots(x) + total[..., :, None] - total[..., None, :], j <= i, x["V"])


def draw_mla(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    return {
        "Q": d.normal(s.b, s.h, s.i, s.e),
        "P": d.normal(s.b, s.h, s.i, s.r),
        "K": d.normal(s.b, s.h, s.j, s.e),
        "R": d.normal(s.b, s.j, s.r),
        "V": d.normal(s.b, s.h, s.j, s.f),
    }, {}


@STRUCTURES.case("mla", draw_mla)
def mla(x: Inputs, p: Params) -> Outputs:
    shared = x["R"][:, None].expand(-1, x["Q"].shape[1], -1, -1)
    joined = {
        "Q": torch.cat([x["Q"], x["P"]], dim=-1),
        "K": torch.cat([x["K"], shared], dim=-1),
    }
    return attend(dots(joined), causal(joined), x["V"])


def draw_talking(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    return {
        "Q": d.normal(s.b, s.h, s.i, s.e),
        "K": d.normal(s.b, s.h, s.j, s.e),
        "V": d.normal(s.b, 3, s.j, s.f),
        "Wl": d.normal(3, s.h),
        "Ww": d.normal(3, 3),
    }, {}


@STRUCTURES.case("talking_heads", draw_talking, on_axis=False, i=11)
def talking_heads(x: Inputs, p: Params) -> Outputs:
    logits = torch.einsum("gh,bhij->bgij", x["Wl"], dots(x))
    weights = torch.einsum("gn,bnij->bgij", x["Ww"], torch.softmax(logits, -1))
    return {"O": weights @ x["V"]}
