"""What the benchmarks share: timing, errors, the record of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import triton

from attndsl.bench.record import machine, write

__all__ = [
    "EXAMPLES",
    "compile_beside",
    "copy_bandwidth",
    "graph_milliseconds",
    "machine",
    "milliseconds",
    "relative",
    "write",
]

EXAMPLES = Path(__file__).parents[1] / "examples"


def milliseconds(run: Callable[[], Any]) -> float:
    """Median time of a call, the L2 cache flushed between repeats."""
    return float(triton.testing.do_bench(run, warmup=25, rep=100, return_mode="median"))


def graph_milliseconds(run: Callable[[], Any], repeats: int = 20) -> float:
    """Median time of a call inside a CUDA graph, so that launches cost nothing. Inputs must exceed the L2 cache."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            run()
    return milliseconds(graph.replay) / repeats


def copy_bandwidth() -> float:
    """Bytes read and written per second by a large device-to-device copy, in TB/s."""
    x = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    return 2 * x.numel() / milliseconds(lambda: y.copy_(x)) * 1e-9


def relative(out: torch.Tensor, exact: torch.Tensor) -> float:
    """‖out - exact‖ / ‖exact‖."""
    return float(
        (out.detach().double() - exact.detach().double()).norm() / exact.detach().double().norm()
    )


def compile_beside(script: str, names: Iterable[str], more: Iterable[str] = ()) -> None:
    """Compile what a script measures, each part in a process of its own: `script [more] --warm --only NAME`.

    Half as many at a time as there are processors: the assembler of a large kernel takes gigabytes.
    """
    command = [sys.executable, script, *more, "--warm", "--only"]

    def compiled(name: str) -> None:
        if subprocess.run([*command, name], stdout=subprocess.DEVNULL, check=False).returncode:
            print(f"{name}: not compiled beforehand", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
        list(pool.map(compiled, names))
