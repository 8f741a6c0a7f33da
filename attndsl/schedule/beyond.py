"""What values are in the rows of a tile beyond the end of a sequence, and whether they are numbers.

Loads give 0 there, and what is computed of that need not be a number: `K * rsqrt(sum(K**2))` is 0 times infinity, and
`exp(G[t] - G[t_0])` overflows where every other `G` is far below 0. What depends on no row beyond is taken to be
finite, as it is for the rows of the sequence.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Expr,
    Extent,
    Logic,
    Position,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import children
from attndsl.schedule import tile as t
from attndsl.schedule.carried import updated
from attndsl.schedule.specialise import defined, used
from attndsl.schedule.tile import Val


@dataclass(frozen=True, slots=True)
class Held:
    """A value in the rows beyond, where it is known; `strange` if no row of the sequence need have it."""

    number: float | None = None
    strange: bool = False

    @property
    def finite(self) -> bool:
        return self.number is None or math.isfinite(self.number)


SOME = Held()
STRANGE = Held(strange=True)
ZERO = Held(0.0, strange=True)
BROKEN = Held(math.nan, strange=True)  # perhaps no number

# Functions that some numbers have no finite value of.
PARTIAL = frozenset({"exp", "exp2", "log", "log2", "sqrt", "rsqrt", "acos"})
NUMBERS: dict[str, Callable[..., float]] = {
    "exp": math.exp,
    "exp2": lambda x: math.exp(x * math.log(2)),
    "log": lambda x: math.log(x) if x else -math.inf,
    "log2": lambda x: math.log2(x) if x else -math.inf,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x) if x else math.inf,
    "abs": abs,
    "min": min,
    "max": max,
    "floor": math.floor,
    "ceil": math.ceil,
}
OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.copysign(math.inf, a) if a else math.nan,
    "**": operator.pow,
}


def either(*held: Held) -> Held:
    """What may be any of these."""
    if not all(x.finite for x in held):
        return BROKEN
    strange = any(x.strange for x in held)
    numbers = {x.number for x in held}
    return Held(held[0].number if len(numbers) == 1 else None, strange)


class Rows:
    """What values are in the rows beyond the end, one after the other, and what each is made of."""

    def __init__(self, row: str, rank: str, repeated: frozenset[str] = frozenset()) -> None:
        self.row = row
        self.rank = rank
        self.repeated = repeated  # loads that give the last row there
        self.values: dict[str, Held] = {}
        self.made_of: dict[str, set[str]] = {}

    def run(self, body: Sequence[t.Stmt]) -> Rows:
        for s in body:
            self.statement(s)
        return self

    def broken(self, values: Iterable[str]) -> set[str]:
        """The first values that may be no numbers, of which these are made."""
        out, seen = set[str](), set[str]()
        todo = [v for v in values if not self.get(v).finite]
        while todo:
            v = todo.pop()
            if v in seen:
                continue
            seen.add(v)
            parts = [p for p in self.made_of[v] if p != v and not self.get(p).finite]
            todo += parts
            out |= set() if parts else {v}
        return out

    def get(self, name: str) -> Held:
        return self.values.get(name, SOME)

    def statement(self, s: t.Stmt) -> None:
        if isinstance(s, t.For):
            self.run(s.body)
            return
        made = defined(s) or next(iter(updated(s)), None)
        if made is None:
            return
        self.made_of[made] = self.made_of.get(made, set()) | used(s)
        match s:
            case t.Load():
                x = ZERO if self.row in s.bounds and s.name not in self.repeated else SOME
            case t.Compute(expr=Binary("/", a, b), safe=True) if (
                self.value(a).number == 0 and self.value(b).number == 0
            ):
                x = ZERO
            case t.Compute() | t.Declare():
                x = self.value(s.expr)
            case t.Assign():
                x = either(self.values.get(made, SOME), self.value(s.expr))
            case t.Dot():
                x = self.product(s.left, s.right, s.over)
            case t.AccDot():
                x = _binary("+", self.values[made], self.product(s.left, s.right, s.over))
            case t.Fold():
                x = self.folded(s)
            case t.Pick():  # of the rows themselves another one
                x = SOME if s.over == self.row else self.values.get(s.src, SOME)
                x = x if x.number in (None, 0) else Held(strange=x.strange)
            case t.Scan():
                x = self.values.get(s.src, SOME)
                x = x if x.number == 0 or not x.finite else Held(strange=x.strange)
            case _:
                x = SOME
        self.values[made] = x

    def folded(self, s: t.Fold) -> Held:
        x = self.values.get(s.src, SOME)
        if s.over == self.row:
            return SOME
        if s.op not in (Reduction.SUM, Reduction.PROD) or x.number == 0 or not x.finite:
            return x
        return Held(strange=x.strange)

    def product(self, left: str, right: str, over: str) -> Held:
        """Of two tiles; what is summed over the rows themselves is masked where it is made."""
        if over == self.row:
            return SOME
        x = _binary("*", *(self.values.get(v, SOME) for v in (left, right)))
        return x if x.number == 0 or not x.finite else Held(strange=x.strange)

    def value(self, e: Expr) -> Held:
        match e:
            case Const(v):
                return Held(float(v))
            case Val(name):
                return self.values.get(name, SOME)
            case Position(self.row):
                return STRANGE
            case Compare("<", Position(self.row), Extent(self.rank)):
                return ZERO
            case Logic("and", args) if any(self.value(a).number == 0 for a in args):
                return ZERO
            case Compare() | Logic():
                return SOME
            case Select(cond, then, other):
                c = self.value(cond)
                if c.number is not None:
                    return self.value(then if c.number else other)
                return either(self.value(then), self.value(other))
            case Unary("-", arg):
                return _binary("*", Held(-1.0), self.value(arg))
            case Binary(op, a, b):
                return _binary(op, self.value(a), self.value(b))
            case Call(fn, args):
                return _call(fn, [self.value(a) for a in args])
            case _:
                parts = [self.value(c) for c in children(e)]
                return either(SOME, *parts)


def _binary(op: str, a: Held, b: Held) -> Held:
    strange = a.strange or b.strange
    if a.number is not None and b.number is not None:
        return _number(OPERATORS[op], (a, b)) if op in OPERATORS else Held(strange=strange)
    if not (a.finite and b.finite):
        return (
            Held(0.0, strange)
            if op == "/" and a.finite and b.number in (math.inf, -math.inf)
            else BROKEN
        )
    if op == "*" and 0 in (a.number, b.number):
        return Held(0.0, strange)
    if op == "/" and (b.number == 0 or (b.strange and b.number is None)):
        return BROKEN
    if op == "**" and strange and (b.number is None or b.number < 0 or b.number % 1):
        return BROKEN
    return Held(strange=strange)


def _call(fn: str, args: list[Held]) -> Held:
    strange = any(a.strange for a in args)
    if fn in NUMBERS and all(a.number is not None for a in args):
        return _number(NUMBERS[fn], args)
    if not all(a.finite for a in args) or (strange and fn in PARTIAL):
        return BROKEN
    return Held(strange=strange)


def _number(fn: Callable[..., float], args: Sequence[Held]) -> Held:
    try:
        x = float(fn(*(a.number for a in args)))
    except (OverflowError, ValueError, ZeroDivisionError, TypeError):
        return BROKEN
    return Held(x, any(a.strange for a in args))
