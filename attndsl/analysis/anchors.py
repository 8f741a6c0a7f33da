"""What passes from chunk to chunk goes through an anchor, a point between the two.

    exp(C[i] - C[j])   =   exp(C[i] - C[m]) * exp(C[m] - C[j])
    i - j              =   (i - m) + (m - j)

A gate is an exponential of what rows and columns add to its exponent, a step a difference of positions. Both are known
from a column to an anchor, from one anchor to the next, and from an anchor to a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from attndsl.cascade.nodes import Binary, Call, Const, Expr, Index, Position, Unary
from attndsl.cascade.walk import rewrite


@dataclass(frozen=True, slots=True)
class Anchor:
    """A point between two chunks: its position, and the same kept inside the columns' rank, where tensors are read.

    Beyond the last column the two differ, and nothing is carried any more.
    """

    place: Expr
    inside: Expr


@dataclass(frozen=True, slots=True)
class Gate:
    """`base ** (row(i) + column(j) + sum of coefficient * (…i + slope * j + …))`; no base means `exp`.

    At an anchor stands minus the columns' part, or the rows' if they fall along the axis `falls`: `exp(K[j] - M[i])`,
    with a running maximum `M`, is `exp(K[j] - M[m]) * exp(M[m] - M[i])`, and neither exponent is positive.
    """

    row: Expr | None
    column: Expr | None
    steps: tuple[Step, ...] = ()
    base: Expr | None = None
    falls: str | None = None

    def at_row(self, col: str, anchor: Anchor) -> Expr:
        """From the anchor to a row."""
        return self._power(self._to_row(col, anchor))

    def at_column(self, col: str, anchor: Anchor) -> Expr:
        """From a column to the anchor."""
        return self._power(self._from_column(col, anchor))

    def meets(self, row: str, col: str) -> bool:
        """Whether the exponent is 0 where row and column are the same point."""
        if self.row is None or self.column is None or self.falls is not None:
            return True
        return at(negated(self.column), col, Position(row)) == self.row

    def row_exponent(self, col: str, anchor: Anchor) -> Expr:
        """The logarithm of `at_row`."""
        return self._natural(self._to_row(col, anchor))

    def column_exponent(self, col: str, anchor: Anchor) -> Expr:
        """The logarithm of `at_column`."""
        return self._natural(self._from_column(col, anchor))

    def across(self, col: str, old: Anchor, new: Anchor) -> Expr:
        """From one anchor to the next."""
        before, after = self._column(col, old), self._column(col, new)
        parts = [
            _minus(before, after),
            *(s.between(old.place, new.place) for s in self.steps),
        ]
        return self._power(_exponent(parts))

    def _column(self, col: str, anchor: Anchor) -> Expr | None:
        """What stands for the columns' part at an anchor."""
        if self.falls is not None and self.row is not None:
            return negated(at(self.row, self.falls, anchor.inside))
        return None if self.column is None else at(self.column, col, anchor.inside)

    def _to_row(self, col: str, anchor: Anchor) -> Expr:
        steps = (s.to_row(col, anchor.place) for s in self.steps)
        return _exponent([self.row, self._column(col, anchor), *steps])

    def _from_column(self, col: str, anchor: Anchor) -> Expr:
        steps = (s.between(Position(col), anchor.place) for s in self.steps)
        return _exponent([_minus(self.column, self._column(col, anchor)), *steps])

    def _power(self, exponent: Expr) -> Expr:
        return Call("exp", (exponent,)) if self.base is None else Binary("**", self.base, exponent)

    def _natural(self, exponent: Expr) -> Expr:
        if self.base is None:
            return exponent
        return Binary("*", Call("log", (self.base,)), exponent)


@dataclass(frozen=True, slots=True)
class Step:
    """A coefficient times a difference of positions, `coefficient * (i - j)`: exact, however far apart they are."""

    coefficient: Expr | None
    distance: Expr
    slope: int

    def to_row(self, col: str, anchor: Expr) -> Expr:
        return self._times(at(self.distance, col, anchor))

    def between(self, a: Expr, b: Expr) -> Expr:
        """What the step from column `b` on to column `a` adds."""
        far = Binary("-", b, a) if self.slope < 0 else Binary("-", a, b)
        size = abs(self.slope)
        return self._times(far if size == 1 else Binary("*", Const(size), far))

    def _times(self, e: Expr) -> Expr:
        return e if self.coefficient is None else Binary("*", self.coefficient, e)


def at(e: Expr, axis: str, point: Expr) -> Expr:
    """An expression at a point of an axis."""

    def rule(n: Expr) -> Expr | None:
        return point if isinstance(n, Position | Index) and n.name == axis else None

    return rewrite(e, rule)


def _exponent(parts: Sequence[Expr | None]) -> Expr:
    return total([p for p in parts if p is not None]) or Const(0.0)


def negated(e: Expr) -> Expr:
    match e:
        case Unary("-", a):
            return a
        case Const(value) if not isinstance(value, bool):
            return Const(-value)
        case _:
            return Unary("-", e)


def total(parts: Sequence[Expr]) -> Expr | None:
    """The sum of parts, written with differences; None of none."""

    def plus(a: Expr, b: Expr) -> Expr:
        return Binary("-", a, b.arg) if isinstance(b, Unary) and b.op == "-" else Binary("+", a, b)

    positive_first = sorted(parts, key=lambda p: isinstance(p, Unary))
    return reduce(plus, positive_first) if parts else None


def _minus(a: Expr | None, b: Expr | None) -> Expr | None:
    if a is None or b is None:
        return None
    if isinstance(a, Unary) and isinstance(b, Unary) and a.op == b.op == "-":
        return Binary("-", b.arg, a.arg)
    return Binary("-", a, b)
