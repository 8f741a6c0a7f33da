"""The kinds of values: float, int and bool, and what each operator makes of them.

Source: language reference, section 17.
"""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.cascade import nodes as ir
from attndsl.cascade.nodes import DType
from attndsl.frontend.report import Report
from attndsl.source import Span


@dataclass(frozen=True, slots=True)
class Typed:
    """A lowered expression and the kind of its value."""

    expr: ir.Expr
    dtype: DType


class Types:
    """Typing rules that report and unwind on a mistake."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def number(self, t: Typed, span: Span | None, what: str) -> Typed:
        if t.dtype is DType.BOOL:
            raise self.report.error(
                "A0250",
                f"{what} needs a number",
                span,
                "this is a `bool`",
                "write `1 if … else 0` to count with a condition",
            )
        return t

    def bool(self, t: Typed, span: Span | None, what: str) -> Typed:
        if t.dtype is not DType.BOOL:
            raise self.report.error(
                "A0250",
                f"{what} needs a condition",
                span,
                f"this is of type `{t.dtype}`",
                "compare it: `… != 0`",
            )
        return t

    def int(self, t: Typed, span: Span | None, what: str) -> Typed:
        if t.dtype is not DType.INT:
            raise self.report.error(
                "A0251",
                f"{what} must be an integer",
                span,
                f"this is of type `{t.dtype}`",
                "integers come from positions, extents, `: int` inputs and parameters; `//` divides them",
            )
        return t

    def binary(self, op: str, a: Typed, b: Typed, span: Span | None) -> Typed:
        expr = ir.Binary(op, a.expr, b.expr, span=span)
        both_int = a.dtype is DType.INT and b.dtype is DType.INT
        if op == "**":
            whole = isinstance(b.expr, ir.Const) and b.expr.value >= 0
            return Typed(expr, DType.INT if both_int and whole else DType.FLOAT)
        return Typed(expr, DType.INT if both_int and op != "/" else DType.FLOAT)

    def join(self, a: DType, b: DType, span: Span | None, what: str) -> DType:
        """The kind of a value that may be either."""
        if (a is DType.BOOL) != (b is DType.BOOL):
            raise self.report.error(
                "A0250", f"{what} mixes a `bool` with a number", span, f"`{a}` here and `{b}` there"
            )
        return a if a is b else DType.FLOAT

    def call(self, fn: str, args: tuple[Typed, ...], span: Span | None) -> Typed:
        expr = ir.Call(fn, tuple(a.expr for a in args), span=span)
        ints = all(a.dtype is DType.INT for a in args)
        keeps = fn in ("min", "max", "abs", "sign", "floor", "ceil")
        return Typed(expr, DType.INT if ints and keeps else DType.FLOAT)
