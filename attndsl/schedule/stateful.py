"""The program that takes up where another call left off: its state as an input, and as an output.

    H[t,e,f] = g[t] * H[t-1,e,f] + K[t,e] * V[t,f]   init 0
    ->  H[t,e,f] = …   init H_before[e,f];   H_after[e,f] = H[|t|-1,e,f]

    O[i,f] = sum[j : j <= i](sum[e](Q[i,e] * K[j,e]) * exp(C[i] - C[j]) * V[j,f])
    ->  O[i,f] = … + exp(C[i]) * sum[e](Q[i,e] * O_before[e,f])
        O_after[e,f] = exp(C[|j|-1]) * O_before[e,f] + sum[j](K[j,e] * exp(C[|j|-1] - C[j]) * V[j,f])

A state holds what `analysis.linearity` says that later rows need of earlier columns. Positions count from where the
call begins: only their differences may matter, and running sums such as `C` begin anew with each call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from attndsl.analysis.anchors import Anchor
from attndsl.analysis.linearity import NotLinear, Splitter, Term
from attndsl.analysis.ranks import Kind, classify
from attndsl.analysis.reach import reach
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Output,
    Position,
    Read,
    Reduce,
    Reduction,
    TensorDecl,
)
from attndsl.cascade.ordered import ordered
from attndsl.cascade.squares import squared
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import bound, free, reads, rename, replaced, rewrite, substitute, walk
from attndsl.schedule.forms import product_of
from attndsl.schedule.walks import with_features


class NoState(Exception):
    """A program that keeps no state of a size of its own; the message is the reason."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


Start: TypeAlias = tuple[str, tuple[str, ...]] | None


@dataclass(frozen=True, slots=True)
class Stateful:
    """A program with its state; `before` are the inputs and `after` the outputs that it is.

    `starts` says what stands for each part where a call gives no state: an input of the program, with the indices that
    it is read at, or None for zeros.
    `unused` are inputs that only the start was made of. `time` are the indices that one step is a point of. `kinds` are
    those of the program's ranks: in a state, features stand before features.
    """

    cascade: Cascade
    before: tuple[str, ...]
    after: tuple[str, ...]
    starts: tuple[Start, ...]
    unused: frozenset[str]
    time: frozenset[str]
    kinds: dict[str, Kind]


def with_state(cascade: Cascade) -> Stateful:
    """The program with its state.

    Raises: NoState, with the reason.
    """
    found = (
        _Recurrences(cascade) if any(d.init is not None for d in cascade.body) else _Sums(cascade)
    )
    return found.run()


class _Parts:
    """A program that is being given a state."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self.names = Names(cascade)
        self.inputs: list[TensorDecl] = []
        self.outputs: list[Output] = []
        self.made: list[Define] = []
        self.starts: list[Start] = []
        self.time: set[str] = set()

    def part(self, stem: str, indices: tuple[str, ...], start: Start) -> tuple[str, str]:
        """A new part of the state: the names of its input and its output."""
        before = self.names.tensor(f"{stem}_before")
        after = self.names.tensor(f"{stem}_after")
        dims = tuple(Index(i) for i in indices)
        self.inputs.append(TensorDecl(before, dims, tuple(self.names.root(i) for i in indices)))
        self.outputs.append(Output(after, indices))
        self.starts.append(start)
        return before, after

    def finished(self, body: Sequence[Define], unused: frozenset[str]) -> Stateful:
        c = self.cascade
        ranks = [self.names.ranks[r.name] for r in c.ranks]
        ranks += [r for r in self.names.ranks.values() if r not in ranks and r.iterates is not None]
        whole = dataclasses.replace(
            c,
            name=f"{c.name}_with_state",
            inputs=(*(t for t in c.inputs if t.name not in unused), *self.inputs),
            outputs=(*c.outputs, *self.outputs),
            ranks=tuple(ranks),
            body=(*body, *self.made),
        )
        return Stateful(
            whole,
            tuple(t.name for t in self.inputs),
            tuple(o.name for o in self.outputs),
            tuple(self.starts),
            unused,
            frozenset(self.time),
            dict(classify(c, with_features(c, None)).kinds),
        )


class _Recurrences(_Parts):
    """A program with recurrences: they start from the state, and end in it."""

    def run(self) -> Stateful:
        body: list[Define] = []
        for d in self.cascade.body:
            axis = time_axis(d)
            if d.init is None or axis is None:
                body.append(d)
                continue
            time, step = axis
            self.positions(time)
            if step < 0:
                raise NoState(f"`{d.tensor}` runs backward, and what comes later is not known yet")
            self.time.add(time)
            rest = tuple(i for i in d.indices if i != time)
            before, after = self.part(d.tensor, rest, self.start(d, rest))
            begin = Read(before, tuple(Index(i) for i in rest))
            body.append(dataclasses.replace(d, init=begin))
            last = Binary("-", Extent(time), Const(1))
            end = Read(d.tensor, tuple(last if i == time else Index(i) for i in d.indices))
            self.made.append(Define(after, rest, end, span=d.span))
        used = {
            n for d in body for e in (d.expr, d.where, d.init) if e is not None for n in reads(e)
        }
        given = frozenset(t.name for t in self.cascade.inputs if t.name not in used)
        return self.finished(body, given)

    def positions(self, time: str) -> None:
        """Raises: NoState, where a time is used as a number or reduced, which each call does anew."""
        root = self.names.root(time)
        for d in self.cascade.body:
            every = [n for e in (d.expr, d.where) if e is not None for n in walk(e)]
            inside = {id(x) for n in every if isinstance(n, Read) for x in walk(n)}
            for n in every:
                if isinstance(n, Reduce) and any(self.names.root(i) == root for i in n.indices):
                    raise NoState(
                        f"`{d.tensor}` reduces `{time}` beside a recurrence; as one, with `init`, it would be carried"
                    )
                here = isinstance(n, Position) and self.names.root(n.name) == root
                if here and id(n) not in inside:
                    raise NoState(
                        f"`{d.tensor}` depends on positions, not on their differences alone"
                    )

    def start(self, d: Define, rest: tuple[str, ...]) -> Start:
        match d.init:
            case Const(value=0):
                return None
            case Read(tensor=name, subs=subs) if any(t.name == name for t in self.cascade.inputs):
                at = tuple(s.name for s in subs if isinstance(s, Index) and s.name in rest)
                if len(set(at)) == len(subs):
                    return name, at
        raise NoState(f"`{d.tensor}` starts from something other than 0 or an input")


class _Sums(_Parts):
    """A program of sums over what came before: each carries what `linearity` finds."""

    def run(self) -> Stateful:
        whole = explicit_domains(self.cascade)
        self.cascade = squared(whole, _sequences(whole))
        self.names = Names(self.cascade)
        c = self.named_sums(self.cascade)
        self.sequence = _sequences(c)
        self.defs = {d.tensor: d for d in c.body}
        scans = {d.tensor for d in c.body if self.restarts(d)}
        self.scans = scans
        body: list[Define] = []
        for d in c.body:
            expr = d.expr
            if d.tensor not in scans:
                for n in list(walk(d.expr)):
                    if isinstance(n, Reduce) and set(n.indices) & self.sequence:
                        expr = rewrite(expr, self.added(n, d))
            body.append(dataclasses.replace(d, expr=expr))
        if not self.inputs:
            raise NoState("no sum runs over what came before")
        return self.finished(body, frozenset())

    def named_sums(self, c: Cascade) -> Cascade:
        """With sums over a sequence that stand inside others as tensors of their own."""
        sequence = _sequences(c)
        body: list[Define] = []
        for d in c.body:
            inner: dict[Expr, str] = {}
            for n in walk(d.expr):
                if isinstance(n, Reduce) and set(n.indices) & sequence:
                    for m in walk(n.body):
                        if isinstance(m, Reduce) and set(m.indices) & sequence:
                            inner.setdefault(m, "")
            expr = d.expr
            for m in inner:
                indices = tuple(i for i in d.indices if i in free(m))
                if not free(m) <= set(d.indices):
                    raise NoState(f"`{d.tensor}` sums over pairs of positions")
                name = self.names.tensor(f"{d.tensor}_sum")
                body.append(Define(name, indices, m, d.where, span=d.span))
                expr = replaced(expr, m, Read(name, tuple(Index(i) for i in indices)))
            body.append(dataclasses.replace(d, expr=expr))
        return dataclasses.replace(c, body=tuple(body))

    def restarts(self, d: Define) -> bool:
        """A running sum that is read in differences alone: it may begin anew with each call."""
        e = d.expr
        if not isinstance(e, Reduce) or e.op is not Reduction.SUM or e.where is None:
            return False
        if not (set(e.indices) & self.sequence and set(d.indices) & self.sequence):
            return False
        if any(o.name == d.tensor for o in self.cascade.outputs):
            return False
        every = paired = 0
        for x in self.defs.values():
            for n in walk(x.expr):
                if isinstance(n, Read) and n.tensor == d.tensor:
                    every += 1
                if isinstance(n, Binary) and n.op == "-":
                    sides = (n.left, n.right)
                    if all(isinstance(s, Read) and s.tensor == d.tensor for s in sides):
                        paired += 2
        return every > 0 and every == paired

    def added(self, n: Reduce, d: Define) -> Callable[[Expr], Expr | None]:
        """A rule that adds to one sum what earlier calls left of it."""
        if n.op is not Reduction.SUM or len(n.indices) != 1:
            raise NoState(f"`{d.tensor}` reduces a sequence otherwise than by a sum")
        (col,) = n.indices
        rows = [i for i in d.indices if i in self.sequence]
        if len(rows) != 1:
            raise NoState(f"`{d.tensor}` is no sum for each row")
        (row,) = rows
        try:
            seen = reach(n.where, row, col, ordered(self.cascade))
            if seen.same:
                raise NotLinear("ids of a call would be compared with those of calls before it")
            if not seen.ascending:
                raise NotLinear("a row sees what comes after it")
            if seen.row is not None or seen.column is not None:
                raise NotLinear("a condition on positions stands beside the order of time")
            terms = Splitter(row, col, self.inline).terms(n.body)
        except NotLinear as found:
            raise NoState(f"`{d.tensor}` has no state of a size of its own: {found.why}") from None
        self.time |= {self.names.root(row), self.names.root(col)}
        for t in terms:
            for e in (*t.row, *t.column, *t.left, *t.right):
                if any(isinstance(x, Position) and x.name in (row, col) for x in walk(e)):
                    raise NoState(
                        f"`{d.tensor}` depends on positions, not on their differences alone"
                    )
        more = [self.carried(t, d, row, col) for t in terms]
        whole: Expr = n
        for m in more:
            whole = Binary("+", whole, m)
        return lambda e: whole if e is n else None

    def inline(self, e: Read) -> Expr | None:
        d = self.defs.get(e.tensor)
        if d is None or (isinstance(d.expr, Reduce) and set(d.expr.indices) & self.sequence):
            return None
        at = {
            i: Position(s.name) if isinstance(s, Index) else s
            for i, s in zip(d.indices, e.subs, strict=True)
        }
        return substitute(d.expr, at, dict(zip(d.indices, e.subs, strict=True)))

    def carried(self, t: Term, d: Define, row: str, col: str) -> Expr:
        """What one term takes from the state; the state's next value is defined besides."""
        first = Anchor(Const(-1), Const(-1))
        last: Expr = Binary("-", Extent(self.names.root(col)), Const(1))
        end = Anchor(last, last)
        inside = frozenset({t.over}) if t.over is not None else frozenset()
        columns = [*t.column, *t.right, *(g.at_column(col, end) for g in (*t.gates, *t.inner))]
        across = [self.begun(g.across(col, first, end)) for g in (*t.gates, *t.inner)]
        kept = frozenset().union(*(free(e) for e in columns)) - {col}
        batch = tuple(i for i in d.indices if i in self.cascade.batch)
        features = tuple(i for i in d.indices if i in kept and i not in batch and i != row)
        if kept - {*batch, *features, *inside}:
            raise NoState(f"`{d.tensor}` sums over more than one sequence")
        over: tuple[str, ...] = () if t.over is None else (self.names.index(t.over),)
        there: dict[str, Expr] = {} if t.over is None else {t.over: Position(over[0])}
        root = tuple(self.names.root(i) for i in over)
        own = (*batch, *self.apart(root, features), *features)
        before, after = self.part(d.tensor, own, None)
        here: dict[str, Expr] = {} if t.over is None else {t.over: Position(own[len(batch)])}
        index = self.names.index(col)
        moved = substitute(
            product_of([substitute(e, here) for e in columns]), {col: Position(index)}
        )
        new: Expr = Reduce(Reduction.SUM, (index,), self.fresh(moved))
        old: Expr = Read(before, tuple(Index(i) for i in own))
        for a in across:
            old = Binary("*", substitute(self.fresh(a), here), old)
        self.made.append(Define(after, own, Binary("+", old, new), span=d.span))
        state = Read(
            before,
            (*(Index(i) for i in batch), *(Index(i) for i in over), *(Index(i) for i in features)),
        )
        taken = [*t.left, *(self.begun(g.at_row(col, first)) for g in t.inner)]
        outside = [*t.row, *(self.begun(g.at_row(col, first)) for g in t.gates)]
        if not over:
            return product_of([*map(self.fresh, outside), state])
        inner = [substitute(self.fresh(e), there) for e in taken]
        return product_of(
            [*map(self.fresh, outside), Reduce(Reduction.SUM, over, product_of([*inner, state]))]
        )

    def apart(self, root: tuple[str, ...], features: tuple[str, ...]) -> tuple[str, ...]:
        """The contracted feature's index in the state: a new one where the state keeps it besides."""
        return tuple(self.names.index(r) if r in features else r for r in root)

    def begun(self, e: Expr) -> Expr:
        """With running sums 0 before the first point."""

        def rule(n: Expr) -> Expr | None:
            if isinstance(n, Read) and n.tensor in self.scans and Const(-1) in n.subs:
                return Const(0.0)
            return None

        out = rewrite(e, rule)
        for n in walk(out):
            if isinstance(n, Read) and Const(-1) in n.subs:
                raise NoState(f"a gate reads `{n.tensor}` before the first position")
        return out

    def fresh(self, e: Expr) -> Expr:
        return rename(e, {i: self.names.index(i) for i in bound(e)})


def _sequences(c: Cascade) -> frozenset[str]:
    """The ranks and indices that run over a sequence."""
    ranks = classify(c)
    return frozenset(r.name for r in c.ranks if ranks.kind(r.name) is Kind.SEQUENCE)
