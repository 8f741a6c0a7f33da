"""Logarithms of weights, taken from their exponents.

    P[i,j] = exp(S[i,j] - M[i]) / Z[i];   H[i] = -sum[j](P[i,j] * log(P[i,j]))
    ->
    H[i] = -sum[j](P[i,j] * (S[i,j] - M[i] - log(Z[i])))

The same number, but for a weight that is too small to be one: its logarithm is finite here, and 0 times it is 0. So a
row's entropy is finite whatever its scores are, in kernels and in the reference alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from functools import reduce
from typing import TypeGuard

from attndsl.cascade.definedness import at
from attndsl.cascade.monomials import (
    Monomial,
    expression,
    monomial,
    raised,
)
from attndsl.cascade.nodes import Binary, Call, Cascade, Define, Expr, Read
from attndsl.cascade.signs import Sign, sign_of, signs
from attndsl.cascade.walk import rewrite


def logs_of_weights(c: Cascade) -> Cascade:
    """With `log(exp(x) / z)` as `x - log(z)`, through the names of tensors.

    rewrite:  log(exp(x) * a / z)   ->   x + log(a / z)
    requires: what stands beside the exponential is not negative
    """
    known = signs(c)
    defs: dict[str, Define] = {}
    for d in c.body:
        d = dataclasses.replace(d, expr=rewrite(d.expr, lambda e: _parted(e, defs, known)))
        defs[d.tensor] = d
    body = tuple(defs.values())
    return c if body == c.body else dataclasses.replace(c, body=body)


def _parted(e: Expr, defs: Mapping[str, Define], known: Mapping[str, Sign]) -> Expr | None:
    match e:
        case Call("log", (Read() | Binary("*" | "/", _, _) as weight,)):
            m = _opened(monomial(weight), defs)
        case _:
            return None
    exponents = [b.args[0] for b, p in m.powers if _is_exp(b) and p == 1]
    beside = Monomial.of(m.coeff, [x for x in m.powers if not (_is_exp(x[0]) and x[1] == 1)])
    if not exponents or sign_of(expression(beside), known) is Sign.ANY:
        return None
    # As they are written: the difference of two scores is exact before anything smaller is taken off.
    whole = reduce(lambda a, b: Binary("+", a, b), exponents)
    above = Monomial.of(beside.coeff, [x for x in beside.powers if x[1] > 0])
    below = above / beside
    if above != Monomial():
        whole = Binary("+", whole, Call("log", (expression(above),)))
    if below != Monomial():
        whole = Binary("-", whole, Call("log", (expression(below),)))
    return whole


def _is_exp(e: Expr) -> TypeGuard[Call]:
    return isinstance(e, Call) and e.fn == "exp"


def _opened(m: Monomial, defs: Mapping[str, Define]) -> Monomial:
    """With the names of products and of exponentials written out."""
    out = Monomial(m.coeff)
    for base, power in m.powers:
        part = Monomial.of(Fraction(1), [(base, power)])
        if isinstance(base, Read) and base.tensor in defs and power.denominator == 1:
            d = defs[base.tensor]
            match d.expr:
                case Call("exp", _) | Binary("*" | "/", _, _) if d.init is None:
                    part = raised(_opened(monomial(at(d.expr, d.indices, base.subs)), defs), power)
        out *= part
    return out
