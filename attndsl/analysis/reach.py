"""Which columns a row of a causal sum sees: those before it, or those after it, of its own stretch of the sequence.

    j <= i and D[i] == D[j]   ->   the past, itself too, where no other stretch began

Whatever else a domain says of a row and a column together cuts the past of a row, and the sum does not carry over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from attndsl.analysis.anchors import Anchor, at
from attndsl.analysis.linearity import NotLinear
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import Binary, Compare, Const, Expr, Logic, Position, Select
from attndsl.cascade.ordered import NONE, Ordered, Same, same
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import free


@dataclass(frozen=True, slots=True)
class Reach:
    """Which columns a row sees: those before it, or those after it; itself too, or not.

    `row` and `column` are what is asked of either alone; `same` that both lie in one stretch of the sequence.
    """

    ascending: bool
    row: Expr | None = None
    column: Expr | None = None
    itself: bool = True
    same: tuple[Same, ...] = ()

    def to_row(self, col: str, anchor: Anchor, factors: list[Expr]) -> list[Expr]:
        """What a row takes of an anchor: nothing if it sees nothing, or another stretch begins between them."""
        kept = [Compare("==", s.row, at(s.column, col, anchor.inside)) for s in self.same]
        return _kept([*conjuncts(self.row), *kept], factors)

    def from_column(self, col: str, anchor: Anchor, factors: list[Expr]) -> list[Expr]:
        """What an anchor takes of a column."""
        kept = [Compare("==", s.column, at(s.column, col, anchor.inside)) for s in self.same]
        return _kept(kept, factors)

    def across(self, col: str, old: Anchor, new: Anchor, factors: list[Expr]) -> list[Expr]:
        """What an anchor takes of the one before."""
        ends = [(at(s.column, col, old.inside), at(s.column, col, new.inside)) for s in self.same]
        return _kept([Compare("==", a, b) for a, b in ends], factors)


def _kept(conditions: Sequence[Expr], factors: list[Expr]) -> list[Expr]:
    """A product where conditions hold, and 0 elsewhere: there it may be anything."""
    whole = conjunction(conditions)
    if whole is None:
        return factors
    product = reduce(lambda a, b: Binary("*", a, b), factors) if factors else Const(1.0)
    return [Select(whole, product, Const(0.0))]


def reach(where: Expr | None, row: str, col: str, known: Ordered = NONE) -> Reach:
    """The direction of a domain; `known` are ids whose equal ones are neighbours.

    Raises: NotLinear, if it relates rows and columns otherwise.
    """
    one: list[Same] = []
    found: list[bool] = []
    rows: list[Expr] = []
    columns: list[Expr] = []
    itself = True
    asked = conjuncts(where)
    for c in asked:
        if isinstance(c, Logic) and c.op == "or" and any(_implied(a, asked) for a in c.args):
            continue  # another condition implies it
        sides = free(c) & {row, col}
        if sides == {row, col}:
            stretch = same(c, row, col, known)
            if stretch is not None:
                one.append(stretch)
                continue
            before = _before(c, row, col)
            if before is None:
                raise NotLinear(f"`{print_expr(c)}` cuts the past of a row", c.span)
            found.append(before)
            itself &= isinstance(c, Compare) and c.op in ("<=", ">=")
        else:
            (columns if sides == {col} else rows).append(c)
    if not found:
        raise NotLinear("a row sees positions before and after it")
    if len(set(found)) > 1:
        raise NotLinear("a row sees itself alone")
    return Reach(found[0], conjunction(rows), conjunction(columns), itself, tuple(one))


def _implied(c: Expr, asked: Sequence[Expr]) -> bool:
    return all(part in asked for part in conjuncts(c))


def _before(c: Expr, row: str, col: str) -> bool | None:
    """Whether a condition says that columns come before the row; None if it says something else."""
    match c:
        case Compare("<" | "<=", Position(a), Position(b)):
            return {(col, row): True, (row, col): False}.get((a, b))
        case Compare(">" | ">=", Position(a), Position(b)):
            return {(row, col): True, (col, row): False}.get((a, b))
        case _:
            return None
