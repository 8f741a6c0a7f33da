"""The numbers of blocks, apart from the rows of an input that has one for each block.

    M[i,g] = max[j : j // w == g](S[i,j])
    ->
    rank g_1 = |g|;   M[i,g_1] = max[j : j // w == g_1](S[i,j])

An input `C[g,e]` makes `g` a sequence, with keys of its own that a sweep walks through. Where `g` only says which
positions are meant, a kernel takes one block after the other and walks the positions in it: no term spans three ranks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from attndsl.cascade.names import Names
from attndsl.cascade.nodes import Binary, Compare, Define, Extent, Position, Rank
from attndsl.cascade.walk import rename, walk


class Numbers:
    """Names of blocks' numbers, one rank for each rank of blocks."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.ranks: dict[str, str] = {}

    def apart(self, d: Define, chosen: Callable[[Compare], bool]) -> Define:
        """With indices of their own for what the conditions `chosen`, `j // w == g`, compare blocks with."""
        own: dict[str, str] = {}
        for n in walk(d.expr):
            match n:
                case Compare("==", Binary("//", Position(), _), Position(g)) if (
                    g in d.indices and g not in own and self.of_input(g) and chosen(n)
                ):
                    own[g] = self.number(g)
        if not own:
            return d
        return dataclasses.replace(
            d,
            indices=tuple(own.get(i, i) for i in d.indices),
            expr=rename(d.expr, own),
            where=None if d.where is None else rename(d.where, own),
        )

    def of_input(self, index: str) -> bool:
        return self.names.ranks[self.names.root(index)].extent is None

    def number(self, index: str) -> str:
        root = self.names.root(index)
        if root in self.ranks:
            return self.names.index(self.ranks[root])
        name = self.names.index(root)
        self.names.ranks[name] = Rank(name, extent=Extent(root))
        self.ranks[root] = name
        return name
