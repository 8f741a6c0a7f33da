"""Processes that die, hang, refuse and chatter, without harm to their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from attndsl.tuning.child import Child, ChildError
from attndsl.tuning.device import Config, Failure, Processes, Staff, Timeouts
from attndsl.tuning.search import search

NAUGHTY = "tests.unit.tuning.naughty"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def child() -> Iterator[Child]:
    with Child(NAUGHTY, {"do": "open"}) as found:
        yield found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is dead.
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_child_answers(child: Child) -> None:
    assert child.ask({"x": 1}, 20)["echo"] == {"x": 1}
    assert child.ask({"x": 2}, 20)["echo"] == {"x": 2}
    assert child.starts == 1


def test_waiting_for_a_turn_is_not_hanging(child: Child) -> None:
    """A request that waits for others, longer than one may take, is answered."""
    child.start()
    assert child.ask({"do": "wait"}, 0.8)["echo"] == {"do": "wait"}
    assert child.starts == 1


@pytest.mark.parametrize(
    ("do", "kind", "why"),
    [
        ("crash", "died", "SIGSEGV"),
        ("exit", "died", "exit code 7; said before it went"),
        ("hang", "hung", "no answer in 1 s"),
    ],
)
def test_the_next_request_has_another_process(child: Child, do: str, kind: str, why: str) -> None:
    before = child.ask({}, 20)["pid"]
    with pytest.raises(ChildError, match=why) as caught:
        child.ask({"do": do}, 1.0 if do == "hang" else 20)
    assert caught.value.kind == kind
    assert not alive(before)
    after = child.ask({}, 20)["pid"]
    assert after != before
    assert child.starts == 2
    assert child.opened["echo"] == {"do": "open"}  # the new one was opened too


def test_what_a_child_raises_does_not_end_it(child: Child) -> None:
    before = child.ask({}, 20)["pid"]
    with pytest.raises(ChildError, match="ValueError: this is refused") as caught:
        child.ask({"do": "raise"}, 20)
    assert caught.value.kind == "refused"
    assert child.ask({}, 20)["pid"] == before


def test_what_a_child_prints_is_no_answer(child: Child) -> None:
    assert child.ask({"do": "chatter"}, 20)["echo"] == {"do": "chatter"}


def test_a_closed_child_is_gone(child: Child) -> None:
    pid = child.ask({}, 20)["pid"]
    child.close()
    assert not alive(pid)


PARENT = f"""
import sys, time
from attndsl.tuning.child import Child
child = Child({NAUGHTY!r})
print(child.ask({{}}, 20)["pid"], flush=True)
try:
    child.ask({{"do": "hang"}}, 60)
except BaseException:
    time.sleep(60)
"""


def test_a_child_does_not_outlive_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(pid)


# --- as a device ---


class Problem:
    """As much of a problem as `Processes` asks for."""

    launcher, module = "forward", Path("none.py")
    extents: ClassVar[dict[str, int]] = {}
    params: ClassVar[dict[str, int]] = {}

    class _Kernel:
        name = "k"

    kernels = every = (_Kernel(),)

    def told(self, kernel: str, config: Config) -> dict[str, Config]:
        return {kernel: config}

    def save(self, folder: Path) -> Path:
        return folder / "problem"

    def tensors(self) -> dict[str, object]:
        return {}


@pytest.fixture
def device() -> Iterator[Processes]:
    limits = Timeouts(start=20, compile=1.0, run=1.0)
    with Processes(
        [Problem()],  # type: ignore[list-item]
        capability=90,
        workers=2,
        timeouts=limits,
        compiler=NAUGHTY,
        runner=NAUGHTY,
    ) as found:
        yield found


@pytest.mark.parametrize("do", ["crash", "hang", "raise", "exit"])
def test_a_compiler_that_fails_puts_the_candidate_out(device: Processes, do: str) -> None:
    for _ in range(3):  # more often than there are workers
        with pytest.raises(Failure) as caught:
            device.compile("k", {"do": do})  # type: ignore[dict-item]
        assert caught.value.kind == "compiler"
    assert device.compile("k", {"do": "well"}).registers == 1  # type: ignore[dict-item]


def test_exact_results_that_take_too_long_are_said_to(device: Processes) -> None:
    """No candidate is to blame: the sizes are."""
    device.ready()
    device.timeouts = Timeouts(start=0.5)
    device.starting = device.starter.submit(device.runner.ask, {"do": "hang"}, 0.5)
    with pytest.raises(ChildError, match=r"exact results .* not there in 0 s; .*--shape"):
        device.ready()


def test_children_may_serve_one_search_after_another() -> None:
    limits = Timeouts(start=20, compile=1.0, run=1.0)
    staff = Staff(2, limits, NAUGHTY, NAUGHTY)
    try:
        for _ in range(2):
            with Processes(
                [Problem()],  # type: ignore[list-item]
                capability=90,
                workers=2,
                timeouts=limits,
                staff=staff,
            ) as found:
                found.ready()
                opened = staff.runner.opened["echo"]
                assert found.compile("k", {"do": "well"}).registers == 1  # type: ignore[dict-item]
                assert found.measure("k", {"do": "well"}, 3).ms == 2.0  # type: ignore[dict-item]
                assert Path(opened["problems"][0]).parent == Path(found.folder.name)
        assert staff.runner.starts == 1
        assert sum(c.starts for c in staff.compilers) <= 2
    finally:
        staff.close()


def test_a_compiler_that_hangs_does_not_hold_up_the_search() -> None:
    limits = Timeouts(start=20, compile=60, run=5)
    configs = [{"do": "well"}, {"do": "hang"}, {"do": "well", "n": 2}, {"do": "hang", "n": 2}]
    begin = time.monotonic()
    with Processes(
        [Problem()],  # type: ignore[list-item]
        capability=90,
        workers=2,
        timeouts=limits,
        compiler=NAUGHTY,
        runner=NAUGHTY,
    ) as found:
        outcome = search({"k": configs}, found, seconds=3.0, workers=2)["k"]  # type: ignore[dict-item]
    assert time.monotonic() - begin < 15
    assert outcome.best is not None
    assert not any(t.failure for t in outcome.trials)


@pytest.mark.parametrize(
    ("do", "kind"),
    [
        ("crash", "fault"),
        ("hang", "hang"),
        ("raise", "fault"),
        ("resources", "resources"),
        ("wrong", "wrong"),
    ],
)
def test_a_run_that_fails_puts_the_candidate_out(device: Processes, do: str, kind: str) -> None:
    with pytest.raises(Failure) as caught:
        device.measure("k", {"do": do}, 3)  # type: ignore[dict-item]
    assert caught.value.kind == kind
    assert device.measure("k", {"do": "well"}, 3).ms == 2.0  # type: ignore[dict-item]
    # After a fault the context may be poisoned: another process runs the next candidate.
    assert device.runner.starts == (1 if kind in ("resources", "wrong") else 2)
