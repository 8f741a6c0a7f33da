"""Searches that share a card: one measures at a time, and one that hangs holds nobody up."""

from __future__ import annotations

import time
from pathlib import Path

import filelock
import pytest

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
