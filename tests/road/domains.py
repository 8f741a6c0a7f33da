"""Variants of the domain."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from tests.road.case import DOT, QKV, SOFTMAX, O, add, scaled, softmax, weigh

X = SimpleNamespace


def where(name: str, more: str, condition: str, keep, **kw) -> None:  # type: ignore[no-untyped-def]
    inputs = QKV + (f", {more}" if more else "")
    add(
        name,
        inputs,
        O,
        f"S[i,j] = {DOT}   where {condition}\n{SOFTMAX}",
        lambda x: weigh(softmax(scaled(x), keep(x)), x.V),
        **kw,
    )


def ids(most: int):  # type: ignore[no-untyped-def]
    return lambda x, g: torch.randint(0, most, (x.b, x.n), generator=g)


def growing(x: X, g: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, (x.b, x.n), generator=g).cumsum(1)


where(
    "two_sided",
    "l: int, r: int",
    "i - l <= j <= i + r",
    lambda x: (x.j >= x.i - 3) & (x.j <= x.i + 5),
    params={"l": 3, "r": 5},
)
where("difference_between", "", "-4 < i - j < 6", lambda x: (x.i - x.j > -4) & (x.i - x.j < 6))
where(
    "window_or_first",
    "w: int = 5, n0: int = 2",
    "j <= i, i - j < w or j < n0",
    lambda x: (x.j <= x.i) & ((x.i - x.j < 5) | (x.j < 2)),
)
where(
    "window_or_strided",
    "w: int = 4",
    "j <= i, i - j < w or (i - j) % w == 0",
    lambda x: (x.j <= x.i) & ((x.i - x.j < 4) | ((x.i - x.j) % 4 == 0)),
)
where(
    "window_or_last",
    "n0: int = 3",
    "abs(i - j) <= 2 or j >= |j| - n0 or i < n0",
    lambda x: ((x.i - x.j).abs() <= 2) | (x.j >= x.n_j - 3) | (x.i < 3),
)
where(
    "prefix",
    "p[b]: int",
    "j <= i or j < p",
    lambda x: (x.j <= x.i) | (x.j < x.p[:, None, None, None]),
)
where(
    "documents",
    "doc[b,n]: int",
    "doc[i] == doc[j], j <= i",
    lambda x: (x.doc[:, :, None] == x.doc[:, None])[:, None] & (x.j <= x.i),
)
where(
    "documents_sorted",
    "doc[b,n]: int",
    "doc[i] == doc[j], j <= i",
    lambda x: (x.doc[:, :, None] == x.doc[:, None])[:, None] & (x.j <= x.i),
    make={"doc": growing},
)
where(
    "documents_before",
    "doc[b,n]: int",
    "doc[j] < doc[i]",
    lambda x: (x.doc[:, None] < x.doc[:, :, None])[:, None],
    make={"doc": growing},
)
where(
    "documents_not",
    "doc[b,n]: int",
    "not (doc[i] == doc[j])",
    lambda x: (x.doc[:, :, None] != x.doc[:, None])[:, None],
)
where(
    "documents_prefix",
    "doc[b,n]: int, pre[b,n]: bool",
    "doc[i] == doc[j], j <= i or pre[j]",
    lambda x: (
        (x.doc[:, :, None] == x.doc[:, None])[:, None] & ((x.j <= x.i) | x.pre[:, None, None])
    ),
)
where(
    "documents_by_block",
    "doc[b,m]: int",
    "doc[i // 8] == doc[j // 8]",
    lambda x: (x.doc[:, x.i[:, 0] // 8][:, :, None] == x.doc[:, x.j[0] // 8][:, None])[:, None],
    sizes={"m": 3},
)
where(
    "dilated_2",
    "d: int",
    "j <= i, (i - j) % d == 0",
    lambda x: (x.j <= x.i) & ((x.i - x.j) % 3 == 0),
    params={"d": 3},
)
where("same_parity", "", "i % 2 == j % 2", lambda x: x.i % 2 == x.j % 2)
where("blocks", "w: int", "i // w == j // w", lambda x: x.i // 7 == x.j // 7, params={"w": 7})
where(
    "blocks_causal", "w: int", "j // w <= i // w", lambda x: x.j // 7 <= x.i // 7, params={"w": 7}
)
where("blocks_before", "w: int", "j // w < i // w", lambda x: x.j // 7 < x.i // 7, params={"w": 7})
where(
    "block_and_previous",
    "w: int",
    "i // w - 1 <= j // w, j <= i",
    lambda x: (x.j // 5 >= x.i // 5 - 1) & (x.j <= x.i),
    params={"w": 5},
)
where(
    "end_of_block",
    "w: int",
    "j < (i // w + 1) * w",
    lambda x: x.j < (x.i // 4 + 1) * 4,
    params={"w": 4},
)
where(
    "neighbourhood",
    "w: int, r: int",
    "abs(i//w - j//w) <= r, abs(i%w - j%w) <= r",
    lambda x: ((x.i // 5 - x.j // 5).abs() <= 1) & ((x.i % 5 - x.j % 5).abs() <= 1),
    params={"w": 5, "r": 1},
)
where(
    "axial",
    "w: int",
    "i // w == j // w or i % w == j % w",
    lambda x: (x.i // 5 == x.j // 5) | (x.i % 5 == x.j % 5),
    params={"w": 5},
)
where(
    "cubes",
    "",
    "abs(i//9 - j//9) <= 1, abs(i//3%3 - j//3%3) <= 1, abs(i%3 - j%3) <= 1",
    lambda x: (
        ((x.i // 9 - x.j // 9).abs() <= 1)
        & ((x.i // 3 % 3 - x.j // 3 % 3).abs() <= 1)
        & ((x.i % 3 - x.j % 3).abs() <= 1)
    ),
)
where(
    "width_per_head",
    "w[h]: int",
    "j <= i, i - j < w",
    lambda x: (x.j <= x.i) & (x.i - x.j < x.w[:, None, None]),
)
where(
    "width_per_row",
    "w[b,i]: int",
    "abs(i - j) <= w[i]",
    lambda x: (x.i - x.j).abs() <= x.w[:, None, :, None],
)
where("strict", "", "j < i", lambda x: x.j < x.i)
where("future", "", "j > i", lambda x: x.j > x.i)
where("not_window", "", "not (i - j > 3 or j > i)", lambda x: ~((x.i - x.j > 3) | (x.j > x.i)))
where("not_self", "", "j != i", lambda x: x.j != x.i)
where("bool_mask", "mask[b,i,j]: bool", "mask[i,j]", lambda x: x.mask[:, None])
where(
    "bool_mask_causal", "mask[i,j]: bool", "mask[i,j] and j <= i", lambda x: x.mask & (x.j <= x.i)
)
where("int_mask", "mask[b,h,i,j]: int", "mask[i,j] > 0", lambda x: x.mask > 0)
where("padding", "pad[b,j]: bool", "not pad[j]", lambda x: ~x.pad[:, None, None])
where(
    "nothing_seen",
    "keep[b,j]: bool",
    "keep[j], j <= i",
    lambda x: x.keep[:, None, None] & (x.j <= x.i),
    make={"keep": lambda x, g: torch.zeros(x.b, x.j, dtype=torch.bool)},
)
where(
    "rows_kept",
    "keep[b,i]: bool",
    "keep[i]",
    lambda x: x.keep[:, None, :, None].expand(-1, -1, -1, x.n_j),
)
where(
    "lengths",
    "n[b]: int",
    "j < n, i < n",
    lambda x: (x.j < x.n[:, None, None, None]) & (x.i < x.n[:, None, None, None]),
    make={"n": lambda x, g: torch.tensor([0, 11])},
)
where(
    "spans",
    "lo[b,i]: int, hi[b,i]: int",
    "lo[i] <= j < hi[i]",
    lambda x: (x.lo[:, None, :, None] <= x.j) & (x.j < x.hi[:, None, :, None]),
    make={
        "lo": lambda x, g: torch.randint(0, 9, (x.b, x.i), generator=g),
        "hi": lambda x, g: torch.randint(5, 25, (x.b, x.i), generator=g),
    },
)
where(
    "columns_hide",
    "lo[b,j]: int, hi[b,j]: int",
    "i < lo[j] or i >= hi[j]",
    lambda x: (x.i < x.lo[:, None, None]) | (x.i >= x.hi[:, None, None]),
    make={
        "lo": lambda x, g: torch.randint(0, 9, (x.b, x.j), generator=g),
        "hi": lambda x, g: torch.randint(5, 25, (x.b, x.j), generator=g),
    },
)
where(
    "positions_given",
    "pos[b,n]: int",
    "pos[j] <= pos[i]",
    lambda x: (x.pos[:, None] <= x.pos[:, :, None])[:, None],
    make={"pos": ids(9)},
)
where(
    "positions_window",
    "pos[b,n]: int",
    "0 <= pos[i] - pos[j] < 4",
    lambda x: (lambda d: (d >= 0) & (d < 4))((x.pos[:, :, None] - x.pos[:, None])[:, None]),
    make={"pos": ids(12)},
)
where("times", "t[b,n]", "t[j] <= t[i]", lambda x: (x.t[:, None] <= x.t[:, :, None])[:, None])
where(
    "random_blocks",
    "blk[y,x]: bool",
    "blk[i // 8, j // 8]",
    lambda x: x.blk[x.i // 8, x.j // 8],
    sizes={"y": 3, "x": 3},
)
where(
    "two_conditions_per_side",
    "doc[b,n]: int, pad[b,n]: bool",
    "doc[i] == doc[j], not pad[i], not pad[j], j <= i",
    lambda x: (
        ((x.doc[:, :, None] == x.doc[:, None]) & ~x.pad[:, :, None] & ~x.pad[:, None])[:, None]
        & (x.j <= x.i)
    ),
)
where(
    "rows_of_a_param",
    "flag: bool",
    "j <= i or flag",
    lambda x: (x.j <= x.i) | True,
    params={"flag": True},
)
where(
    "choice_of_domain",
    "flag: bool",
    "j <= i if flag else j >= i",
    lambda x: x.j >= x.i,
    params={"flag": False},
)
add(
    "two_domains_added",
    QKV + ", B[h,i,j]",
    O,
    f"S[i,j] = {DOT}   where j <= i\nT[i,j] = B[i,j]   where i - j < 6\nU[i,j] = S[i,j] + T[i,j]\n"
    "O[i,f] = softmax[j](U[i,j]) * V[j,f]",
    lambda x: weigh(softmax(scaled(x) + x.B, (x.j <= x.i) & (x.i - x.j < 6)), x.V),
)
add(
    "cross",
    QKV,
    O,
    f"S[i,j] = {DOT}\n{SOFTMAX}",
    lambda x: weigh(softmax(scaled(x)), x.V),
    sizes={"i": 11, "j": 23},
)
add(
    "cross_padding",
    QKV + ", pad[b,j]: bool",
    O,
    f"S[i,j] = {DOT}   where not pad[j]\n{SOFTMAX}",
    lambda x: weigh(softmax(scaled(x), ~x.pad[:, None, None]), x.V),
    sizes={"i": 11, "j": 23},
)
add(
    "cross_of_unequal_kinds",
    QKV + ", a[b,i]: int, c[b,j]: int",
    O,
    f"S[i,j] = {DOT}   where a[i] == c[j]\n{SOFTMAX}",
    lambda x: weigh(softmax(scaled(x), (x.a[:, :, None] == x.c[:, None])[:, None]), x.V),
    sizes={"i": 11, "j": 23},
)
where("start_end", "", "j <= i", lambda x: x.j <= x.i, sizes={"i": 3, "j": 21}, start="end")
where("start_number", "", "j <= i", lambda x: x.j <= x.i, sizes={"i": 5, "j": 21}, start=9)
where(
    "start_tensor",
    "",
    "j <= i",
    lambda x: x.j <= x.i,
    sizes={"i": 3, "j": 21},
    start=torch.tensor([4, 18]),
)
where(
    "start_window",
    "w: int = 6, n0: int = 2",
    "j <= i, i - j < w or j < n0",
    lambda x: (x.j <= x.i) & ((x.i - x.j < 6) | (x.j < 2)),
    sizes={"i": 1, "j": 30},
    start="end",
)
where(
    "start_blocks",
    "",
    "i // 8 == j // 8",
    lambda x: x.i // 8 == x.j // 8,
    sizes={"i": 2, "j": 21},
    start="end",
)
where(
    "start_dilated",
    "",
    "j <= i, (i - j) % 3 == 0",
    lambda x: (x.j <= x.i) & ((x.i - x.j) % 3 == 0),
    sizes={"i": 2, "j": 21},
    start=torch.tensor([7, 0]),
)
add(
    "start_slope",
    QKV + ", s[h], T[h,r]",
    O,
    f"S[i,j] = {DOT} - s * (i-j) + T[i-j]   where j <= i\n{SOFTMAX}",
    lambda x: weigh(
        softmax(
            scaled(x) - x.s[:, None, None] * (x.i - x.j) + x.T[:, (x.i - x.j).clamp(min=0)],
            x.j <= x.i,
        ),
        x.V,
    ),
    sizes={"i": 4, "j": 21, "r": 21},
    start="end",
)
add(
    "start_local_bias",
    QKV + ", B[h,i,j]",
    O,
    f"S[i,j] = {DOT} + B[i,j]   where j <= i\n{SOFTMAX}",
    lambda x: weigh(softmax(scaled(x) + x.B, x.j <= x.i), x.V),
    sizes={"i": 4, "j": 21},
    start="end",
)
add(
    "number_in_a_condition",
    QKV + ", B[b,j], c: float, d: float",
    O,
    f"S[i,j] = {DOT}   where j <= i, B[j] > c or c > 0.5 and d > c\n{SOFTMAX}",
    lambda x: weigh(softmax(scaled(x), (x.j <= x.i) & (x.c < x.B)[:, None, None, :]), x.V),
    params={"c": 0.1, "d": 2.0},
)
