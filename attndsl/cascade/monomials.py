"""Products and sums in normal form: `2 * x / sqrt(y)` is a coefficient and a multiset of powers.

A `Monomial` is `coeff * product of base**power` with rational powers; a `Polynomial` is a sum of
monomials. Bases are expressions that are not products themselves (reads, calls, sums), so two
monomials are equal exactly when they have the same factors in any order. Derivatives and scaling
exponents are kept in this form, where a common factor is found by looking, not by search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeGuard

from attndsl.cascade.nodes import Binary, Call, Compare, Const, Expr, Select, Unary

Powers = tuple[tuple[Expr, Fraction], ...]

_READABLE = 10**6
"""Numerators and denominators below this print as integers; others came from a float, stay one."""


@dataclass(frozen=True, slots=True)
class Monomial:
    """`coeff * b1**p1 * b2**p2 …`; bases are distinct, ordered, and have no zero power."""

    coeff: Fraction = Fraction(1)
    powers: Powers = ()

    @staticmethod
    def of(coeff: Fraction, powers: Iterable[tuple[Expr, Fraction]]) -> Monomial:
        """Collect equal bases and put them in order."""
        total: dict[Expr, Fraction] = {}
        for base, power in powers:
            total[base] = total.get(base, Fraction(0)) + power
        positive = {b.args[0] for b, p in total.items() if _is_relu(b) and p > 0}
        kept = [(b, p) for b, p in total.items() if p != 0 and _step_of(b) not in positive]
        return Monomial(coeff, tuple(sorted(kept, key=lambda bp: repr(bp[0]))) if coeff else ())

    def __mul__(self, other: Monomial) -> Monomial:
        return Monomial.of(self.coeff * other.coeff, self.powers + other.powers)

    def __neg__(self) -> Monomial:
        return Monomial(-self.coeff, self.powers)

    def __truediv__(self, other: Monomial) -> Monomial:
        return self * other.inverse()

    def inverse(self) -> Monomial:
        """`1 / self`; the coefficient must not be zero."""
        return Monomial(1 / self.coeff, tuple((b, -p) for b, p in self.powers))

    def power(self, base: Expr) -> Fraction:
        """The power of a base, zero where it does not occur."""
        return next((p for b, p in self.powers if b == base), Fraction(0))

    def map(self, fn: Callable[[Expr], Expr]) -> Monomial:
        """Apply `fn` to every base and normalise again."""
        out = Monomial(self.coeff)
        for base, power in self.powers:
            out *= raised(monomial(fn(base)), power)
        return out


def _is_relu(e: Expr) -> TypeGuard[Call]:
    return isinstance(e, Call) and e.fn == "relu"


def _step_of(e: Expr) -> Expr | None:
    """`x`, where `e` is 1 if x > 0 else 0: beside a relu of `x`, a factor that changes nothing."""
    match e:
        case Select(Compare(">", x, Const(0)), Const(1), Const(0)):
            return x
        case _:
            return None


def raised(m: Monomial, power: Fraction) -> Monomial:
    """`m ** power`, kept as one base where a fractional power would not distribute."""
    if power.denominator == 1:
        n = power.numerator
        if m.coeff == 0 and n < 0:
            return Monomial.of(Fraction(1), [(Const(0), power)])
        return Monomial.of(m.coeff**n, [(b, p * n) for b, p in m.powers])
    if m.coeff == 1 and len(m.powers) == 1 and m.powers[0][1] == 1:
        return Monomial.of(Fraction(1), [(m.powers[0][0], power)])
    return Monomial.of(Fraction(1), [(expression(m), power)])


def monomial(e: Expr) -> Monomial:
    """The normal form of a product, quotient or constant power; else one base of power 1."""
    match e:
        case Const(value=v) if isinstance(v, bool) or (
            isinstance(v, float) and not math.isfinite(v)
        ):
            return Monomial(Fraction(1), ((e, Fraction(1)),))
        case Const(value=v):
            return Monomial(Fraction(v))
        case Unary("-", arg):
            return -monomial(arg)
        case Binary("*", left, right):
            return monomial(left) * monomial(right)
        case Binary("/", left, right):
            return monomial(left) * raised(monomial(right), Fraction(-1))
        case Binary("**", left, Const(value=v)) if not isinstance(v, bool) and math.isfinite(v):
            return raised(monomial(left), Fraction(v))
        case Call("sqrt", (arg,)):
            return raised(monomial(arg), Fraction(1, 2))
        case Call("rsqrt", (arg,)):
            return raised(monomial(arg), Fraction(-1, 2))
        case _:
            return Monomial(Fraction(1), ((e, Fraction(1)),))


def number(value: Fraction) -> Const:
    """A literal for a coefficient: an integer where it is one."""
    return Const(value.numerator) if value.denominator == 1 else Const(float(value))


def product(factors: Iterable[Expr]) -> Expr | None:
    """`a * b * c`, left to right; None for no factors."""
    out: Expr | None = None
    for f in factors:
        out = f if out is None else Binary("*", out, f)
    return out


def expression(m: Monomial) -> Expr:
    """Back to an expression: `-a * b / c`, roots as `sqrt`, no factor of one."""
    if m.coeff == 0:
        return Const(0)
    top = [_factor(b, p) for b, p in m.powers if p > 0]
    bottom = [_factor(b, -p) for b, p in m.powers if p < 0]
    size = abs(m.coeff)
    if max(size.numerator, size.denominator) < _READABLE:
        if size.numerator != 1:
            top.insert(0, Const(size.numerator))
        if size.denominator != 1:
            bottom.insert(0, Const(size.denominator))
    else:
        top.insert(0, number(size))
    above = product(top) or Const(1)
    below = product(bottom)
    out = above if below is None else Binary("/", above, below)
    return Unary("-", out) if m.coeff < 0 else out


def _factor(base: Expr, power: Fraction) -> Expr:
    match power:
        case Fraction(numerator=1, denominator=1):
            return base
        case Fraction(numerator=1, denominator=2):
            return Call("sqrt", (base,))
        case _:
            return Binary("**", base, number(power))


@dataclass(frozen=True, slots=True)
class Polynomial:
    """A sum of monomials with distinct powers, in order."""

    terms: tuple[Monomial, ...] = ()

    @staticmethod
    def of(terms: Iterable[Monomial]) -> Polynomial:
        """Collect like terms and drop those that cancel."""
        total: dict[Powers, Fraction] = {}
        for t in terms:
            total[t.powers] = total.get(t.powers, Fraction(0)) + t.coeff
        kept = [Monomial(c, p) for p, c in total.items() if c != 0]
        return Polynomial(tuple(sorted(kept, key=lambda t: repr(t.powers))))

    @staticmethod
    def constant(value: int | Fraction) -> Polynomial:
        return Polynomial.of([Monomial(Fraction(value))])

    def __add__(self, other: Polynomial) -> Polynomial:
        return Polynomial.of(self.terms + other.terms)

    def __neg__(self) -> Polynomial:
        return Polynomial(tuple(-t for t in self.terms))

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + -other

    def __mul__(self, other: Polynomial) -> Polynomial:
        return Polynomial.of(a * b for a in self.terms for b in other.terms)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def map(self, fn: Callable[[Expr], Expr]) -> Polynomial:
        """Apply `fn` to every base."""
        return Polynomial.of(t.map(fn) for t in self.terms)


def polynomial(e: Expr) -> Polynomial:
    """The normal form of a sum; products are multiplied out where one side is a single term."""
    match e:
        case Unary("-", arg):
            return -polynomial(arg)
        case Binary("+", left, right):
            return polynomial(left) + polynomial(right)
        case Binary("-", left, right):
            return polynomial(left) - polynomial(right)
        case Binary("*", left, right):
            a, b = polynomial(left), polynomial(right)
            if len(a.terms) <= 1 or len(b.terms) <= 1:
                return a * b
        case Binary("/", left, right):
            inverse = monomial(Binary("/", Const(1), right))
            return polynomial(left) * Polynomial.of([inverse])
    return Polynomial.of([monomial(e)])


def total(p: Polynomial) -> Expr:
    """Back to an expression: `a + b - c`, positive terms first."""
    out: Expr | None = None
    for t in sorted(p.terms, key=lambda t: t.coeff < 0):
        if out is None:
            out = expression(t)
        elif t.coeff < 0:
            out = Binary("-", out, expression(-t))
        else:
            out = Binary("+", out, expression(t))
    return Const(0) if out is None else out
