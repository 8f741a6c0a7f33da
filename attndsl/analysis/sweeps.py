"""How many sweeps a program takes as it is written, and what each reads.

    as_written(cascade)     softmax: M, then Z, then O       3 sweeps

A *sweep* is a traversal of all points of a sequence rank; a further one is needed where an element must be visited
again after all others have been seen. A value has a *level*: 1 while sweep 1 runs (a running maximum of a scan, the
maximum of a block of keys), 1.5 after it (the maximum of all). A reduction over the rank needs what its body reads: a
value of level 1.5 is at hand in sweep 2, and the reduction has level 2.5.

Source: passes of FuseMax (Nayak et al., arXiv:2406.10491, section 3), where ranks cut in blocks count once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from attndsl.analysis.blocks import Blocks
from attndsl.analysis.ranks import Ranks, classify
from attndsl.cascade.nodes import Cascade, Define, Expr, Read, Reduce, Solve
from attndsl.cascade.walk import children, free, walk


@dataclass(frozen=True, slots=True)
class Sweeps:
    """What is made in each sweep, and in which sweeps each input that lies along a sequence is read.

    `facts` say what forces each sweep after the first, `joined` how sums run along in one; `bound` is the number of
    sweeps that algebra alone forces. As written there is none of these.
    """

    tensors: tuple[tuple[str, ...], ...]
    reads: Mapping[str, tuple[int, ...]]
    facts: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    bound: int | None = None

    def __len__(self) -> int:
        return len(self.tensors)


def as_written(c: Cascade, ranks: Ranks | None = None) -> Sweeps:
    """The sweeps of a program evaluated definition by definition, and what each reads."""
    ranks = ranks or classify(c)
    count = _AsWritten(c, ranks, Blocks.of(c, ranks), Visits(c, ranks))
    for d in c.body:
        count.define(d)
    for o in c.outputs:
        d, level = c.define(o.name), count.level[o.name]
        if visits_points(c, ranks, d) and level != math.ceil(level):
            count.visits.note(math.ceil(level), o.name, d.expr)
    return count.visits.result()


@dataclass(slots=True)
class Visits:
    """Which tensors are made, and which inputs are read, in each sweep."""

    cascade: Cascade
    ranks: Ranks
    done: dict[int, dict[str, None]] = field(default_factory=dict)
    seen: dict[str, set[int]] = field(default_factory=dict)

    def note(self, number: int, name: str, e: Expr, stop: frozenset[str] = frozenset()) -> None:
        """`name` is made in a sweep from `e`; tensors in `stop` are carried or loaded, not made anew."""
        self.done.setdefault(number, {})[name] = None
        for t in self.inputs(e, stop):
            self.seen.setdefault(t, set()).add(number)

    def inputs(self, e: Expr, stop: frozenset[str]) -> set[str]:
        """Inputs that an expression is made from, along a sequence."""
        defs = {d.tensor: d for d in self.cascade.body}
        out: set[str] = set()
        todo: list[Expr] = [e]
        known: set[str] = set()
        while todo:
            for n in walk(todo.pop()):
                if not isinstance(n, Read) or n.tensor in stop:
                    continue
                if n.tensor not in defs:
                    if self.ranks.sequence(tuple(free(n))):
                        out.add(n.tensor)
                elif n.tensor not in known:
                    known.add(n.tensor)
                    d = defs[n.tensor]
                    todo += [d.expr] if d.where is None else [d.expr, d.where]
        return out

    def result(
        self, facts: Iterable[str] = (), joined: Iterable[str] = (), bound: int | None = None
    ) -> Sweeps:
        number = max(self.done, default=0)
        return Sweeps(
            tuple(tuple(self.done.get(p, ())) for p in range(1, number + 1)),
            {
                t.name: tuple(sorted(self.seen[t.name]))
                for t in self.cascade.inputs
                if t.name in self.seen
            },
            tuple(dict.fromkeys(facts)),
            tuple(dict.fromkeys(joined)),
            bound,
        )


def visits_points(c: Cascade, ranks: Ranks, d: Define) -> bool:
    """Whether a definition is a map over two sequences, of values that lie along both."""
    if d.init is not None or any(
        isinstance(n, Reduce) and ranks.sequence(n.indices) for n in walk(d.expr)
    ):
        return False
    own = {ranks.of.get(i, i) for i in ranks.sequence(d.indices)}
    below = (n for n in walk(d.expr) if isinstance(n, Read))
    return len(own) > 1 and any(
        {ranks.of.get(i, i) for i in ranks.sequence(tuple(free(n)))} != own for n in below
    )


def swept(e: Expr, ranks: Ranks) -> bool:
    """Whether an expression has a reduction over a sequence in it."""
    return any(isinstance(n, Reduce) and ranks.sequence(n.indices) for n in walk(e))


@dataclass(slots=True)
class _AsWritten:
    cascade: Cascade
    ranks: Ranks
    blocks: Blocks
    visits: Visits
    level: dict[str, float] = field(default_factory=dict)
    home: str = ""

    def define(self, d: Define) -> None:
        self.home = d.tensor
        parts = [e for e in (d.expr, d.where, d.init) if e is not None]
        level = max(self.of(e, e is d.expr) for e in parts)
        if d.init is not None:
            level = max(1, math.ceil(level))
            self.visits.note(level, d.tensor, d.expr)
        self.level[d.tensor] = level
        last = self.visits.done.get(math.floor(level), {})
        parts_of_it = [x for x in last if x.endswith(f" in {d.tensor}")]
        if parts_of_it and d.tensor not in last:  # `sum[j](S[i,j]) / |j|` is done with its sum
            renamed = {d.tensor if x == parts_of_it[-1] else x: None for x in last}
            self.visits.done[math.floor(level)] = renamed

    def of(self, e: Expr, top: bool = False) -> float:
        """The level of an expression; reductions over a sequence are noted in their sweep."""
        match e:
            case Read():
                return max([self.read(e), *(self.of(s) for s in e.subs)])
            case Reduce() if self.ranks.sequence(e.indices):
                body = max(self.of(x) for x in children(e))
                name = self.home if top else f"a {e.op.value} in {self.home}"
                if self.blocks.summaries(e) and body > 0:
                    self.visits.note(math.floor(body), name, e)
                    return math.floor(body) + 0.5
                number = max(1, math.ceil(body))
                self.visits.note(number, name, e)
                return number if self.blocks.within(e) else number + 0.5
            case Solve():
                before = max(self.of(x) for x in (e.lo, e.hi))
                if not swept(e.equation, self.ranks):
                    return max(before, self.of(e.equation))
                below = (self.read(n) for n in walk(e.equation) if isinstance(n, Read))
                start = math.floor(max(before, *below))
                for k in range(1, e.iters + 1):
                    self.visits.note(start + k, self.home, e.equation)
                return start + e.iters + 0.5
            case _:
                return max((self.of(c) for c in children(e)), default=0)

    def read(self, e: Read) -> float:
        """A value that is known while a sweep runs is known after it where it is read at a fixed point."""
        level = self.level.get(e.tensor, 0)
        between = level and level == int(level) and stands(self.cascade, self.ranks, e)
        return level + 0.5 if between else level


def stands(c: Cascade, ranks: Ranks, e: Read) -> bool:
    """Whether a body tensor is read at a fixed point of a sequence that it lies along, `N[|j1|-1,i]`."""
    own = next((d.indices for d in c.body if d.tensor == e.tensor), ())
    return len(ranks.sequence(tuple(free(e)))) < len(ranks.sequence(own))
