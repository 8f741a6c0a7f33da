"""Cascade expressions as sympy expressions, and the rules of expansion that bring factors apart.

    relu(exp(S - M) - exp(-M)) * V   ->   exp(-M) * Max(exp(S) - 1, 0) * V

The first step is `symbolic`, the second `expanded`. sympy is imported here and in `separability` alone, and only when
a question needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import sympy as sp

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Expr,
    Extent,
    Logic,
    Param,
    Position,
    Read,
    Select,
    Unary,
)
from attndsl.cascade.signs import Sign, sign_of

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": sp.exp,
    "exp2": lambda x: sp.exp(x * sp.log(2)),
    "log": sp.log,
    "log2": lambda x: sp.log(x) / sp.log(2),
    "sqrt": sp.sqrt,
    "rsqrt": lambda x: 1 / sp.sqrt(x),
    "tanh": sp.tanh,
    "sigmoid": lambda x: 1 / (1 + sp.exp(-x)),
    "logsigmoid": lambda x: -sp.log(1 + sp.exp(-x)),
    "softplus": lambda x: sp.log(1 + sp.exp(x)),
    "relu": lambda x: sp.Max(x, 0),
    "elu": lambda x: sp.Max(x, 0) + sp.Min(sp.exp(x) - 1, 0),
    "silu": lambda x: x / (1 + sp.exp(-x)),
    "gelu": lambda x: x * (1 + sp.erf(x / sp.sqrt(2))) / 2,
    "erf": sp.erf,
    "sin": sp.sin,
    "cos": sp.cos,
    "acos": sp.acos,
    "abs": sp.Abs,
    "sign": sp.sign,
    "floor": sp.floor,
    "ceil": sp.ceiling,
    "min": sp.Min,
    "max": sp.Max,
}
_COMPARE = {"<": sp.Lt, "<=": sp.Le, ">": sp.Gt, ">=": sp.Ge, "==": sp.Eq, "!=": sp.Ne}


@dataclass(slots=True)
class Symbols:
    """The symbol that stands for each atom: a tensor's element, a parameter, an inner reduction, a position."""

    signs: Mapping[str, Sign]
    """Of tensors and parameters, by name."""
    of: dict[Expr, sp.Symbol] = field(default_factory=dict)

    def symbol(self, e: Expr) -> sp.Symbol:
        """The symbol of an atom, positive where its sign is known: a boundary at 0 is a limit of what holds inside."""
        if e not in self.of:
            name = e.name if isinstance(e, Param) else None
            sign = self.signs.get(name, Sign.ANY) if name else sign_of(e, self.signs)
            known = {"positive": True} if sign > Sign.ANY else {"real": True}
            self.of[e] = sp.Symbol(f"x{len(self.of)}", **known)
        return self.of[e]

    def condition(self, e: Expr) -> Any:
        """A condition; an atom is a number like all others, and true where it is above 0."""
        match e:
            case Const(value=v):
                return sp.true if v else sp.false
            case Compare():
                return self.symbolic(e)
            case Logic(op, args):
                return (sp.And if op == "and" else sp.Or)(*map(self.condition, args))
            case Unary("not", arg):
                return sp.Not(self.condition(arg))
            case _:
                self.of.setdefault(e, sp.Symbol(f"x{len(self.of)}", real=True))
                return self.of[e] > 0

    def symbolic(self, e: Expr) -> sp.Expr:
        """The expression in sympy's terms; what it has no words for is an atom."""
        match e:
            case Const(value=bool(v)):
                return sp.true if v else sp.false
            case Const(value=v):
                return _exact(v) if isinstance(v, float) else sp.Integer(v)
            case Unary("-", arg):
                return -self.symbolic(arg)
            case Binary("+" | "-" | "*" | "/" | "**" as op, left, right):
                a, b = self.symbolic(left), self.symbolic(right)
                return {
                    "+": lambda: a + b,
                    "-": lambda: a - b,
                    "*": lambda: a * b,
                    "/": lambda: a / b,
                    "**": lambda: a**b,
                }[op]()
            case Call(fn, args):
                return _FUNCTIONS[fn](*map(self.symbolic, args))
            case Select(cond, then, other):
                return sp.Piecewise(
                    (self.symbolic(then), self.condition(cond)), (self.symbolic(other), True)
                )
            case Compare(op, left, right):
                return _COMPARE[op](self.symbolic(left), self.symbolic(right))
            case Logic() | Unary("not"):
                return self.condition(e)
            case Read() | Param() | Position() | Extent():
                return self.symbol(e)
            case _:
                return self.symbol(e)


def _exact(v: float) -> sp.Expr:
    """A constant as it was meant: a small fraction if it is one to the last bit, else its decimals."""
    if not math.isfinite(v):
        return sp.sympify(v)
    near = Fraction(v).limit_denominator(1000)
    return (
        sp.Rational(near.numerator, near.denominator) if float(near) == v else sp.Rational(repr(v))
    )


def expanded(f: sp.Expr) -> sp.Expr:
    """A sum of products, with exponentials, logarithms and powers of products taken apart.

    `force=True` takes `log(a b)` and `(a b)**p` apart whatever the signs: who uses the result checks it by numbers.
    """
    for _ in range(3):
        g = sp.expand_log(sp.expand_power_base(f, force=True), force=True)
        g = sp.expand(sp.expand_power_exp(_homogeneous(sp.expand(sp.expand_power_exp(g)))))
        if g == f:
            break
        f = g
    return f


def _homogeneous(e: sp.Expr) -> sp.Expr:
    """Positive common factors of the operands of max, min, abs and sign, brought out.

    rewrite:  Max(a*b, a*c)  ->  a*Max(b, c);  Abs(a*b)  ->  a*Abs(b);  sign(a*b)  ->  sign(b)
    requires: a > 0
    """

    def fix(x: sp.Expr) -> sp.Expr:
        args = [sp.factor_terms(sp.expand(sp.expand_power_exp(a))) for a in x.args]
        common: set[sp.Expr] | None = None
        for a in args:
            if a == 0:
                continue
            factors = {b for b in sp.Mul.make_args(a) if b.is_positive and b.free_symbols}
            common = factors if common is None else common & factors
        if not common:
            return x
        c = sp.Mul(*common)
        inside = x.func(*(sp.expand(sp.expand_power_exp(a / c)) for a in args))
        return inside if isinstance(x, sp.sign) else c * inside

    kinds = (sp.Max, sp.Min, sp.Abs, sp.sign)
    out: sp.Expr = e.replace(lambda x: isinstance(x, kinds), fix)
    return out
