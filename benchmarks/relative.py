"""Rows along diagonals: the time of each kernel of Transformer-XL and the Music Transformer, causal, B2 H16 N4096 bf16.

    PYTHONPATH=. python benchmarks/relative.py --out FILE.json

Times are means of the profiler's over four runs, after one that is not counted. The form pair by pair, which was there
before, is measured by the same script in a tree before the change (`form` says which one a row is of).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import attndsl
from attndsl.testing import make_inputs

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZES = {"b": 2, "h": 16, "i": 4096, "j": 4096, "r": 4096}
RUNS = 4


def kernels(program: str, dim: int) -> dict[str, float]:
    """Milliseconds of each kernel of both passes."""
    op = attndsl.load(EXAMPLES / f"{program}.attn", backend="triton")
    sizes = {**SIZES, "e": dim, "f": dim}
    given = make_inputs(op, sizes, dtype=torch.bfloat16, device="cuda", requires_grad=True)

    def both() -> None:
        out = op(**given)
        torch.autograd.grad(out, list(given.values()), torch.ones_like(out).contiguous())

    both()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(RUNS):
            both()
        torch.cuda.synchronize()
    every = seen.key_averages()
    return {k.key: round(k.device_time_total / RUNS / 1000, 3) for k in every if program in k.key}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--form", default="bands")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for program in ("transformer_xl", "music_transformer"):
        for dim in (64, 128):
            found = kernels(program, dim)
            row = {"program": program, "dim": dim, "form": options.form, "kernels": found}
            print(json.dumps(row), flush=True)
            rows.append(row)
    if options.out is not None:
        machine = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
        options.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
