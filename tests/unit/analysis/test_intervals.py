"""The stretches of a condition in closed form; `test_schedule_ranges.py` counts the tiles that come of them."""

from __future__ import annotations

import pytest

from attndsl.analysis.intervals import Stretch, stretches
from attndsl.cascade.bind import eval_int
from attndsl.cascade.nodes import Expr, Param
from tests.unit.schedule.harness import load

FIRST, LAST = Param("first"), Param("last")


def found(where: str) -> tuple[Stretch, ...]:
    text = (
        "attention t(Q[b,i], K[b,j], a[b,i]: int, c[b,j]: int, x[b,j], w: int = 3) -> O[b,i] {\n"
        f"  batch b\n  S[i,j] = Q[i] * K[j] * x[j] + a[i] - c[j]   where {where}\n"
        "  O[i] = max[j](S[i,j])\n}"
    )
    (score, _) = load(text).body
    return stretches(score.where, "j", "i", FIRST, LAST)


def at(bounds: tuple[Expr, ...]) -> list[int]:
    """Bounds for the rows 32 … 47, with `w` 5 and `start` 0."""
    return [eval_int(e, {"first": 32, "last": 47, "w": 5, "start": 0}) for e in bounds]


@pytest.mark.parametrize(
    ("where", "low", "high", "full_low", "full_high"),
    [
        ("j <= i", [], [48], [], [33]),
        ("j < i", [], [47], [], [32]),
        ("i <= j", [32], [], [47], []),
        ("i - w < j <= i", [28], [48], [43], [33]),
        ("j // 8 == i // 8", [32], [48], [40], [40]),
        ("2 * j <= i", [], [24], [], [17]),
        ("-j >= 3 - i", [], [45], [], [30]),
        ("j < 7", [], [7], [], [7]),
        ("not j > i", [], [48], [], [33]),
    ],
)
def test_bounds(
    where: str, low: list[int], high: list[int], full_low: list[int], full_high: list[int]
) -> None:
    (s,) = found(where)
    assert not s.partial
    assert (at(s.low), at(s.high), at(s.full_low), at(s.full_high)) == (
        low,
        high,
        full_low,
        full_high,
    )


@pytest.mark.parametrize("where", ["(i - j) % 3 == 0", "j != i", "x[j] > 0.5", "j * j < i"])
def test_what_cannot_be_solved_is_masked_everywhere(where: str) -> None:
    (s,) = found(where)
    assert s.partial
    assert not s.low
    assert not s.high


def test_one_solvable_side_still_bounds_the_reach() -> None:
    (s,) = found("j <= i, (i - j) % 3 == 0")
    assert s.partial
    assert at(s.high) == [48]


def test_alternatives_are_stretches_of_their_own() -> None:
    prefix, window = found("j < 4 or i - w < j")
    assert (at(prefix.high), at(window.low)) == ([4], [28])


def test_too_many_alternatives_are_one_masked_stretch() -> None:
    assert found("j < 4 or j == i or i - w < j") == (Stretch(partial=True),)


def test_ids_are_looked_up() -> None:
    (s,) = found("a[i] == c[j]")
    ((_, ids),) = s.ids
    assert ids.tensor == "c"
    assert not s.partial


def test_no_condition_is_no_bound() -> None:
    assert stretches(None, "j", "i", FIRST, LAST) == (Stretch(),)
