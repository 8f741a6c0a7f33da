"""Squared distances as products: what is a loop over features at every pair becomes one matrix product.

    sum[e]((Q[i,e] - K[j,e])**2)   ->   sum[e](Q[i,e]**2) + sum[e](K[j,e]**2) - 2 * sum[e](Q[i,e] * K[j,e])

The three sums cancel where the points are near each other and far from the origin: the distance is then off by about
2**-23 of their squared lengths, whatever it is itself. So the rewrite is taken only where that is an error of the same
size in all that follows: scores under an exponential, `log(1 + x)`, no square root and no divisor that may be 0.

requires: two inputs as they are, so that products of narrow types are exact; each has a sequence that the other lacks
source:   the expansion of a quadratic form; FlashAttention's treatment of L2 scores (Kim et al., arXiv:2006.04710)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    DType,
    Expr,
    Index,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.signs import Sign, sign_of, signs
from attndsl.cascade.walk import children, free, reads, rename, rewrite, walk

# Functions whose value changes little, or by as much, where their argument is a little off.
BOUNDED = frozenset(
    {
        "exp",
        "exp2",
        "tanh",
        "sigmoid",
        "logsigmoid",
        "softplus",
        "elu",
        "silu",
        "gelu",
        "erf",
        "sin",
        "cos",
    }
)


def distances_as_products(c: Cascade) -> Cascade:
    """The program with its squared distances as products, where no digits are lost that count."""
    floats = {t.name for t in c.inputs if t.dtype is DType.FLOAT}
    taken = {
        d.tensor
        for d in c.body
        if any(_expanded(n, floats) is not None for n in walk(d.expr)) and _bears(c, d, floats)
    }
    if not taken:
        return c
    names = Names(c)
    body: list[Define] = []
    lengths: dict[Expr, Read] = {}  # a point, and its squared length
    for d in c.body:
        if d.tensor in taken:

            def rule(e: Expr, d: Define = d) -> Expr | None:
                found = _expanded(e, floats)
                if found is None:
                    return None
                product, *ends = found
                (index,) = product.indices
                points = [rename(x, {index: "%"}) for x in ends]
                for x, point in zip(ends, points, strict=True):
                    if point not in lengths:
                        lengths[point] = _length(x, index, names, body, d)
                one, other = (lengths[point] for point in points)
                return Binary("-", Binary("+", one, other), Binary("*", Const(2), product))

            d = dataclasses.replace(d, expr=rewrite(d.expr, rule))
        body.append(d)
    return dataclasses.replace(c, body=tuple(body))


def _length(x: Read, index: str, names: Names, body: list[Define], home: Define) -> Read:
    """The squared length of a point, as a tensor of its own: it is known once for all that the point is paired with."""
    total = Reduce(Reduction.SUM, (index,), Binary("**", x, Const(2)))
    kept = tuple(s.name for s in x.subs if isinstance(s, Index) and s.name != index)
    name = names.tensor(f"{home.tensor}.{x.tensor}")
    body.append(Define(name, kept, total, span=home.span))
    return Read(name, tuple(map(Index, kept)), span=x.span)


def _expanded(e: Expr, floats: set[str]) -> tuple[Reduce, Read, Read] | None:
    """The product of two points that a squared distance is made of, and the points."""
    match e:
        case Reduce(op=Reduction.SUM, indices=(index,), where=None):
            pair = _difference(e.body)
        case _:
            return None
    if pair is None or any(a.tensor not in floats for a in pair):
        return None
    first, second = (frozenset(free(a)) for a in pair)
    if index not in first & second or not first - second or not second - first:
        return None
    if any(not isinstance(s, Index) for a in pair for s in a.subs):
        return None
    product = Reduce(Reduction.SUM, (index,), Binary("*", *pair), span=e.span)
    return product, *pair


def _difference(e: Expr) -> tuple[Read, Read] | None:
    """`a` and `b` of a squared difference."""
    match e:
        case Binary("**", Call("abs", (x,)) | x, Const(2 | 2.0)):
            pass
        case Binary("*", x, y) if x == y:
            pass
        case _:
            return None
    match x:
        case Binary("-", Read() as a, Read() as b):
            return a, b
        case _:
            return None


# --- what follows from a distance ----------------------------------------------------------------------------------


class _Held(IntEnum):
    """What an expression has of a distance: nothing, the distance (a multiple, a largest one), a smooth function."""

    NOTHING = 0
    SMOOTH = 1
    ITSELF = 2


class _Steep(Exception):
    """Something follows from a distance that a small error would change much."""


def _bears(c: Cascade, start: Define, floats: set[str]) -> bool:
    """Whether everything that is made of a distance bears an error that does not shrink with it."""
    totals = {d.tensor for d in c.body if isinstance(d.expr, Reduce)}
    follow = _Follow(floats, signs(c), totals)
    outputs = {o.name for o in c.outputs}
    try:
        for d in c.body:
            if d.tensor != start.tensor and not follow.known.keys() & reads(d.expr):
                continue
            if d.init is not None or (d.where is not None and follow.held(d.where)):
                return False
            held = follow.known[d.tensor] = follow.held(d.expr)
            pairs = d.tensor in outputs and {*d.indices} >= {*start.indices}
            if pairs and held is _Held.ITSELF:
                return False
    except _Steep:
        return False
    return True


@dataclass(slots=True)
class _Follow:
    floats: set[str]
    signs: Mapping[str, Sign]
    totals: set[str]
    known: dict[str, _Held] = field(default_factory=dict)

    def held(self, e: Expr) -> _Held:
        """Raises: _Steep."""
        if _expanded(e, self.floats) is not None:
            return _Held.ITSELF
        match e:
            case Read():
                return self.known.get(e.tensor, _Held.NOTHING)
            case Binary("+" | "-" | "*", a, b):
                return max(self.held(a), self.held(b))
            case Binary("/", a, b):
                return max(self.held(a), self.away_from_zero(b))
            case Binary("**", a, Const(int(k))) if k > 0:
                return self.held(a)
            case Binary("**", a, b) if not self.held(b):
                return self.away_from_zero(a)
            case Unary("-", a) | Call("abs" | "relu", (a,)):
                return self.held(a)
            case Call("max" | "min", args):
                return max(map(self.held, args))
            case Call("log" | "log2" | "sqrt" | "rsqrt", (a,)):
                return self.away_from_zero(a)
            case Call(fn, args) if fn in BOUNDED:
                return _Held.SMOOTH if any(map(self.held, args)) else _Held.NOTHING
            case Reduce(Reduction.SUM | Reduction.MAX | Reduction.MIN, _, body, where):
                if where is not None:
                    self.free(where)
                return self.held(body)
            case Select(cond, a, b):
                self.free(cond)
                return max(self.held(a), self.held(b))
            case _:
                self.free(e)
                return _Held.NOTHING

    def away_from_zero(self, e: Expr) -> _Held:
        """For a function that is steep at 0 alone: `1 + x`, and sums of exponentials."""
        held = self.held(e)
        match e:
            case Binary("+", Const(k), _) | Binary("+", _, Const(k)) if k >= 1:
                return min(held, _Held.SMOOTH)
        total = isinstance(e, Reduce) or (isinstance(e, Read) and e.tensor in self.totals)
        if held is _Held.ITSELF or (
            held and not (total and sign_of(e, self.signs) is not Sign.ANY)
        ):
            raise _Steep
        return held

    def free(self, e: Expr) -> None:
        """Nothing of a distance may be here: a condition is taken or not."""
        if any(self.held(x) for x in children(e)):
            raise _Steep
