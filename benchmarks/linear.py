"""Linear and recurrent programs beside flash-linear-attention: milliseconds, and times the floor of memory.

    PYTHONPATH=. python benchmarks/linear.py --out benchmarks/results/linear-h200.json

B4 H16 N4096 D128, bf16, gates in float32. The floor is what reading Q, K, V and writing O takes at the speed of the
card's own copy. The peer takes `[B,N,H,D]`, contiguous; without it installed, its columns are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import EXAMPLES, copy_bandwidth, milliseconds, relative, write
from torch import Tensor

import attndsl

B, H, N, D = 4, 16, 4096, 128


def gates(name: str, shape: list[int]) -> Tensor:
    """Gates and decays as models have them: most of the past is kept."""
    x = torch.randn(shape, device="cuda")
    match name:
        case "g" | "loga":
            return torch.nn.functional.logsigmoid(x + 3)
        case "gamma":
            return 1 - torch.exp2(-5 - torch.arange(H, device="cuda").float())
        case "beta":
            return torch.sigmoid(x)
        case _:  # Lightning's slopes
            return torch.arange(1, H + 1, device="cuda").float() / H * 0.3


def inputs(op: attndsl.CompiledAttention, n: int, heads: int) -> dict[str, Tensor]:
    out = {}
    for t in op.cascade.inputs:
        shape = [{"b": B if n == N else 1, "h": heads, "e": D, "f": D}.get(r, n) for r in t.ranks]
        wide = t.name in ("Q", "K", "V")
        x = torch.randn(shape, device="cuda").bfloat16() if wide else gates(t.name, shape)[:heads]
        if t.name == "K":
            x = torch.nn.functional.normalize(x, dim=-1)
        out[t.name] = x.requires_grad_()
    return out


def peer(name: str, given: dict[str, Tensor]) -> tuple[Callable[[], Tensor], list[Tensor]] | None:
    """The same program by flash-linear-attention with the inputs it takes, where it is installed and has it."""
    try:
        from fla import ops
    except ImportError:
        return None
    x = {
        k: v.detach().transpose(1, 2).contiguous().requires_grad_()
        for k, v in given.items()
        if v.ndim > 2
    }
    q, k, v = x["Q"], x["K"], x["V"]
    calls: dict[str, Callable[[], Any]] = {
        "linear_identity": lambda: ops.chunk_linear_attn(q, k, v, normalize=False),
        "retnet": lambda: ops.chunk_retention(q, k, v),
        "lightning": lambda: ops.chunk_lightning_attn(q, k, v, 1, 8),
        "simple_gla": lambda: ops.chunk_simple_gla(q, k, v, x["g"]),
        "gla": lambda: ops.chunk_gla(q, k, v, x["loga"].bfloat16()),
        "deltanet": lambda: ops.chunk_delta_rule(q, k, v, x["beta"].bfloat16()),
        "gated_delta": lambda: ops.chunk_gated_delta_rule(q, k, v, x["g"], x["beta"].bfloat16()),
    }
    return ((lambda: calls[name]()[0]), [*x.values()]) if name in calls else None


def timed(call: Callable[[], Tensor], wrt: list[Tensor]) -> tuple[float, float]:
    """Milliseconds forward and backward."""
    with torch.no_grad():
        forward = milliseconds(call)
    out = call()
    cotangent = torch.randn_like(out)
    return forward, milliseconds(
        lambda: torch.autograd.grad(out, wrt, cotangent, retain_graph=True, allow_unused=True)
    )


PROGRAMS = (
    "linear_identity",
    "retnet",
    "lightning",
    "simple_gla",
    "gla",
    "deltanet",
    "gated_delta",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("linear.json"))
    parser.add_argument("--programs", nargs="*", default=PROGRAMS)
    args = parser.parse_args()
    floor = 4 * B * H * N * D * 2 / copy_bandwidth() * 1e-9
    rows: list[dict[str, Any]] = []
    for name in args.programs:
        op = attndsl.load(EXAMPLES / f"{name}.attn")
        small = inputs(op, 300, 2)
        exact = op.reference(*(x.double() for x in small.values()))
        row = {"program": name, "error": relative(op(*small.values()), exact)}
        given = inputs(op, N, H)
        forward, backward = timed(lambda op=op, given=given: op(*given.values()), [*given.values()])
        row |= {"forward_ms": forward, "backward_ms": backward, "times_floor": forward / floor}
        other = peer(name, given)
        if other is not None:
            row["fla_forward_ms"], row["fla_backward_ms"] = timed(*other)
        print(row, flush=True)
        rows.append(row)
        write(args.out, rows, shape={"B": B, "H": H, "N": N, "D": D}, floor_ms=floor)


if __name__ == "__main__":
    main()
