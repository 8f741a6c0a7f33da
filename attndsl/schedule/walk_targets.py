"""What a walk over positions leaves: a value at each of them, a sum over all, or what stands at the last one.

A sum over the batch, and one over features whose columns lie with several programs, is taken by the framework from what
each program found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from attndsl.analysis.ranks import Kind, Ranks, lengths
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import free, replaced, rewrite, substitute, walk
from attndsl.schedule import tile as t
from attndsl.schedule.forms import inline
from attndsl.schedule.kernels import store_target
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.tile import Origin, Val
from attndsl.schedule.walked import WalkBuilder

# Columns of a program: of states of two features, and of one.
NARROW, WIDE = 16, 128


@dataclass(frozen=True, slots=True)
class Column:
    """A feature rank whose points are apart in every state: programs share it in tiles."""

    rank: str
    width: int

    @property
    def number(self) -> str:
        return f"{self.rank}.tiles"


@dataclass(frozen=True, slots=True)
class Target:
    """An output `d`, and what of it a program computes: `whole` at each position.

    `extra` are the ranks of what it writes that the framework sums over: `written` is then another tensor. `how` says
    whether values stand by themselves ("each"), are added up ("sum"), or the last one counts ("last").
    """

    d: Define
    whole: Define
    how: str
    extra: tuple[str, ...]
    column: Column | None
    apart: tuple[str, ...] = ()
    """Features that no state has, where there are others: they are taken one point after the other."""

    @property
    def written(self) -> str:
        return self.whole.tensor

    def value(self, b: WalkBuilder, points: dict[str, Expr]) -> t.Store:
        """What is computed here, as it would be stored; `points` says where some of its indices stand."""
        b.defs[self.written] = self.whole
        of = b.ranks.of
        at: dict[str, Expr] = {
            i: Position(b.here) for i in self.whole.indices if of.get(i, i) == b.time
        }
        stored = store_target(b, self.whole, at | points)
        return dataclasses.replace(stored, subs=(*self.sums(), *stored.subs))

    def sums(self) -> tuple[Expr, ...]:
        """Where a program stands on the ranks that are summed later."""
        column = self.column
        return tuple(
            Binary("//", Origin(column.rank), Const(column.width))
            if column is not None and r == column.number
            else Position(r)
            for r in self.extra
        )

    def begin(self, b: WalkBuilder) -> str | None:
        """The value that is kept from position to position, declared."""
        if self.how == "each":
            return None
        name = b.names.fresh(self.written)
        dims: list[str] = []
        for i in self.whole.indices:
            if b.ranks.kind(i) is Kind.FEATURE:
                dims.append(b.full_axis(i, frozenset(dims)))
        b.prologue.append(
            t.Declare(name, b.order(frozenset(dims)), DType.FLOAT, Const(0.0), span=self.d.span)
        )
        return name

    def each(self, b: WalkBuilder, held: str | None) -> None:
        """What is done at a position."""
        if held is None:
            self.stored(b, [i for i in self.apart if i in self.whole.indices], {})
            return
        new: Expr = Val(self.value(b, {}).value)
        if self.how == "sum":
            new = Binary("+", Val(held), new)
        b.turn.append(t.Assign(held, new, span=self.d.span))

    def stored(self, b: WalkBuilder, loops: list[str], points: dict[str, Expr]) -> None:
        """Store a value, one point of each index in `loops` after the other."""
        if not loops:
            b.turn.append(dataclasses.replace(self.value(b, points), span=self.d.span))
            return
        with b.point(loops[0]) as point:
            self.stored(b, loops[1:], {**points, loops[0]: Position(point)})

    def end(self, b: WalkBuilder, held: str | None) -> list[t.Stmt]:
        """What is stored after the walk."""
        if held is None:
            return []
        dims: list[str] = []
        subs: list[Expr] = []
        for i in self.whole.indices:
            if b.ranks.kind(i) is Kind.FEATURE:
                dims.append(b.full_axis(i, frozenset(dims)))
                subs.append(Position(dims[-1]))
            else:
                subs.append(Position(b.ranks.of.get(i, i)))
        bounds = b.order(frozenset(dims))
        return [t.Store(self.written, (*self.sums(), *subs), held, bounds, span=self.d.span)]


def targets_of(
    c: Cascade, ranks: Ranks, time: str, down: bool, column: Column | None
) -> tuple[Target, ...]:
    """The outputs as a walk over `time` makes them, from the last position to the first if `down`.

    Raises: Refused, where one is something else.
    """
    return tuple(_Opening(c, ranks, time, down, column).target(o.name) for o in c.outputs)


class NotApart(Exception):
    """Columns of a state are not apart."""


@dataclass(slots=True)
class _Opening:
    """Takes outputs apart into what a program computes at a position, and sums over the rest."""

    c: Cascade
    ranks: Ranks
    time: str
    down: bool
    column: Column | None

    @property
    def states(self) -> list[Define]:
        return [d for d in self.c.body if d.init is not None and time_axis(d) is not None]

    def target(self, name: str) -> Target:
        d = self.c.define(name)
        whole, roots = self.opened(d.expr, d)
        timed = any(self.rank(i) == self.time for i in d.indices)
        others = [
            r
            for r in d.indices
            if self.ranks.kind(r) is Kind.SEQUENCE and self.rank(r) != self.time
        ]
        if others:
            kept = ", ".join(f"`{i}`" for i in others)
            why = f"`{name}` keeps {kept} beside a walk over `{self.time}`"
            raise Refused("A0404", why, d.span)
        batch = {*self.c.batch, *(self.rank(i) for x in self.states for i in x.indices)}
        if any(self.ranks.kind(i) is Kind.BATCH and self.rank(i) not in batch for i in d.indices):
            why = f"`{name}` is added up over those that share an input, and each of them is walked by itself"
            raise Refused("A0404", why, d.span)
        how = "each" if timed else "sum" if self.time in roots else "last"
        if how == "last":
            whole = self.at_the_last(whole)
        extra = [r for r in sorted(roots) if self.ranks.kind(r) is Kind.BATCH]
        extra.sort(key=lambda r: self.c.batch.index(r) if r in self.c.batch else len(self.c.batch))
        size = extents_of(self.c, self.ranks)
        if self.column is not None and sums_over(whole, self.column.rank, self.c, size):
            whole = sliced(whole, self.column.rank, self.c, size)
            extra.append(self.column.number)
        written = f"{name}.parts" if extra else name
        made = dataclasses.replace(d, tensor=written, expr=whole)
        return Target(d, made, how, tuple(extra), self.column, self.points(d, how))

    def points(self, d: Define, how: str) -> tuple[str, ...]:
        """The features of an output that are taken point by point."""
        small = [i for i in d.indices if self.ranks.kind(i) is Kind.FEATURE]
        size = lengths(self.c, self.ranks.of)
        held = {size[self.rank(i)] for x in self.states for i in x.indices}
        two = any(
            sum(self.ranks.kind(i) is Kind.FEATURE for i in x.indices) > 1 for x in self.states
        )
        others = [
            i
            for k, i in enumerate(small)
            if size[self.rank(i)] not in held
            or (two and size[self.rank(i)] in [size[self.rank(j)] for j in small[:k]])
        ]
        if len(small) < 2 or not others:
            return ()
        if how == "sum" and not two and len(small) == 2:
            return ()  # a matrix beside vectors, as that of weights which mix a state
        if how != "each":
            why = f"`{d.tensor}` keeps `{others[0]}`, which no program holds beside its states"
            raise Refused("A0404", why, d.span)
        return tuple(others)

    def rank(self, index: str) -> str:
        return self.ranks.of.get(index, index)

    @property
    def last(self) -> Expr:
        """The position at which the walk ends."""
        return Const(0) if self.down else Binary("-", Extent(self.time), Const(1))

    def counted_last(self, e: Expr) -> Expr:
        """What stands beside a sum over all positions, as a term of it: that of the last."""
        here = Compare("==", Position(self.time), self.last)
        return Select(here, self.at_the_last(e), Const(0.0))

    def at_the_last(self, e: Expr) -> Expr:
        """With the last position of the walk as the one at hand.

        rewrite:  H[|t| - 1,e,f]   ->   H[t,e,f];   dH[0,e,f]   ->   dH[t,e,f], where it runs from the last to the first
        """
        last = self.last
        axes = {x.tensor: x.indices for x in self.c.body} | {x.name: x.ranks for x in self.c.inputs}

        def rule(n: Expr) -> Expr | None:
            if not isinstance(n, Read):
                return None
            if n.tensor in self.c.defined and self.c.define(n.tensor).init is None:
                return rewrite(inline(self.c.define(n.tensor), n.subs), rule)
            subs = tuple(
                replaced(s, last, Position(self.time)) if self.rank(i) == self.time else s
                for i, s in zip(axes[n.tensor], n.subs, strict=True)
            )
            return dataclasses.replace(n, subs=subs)

        return rewrite(e, rule)

    def opened(self, e: Expr, d: Define) -> tuple[Expr, frozenset[str]]:
        """A term of the sum over these ranks, sequences and batches, that an expression is."""
        if not self.large(e):
            return e, frozenset()
        match e:
            case Reduce(op=Reduction.SUM):
                big = [i for i in e.indices if self.ranks.kind(i) is not Kind.FEATURE]
                small = tuple(i for i in e.indices if i not in big)
                here = {i: Position(self.rank(i)) for i in big}
                body, inner = self.opened(substitute(e.body, here), d)
                where = None if e.where is None else substitute(e.where, here)
                if small and (where is None or free(where) & {*small}):
                    body, where = Reduce(Reduction.SUM, small, body, where), None
                elif small:
                    body = Reduce(Reduction.SUM, small, body)
                if where is not None:
                    body = Select(where, body, Const(0.0))
                return body, inner | {self.rank(i) for i in big}
            case Binary("+" | "-" as op, a, b):
                (x, over), (y, also) = self.opened(a, d), self.opened(b, d)
                every = over | also
                if over | {self.time} == also | {self.time}:
                    x, y = (
                        z if have == every else self.counted_last(z)
                        for z, have in ((x, over), (y, also))
                    )
                    return Binary(op, x, y), every
            case Unary("-", a):
                x, over = self.opened(a, d)
                return Unary("-", x), over
            case Binary("*", a, b) if not (self.large(a) and self.large(b)):
                (x, over), (y, also) = self.opened(a, d), self.opened(b, d)
                return Binary("*", x, y), over | also
            case Binary("/", a, b) if not self.large(b):
                x, over = self.opened(a, d)
                return Binary("/", x, b), over
            case Read(tensor=name, subs=subs) if name in self.c.defined:
                return self.opened(inline(self.c.define(name), subs), d)
            case _:
                pass
        why = f"`{d.tensor}` reduces `{self.time}` beside a recurrence, and is no sum of what each position gives"
        raise Refused("A0404", why, d.span)

    def large(self, e: Expr) -> bool:
        """Whether there is a reduction over a sequence or a batch in an expression, or in what it reads."""
        for n in walk(e):
            if isinstance(n, Reduce) and any(
                self.ranks.kind(i) is not Kind.FEATURE for i in n.indices
            ):
                return True
            if isinstance(n, Read) and n.tensor in self.c.defined:
                x = self.c.define(n.tensor)
                if x.init is None and self.large(x.expr):
                    return True
        return False


# --- columns ----------------------------------------------------------------------------------------------------------


def extents_of(c: Cascade, ranks: Ranks) -> dict[str, str]:
    """A name for the extent of every index: those of one have the same."""
    size = lengths(c, ranks.of)
    return {i: size.get(r, r) for i, r in ranks.of.items()}


def columns_of(c: Cascade, ranks: Ranks) -> Column | None:
    """A feature rank whose points no recurrence brings together."""
    states = [d for d in c.body if d.init is not None and time_axis(d) is not None]
    features = [
        [ranks.of.get(i, i) for i in d.indices if ranks.kind(i) is Kind.FEATURE] for d in states
    ]
    most = max(features, key=len)
    size = extents_of(c, ranks)
    for rank in reversed(most):
        alone = all([size[i] for i in x].count(size[rank]) < 2 for x in features)
        if alone and _apart(c, size, states, rank):
            return Column(rank, NARROW if len(most) > 1 else WIDE)
    return None


def _apart(c: Cascade, size: dict[str, str], states: Sequence[Define], rank: str) -> bool:
    if any(sums_over(d.expr, rank, c, size) for d in states):
        return False
    try:
        for o in c.outputs:
            e = c.define(o.name).expr
            if not sums_over(e, rank, c, size):
                continue
            if any(size[i] == size[rank] for i in o.indices):
                return False
            sliced(e, rank, c, size)
    except NotApart:
        return False
    return True


def sums_over(e: Expr, rank: str, c: Cascade, size: dict[str, str]) -> bool:
    """Whether an expression reduces a rank, or reads what does; what recurrences do is asked of them."""
    for n in walk(e):
        if isinstance(n, Reduce) and any(size[i] == size[rank] for i in n.indices):
            return True
        if isinstance(n, Read) and n.tensor in c.defined:
            d = c.define(n.tensor)
            if d.init is None and sums_over(d.expr, rank, c, size):
                return True
    return False


def sliced(e: Expr, rank: str, c: Cascade, size: dict[str, str]) -> Expr:
    """A sum over all columns as one over the columns of a program; what is no such sum counts with the first.

    Raises: NotApart, where an expression is not linear in such sums.
    """

    def has(x: Expr) -> bool:
        return sums_over(x, rank, c, size)

    def part(x: Expr) -> Expr:
        if not has(x):
            return Select(Compare("==", Origin(rank), Const(0)), x, Const(0.0))
        match x:
            case Binary("+" | "-" as op, a, b):
                return Binary(op, part(a), part(b))
            case Unary("-", a):
                return Unary("-", part(a))
            case Binary("*", a, b) if not has(b):
                return Binary("*", part(a), b)
            case Binary("*", a, b) if not has(a):
                return Binary("*", a, part(b))
            case Binary("/", a, b) if not has(b):
                return Binary("/", part(a), b)
            case Select(cond, a, b) if not has(cond):
                return Select(cond, part(a), part(b))
            case Reduce(op=Reduction.SUM, indices=over, body=body, where=where):
                if not any(size[i] == size[rank] for i in over):
                    return Reduce(Reduction.SUM, over, part(body), where)
                if not has(body):
                    return x
            case Read(tensor=name, subs=subs) if name in c.defined:
                return part(inline(c.define(name), subs))
            case _:
                pass
        raise NotApart

    return part(e)
