"""Whether a program is softmax attention with a function of the score and a mask, as FlexAttention has it; and which.

    found = score_mask(cascade)
    found.score       # Binary("-", Score, slope * (i - j)), over `Score` where the product stood
    found.mask        # Compare("<=", j, i), or None

Read off the definitions, whatever their names: an output that sums weights times one input, weights that are the
exponential of something over the sum of the same, and one product of two inputs inside of that. Terms that do not
depend on the key cancel in the quotient, so the maximum that stabilises it, or any other, drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.cascade.conditions import conjunction
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    DType,
    Expr,
    Index,
    Leaf,
    Read,
    Reduce,
    Reduction,
    Unary,
)
from attndsl.cascade.walk import free, reads, replaced, substitute, walk


class Inexpressible(Exception):
    """The program is something else; the reason, in a few words."""


@dataclass(frozen=True, slots=True)
class Score(Leaf):
    """The plain product of a query and a key."""


@dataclass(frozen=True, slots=True)
class ScoreMask:
    """`softmax over key of (score where mask), times value`.

    `query` and `key` are the sequence indices that `score` and `mask` are written in; `q`, `k`, `v` name inputs.
    """

    q: str
    k: str
    v: str
    batch: tuple[str, ...]
    query: str
    key: str
    score: Expr
    mask: Expr | None
    output: str

    @property
    def plain(self) -> bool:
        """Whether the score is the product times something that depends on no position and on no tensor."""
        return self.constant is not None

    @property
    def constant(self) -> Expr | None:
        """The factor of the product, if there is nothing else to the score."""
        factors, under = _factors(self.score)
        if factors.count(Score()) != 1 or Score() in under:
            return None
        rest = [f for f in factors if f != Score()]
        if any(free(f) or reads(f) or _has_score(f) for f in (*rest, *under)):
            return None
        return _product(rest, under)


def score_mask(cascade: Cascade) -> ScoreMask:
    """The program as a score and a mask.

    Raises: Inexpressible.
    """
    whole = explicit_domains(cascade)
    data = [o for o in whole.outputs if _carries_data(whole, o.name)]
    if len(data) != 1:
        raise Inexpressible(f"{len(data)} outputs have a data index")
    return _Reader(whole, data[0].name).read()


class _Reader:
    def __init__(self, cascade: Cascade, output: str) -> None:
        self.cascade = cascade
        self.inputs = {t.name: t for t in cascade.inputs}
        self.output = cascade.define(output)

    def read(self) -> ScoreMask:
        out = self.output
        factors, under, key = self.weighted(out)
        values = [f for f in factors if self.is_value(f, key, out)]
        if len(values) != 1:
            raise Inexpressible(f"the output is no sum of weights times one input over `{key}`")
        value = values[0]
        assert isinstance(value, Read)
        weights = [f for f in factors if f is not value]
        exponent, mask, key = self.normalized(weights, under, key)
        return self.dissected(exponent, mask, key, value)

    def weighted(self, out: Define) -> tuple[list[Expr], list[Expr], str]:
        """The factors of a sum over one index, those outside of it included, and what they are divided by."""
        factors, under = _factors(out.expr)
        sums = [f for f in factors if isinstance(f, Reduce)]
        if len(sums) != 1 or sums[0].op is not Reduction.SUM or len(sums[0].indices) != 1:
            raise Inexpressible("the output is no single sum over keys")
        (total,) = sums
        inner, inner_under = _factors(total.body)
        outer = [f for f in factors if f is not total]
        return [*outer, *inner], [*under, *inner_under], total.indices[0]

    def is_value(self, f: Expr, key: str, out: Define) -> bool:
        if not isinstance(f, Read) or f.tensor not in self.inputs or len(f.subs) < 2:
            return False
        *_, at, feature = f.subs
        return at == Index(key) and feature == Index(out.indices[-1])

    def normalized(
        self, weights: list[Expr], under: list[Expr], key: str
    ) -> tuple[Expr, Expr | None, str]:
        """What is exponentiated, its domain, and its index, where the weights are exponentials over their sum."""
        if len(weights) != 1 or len(under) != 1:
            raise Inexpressible("the weights are not one function of the score over one sum")
        exponential, mask = self.unfolded(weights[0])
        total, _ = self.unfolded(under[0])
        if not (isinstance(exponential, Call) and exponential.fn == "exp"):
            raise Inexpressible("the weights are no exponentials")
        if not (
            isinstance(total, Reduce)
            and total.op is Reduction.SUM
            and len(total.indices) == 1
            and key in free(weights[0])
        ):
            raise Inexpressible("the denominator is not the sum of the weights alone")
        summed, _ = self.unfolded(substitute(total.body, {total.indices[0]: _position(key)}))
        if summed != exponential:
            raise Inexpressible("the denominator sums something other than the weights")
        return exponential.args[0], mask, key

    def unfolded(self, e: Expr) -> tuple[Expr, Expr | None]:
        """The definition behind a read of a body tensor, in the read's own indices, and its domain."""
        mask: Expr | None = None
        while isinstance(e, Read) and e.tensor not in self.inputs:
            d = self.cascade.define(e.tensor)
            at = {i: _as_number(s) for i, s in zip(d.indices, e.subs, strict=True)}
            if d.init is not None:
                raise Inexpressible(f"`{e.tensor}` is a recurrence")
            here = None if d.where is None else substitute(d.where, at)
            mask = conjunction((mask, here))
            e = substitute(d.expr, at)
        return e, mask

    def dissected(self, exponent: Expr, mask: Expr | None, key: str, value: Read) -> ScoreMask:
        terms = [t for t in self.terms(exponent) if key in free(t[1])]
        score: Expr | None = None
        for sign, term in terms:
            inner, where = self.expanded(term)
            mask = conjunction((mask, where))
            if score is None:
                score = inner if sign > 0 else Unary("-", inner)
            else:
                score = Binary("+" if sign > 0 else "-", score, inner)
        if score is None:
            raise Inexpressible("no score depends on the key")
        products = [n for n in walk(score) if isinstance(n, Reduce)]
        if len(set(products)) != 1:
            raise Inexpressible(f"the score holds {len(set(products))} sums, not one product")
        (dot,) = set(products)
        q, k, rest = self.product(dot, key, value)
        score = replaced(score, dot, rest)
        query = q.subs[-2]
        if not isinstance(query, Index):
            raise Inexpressible("the queries are gathered")
        batch = tuple(
            i for i in self.output.indices if i not in (query.name, self.output.indices[-1])
        )
        return ScoreMask(
            q.tensor,
            k.tensor,
            value.tensor,
            batch,
            query.name,
            key,
            score,
            mask,
            self.output.tensor,
        )

    def terms(self, e: Expr, sign: int = 1) -> list[tuple[int, Expr]]:
        """The terms of a sum with their signs, definitions unfolded where that shows more of them."""
        match e:
            case Binary(op="+"):
                return [*self.terms(e.left, sign), *self.terms(e.right, sign)]
            case Binary(op="-"):
                return [*self.terms(e.left, sign), *self.terms(e.right, -sign)]
            case _:
                return [(sign, e)]

    def expanded(self, e: Expr) -> tuple[Expr, Expr | None]:
        """An expression over inputs alone, and the domain of all it was made of."""
        e, mask = self.unfolded(e)
        for n in list(walk(e)):
            if isinstance(n, Read) and n.tensor not in self.inputs:
                inner, where = self.expanded(n)
                mask = conjunction((mask, where))
                e = replaced(e, n, inner)
        return e, mask

    def product(self, dot: Reduce, key: str, value: Read) -> tuple[Read, Read, Expr]:
        """The two inputs of a product over a data index, and `Score` with the other factors."""
        if dot.op is not Reduction.SUM or len(dot.indices) != 1 or dot.where is not None:
            raise Inexpressible("the score is no product over one data index")
        (e,) = dot.indices
        factors, under = _factors(dot.body)
        over = [f for f in factors if e in free(f)]
        if len(over) != 2 or any(e in free(f) for f in under):
            raise Inexpressible(f"the score sums {len(over)} factors over `{e}`, not two")
        for f in over:
            if not (isinstance(f, Read) and f.tensor in self.inputs and f.subs[-1] == Index(e)):
                raise Inexpressible("the score is no product of two inputs")
        keys = [f for f in over if key in free(f)]
        if len(keys) != 1:
            raise Inexpressible("both factors of the score depend on the key")
        (k,) = keys
        (q,) = (f for f in over if f is not k)
        assert isinstance(q, Read)
        assert isinstance(k, Read)
        if k.subs[-2] != Index(key):
            raise Inexpressible("the keys are gathered")
        if k.subs[:-2] != value.subs[:-2]:
            raise Inexpressible("keys and values have different batch indices")
        rest = [f for f in factors if f is not q and f is not k]
        return q, k, _product([Score(), *rest], under)


def _carries_data(cascade: Cascade, output: str) -> bool:
    """Whether an output has a last index that is the last one of some input."""
    last = cascade.define(output).indices[-1:]
    return any(
        t.dims[-1:] == tuple(map(Index, last)) and len(t.dims) > 1 and t.dtype is DType.FLOAT
        for t in cascade.inputs
        if last
        and any(
            isinstance(n, Read) and n.tensor == t.name for d in cascade.body for n in walk(d.expr)
        )
    ) and isinstance(_sum_of(cascade.define(output).expr), Reduce)


def _sum_of(e: Expr) -> Expr | None:
    factors, _ = _factors(e)
    return next((f for f in factors if isinstance(f, Reduce)), None)


def _has_score(e: Expr) -> bool:
    return any(n == Score() for n in walk(e))


def _factors(e: Expr) -> tuple[list[Expr], list[Expr]]:
    """Numerators and denominators."""
    match e:
        case Binary(op="*"):
            (a, b), (c, d) = _factors(e.left), _factors(e.right)
            return [*a, *c], [*b, *d]
        case Binary(op="/"):
            (a, b), (c, d) = _factors(e.left), _factors(e.right)
            return [*a, *d], [*b, *c]
        case _:
            return [e], []


def _product(over: list[Expr], under: list[Expr]) -> Expr:
    out: Expr = over[0] if over else Const(1.0)
    for f in over[1:]:
        out = Binary("*", out, f)
    for f in under:
        out = Binary("/", out, f)
    return out


def _position(name: str) -> Expr:
    from attndsl.cascade.nodes import Position

    return Position(name)


def _as_number(e: Expr) -> Expr:
    """A subscript as something to put in place of an index."""
    return _position(e.name) if isinstance(e, Index) else e
