"""The numbers of blocks, apart from the rows of an input that has one for each block.

    M[i,g] = max[j : j // w == g](S[i,j])
    ->
    rank g_1 = |g|;   M[i,g_1] = max[j : j // w == g_1](S[i,j])

An input `C[g,e]` makes `g` a sequence, with keys of its own that a sweep walks through. Where `g` only says which
positions are meant, a kernel takes one block after the other and walks the positions in it: no term spans three ranks.
The gradient of what rows read at `j // w` is such a sum too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from attndsl.analysis.ranks import Kind, classify
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import Binary, Cascade, Compare, Define, Extent, Position, Rank
from attndsl.cascade.walk import rename, walk


def numbered(c: Cascade, known: Mapping[str, Kind] | None = None) -> Cascade:
    """With ranks of their own for the numbers of blocks in what is reduced for every row and block.

    requires: another sequence is kept beside the blocks (`known` settles which ranks are); no output changes its ranks
    """
    if not any(_blocks(d) for d in c.body):
        return c
    names = Names(c)
    numbers = _Numbers(names)
    ranks = classify(c, dict(known or {}))
    outputs = {o.name for o in c.outputs}
    body = tuple(
        numbers.apart(d, sequences)
        if d.tensor not in outputs and len(sequences := ranks.sequence(d.indices)) > 1
        else d
        for d in c.body
    )
    if not numbers.ranks:
        return c
    declared = {*(r.name for r in c.ranks)}
    more = tuple(r for n, r in names.ranks.items() if n in numbers.made and n not in declared)
    return dataclasses.replace(c, body=body, ranks=(*c.ranks, *more))


def _blocks(d: Define) -> tuple[str, ...]:
    """The kept indices that blocks of positions are compared with."""
    found: dict[str, None] = {}
    for n in walk(d.expr):
        match n:
            case Compare("==", Binary("//", Position(), _), Position(g)) if g in d.indices:
                found[g] = None
    return tuple(found)


class _Numbers:
    """Indices of the numbers of blocks, over one rank for each rank of blocks."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.ranks: dict[str, str] = {}
        self.made: set[str] = set()

    def apart(self, d: Define, sequences: tuple[str, ...]) -> Define:
        of_inputs = [g for g in _blocks(d) if self.names.ranks[self.names.root(g)].extent is None]
        own = {g: self.number(g) for g in of_inputs if g in sequences}
        if not own:
            return d
        return dataclasses.replace(
            d,
            indices=tuple(own.get(i, i) for i in d.indices),
            expr=rename(d.expr, own),
            where=None if d.where is None else rename(d.where, own),
        )

    def number(self, index: str) -> str:
        root = self.names.root(index)
        name = self.names.index(self.ranks.get(root, root))
        if root not in self.ranks:
            self.names.ranks[name] = Rank(name, extent=Extent(root))
            self.ranks[root] = name
        self.made.add(name)
        return name
