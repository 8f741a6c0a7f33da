"""Ranks that a program cuts in blocks, `rank j1 = |j| // w, j0 = w`: a reduction inside a block is no sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attndsl.analysis.ranks import Ranks
from attndsl.cascade.nodes import Cascade, Expr, Extent, Read, Reduce
from attndsl.cascade.walk import children, free, walk


@dataclass(frozen=True, slots=True)
class Blocks:
    """Ranks cut in blocks, `rank j1 = |j| // w, j0 = w`: `inner[j1]` is `j0`, the place in a block."""

    ranks: Ranks
    inner: Mapping[str, frozenset[str]]

    @staticmethod
    def of(c: Cascade, ranks: Ranks) -> Blocks:
        """Outer and inner parts stand in one subscript of an input, `K[j1 * w + j0, e]`."""
        cut = {r.name: r.extent for r in c.ranks if r.extent is not None}
        outer = {r for r, e in cut.items() if any(isinstance(n, Extent) for n in walk(e))}
        inputs = {t.name for t in c.inputs}
        inner: dict[str, set[str]] = {}
        for d in c.body:
            for n in walk(d.expr):
                if isinstance(n, Read) and n.tensor in inputs:
                    for s in n.subs:
                        parts = {ranks.of.get(i, i) for i in free(s)} & cut.keys()
                        for o in parts & outer:
                            inner.setdefault(o, set()).update(parts - outer)
        return Blocks(ranks, {o: frozenset(i) for o, i in inner.items()})

    def stream(self, e: Reduce) -> frozenset[str]:
        """The sequences that a reduction runs over, the places in blocks left out."""
        places = frozenset[str]().union(*self.inner.values())
        return frozenset(self.ranks.of.get(i, i) for i in self.ranks.sequence(e.indices)) - places

    def within(self, e: Reduce) -> bool:
        """Whether a reduction runs over the places in a block alone."""
        return bool(self.ranks.sequence(e.indices)) and not self.stream(e)

    def summaries(self, e: Reduce) -> bool:
        """Whether a reduction over blocks reads one value a block, none of a place in it."""
        outer = {self.ranks.of.get(i, i) for i in e.indices} & self.inner.keys()
        places = frozenset[str]().union(*(self.inner[o] for o in outer))
        return bool(outer) and not any(self.ranks.of.get(i, i) in places for i in _points(e.body))


def _points(e: Expr) -> frozenset[str]:
    """Indices of an expression outside of what it reduces."""
    if isinstance(e, Reduce):
        return frozenset()
    if isinstance(e, Read) or not children(e):
        return free(e)
    return frozenset[str]().union(*(_points(c) for c in children(e)))
