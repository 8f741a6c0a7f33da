"""Kernels whose warps specialise beside the portable ones and cuDNN: forward and backward, on a Hopper card.

    PYTHONPATH=. python benchmarks/hopper.py --out benchmarks/results/hopper.json

Each row is written as soon as it is measured. TFLOP/s count unmasked pairs: 4·D each forward, 10·D backward.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import EXAMPLES, milliseconds, relative, write
from torch.nn.attention import SDPBackend, sdpa_kernel

import attndsl

SHAPES = [(4, 16, 4096, 128), (1, 16, 16384, 128), (4, 32, 4096, 64)]
PROGRAMS = ["full", "causal", "alibi", "softcap", "window", "sigmoid"]
WINDOW = 1024


def inputs(name: str, b: int, h: int, n: int, d: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random inputs and parameters of one program."""
    x: dict[str, Any] = {
        k: torch.randn(b, h, n, d, device="cuda", dtype=torch.bfloat16).requires_grad_()
        for k in "QKV"
    }
    if name == "alibi":
        x["slope"] = torch.rand(h, device="cuda") * 0.3
    return x, {"window": {"w": WINDOW}, "softcap": {"cap": 50.0}}.get(name, {})


def pairs(name: str, n: int) -> int:
    """Unmasked pairs of one head."""
    if name == "full":
        return n * n
    if name == "window":
        return sum(min(i + 1, WINDOW) for i in range(n))
    return n * (n + 1) // 2


def measured(run: Any, x: dict[str, Any], work: int) -> tuple[torch.Tensor, float, float]:
    """An output, and TFLOP/s forward and backward."""
    with torch.no_grad():
        forward = milliseconds(run)
    out = run()
    out = out[0] if isinstance(out, tuple) else out
    cotangent = torch.randn_like(out)
    wanted = [x[k] for k in "QKV"]
    backward = milliseconds(lambda: torch.autograd.grad(out, wanted, cotangent, retain_graph=True))
    return out.detach(), 4 * work / forward * 1e-9, 10 * work / backward * 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rows: list[dict[str, Any]] = []
    for b, h, n, d in SHAPES:
        for name in PROGRAMS:
            x, params = inputs(name, b, h, n, d)
            work = pairs(name, n) * b * h * d
            row: dict[str, Any] = {"program": name, "B": b, "H": h, "N": n, "D": d}
            made = {}
            for backend in ("triton", "hopper"):
                op = attndsl.load(EXAMPLES / f"{name}.attn", backend=backend)
                made[backend], row[backend], row[f"{backend}_backward"] = measured(
                    partial(op, **x, **params), x, work
                )
            row["difference"] = relative(made["hopper"], made["triton"])
            if name in ("full", "causal"):
                with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                    peer = partial(
                        torch.nn.functional.scaled_dot_product_attention,
                        *(x[k] for k in "QKV"),
                        is_causal=name == "causal",
                    )
                    _, row["cudnn"], row["cudnn_backward"] = measured(peer, x, work)
            rows.append(row)
            print(
                {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True
            )
            write(out, rows)


if __name__ == "__main__":
    main()
