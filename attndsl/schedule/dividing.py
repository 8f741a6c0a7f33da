"""Sums of features over one walk, divided among kernels that each have room for theirs.

    dV = dV.1 - lam * dV.2;  dK1;  dK2        dV.1 and dK1 need one matrix of scores, dV.2 and dK2 another
    ->  a kernel of dV.1 and dK1;  a kernel of dK2 and dV, which reads dV.1

What two kernels both need is made in each, so that the sums which need the same go together: of all ways with room in
every kernel, the one with the fewest matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from attndsl.schedule.liveness import crowded, flat, roomy
from attndsl.schedule.outcomes import Needs, Refused
from attndsl.schedule.tile import AccDot, Dot, TileProgram

MOST = 5
"""Sums up to which all ways are tried; beyond, each has a kernel of its own."""

Build = Callable[[list[str], frozenset[str]], TileProgram]
"""The kernel of some targets, given what is in memory."""


def divided(
    sums: Mapping[str, Sequence[str]], thin: Sequence[str], done: frozenset[str], build: Build
) -> list[TileProgram] | None:
    """The kernels of targets by the sums that each adds up, with `thin` targets in the last; None if some has no room.

    `done` is in memory already.
    """
    every = list(
        dict.fromkeys(x for parts in sums.values() for x in parts)
    )  # targets may share sums
    if len(every) < 2:
        return None
    best: tuple[tuple[int, int], list[TileProgram]] | None = None
    for groups in _ways(every) if len(every) <= MOST else iter([[[x] for x in every]]):
        # Kernels of later sums first: what the targets add to them is there when the first is made.
        made = _kernels(groups[::-1], sums, thin, done, build) if len(groups) > 1 else None
        if made is None:
            continue
        cost = sum(map(_products, made)), len(made)
        if best is None or cost < best[0]:
            best = cost, made
    return None if best is None else best[1]


def _kernels(
    groups: list[list[str]],
    sums: Mapping[str, Sequence[str]],
    thin: Sequence[str],
    done: frozenset[str],
    build: Build,
) -> list[TileProgram] | None:
    """A kernel for each group of sums, each target in the last that has a part of it; None if one has no room."""
    known = done
    left = {m: set(parts) for m, parts in sums.items()}
    out: list[TileProgram] = []
    for group in groups:
        targets: list[str] = []
        for m in left:
            here = left[m] & {*group}
            left[m] -= here
            # All that is missing of it is made here; else its part goes to memory.
            made_here = [m] if here and not left[m] else [x for x in sums[m] if x in here]
            targets += [x for x in made_here if x not in targets]
        if group is groups[-1]:
            targets += thin
        try:
            made = build(targets, known)
        except (Needs, Refused):  # what one makes on its way another would wait for
            return None
        if crowded(made) or not roomy(made):
            return None
        known |= {*targets}
        out.append(made)
    return out


def _products(program: TileProgram) -> int:
    assert program.sweep is not None
    return sum(isinstance(s, AccDot | Dot) for s in flat(program.sweep.ranges[-1].body))


def _ways(items: Sequence[str]) -> Iterator[list[list[str]]]:
    """All ways to put items in groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for groups in _ways(rest):
        yield [[first], *groups]
        for k, group in enumerate(groups):
            yield [*groups[:k], [first, *group], *groups[k + 1 :]]
