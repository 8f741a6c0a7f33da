"""States that stand side by side: an index of a known extent, as a state for each of its points.

    rank u = 2
    H[t,u,e,f] = a[t] * H[t-1,u,e,f] + (b[t] * H[t-1,1,e,f] if u == 0 else K[t,e] * V[t,f])
    ->
    H_0[t,e,f] = a[t] * H_0[t-1,e,f] + b[t] * H_1[t-1,e,f]
    H_1[t,e,f] = a[t] * H_1[t-1,e,f] + K[t,e] * V[t,f]

Recurrences that read each other are written so. The program stays one in which everything is made before it is read;
only the walk over positions, which holds the past of all its states at once, lets them read each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import product

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
    Logic,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import children, walk, with_children

# As many states as the registers of one program hold beside each other, if they are small.
MOST = 4


class _Stays(Exception):
    """The cascade has something that cannot be had for each point apart."""


def side_by_side(c: Cascade) -> Cascade:
    """With a state for each point; as it is, where no state is read at a point's number, or this does not go."""
    counts = _counted(c)
    if not counts or any(i in counts for o in c.outputs for i in o.indices):
        return c
    try:
        return _Apart(c, counts).run()
    except _Stays:
        return c


def is_counted(c: Cascade, d: Define) -> bool:
    """Whether a state has been left as it is though it is read by number: it is an output."""
    counts = _counted(c)
    return any(i in counts for i in d.indices) and any(
        i in counts for o in c.outputs for i in o.indices
    )


def _counted(c: Cascade) -> dict[str, int]:
    """Indices of a known extent that states have and are read at by number, and the indices that run over them."""
    ranks = {r.name: r for r in c.ranks}
    found: set[str] = set()
    for d in c.body:
        for n in (n for e in (d.expr, d.init) if e is not None for n in walk(e)):
            if isinstance(n, Read) and n.tensor in c.defined:
                own = c.define(n.tensor)
                if own.init is not None and time_axis(own) is not None:
                    found |= {
                        i for i, s in zip(own.indices, n.subs, strict=True) if isinstance(s, Const)
                    }

    def root(i: str) -> str:
        above = ranks[i].iterates if i in ranks else None
        return i if above is None else root(above)

    roots: dict[str, int] = {}
    for i in found:
        extent = ranks[root(i)].extent if root(i) in ranks else None
        if not isinstance(extent, Const) or not 0 < int(extent.value) <= MOST:
            return {}
        roots[root(i)] = int(extent.value)
    # `sum[w](A[u,w] * H[t-1,w,e,f])`: ranks of the same extent are read in the place of each other.
    roots |= {r.name: n for r in c.ranks for n in {*roots.values()} if r.extent == Const(n)}
    return {r: roots[root(r)] for r in ranks if root(r) in roots}


class _Apart:
    def __init__(self, c: Cascade, counts: Mapping[str, int]) -> None:
        self.c = c
        self.counts = counts
        names = Names(c)
        self.parts: dict[str, dict[tuple[int, ...], str]] = {}
        for d in c.body:
            mine = [i for i in d.indices if i in counts]
            if mine:
                self.parts[d.tensor] = {
                    at: names.tensor("_".join([d.tensor, *map(str, at)]))
                    for at in product(*(range(counts[i]) for i in mine))
                }

    def run(self) -> Cascade:
        body: list[Define] = []
        for d in self.c.body:
            step = time_axis(d) if d.init is not None else None
            body += [p if step is None else _recurrent(p, *step) for p in self.of(d)]
        return dataclasses.replace(self.c, body=tuple(body))

    def of(self, d: Define) -> Iterator[Define]:
        mine = [i for i in d.indices if i in self.counts]
        rest = tuple(i for i in d.indices if i not in self.counts)
        for at in product(*(range(self.counts[i]) for i in mine)):
            here = dict(zip(mine, at, strict=True))
            where = None if d.where is None else self.at(d.where, here)
            if where == Const(False):
                raise _Stays  # undefined at one point: what reads it is not
            yield dataclasses.replace(
                d,
                tensor=self.parts[d.tensor][at] if mine else d.tensor,
                indices=rest,
                expr=self.at(d.expr, here),
                where=None if where == Const(True) else where,
                init=None if d.init is None else self.at(d.init, here),
            )

    def at(self, e: Expr, here: Mapping[str, int]) -> Expr:
        """An expression at points of the indices in question, what is decided there decided."""
        match e:
            case Index() | Position() if e.name in here:
                return Const(here[e.name])
            case Extent() if e.rank in self.counts:
                return Const(self.counts[e.rank])
            case Reduce() if any(i in self.counts for i in e.indices):
                return self.summed(e, here)
            case Reduce():
                where = None if e.where is None else self.at(e.where, here)
                if where == Const(False) and e.op is Reduction.SUM:
                    return Const(0.0)
                where = None if where == Const(True) else where
                return dataclasses.replace(e, body=self.at(e.body, here), where=where)
        old = children(e)
        new = tuple(self.at(x, here) for x in old)
        if isinstance(e, Read) and e.tensor in self.parts:
            return self.read(e, new)
        same = all(a is b for a, b in zip(old, new, strict=True))
        return e if same else decided(with_children(e, new))

    def read(self, e: Read, subs: tuple[Expr, ...]) -> Expr:
        own = self.c.define(e.tensor).indices
        point = [s for i, s in zip(own, subs, strict=True) if i in self.counts]
        rest = tuple(s for i, s in zip(own, subs, strict=True) if i not in self.counts)
        at: list[int] = []
        for i, s in zip((i for i in own if i in self.counts), point, strict=True):
            if not isinstance(s, Const):
                raise _Stays
            at.append(
                min(max(int(s.value), 0), self.counts[i] - 1)
            )  # a call says what is out of range
        return Read(self.parts[e.tensor][tuple(at)], rest, span=e.span)

    def summed(self, e: Reduce, here: Mapping[str, int]) -> Expr:
        if e.op is not Reduction.SUM:
            raise _Stays
        mine = [i for i in e.indices if i in self.counts]
        rest = tuple(i for i in e.indices if i not in self.counts)
        terms: list[Expr] = []
        for at in product(*(range(self.counts[i]) for i in mine)):
            there = {**here, **dict(zip(mine, at, strict=True))}
            body = self.at(e.body, there)
            where = None if e.where is None else self.at(e.where, there)
            if where == Const(False) or body == Const(0.0):
                continue
            if rest:
                where = None if where == Const(True) else where
                terms.append(Reduce(e.op, rest, body, where, span=e.span))
            elif where is None or where == Const(True):
                terms.append(body)
            else:
                terms.append(Select(where, body, Const(0.0)))
        return reduce(lambda a, b: Binary("+", a, b), terms) if terms else Const(0.0)


def _recurrent(d: Define, time: str, step: int) -> Define:
    """A state that is made of others alone is one still: it reads its own past where there is no position."""
    if time_axis(d) is not None:
        return d
    past = tuple(
        Binary("-" if step > 0 else "+", Position(i), Const(1)) if i == time else Index(i)
        for i in d.indices
    )
    never = Compare("<", Position(time), Const(0))
    return dataclasses.replace(d, expr=Select(never, Read(d.tensor, past), d.expr))


def decided(e: Expr) -> Expr:
    """An expression whose parts are known, as far as that decides it."""
    match e:
        case Compare(op="==", left=Const(value=a), right=Const(value=b)):
            return Const(a == b)
        case Compare(op="!=", left=Const(value=a), right=Const(value=b)):
            return Const(a != b)
        case Compare(op="<", left=Const(value=a), right=Const(value=b)):
            return Const(a < b)
        case Compare(op="<=", left=Const(value=a), right=Const(value=b)):
            return Const(a <= b)
        case Compare(op=">", left=Const(value=a), right=Const(value=b)):
            return Const(a > b)
        case Compare(op=">=", left=Const(value=a), right=Const(value=b)):
            return Const(a >= b)
        case Logic(op=op, args=args):
            last = Const(op == "or")
            if last in args:
                return last
            left = tuple(a for a in args if a != Const(op == "and"))
            if len(left) > 1:
                return Logic(op, left, span=e.span)
            return left[0] if left else Const(op == "and")
        case Select(cond=Const(value=v)):
            return e.then if v else e.other
        case Binary(op="+", left=Const(value=0 | 0.0), right=x):
            return x
        case Binary(op="+" | "-", left=x, right=Const(value=0 | 0.0)):
            return x
        case Binary(op="*", left=Const(value=0 | 0.0)) | Binary(op="*", right=Const(value=0 | 0.0)):
            return Const(0.0)
    return e
