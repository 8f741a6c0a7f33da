"""The aims of the tuner, measured in slices that each end in time, and judged by what there is.

    PYTHONPATH=. python benchmarks/judge.py --limit 190 --out build/judge          # as often as it has more to do
    PYTHONPATH=. python benchmarks/judge.py --limit 0 --out build/judge            # judge alone; no GPU is needed

A search of 30 s should reach 95 % of the speed of the best configuration of the whole list, one of 120 s 99 %, for each
of the causal example's kernels; and the model's first choice should be within 15 % of the best that is known, over all
examples. A slice that is done is not run again; one that was cut goes on. Searches come first: each is short.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from within import within

HERE = Path(__file__).parent
CAUSAL = str(HERE.parent / "examples" / "causal.attn")
LIST = HERE / "lists" / "causal.json"
SHAPE = ("--shape", "h=16")
# What a search of so many seconds should reach, as a part of the speed of the best of the whole list.
AIMS = {30: 0.95, 120: 0.99}
NEAR = 1.15
LAUNCHERS = {
    "causal": "forward",
    "causal_backward_D_dQ": "backward",
    "causal_backward_dK_dV": "backward",
}
# Seconds besides its own that a search takes to open and to end, and least that are worth beginning for.
AROUND, LEAST = 30.0, 30.0


@dataclass(frozen=True)
class Slice:
    """One script. `whole` says that it is not to be begun without so many seconds; the others end at `--limit`."""

    name: str
    command: tuple[str, ...]
    whole: float = 0.0

    def run(self, out: Path, left: float) -> bool:
        """Whether it is done."""
        limit = () if self.whole else ("--limit", f"{left - AROUND / 3:.0f}")
        script, *arguments = self.command
        command = [sys.executable, str(HERE / script), *arguments, *limit]
        return within(left, [*command, "--out", str(out / f"{self.name}.json")]) == 0


def slices() -> Iterator[Slice]:
    """What is measured, in order."""
    for seconds in AIMS:
        command = ("tuning.py", "causal", "--seconds", str(seconds), *SHAPE)
        yield Slice(f"search-{seconds}", command, seconds + AROUND)
    for kernel, launcher in LAUNCHERS.items():
        which = ("--launcher", launcher, "--kernel", kernel, "--list", str(LIST))
        yield Slice(f"list-{kernel}", ("exhaustive.py", CAUSAL, *SHAPE, *which))
    yield Slice("examples", ("examples.py", "--backward", *SHAPE))


def go_on(out: Path, seconds: float) -> list[str]:
    """Run what is not done until `seconds` are over; what is left."""
    end = time.monotonic() + seconds
    waiting = [s for s in slices() if not (out / f"{s.name}.done").exists()]
    for s in list(waiting):
        left = end - time.monotonic()
        if left < max(s.whole, LEAST):
            continue
        out.mkdir(parents=True, exist_ok=True)
        if s.run(out, left):
            (out / f"{s.name}.done").touch()
            waiting.remove(s)
    return [s.name for s in waiting]


def judged(out: Path) -> Iterator[tuple[bool, str]]:
    """Each aim that something is known of: whether it is met, and the figures."""
    for seconds, aim in AIMS.items():
        for row in _rows(out / f"search-{seconds}.json"):
            times = [r["ms"] for r in _rows(out / f"list-{row['kernel']}.json") if "ms" in r]
            if not times or row["best_ms"] is None:
                continue
            part = min(times) / row["best_ms"]
            said = f"{seconds} s, {row['kernel']}: {part:.1%} of the best of {len(times)}"
            yield (
                part >= aim and row["wall_s"] <= seconds,
                f"{said}, {row['wall_s']} s of wall time",
            )
    known = [r for r in _rows(out / "examples.json") if r["guess_ms"] and r["best_ms"]]
    over = {r["kernel"]: r["guess_ms"] / r["best_ms"] for r in known}
    far = [f"{k} {x:.2f}" for k, x in over.items() if x > NEAR]
    if over:
        said = f"first choice: {len(over) - len(far)} of {len(over)} kernels within {NEAR - 1:.0%}"
        yield not far, f"{said}{'; not ' if far else ''}{', '.join(far)}"


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["rows"]) if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=float, default=190.0, help="seconds")
    parser.add_argument("--out", type=Path, default=Path("build/judge"))
    args = parser.parse_args()
    waiting = go_on(args.out, args.limit)
    found = list(judged(args.out))
    for met, said in found:
        print("met   " if met else "missed", said)
    if waiting:
        print("more to do:", ", ".join(waiting))
    sys.exit(0 if found and all(met for met, _ in found) and not waiting else 1)


if __name__ == "__main__":
    main()
