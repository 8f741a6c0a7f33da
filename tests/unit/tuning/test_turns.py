"""Searches that share a card: one measures at a time, and one that hangs holds nobody up."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
import torch

from attndsl.tuning import measuring


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> filelock.FileLock:
    """Another search's hold on the card."""
    path = tmp_path / "card.lock"
    monkeypatch.setattr(measuring, "turns", lambda: filelock.FileLock(path))
    return filelock.FileLock(path)


def test_nobody_else_measures_in_a_turn(other: filelock.FileLock) -> None:
    with measuring.turn(), pytest.raises(filelock.Timeout):
        other.acquire(timeout=0)
    other.acquire(timeout=0)


def test_a_turn_ends_with_what_goes_wrong_in_it(other: filelock.FileLock) -> None:
    with pytest.raises(RuntimeError, match="fault"), measuring.turn():
        raise RuntimeError("fault")
    other.acquire(timeout=0)


def test_one_that_hangs_is_not_waited_for(
    other: filelock.FileLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "PATIENCE", 0.2)
    other.acquire()
    begin = time.monotonic()
    with measuring.turn():
        waited = time.monotonic() - begin
    assert 0.2 <= waited < 5
    assert other.is_locked


def test_a_lock_that_cannot_be_had_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = filelock.FileLock("/proc/none/card.lock")
    monkeypatch.setattr(measuring, "turns", lambda: nowhere)
    with measuring.turn():
        pass


class Card:
    """A card that takes notes; it begins to work before all is asked for, unless it idles long enough."""

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.idled: list[int] = []

    def idle(self, clocks: int) -> None:
        self.idled.append(clocks)

    @property
    def waits(self) -> bool:
        """Whether the card waits for the host."""
        return self.idled[-1] < self.enough

    def event(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(
            record=lambda: None,
            query=lambda: self.waits,
            elapsed_time=lambda end: 16.0 if self.waits else 0.5,
        )


@pytest.mark.parametrize(
    ("enough", "ms"),
    [(1, 0.5), (8 * measuring.AHEAD, 0.5), (2 * measuring.MOST_AHEAD, 16.0)],
    ids=["a quick host", "a slow host", "a host that stands still"],
)
def test_the_host_s_time_is_not_counted(
    enough: int, ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilers keep all processors busy; a card that waits for its next launch would count that as the kernel's."""
    card = Card(enough)
    monkeypatch.setattr(measuring, "DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "_sleep", card.idle)
    monkeypatch.setattr(torch.cuda, "Event", card.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    bench = measuring.Bench.__new__(measuring.Bench)
    bench.flush, bench.ahead = torch.empty(1), measuring.AHEAD
    assert bench.timed(lambda: None, 3) == [ms] * 3
    assert card.idled[-1] <= measuring.MOST_AHEAD
    before = len(card.idled)
    bench.timed(lambda: None, 3)
    assert len(card.idled) == before + 1  # what was enough once is tried first


def test_inputs_are_drawn_smaller_where_results_are_no_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exponentials of long sums overflow on normal inputs, and nothing can be compared with NaN."""
    drawn: list[float] = []

    def expected(bench: measuring.Bench) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        return {}, {"O": float("nan") if drawn[-1] > 0.5 else 0.1}

    monkeypatch.setattr(measuring.Bench, "draw", lambda bench, scale: drawn.append(scale))
    monkeypatch.setattr(measuring.Bench, "expected", expected)
    bench = measuring.Bench(SimpleNamespace(dtype="bf16"))  # type: ignore[arg-type]
    assert drawn == [1.0, 0.25]
    assert bench.budget == {"O": 0.1}
