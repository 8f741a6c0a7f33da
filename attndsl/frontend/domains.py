"""Domains that are always empty: the reads of an expression intersect where they are defined, and no point is left.

Only what is easily decided is: affine conditions over positions, integer parameters and extents, by eliminating one
variable after the other (Fourier-Motzkin) over the rationals. Anything else is left out, which can only miss an empty
domain, never invent one.

Source: language reference, section 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from attndsl.cascade import nodes as ir
from attndsl.cascade import walk
from attndsl.cascade.nodes import DType
from attndsl.frontend.report import Report
from attndsl.source import Span

# `sum(coefficient * variable) + constant <= 0`, the constant under the key "".
Row = dict[str, int]
Rows = tuple[Row, ...]

MAX_CASES = 16
MAX_ROWS = 120


class Domains:
    """Checks definitions in order of dependence; remembers the cases of each tensor's domain."""

    def __init__(self, params: Mapping[str, DType], report: Report) -> None:
        self.ints = frozenset(p for p, t in params.items() if t is DType.INT)
        self.report = report
        self.known: dict[str, tuple[tuple[str, ...], tuple[Rows, ...]]] = {}

    def define(self, d: ir.Define) -> None:
        """Report an empty domain of a definition, or of a reduction in it."""
        own = self.cases(d.where)
        if self.empty(
            own, d.where.span if d.where is not None else d.span, d.tensor, "the condition"
        ):
            return
        whole = _meet(own, self.read_in(d.expr, own, d.tensor))
        if d.init is None and self.empty(whole, d.expr.span or d.span, d.tensor, "the domain"):
            return
        self.known[d.tensor] = (d.indices, whole)

    def read_in(self, e: ir.Expr, outer: tuple[Rows, ...], target: str) -> tuple[Rows, ...]:
        """The cases in which everything that `e` must read is defined."""
        match e:
            case ir.Read():
                found = self.of_read(e)
                for s in e.subs:
                    found = _meet(found, self.read_in(s, outer, target))
                return found
            case ir.Select():
                cond = self.read_in(e.cond, outer, target)
                for branch in (e.then, e.other):
                    self.read_in(branch, ((),), target)
                return cond
            case ir.Reduce():
                inner = self.cases(e.where)
                inner = _meet(inner, self.read_in(e.body, ((),), target))
                # Over no points a reduction is its identity: the outer domain is not restricted.
                self.empty(_meet(outer, inner), e.span, target, f"the domain of `{e.op}`")
                return ((),)
            case _:
                found = ((),)
                for c in walk.children(e):
                    found = _meet(found, self.read_in(c, outer, target))
                return found

    def of_read(self, e: ir.Read) -> tuple[Rows, ...]:
        if e.tensor not in self.known:
            return ((),)
        indices, cases = self.known[e.tensor]
        at = {i: self.affine(s) for i, s in zip(indices, e.subs, strict=True)}
        return tuple(tuple(r for row in rows if (r := _at(row, at)) is not None) for rows in cases)

    def empty(self, cases: tuple[Rows, ...], span: Span | None, target: str, what: str) -> bool:
        if any(not _contradict(rows) for rows in cases):
            return False
        self.report.error(
            "A0233",
            f"{what} of `{target}` is always empty"
            if "of" not in what
            else f"{what} in `{target}` is always empty",
            span,
            "no point satisfies all conditions on what is read here",
            "an expression is defined where everything it reads is defined: give the parts tensors of their own, "
            "or choose with `a if c else b`",
        )
        return True

    # --- conditions ------------------------------------------------------------------------------

    def cases(self, e: ir.Expr | None) -> tuple[Rows, ...]:
        """A condition as alternatives of rows; what is not affine is left out."""
        match e:
            case ir.Logic(op="and"):
                found: tuple[Rows, ...] = ((),)
                for a in e.args:
                    found = _meet(found, self.cases(a))
                return found
            case ir.Logic():
                return _few(tuple(rows for a in e.args for rows in self.cases(a)))
            case ir.Const(value=False):
                return (({"": 1},),)
            case ir.Compare():
                return self.comparison(e)
            case _:
                return ((),)

    def comparison(self, e: ir.Compare) -> tuple[Rows, ...]:
        a, b = self.affine(e.left), self.affine(e.right)
        if a is None or b is None:
            return ((),)
        below, above = _add(a, b, -1), _add(b, a, -1)
        match e.op:
            case "<=":
                return ((below,),)
            case "<":
                return ((_add(below, {"": 1}),),)
            case ">=":
                return ((above,),)
            case ">":
                return ((_add(above, {"": 1}),),)
            case "==":
                return ((below, above),)
            case _:
                return ((_add(below, {"": 1}),), (_add(above, {"": 1}),))

    def affine(self, e: ir.Expr) -> Row | None:
        match e:
            case ir.Const() if isinstance(e.value, int) and not isinstance(e.value, bool):
                return {"": e.value}
            case ir.Position() | ir.Index():
                return {f"@{e.name}": 1}
            case ir.Param() if e.name in self.ints:
                return {f"${e.name}": 1}
            case ir.Extent():
                return {f"|{e.rank}|": 1}
            case ir.Unary(op="-"):
                a = self.affine(e.arg)
                return _add({}, a, -1) if a is not None else None
            case ir.Binary(op="+" | "-"):
                a, b = self.affine(e.left), self.affine(e.right)
                return (
                    _add(a, b, 1 if e.op == "+" else -1)
                    if a is not None and b is not None
                    else None
                )
            case ir.Binary(op="*"):
                a, b = self.affine(e.left), self.affine(e.right)
                if a is None or b is None:
                    return None
                if set(a) <= {""}:
                    return _add({}, b, a.get("", 0))
                return _add({}, a, b.get("", 0)) if set(b) <= {""} else None
            case _:
                return None


def _add(a: Row, b: Row, factor: int = 1) -> Row:
    out = dict(a)
    for k, v in b.items():
        out[k] = out.get(k, 0) + factor * v
    return {k: v for k, v in out.items() if v}


def _meet(a: tuple[Rows, ...], b: tuple[Rows, ...]) -> tuple[Rows, ...]:
    return _few(tuple((*x, *y) for x, y in product(a, b)))


def _few(cases: tuple[Rows, ...]) -> tuple[Rows, ...]:
    """Too many alternatives are too many to decide: nothing is known then."""
    return cases if len(cases) <= MAX_CASES else ((),)


def _at(row: Row, at: Mapping[str, Row | None]) -> Row | None:
    """A row of a tensor's own indices, at the subscripts of a read; None where a subscript is not affine."""
    out: Row = {}
    for name, factor in row.items():
        if name.startswith("@"):
            value = at.get(name[1:])
            if value is None:
                return None
            out = _add(out, value, factor)
        else:
            out = _add(out, {name: factor})
    return out


def _contradict(rows: Rows) -> bool:
    """Whether no rational point, positions and extents being non-negative, satisfies all rows."""
    work = [dict(r) for r in rows]
    names = sorted({k for r in work for k in r if k})
    work += [{n: -1} for n in names if n[0] in "@|"]
    for n in names:
        if any(_false(r) for r in work):
            return True
        up = [r for r in work if r.get(n, 0) > 0]
        down = [r for r in work if r.get(n, 0) < 0]
        rest = [r for r in work if not r.get(n, 0)]
        if len(rest) + len(up) * len(down) > MAX_ROWS:
            return False
        work = rest + list(_combined(n, up, down))
    return any(_false(r) for r in work)


def _combined(name: str, up: list[Row], down: list[Row]) -> Iterator[Row]:
    for a, b in product(up, down):
        yield _add(_add({}, a, -b[name]), b, a[name])


def _false(row: Row) -> bool:
    return set(row) == {""} and row[""] > 0
