"""What runs where nothing is known, beside configurations of all kinds: which are tried, and what is said of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))

from attndsl.frontend import load_cascades  # noqa: E402
from attndsl.frontend.reading import read_source  # noqa: E402
from attndsl.tuning.machine import MACHINES  # noqa: E402
from attndsl.tuning.space import explore  # noqa: E402
from attndsl.tuning.tune import posed, sizes_at  # noqa: E402
from benchmarks import posing  # noqa: E402
from benchmarks.choices import row, summary  # noqa: E402

H100 = MACHINES["H100"]
SOME = [{"BLOCK_I": n, "num_stages": s} for n, s in ((16, 1), (32, 3), (64, 2), (128, 2), (256, 1))]


def listed(kernel: str = "k", launcher: str = "forward") -> posing.Listed:
    return posing.Listed(kernel, launcher, True, SOME[1], SOME[1], SOME[0], SOME, 9)


def test_kinds_differ_in_more_than_stages_and_are_not_hopeless() -> None:
    (c, *_) = load_cascades(read_source(ROOT / "examples" / "causal.attn"))
    (p, *_) = posed(c, sizes_at(c, {"h": 16}), "bf16", H100, ())
    space = explore(p.kernels[0], p.extents, p.params, 2, H100)
    found = posing.kinds(space)
    plain = [{n: v for n, v in config.items() if n != "num_stages"} for config in found]
    assert all(plain.count(x) == 1 for x in plain)
    assert found[0] == space.candidates[0].config
    seconds = {tuple(x.config.items()): x.seconds for x in space.candidates}
    assert all(
        seconds[tuple(x.items())] <= posing.WORSE * space.candidates[0].seconds for x in found
    )
    assert any(seconds[tuple(x.items())] > 1.5 * space.candidates[0].seconds for x in found)


def test_what_is_chosen_is_tried_first_and_once() -> None:
    assert listed().configs(most=1, spread=1) == [SOME[1], SOME[0], SOME[3]]


def test_a_row_says_what_is_chosen_beside_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    tried = [SOME[1], SOME[0], SOME[2]]
    made = row("p", "forward", listed(), tried, [1.2, "hang: for ever", 1.0])
    assert made["own_ms"] == made["first_ms"] == 1.2
    assert made["guess_ms"] is None
    assert (made["best_ms"], made["best"], made["tried"]) == (1.0, SOME[2], 2)
    summary([made])
    said = capsys.readouterr().out
    assert "first: 0 of 1 kernels" in said
    assert "guess: 0 of 0 kernels" in said


RUN = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, "benchmarks")
from attndsl.tuning.device import Compiled, Processes
from attndsl.tuning.machine import MACHINES
from benchmarks.choices import Run, Table, measured
from benchmarks.posing import Listed, Posed
from tests.unit.tuning.test_tune import small
Processes.compile = lambda *_: Compiled(1, 0, 0)
problems = small()
a, b = ({"BLOCK_I": n, "BLOCK_J": 16, "num_warps": 4, "num_stages": 1} for n in (16, 32))
made = Posed("causal", problems, [
    Listed(k.name, p.launcher, True, *([a] * 3), [a, b], 9) for p in problems for k in p.kernels
])
table = Table(Path(sys.argv[1]))
run = Run(sys.argv[2], MACHINES["H100"], (2, 0), 1, time.monotonic() + 300)
measured([made], run, table)
print(json.dumps(table.rows))
"""


@pytest.mark.parametrize("which", ["forward", "backward"])
def test_both_passes_are_measured(tmp_path: Path, which: str) -> None:
    """In Triton's interpreter, whose times mean nothing."""
    env = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", RUN, str(tmp_path / "rows.json"), which]
    made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    rows = json.loads(made.stdout.splitlines()[-1])
    assert len(rows) == (1 if which == "forward" else 2)
    assert all(r["pass"] == which and r["tried"] == 2 and r["best_ms"] > 0 for r in rows), rows
