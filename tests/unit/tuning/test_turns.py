"""Searches that share a card: one runs anything there at a time, and a time that was disturbed is noticed."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
import torch

from attndsl.tuning import measuring, turns
from attndsl.tuning.turns import turn


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> filelock.BaseFileLock:
    """Another search's hold on the card."""
    paths = tmp_path / "next.lock", tmp_path / "card.lock"
    monkeypatch.setattr(turns, "locks", lambda: tuple(map(filelock.FileLock, paths)))
    return filelock.FileLock(paths[1])


def test_nobody_else_measures_in_a_turn(other: filelock.BaseFileLock) -> None:
    with turn(), pytest.raises(filelock.Timeout):
        other.acquire(timeout=0)
    other.acquire(timeout=0)


def test_a_turn_ends_with_what_goes_wrong_in_it(other: filelock.BaseFileLock) -> None:
    with pytest.raises(RuntimeError, match="fault"), turn():
        raise RuntimeError("fault")
    other.acquire(timeout=0)


def test_who_waits_says_so_and_is_never_beside_another(
    other: filelock.BaseFileLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the other takes: a time taken beside it would be wrong, and would be kept."""
    said: list[float] = []

    def word() -> None:
        said.append(time.monotonic())
        if len(said) == 3:
            other.release()

    monkeypatch.setattr(turns, "WORD", 0.05)
    monkeypatch.setattr(turns, "still", word)
    other.acquire()
    with turn():
        assert len(said) == 3
        assert not other.is_locked


def test_a_card_that_is_never_given_back_is_an_error(
    other: filelock.BaseFileLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "WORD", 0.05)
    monkeypatch.setattr(turns, "LONGEST", 0.2)
    other.acquire()
    with pytest.raises(turns.Taken, match=r"held the card \(.*card.lock\)"), turn():
        pass
    other.release()
    with turn():  # who gave up left nothing taken
        pass


def test_who_has_had_a_turn_comes_after_who_waits(tmp_path: Path) -> None:
    """By one lock alone, who has just been would come again before the other looks."""
    order: list[str] = []

    def searching(name: str, count: int) -> None:
        following, card = (filelock.FileLock(tmp_path / f"{n}.lock") for n in ("next", "card"))
        for _ in range(count):
            with ExitStack() as held:
                turns.taken(following, held)
                turns.taken(card, held)
                following.release()
                order.append(name)
                time.sleep(0.02)

    both = [threading.Thread(target=searching, args=(n, 10)) for n in "ab"]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    longest = max(len(run) for n in "ab" for run in "".join(order[:12]).split(n))
    assert longest <= 3, order


def test_a_lock_that_cannot_be_had_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = filelock.FileLock("/proc/none/card.lock")
    monkeypatch.setattr(turns, "locks", lambda: (nowhere, nowhere))
    with turn():
        pass


def bench_of(rounds: list[list[float]], monkeypatch: pytest.MonkeyPatch) -> measuring.Bench:
    """A bench whose launches take these milliseconds."""
    monkeypatch.setattr(measuring, "DEVICE", "cuda")
    bench = measuring.Bench.__new__(measuring.Bench)
    bench.launch = lambda: None  # type: ignore[assignment]
    left = [ms for times in rounds for ms in times]
    bench.timed = lambda launch, repeats: [left.pop(0) for _ in range(repeats)]  # type: ignore[method-assign]
    return bench


SLICED, CALM = [0.75, 4.27, 7.8, 7.8], [0.75, 0.76, 0.75, 4.3]


def test_times_that_others_disturbed_are_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process's slices of the card take milliseconds: the median of such times is half theirs."""
    told = bench_of([SLICED, SLICED, CALM], monkeypatch).time(4, float("inf"))
    assert told == {"times": CALM, "disturbed": ""}


def test_times_that_stay_disturbed_are_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    told = bench_of([SLICED] * measuring.AGAIN, monkeypatch).time(4, float("inf"))
    assert told["disturbed"] == "0.750 to 7.800 ms: something else runs on the card"


def test_one_slow_launch_makes_no_candidate_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench_of([[4.3, 0.75, 0.75, 0.76]], monkeypatch).time(4, 1.0)["times"][1:] == [
        0.75,
        0.75,
        0.76,
    ]
    assert bench_of([[4.3, 4.2]], monkeypatch).time(4, 1.0)["times"] == [4.3, 4.2]


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

    def draw(bench: measuring.Bench, scale: float) -> dict[str, torch.Tensor]:
        drawn.append(scale)
        return {}

    def expected(bench: measuring.Bench) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        return {}, {"O": float("nan") if drawn[-1] > 0.5 else 0.1}

    monkeypatch.setattr(measuring, "copies_of", lambda cascade, extents: {})
    monkeypatch.setattr(measuring.Bench, "draw", draw)
    monkeypatch.setattr(measuring.Bench, "expected", expected)
    bench = measuring.Bench(SimpleNamespace(dtype="bf16", cascade=None, extents={}))  # type: ignore[arg-type]
    assert drawn == [1.0, 0.25]
    assert bench.budget == {"O": 0.1}
