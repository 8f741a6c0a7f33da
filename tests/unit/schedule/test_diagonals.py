"""Where terms of a table's gradient go: which tables are summed by diagonals of a tile."""

from __future__ import annotations

import pytest

from attndsl import driver
from attndsl.codegen.programs import statements
from attndsl.schedule.diagonals import diagonal_subs
from attndsl.schedule.printer import text_of
from attndsl.schedule.tile import Scatter, TileProgram
from attndsl.source import Source

TEXT = """
attention table(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], T[h,r]{more}) -> O[b,h,i,f] {{
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] + T[{place}]{where}
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}}
"""


def places(place: str, where: str = "", more: str = "") -> list[str] | None:
    """The places of a diagonal in the table's gradient, as text; None where each term goes to its own."""
    text = TEXT.format(place=place, where=where, more=more)
    program = driver.load(Source("table.attn", text))
    assert program.backward is not None
    found = [
        diagonal_subs(p, s)
        for p in program.backward.steps
        if isinstance(p, TileProgram)
        for s in statements(p)
        if isinstance(s, Scatter)
    ]
    assert found
    assert len({x is None for x in found}) == 1
    return None if found[0] is None else [text_of(e) for e in found[0]]


@pytest.mark.parametrize(
    "place",
    [
        "i - j + |j| - 1",
        "j - i + |i| - 1",
        "min(max(i - j, 0), 7)",
        "abs(i - j)",
        "(i - j + |j|) // 3",
    ],
)
def test_a_distance_is_summed_by_diagonals(place: str) -> None:
    found = places(place)
    assert found is not None
    assert "i" in found[-1]
    # Of columns, no more than where the tile begins.
    assert "j0" in found[-1].replace("origin(j)", "j0")


@pytest.mark.parametrize("place", ["i + j", "2 * i - j", "i // 4 - j // 4 + |j|", "max(i, j)"])
def test_what_changes_along_a_diagonal_is_not(place: str) -> None:
    assert places(place) is None


def test_a_place_that_data_say_is_not() -> None:
    assert places("B[i - j + |j| - 1]", more=", B[m]: int") is None
