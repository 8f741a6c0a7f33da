"""Linear and recurrent programs over lengths, few heads and widths: time for each token, and memory beside the tensors.

    PYTHONPATH=. python benchmarks/lengths.py --out benchmarks/results/lengths-h200.json

Lengths run from 4 k to 256 k tokens at B1 H64, which fills the card, and B1 H16 and H1, which do not; widths D = Dv
from 16 to 256 at B1 H16 N4096. `--whole` keeps walks over chunks whole where they would be cut (`pieces`, how many).
bf16, gates in float32. `peak_mb` is the most memory that was taken beyond inputs, outputs and gradients; `finite` says
that no output and no gradient overflowed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import EXAMPLES, Table, in_batches, milliseconds
from linear import gates
from torch import Tensor

import attndsl
import attndsl.runtime.heads as heads_of
from attndsl.schedule.composed import PIECES

PROGRAMS = ("linear_identity", "retnet", "simple_gla", "linear", "gla", "deltanet", "gated_delta")
LENGTHS = tuple(1 << k for k in range(12, 19))
WIDTHS = (16, 32, 64, 100, 128, 256)


def inputs(op: attndsl.CompiledAttention, heads: int, n: int, d: int) -> dict[str, Tensor]:
    out = {}
    for t in op.cascade.inputs:
        shape = [{"b": 1, "h": heads, "e": d, "f": d}.get(r, n) for r in t.ranks]
        if t.name in ("Q", "K", "V"):
            x = torch.randn(shape, device="cuda").bfloat16()
            x = torch.nn.functional.normalize(x, dim=-1) if t.name == "K" else x
        else:
            x = gates(t.name, shape)
        out[t.name] = x.requires_grad_()
    return out


def measure(op: attndsl.CompiledAttention, heads: int, n: int, d: int) -> dict[str, Any]:
    """One row; what does not fit into the card's memory fails."""
    given = inputs(op, heads, n, d)
    row: dict[str, Any] = {"program": op.cascade.name, "H": heads, "N": n, "D": d}

    def ours() -> Tensor:
        out: Tensor = op(*given.values())
        return out

    def beyond(before: int, *made: Tensor) -> float:
        own = sum(x.numel() * x.element_size() for x in made)
        return float((torch.cuda.max_memory_allocated() - before - own) / 2**20)

    with torch.no_grad():
        ours()
        torch.cuda.synchronize()
        start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out = ours()
        row["peak_mb"] = beyond(start, out)
        row["pieces"] = [c.extents.get(PIECES, 1) for c in op._engine.calls.values()][-1]
        row["forward_ms"] = milliseconds(ours)
    row["forward_ns_per_token"] = row["forward_ms"] * 1e6 / n
    finite = bool(out.isfinite().all())
    del out
    start = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = ours()
    up = torch.randn_like(out)
    made = torch.autograd.grad(out, [*given.values()], up, retain_graph=True)
    row["peak_with_backward_mb"] = beyond(start, out, up, *made)
    row["finite"] = finite and all(bool(x.isfinite().all()) for x in made)
    del made
    row["backward_ms"] = milliseconds(
        lambda: torch.autograd.grad(out, [*given.values()], up, retain_graph=True)
    )
    row["backward_ns_per_token"] = row["backward_ms"] * 1e6 / n
    return row


def shapes() -> Iterator[tuple[int, int, int]]:
    """Heads, length and width of each row."""
    yield from ((heads, n, 128) for heads in (64, 16, 1) for n in LENGTHS)
    yield from ((16, 4096, d) for d in WIDTHS if d != 128)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("lengths.json"))
    parser.add_argument("--only", nargs="*", default=PROGRAMS)
    parser.add_argument("--lengths", action="store_true", help="no other widths")
    parser.add_argument("--whole", action="store_true", help="no walk in pieces")
    parser.add_argument("--warm", action="store_true", help="only fill the caches of compiled code")
    args = parser.parse_args()
    if args.whole:
        heads_of.few_heads = lambda passes: None
    rows = [s for s in shapes() if s[2] == 128 or not args.lengths]
    if args.warm:
        for name in args.only:
            op = attndsl.load(EXAMPLES / f"{name}.attn")
            for d in dict.fromkeys(d for _, _, d in rows):
                given = inputs(op, 4, 4096, d)
                op(*given.values()).sum().backward()
        return
    table = Table(args.out, B=1, walks="whole" if args.whole else "in pieces where few")
    more = [*["--lengths"] * args.lengths, *["--whole"] * args.whole]
    for name in in_batches(__file__, list(args.only), more):
        op = attndsl.load(EXAMPLES / f"{name}.attn")
        for heads, n, d in rows:
            about = {"program": name, "H": heads, "N": n, "D": d}
            if table.has(**about):
                continue
            try:
                table.add(measure(op, heads, n, d))
            except Exception as why:
                table.add({**about, "failed": f"{type(why).__name__}: {str(why)[:200]}"})
            print(table.rows[-1], flush=True)
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
