"""Fresh names and the ranks of bound indices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from attndsl.cascade.nodes import Expr, Rank
from attndsl.source import Span


class Namespace:
    """Hands out names that nothing else has; deterministic, so that every artefact is stable."""

    def __init__(self, used: Iterable[str]) -> None:
        self._used = set(used)

    def fresh(self, base: str) -> str:
        """`base`, or `base_1`, `base_2`, …"""
        name, n = base, 0
        while name in self._used:
            n += 1
            name = f"{base}_{n}"
        self._used.add(name)
        return name

    def snapshot(self) -> frozenset[str]:
        return frozenset(self._used)

    def restore(self, used: frozenset[str]) -> None:
        self._used = set(used)


class RankTable:
    """The ranks of a cascade: declared ones, and for each other index the declared rank that it runs over."""

    def __init__(self) -> None:
        self._ranks: dict[str, Rank] = {}

    def add(self, rank: Rank) -> None:
        self._ranks.setdefault(rank.name, rank)

    def __contains__(self, name: str) -> bool:
        return name in self._ranks

    def declared(self, name: str) -> str:
        """The declared rank whose extent the index has."""
        return self._ranks[name].iterates or name

    def iterate(self, name: str, over: str, span: Span | None) -> None:
        """Declare an index that runs over a declared rank."""
        self._ranks[name] = Rank(name, iterates=self.declared(over), span=span)

    def set_extent(self, name: str, extent: Expr) -> None:
        self._ranks[name] = replace(self._ranks[name], extent=extent)

    def kept(self, used: frozenset[str]) -> tuple[Rank, ...]:
        """All declared ranks, and the running ones that are used."""
        return tuple(r for r in self._ranks.values() if r.iterates is None or r.name in used)

    def snapshot(self) -> dict[str, Rank]:
        return dict(self._ranks)

    def restore(self, ranks: dict[str, Rank]) -> None:
        self._ranks = dict(ranks)
