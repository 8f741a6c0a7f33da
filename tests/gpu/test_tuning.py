"""Tuning on a card: a search that finds something, and candidates that fault or hang the device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attndsl.cascade.nodes import Cascade
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.tuning.command import this_machine
from attndsl.tuning.database import read
from attndsl.tuning.device import Failure, Processes, Timeouts
from attndsl.tuning.problem import Problem, pose
from attndsl.tuning.tune import sizes_at, tune

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

CAUSAL = Path(__file__).parents[2] / "examples" / "causal.attn"
SMALL = {"b": 1, "h": 2, "i": 512, "j": 512, "e": 64, "f": 64}
RIGHT = {"BLOCK_I": 64, "BLOCK_J": 64, "num_warps": 4, "num_stages": 2}
# A kernel in front of the generated one: what the card does depends on the stages.
NAUGHTY = """

class _Naughty:
    def __init__(self, kernel):
        self.kernel = kernel
        self.arg_names = kernel.arg_names

    def __getitem__(self, grid):
        def launched(*a, **k):
            if k["num_stages"] == 7:
                torch._assert_async(torch.zeros((), device="cuda"))
            if k["num_stages"] == 8:
                torch.cuda._sleep(1 << 60)
            return self.kernel[grid](*a, **k)

        return launched


causal = _Naughty(causal)
"""


def causal() -> Cascade:
    (cascade,) = load_cascades(read_source(CAUSAL))
    return cascade


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Processes]:
    cascade = causal()
    found = pose(cascade, "forward", sizes_at(cascade, SMALL), "bf16")
    assert isinstance(found, Problem)
    path = tmp_path / "naughty.py"
    path.write_text(found.module.read_text() + NAUGHTY)
    major, minor = torch.cuda.get_device_capability()
    with Processes(
        [replace(found, module=path)],
        capability=10 * major + minor,
        workers=1,
        timeouts=Timeouts(run=20.0),
    ) as made:
        yield made


@pytest.mark.parametrize(("stages", "kind"), [(7, "fault"), (8, "hang")])
def test_a_candidate_that_takes_the_card_with_it(device: Processes, stages: int, kind: str) -> None:
    before = device.measure("causal", RIGHT, 3)
    with pytest.raises(Failure) as caught:
        device.measure("causal", {**RIGHT, "num_stages": stages}, 3)
    assert caught.value.kind == kind
    assert float(torch.ones(4, device="cuda").sum()) == 4  # this process has its context still
    after = device.measure("causal", RIGHT, 3)
    assert device.runner.starts == 2
    assert before.ms > 0
    assert after.ms > 0


ENTRIES = "cache/tuning.jsonl"


def searching(folder: Path) -> subprocess.Popen[str]:
    """A search in a process of its own, which has a new best for every kernel."""
    shape = ",".join(f"{k}={n}" for k, n in SMALL.items())
    command = [sys.executable, "-m", "attndsl", "tune", str(CAUSAL), "--budget", "300s"]
    # In the order of the queue: what runs untuned comes first.
    command += ["--no-hopper", "--workers", "1", "--shape"]
    process = subprocess.Popen(
        [*command, shape],
        env={**os.environ, "ATTNDSL_CACHE_DIR": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    known: set[str] = set()
    while len(known) < 3:
        line = process.stderr.readline()
        assert line, process.wait()
        known |= {line.split()[2]} if " tried, " in line else set()
    return process


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_keeps_what_is_known(tmp_path: Path, sign: signal.Signals) -> None:
    process = searching(tmp_path)
    process.send_signal(sign)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "causal_backward_dK_dV" in out
    assert len(read(tmp_path / ENTRIES).entries) == 3


def test_a_search_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    """Two at once, one of which is killed: the other finds what it would, and the dead one's children are gone."""
    doomed, other = searching(tmp_path), searching(tmp_path)
    children = [
        int(p) for t in Path(f"/proc/{doomed.pid}/task").iterdir()
        for p in (t / "children").read_text().split()
    ]  # fmt: skip
    assert len(children) > 1
    doomed.kill()
    doomed.wait()
    other.send_signal(signal.SIGINT)
    other.communicate(timeout=30)
    assert other.returncode == 0
    assert len(read(tmp_path / ENTRIES).entries) == 3
    end = time.monotonic() + 10
    while any(alive(p) for p in children) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(alive(p) for p in children)


def alive(process: int) -> bool:
    """Whether a process still runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_search_finds_right_configurations_of_both_passes() -> None:
    cascade = causal()
    found = tune(cascade, sizes_at(cascade, SMALL), "bf16", this_machine("causal"), seconds=60)
    assert {f.kernel.launcher for f in found} == {"forward", "backward"}
    for f in found:
        assert f.entry is not None, [str(t.failure) for t in f.outcome.trials]
        assert f.outcome.first is not None
        assert f.outcome.first.measured is not None
        assert not [t for t in f.outcome.trials if t.failure and t.failure.kind == "wrong"]
