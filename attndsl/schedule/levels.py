"""Which targets share a kernel, and in which round each kernel runs.

A target's *key* says how its kernel walks: the sequence ranks it keeps (tiles), the batch ranks of its grid, the rank
it streams, and the ranks it walks point by point around that (loops): summed batch ranks, and further sequences.
Targets of one key and one level share a kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.analysis.rowscans import within_of
from attndsl.cascade.nodes import (
    Define,
    Reduce,
    Solve,
)
from attndsl.cascade.walk import reads
from attndsl.schedule.forms import is_large
from attndsl.schedule.roots import curve_of, slope_of


class Key(NamedTuple):
    """How a kernel walks."""

    tiles: tuple[str, ...]
    grid: tuple[str, ...]
    loops: tuple[str, ...]
    stream: str | None
    root: str | None = None
    """The root that the kernel finds: it walks in rounds, and shares them with nothing."""


def target_key(
    defs: dict[str, Define], x: str, ranks: Ranks, grid_order: tuple[str, ...], stop: set[str]
) -> Key:
    """The tiles, the grid and the loops of the kernel that computes a target."""
    d = defs[x]
    of = ranks.of
    grid = tuple(
        sorted(
            (of.get(i, i) for i in d.indices if ranks.kind(i) is Kind.BATCH),
            key=lambda r: (grid_order.index(r) if r in grid_order else len(grid_order), r),
        )
    )
    tiles = tuple(of.get(i, i) for i in ranks.sequence(d.indices))
    root = x if isinstance(d.expr, Solve) else None
    found = reduced(defs, x, ranks, stop)
    if not found:
        return Key(tiles, grid, (), None, root)
    first = found[0].expr
    assert isinstance(first, Reduce)
    sequences = [of.get(i, i) for i in ranks.sequence(first.indices)]
    stream = sequences[0] if sequences else None
    batch = (of.get(i, i) for i in first.indices if ranks.kind(i) is Kind.BATCH)
    loops = (*batch, *sequences[1:])
    return Key(tiles, grid, loops, stream, root)


def join(keys: dict[str, Key]) -> dict[str, Key]:
    """Row maps that stream nothing go with a kernel that keeps the same rows."""
    out = dict(keys)
    streaming = [k for k in keys.values() if k.stream and not k.loops and not k.root]
    for x, key in keys.items():
        if key.stream is None and not key.loops and not key.root and len(key.tiles) == 1:
            out[x] = next((k for k in streaming if k[:2] == key[:2]), key)
    return out


def reduced(defs: dict[str, Define], x: str, ranks: Ranks, stop: Collection[str]) -> list[Define]:
    """The large reductions that a target reaches without another reduction between."""
    out: list[Define] = []
    seen: set[str] = set()
    tiles = {ranks.of.get(i, i) for i in ranks.sequence(defs[x].indices)}

    def visit(name: str) -> None:
        if name in seen or name not in defs or (name in stop and name != x):
            return
        seen.add(name)
        d = defs[name]
        if within_of(d, ranks) is not None:  # of the tile itself: nothing is walked for it
            return
        if is_large(d.expr, ranks):
            if {ranks.of.get(i, i) for i in ranks.sequence(d.indices)} == tiles:
                out.append(d)
            return
        for e in (d.expr, d.where):
            for r in sorted(reads(e)) if e is not None else ():
                visit(r)

    visit(x)
    return out


def levels(
    targets: Iterable[str],
    apart: set[tuple[str, str]],
    nodes: list[str],
    keys: dict[str, Key],
    cones: dict[str, set[str]],
    after: dict[str, tuple[str, ...]],
) -> dict[str, int]:
    """In which round each target is computed: after what it loads, and as late as others of its kind.

    `apart` has the pairs (t, p) where t loads p, though they could share a kernel. `after` gives the tensors that a sum
    of the framework or a scatter follows; they have no kernel of their own kind.
    """
    level: dict[str, int] = {}

    def gap(x: str, p: str) -> int:
        if x in after or p in after:
            return 1
        return 0 if keys[p] == keys[x] and (x, p) not in apart else 1

    for x in nodes:
        below = {*cones[x], *after.get(x, ())}
        level[x] = max((level[p] + gap(x, p) for p in below if p in level), default=0)
    for x in reversed(nodes):
        if x in after:
            continue
        latest = max(level[y] for y in targets if keys[y] == keys[x])
        users = [
            level[y] - gap(y, x)
            for y in nodes
            if y != x and (x in cones[y] or x in after.get(y, ()))
        ]
        level[x] = max(level[x], min([latest, *users]))
    return level


def cone(
    defs: dict[str, Define],
    tensor: str,
    stop: set[str] | frozenset[str] = frozenset(),
    itself: bool = False,
) -> set[str]:
    """All body tensors that a tensor is computed from; not through those in `stop`."""
    out: set[str] = set()
    todo = [tensor]
    while todo:
        d = defs[todo.pop()]
        seen = {r for e in (d.expr, d.where) if e is not None for r in reads(e)}
        if isinstance(d.expr, Solve):  # a search reads how steep the equation is
            seen |= {slope_of(d.tensor), curve_of(d.tensor)}
        for r in seen:
            if r in defs and r not in out:
                out.add(r)
                if r not in stop:
                    todo.append(r)
    return out if itself else out - {tensor}
