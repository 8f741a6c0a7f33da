"""Inputs that repeat along batch indices, so that exact results need computing once for all copies.

    copies = copies_of(cascade, extents)                # {"b": 2, "h": 8}: of two entries each
    small = once(extents, copies)                       # extents of one copy
    repeated(x, ranks, copies)                          # a tensor of these in place of all

Float64 is two orders of magnitude slower than what is timed, and a batch is as many times the same work. Two entries of
an index are left where there are: a kernel that mistakes one for another is found out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from attndsl.cascade.nodes import Cascade, Expr, Extent, Position, Reduce
from attndsl.cascade.walk import walk

# Entries of a batch index that are left.
LEFT = 2


def copies_of(cascade: Cascade, extents: Mapping[str, int]) -> dict[str, int]:
    """How many copies of a few entries each batch index has whose entries do not know which they are."""
    out = {}
    for r in separate(cascade):
        n = extents.get(r, 1)
        left = LEFT if n % LEFT == 0 else 1
        if n > left:
            out[r] = n // left
    return out


def separate(cascade: Cascade) -> list[str]:
    """Batch indices that choose entries and nothing else, and that every output has."""
    used = {r.iterates for r in cascade.ranks}
    for e in _expressions(cascade):
        match e:
            case Position(name) | Extent(name):
                used.add(name)
            case Reduce():
                used |= set(e.indices)
            case _:
                pass
    return [
        r for r in cascade.batch if r not in used and all(r in o.indices for o in cascade.outputs)
    ]


def _expressions(cascade: Cascade) -> Iterator[Expr]:
    """Every node of a program."""
    whole: list[Expr | None] = [*cascade.assumes, *(r.extent for r in cascade.ranks)]
    for t in cascade.inputs:
        whole += t.dims
    for d in cascade.body:
        whole += [d.expr, d.where, d.init]
    for e in whole:
        if e is not None:
            yield from walk(e)


def once(extents: Mapping[str, int], copies: Mapping[str, int]) -> dict[str, int]:
    """The extents of one copy."""
    return {r: n // copies.get(r, 1) for r, n in extents.items()}


def repeated(x: Tensor, ranks: Sequence[str], copies: Mapping[str, int]) -> Tensor:
    """All copies of a tensor with axes of these ranks."""
    times = [copies.get(r, 1) for r in ranks]
    return x.repeat(times) if math.prod(times) > 1 else x


def summed(ranks: Sequence[str], copies: Mapping[str, int]) -> int:
    """How many copies a gradient with axes of these ranks is the sum of."""
    return math.prod(n for r, n in copies.items() if r not in ranks)
