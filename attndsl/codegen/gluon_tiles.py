"""A consumer's loop over tiles where one tile is handed over to the next.

    first tile                 index, rows; issue S(0), wait, compute P(0)
    for every tile
        steps                  of its sweep, but the first
        hand over              issue S(0) of the next tile, and the last O += P·V of this
                               index, rows of the next tile, while both run; compute its P(0)
                               wait for O, and let it leave

So a border between tiles costs what a step costs. Two tiles of queries are in memory in turn (`slot`), and what the
epilogue needs of a tile is kept under other names (`x_done`), since the next one's is known by then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HandedTile:
    """Lines of a consumer: of a tile, or of the border between two."""

    here: Sequence[str]  # which tile it is, and what is known of it before its first scores
    start: Sequence[str]  # the same of the first tile, whose memory is waited for in between
    empty: Sequence[str]  # empty accumulators
    first: Sequence[str]  # the first tile's first step
    steps: Sequence[str]  # loops over the other steps
    given: Sequence[str]  # what gives its memory back
    issued: Sequence[str]  # the next tile's first scores, and the last sum
    last: Sequence[str]  # the next tile's first step, and the end of the sum
    epilogue: Sequence[str]


def handed_over(
    tile: HandedTile, turns: str, sums: Sequence[str], fresh: Callable[[str], str]
) -> list[str]:
    """The loop over all tiles of a program, with the first tile's first step before it.

    `turns` says how many tiles there are, `sums` names the accumulators. Behind the last tile comes itself once more:
    its scores are of whatever lies in memory, and are not used.
    """
    lines = (*tile.here, *tile.first)
    made = sorted({n for line in lines for n in assigned(line)} - {*sums})
    moved = {n: fresh(f"{n}_done") for n in used(made, tile.epilogue)}

    def renamed(line: str) -> str:
        if line.lstrip().startswith("#"):
            return line
        # A keyword of a call is no variable.
        return re.sub(r"[A-Za-z_]\w*(?!\w|=[^=])", lambda m: moved.get(m[0], m[0]), line)

    body = [
        *tile.steps,
        *tile.given,
        "# --- the last product, and the next tile's first ---",
        "done += total",
        *(f"{new} = {old}" for old, new in moved.items()),
        "more = turn + 1 < turns",
        "gone, slot = slot, slot ^ 1",
        "mbarrier.wait(ready.index(slot), (turn + 1) // 2 & 1, pred=more)",
        *tile.issued,
        "tile = tl.minimum(turn + 1, turns - 1)",
        *tile.here,
        *tile.last,
        "# --- epilogue ---",
        *map(renamed, tile.epilogue),
        *tile.empty,
        *(f"{n}_operand = {n}_next" for n in sums),
    ]
    return [
        "# Steps are counted over all tiles: rings go round without regard to them.",
        f"turns = {turns}",
        "# --- the first tile ---",
        "done = 0",
        "tile = 0",
        "slot = 0",
        *tile.start,
        *tile.first,
        "for turn in range(turns):",
        *("    " + line for line in body),
    ]


def assigned(line: str) -> list[str]:
    """The variables that a line assigns; none of a line that is no assignment, or stands in a branch."""
    left, equals, _ = line.partition(" = ")
    if not equals or line.startswith((" ", "#")):
        return []
    return [n for x in left.split(",") if (n := x.strip().split(":")[0]).isidentifier()]


def used(names: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Those of `names` that occur in `lines`, in order."""
    found = set(re.findall(r"[A-Za-z_]\w*", "\n".join(lines)))
    return [n for n in names if n in found]
