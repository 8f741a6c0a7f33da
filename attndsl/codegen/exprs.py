"""Pointwise expressions as Triton text.

    print(expr) -> Text(code, dims, kind, ...)

Every subexpression is printed at its own dims, and broadcast (`x[:, None]`) only where it meets a wider one. Integers
stay integers until they meet a float; a loaded float keeps its storage type until it is used. Division and remainder of
integers floor: Triton's truncate, so they go through a helper unless both operands are known to be non-negative. An
expression that would not fit on a line is cut into named parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Logic,
    Param,
    Position,
    Select,
    Unary,
)
from attndsl.cascade.walk import walk
from attndsl.schedule.tile import Block, Epsilon, Origin, Span, Val

WIDTH = 76  # of an expression; statements add a name and an indent to it, and a line has 100

# Python's precedence, higher binds tighter.
COMPARE, OR, AND, SUM, PRODUCT, SIGN, ATOM = range(7)


@dataclass(frozen=True, slots=True)
class Text:
    """A printed expression and what is known of its value."""

    code: str
    dims: tuple[str, ...]
    kind: DType
    level: int = ATOM
    stored: bool = False  # a float in the type of its tensor, not yet widened
    static: bool = False  # a number known when the kernel is compiled, not a Triton value
    natural: bool = False  # an integer that is never negative
    lone: bool = False  # a comparison of two floats, one for the whole program
    counted: bool = False  # what a loop counts with: Python's own in Triton's interpreter

    def at(self, level: int) -> str:
        """The code, in parentheses where a neighbour of `level` would bind tighter."""
        return self.code if self.level >= level else f"({self.code})"


class Symbols(Protocol):
    """What the leaves of an expression are called in the kernel at hand."""

    def leaf(
        self, e: Val | Param | Extent | Position | Block | Origin | Epsilon | Span
    ) -> Text: ...

    def order(self, dims: frozenset[str]) -> tuple[str, ...]:
        """Axes in the order of the tile program."""
        ...

    def broadcast(self, text: Text, dims: tuple[str, ...]) -> str:
        """`text` with the axes of `dims` that it lacks."""
        ...

    def part(self, text: Text) -> Text:
        """Give a subexpression a name, in a statement of its own."""
        ...

    def use(self, helper: str) -> str:
        """Ask for a helper function; its name."""
        ...

    def storage(self) -> str | None:
        """The element type of what the kernel multiplies, as text: how exact a function needs to be."""
        ...


# Functions of one float argument that `tl` has under this name.
NATIVE = {"exp", "exp2", "log", "log2", "sqrt", "rsqrt", "sin", "cos", "erf"}
# Functions of one float argument that come with the module (templates/triton/helpers.py).
HELPERS = {"tanh", "sigmoid", "logsigmoid", "softplus", "elu", "silu", "gelu", "acos"}


def broadcast(text: Text, dims: tuple[str, ...]) -> str:
    """`text` with the axes of `dims` that it lacks, as broadcast indices; a scalar stays as it is."""
    if not text.dims or text.dims == dims:
        return text.code
    axes = ", ".join(":" if d in text.dims else "None" for d in dims)
    return f"{text.at(ATOM)}[{axes}]"


class ExpressionPrinter:
    """Prints expressions over the names of one kernel."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._safe = False

    def print(self, e: Expr | Val | Block | Origin | Epsilon | Span, safe: bool = False) -> Text:
        """The text of `e`; with `safe`, 0/0 is 0."""
        outer, self._safe = self._safe, safe
        try:
            return self._print(e)
        finally:
            self._safe = outer

    # --- kinds ---------------------------------------------------------------------------------------------------

    def number(self, t: Text) -> Text:
        """The value as a float of the accumulator's type."""
        if t.kind is DType.FLOAT and not t.stored:
            return t
        # What is made of a loop's count is a number of Python's own in Triton's interpreter.
        if t.static or t.counted or (t.kind is DType.INT and not t.dims and t.level != ATOM):
            return Text(f"tl.cast({t.code}, ACC)", t.dims, DType.FLOAT, natural=t.natural)
        return Text(f"{t.at(ATOM)}.to(ACC)", t.dims, DType.FLOAT)

    def value(self, t: Text) -> Text:
        """The value as a Triton value, never a compile-time number."""
        if not t.static:
            return t
        dtype = {DType.FLOAT: "ACC", DType.INT: "tl.int32", DType.BOOL: "tl.int1"}[t.kind]
        return replace(t, code=f"tl.cast({t.code}, {dtype})", level=ATOM, static=False)

    def cast(self, t: Text, kind: DType) -> Text:
        """The value in another kind; a float in the accumulator's type."""
        match kind:
            case DType.FLOAT:
                return self.number(t)
            case DType.INT if t.kind is not DType.INT:
                v = self.value(t)
                return Text(f"{v.at(ATOM)}.to(tl.int32)", v.dims, kind)
            case DType.BOOL if t.kind is not DType.BOOL:
                return Text(f"{self.value(t).at(COMPARE + 1)} != 0", t.dims, kind, COMPARE)
        return t

    def unify(self, parts: list[Text]) -> tuple[list[Text], DType]:
        """All operands in one kind: float if one is, else int if one is."""
        kinds = {p.kind for p in parts}
        if DType.FLOAT in kinds:
            # A literal adapts to the type it meets.
            return [
                p if p.static and p.kind is DType.FLOAT else self._adapt(p) for p in parts
            ], DType.FLOAT
        if DType.INT in kinds:
            return [self.cast(p, DType.INT) for p in parts], DType.INT
        return parts, DType.BOOL

    def _adapt(self, p: Text) -> Text:
        if p.static and p.kind is DType.INT and p.code.isdigit():
            return replace(p, code=f"{p.code}.0", kind=DType.FLOAT)
        return self.number(p)

    # --- assembly ------------------------------------------------------------------------------------------------

    def join(
        self,
        parts: list[Text],
        write: Callable[[list[Text]], str],
        kind: DType,
        level: int,
        natural: bool = False,
    ) -> Text:
        """Broadcast `parts` together and write them; name the longest ones if the line gets too long."""
        dims = self._symbols.order(frozenset(d for p in parts for d in p.dims))

        def spread() -> list[Text]:
            return [
                p
                if self._symbols.broadcast(p, dims) == p.code
                else replace(p, code=self._symbols.broadcast(p, dims), level=ATOM)
                for p in parts
            ]

        code = write(spread())
        while len(code) > WIDTH:
            longest = max(range(len(parts)), key=lambda k: len(parts[k].code))
            if parts[longest].code.isidentifier():
                break
            parts = [self._symbols.part(p) if k == longest else p for k, p in enumerate(parts)]
            code = write(spread())
        static = all(p.static for p in parts)
        return Text(code, dims, kind, level, static=static, natural=natural)

    def call(
        self, fn: str, parts: list[Text], kind: DType = DType.FLOAT, natural: bool = False
    ) -> Text:
        """`fn(parts)`; a function wants Triton values."""
        if all(p.static for p in parts):
            parts = [self.value(p) for p in parts]
        out = self.join(
            parts, lambda ps: f"{fn}({', '.join(p.code for p in ps)})", kind, ATOM, natural
        )
        return replace(out, static=False)

    def infix(
        self, op: str, parts: list[Text], kind: DType, level: int, natural: bool = False
    ) -> Text:
        """A left-associative operator between two operands."""
        text = self.join(
            parts, lambda ps: f"{ps[0].at(level)} {op} {ps[1].at(level + 1)}", kind, level, natural
        )
        return text

    # --- nodes ---------------------------------------------------------------------------------------------------

    def _print(self, e: Expr | Val | Block | Origin | Epsilon | Span) -> Text:
        match e:
            case Const():
                return self._const(e.value)
            case Val() | Param() | Extent() | Position() | Block() | Origin() | Epsilon() | Span():
                return self._symbols.leaf(e)
            case Unary(op="-"):
                arg = self._print(e.arg)
                (arg,), kind = (
                    self.unify([arg])
                    if arg.kind is not DType.BOOL
                    else ([self.cast(arg, DType.INT)], DType.INT)
                )
                return self.join([arg], lambda ps: f"-{ps[0].at(SIGN)}", kind, SIGN)
            case Unary(op="not"):
                arg = self.value(self.cast(self._print(e.arg), DType.BOOL))
                return self.join([arg], lambda ps: f"{ps[0].at(ATOM)} == 0", DType.BOOL, COMPARE)
            case Binary():
                return self._binary(e.op, self._print(e.left), e.right)
            case Compare():
                parts, kind = self.unify([self._print(e.left), self._print(e.right)])
                out = self.join(
                    parts,
                    lambda ps: f"{ps[0].at(COMPARE + 1)} {e.op} {ps[1].at(COMPARE + 1)}",
                    DType.BOOL,
                    COMPARE,
                )
                # What has a name is no number of Python's own in Triton's interpreter, even one that is known.
                fixed = all(p.static for p in parts) and not any(
                    isinstance(n, Val) for n in walk(e)
                )
                return replace(out, lone=kind is DType.FLOAT and not out.dims and not fixed)
            case Logic():
                op, level = ("&", AND) if e.op == "and" else ("|", OR)
                out = self.cast(self._print(e.args[0]), DType.BOOL)
                for condition in e.args[1:]:
                    right = self.cast(self._print(condition), DType.BOOL)
                    lone = (out.lone or right.lone) and not out.dims and not right.dims
                    if not lone:
                        out, right = self._truth(out), self._truth(right)
                    out = replace(self.infix(op, [out, right], DType.BOOL, level), lone=lone)
                return out
            case Select():
                return self._select(e)
            case Call():
                return self._call(e.fn, [self._print(a) for a in e.args])
            case _:
                raise AssertionError(f"{type(e).__name__} is not part of a tile expression")

    def _truth(self, p: Text) -> Text:
        """A condition that Triton's interpreter, too, can join with a block's."""
        if not p.lone:
            return p
        return replace(p, code=f"{self._symbols.use('truth')}({p.code})", level=ATOM, lone=False)

    def _const(self, value: float | int | bool) -> Text:
        if isinstance(value, bool):
            return Text(str(value), (), DType.BOOL, static=True)
        if isinstance(value, int):
            return Text(
                str(value),
                (),
                DType.INT,
                SIGN if value < 0 else ATOM,
                static=True,
                natural=value >= 0,
            )
        if math.isinf(value) or math.isnan(value):
            return Text(f'float("{value}")', (), DType.FLOAT, static=True)
        return Text(
            repr(value).replace("e+", "e"),
            (),
            DType.FLOAT,
            SIGN if value < 0 else ATOM,
            static=True,
        )

    def _select(self, e: Select) -> Text:
        cond = self.value(self.cast(self._print(e.cond), DType.BOOL))
        (then, other), kind = self.unify([self._print(e.then), self._print(e.other)])
        if then.static and other.static:
            then = self.value(then)
        natural = then.natural and other.natural
        return self.call("tl.where", [cond, then, other], kind, natural)

    def _binary(self, op: str, left: Text, right_expr: Expr) -> Text:
        right = self._print(right_expr)
        if op == "**":
            return self._power(left, right, right_expr)
        if op == "/":
            parts = [self._adapt_division(left), self._adapt_division(right)]
            if self._safe and not parts[1].static:
                return self.call(self._symbols.use("safe_div"), parts)
            return self.infix("/", parts, DType.FLOAT, PRODUCT)
        (left, right), kind = self.unify([left, right])
        if kind is DType.BOOL:
            left, right, kind = self.cast(left, DType.INT), self.cast(right, DType.INT), DType.INT
        natural = kind is DType.INT and left.natural and right.natural
        match op:
            case "+":
                return self.infix("+", [left, right], kind, SUM, natural)
            case "-":
                return self.infix("-", [left, right], kind, SUM)
            case "*":
                return self.infix("*", [left, right], kind, PRODUCT, natural)
            case "//" | "%" if natural:
                return self.infix(op, [left, right], kind, PRODUCT, natural)
            case "//" | "%":
                name = ("floor_div" if op == "//" else "floor_mod") + (
                    "" if kind is DType.INT else "_float"
                )
                return self.call(self._symbols.use(name), [left, right], kind)
        raise AssertionError(op)

    def _adapt_division(self, t: Text) -> Text:
        return t if t.static and t.kind is DType.FLOAT else self._adapt(t)

    def _power(self, base: Text, exponent: Text, e: Expr) -> Text:
        if isinstance(e, Const) and not isinstance(e.value, bool):
            n = e.value
            if n == int(n) and 0 <= n <= 64:
                kind = DType.INT if base.kind is DType.INT and isinstance(n, int) else DType.FLOAT
                base = self.value(base) if kind is DType.INT else self.number(self.value(base))
                if n == 0:
                    return self._const(1 if kind is DType.INT else 1.0)
                if n == 1:
                    return base
                if n == 2:
                    return self.call(self._symbols.use("square"), [base], kind, natural=True)
                count = Text(str(int(n)), (), DType.INT, static=True)
                return self.call(
                    self._symbols.use("power_static"), [base, count], kind, base.natural
                )
            if n == 0.5:
                return self.call("tl.sqrt", [self.number(base)])
            if n == -0.5:
                return self.call("tl.rsqrt", [self.number(base)])
        if base.kind is DType.INT and exponent.kind is DType.INT:
            name = self._symbols.use("power_integer")
            return self.call(
                name, [self.value(base), self.value(exponent)], DType.INT, base.natural
            )
        parts = [self.number(self.value(base)), self.number(self.value(exponent))]
        return self._beside("power", parts)

    def _beside(self, fn: str, args: list[Text]) -> Text:
        """A call of a helper that is as exact as what the kernel multiplies asks for."""
        name, stored = self._symbols.use(fn), self._symbols.storage()
        if stored is None:
            return self.call(name, args)
        parts = [self.value(a) for a in args]
        text = self.join(
            parts,
            lambda ps: f"{name}({', '.join(p.code for p in ps)}, {stored})",
            DType.FLOAT,
            ATOM,
        )
        return replace(text, static=False)

    def _call(self, fn: str, args: list[Text]) -> Text:
        if fn in ("min", "max"):
            parts, kind = self.unify(args)
            out = parts[0]
            for p in parts[1:]:
                both = out.natural and p.natural
                natural = both or (fn == "max" and kind is DType.INT and (out.natural or p.natural))
                out = self.call(
                    "tl.minimum" if fn == "min" else "tl.maximum", [out, p], kind, natural
                )
            return out
        (arg,) = args
        if fn in ("abs", "sign") and arg.kind is DType.INT:
            return self.call(
                "tl.abs" if fn == "abs" else self._symbols.use("sign"),
                [self.value(arg)],
                arg.kind,
                fn == "abs",
            )
        if fn in ("floor", "ceil") and arg.kind is DType.INT:
            return arg
        arg = self.number(self.value(arg))
        match fn:
            case "abs" | "floor" | "ceil":
                return self.call(f"tl.{fn}", [arg])
            case "sign":
                return self.call(self._symbols.use("sign"), [arg])
            case "relu":
                return self.call("tl.maximum", [arg, Text("0.0", (), DType.FLOAT, static=True)])
            case "tanh":
                return self._beside(fn, [arg])
            case "log" | "log2" if (
                len(arg.dims) > 1
            ):  # of one number, exponents of whole rows may be made
                return self._beside(f"near_{fn}", [arg])
            case _ if fn in NATIVE:
                return self.call(f"tl.{fn}", [arg])
            case _ if fn in HELPERS:
                return self.call(self._symbols.use(fn), [arg])
        raise AssertionError(f"no function `{fn}`")
