"""References of the programs with more in the denominator, or with more outputs than `O`."""

from __future__ import annotations

import torch

from tests.examples.case import (
    INF,
    Inputs,
    Outputs,
    Params,
    Registry,
    also,
    attend,
    dots,
    grid,
    only_qkv,
)

SINKS = Registry()


def with_sink(
    scores: torch.Tensor, visible: torch.Tensor, v: torch.Tensor, sink: torch.Tensor
) -> Outputs:
    """One more key of score `sink`, which every query sees and whose value is zero."""
    extra = sink[:, None, None].expand(*scores.shape[:-1], 1)
    scores = torch.cat([scores.masked_fill(~visible, -INF), extra], dim=-1)
    return {"O": torch.softmax(scores, dim=-1)[..., :-1] @ v}


@SINKS.case("sink_softmax", also(lambda d, s: {"sink": d.normal(s.h)}))
def sink_softmax(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return with_sink(dots(x), j <= i, x["V"], x["sink"])


@SINKS.case("window_sink", also(lambda d, s: {"sink": d.normal(s.h)}, w=6, n0=3))
def window_sink(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    visible = (j <= i) & ((i - j < p["w"]) | (j < p["n0"]))
    return with_sink(dots(x), visible, x["V"], x["sink"])


@SINKS.case("window_sink:no_key", also(lambda d, s: {"sink": d.normal(s.h)}, w=0, n0=0))
def window_sink_alone(x: Inputs, p: Params) -> Outputs:
    return window_sink(x, p)


@SINKS.case("off_by_one", only_qkv)
def off_by_one(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return with_sink(dots(x), j <= i, x["V"], torch.zeros_like(x["Q"][0, :, 0, 0]))


@SINKS.case("outputs_lse_max", only_qkv)
def outputs_lse_max(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    scores = dots(x).masked_fill(j > i, -INF)
    return {
        **attend(scores, j <= i, x["V"]),
        "LSE": torch.logsumexp(scores, dim=-1),
        "M": scores.amax(dim=-1),
    }
