"""Which causal sums carry over from chunk to chunk: the decision behind linear attention.

    O[i,f] = sum[j : j <= i](sum[e](Q[i,e] * K[j,e]) * exp(C[i] - C[j]) * V[j,f])

splits into what rows know (`Q[i,e]`), what columns know (`K[j,e] * V[j,f]`), and gates (`exp(C[i] - C[j])`). All that
rows of a later chunk need of the columns before it is one state `H[e,f]`, for a gate factors through any point between
the two: `exp(C[i] - C[m]) * exp(C[m] - C[j])`. `m`, the *anchor* (`anchors`), is the end of a chunk, so that with
decaying gates no exponent is positive.

`Splitter.terms` finds this form, or raises `NotLinear` with the factor that does not split. Nothing here knows
variants: RetNet's `gamma**(i - j)`, Mamba's `exp(C[i] - C[j])` and a running sum's `1` are the same to it.

source: Katharopoulos et al. 2020 (arXiv:2006.16236); chunks: Yang et al. 2023 (arXiv:2312.06635), section 4
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from attndsl.analysis.anchors import Gate, Step, negated, total
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Const,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.ordered import Ordered
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import free
from attndsl.source import Span


class NotLinear(Exception):
    """A sum does not carry over; the message is the reason."""

    def __init__(self, why: str, span: Span | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.span = span


# A sum of more terms than this would carry more state than it saves work.
MOST_TERMS = 4
# What a body tensor is at subscripts, where it is to be seen through; None where it stands for itself.
Inline = Callable[[Read], Expr | None]


@dataclass(frozen=True, slots=True)
class Term:
    """`row(i) * column(j) * gates(i, j) * far(i, j) * sum[over](left(i) * right(j) * inner(i, j))`, all products.

    `far` is a distance, `i - j`: that of a column from a row is that to the anchor and that from the anchor on.
    """

    row: tuple[Expr, ...] = ()
    column: tuple[Expr, ...] = ()
    gates: tuple[Gate, ...] = ()
    over: str | None = None
    left: tuple[Expr, ...] = ()
    right: tuple[Expr, ...] = ()
    inner: tuple[Gate, ...] = ()
    far: Step | None = None


@dataclass(slots=True)
class Splitter:
    """Splits the terms of one sum over the axis `col` for rows of the axis `row`."""

    row: str
    col: str
    inline: Inline
    known: Ordered = field(default_factory=dict)

    def sides(self, e: Expr) -> frozenset[str]:
        return free(e) & {self.row, self.col}

    def terms(self, e: Expr) -> tuple[Term, ...]:
        """The terms of a summand.

        Raises: NotLinear.
        """
        out: list[Term] = []
        for summand in self.distributed(e):
            draft = _Draft()
            self.collect(summand, draft, None)
            out.append(draft.term())
        if len(out) > MOST_TERMS:
            raise NotLinear(
                f"it is a sum of {len(out)} terms, each with a state of its own", e.span
            )
        return tuple(out)

    def distributed(self, e: Expr) -> list[Expr]:
        """A product of sums as a sum of products, as far as rows and columns meet in its sums.

        rewrite:  (a[i] . b[j] - D[i]) * c[j]   ->   a[i] . b[j] * c[j],  -D[i] * c[j]
        """
        match e:
            case Binary("+" | "-", _, _) if self.mixed(e) and self.slope(e) is not None:
                return [
                    e
                ]  # a distance is one: the positions themselves are large, and what is left of them cancels
            case Binary("+", a, b) if self.mixed(e):
                return self.distributed(a) + self.distributed(b)
            case Binary("-", a, b) if self.mixed(e):
                return self.distributed(a) + [negated(x) for x in self.distributed(b)]
            case Unary("-", a) if self.mixed(e):
                return [negated(x) for x in self.distributed(a)]
            case Binary("*", a, b):
                return [Binary("*", x, y) for x in self.distributed(a) for y in self.distributed(b)]
            case Binary("/", a, b):
                return [Binary("/", x, b) for x in self.distributed(a)]
            case Select() if (guarded := self.guarded(e)) is not None:
                cond, x = guarded
                return [Select(cond, y, Const(0.0)) for y in self.distributed(x)]
            case Read() if self.mixed(e) and (seen := self.inline(e)) is not None:
                parts = self.distributed(seen)
                return parts if len(parts) > 1 else [e]
            case Reduce(Reduction.SUM, indices, body, None) if self.mixed(e):
                parts = self.distributed(body)
                return [Reduce(Reduction.SUM, indices, x) for x in parts] if len(parts) > 1 else [e]
            case _:
                return [e]

    def guarded(self, e: Select) -> tuple[Expr, Expr] | None:
        """`x if cond else 0`, whichever way it is written, where the condition knows rows or columns alone."""
        if len(self.sides(e.cond)) == 2:
            return None
        if isinstance(e.other, Const) and e.other.value == 0:
            return e.cond, e.then
        if isinstance(e.then, Const) and e.then.value == 0:
            return Unary("not", e.cond), e.other
        return None

    def mixed(self, e: Expr) -> bool:
        return len(self.sides(e)) == 2

    def collect(self, e: Expr, into: _Draft, over: str | None) -> None:
        """Take a factor apart, inside the contraction over `over` if one is given."""
        sides = self.sides(e)
        if len(sides) < 2:
            into.add(e, self.col in sides, over is not None and over in free(e))
            return
        match e:
            case Binary("*", a, b):
                self.collect(a, into, over)
                self.collect(b, into, over)
            case Binary("/", a, b) if len(self.sides(b)) < 2:
                self.collect(a, into, over)
                self.collect(Binary("/", Const(1.0), b), into, over)
            case Binary("/", a, Binary("*", p, q)):
                self.collect(Binary("/", Binary("/", a, p), q), into, over)
            case Unary("-", a):
                into.add(Const(-1.0), False, False)
                self.collect(a, into, over)
            case Read() if (seen := self.inline(e)) is not None:
                self.collect(seen, into, over)
            case Reduce(Reduction.SUM, (index,), body, None) if over is None:
                if into.over is not None:
                    raise NotLinear("two products of rows with columns stand in one term", e.span)
                into.over = index
                self.collect(body, into, index)
            case Binary("+" | "-", _, _) if (slope := self.slope(e)) is not None:
                if into.far is not None:
                    raise NotLinear(
                        "a power of the distance carries one state more for each", e.span
                    )
                into.far = Step(None, e, slope)
            case Select() if (guarded := self.guarded(e)) is not None:
                cond, x = guarded
                start = into.marks()
                self.collect(x, into, over)
                into.guard(cond, self.col in self.sides(cond), start)
            case Call("exp", (arg,)):
                into.gate(self.gate(arg, None), over is not None and over in free(e))
            case Binary("**", base, power) if not self.sides(base):
                into.gate(self.gate(power, base), over is not None and over in free(e))
            case _:
                raise NotLinear(f"`{print_expr(e)}` does not split into rows and columns", e.span)

    def gate(self, e: Expr, base: Expr | None) -> Gate:
        """An exponent as what rows add, what columns add, and differences of positions."""
        rows: list[Expr] = []
        columns: list[Expr] = []
        steps: list[Step] = []
        for x in self.summands(e):
            sides = self.sides(x)
            if len(sides) == 2:
                steps.append(self.step(x))
            else:
                (columns if self.col in sides else rows).append(x)
        falls = self.row if base is None and all(map(self.falls, rows)) and columns else None
        return Gate(total(rows), total(columns), tuple(steps), base, falls if rows else None)

    def falls(self, e: Expr) -> bool:
        """Whether what rows add to an exponent is minus what is known to rise with them."""
        match e:
            case Unary("-", Read(tensor=x, subs=subs)):
                return any(
                    (x, k) in self.known and isinstance(s, Index | Position) and s.name == self.row
                    for k, s in enumerate(subs)
                )
            case _:
                return False

    def summands(self, e: Expr) -> list[Expr]:
        """The summands of an expression, those of a tensor over rows and columns too; a distance is one summand."""
        if len(self.sides(e)) < 2 or self.slope(e) is not None:
            return [e]
        match e:
            case Binary("+", a, b):
                return self.summands(a) + self.summands(b)
            case Binary("-", a, b):
                return self.summands(a) + [negated(x) for x in self.summands(b)]
            case Unary("-", a):
                return [negated(x) for x in self.summands(a)]
            case Read() if (seen := self.inline(e)) is not None:
                return self.summands(seen)
            case _:
                return [e]

    def step(self, e: Expr) -> Step:
        """A product of a difference of positions with factors that know neither."""
        slope = self.slope(e)
        if slope is not None:
            return Step(None, e, slope)
        match e:
            case Unary("-", a):
                s = self.step(a)
                c = Const(-1.0) if s.coefficient is None else negated(s.coefficient)
                return Step(c, s.distance, s.slope)
            case Binary("*", a, b) if not self.sides(a):
                s = self.step(b)
                return Step(_times(a, s.coefficient), s.distance, s.slope)
            case Binary("*" | "/" as op, a, b) if not self.sides(b):
                s = self.step(a)
                one = Const(1.0) if s.coefficient is None else s.coefficient
                return Step(Binary(op, one, b), s.distance, s.slope)
            case _:
                why = f"the exponent `{print_expr(e)}` does not split into rows and columns"
                raise NotLinear(why, e.span)

    def slope(self, e: Expr) -> int | None:
        """The integer by which an expression of positions grows with the column; None if it is none."""
        match e:
            case Position(name):
                return 1 if name == self.col else 0
            case Const(value) if isinstance(value, int):
                return 0
            case Binary("+" | "-" as op, a, b):
                x, y = self.slope(a), self.slope(b)
                if x is None or y is None:
                    return None
                return x + y if op == "+" else x - y
            case Unary("-", a):
                x = self.slope(a)
                return None if x is None else -x
            case _:
                return None


@dataclass(slots=True)
class _Draft:
    """A term being collected."""

    row: list[Expr] = field(default_factory=list)
    column: list[Expr] = field(default_factory=list)
    left: list[Expr] = field(default_factory=list)
    right: list[Expr] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    inner: list[Gate] = field(default_factory=list)
    over: str | None = None
    far: Step | None = None

    def add(self, e: Expr, column: bool, inside: bool) -> None:
        if inside:
            (self.right if column else self.left).append(e)
        else:
            (self.column if column else self.row).append(e)

    def marks(self) -> tuple[int, int, int, int]:
        """How many factors there are."""
        return len(self.row), len(self.left), len(self.column), len(self.right)

    def guard(self, cond: Expr, column: bool, since: tuple[int, int, int, int]) -> None:
        """Put a condition on the factors of its side that were added: they may be anything where it does not hold."""
        groups = zip((self.row, self.left, self.column, self.right), since, strict=True)
        for k, (group, start) in enumerate(groups):
            if (k >= 2) is column:
                group[start:] = [Select(cond, f, Const(0.0)) for f in group[start:]]
        (self.column if column else self.row).append(Select(cond, Const(1.0), Const(0.0)))

    def gate(self, g: Gate, inside: bool) -> None:
        (self.inner if inside else self.gates).append(g)

    def term(self) -> Term:
        return Term(
            tuple(self.row),
            tuple(self.column),
            tuple(self.gates),
            self.over,
            tuple(self.left),
            tuple(self.right),
            tuple(self.inner),
            self.far,
        )


def _times(a: Expr, b: Expr | None) -> Expr:
    return a if b is None else Binary("*", a, b)
