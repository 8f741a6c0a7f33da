"""The model of time beside measured times: which configuration it would try first, and how far that is from the best.

    PYTHONPATH=. python benchmarks/model.py benchmarks/results/tuning/examples-h100.json
    PYTHONPATH=. python benchmarks/model.py benchmarks/results/tuning/examples-h100.json causal softcap --all

With `--note`, what it finds is written into the file, for the docs. No GPU is needed: trials come from files of
`benchmarks/examples.py`, what the model knows of them from the programs as they are now. Of each kernel's measured
configurations the one is taken that the model expects to be the fastest.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attndsl.cascade.nodes import DType
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.tuning.machine import MACHINES, Machine
from attndsl.tuning.space import explore
from attndsl.tuning.tune import posed, sizes_at

EXAMPLES = Path(__file__).parents[1] / "examples"
NEAR = 1.15


@dataclass(frozen=True)
class Guess:
    """Of one kernel: how many of its trials the model knows, its choice among them, and that over the best."""

    kernel: str
    trials: int
    chosen: tuple[int, ...]
    best: tuple[int, ...]
    over: float


def guesses(file: Mapping[str, Any], programs: list[str]) -> Iterator[Guess]:
    """What the model makes of a file's kernels, or of those of some programs."""
    card = file["machine"]["card"]
    machine = next(m for n, m in MACHINES.items() if n in card)
    rows = file["rows"]
    for program in dict.fromkeys(r["program"] for r in rows):
        # A file names programs as they name themselves, by and large their files.
        path = EXAMPLES / f"{program}.attn"
        if path.is_file() and (not programs or program in programs):
            mine = [r for r in rows if r["program"] == program]
            yield from _of_program(path, mine, file["shape"], machine)


def _of_program(
    path: Path, rows: list[dict[str, Any]], shape: Mapping[str, int], machine: Machine
) -> Iterator[Guess]:
    (cascade, *_) = load_cascades(read_source(path))
    names = {r.name for r in cascade.ranks} | {p.name for p in cascade.params}
    at = sizes_at(cascade, {k: n for k, n in shape.items() if k in names})
    # Kernels of a forward pass are called otherwise where a backward pass follows.
    backward = any("_backward" in r["kernel"] for r in rows)
    floats = tuple(t.name for t in cascade.inputs if t.dtype is DType.FLOAT)
    problems = posed(cascade, at, "bf16", machine, floats if backward else ())
    kernels = {k.name: (k, p) for p in problems for k in p.kernels}
    for row in rows:
        if row["kernel"] not in kernels:
            continue
        kernel, problem = kernels[row["kernel"]]
        space = explore(kernel, problem.extents, problem.params, problem.itemsize, machine)
        order = {tuple(c.config.values()): k for k, c in enumerate(space.candidates)}
        times = {tuple(c): ms for c, ms in row["trials"] if isinstance(ms, float)}
        known = {c: ms for c, ms in times.items() if c in order}
        if len(known) > 1:
            chosen, best = min(known, key=order.__getitem__), min(times, key=times.__getitem__)
            yield Guess(row["kernel"], len(known), chosen, best, times[chosen] / times[best])


def noted(text: str, made: list[Guess]) -> str:
    """A file's text with the model's choices in front of its rows, a line for all of them."""
    head, rows = text.split('"rows":', 1)
    head = re.sub(r' ?"model": \[\[.*\]\],\n?', "", head)
    found = [[g.kernel, g.trials, list(g.chosen), round(g.over, 3)] for g in made]
    return f'{head.rstrip()}\n "model": {json.dumps(found)},\n "rows":{rows}'


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("programs", nargs="*")
    parser.add_argument("--all", action="store_true", help="print those that are near the best too")
    parser.add_argument("--note", action="store_true", help="keep what is found in the file")
    args = parser.parse_args()
    text = args.file.read_text()
    made = list(guesses(json.loads(text), args.programs))
    if args.note:
        args.file.write_text(noted(text, made))
    for g in made:
        if args.all or g.over > NEAR:
            print(f"{g.kernel:40} {g.over:.3f}  {g.chosen}, best of {g.trials} {g.best}")
    near = sum(g.over <= NEAR for g in made)
    print(f"{near} of {len(made)} kernels within {NEAR - 1:.0%} of the best that was measured")


if __name__ == "__main__":
    main()
