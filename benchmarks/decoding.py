"""One query against a long cache: bytes of keys and values per second, beside the card's own copy.

    PYTHONPATH=. python benchmarks/decoding.py --out benchmarks/results/decoding-h200.json

32 query heads over 8 key-value heads, D128, bf16. Times are of a CUDA graph, as decoding loops use;
the error is relative to float64 on the first batch entry. A window reads a few megabytes, which no copy moves at the
card's full rate either: `of_same_copy` is beside a copy that reads and writes as many bytes, timed in the same way.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from common import Table, copy_bandwidth, graph_milliseconds, relative

import attndsl

HEADS, GROUPS, D, WINDOW = 32, 8, 128, 1024
SHAPES = ((1, 131072), (8, 32768), (64, 4096))
HEAD = "(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f]{more}, G: int) -> O[b,h,i,f] {{ batch b, h\n"
TAIL = "O[i,f] = softmax[j](S[i,j]) * V[j,f] }"
SCORES = {
    "plain": ("", "S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i\n"),
    "alibi": (
        ", slope[h]",
        "S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) - slope * (i - j) where j <= i\n",
    ),
    "softcap": (
        ", cap: float = 50.0",
        "S[i,j] = cap * tanh(Q[i,e] * K[j,e] / (cap * sqrt(|e|))) where j <= i\n",
    ),
    "window": (
        f", w: int = {WINDOW}",
        "S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where i - w < j <= i\n",
    ),
}


def copied(n: int) -> float:
    """Milliseconds of a copy that reads and writes `n` bytes in all."""
    x = torch.empty(n // 2, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    return graph_milliseconds(lambda: y.copy_(x))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("decoding.json"))
    args = parser.parse_args()
    copy = copy_bandwidth()
    table = Table(args.out, copy_tb_s=copy)
    for batch, keys in SHAPES:
        q = torch.randn(batch, HEADS, 1, D, device="cuda", dtype=torch.bfloat16)
        k = torch.randn(batch, GROUPS, keys, D, device="cuda", dtype=torch.bfloat16)
        v = torch.randn_like(k)
        for name in table.missing(SCORES, "program", B=batch, keys=keys):
            more, score = SCORES[name]
            op = attndsl.compile(f"attention {name}" + HEAD.format(more=more) + score + TAIL)
            extra = {"slope": torch.rand(HEADS, device="cuda") * 0.01} if "slope" in more else {}

            given = {"Q": q, "K": k, "V": v, **extra}
            run = partial(op, **given, start="end")

            with torch.no_grad():
                ms = graph_milliseconds(run)
                exact = op.reference(
                    Q=q[:1], K=k[:1], V=v[:1], **extra, start="end", dtype=torch.float64
                )
                error = relative(run()[:1], exact)
            seen = min(keys, WINDOW) if name == "window" else keys
            read = 2 * batch * GROUPS * seen * D * 2
            rate, same = read / ms * 1e-9, copied(read) / ms
            row = {"program": name, "B": batch, "keys": keys, "ms": ms, "tb_s": rate}
            table.add({**row, "of_copy": rate / copy, "of_same_copy": same, "error": error})
            print(
                f"B{batch:<3d} {keys:6d} {name:8s} {ms:.4f} ms {rate:.2f} TB/s {rate / copy:.0%} of copy,"
                f" {same:.0%} of a copy of as many bytes, error {error:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
