"""Scans down the rows of a cascade in normal form: as they begin at a block of rows, and inside of a block.

F.before[n,j] = sum[l : l // W < n](X[l,j])                    before_of: known at the beginning of block n
F.within[i,j] = sum[l : l // W == i // W, l < i](X[l,j])       within_of: of the block of i alone, no sweep
"""

from __future__ import annotations

import dataclasses

from attndsl.analysis.ranks import Ranks
from attndsl.analysis.scans import Scan, scan_of
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import Binary, Compare, Const, Define, Position, Reduce, Reduction

WIDTH = 64
"""Rows of a block: the tile that both passes take by themselves for 16-bit data on a large card."""
BLOCKS = ".blocks"
"""What the name of the rank that numbers blocks ends with."""


def within_of(d: Define, ranks: Ranks) -> Scan | None:
    """A definition as a scan inside each block of rows; None if it is none."""
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or len(e.indices) != 1:
        return None
    (over,) = e.indices
    parts = conjuncts(e.where)
    for c in parts:
        match c:
            case Compare(
                "==", Binary("//", Position(l), Const(w)), Binary("//", Position(i), v)
            ) if l == over and w == WIDTH and v == Const(WIDTH) and i in d.indices:
                rest = conjunction(p for p in parts if p is not c)
                return scan_of(
                    dataclasses.replace(d, expr=dataclasses.replace(e, where=rest)), ranks
                )
    return None


def before_of(d: Define, ranks: Ranks) -> Scan | None:
    """A definition as a scan that is known at the beginning of each block, `kept` its number; None if it is none."""
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or len(e.indices) != 1:
        return None
    (over,) = e.indices
    parts = conjuncts(e.where)
    for c in parts:
        match c:
            case Compare("<" | ">" as op, Binary("//", Position(l), Const(w)), Position(n)) if (
                l == over and w == WIDTH and n in d.indices and n.endswith(BLOCKS)
            ):
                rest = conjunction(p for p in parts if p is not c)
                return Scan(over, n, op == ">", False, e.body, rest, None)
    return None
