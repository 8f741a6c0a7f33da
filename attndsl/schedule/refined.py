"""Searches in two stages: a guess from rounded inputs, and from there the root.

A round of a search takes a sweep, and in 32 bits the products of a sweep take six or more times as long as in 16. Only
the last round decides about the digits of a root, so the rounds before it may see rounded scores:

before:  M(Q, K) -> M;  T(Q, K, M) -> T
after:   M(Q', K') -> M;  T(Q', K', M) -> T;  T_exact(Q, K, T) -> T        Q', K' of 16 bits

The bracket of rounded scores is not that of exact ones: `T_exact` takes the sums and extrema that it is made of in its
own sweep. Nothing depends on how good the guess is but the number of rounds that follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from attndsl.analysis.ranks import Ranks
from attndsl.cascade.nodes import Cascade
from attndsl.schedule.kernels import build_kernel
from attndsl.schedule.levels import Key
from attndsl.schedule.liveness import flat
from attndsl.schedule.outcomes import Needs, Refused
from attndsl.schedule.tile import AccDot, BufferKind, Dot, Step, TileProgram


def search_again(
    c: Cascade,
    ranks: Ranks,
    key: Key,
    made: TileProgram,
    done: frozenset[str],
    rows: frozenset[str],
) -> TileProgram:
    """A search, with the one that goes on from what it finds, where that can be had and products are worth it."""
    ranges = made.sweep.ranges if made.sweep is not None else ()
    if not any(isinstance(s, Dot | AccDot) for r in ranges for s in flat(r.body)):
        return made
    known = done - {x for x in made.reads if x not in {i.name for i in c.inputs}}
    try:
        name = f"{made.name}_exact"
        again = build_kernel(c, ranks, key, list(made.writes), known, rows, name, refines=True)
    except (Needs, Refused):
        return made
    return dataclasses.replace(made, again=again)


def with_guesses(steps: tuple[Step, ...], kinds: Mapping[str, BufferKind]) -> tuple[Step, ...]:
    """The steps, marked where what they make is only a guess; searches that cannot start from one have no second stage.

    What a search reads of earlier kernels must be read by nothing else: it is made from rounded inputs too.
    """
    programs = [s for s in steps if isinstance(s, TileProgram)]
    rough: set[str] = set()
    kept: set[str] = set()
    for p in programs:
        if p.again is None:
            continue
        makers = [q for q in programs if q is not p and set(q.writes) & set(p.reads)]
        made = {x for q in makers for x in q.writes}
        alone = all(kinds[x] is BufferKind.TEMP for x in made) and not any(
            made & set(q.reads) for q in programs if q is not p
        )
        whole = all(kinds[x] is BufferKind.INPUT for q in makers for x in q.reads)
        if alone and whole and not any(q.rounds for q in makers):
            rough |= {q.name for q in (*makers, p)}
            kept.add(p.name)

    def marked(s: Step) -> Step:
        if not isinstance(s, TileProgram):
            return s
        again = s.again if s.name in kept else None
        return dataclasses.replace(s, rough=s.name in rough, again=again)

    return tuple(marked(s) for s in steps)
