"""Derivatives of one definition by the tensors that it reads.

`leaves` walks from the root of a definition to every differentiable read and multiplies the local
derivatives on the way: for `P[i,j] = exp(S[i,j] - M[i])` the leaves are `S[i,j]` with factor
`P[i,j]` and `M[i]` with factor `-P[i,j]`. A leaf under a reduction also carries the bound indices
and the conditions under which it is reached.

At a kink the derivative is 0 (`relu`, `abs`, `max(a, b)` of equals); points that share the maximum
of a reduction split it evenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from attndsl.cascade.definedness import (
    Conditions,
    Domains,
    conjunction,
    conjuncts,
    defined,
    negation,
)
from attndsl.cascade.monomials import Monomial, expression, monomial, raised
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Local,
    Logic,
    Read,
    Reduce,
    Reduction,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.walk import children, reads, rename, rewrite, walk

ONE, ZERO = Const(1), Const(0)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A read that the definition depends on: `d(tensor) / d(read)` summed over nothing yet."""

    read: Read | Local
    factor: Monomial
    indices: tuple[str, ...] = ()
    """Indices bound on the way to the read."""
    where: Conditions = ()
    """Conditions on the way: filters of reductions, branches taken."""


def leaves(
    d: Define, active: frozenset[str], domains: Domains, fresh: Callable[[str], str]
) -> list[Leaf]:
    """The leaves of a definition that read a tensor in `active`; `fresh` renames an index."""
    return list(_Walk(d, active, None, domains, fresh).go(d.expr, Leaf(_NOWHERE, Monomial())))


def slope_by(d: Define, e: Expr, unknown: str, fresh: Callable[[str], str]) -> Expr | None:
    """The derivative of an expression in `d` by the unknown of an equation; None where it has none.

    requires: domains are explicit, so that reductions say themselves where they range.
    """
    walk_ = _Walk(d, frozenset(), unknown, {}, fresh)
    total: Expr | None = None
    for leaf in walk_.go(e, Leaf(_NOWHERE, Monomial())):
        part = summed(leaf)
        total = part if total is None else _b("+", total, part)
    return total


def singular(e: Expr) -> frozenset[str]:
    """Tensors at whose zeros a derivative in `e` would be infinite: below roots, logarithms, small powers."""
    out: frozenset[str] = frozenset()
    for n in walk(e):
        match n:
            case Call("log" | "log2" | "sqrt" | "rsqrt", (x,)):
                out |= reads(x)
            case Binary("**", x, Const(value=v)) if v < 1:
                out |= reads(x)
            case _:
                pass
    return out


def differentiable(e: Expr) -> Iterator[Read | Local]:
    """Every read that could carry a gradient: not in a subscript, not in a condition."""
    match e:
        case Read() | Local():
            yield e
        case Compare() | Logic():
            return
        case Unary("not", _) | Binary("//", _, _):
            return
        case Call(fn="sign" | "floor" | "ceil"):
            return
        case Select():
            yield from differentiable(e.then)
            yield from differentiable(e.other)
        case Reduce(op=Reduction.ANY | Reduction.ALL):
            return
        case Reduce():
            yield from differentiable(e.body)
        case Solve():
            yield from differentiable(e.equation.left)
            yield from differentiable(e.equation.right)
        case _:
            for c in children(e):
                yield from differentiable(c)


_NOWHERE = Local("")


def _b(op: str, left: Expr, right: Expr) -> Expr:
    return Binary(op, left, right)


def _minus(x: Expr) -> Expr:
    return x.arg if isinstance(x, Unary) and x.op == "-" else Unary("-", x)


def _square(x: Expr) -> Expr:
    return Binary("**", x, Const(2))


def _gelu(x: Expr) -> Expr:
    normal = Call("exp", (Unary("-", _b("/", _square(x), Const(2))),))
    density = _b("*", Const(1 / math.sqrt(2 * math.pi)), normal)
    erf = Call("erf", (_b("/", x, Call("sqrt", (Const(2),))),))
    return _b("+", _b("/", _b("+", ONE, erf), Const(2)), _b("*", x, density))


def _silu(x: Expr) -> Expr:
    s = Call("sigmoid", (x,))
    return _b("*", s, _b("+", ONE, _b("*", x, _b("-", ONE, s))))


def _acos(x: Expr) -> Expr:
    slope = Unary("-", _b("/", ONE, Call("sqrt", (_b("-", ONE, _square(x)),))))
    return Select(Compare("==", Call("abs", (x,)), ONE), ZERO, slope)


_LN2 = Call("log", (Const(2),))

# The derivative of y = f(x), in x and y.
FUNCTIONS: dict[str, Callable[[Expr, Expr], Expr]] = {
    "exp": lambda x, y: y,
    "exp2": lambda x, y: _b("*", y, _LN2),
    "log": lambda x, y: _b("/", ONE, x),
    "log2": lambda x, y: _b("/", ONE, _b("*", x, _LN2)),
    "sqrt": lambda x, y: _b("/", Call("rsqrt", (x,)), Const(2)),
    "rsqrt": lambda x, y: _b("/", Unary("-", Call("rsqrt", (x,))), _b("*", Const(2), x)),
    "tanh": lambda x, y: _b("-", ONE, _square(y)),
    "sigmoid": lambda x, y: _b("*", y, _b("-", ONE, y)),
    "logsigmoid": lambda x, y: Call("sigmoid", (_minus(x),)),
    "softplus": lambda x, y: Call("sigmoid", (x,)),
    "relu": lambda x, y: Select(Compare(">", x, ZERO), ONE, ZERO),
    "elu": lambda x, y: Select(Compare(">", x, ZERO), ONE, Call("exp", (x,))),
    "silu": lambda x, y: _silu(x),
    "gelu": lambda x, y: _gelu(x),
    "erf": lambda x, y: _b(
        "*", Const(2 / math.sqrt(math.pi)), Call("exp", (Unary("-", _square(x)),))
    ),
    "sin": lambda x, y: Call("cos", (x,)),
    "cos": lambda x, y: Unary("-", Call("sin", (x,))),
    "acos": lambda x, y: _acos(x),
    "abs": lambda x, y: Call("sign", (x,)),
}


class _Walk:
    def __init__(
        self,
        define: Define,
        active: frozenset[str],
        unknown: str | None,
        domains: Domains,
        fresh: Callable[[str], str],
    ) -> None:
        self.define = define
        self.active = active
        self.unknown = unknown
        self.domains = domains
        self.fresh = fresh
        self.result = Read(define.tensor, tuple(Index(i) for i in define.indices))

    def wanted(self, e: Expr) -> bool:
        return any(
            (isinstance(r, Read) and r.tensor in self.active)
            or (isinstance(r, Local) and r.name == self.unknown)
            for r in differentiable(e)
        )

    def value(self, e: Expr) -> Expr:
        """The value of a subexpression; that of the whole right side is the tensor itself."""
        return self.result if e is self.define.expr else e

    def go(self, e: Expr, so_far: Leaf) -> Iterator[Leaf]:
        if not self.wanted(e):
            return
        match e:
            case Read() | Local():
                yield replace(so_far, read=e)
            case Unary("-", arg):
                yield from self.go(arg, replace(so_far, factor=-so_far.factor))
            case Binary():
                yield from self.binary(e, so_far)
            case Select():
                then = (*so_far.where, *conjuncts(e.cond))
                yield from self.go(e.then, replace(so_far, where=then))
                other = (*so_far.where, negation(e.cond))
                yield from self.go(e.other, replace(so_far, where=other))
            case Call("max" | "min", args):
                for k in range(len(args)):
                    yield from self.times(args[k], so_far, monomial(_share(e, k)))
            case Call(fn, (arg,)):
                slope = FUNCTIONS[fn](arg, self.value(e))
                yield from self.times(arg, so_far, monomial(slope))
            case Reduce():
                yield from self.reduce(e, so_far)
            case Solve():
                yield from self.solve(e, so_far)

    def times(self, e: Expr, so_far: Leaf, factor: Monomial) -> Iterator[Leaf]:
        yield from self.go(e, replace(so_far, factor=so_far.factor * factor))

    def binary(self, e: Binary, so_far: Leaf) -> Iterator[Leaf]:
        a, b = e.left, e.right
        match e.op:
            case "+":
                yield from self.go(a, so_far)
                yield from self.go(b, so_far)
            case "-":
                yield from self.go(a, so_far)
                yield from self.go(b, replace(so_far, factor=-so_far.factor))
            case "*":
                yield from self.times(a, so_far, monomial(b))
                yield from self.times(b, so_far, monomial(a))
            case "/":
                inverse = raised(monomial(b), Fraction(-1))
                yield from self.times(a, so_far, inverse)
                yield from self.times(b, so_far, -(monomial(self.value(e)) * inverse))
            case "**":
                yield from self.power(e, so_far)
            case "%":
                yield from self.go(a, so_far)
                whole = Call("floor", (_b("/", a, b),))
                yield from self.times(b, so_far, -monomial(whole))

    def power(self, e: Binary, so_far: Leaf) -> Iterator[Leaf]:
        a, b = e.left, e.right
        if isinstance(b, Const):
            n = Fraction(b.value)
            less = raised(monomial(a), n - 1)
            yield from self.times(a, so_far, Monomial(n) * less)
            return
        # at a = 0 both derivatives may be infinite, and count as 0
        zero = Compare("==", a, ZERO)
        less = monomial(Select(zero, ZERO, _b("**", a, _b("-", b, ONE))))
        yield from self.times(a, so_far, monomial(b) * less)
        grown = _b("*", self.value(e), Call("log", (a,)))
        yield from self.times(b, so_far, monomial(Select(zero, ZERO, grown)))

    def reduce(self, e: Reduce, so_far: Leaf) -> Iterator[Leaf]:
        where = (*so_far.where, *conjuncts(e.where), *defined(e.body, self.domains))
        inside = replace(so_far, indices=(*so_far.indices, *e.indices), where=where)
        match e.op:
            case Reduction.SUM:
                yield from self.go(e.body, inside)
            case Reduction.MAX | Reduction.MIN:
                # a maximum that stands inside (of a recurrence, of an equation) has no name
                value = self.result if e is self.define.expr else self.again(e)
                hit = Compare("==", e.body, value)
                one = Select(hit, ONE, ZERO)
                ties = self.again(replace(e, op=Reduction.SUM, body=one))
                yield from self.times(e.body, inside, monomial(_b("/", one, ties)))
            case Reduction.PROD:
                yield from self.times(e.body, inside, monomial(self.others(e)))

    def others(self, e: Reduce) -> Expr:
        """The product of all factors but one, made of two reductions over all.

        They are the product of the factors that are not 0, and how many are 0: `prod[k : k != j](x[k])` would be a
        reduction for each point that is reduced.
        """
        rest, zeros = self.again(e), self.again(e)
        none = Compare("==", rest.body, ZERO)
        product = replace(rest, body=Select(none, ONE, rest.body))
        count = replace(
            zeros,
            op=Reduction.SUM,
            body=Select(Compare("==", zeros.body, ZERO), ONE, ZERO),
        )
        alone = Select(Compare("==", count, ONE), product, ZERO)
        beside = Select(Compare("==", count, ZERO), _b("/", product, e.body), ZERO)
        return Select(Compare("==", e.body, ZERO), alone, beside)

    def again(self, e: Reduce) -> Reduce:
        """The same reduction over indices of its own."""
        out = rename(e, {i: self.fresh(i) for i in e.indices})
        assert isinstance(out, Reduce)
        return out

    def solve(self, e: Solve, so_far: Leaf) -> Iterator[Leaf]:
        """The implicit function theorem: F(x, t) = 0 gives dx/dt = -F_t / F_x."""
        value = self.value(e)
        balance = _b("-", e.equation.left, e.equation.right)

        def at_root(x: Expr) -> Expr:
            return rewrite(x, lambda n: value if isinstance(n, Local) and n.name == e.var else None)

        by_unknown = _Walk(self.define, frozenset(), e.var, self.domains, self.fresh)
        slope: Expr | None = None
        for leaf in by_unknown.go(balance, Leaf(_NOWHERE, Monomial())):
            part = at_root(summed(leaf))
            fresh = {i: self.fresh(i) for i in leaf.indices}
            part = rename(part, fresh)
            slope = part if slope is None else _b("+", slope, part)
        assert slope is not None, "the equation contains its unknown"
        inverse = -raised(monomial(slope), Fraction(-1))
        for leaf in self.go(balance, replace(so_far, factor=so_far.factor * inverse)):
            where = tuple(at_root(c) for c in leaf.where)
            yield replace(leaf, factor=leaf.factor.map(at_root), where=where)


def summed(leaf: Leaf) -> Expr:
    """The factor of a leaf, summed over the indices on its way."""
    where = conjunction(leaf.where)
    factor = expression(leaf.factor)
    if leaf.indices:
        return Reduce(Reduction.SUM, leaf.indices, factor, where)
    return factor if where is None else Select(where, factor, ZERO)


def _share(e: Call, k: int) -> Expr:
    """The part of argument `k` in the derivative of a maximum: all of it where it wins alone."""
    beats = ">" if e.fn == "max" else "<"
    wins = tuple(Compare(beats, e.args[k], a) for n, a in enumerate(e.args) if n != k)
    won = conjunction(wins)
    return ONE if won is None else Select(won, ONE, ZERO)
