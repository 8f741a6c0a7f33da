"""Which forward tensors the backward program keeps, and which it computes again.

A tensor made by a sum over a sequence (`M[i] = max[j](…)`, `O[i,f]`) costs a sweep to repeat and one row to keep, so it
is kept. A tensor over a pair of sequences (`S[i,j]`) costs a matrix product to repeat and an N x N matrix to keep, so
it is repeated, as is anything elementwise and any sum over features alone (`sum[e](Q[i,e] * K[j,e])`).
"""

from __future__ import annotations

from attndsl.cascade.nodes import (
    Cascade,
    Compare,
    Define,
    Index,
    Position,
    Reduce,
    Reduction,
    Solve,
)
from attndsl.cascade.walk import free, walk


def sequences(cascade: Cascade) -> frozenset[str]:
    """The ranks that run over a sequence, by how the inputs are laid out and what is asked of positions.

    The axis before the last of an input (`Q[b,h,i,e]`) is a sequence and the last one is its features, unless more
    says otherwise: an index that is compared, scanned, split or maximised over is a sequence too.
    """
    out: set[str] = set()
    for t in cascade.inputs:
        axes = [
            r
            for r, d in zip(t.ranks, t.dims, strict=True)
            if r not in cascade.batch and not (free(d) <= frozenset(cascade.batch))
        ]
        out |= set(axes[-2:-1])
    for r in cascade.ranks:
        if r.extent is not None:
            out.add(r.name)
        if r.iterates is not None and _scans(cascade, r.name):
            out.add(r.iterates)
    for d in cascade.body:
        for e in (d.expr, d.where):
            for n in walk(e) if e is not None else ():
                match n:
                    case Compare():
                        out |= {x.name for x in walk(n) if isinstance(x, Position | Index)}
                    case Reduce(op=op) if op is not Reduction.SUM:
                        out |= set(n.indices)
                    case _:
                        pass
    roots = {r.name: r.iterates for r in cascade.ranks}
    for i in list(out):
        while (above := roots.get(i)) is not None:
            out.add(above)
            i = above
    out |= {r.name for r in cascade.ranks if r.iterates in out}
    return frozenset(out) - frozenset(cascade.batch)


def _scans(cascade: Cascade, index: str) -> bool:
    return any(
        isinstance(n, Reduce) and index in n.indices and n.where is not None
        for d in cascade.body
        for n in walk(d.expr)
    )


def is_kept(d: Define, sequence: frozenset[str]) -> bool:
    """Is the tensor a result over a sequence that is not itself a matrix over two?"""
    if sum(i in sequence for i in d.indices) > 1:
        return False
    return any(
        isinstance(n, Solve) or (isinstance(n, Reduce) and bool(set(n.indices) & sequence))
        for n in walk(d.expr)
    )
