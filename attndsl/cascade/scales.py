"""Gradients with respect to what scales a tensor, as one product of the tensor itself.

    X[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])        a shift of M by d multiplies X by exp(-d)
    dX/dM  = -X[i,j]                                 not -exp(S[i,j] - M[i]) + exp(-M[i])

Two terms of a derivative may cancel to nothing, or overflow apart; their sum is as large as the tensor. And a sum over
`X * sign(X)` or `X * (1 if X > 0 else 0)` is one that the forward program has: of `abs(X)`, of `relu(X)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from attndsl.cascade.derivatives import Leaf
from attndsl.cascade.invariance import Kind, Scaling, scaling_of
from attndsl.cascade.monomials import Monomial, Polynomial, monomial
from attndsl.cascade.nodes import Binary, Call, Compare, Const, Define, Expr, Index, Read, Select


def by_scale(d: Define, found: list[Leaf]) -> list[Leaf]:
    """Leaves with all reads of a tensor that scales the whole definition as one.

    requires: the tensor is read at one place, more than once, outside of reductions and branches
    """
    out = list(found)
    for read in dict.fromkeys(x.read for x in found):
        same = [
            x
            for x in found
            if isinstance(x.read, Read) and isinstance(read, Read) and x.read.tensor == read.tensor
        ]
        if len(same) < 2 or any(x.read != read or x.indices or x.where for x in same):
            continue
        assert isinstance(read, Read)
        names = tuple(s.name for s in read.subs if isinstance(s, Index))
        if len(names) != len(read.subs):
            continue
        moved = Scaling(Kind.ADD, Polynomial.constant(1), read.subs, names)
        whole = scaling_of(d.expr, {read.tensor: moved})
        if whole.kind is not Kind.MUL or whole.at != read.subs or len(whole.k.terms) != 1:
            continue
        value = Read(d.tensor, tuple(Index(i) for i in d.indices))
        one = replace(same[0], factor=whole.k.terms[0] * monomial(value))
        out[out.index(same[0])] = one
        out = [x for x in out if x not in same[1:]]
    return out


def unsigned(m: Monomial) -> Monomial:
    """A product in which a factor meets its own sign.

    rewrite:  x * sign(x) -> abs(x);  x * (1 if x > 0 else 0) -> relu(x)
    """
    powers = dict(m.powers)
    for base, power in m.powers:
        met = _of_sign(base) if power == 1 else None
        if met is not None and powers.get(met[0], Fraction(0)) == 1:
            inner, fn = met
            del powers[base], powers[inner]
            made = Call(fn, (inner,))
            powers[made] = powers.get(made, Fraction(0)) + 1
    return m if powers == dict(m.powers) else Monomial.of(m.coeff, powers.items())


def _of_sign(e: Expr) -> tuple[Expr, str] | None:
    match e:
        case Call("sign", (x,)):
            return x, "abs"
        case Select(Compare(">", x, Const(0)), Const(1), Const(0)):
            return x, "relu"
        case _:
            return None


def of_one_divisor(parts: Sequence[Monomial]) -> list[Monomial]:
    """A sum in which a part cancels another but for what its divisor adds.

    rewrite:  a - a * x / (x + c)   ->   a * c / (x + c)
    requires: fewer parts remain
    """
    for part in parts:
        for base, power in part.powers:
            split = _added(base) if power == -1 else None
            if split is None or part.power(split[0]) != 1:
                continue
            x, c = split
            whole = part / monomial(x) * monomial(base)
            rest = [p for p in parts if p != part]
            made = Polynomial.of([*rest, whole, -(whole * monomial(c) / monomial(base))])
            if len(made.terms) < len(parts):
                return of_one_divisor(made.terms)
    return list(parts)


def _added(e: Expr) -> tuple[Expr, Expr] | None:
    """`x + c`, for a number `c`."""
    match e:
        case Binary("+", x, Const() as c) | Binary("+", Const() as c, x):
            return x, c
        case _:
            return None
