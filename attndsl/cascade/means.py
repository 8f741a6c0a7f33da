"""Means of scores under their own weights are taken around the log-sum-exp, where only differences from them count.

    P[i,j]  = exp(S[i,j] - L[i])
    D[i]    = c[i] * sum[j](P[i,j] * S[i,j]) + …
    dS[i,j] = P[i,j] * (c[i] * S[i,j] - D[i] + …)          of an entropy, or of a mean of scores
    ->
    D[i]    = c[i] * sum[j](P[i,j] * (S[i,j] - L[i])) + …
    dS[i,j] = P[i,j] * (c[i] * (S[i,j] - L[i]) - D[i] + …)

The same numbers: a row of `P` sums to 1. It does so up to the rounding of `L`, which for scores of 10**4 is 2**-11; the
scores themselves would be multiplied by that, and what should cancel would be off by several. A score less the
log-sum-exp is small wherever its weight is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from attndsl.cascade.definedness import at
from attndsl.cascade.nodes import Binary, Call, Define, Expr, Index, Read, Reduce, Reduction
from attndsl.cascade.steady import factors, product_of, total
from attndsl.cascade.sums import signed
from attndsl.cascade.walk import reads, rewrite


def around_their_mean(body: Iterable[Define]) -> tuple[Define, ...]:
    """The definitions of a backward pass with such means, and what they are taken from, around the log-sum-exp."""
    defs = {d.tensor: d for d in body}
    for d in list(defs.values()):
        for mean in _means(d, defs):
            made = _centred(d, mean, defs)
            if made is not None:
                defs |= made
                break
    return tuple(defs.values())


@dataclasses.dataclass(frozen=True, slots=True)
class _Mean:
    """`factor * sum[stream](weight * score)` in a row tensor, where `weight` is `exp(score - pivot)`."""

    term: Reduce
    factor: list[Expr]
    sign: int
    weights: Read
    score: Read
    pivot: Read


def _means(d: Define, defs: dict[str, Define]) -> list[_Mean]:
    out: list[_Mean] = []
    for sign, part in signed(d.expr):
        every = factors(part)
        for k, term in enumerate(every):
            match term:
                case Reduce(Reduction.SUM, (_,), Binary("*", Read() as a, Read() as b), None):
                    for weight, score in ((a, b), (b, a)):
                        pivot = _pivot(weight, score, defs)
                        if pivot is not None and not _moves(pivot, term):
                            rest = [*every[:k], *every[k + 1 :]]
                            out.append(_Mean(term, rest, sign, weight, score, pivot))
    return out


def _moves(pivot: Read, term: Reduce) -> bool:
    """Whether the pivot is another one at each point that is summed."""
    return any(isinstance(s, Index) and s.name in term.indices for s in pivot.subs)


def _pivot(weight: Read, score: Read, defs: dict[str, Define]) -> Read | None:
    """`L[i]` of a weight that is `exp(S[i,j] - L[i])`, at the subscripts of the read."""
    d = defs.get(weight.tensor)
    if d is None or d.init is not None or d.where is not None:
        return None
    match at(d.expr, d.indices, weight.subs):
        case Call("exp", (Binary("-", Read() as s, Read() as pivot),)) if s == score:
            return pivot
        case _:
            return None


def _centred(row: Define, mean: _Mean, defs: dict[str, Define]) -> dict[str, Define] | None:
    """The row tensor and all that reads it, around the pivot; None where something would not be the same."""
    made: dict[str, Define] = {}
    around = Binary("-", mean.score, mean.pivot)
    term = dataclasses.replace(mean.term, body=Binary("*", mean.weights, around))
    made[row.tensor] = dataclasses.replace(
        row, expr=rewrite(row.expr, lambda e: term if e == mean.term else None)
    )
    for d in defs.values():
        if d.tensor == row.tensor or row.tensor not in reads(d.expr):
            continue
        new = _reader(d, row, mean, defs)
        if new is None or (d.where is not None and row.tensor in reads(d.where)):
            return None
        made[d.tensor] = new
    return made if len(made) > 1 else None


def _reader(d: Define, row: Define, mean: _Mean, defs: dict[str, Define]) -> Define | None:
    """A product of the weight and of what the row tensor is taken from, around the pivot."""
    every = factors(d.expr)
    weights = [f for f in every if isinstance(f, Read) and f.tensor == mean.weights.tensor]
    sums = [k for k, f in enumerate(every) if row.tensor in reads(f)]
    if len(weights) != 1 or len(sums) != 1 or d.init is not None:
        return None
    w = defs[mean.weights.tensor]
    exponent = at(w.expr, w.indices, weights[0].subs)
    assert isinstance(exponent, Call)
    (around,) = exponent.args
    assert isinstance(around, Binary)
    (k,) = sums
    parts = list(signed(every[k]))
    rows = [(s, p) for s, p in parts if isinstance(p, Read) and p.tensor == row.tensor]
    scores = [(n, s) for n, (s, p) in enumerate(parts) if around.left in factors(p)]
    if len(rows) != 1 or len(scores) != 1 or sum(row.tensor in reads(p) for _, p in parts) != 1:
        return None
    ((sign, read),) = rows
    ((n, also),) = scores
    beside = factors(parts[n][1])
    beside.remove(around.left)
    factor = [at(f, row.indices, read.subs) for f in mean.factor]
    if also != -sign * mean.sign or sorted(map(repr, beside)) != sorted(map(repr, factor)):
        return None
    parts[n] = (also, product_of([around, *beside]))
    every[k] = total(parts)
    return dataclasses.replace(d, expr=product_of(every))
