"""What the benchmarks share: timing, errors, the record of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import triton

from attndsl.bench.record import machine, write
from attndsl.processors import processors

__all__ = [
    "EXAMPLES",
    "Table",
    "compile_beside",
    "copy_bandwidth",
    "graph_milliseconds",
    "in_batches",
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


class Table:
    """Rows of a file that grows: each is written at once, and what is there of this card and these versions stays.

    table = Table(path)
    for name in table.missing(names, "program"):
        table.add({"program": name, …})
    """

    def __init__(self, path: Path, **more: Any) -> None:
        self.path = path
        self.more = more
        self.rows: list[dict[str, Any]] = []
        if not path.exists():
            return
        old = json.loads(path.read_text(encoding="utf-8"))
        if all(old.get("machine", {}).get(k) == machine()[k] for k in SAME):
            self.rows = old["rows"]
        else:
            path.replace(path.with_suffix(".before.json"))  # of another card, or other versions

    def has(self, **about: Any) -> bool:
        """Whether there is a row that says this of itself, and did not fail."""
        return any(
            all(r.get(k) == v for k, v in about.items()) and "failed" not in r for r in self.rows
        )

    def missing(self, names: Iterable[str], key: str, **about: Any) -> list[str]:
        """The names that no row has."""
        return [n for n in names if not self.has(**{key: n}, **about)]

    def add(self, *rows: dict[str, Any]) -> None:
        """Write what was measured; a row that had failed makes room."""
        self.rows = [
            r for r in self.rows if "failed" not in r or not any(_same(r, x) for x in rows)
        ]
        self.rows += rows
        write(self.path, self.rows, **self.more)


SAME = ("card", "torch", "triton")


def _same(failed: dict[str, Any], row: dict[str, Any]) -> bool:
    return all(row.get(k) == v for k, v in failed.items() if k != "failed")


def in_batches(script: str, names: Sequence[str], more: Iterable[str] = ()) -> Iterator[str]:
    """The names, each when it is compiled: as many at once as compile side by side, and none while one is measured."""
    size = max(1, processors() // 2)
    for k in range(0, len(names), size):
        compile_beside(script, names[k : k + size], more)
        yield from names[k : k + size]


def compile_beside(script: str, names: Iterable[str], more: Iterable[str] = ()) -> None:
    """Compile what a script measures, each part in a process of its own: `script [more] --warm --only NAME`.

    Half as many at a time as there are processors: the assembler of a large kernel takes gigabytes.
    """
    command = [sys.executable, script, *more, "--warm", "--only"]

    def compiled(name: str) -> None:
        if subprocess.run([*command, name], stdout=subprocess.DEVNULL, check=False).returncode:
            print(f"{name}: not compiled beforehand", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(max(1, processors() // 2)) as pool:
        list(pool.map(compiled, names))
