"""Sums of score gradients that cancel, over a row, are taken from terms that cancel exactly.

    dS[i,j]   = P[i,j] * (dP[i,j] - D[i])                      D[i] = sum[f](O[i,f] * dO[i,f])
    dslope[h] = sum[b,i,j](dS[i,j] * (i - j))

A row of `dS` sums to 0, as far as `D` is the sum of `P * dP`. Read back from an output of 16 bits it is so only to 8
bits, and `i - j` grows with the length: the rest of each row, times a position, drowns the gradient. The same kernel
has `P` and `dP`, so it can tell by how much `D` is off:

    E[i]      = sum[j](P[i,j] * dP[i,j])
    F[i]      = E[i] - D[i] if abs(E[i] - D[i]) > abs(E[i]) / 2**16 * max(1, abs(LSE[i]) / 64) else 0
    W[i]      = sum[j]((i - j) * dS[i,j]) - F[i] * sum[j]((i - j) * P[i,j])
    dslope[h] = sum[b,i](W[i])

`E` is off as well: by the rounding of the log-sum-exp in `P`, which is 2**-24 of its size. Where the two differ by
more, it is `D` that is off; where they do not, as for outputs of 32 bits, the difference says nothing and `D` stays.

Gradients with features (`dQ`, `dK`) keep `D`: there the rest is as small as their own rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from attndsl.cascade.definedness import at, conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.sums import signed
from attndsl.cascade.walk import free, rewrite, walk

# Exponents of P are off by the rounding of a log-sum-exp in float32: of one of 64, by 2**-18, and larger ones by more.
UNSURE = 2.0**-16
USUAL = 64.0

Rows = Mapping[str, Callable[[], str]]
Order = Callable[[frozenset[str]], tuple[str, ...]]


def steadied(
    made: list[Define], rows: Rows, tensor: Callable[[str], str], ordered: Order
) -> list[Define]:
    """The definitions with such sums rewritten.

    `rows` makes, of a tensor like `D`, the name of the tensor like `E`; `tensor` makes fresh names, and `ordered` puts
    indices in order.
    """
    defs = {d.tensor: d for d in made}
    out: list[Define] = []
    for d in made:
        before: list[Define] = []

        def rule(e: Expr, before: list[Define] = before) -> Expr | None:
            if not isinstance(e, Reduce) or e.op is not Reduction.SUM:
                return None
            return _in_two(e, defs, rows, tensor, ordered, before)

        expr = rewrite(d.expr, rule)
        out += [*before, dataclasses.replace(d, expr=expr)]
    return out


def _in_two(
    e: Reduce,
    defs: Mapping[str, Define],
    rows: Rows,
    tensor: Callable[[str], str],
    ordered: Order,
    before: list[Define],
) -> Expr | None:
    every = factors(e.body)
    for k, read in enumerate(every):
        if not isinstance(read, Read) or read.tensor not in defs:
            continue
        d = defs[read.tensor]
        if d.where is not None or d.init is not None:
            continue
        weights = factors(at(d.expr, d.indices, read.subs))
        for m, s in enumerate(weights):
            parts = list(signed(s))
            centre = [(c, p) for c, p in parts if isinstance(p, Read) and p.tensor in rows]
            if len(centre) != 1 or len(parts) < 2:
                continue
            ((sign, row),) = centre
            kept = free(row)
            stream = tuple(i for i in e.indices if i not in kept)
            if not stream or not free(e) <= kept:
                continue
            rest = [*every[:k], *every[k + 1 :]]
            fixed = [f for f in rest if not free(f) & set(stream)]
            moving = [f for f in rest if free(f) & set(stream)]
            inner = conjunction(tuple(c for c in conjuncts(e.where) if free(c) & set(stream)))
            outer = conjunction(tuple(c for c in conjuncts(e.where) if not free(c) & set(stream)))
            exact = dataclasses.replace(row, tensor=rows[row.tensor]())
            one = Reduce(Reduction.SUM, stream, product_of([*moving, read]), inner)
            scale = product_of([*moving, *weights[:m], *weights[m + 1 :]])
            two = Reduce(Reduction.SUM, stream, scale, inner)
            pivots = [r for w in (read, *weights) for r in _pivots(w, defs, kept)]
            off = Binary("*", _rest(exact, row, pivots), two)
            value = Binary("+" if sign > 0 else "-", one, off)
            indices = ordered(free(value))
            name = tensor("W")
            before.append(Define(name, indices, value))
            total: Expr = product_of([*fixed, Read(name, tuple(Index(i) for i in indices))])
            left = tuple(i for i in e.indices if i not in stream)
            return Reduce(Reduction.SUM, left, total, outer) if left else total
    return None


def _pivots(e: Expr, defs: Mapping[str, Define], kept: frozenset[str]) -> list[Expr]:
    """The row tensors that are subtracted in the exponents of a weight: `LSE[i]` of `P[i,j] = exp(S[i,j] - LSE[i])`."""
    if isinstance(e, Read) and e.tensor in defs and (d := defs[e.tensor]).init is None:
        e = at(d.expr, d.indices, e.subs)
    return [
        part
        for n in walk(e)
        if isinstance(n, Call) and n.fn == "exp"
        for sign, part in signed(n.args[0])
        if sign < 0 and isinstance(part, Read) and free(part) <= kept
    ]


def _rest(exact: Expr, row: Expr, pivots: list[Expr]) -> Expr:
    """By how much `row` is off, where that is more than what `exact` may be."""
    off = Binary("-", exact, row)
    least: Expr = Binary("*", Const(UNSURE), Call("abs", (exact,)))
    for pivot in dict.fromkeys(pivots):
        size = Binary("/", Call("abs", (pivot,)), Const(USUAL))
        least = Binary("*", least, Call("max", (Const(1.0), size)))
    return Select(Compare(">", Call("abs", (off,)), least), off, Const(0.0))


def factors(e: Expr) -> list[Expr]:
    """The factors of a product; a divisor as its inverse, a sign as -1."""
    match e:
        case Binary("*", a, b):
            return factors(a) + factors(b)
        case Binary("/", a, b):
            return [*factors(a), Binary("/", Const(1), b)]
        case Unary("-", a):
            return [Const(-1), *factors(a)]
        case _:
            return [e]


def product_of(parts: Sequence[Expr]) -> Expr:
    """The product of factors, 1 of none."""
    return reduce(lambda a, b: Binary("*", a, b), parts) if parts else Const(1)


def total(parts: Sequence[tuple[int, Expr]]) -> Expr:
    """The sum of terms with their signs; there is one at least."""
    (sign, first), *rest = sorted(parts, key=lambda part: -part[0])
    start = first if sign > 0 else Unary("-", first)
    return reduce(lambda a, p: Binary("+" if p[0] > 0 else "-", a, p[1]), rest, start)
