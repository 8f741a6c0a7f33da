"""What the ranks of a program are for, settled by what has a schedule.

The evidence of `analysis.ranks` says what a rank most likely is. Where a program has no schedule that way, other
readings are tried, the nearest first: heads that nobody declared as `batch`, features that are normalised over or
stand before their sequence. Every reading computes the same numbers; a schedule is the proof that one of them works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, product
from typing import TypeVar

from attndsl.analysis.ranks import (
    Kind,
    Ranks,
    alike,
    always_last,
    bystanders,
    classify,
    never_features,
)
from attndsl.cascade.nodes import Cascade
from attndsl.schedule.outcomes import Refused

T = TypeVar("T")
Kinds = dict[str, Kind]

# A recurrence and a root to be found stay what they are, whatever their ranks are for.
_WHATEVER = frozenset({"A0401", "A0402"})
_MOST_CHANGES = 3
_MOST_READINGS = 120


def settle(cascade: Cascade, attempt: Callable[[Kinds], T], known: Kinds | None = None) -> T:
    """`attempt(kinds)` under the first reading that is not refused; `kinds` settles the ranks that it names.

    `known` is the likeliest reading, where the caller has it.

    Raises: Refused, for the reason that the likeliest reading meets.
    """
    try:
        return attempt(dict(known or {}))
    except Refused as refused:
        if refused.code in _WHATEVER:
            raise
        first = refused
    for k, kinds in enumerate(readings(cascade, classify(cascade))):
        if k == _MOST_READINGS:
            break
        try:
            return attempt(kinds)
        except Refused:
            continue
    raise first


def readings(cascade: Cascade, ranks: Ranks) -> Iterator[Kinds]:
    """Other kinds for ranks that are not declared as `batch`, the least surprising first (each change has its cost).

    What may be of any length is never taken for features, which live whole inside a tile, and never are all sequences
    walked point by point. A rank that only stands by is a batch in all of them.
    """
    aside = bystanders(cascade, ranks)
    if aside:
        ranks = Ranks({**ranks.kinds, **dict.fromkeys(aside, Kind.BATCH)}, ranks.of)
        if Kind.SEQUENCE in ranks.kinds.values():
            yield dict(ranks.kinds)
    long, last = never_features(cascade, ranks), always_last(cascade, ranks)
    declared = {ranks.of.get(b, b) for b in cascade.batch}

    def others(rank: str) -> list[tuple[Kind, int]]:
        if ranks.kinds[rank] is Kind.SEQUENCE:
            small = [] if rank in long else [(Kind.FEATURE, 2)]
            return [*small, (Kind.BATCH, 2)]
        # Features taken one at a time cost a pass over the sequences for each.
        return [(Kind.SEQUENCE, 3), (Kind.BATCH, 5 if rank in last else 3)]

    free = {ranks.of.get(r, r) for t in cascade.inputs for r in t.ranks} - declared
    groups = alike(cascade, ranks.of)
    choices = []
    for rank in sorted(r for r in free if ranks.kinds[r] is not Kind.BATCH):
        group = next((g for g in groups if rank in g), {rank})
        if rank == min(group & free):  # ranks of one extent change together
            choices.append([(sorted(group), k, n) for k, n in others(rank)])
    found = [
        chosen
        for changes in range(1, _MOST_CHANGES + 1)
        for ranks_changed in combinations(choices, changes)
        for chosen in product(*ranks_changed)
    ]
    for chosen in sorted(found, key=lambda c: sum(n for _, _, n in c)):
        kinds = {**ranks.kinds, **{rank: kind for group, kind, _ in chosen for rank in group}}
        if Kind.SEQUENCE in kinds.values():
            yield kinds
