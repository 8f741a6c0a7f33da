"""References of the programs that differ in their scores: biases, relative terms, soft caps."""

from __future__ import annotations

import torch

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
    qkv,
)

SCORES = Registry()


def draw_alibi(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    slopes = torch.tensor([2.0 ** (-8 * (n + 1) / s.h) for n in range(s.h)], dtype=torch.float64)
    return {**qkv(d, s, s.g), "slope": slopes.to(d.device, d.dtype)}, {"G": s.h // s.g}


@SCORES.case("alibi", draw_alibi)
def alibi(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    k = x["K"].repeat_interleave(int(p["G"]), dim=1)
    v = x["V"].repeat_interleave(int(p["G"]), dim=1)
    scores = dots({"Q": x["Q"], "K": k}) - x["slope"][:, None, None] * (i - j)
    lse = torch.logsumexp(scores.masked_fill(j > i, -INF), dim=-1)
    return {**attend(scores, j <= i, v), "LSE": lse}


@SCORES.case("softcap", also(lambda d, s: {}, cap=1.5))
def softcap(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(p["cap"] * torch.tanh(dots(x) / p["cap"]), j <= i, x["V"])


@SCORES.case("bias_dense", also(lambda d, s: {"bias": d.normal(s.b, s.h, s.i, s.j)}), on_axis=False)
def bias_dense(x: Inputs, p: Params) -> Outputs:
    return attend(dots(x) + x["bias"], None, x["V"])


def draw_blocked(d: Draw, s: Sizes) -> Inputs:
    """A bias with points at -inf, and a row that holds nothing else."""
    bias = d.normal(s.b, s.h, s.i, s.j)
    bias[..., ::3] = -INF
    bias[:, :, s.i // 2] = -INF
    return {"bias": bias}


@SCORES.case("bias_dense:blocked", also(draw_blocked), on_axis=False)
def bias_blocked(x: Inputs, p: Params) -> Outputs:
    seen = x["bias"] > -INF
    return attend(dots(x) + torch.where(seen, x["bias"], 0.0), seen, x["V"])


def draw_broadcast(d: Draw, s: Sizes) -> Inputs:
    return {
        "head": d.normal(s.h, s.i, s.j),
        "key": d.normal(s.b, s.j),
        "pair": d.normal(s.i, s.j),
    }


@SCORES.case("bias_broadcast", also(draw_broadcast), on_axis=False)
def bias_broadcast(x: Inputs, p: Params) -> Outputs:
    bias = x["head"][None] + x["key"][:, None, None, :] + x["pair"][None, None]
    return attend(dots(x) + bias, None, x["V"])


@SCORES.case("bias_toeplitz", also(lambda d, s: {"table": d.normal(s.h, 2 * s.j - 1)}))
def bias_toeplitz(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(dots(x) + x["table"][:, i - j + x["K"].shape[2] - 1], None, x["V"])


def bucket_of(distance: torch.Tensor, half: int = 16, reach: int = 128) -> torch.Tensor:
    """T5's bidirectional buckets: exact, then logarithmic; one half for each sign."""
    exact = half // 2
    away = distance.abs().clamp(min=1).double()
    far = exact + (torch.log(away / exact) / torch.log(torch.tensor(reach / exact)) * exact).long()
    size = torch.where(distance.abs() < exact, distance.abs(), far.clamp(max=half - 1))
    return size + torch.where(distance < 0, half, 0)


def draw_buckets(d: Draw, s: Sizes) -> Inputs:
    distances = torch.arange(-(s.j - 1), s.j)
    return {"table": d.normal(s.h, 32), "bucket": d.ints(bucket_of(distances))}


@SCORES.case("bias_t5", also(draw_buckets))
def bias_t5(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    scores = x["Q"] @ x["K"].transpose(-1, -2) + x["table"][:, bucket_of(i - j)]
    return attend(scores, None, x["V"])


def draw_factors(d: Draw, s: Sizes) -> Inputs:
    return {"A": d.normal(s.h, s.i, s.r), "B": d.normal(s.h, s.j, s.r)}


@SCORES.case("bias_low_rank", also(draw_factors), on_axis=False)
def bias_low_rank(x: Inputs, p: Params) -> Outputs:
    return attend(dots(x) + x["A"] @ x["B"].transpose(-1, -2), None, x["V"])


@SCORES.case("music_transformer", also(lambda d, s: {"R": d.normal(s.h, s.j, s.e)}))
def music_transformer(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    last = x["R"].shape[1] - 1
    rows = x["R"][:, (last - (i - j)).clamp(max=last)]  # [h, i, j, e]; masked where j > i
    relative = torch.einsum("bhie,hije->bhij", x["Q"], rows) / x["Q"].shape[-1] ** 0.5
    return attend(dots(x) + relative, j <= i, x["V"])


def draw_xl(d: Draw, s: Sizes) -> Inputs:
    return {
        "R": d.normal(s.h, s.j, s.e),
        "u": d.normal(s.h, s.e),
        "v": d.normal(s.h, s.e),
    }


@SCORES.case("transformer_xl", also(draw_xl), i=23)
def transformer_xl(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    rows = x["R"][:, (i - j).clamp(min=0)]
    u, v = x["u"][:, None], x["v"][:, None]
    content = torch.einsum("bhie,bhje->bhij", x["Q"] + u, x["K"])
    position = torch.einsum("bhie,hije->bhij", x["Q"] + v, rows)
    return attend((content + position) / x["Q"].shape[-1] ** 0.5, j <= i, x["V"])


@SCORES.case("temperature_query", also(lambda d, s: {"tau": d.uniform(2.0, 8.0, s.b, s.h, s.i)}))
def temperature_query(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    scores = x["Q"] @ x["K"].transpose(-1, -2) / x["tau"][..., None]
    return attend(scores, j <= i, x["V"])


@SCORES.case(
    "temperature_head", also(lambda d, s: {"tau": d.uniform(2.0, 8.0, s.h)}), on_axis=False
)
def temperature_head(x: Inputs, p: Params) -> Outputs:
    scores = x["Q"] @ x["K"].transpose(-1, -2) / x["tau"][:, None, None]
    return attend(scores, None, x["V"])


@SCORES.case("log_scaling", also(lambda d, s: {"s": d.uniform(0.2, 0.8, s.h)}))
def log_scaling(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    factor = x["s"][:, None, None] * torch.log((i + 1).to(x["Q"].dtype))
    return attend(factor * dots(x), j <= i, x["V"])
