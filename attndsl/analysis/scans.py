"""Definitions that are scans: at each point of a row, the sum over the points before or behind it."""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.analysis.ranks import Ranks
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import Compare, Define, Expr, Position, Reduce, Reduction
from attndsl.cascade.walk import free


@dataclass(frozen=True, slots=True)
class Scan:
    """`sum[over : before or behind kept, rest](body) where apart`.

    `down` sums what is behind, `own` counts the point itself; `rest` does not name `kept`, and `apart` not `over`.
    """

    over: str
    kept: str
    down: bool
    own: bool
    body: Expr
    rest: Expr | None
    apart: Expr | None


_FLIP = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def scan_of(d: Define, ranks: Ranks) -> Scan | None:
    """A definition as a scan along one of its own sequences, beside another that it keeps; None if it is none."""
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or len(e.indices) != 1:
        return None
    (over,) = e.indices
    sequences = ranks.sequence(d.indices)
    if len(sequences) != 2 or not ranks.sequence(e.indices):
        return None
    for kept in sequences:
        if kept in free(e.body) or ranks.of.get(kept, kept) != ranks.of.get(over, over):
            continue
        parts = conjuncts(e.where)
        order = [c for c in parts if {kept, over} <= free(c)]
        if len(order) != 1 or not isinstance(order[0], Compare):
            continue
        match order[0]:
            case Compare(op, Position(a), Position(b)) if {a, b} == {kept, over} and op in _FLIP:
                side = op if a == kept else _FLIP[op]
                apart = conjunction(c for c in parts if over not in free(c))
                rest = conjunction(c for c in parts if c is not order[0] and over in free(c))
                down, own = side in ("<", "<="), side in ("<=", ">=")
                return Scan(over, kept, down, own, e.body, rest, apart)
    return None
