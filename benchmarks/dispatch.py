"""Host time of one call, beside an empty operator of the same arity in the same run.

    PYTHONPATH=. python benchmarks/dispatch.py --out benchmarks/results/dispatch-h100.json
    PYTHONPATH=. TRITON_INTERPRET=1 python benchmarks/dispatch.py      # no GPU: launches do nothing

Microseconds, medians of batches of calls that are not waited for. Batches of the empty operator and of ours come in
turns, for a processor's clock drifts. `added` is what attndsl takes on top of the empty operator; the launch of
Triton's own is part of it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import EXAMPLES, Table

import attndsl

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def microseconds(
    *calls: Callable[[], Any], batch: int = 200, batches: int = 15
) -> tuple[float, ...]:
    """Median host time of each call."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(batches + 1):
        for call, took in zip(calls, times, strict=True):
            if CUDA:
                torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(batch):
                call()
            if turn:
                took.append((time.perf_counter() - begin) / batch * 1e6)
    return tuple(map(statistics.median, times))


class Nothing:
    """A kernel that does nothing, and its machine code."""

    function = packed_metadata = None

    def __init__(self, kernel: Any) -> None:
        self.arg_names = kernel.arg_names

    def __getitem__(self, grid: Any) -> Callable[..., Nothing]:
        return lambda *a, **k: self

    def run(self, *arguments: Any) -> None: ...


def stub(op: attndsl.CompiledAttention) -> None:
    """Launches do nothing: without a GPU the interpreter would run instead."""
    from triton.runtime import driver

    from attndsl.tuning.compiling import Cross

    driver.set_active(Cross(90))
    op._operators.forget()
    for stage in op._engine.stages.values():
        for name in stage.module.KERNELS:
            setattr(stage.module, name, Nothing(getattr(stage.module, name)))


def empty_operators(tensors: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """An operator that allocates its output and does nothing more; and the same with gradients."""
    library = torch.library.Library(f"empty{tensors}", "FRAGMENT")
    names = ", ".join(f"Tensor x{k}" for k in range(tensors))
    library.define(f"plain({names}, Tensor? a, SymInt? b, str c) -> Tensor")
    library.define(f"graded({names}, Tensor? a, SymInt? b, str c) -> Tensor")
    packet = getattr(torch.ops, f"empty{tensors}")

    def run(*args: Any) -> torch.Tensor:
        return torch.empty_like(args[0])

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> torch.Tensor:
            with torch._C._AutoDispatchBelowAutograd():
                out = packet.graded.default(*args)
            ctx.save_for_backward(*args[:tensors], out)
            return out

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            saved = ctx.saved_tensors
            return (*(torch.empty_like(x) for x in saved[:tensors]), None, None, None)

    key = "CUDA" if CUDA else "CPU"
    library.impl("plain", run, key)
    library.impl("graded", run, key)
    library.impl("graded", lambda *a: Function.apply(*a), "Autograd")
    keep.append(library)
    return packet.plain.default, packet.graded.default


keep: list[Any] = []


def measure(name: str, extra: dict[str, torch.Tensor]) -> dict[str, Any]:
    """One program: host times of a call without gradients, with them, and of call and backward pass together."""
    op = attndsl.load(EXAMPLES / f"{name}.attn", backend="triton")
    make = torch.float16 if not CUDA else torch.bfloat16
    q, k, v = (torch.randn(1, 2, 64, 64, device=DEVICE, dtype=make) for _ in range(3))
    given = (q, k, v, *extra.values())
    leaves = tuple(x.clone().requires_grad_() for x in given)
    with torch.no_grad():
        op(*given)
    out = op(*leaves)
    out = out[0] if isinstance(out, tuple) else out
    up = torch.ones_like(out)
    torch.autograd.grad(out, leaves, up)
    if not CUDA:
        stub(op)
    plain, graded = empty_operators(len(given))

    def both(call: Callable[..., Any], *more: Any) -> None:
        made = call(*leaves, *more)
        torch.autograd.grad(made[0] if isinstance(made, tuple) else made, leaves, up)

    tail = (None, None, "")
    row: dict[str, Any] = {"program": name}
    with torch.no_grad():
        row["empty_us"], row["ours_us"] = microseconds(
            lambda: plain(*given, *tail), lambda: op(*given)
        )
    row["empty_graded_us"], row["ours_graded_us"] = microseconds(
        lambda: graded(*leaves, *tail), lambda: op(*leaves)
    )
    row["empty_both_us"], row["ours_both_us"] = microseconds(
        lambda: both(graded, *tail), lambda: both(op), batch=50
    )
    row["added_us"] = row["ours_us"] - row["empty_us"]
    row["added_graded_us"] = row["ours_graded_us"] - row["empty_graded_us"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    table = None if args.out is None else Table(args.out)
    programs = {"causal": {}, "alibi": {"slope": torch.rand(2, device=DEVICE)}}
    for name in programs if table is None else table.missing(programs, "program"):
        row = measure(name, programs[name])
        print("  ".join(f"{k} {v:.1f}" if isinstance(v, float) else str(v) for k, v in row.items()))
        if table is not None:
            table.add(row)


if __name__ == "__main__":
    main()
