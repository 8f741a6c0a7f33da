"""Ranks that a program cuts in blocks, put together again: one sweep over positions instead of two nested ones.

    rank j1 = |j| // w, j0 = w
    S[i,j1,j0] = Q[i,e] * K[j1*w + j0, e];    L[i,j1] = max[j0](S[i,j1,j0])
    ->
    S[i,j] = Q[i,e] * K[j,e]   where j < |j| // w * w;    L[i,j1] = max[j : j // w == j1](S[i,j])

`j1` becomes `j // w` and `j0` becomes `j % w` wherever both are summed or kept together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.monomials import expression, monomial, polynomial
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Position,
    Rank,
    Read,
    Reduce,
)
from attndsl.cascade.walk import children, free, substitute, walk, with_children


@dataclass(frozen=True, slots=True)
class Cut:
    """`rank outer = count, inner = width`, read as `outer * width + inner` along the rank `whole` of an input."""

    outer: str
    inner: str
    whole: str
    width: Expr
    count: Expr
    exact: bool = False
    """Whether the rank `whole` is these blocks, with nothing left over at the end."""


class NotJoined(Exception):
    """A place in a block stands without its block."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The position `whole` that stands for a block's number `outer` and a place in it."""

    outer: str
    whole: str


def joined(c: Cascade, names: Names) -> Cascade:
    """With every rank that is cut in blocks whole, the smallest blocks first; as it is, where a place stands alone."""
    tried: set[tuple[str, str]] = set()
    while rest := [x for x in cuts(c, names) if (x.outer, x.inner) not in tried]:
        cut = rest[0]
        tried.add((cut.outer, cut.inner))
        try:
            c = _Join(c, names, cut).run()
        except NotJoined:
            continue
    return c


def cuts(c: Cascade, names: Names) -> list[Cut]:
    """Ranks in blocks, as inputs are read along them beside something else that is kept: the rows of a sweep.

    What is made of one input alone (keys pooled block by block) stays as it is: its blocks are short sums.
    """
    out: dict[tuple[str, str], Cut] = {}
    inputs = {t.name: t for t in c.inputs}
    for d in c.body:
        for n in walk(d.expr):
            if not isinstance(n, Read) or n.tensor not in inputs:
                continue
            for sub, rank, dim in zip(
                n.subs, inputs[n.tensor].ranks, inputs[n.tensor].dims, strict=True
            ):
                terms = summands(sub)
                for found in blocks(terms) if isinstance(dim, Index) else ():
                    outer, inner = names.root(found[0]), names.root(found[1])
                    # Without an extent it is an input's rank, with one row a block.
                    count = names.ranks[outer].extent or Extent(outer)
                    width = names.ranks[inner].extent
                    own = {*free(n), outer, inner}
                    rows = [i for i in d.indices if i not in c.batch and names.root(i) not in own]
                    if width is None or not same(width, found[2]) or not rows:
                        continue
                    if (outer, inner) not in out:
                        exact = len(terms) > 2
                        whole = _whole(names, outer, count, width) if exact else rank
                        out[outer, inner] = Cut(outer, inner, whole, width, count, exact)
    return list(out.values())


def _whole(names: Names, outer: str, count: Expr, width: Expr) -> str:
    """A rank of the places in blocks that are cut in smaller blocks."""
    name = names.tensor(f"{outer}_places")
    names.ranks[name] = Rank(name, extent=Binary("*", count, width))
    return name


def summands(e: Expr) -> list[Expr]:
    """The terms of a sum, products multiplied out."""
    return [expression(m) for m in polynomial(e).terms]


def blocks(terms: Sequence[Expr]) -> Iterator[tuple[str, str, Expr]]:
    """`(a, b, w)` for terms `a * w` and `b` of a subscript."""
    for one in terms:
        match one:
            case Position(b):
                for other in terms:
                    found = None if other is one else _times(other)
                    if found is not None:
                        yield found[0], b, found[1]


def _times(e: Expr) -> tuple[str, Expr] | None:
    """`(a, w)` of a product `a * w` of a position and numbers."""
    m = monomial(e)
    positions = [b for b, p in m.powers if isinstance(b, Position) and p == 1]
    if len(positions) != 1 or any(free(b) for b, _ in m.powers if b not in positions):
        return None
    rest = expression(m / monomial(positions[0]))
    return None if rest == Const(1) else (positions[0].name, rest)


def same(a: Expr, b: Expr) -> bool:
    """Whether two products have the same factors."""
    return monomial(a) == monomial(b)


def blocked(sub: Expr) -> tuple[str, str, Expr] | None:
    """`(a, b, w)` of a subscript `a * w + b`."""
    terms = summands(sub)
    return next(blocks(terms), None) if len(terms) == 2 else None


def in_blocks(index: str, width: Expr, count: Expr) -> Expr:
    """That a position lies in one of the blocks: what is left over at the end does not."""
    return Compare("<", Position(index), Binary("*", count, width))


@dataclass(slots=True)
class _Join:
    cascade: Cascade
    names: Names
    cut: Cut
    flat: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Tensors over both ranks: where these stood among their indices."""

    def run(self) -> Cascade:
        body = tuple(self.define(d) for d in self.cascade.body)
        if any(o.name in self.flat for o in self.cascade.outputs):
            raise NotJoined
        return dataclasses.replace(self.cascade, body=body)

    def root(self, index: str) -> str:
        return self.names.root(index)

    def define(self, d: Define) -> Define:
        roots = [self.root(i) for i in d.indices]
        inner = [k for k, r in enumerate(roots) if r == self.cut.inner]
        outer = [k for k, r in enumerate(roots) if r == self.cut.outer]
        if not inner:
            where = None if d.where is None else self.expr(d.where, {})
            return dataclasses.replace(d, expr=self.expr(d.expr, {}), where=where)
        if len(inner) != 1 or len(outer) != 1 or d.init is not None:
            raise NotJoined
        a, b = d.indices[outer[0]], d.indices[inner[0]]
        new = self.names.index(self.cut.whole)
        pairs = {b: Pair(a, new)}
        self.flat[d.tensor] = (outer[0], inner[0])
        both = [d.expr] if d.where is None else [d.expr, d.where]
        expr, *rest = (self.apart(self.expr(e, pairs), a, b, new) for e in both)
        kept = tuple(new if i == a else i for i in d.indices if i != b)
        domain = conjunction([*rest, *self.inside(new)])
        return dataclasses.replace(d, indices=kept, expr=expr, where=domain)

    def apart(self, e: Expr, a: str | None, b: str, new: str) -> Expr:
        """What is left of a block's number and of a place in it, from the position."""
        to: dict[str, Expr] = {b: Binary("%", Position(new), self.cut.width)}
        if a is not None:
            to[a] = Binary("//", Position(new), self.cut.width)
        return substitute(e, to)

    def expr(self, e: Expr, pairs: Mapping[str, Pair]) -> Expr:
        match e:
            case Read():
                return self.read(e, pairs)
            case Reduce():
                return self.reduce(e, pairs)
            case Binary("+") if (position := self.within(e, pairs)) is not None:
                return position
            case _:
                old = children(e)
                new = tuple(self.expr(x, pairs) for x in old)
                return (
                    e
                    if all(x is y for x, y in zip(old, new, strict=True))
                    else with_children(e, new)
                )

    def within(self, e: Expr, pairs: Mapping[str, Pair]) -> Expr | None:
        """A sum in which a block's number and a place in it, `a * w + b`, are the position that they add up to."""
        terms = summands(e)
        for a, b, width in blocks(terms):
            if b not in pairs or pairs[b].outer != a or not same(width, self.cut.width):
                continue
            rest = [x for x in terms if x != Position(b) and _times(x) != (a, width)]
            if len(rest) == len(terms) - 2:
                out: Expr = Position(pairs[b].whole)
                for x in reversed(rest):
                    out = Binary("+", x, out)
                return out
        return None

    def position(self, e: Expr, pairs: Mapping[str, Pair]) -> Position | None:
        """The position that a block's number and a place in it add up to, `a * w + b`."""
        found = self.within(e, pairs)
        return found if isinstance(found, Position) else None

    def read(self, e: Read, pairs: Mapping[str, Pair]) -> Read:
        subs = [self.expr(s, pairs) for s in e.subs]
        for k, s in enumerate(e.subs):
            position = self.position(s, pairs)
            if position is not None:
                subs[k] = Index(position.name)
        if e.tensor in self.flat:
            ko, ki = self.flat[e.tensor]
            match e.subs[ko], e.subs[ki]:
                case Index(a), Index(b) if b in pairs and pairs[b].outer == a:
                    subs[ko] = Index(pairs[b].whole)
                case block, place:
                    number = Binary("*", _number(block), self.cut.width)
                    subs[ko] = Binary("+", number, _number(place))
            del subs[ki]
        return dataclasses.replace(e, subs=tuple(subs))

    def reduce(self, e: Reduce, pairs: Mapping[str, Pair]) -> Reduce:
        inner = [i for i in e.indices if self.root(i) == self.cut.inner]
        parts = [e.body] if e.where is None else [e.body, e.where]
        if not inner:
            body, *where = (self.expr(x, pairs) for x in parts)
            return dataclasses.replace(e, body=body, where=where[0] if where else None)
        if len(inner) > 1:
            raise NotJoined
        (b,) = inner
        (a,) = self.partners(e, b) or (None,)
        if a is None:
            raise NotJoined
        new = self.names.index(self.cut.whole)
        body, *rest = (self.expr(x, {**pairs, b: Pair(a, new)}) for x in parts)
        together = a in e.indices
        here = [self.apart(x, a if together else None, b, new) for x in (body, *rest)]
        indices = tuple(new if i == b else i for i in e.indices if i != a or not together)
        block = Binary("//", Position(new), self.cut.width)
        own = self.inside(new) if together else (Compare("==", block, Position(a)),)
        where_ = conjunction((*own, *(c for x in here[1:] for c in conjuncts(x))))
        return dataclasses.replace(e, indices=indices, body=here[0], where=where_)

    def inside(self, index: str) -> tuple[Expr, ...]:
        """That a position lies in one of the blocks, where not all do."""
        cut = self.cut
        return () if cut.exact else (in_blocks(index, cut.width, cut.count),)

    def partners(self, e: Reduce, b: str) -> list[str] | None:
        """The block's number that stands beside a place in it: the same one everywhere."""
        found: dict[str, None] = {}
        for n in walk(e):
            if not isinstance(n, Read):
                continue
            for s in n.subs:
                pair = blocked(s)
                if pair is not None and pair[1] == b and pair[2] == self.cut.width:
                    found[pair[0]] = None
            if n.tensor in self.flat:
                ko, ki = self.flat[n.tensor]
                match n.subs[ko], n.subs[ki]:
                    case Index(a), Index(i) if i == b:
                        found[a] = None
        return [*found] if len(found) == 1 else None


def _number(e: Expr) -> Expr:
    return Position(e.name) if isinstance(e, Index) else e
