"""Inputs of 8 bits beside bfloat16, forward: times, and errors beside those of dense weights of 8 bits.

    PYTHONPATH=. python benchmarks/eight.py --out benchmarks/results/eight-h200.json

`error` is against float64 of the very inputs, at 2 x 3 heads of 1000 positions; `dense_error` is that of weights which
are rounded to e4m3 once, off their true maximum, and of an output in bfloat16. `--warm` compiles, and no more.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from common import Table, milliseconds, relative
from torch import Tensor

import attndsl

EIGHT = torch.float8_e4m3fn
SHAPES = [(4, 16, 4096, 128), (1, 16, 16384, 128), (4, 16, 4096, 256), (4, 32, 4096, 64)]
SCALES = {
    "none": ("", "", "", ""),
    "tensor": (", qs[b,h], ks[b,h], vs[b,h]", "* qs * ks", " * vs", "assume qs > 0, ks > 0"),
    "block": (
        ", qs[b,h,m], ks[b,h,n], vs[b,h]",
        "* qs[i // 128] * ks[j // 128]",
        " * vs",
        "assume qs > 0, ks > 0",
    ),
}


def program(mask: str, scales: str) -> str:
    """Softmax attention with scales of its inputs."""
    more, factors, value, assumed = SCALES[scales]
    where = "where j <= i" if mask == "causal" else ""
    return f"""attention eight(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]{more}) -> O[b,h,i,f] {{
      batch b, h
      {assumed}
      S[i,j] = Q[i,e] * K[j,e] {factors} / sqrt(|e|)   {where}
      O[i,f] = softmax[j](S[i,j]) * V[j,f]{value}
    }}"""


def inputs(shape: tuple[int, ...], scales: str, dtype: torch.dtype) -> list[Tensor]:
    """Random tensors, with the scale of each whole or of each block of positions."""
    x = [torch.randn(shape, device="cuda") for _ in range(3)]
    if dtype is not EIGHT or scales == "none":
        return [t.to(dtype) for t in x]
    found = []
    for k, t in enumerate(x):
        blocks = t.split(128, 2) if scales == "block" and k < 2 else (t,)
        scale = torch.stack([c.abs().amax((-1, -2)) for c in blocks], -1) / 448
        spread = scale.repeat_interleave(128 if len(blocks) > 1 else shape[2], -1)
        x[k] = (t / spread[..., : shape[2], None]).to(EIGHT)
        found.append(scale if scales == "block" and k < 2 else scale[..., 0])
    return [*x, *found]


def dense(x: list[Tensor], mask: str) -> Tensor:
    """Weights in e4m3 off their maximum, all else in float32; without scales."""
    q, k, v = (t.float() for t in x)
    s = q @ k.mT / math.sqrt(q.shape[-1])
    if mask == "causal":
        s = s.masked_fill(torch.ones_like(s[0, 0]).triu(1).bool(), -math.inf)
    p = 256 * torch.exp(s - s.amax(-1, keepdim=True))
    return (p.to(EIGHT).float() @ v / p.sum(-1, keepdim=True)).bfloat16()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("eight.json"))
    parser.add_argument("--only", type=int, default=None, help="the row of this number")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--backend", default="hopper")
    args = parser.parse_args()
    rows = [(m, s, "none") for s in SHAPES for m in ("full", "causal")]
    rows += [(m, SHAPES[0], k) for m in ("full", "causal") for k in ("tensor", "block")]
    table = None if args.warm else Table(args.out)
    for number, (mask, shape, scales) in enumerate(rows):
        if args.only not in (None, number):
            continue
        b, h, n, d = shape
        row: dict[str, object] = {"mask": mask, "B": b, "H": h, "N": n, "D": d, "scales": scales}
        if table is not None and table.has(**row):
            continue
        flops = 4 * b * h * n * n * d / (2 if mask == "causal" else 1)
        for dtype in (torch.bfloat16, EIGHT):
            name = "e4m3" if dtype is EIGHT else "bf16"
            chosen = scales if dtype is EIGHT else "none"
            op = attndsl.compile(program(mask, chosen), backend=args.backend)
            small = inputs((2, 3, 1000, d), chosen, dtype)
            out = op(*small)
            row[f"{name}_error"] = relative(out, op.reference(*small, dtype=torch.float64))
            if dtype is EIGHT and scales == "none":
                wide = op.reference(*small, dtype=torch.float64)
                row["dense_error"] = relative(dense(small, mask), wide)
            if table is not None:
                x = inputs(shape, chosen, dtype)
                row[f"{name}_ms"] = round(milliseconds(lambda op=op, x=x: op(*x)), 4)
                row[f"{name}_tflops"] = round(flops / row[f"{name}_ms"] / 1e9, 1)  # type: ignore[operator]
        if table is not None:
            row["ratio"] = round(row["bf16_ms"] / row["e4m3_ms"], 3)  # type: ignore[operator]
            table.add(row)


if __name__ == "__main__":
    main()
