"""Recurrences that only scale their past, as sums over it.

    H[t,e,f] = exp(g[t,e]) * H[t-1,e,f] + K[t,e] * V[t,f]   init H0[e,f]
    O[t,f]   = sum[e](Q[t,e] * H[t,e,f])
    ->
    G[t,e]   = sum[l : l <= t](g[l,e])
    O[t,f]   = sum[s : s <= t](sum[e](Q[t,e] * exp(G[t,e] - G[s,e]) * K[s,e]) * V[s,f])
             + sum[e](Q[t,e] * exp(G[t,e]) * H0[e,f])

A gate that closes for good, `exp(g[t]) if cut[t] == 0 else 0`, has no logarithm: a new stretch of the sequence begins,
and the sum has one condition more, that as many stretches began up to `t` as up to `s`.

A state of one feature may also be kept at every step, `X[t,f] = sum[s : s <= t](exp(G[t,f] - G[s,f]) * V[s,f])`: then
it may be an output, or be read by another recurrence and in ways that are not linear. `X[t-1,f]` is a read of it that
is its start at the first step.

Elsewhere the state of every step is gone, and what is left is the other way to write the same program: one derivation
of gradients and one schedule serve both. Legal where the state is read linearly, and scaled by what is never negative.

source: the two forms of a gated linear attention, Yang et al. 2023 (arXiv:2312.06635), section 3
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from attndsl.cascade.conditions import conjunction
from attndsl.cascade.gates import Gates, never_negative, started
from attndsl.cascade.highest import extreme_of_past
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.sums import factors, gathered, plus, product, summands
from attndsl.cascade.types import offset, time_axis
from attndsl.cascade.walk import (
    bound,
    children,
    free,
    reads,
    rename,
    replaced,
    rewrite,
    substitute,
    walk,
    with_children,
)

# Indices of a state that may be kept at every step: the time and one feature. That is no more than an output has.
MOST_KEPT = 2


class NotUnrolled(Exception):
    """A recurrence stays one; the message is the reason."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def unrolled(cascade: Cascade) -> Cascade:
    """The program with its recurrences written as sums; as it is, where one of them cannot be."""
    out = cascade
    for d in cascade.body:
        if d.init is not None:
            try:
                out = _one(out, d.tensor)
            except NotUnrolled:
                return cascade
    return out


def _one(cascade: Cascade, tensor: str) -> Cascade:
    """One recurrence as sums where its readers are, or where it is itself.

    Raises: NotUnrolled, with the reason.
    """
    d = cascade.define(tensor)
    try:
        return _Unroll(cascade, d).run()
    except NotUnrolled:
        if len([i for i in d.indices if i not in cascade.batch]) > MOST_KEPT:
            raise
    return _Unroll(cascade, d).kept()


def reason(cascade: Cascade, tensor: str) -> str:
    """Why a recurrence cannot be written as a sum: for what it is, or for another that goes before it."""
    others = [d.tensor for d in cascade.body if d.init is not None and d.tensor != tensor]
    for x in (tensor, *others):
        try:
            _one(cascade, x)
        except NotUnrolled as found:
            return found.why
    return f"`{tensor}` is a recurrence"


@dataclass(frozen=True, slots=True)
class Piece:
    """`sum[index : where](product of factors)`; no index, no sum."""

    factors: tuple[Expr, ...]
    index: str | None = None
    where: Expr | None = None

    def times(self, e: Expr) -> Piece:
        return dataclasses.replace(self, factors=(*self.factors, e))

    def expression(self) -> Expr:
        whole = product(self.factors)
        return (
            whole if self.index is None else Reduce(Reduction.SUM, (self.index,), whole, self.where)
        )


class _Unroll:
    """One recurrence of a program, to be replaced."""

    def __init__(self, cascade: Cascade, d: Define) -> None:
        self.cascade = cascade
        self.d = d
        self.names = Names(cascade)
        axis = time_axis(d)
        if axis is None:
            raise NotUnrolled(f"`{d.tensor}` does not read its past")
        self.time, self.step = axis

    def run(self) -> Cascade:
        """The program without the state: sums stand where it was read."""
        d, c = self.d, self.cascade
        if any(o.name == d.tensor for o in c.outputs):
            raise NotUnrolled(f"`{d.tensor}` is an output, the state at every step")
        place = next(k for k, x in enumerate(c.body) if x.tensor == d.tensor)
        d, asked = self.taken_apart()
        c = dataclasses.replace(c, body=(*c.body[:place], *asked, d, *c.body[place + 1 :]))
        own = {x.tensor for x in asked}
        body: list[Define] = []
        for x in c.body:
            if x.tensor == d.tensor:
                continue
            if x.init is not None and d.tensor in reads(x.init):
                raise NotUnrolled(f"`{x.tensor}` starts from it")
            if d.tensor in reads(x.expr):
                if x.init is not None:
                    raise NotUnrolled(f"the recurrence `{x.tensor}` reads it at every step")
                if x.tensor not in own:
                    x, inside = self.apart(x)
                    for y in inside:
                        parts = [self.paired(p, y, body) for p in self.pieces(y.expr)]
                        total = reduce(plus, [p.expression() for p in parts])
                        body.append(dataclasses.replace(y, expr=total))
                    if inside:
                        body.append(x)
                        continue
                pieces = [self.paired(p, x, body) for p in self.pieces(x.expr)]
                expr = reduce(lambda a, b: Binary("+", a, b), [p.expression() for p in pieces])
                itself = x.tensor in own and x.tensor in reads(expr)
                x = dataclasses.replace(x, expr=expr, init=Const(0) if itself else None)
            body.append(x)
        body[place:place] = self.gates.made  # before all that reads them
        return self.finished(body)

    def kept(self) -> Cascade:
        """The program with the state of every step as a tensor, a sum over the past or a maximum."""
        d = self.d
        extreme = extreme_of_past(d, (self.time, self.step), self.names)
        total, made = self.total() if extreme is None else extreme
        body: list[Define] = []
        for x in self.cascade.body:
            if x.tensor == d.tensor:
                body += [*made, dataclasses.replace(d, expr=total, init=None)]
                continue
            where = None if x.where is None else rewrite(x.where, self.or_start)
            init = None if x.init is None else rewrite(x.init, self.or_start)
            expr = rewrite(x.expr, self.or_start)
            body.append(dataclasses.replace(x, expr=expr, where=where, init=init))
        return self.finished(body)

    def total(self) -> tuple[Expr, list[Define]]:
        """The state at every step as a sum over the past, and the running sums of its gates."""
        d = self.d
        _, asked = self.taken_apart()
        if asked:
            raise NotUnrolled(f"`{d.tensor}` mixes the entries of its past")
        now = self.state(Read(d.tensor, tuple(Index(i) for i in d.indices)))
        whole = reduce(plus, [p.expression() for p in now]) if now else Const(0.0)
        return whole, self.gates.made

    def or_start(self, n: Expr) -> Expr | None:
        """A read of the step before, which is what the state starts from where there is none."""
        d = self.d
        if not isinstance(n, Read) or n.tensor != d.tensor:
            return None
        subs = dict(zip(d.indices, n.subs, strict=True))
        step = offset(subs.pop(self.time))
        if step is None or step[1] != -self.step:
            return None
        assert d.init is not None
        inside = started(step[0], self.time, self.step)
        first = substitute(d.init, subs, subs)
        return Select(inside, n, rename(first, {i: self.names.index(i) for i in bound(first)}))

    def taken_apart(self) -> tuple[Define, list[Define]]:
        """The step without what it asks of its past, and that; its gate and what it adds are told apart on the way."""
        if self.d.where is not None:
            raise NotUnrolled(f"`{self.d.tensor}` has a domain of its own")
        d, asked = self.asked(self.d)
        gate, added = self.affine(d.expr)
        if gate is None:
            raise NotUnrolled(f"`{d.tensor}` does not keep its past")
        self.gates = Gates(self.cascade, self.d, gate, self.names, (self.time, self.step))
        self.added = None if added is None else gathered(added, set(d.indices) - {self.time})
        if self.gates.gate != Const(1) and not never_negative(self.cascade, self.gates.gate):
            raise NotUnrolled(
                f"`{d.tensor}` is scaled by what may be negative; `assume … >= 0` would say that it is not"
            )
        return d, asked

    def finished(self, body: Sequence[Define]) -> Cascade:
        """The program with another body, and the ranks that it needs."""
        c = self.cascade
        ranks = tuple(self.names.ranks[r.name] for r in c.ranks)
        ranks += tuple(r for n, r in self.names.ranks.items() if r not in ranks and r.iterates)
        return dataclasses.replace(c, body=tuple(body), ranks=ranks)

    def apart(self, x: Define) -> tuple[Define, list[Define]]:
        """What reads the state otherwise than linearly, with the linear parts of it as tensors of their own.

        rewrite:  O[t] = 1 / max(sum[e](Q[t,e] * N[t,e]), 1)
                  ->   Y[t] = sum[e](Q[t,e] * N[t,e]);   O[t] = 1 / max(Y[t], 1)
        """
        made: list[Define] = []

        def outermost(n: Expr) -> Expr:
            if self.d.tensor not in reads(n):
                return n
            if isinstance(n, Reduce) and self.linear(n) and free(n) <= set(x.indices):
                indices = tuple(i for i in x.indices if i in free(n))
                name = self.names.tensor(x.tensor + "_part")
                made.append(Define(name, indices, n, x.where, span=x.span))
                return Read(name, tuple(Index(i) for i in indices))
            return with_children(n, tuple(map(outermost, children(n))))

        if self.linear(x.expr):
            return x, []
        return dataclasses.replace(x, expr=outermost(x.expr)), made

    def linear(self, e: Expr) -> bool:
        """Whether an expression is linear in the state."""
        name = self.d.tensor
        if name not in reads(e):
            return True
        match e:
            case Read():
                return True
            case Unary("-", a) | Reduce(Reduction.SUM, _, a, None):
                return self.linear(a)
            case Binary("+" | "-", a, b):
                return self.linear(a) and self.linear(b)
            case Binary("*", a, b):
                return (name not in reads(a) and self.linear(b)) or (
                    name not in reads(b) and self.linear(a)
                )
            case Binary("/", a, b):
                return name not in reads(b) and self.linear(a)
            case Select(cond, a, b):
                return name not in reads(cond) and self.linear(a) and self.linear(b)
            case _:
                return False

    def asked(self, d: Define) -> tuple[Define, list[Define]]:
        """The step with what it asks of its past, `sum[c](K[t,c] * H[t-1,c,f])`, as tensors of their own.

        Each is a sum over the past that reads itself at earlier points, for the state holds what was answered.
        """
        made: list[Define] = []
        expr = d.expr
        for n in walk(d.expr):
            own = [
                r
                for r in (walk(n) if isinstance(n, Reduce) else ())
                if isinstance(r, Read) and r.tensor == d.tensor
            ]
            if not own or not isinstance(n, Reduce):
                continue
            indices = tuple(
                i
                for i in d.indices
                if i == self.time or all(Index(i) in r.subs for r in own) or i in free(n)
            )
            if (
                free(n) - set(indices)
                or n.op is not Reduction.SUM
                or len(indices) == len(d.indices)
            ):
                raise NotUnrolled(f"`{d.tensor}` mixes the entries of its past")
            if made and n not in [x.expr for x in made]:
                raise NotUnrolled(
                    f"`{d.tensor}` is asked for several sums of its past in one step, and each waits for the others"
                )
            name = self.names.tensor("U")
            made.append(Define(name, indices, n, span=d.span))
            expr = replaced(expr, n, Read(name, tuple(Index(i) for i in indices)))
        features = set(d.indices) - {self.time, *self.cascade.batch}

        def multiplied(e: Expr) -> Expr | None:
            """A quotient of a product over all features, as a product whose factors can be told apart."""
            match e:
                case Binary("/", a, b) if features <= free(a) and not features & free(b):
                    return Binary("*", a, Binary("/", Const(1.0), b), span=e.span)
                case _:
                    return None

        return dataclasses.replace(d, expr=rewrite(expr, multiplied) if made else expr), made

    # --- the step ---------------------------------------------------------------------------------------------------

    def affine(self, e: Expr) -> tuple[Expr | None, Expr | None]:
        """What the past is multiplied by, and what is added; None for nothing."""
        d = self.d
        if d.tensor not in reads(e):
            return None, e
        match e:
            case Read():
                if any(
                    s != Index(i) for s, i in zip(e.subs, d.indices, strict=True) if i != self.time
                ):
                    raise NotUnrolled(f"`{d.tensor}` mixes the entries of its past")
                return Const(1), None
            case Unary("-", a):
                return _pair(lambda x: Unary("-", x), self.affine(a))
            case Binary("+" | "-" as op, a, b):
                (p, x), (q, y) = self.affine(a), self.affine(b)
                return _sum(op, p, q), _sum(op, x, y)
            case Binary("*", a, b) if d.tensor not in reads(a):
                return _pair(lambda x: a if x == Const(1) else Binary("*", a, x), self.affine(b))
            case Binary("*", a, b) if d.tensor not in reads(b):
                return _pair(lambda x: b if x == Const(1) else Binary("*", x, b), self.affine(a))
            case Binary("/", a, b) if d.tensor not in reads(b):
                return _pair(lambda x: Binary("/", x, b), self.affine(a))
            case Reduce():
                raise NotUnrolled(f"`{d.tensor}` mixes the entries of its past")
            case _:
                raise NotUnrolled(f"`{d.tensor}` is not linear in its past")

    # --- what reads the state ---------------------------------------------------------------------------------------

    def pieces(self, e: Expr) -> list[Piece]:
        """An expression that is linear in the state, as sums over the past."""
        name = self.d.tensor
        if name not in reads(e):
            return [Piece((e,))]
        match e:
            case Read():
                return self.state(e)
            case Unary("-", a):
                return [p.times(Const(-1.0)) for p in self.pieces(a)]
            case Binary("+", a, b):
                return self.pieces(a) + self.pieces(b)
            case Binary("-", a, b):
                return self.pieces(a) + [p.times(Const(-1.0)) for p in self.pieces(b)]
            case Binary("*", a, b) if name not in reads(a):
                return [p.times(a) for p in self.pieces(b)]
            case Binary("*", a, b) if name not in reads(b):
                return [p.times(b) for p in self.pieces(a)]
            case Binary("/", a, b) if name not in reads(b):
                return [p.times(Binary("/", Const(1.0), b)) for p in self.pieces(a)]
            case Select(cond, a, b) if name not in reads(cond):
                return self.chosen(cond, a, True) + self.chosen(cond, b, False)
            case Reduce(Reduction.SUM, indices, body, None):
                return [self.summed(p, indices) for p in self.pieces(body)]
            case _:
                raise NotUnrolled(f"`{name}` is read inside something that is not linear")

    def chosen(self, cond: Expr, e: Expr, then: bool) -> list[Piece]:
        """The pieces of a branch, 0 where the other is taken."""
        if e in (Const(0), Const(0.0)):
            return []

        def only(x: Expr) -> Expr:
            return Select(cond, x, Const(0.0)) if then else Select(cond, Const(0.0), x)

        if self.d.tensor not in reads(e):
            return [Piece((only(e),))]
        return [p.times(only(Const(1.0))) for p in self.pieces(e)]

    def summed(self, p: Piece, indices: Sequence[str]) -> Piece:
        """A piece summed over more indices: what does not know them stays outside."""
        every = [f for whole in p.factors for f in factors(whole)]
        inside = [f for f in every if free(f) & set(indices)]
        outside = [f for f in every if not free(f) & set(indices)]
        fresh = {i: self.names.index(i) for i in indices}
        inner = rename(Reduce(Reduction.SUM, tuple(indices), product(inside)), fresh)
        return dataclasses.replace(p, factors=(*outside, inner))

    def paired(self, p: Piece, x: Define, body: list[Define]) -> Piece:
        """A piece with its weights, what knows both times, as a tensor of its own, as one writes them."""
        if p.index is None or p.where is None:
            return p
        at = free(p.where) - {p.index, *self.cascade.batch}
        every = [f for whole in p.factors for f in factors(whole)]
        if len(at) != 1 or not at <= set(x.indices):
            return p
        (now,) = at
        batch = [i for i in x.indices if i in self.cascade.batch]
        pair = {*batch, now, p.index}  # a gate of a feature that is kept stays outside
        both = [f for f in every if {now, p.index} <= free(f) <= pair]
        if not both:
            return p
        s = self.names.index(self.time)
        name = self.names.tensor("A")
        there = {p.index: Position(s)}
        rest = [f for f in every if f not in both]
        both = [self.per_head(f, (*batch, now, p.index), body, p) for f in both]
        weights = substitute(product(both), there)
        body.append(
            Define(name, (*batch, now, s), weights, substitute(p.where, there), span=self.d.span)
        )
        read = Read(name, (*(Index(i) for i in batch), Index(now), Index(p.index)))
        return Piece((read, *rest), p.index)

    def per_head(self, f: Expr, indices: tuple[str, ...], body: list[Define], p: Piece) -> Expr:
        """A contraction that heads share as a tensor of each, so that its gradient is summed where it is small."""
        if not isinstance(f, Reduce) or set(indices) <= free(f):
            return f
        assert p.index is not None
        s = self.names.index(self.time)
        name = self.names.tensor("S")
        there = {p.index: Position(s)}
        where = None if p.where is None else substitute(p.where, there)
        body.append(Define(name, (*indices[:-1], s), substitute(f, there), where, span=self.d.span))
        return Read(name, tuple(Index(i) for i in indices))

    def state(self, e: Read) -> list[Piece]:
        """The state at a time, as what was added since and what it started from."""
        d = self.d
        rest: dict[str, Expr] = {}
        at: Expr = Const(0)
        inclusive = True
        whole = False
        for i, sub in zip(d.indices, e.subs, strict=True):
            if i != self.time:
                rest[i] = sub
                continue
            step = offset(sub)
            last = Binary("-", Extent(self.time), Const(1)) if self.step > 0 else Const(0)
            if sub == last:
                at, whole = last, True
            elif step is not None and step[1] in (0, -self.step):
                at, inclusive = Position(step[0]), step[1] == 0
            else:
                raise NotUnrolled(f"`{d.tensor}` is read at another step than this or the last one")
        out: list[Piece] = []
        for x in summands(self.added) if self.added is not None else []:
            s = self.names.index(self.time)
            x = substitute(x, {self.time: Position(s)})
            x = self.gates.fresh(substitute(x, rest, rest))
            where = None if whole else self.gates.past(s, at, inclusive)
            where = conjunction([where, self.gates.same_stretch(at, s, inclusive, rest)])
            gate = self.gates.between(at, s, inclusive, rest)
            scaled = [] if gate is None else [gate]
            out.append(Piece((*scaled, *factors(x)), s, where))
        assert d.init is not None
        if d.init != Const(0) and d.init != Const(0.0):
            gate = self.gates.between(at, None, inclusive, rest)
            init = self.gates.fresh(substitute(d.init, rest, rest))
            first = self.gates.same_stretch(at, None, inclusive, rest)
            init = init if first is None else Select(first, init, Const(0.0))
            out.append(Piece((init,) if gate is None else (gate, init)))
        return out


def _pair(f: object, parts: tuple[Expr | None, Expr | None]) -> tuple[Expr | None, Expr | None]:
    assert callable(f)
    a, b = parts
    return None if a is None else f(a), None if b is None else f(b)


def _sum(op: str, a: Expr | None, b: Expr | None) -> Expr | None:
    if b is None:
        return a
    if a is None:
        return b if op == "+" else Unary("-", b)
    return Binary(op, a, b)
