"""References of the programs that differ in which keys a query sees."""

from __future__ import annotations

import torch

from tests.examples.case import (
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
    qkv,
)

DOMAINS = Registry()


@DOMAINS.case("full", only_qkv, on_axis=False)
def full(x: Inputs, p: Params) -> Outputs:
    return attend(dots(x), None, x["V"])


@DOMAINS.case("cross", only_qkv, on_axis=False, i=29)
def cross(x: Inputs, p: Params) -> Outputs:
    return attend(dots(x), None, x["V"])


def draw_lengths(d: Draw, s: Sizes) -> Inputs:
    return {"length": d.ints([(s.j // 2) * n for n in range(s.b)])}  # the first sequence has none


@DOMAINS.case("key_padding", also(draw_lengths), on_axis=False, b=3, i=11)
def key_padding(x: Inputs, p: Params) -> Outputs:
    _, j = grid(x)
    return attend(dots(x), j < x["length"][:, None, None, None], x["V"])


@DOMAINS.case("causal", only_qkv)
def causal(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(dots(x), j <= i, x["V"])


def draw_grouped(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    return qkv(d, s, s.g), {"G": s.h // s.g}


@DOMAINS.case("gqa", draw_grouped)
def gqa(x: Inputs, p: Params) -> Outputs:
    k = x["K"].repeat_interleave(int(p["G"]), dim=1)
    v = x["V"].repeat_interleave(int(p["G"]), dim=1)
    return causal({"Q": x["Q"], "K": k, "V": v}, p)


def draw_shared(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    x = qkv(d, s, 1)
    return {"Q": x["Q"], "K": x["K"][:, 0], "V": x["V"][:, 0]}, {}


@DOMAINS.case("mqa", draw_shared)
def mqa(x: Inputs, p: Params) -> Outputs:
    return causal({"Q": x["Q"], "K": x["K"][:, None], "V": x["V"][:, None]}, p)


def nothing(d: Draw, s: Sizes) -> Inputs:
    return {}


@DOMAINS.case("window", also(nothing, w=7))
def window(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(dots(x), (j <= i) & (j > i - p["w"]), x["V"])


@DOMAINS.case("window:no_key", also(nothing, w=0))
def window_of_none(x: Inputs, p: Params) -> Outputs:
    return window(x, p)


@DOMAINS.case("window_two_sided", also(nothing, w=5))
def window_two_sided(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(dots(x), (i - j).abs() <= p["w"], x["V"])


def draw_widths(d: Draw, s: Sizes) -> Inputs:
    return {"w": d.ints([(5 * n) % 19 for n in range(s.h)])}  # the first head sees no key


@DOMAINS.case("window_per_head", also(draw_widths))
def window_per_head(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(dots(x), (j <= i) & (i - j < x["w"][:, None, None]), x["V"])


@DOMAINS.case("streaming_llm", also(nothing, w=6, n0=3))
def streaming_llm(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(dots(x), (j <= i) & ((i - j < p["w"]) | (j < p["n0"])), x["V"])


def draw_prefix(d: Draw, s: Sizes) -> Inputs:
    return {"n": d.ints([(11 * n) % s.j for n in range(s.b)])}


@DOMAINS.case("prefix_lm", also(draw_prefix))
def prefix_lm(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(dots(x), (j <= i) | (j < x["n"][:, None, None, None]), x["V"])


def draw_documents(d: Draw, s: Sizes) -> Inputs:
    """Documents of unequal lengths; a few queries belong to a document that has no keys."""
    lengths = torch.tensor([3, 1, 8, 5, 13])
    ids = torch.arange(5).repeat_interleave(lengths).repeat(s.j // 30 + 1)[: s.j]
    keys = torch.stack([ids.roll(2 * n) for n in range(s.b)])
    queries = keys[:, -s.i :].clone() if s.i <= s.j else torch.zeros(s.b, s.i, dtype=torch.long)
    queries[:, ::9] = 99
    return {"qdoc": d.ints(queries), "kdoc": d.ints(keys)}


@DOMAINS.case("documents", also(draw_documents))
def documents(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    same = x["qdoc"][:, None, :, None] == x["kdoc"][:, None, None, :]
    return attend(dots(x), (j <= i) & same, x["V"])


@DOMAINS.case("block_window", also(nothing, w=8))
def block_window(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    return attend(dots(x), i // int(p["w"]) == j // int(p["w"]), x["V"])


@DOMAINS.case("dilated", also(nothing, w=4, d=3))
def dilated(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    steps = torch.arange(int(p["w"]), device=i.device) * int(p["d"])
    return attend(dots(x), (i[..., None] - steps == j[..., None]).any(-1), x["V"])


@DOMAINS.case("neighborhood_2d", also(nothing, w=6, r=1))
def neighborhood_2d(x: Inputs, p: Params) -> Outputs:
    i, j = grid(x)
    w, r = int(p["w"]), int(p["r"])
    near = ((i // w - j // w).abs() <= r) & ((i % w - j % w).abs() <= r)
    return attend(dots(x), near, x["V"])
