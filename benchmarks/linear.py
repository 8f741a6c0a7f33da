"""Linear and recurrent programs beside flash-linear-attention: milliseconds, times the floor of memory, and memory.

    PYTHONPATH=. python benchmarks/linear.py --out benchmarks/results/linear-h200.json

B4 H16 N4096 D128, bf16, gates in float32. The floor is what reading Q, K, V and writing O takes at the speed of the
card's own copy. The peer is the operator that `attndsl bench --vs fla` finds, with its arguments laid out, and of the
types it wants, before the clock starts; without it installed, a row says so. `backward_ms` has all inputs' gradients.
`peak_mb` is the most memory that a forward pass takes beyond inputs and outputs, `peak_with_backward_mb` that both
passes take beyond gradients too; the peer's likewise.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from common import EXAMPLES, Table, copy_bandwidth, in_batches, milliseconds, relative
from torch import Tensor

import attndsl
from attndsl.bench import run
from attndsl.bench.peers import Ready, Setup, fla
from attndsl.bench.run import graded, reason

B, H, N, D = 4, 16, 4096, 128
LOW = ("loga", "beta")
"""Gates that the peer's own models give it in 16 bits."""


def gates(name: str, shape: list[int]) -> Tensor:
    """Gates and decays as models have them: most of the past is kept."""
    x = torch.randn(shape, device="cuda")
    match name:
        case "g" | "loga":
            return torch.nn.functional.logsigmoid(x + 3)
        case "gamma":
            return 1 - torch.exp2(-5 - (torch.arange(shape[0], device="cuda") % 16).float())
        case "beta":
            return torch.sigmoid(x)
        case _:  # Lightning's slopes
            return torch.arange(1, shape[0] + 1, device="cuda").float() / shape[0] * 0.3


def inputs(op: attndsl.CompiledAttention, n: int, heads: int) -> dict[str, Tensor]:
    out = {}
    for t in op.cascade.inputs:
        shape = [{"b": B if n == N else 1, "h": heads, "e": D, "f": D}.get(r, n) for r in t.ranks]
        wide = t.name in ("Q", "K", "V")
        x = torch.randn(shape, device="cuda").bfloat16() if wide else gates(t.name, shape)
        if t.name == "K":
            x = torch.nn.functional.normalize(x, dim=-1)
        out[t.name] = x.requires_grad_()
    return out


def peer(op: attndsl.CompiledAttention, given: dict[str, Tensor]) -> Ready:
    """The operator of flash-linear-attention that gives the same numbers, with its arguments laid out beforehand.

    Raises: Absent, Inexpressible.
    """
    extents = {
        r: n for t in op.cascade.inputs for r, n in zip(t.ranks, given[t.name].shape, strict=True)
    }
    theirs = {k: x.detach().to(torch.bfloat16 if k in LOW else x.dtype) for k, x in given.items()}
    return fla(Setup(op, theirs, extents, {}))


def peak(made: Callable[[], Iterable[Tensor | None]]) -> float:
    """The most memory that is taken beyond what there was before and what is made, in MB; the second time."""
    made()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    own = sum(x.numel() * x.element_size() for x in made() if x is not None)
    return float(torch.cuda.max_memory_allocated() - before - own) / 2**20


def both(call: Callable[[], Tensor], wrt: Iterable[Tensor]) -> Iterable[Tensor | None]:
    """What both passes make: the output, its gradient, and those of `wrt`."""
    out = call()
    up = torch.randn_like(out)
    return [out, up, *torch.autograd.grad(out, [*wrt], up, allow_unused=True)]


def beside(op: attndsl.CompiledAttention, given: dict[str, Tensor], ours: Tensor) -> dict[str, Any]:
    """The peer's figures; where a pass has none, why.

    Gradients are taken of all arguments of the operator that have one. `fla_without` names the others, such as decays
    of heads, which to it are no tensors of a model; `backward_data_ms` is what to compare with then.
    """
    row: dict[str, Any] = {}
    try:
        call = peer(op, given)
        with torch.no_grad():
            row["fla_from_ours_error"] = relative(call(), ours)
            row["fla_forward_ms"] = milliseconds(call)
            row["fla_peak_mb"] = peak(lambda: [call()])
    except Exception as why:
        return {**row, "fla_note": reason(why)}
    try:
        with graded(call) as back:
            lacking = [n for n, x in zip(call.names, back(), strict=True) if x is None]
            row["fla_without"] = lacking
            row["fla_backward_ms"] = milliseconds(back)
            row["fla_peak_with_backward_mb"] = peak(lambda: both(call, call.leaves))
    except Exception as why:  # some are refused with some versions of Triton
        row["fla_note"] = f"backward {reason(why)}"
    return row


def backward(call: Callable[[], Tensor], wrt: list[Tensor]) -> Callable[[], Any]:
    """The backward pass alone: its graph is made here, and kept."""
    out = call()
    up = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, wrt, up, retain_graph=True)


def data(given: dict[str, Tensor]) -> list[Tensor]:
    """The inputs that are no gates."""
    return [given[k] for k in ("Q", "K", "V")]


def measure(name: str, floor: float) -> dict[str, Any]:
    """One row."""
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    small = inputs(op, 300, 2)
    exact = op.reference(*(x.double() for x in small.values()))
    row = {"program": name, "error": relative(op(*small.values()), exact)}
    given = inputs(op, N, H)

    def ours() -> Tensor:
        out: Tensor = op(*given.values())
        return out

    with torch.no_grad():
        out, forward = ours(), milliseconds(ours)
        row["peak_mb"] = peak(lambda: [ours()])
    row |= {"forward_ms": forward, "times_floor": forward / floor}
    row["peak_with_backward_mb"] = peak(lambda: both(ours, given.values()))
    row["backward_ms"] = milliseconds(backward(ours, [*given.values()]))
    for k in given.keys() - {"Q", "K", "V"}:
        given[k].requires_grad_(False)
    row["backward_data_ms"] = milliseconds(backward(ours, data(given)))
    return row | beside(op, given, out)


def warm(name: str) -> None:
    """Compile what `measure` runs, the peer's kernels too; what a peer tunes beside others is not to be kept."""
    os.environ["FLA_CACHE_RESULTS"] = "0"
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    given = inputs(op, N, H)
    with torch.no_grad():
        op(*given.values())
    backward(lambda: op(*given.values()), [*given.values()])()
    for k in given.keys() - {"Q", "K", "V"}:
        given[k].requires_grad_(False)
    backward(lambda: op(*given.values()), data(given))()
    with suppress(Exception):  # it says why when it is measured
        run.warm(peer(op, given), backward=True)


PROGRAMS = (
    "linear_identity",
    "linear",
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
    parser.add_argument("--only", nargs="*", default=PROGRAMS)
    parser.add_argument("--warm", action="store_true", help="only fill the caches of compiled code")
    args = parser.parse_args()
    if args.warm:
        for name in args.only:
            warm(name)
        return
    floor = 4 * B * H * N * D * 2 / copy_bandwidth() * 1e-9
    table = Table(args.out, shape={"B": B, "H": H, "N": N, "D": D}, floor_ms=floor)
    for name in in_batches(__file__, table.missing(args.only, "program")):
        row = measure(name, floor)
        table.add(row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
