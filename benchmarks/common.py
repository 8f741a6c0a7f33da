"""What the benchmarks share: timing, the record of the machine, JSON."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton

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
    return float((out.double() - exact.double()).norm() / exact.double().norm())


def machine() -> dict[str, str]:
    """Card, driver and versions."""
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "card": torch.cuda.get_device_name(),
        "driver": driver.stdout.strip().splitlines()[0] if driver.stdout else "unknown",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
    }


def write(path: Path, rows: list[dict[str, Any]], **more: Any) -> None:
    """One JSON file: the machine, then the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **more, "rows": rows}, indent=1) + "\n")
