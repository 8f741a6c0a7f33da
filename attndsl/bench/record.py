"""JSON files of measurements: the machine, then rows; and what became slower between two of them."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

# What tells rows of one file from each other; all else is a figure or a remark.
FIGURES = (
    "_ms",
    "_us",
    "_s",
    "_tflops",
    "tflops",
    "error",
    "ratio",
    "ms",
    "of_copy",
    "noise",
    "note",
    "failed",
    "job",
    # Of compilers.
    "registers",
    "spills",
    # Of searches: what they found, and among how many.
    "best",
    "kept",
    "entry",
    "tried",
    "of",
)
Row = Mapping[str, Any]


def machine() -> dict[str, str]:
    """Card, driver and versions."""
    import torch

    from attndsl.runtime.tuned import triton_version

    return {
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "driver": driver(),
        "torch": torch.__version__,
        "triton": triton_version(),
        "python": platform.python_version(),
    }


@cache
def driver() -> str:
    """The version of the GPU's driver."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return said.splitlines()[0] if said else "unknown"


def write(path: Path, rows: list[dict[str, Any]], **more: Any) -> None:
    """One file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **more, "rows": rows}, indent=1)
    partial = path.with_suffix(".tmp")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)  # who is stopped in between leaves the file whole


def slower(old: Mapping[str, Any], new: Mapping[str, Any], beyond: float = 0.03) -> list[str]:
    """What takes longer in `new` than in `old`, by more than the part `beyond`, and what is gone; a line each."""
    lines: list[str] = []
    after = {name_of(r): r for r in new["rows"]}
    for row in old["rows"]:
        name = name_of(row)
        if name not in after:
            lines.append(f"{name}: no longer measured")
            continue
        for figure, before, now, worse in _changes(row, after[name]):
            if worse > 1 + beyond:
                lines.append(
                    f"{name}: {figure} {before:.4g} -> {now:.4g} ({worse:.2f} times slower)"
                )
            elif figure.endswith("error") and now > 1.5 * before:
                lines.append(f"{name}: {figure} {before:.2e} -> {now:.2e}")
    return lines


def name_of(row: Row) -> str:
    """What a row is about: all of it that is no figure."""
    parts = []
    for k, v in row.items():
        if not k.endswith(FIGURES) and not isinstance(v, float | list):
            shown = " ".join(f"{a}={b}" for a, b in v.items()) if isinstance(v, dict) else v
            parts.append(str(shown) if isinstance(shown, str) else f"{k}={shown}")
    return " ".join(parts)


def _changes(old: Row, new: Row) -> Iterator[tuple[str, float, float, float]]:
    """Figures in both rows; `worse` is above 1 where the new one is slower."""
    for k, before in old.items():
        now = new.get(k)
        if not isinstance(before, int | float) or not isinstance(now, int | float):
            continue
        if k.endswith("error"):
            yield k, before, now, 1.0
        elif k.endswith(("tflops", "tb_s")) and now > 0:
            yield k, before, now, before / now
        elif k.endswith(("ms", "_us", "_s", "_ns_per_token")) and before > 0:
            yield k, before, now, now / before
