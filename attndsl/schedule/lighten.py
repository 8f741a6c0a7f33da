"""Work taken off the pairs of a sweep: what only shifts or scales a score is applied to its row statistics instead.

A score that serves nothing but maxima and exponentials of differences, `exp2(s * log2e - m)`, may be any number that
gives the same differences. Pairs are many and rows are few.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

from attndsl.cascade.nodes import Binary, Call, Const, DType, Expr, Reduction, Unary
from attndsl.cascade.signs import Sign, sign_of
from attndsl.cascade.sums import signed
from attndsl.cascade.walk import rewrite, walk
from attndsl.schedule import tile as t
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.pointwise import LOG2E
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import Val
from attndsl.schedule.values import MaskStmt, SweepStmt

Term = tuple[int, Expr]
MOST_IN_A_ROW = 16  # terms that are added one after the other; more are added by halves


def lighten(b: Kernel, body: Sequence[SweepStmt]) -> list[SweepStmt]:
    """The sweep with fewer operations for each pair.

    rewrite:  s[i,j] = a[i,j] + r[i];  f[i] = max_j(s);  p = exp2(s * log2e - m)
              ->  s = a;  f = max_j(a) + r;  p = exp2(a * log2e - (m - r * log2e))
    rewrite:  s[i,j] = a[i,j] * c;  f[i] = max_j(s);  p = exp2(s * log2e - m)
              ->  f = max_j(a) * c;  p = exp2(a * (c * log2e) - m)
    requires: `s`, or `s` masked with -inf, has no other use; `m` and `f` span what `r` spans; `c` is positive
    source:   shift invariance of the softmax; FlashAttention-2, section 3.1
    """
    out = list(body)
    done: set[str] = set()
    while True:
        # From the last to the first: what one is freed of, the one before may be too.
        left = [s for s in reversed(out) if _makes_pairs(s) and s.name not in done]
        if not left:
            return out
        done.add(left[0].name)
        score = _Score.of(b, out, left[0])
        if score is not None:
            out = score.shifted() or score.scaled() or out


def _makes_pairs(s: SweepStmt) -> TypeGuard[t.Compute]:
    return isinstance(s, t.Compute) and s.dtype is DType.FLOAT and len(s.dims) == 2


def _factors(e: Expr, power: int = 1) -> Iterator[Term]:
    match e:
        case Binary("*" | "/" as op, x, y):
            yield from _factors(x, power)
            yield from _factors(y, power if op == "*" else -power)
        case _:
            yield power, e


def _product(factors: Sequence[Term]) -> Expr:
    """The factors multiplied."""
    out: Expr | None = None
    for power, e in sorted(factors, key=lambda factor: -factor[0]):
        if out is None:
            out = e if power > 0 else Binary("/", Const(1.0), e)
        else:
            out = Binary("*" if power > 0 else "/", out, e)
    assert out is not None
    return out


def _sum(terms: Sequence[Term]) -> Expr:
    """The terms added up; the first should be positive."""
    if len(terms) > MOST_IN_A_ROW:  # no tree as deep as a sum is long: what prints it recurses
        middle = len(terms) // 2
        return Binary("+", _sum(terms[:middle]), _sum(terms[middle:]))
    out: Expr | None = None
    for sign, e in sorted(terms, key=lambda term: -term[0]):
        first = e if sign > 0 else Unary("-", e)
        out = first if out is None else Binary("+" if sign > 0 else "-", out, e)
    assert out is not None
    return out


def _exponent(e: Expr, names: set[str]) -> tuple[Val, Expr] | None:
    """`s` and `m`, if the expression is `exp2(s * log2e - m)` of one of the scores."""
    match e:
        case Call("exp2", (Binary("-", Binary("*", Val(s) as score, Const(v)), m),)) if (
            s in names and v == LOG2E
        ):
            return score, m
        case _:
            return None


@dataclasses.dataclass(slots=True)
class _Score:
    """A pair value that serves maxima and exponentials alone."""

    b: Kernel
    body: list[SweepStmt]
    at: t.Compute
    names: set[str]  # the score, and the score masked
    dims: dict[str, frozenset[str]]  # what each value spans
    inside: set[str]  # the values that the sweep makes

    @staticmethod
    def of(b: Kernel, body: list[SweepStmt], s: t.Compute) -> _Score | None:
        """The score that a statement makes, if it is one."""
        names = {s.name}
        found = False
        for x in body:
            if isinstance(x, MaskStmt):
                if x.src in names and x.fill == float("-inf"):
                    names.add(x.name)
                elif names & {x.src, x.cond}:
                    return None
            elif isinstance(x, t.Fold) and x.src in names:
                found = True
                if x.op not in (Reduction.MAX, Reduction.MIN):
                    return None
            elif isinstance(x, t.Compute):
                times = sum(isinstance(n, Val) and n.name in names for n in walk(x.expr))
                exponents = sum(_exponent(n, names) is not None for n in walk(x.expr))
                found = found or exponents > 0
                if times != exponents:
                    return None
            elif names & used(x):
                return None
        if not found:
            return None
        outer = [*b.prologue, *(x for loop in b.loop_body.values() for x in loop)]
        made = (MaskStmt, t.Compute, t.Load, t.Dot, t.Fold, t.Pick, t.Declare)
        dims = {x.name: frozenset(x.dims) for x in (*outer, *body) if isinstance(x, made)}
        inside = {x.name for x in body if isinstance(x, made)}
        return _Score(b, body, s, names, dims, inside)

    def spans(self, e: Expr) -> frozenset[str]:
        """The axes of an expression."""
        values = [self.dims[n.name] for n in walk(e) if isinstance(n, Val)]
        return self.b.dims_of(e).union(*values)

    def kept(self) -> frozenset[str]:
        """The axes that every maximum and every subtracted statistic spans."""
        out = frozenset(self.at.dims)
        for x in self.body:
            if isinstance(x, t.Fold) and x.src in self.names:
                out &= frozenset(x.dims)
            elif isinstance(x, t.Compute):
                for n in walk(x.expr):
                    found = _exponent(n, self.names)
                    if found is not None:
                        out &= self.spans(found[1])
        return out

    def shifted(self) -> list[SweepStmt] | None:
        """Without the terms that are the same for a whole row; None where there are none."""
        kept = self.kept()
        terms = list(signed(self.at.expr))
        rows = [x for x in terms if self.spans(x[1]) <= kept]
        rest = [x for x in terms if x not in rows]
        if not rows or not rest or len(kept) != 1:
            return None
        left = _sum(rest)
        if self.spans(left) != frozenset(self.at.dims):
            return None
        out: list[SweepStmt] = []
        sign = max(k for k, _ in rows)
        row = _sum([(k * sign, x) for k, x in rows])
        plus, minus = ("+", "-") if sign > 0 else ("-", "+")

        def exponential(score: Val, m: Expr) -> Expr:
            less = Binary(minus, m, Binary("*", row, Const(LOG2E)))
            return Binary("-", Binary("*", score, Const(LOG2E)), self.bind(out, less, "shift"))

        def maximum(raw: Expr) -> Expr:
            return Binary(plus, raw, row)

        base = left if isinstance(left, Val) else Val(self.at.name)
        for x in self.body:
            if x is self.at:
                if base is not left:
                    out.append(dataclasses.replace(x, expr=left))
                row = self.bind(out, row, f"{x.name}_row")
            else:
                self.use(out, x, base, maximum, exponential)
        return out

    def scaled(self) -> list[SweepStmt] | None:
        """Without the positive factors that all scores share; None where there are none.

        A row's own stay: times log2e they are rounded, otherwise than what is subtracted, and a gradient of such a
        factor sums that up over the row (dtau of `S / tau[i]` errs by 1.4e-5 instead of 1.0e-5 in float32).
        """
        kept = self.kept()
        factors = list(_factors(self.at.expr))
        rows = [x for x in factors if not self.spans(x[1]) and self.positive(x[1])]
        rest = [x for x in factors if x not in rows]
        if not rows or len(kept) != 1 or not any(power > 0 for power, _ in rest):
            return None
        left = _product(rest)
        if self.spans(left) != frozenset(self.at.dims):
            return None
        out: list[SweepStmt] = []
        row = _product(rows)
        base = left if isinstance(left, Val) else Val(self.at.name)
        exponent: Expr = Const(LOG2E)

        def exponential(score: Val, m: Expr) -> Expr:
            return Binary("-", Binary("*", score, exponent), m)

        def maximum(raw: Expr) -> Expr:
            return Binary("*", raw, row)

        for x in self.body:
            if x is self.at:
                if base is not left:
                    out.append(dataclasses.replace(x, expr=left))
                row = self.bind(out, row, f"{x.name}_scale")
                exponent = Binary("*", row, Const(LOG2E))
            else:
                self.use(out, x, base, maximum, exponential)
        return out

    def use(
        self,
        out: list[SweepStmt],
        x: SweepStmt,
        base: Val,
        after: Callable[[Expr], Expr],
        exponent: Callable[[Val, Expr], Expr],
    ) -> None:
        """A statement over the lighter score `base`: `after` makes a maximum of it that of the score."""

        def lighter(name: str) -> str:
            return base.name if name == self.at.name else name

        def rule(e: Expr) -> Expr | None:
            found = _exponent(e, self.names)
            if found is None:
                return None
            return Call("exp2", (exponent(Val(lighter(found[0].name)), found[1]),))

        match x:
            case MaskStmt():
                out.append(dataclasses.replace(x, src=lighter(x.src)))
            case t.Fold() if x.src in self.names:
                raw = self.b.names.fresh(f"{x.name}_raw")
                out.append(dataclasses.replace(x, name=raw, src=lighter(x.src)))
                out.append(t.Compute(x.name, x.dims, DType.FLOAT, after(Val(raw)), span=x.span))
            case t.Compute():
                out.append(dataclasses.replace(x, expr=rewrite(x.expr, rule)))
            case _:
                out.append(x)

    def bind(self, out: list[SweepStmt], e: Expr, name: str) -> Expr:
        """A row value by name: before the sweep, if nothing of the sweep is in it."""
        if isinstance(e, Val):
            return e
        v = self.b.names.fresh(name)
        stmt = t.Compute(v, self.b.order(self.spans(e)), DType.FLOAT, e)
        self.dims[v] = frozenset(stmt.dims)
        values = {n.name for n in walk(e) if isinstance(n, Val)}
        if values & self.inside or any(isinstance(n, t.Origin) for n in walk(e)):
            self.inside.add(v)
            out.append(stmt)
        elif self.b.loop_body:
            next(reversed(self.b.loop_body.values())).append(stmt)
        else:
            self.b.prologue.append(stmt)
        return Val(v)

    def positive(self, e: Expr) -> bool:
        """Whether what is computed or loaded before the sweep is surely positive."""
        if any(isinstance(n, Val) and n.name in self.inside for n in walk(e)):
            return False
        match e:
            case Val(name):
                for x in self.b.prologue:
                    if isinstance(x, t.Compute) and x.name == name:
                        return self.positive(x.expr)
                    if isinstance(x, t.Load) and x.name == name:
                        return x.tensor in self.b.positive
                return False
            case Binary("*" | "/", x, y):
                return self.positive(x) and self.positive(y)
        return sign_of(e, {}) is Sign.POSITIVE
