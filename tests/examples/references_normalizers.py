"""References of the programs whose weights are something else than a softmax of the scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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
)
from tests.examples.references_domains import nothing

NORMALIZERS = Registry()


def causal(x: Inputs) -> Tensor:
    """Which pairs a causal program sees."""
    i, j = grid(x)
    return j <= i


@NORMALIZERS.case("softmax_three_sweeps", only_qkv)
def softmax_three_sweeps(x: Inputs, p: Params) -> Outputs:
    return attend(dots(x), causal(x), x["V"])


@NORMALIZERS.case("two_sweeps", also(nothing, w=5), on_axis=False)
def two_sweeps(x: Inputs, p: Params) -> Outputs:
    whole = x["K"].shape[2] // int(p["w"]) * int(p["w"])  # the keys of whole blocks
    return attend(dots(x)[..., :whole], None, x["V"][:, :, :whole])


@NORMALIZERS.case("running_softmax", also(nothing, w=5), on_axis=False)
def running_softmax(x: Inputs, p: Params) -> Outputs:
    return two_sweeps(x, p)


@NORMALIZERS.case("sigmoid", only_qkv)
def sigmoid(x: Inputs, p: Params) -> Outputs:
    n = x["K"].shape[2]
    # 1 / (1 + n exp(-s)) is sigmoid(s - log n)
    return {"O": (1 / (1 + n * torch.exp(-dots(x))) * causal(x)) @ x["V"]}


@NORMALIZERS.case("sigmoid_plain", only_qkv)
def sigmoid_plain(x: Inputs, p: Params) -> Outputs:
    return {"O": (1 / (1 + torch.exp(-dots(x))) * causal(x)) @ x["V"]}


@NORMALIZERS.case("relu", only_qkv, on_axis=False, i=11)
def relu(x: Inputs, p: Params) -> Outputs:
    return {"O": dots(x).clamp(min=0) @ x["V"] / x["K"].shape[2]}


@NORMALIZERS.case("relu2", only_qkv)
def relu2(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return {"O": (dots(x).clamp(min=0).square() * (j <= i)) @ x["V"] / (i + 1)}


@NORMALIZERS.case("softpick", only_qkv)
def softpick(x: Inputs, p: Params) -> Outputs:
    scores = dots(x).masked_fill(~causal(x), -INF)
    peak = scores.amax(-1, keepdim=True)
    part = (torch.exp(scores - peak) - torch.exp(-peak)) * causal(x)
    return {"O": part.clamp(min=0) / (part.abs().sum(-1, keepdim=True) + 1e-6) @ x["V"]}


def share(weights: Tensor) -> Tensor:
    """Weights over their row's sum."""
    return weights / weights.sum(-1, keepdim=True)


@NORMALIZERS.case("softplus_l1", only_qkv)
def softplus_l1(x: Inputs, p: Params) -> Outputs:
    return {"O": share(F.softplus(dots(x)) * causal(x)) @ x["V"]}


@NORMALIZERS.case("softplus_reweighted", also(nothing, p=3))
def softplus_reweighted(x: Inputs, p: Params) -> Outputs:
    # the row factor (i + 1) ** p leaves the second normalisation as it finds it
    weights = share(F.softplus(dots(x)) * causal(x))
    return {"O": share(weights ** int(p["p"])) @ x["V"]}


def draw_gamma(d: Draw, s: Sizes) -> Inputs:
    return {"gamma": d.uniform(0.8, 0.99, s.h)}


@NORMALIZERS.case("retention_normalised", also(draw_gamma))
def retention_normalised(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    decay = torch.exp(torch.log(x["gamma"])[:, None, None] * (i - j).clamp(min=0)) * (j <= i)
    weights = dots(x) * decay
    return {"O": weights / weights.sum(-1, keepdim=True).abs().clamp(min=1) @ x["V"]}


def threshold(scores: Tensor, power: Tensor | float) -> Tensor:
    """The root of `sum(relu(s - t) ** power) = 1` in each row.

    Bisection finds it; one Newton step with a frozen slope then gives it its gradient.
    """
    peak = scores.detach().amax(-1, keepdim=True)
    low, high = peak - 1, peak.clone()
    for _ in range(80):
        middle = (low + high) / 2
        total = ((scores.detach() - middle).clamp(min=0) ** power).sum(-1, keepdim=True)
        low, high = torch.where(total > 1, middle, low), torch.where(total > 1, high, middle)
    gap = scores - low
    seen = gap > 0
    mass = torch.where(seen, torch.where(seen, gap, 1.0) ** power, 0.0).sum(-1, keepdim=True)
    slope = torch.where(seen, power * torch.where(seen, gap, 1.0) ** (power - 1), 0.0)
    return low + (mass - 1) / slope.sum(-1, keepdim=True).detach()


def entmax_weights(scores: Tensor, power: Tensor | float) -> Tensor:
    """`relu(s - t) ** power`, with `t` the threshold of the row."""
    gap = scores - threshold(scores, power)
    seen = gap > 0
    return torch.where(seen, torch.where(seen, gap, 1.0) ** power, 0.0)


@NORMALIZERS.case("sparsemax", only_qkv)
def sparsemax(x: Inputs, p: Params) -> Outputs:
    scores = dots(x).masked_fill(~causal(x), -INF)
    ranked = scores.sort(-1, descending=True).values
    count = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
    above = ranked.masked_fill(ranked == -INF, 0.0).cumsum(-1)
    size = (1 + count * ranked > above).sum(-1, keepdim=True)
    tau = (above.gather(-1, size - 1) - 1) / size
    return {"O": (scores - tau).clamp(min=0) @ x["V"]}


@NORMALIZERS.case("entmax", only_qkv)
def entmax(x: Inputs, p: Params) -> Outputs:
    return {"O": entmax_weights((dots(x) / 2).masked_fill(~causal(x), -INF), 2.0) @ x["V"]}


@NORMALIZERS.case("entmax15", only_qkv)
def entmax15(x: Inputs, p: Params) -> Outputs:
    return entmax(x, p)


@NORMALIZERS.case("entmax_alpha", also(lambda d, s: {"alpha": d.uniform(1.3, 2.0, s.h)}))
def entmax_alpha(x: Inputs, p: Params) -> Outputs:
    excess = x["alpha"][:, None, None] - 1
    scores = (excess * dots(x)).masked_fill(~causal(x), -INF)
    return {"O": entmax_weights(scores, 1 / excess) @ x["V"]}


@NORMALIZERS.case("stick_breaking", only_qkv)
def stick_breaking(x: Inputs, p: Params) -> Outputs:
    """The stick is broken key by key, from the nearest back to the first."""
    scores = dots(x)
    rows = []
    for i in range(scores.shape[-2]):
        left = torch.ones_like(scores[..., 0, 0])
        taken = [torch.zeros_like(left)] * scores.shape[-1]
        for j in range(i - 1, -1, -1):
            part = torch.sigmoid(scores[..., i, j])
            taken[j] = left * part
            left = left * (1 - part)
        rows.append(torch.stack(taken, -1))
    return {"O": torch.stack(rows, -2) @ x["V"]}
