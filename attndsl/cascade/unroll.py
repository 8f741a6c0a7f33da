"""Recurrences that only scale their past, as sums over it.

    H[t,e,f] = exp(g[t,e]) * H[t-1,e,f] + K[t,e] * V[t,f]   init H0[e,f]
    O[t,f]   = sum[e](Q[t,e] * H[t,e,f])
    ->
    G[t,e]   = sum[l : l <= t](g[l,e])
    O[t,f]   = sum[s : s <= t](sum[e](Q[t,e] * exp(G[t,e] - G[s,e]) * K[s,e]) * V[s,f])
             + sum[e](Q[t,e] * exp(G[t,e]) * H0[e,f])

A gate that closes for good, `exp(g[t]) if cut[t] == 0 else 0`, has no logarithm: a new stretch of the sequence begins,
and the sum has one condition more, that as many stretches began up to `t` as up to `s`.

The state of every step is gone, and what is left is the other way to write the same program: one derivation of
gradients and one schedule serve both. Legal where the state is read linearly, and scaled by what is never negative.

source: the two forms of a gated linear attention, Yang et al. 2023 (arXiv:2312.06635), section 3
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
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
from attndsl.cascade.signs import Sign, sign_of
from attndsl.cascade.types import offset, time_axis
from attndsl.cascade.walk import (
    bound,
    children,
    free,
    reads,
    rename,
    replaced,
    substitute,
    walk,
    with_children,
)

# A gate below this is as good as closed; its logarithm must be finite, or a closed gate would be none at all.
LEAST_GATE = 1e-30


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
                out = _Unroll(out, out.define(d.tensor)).run()
            except NotUnrolled:
                return cascade
    return out


def reason(cascade: Cascade, tensor: str) -> str:
    """Why a recurrence cannot be written as a sum."""
    try:
        _Unroll(cascade, cascade.define(tensor)).run()
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
        self.made: list[Define] = []
        self.gates: dict[tuple[int, bool], str] = {}
        self.counts: dict[bool, str] = {}

    def run(self) -> Cascade:
        d, c = self.d, self.cascade
        if any(o.name == d.tensor for o in c.outputs):
            raise NotUnrolled(f"`{d.tensor}` is an output, the state at every step")
        if d.where is not None:
            raise NotUnrolled(f"`{d.tensor}` has a domain of its own")
        d, asked = self.asked(d)
        place = next(k for k, x in enumerate(c.body) if x.tensor == d.tensor)
        c = dataclasses.replace(c, body=(*c.body[:place], *asked, d, *c.body[place + 1 :]))
        own = {x.tensor for x in asked}
        gate, added = self.affine(d.expr)
        if gate is None:
            raise NotUnrolled(f"`{d.tensor}` does not keep its past")
        self.gate, self.keep = opened(gate)
        if self.keep is not None and self.time not in free(self.keep):
            self.gate, self.keep = gate, None
        gate = self.gate
        self.added = None if added is None else gathered(added, set(d.indices) - {self.time})
        if gate != Const(1) and not self.never_negative(gate):
            raise NotUnrolled(
                f"`{d.tensor}` is scaled by what may be negative; `assume … >= 0` would say that it is not"
            )
        self.constant = self.time not in free(gate)
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
                        total = reduce(_plus, [p.expression() for p in parts])
                        body.append(dataclasses.replace(y, expr=total))
                    if inside:
                        body.append(x)
                        continue
                pieces = [self.paired(p, x, body) for p in self.pieces(x.expr)]
                expr = reduce(lambda a, b: Binary("+", a, b), [p.expression() for p in pieces])
                itself = x.tensor in own and x.tensor in reads(expr)
                x = dataclasses.replace(x, expr=expr, init=Const(0) if itself else None)
            body.append(x)
        body[place:place] = self.made  # before all that reads them
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
        return dataclasses.replace(d, expr=expr), made

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

    def never_negative(self, e: Expr) -> bool:
        """Whether a gate is surely not negative, by how it is made or by what is assumed."""
        known: dict[str, Sign] = {}
        least: set[str] = set()
        for a in self.cascade.assumes:
            for c in conjuncts(a):
                match c:
                    case Compare("<=" | "<", Const(v), Read(tensor=x)) if v >= 0:
                        known[x] = Sign.NONNEGATIVE
                    case Compare(">=" | ">", Read(tensor=x), Const(v)) if v >= 0:
                        known[x] = Sign.NONNEGATIVE
                    case Compare("<=" | "<", Read(tensor=x), Const(v)) if v <= 1:
                        least.add(x)
                    case Compare(">=" | ">", Const(v), Read(tensor=x)) if v <= 1:
                        least.add(x)
                    case _:
                        pass

        def nonnegative(e: Expr) -> bool:
            match e:
                case Binary("-", Const(value=v), x) if v >= 1 and at_most_one(x):
                    return True
                case Binary("*", a, b):
                    return nonnegative(a) and nonnegative(b)
                case _:
                    return sign_of(e, known) > Sign.ANY

        def at_most_one(e: Expr) -> bool:
            match e:
                case Const(value=v):
                    return v <= 1
                case Read(tensor=x):
                    return x in least
                case Call("sigmoid" | "tanh", _):
                    return True
                case Call("min", args):
                    return any(at_most_one(a) for a in args)
                case Binary("*", a, b):
                    return all(nonnegative(x) and at_most_one(x) for x in (a, b))
                case Binary("-", a, b):
                    return at_most_one(a) and nonnegative(b)
                case _:
                    return False

        for d in self.cascade.body:
            if d.init is None:
                if nonnegative(d.expr):
                    known[d.tensor] = max(sign_of(d.expr, known), Sign.NONNEGATIVE)
                if at_most_one(d.expr):
                    least.add(d.tensor)
        return nonnegative(e)

    # --- gates ------------------------------------------------------------------------------------------------------

    def logarithms(self) -> list[Expr]:
        """The logarithm of a gate: whole, or in parts where no part knows all features of the others.

        A running sum of `g[t,e] + l[t,f]` would have an entry for each entry of the state.
        """
        whole = _log(self.gate)
        features = {*self.d.indices} - {self.time, *self.cascade.batch}
        groups: dict[frozenset[str], list[Expr]] = {}
        for x in _summands(whole):
            groups.setdefault(frozenset(free(x) & features), []).append(x)
        if frozenset().union(*groups) in groups:
            return [whole]
        return [reduce(_plus, group) for group in groups.values()]

    def gate_at(self, log: int, at: Expr, inclusive: bool, rest: dict[str, Expr]) -> Expr:
        """The logarithm of all gates up to a time, itself in or not."""
        if (log, inclusive) not in self.gates:
            self.gates[log, inclusive] = self.running(self.logarithms()[log], inclusive)
        made = next(x for x in self.made if x.tensor == self.gates[log, inclusive])
        subs = tuple(at if i == self.time else rest.get(i, Index(i)) for i in made.indices)
        return Read(made.tensor, subs)

    def running(self, log: Expr, inclusive: bool) -> str:
        """Define the running sum of the gates' logarithms."""
        name = self.names.tensor("G")
        inside = free(log) | {self.time}
        indices = tuple(i for i in self.d.indices if i in inside)
        index = self.names.index(self.time)
        one = self.fresh(substitute(log, {self.time: Position(index)}))
        where = self.past(index, Position(self.time), inclusive)
        self.made.append(Define(name, indices, Reduce(Reduction.SUM, (index,), one, where)))
        return name

    def past(self, index: str, at: Expr, inclusive: bool) -> Expr:
        """That a point is not after another, in the direction of the recurrence."""
        op = "<=" if inclusive else "<"
        a, b = (Position(index), at) if self.step > 0 else (at, Position(index))
        return Compare(op, a, b)

    def between(
        self, at: Expr, s: str | None, inclusive: bool, rest: dict[str, Expr]
    ) -> Expr | None:
        """The product of the gates after `s` and up to a time; of all of them without `s`. None for 1."""
        gate = substitute(self.gate, rest, rest)
        if gate == Const(1):
            return None
        if not self.constant:
            parts: list[Expr] = []
            for k in range(len(self.logarithms())):
                far = self.gate_at(k, _lone(at), inclusive, rest)
                if s is not None:
                    far = Binary("-", far, self.gate_at(k, Index(s), True, rest))
                parts.append(Call("exp", (far,)))
            return product(parts)
        first: Expr = Const(-1) if self.step > 0 else Extent(self.time)
        from_: Expr = first if s is None else Position(s)
        far = Binary("-", at, from_) if self.step > 0 else Binary("-", from_, at)
        count = far if inclusive else Binary("-", far, Const(1))
        if isinstance(gate, Call) and gate.fn == "exp":
            return Call("exp", (Binary("*", gate.args[0], count),))
        return Binary("**", gate, count)

    def same_stretch(
        self, at: Expr, s: str | None, inclusive: bool, rest: dict[str, Expr]
    ) -> Expr | None:
        """That no gate closed for good after `s` and up to a time; at all without `s`. None if none ever does."""
        if self.keep is None:
            return None
        now = self.count_at(_lone(at), inclusive, rest)
        then = Const(0.0) if s is None else self.count_at(Index(s), True, rest)
        return Compare("==", now, then)

    def count_at(self, at: Expr, inclusive: bool, rest: dict[str, Expr]) -> Expr:
        """How many gates closed for good up to a time, itself in or not."""
        assert self.keep is not None
        if inclusive not in self.counts:
            name = self.names.tensor("N")
            inside = free(self.keep) | {self.time}
            indices = tuple(i for i in self.d.indices if i in inside)
            index = self.names.index(self.time)
            closed = Select(self.keep, Const(0.0), Const(1.0))
            one = self.fresh(substitute(closed, {self.time: Position(index)}))
            where = self.past(index, Position(self.time), inclusive)
            self.made.append(Define(name, indices, Reduce(Reduction.SUM, (index,), one, where)))
            self.counts[inclusive] = name
        made = next(x for x in self.made if x.tensor == self.counts[inclusive])
        subs = tuple(at if i == self.time else rest.get(i, Index(i)) for i in made.indices)
        return Read(made.tensor, subs)

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
        factors = [f for whole in p.factors for f in _factors(whole)]
        inside = [f for f in factors if free(f) & set(indices)]
        outside = [f for f in factors if not free(f) & set(indices)]
        fresh = {i: self.names.index(i) for i in indices}
        inner = rename(Reduce(Reduction.SUM, tuple(indices), product(inside)), fresh)
        return dataclasses.replace(p, factors=(*outside, inner))

    def paired(self, p: Piece, x: Define, body: list[Define]) -> Piece:
        """A piece with its weights, what knows both times, as a tensor of its own, as one writes them."""
        if p.index is None or p.where is None:
            return p
        at = free(p.where) - {p.index, *self.cascade.batch}
        factors = [f for whole in p.factors for f in _factors(whole)]
        if len(at) != 1 or not at <= set(x.indices):
            return p
        (now,) = at
        batch = [i for i in x.indices if i in self.cascade.batch]
        pair = {*batch, now, p.index}  # a gate of a feature that is kept stays outside
        both = [f for f in factors if {now, p.index} <= free(f) <= pair]
        if not both:
            return p
        s = self.names.index(self.time)
        name = self.names.tensor("A")
        there = {p.index: Position(s)}
        rest = [f for f in factors if f not in both]
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
        for x in _summands(self.added) if self.added is not None else []:
            s = self.names.index(self.time)
            x = substitute(x, {self.time: Position(s)})
            x = self.fresh(substitute(x, rest, rest))
            where = None if whole else self.past(s, at, inclusive)
            where = conjunction([where, self.same_stretch(at, s, inclusive, rest)])
            gate = self.between(at, s, inclusive, rest)
            factors = ([] if gate is None else [gate]) + _factors(x)
            out.append(Piece(tuple(factors), s, where))
        assert d.init is not None
        if d.init != Const(0) and d.init != Const(0.0):
            gate = self.between(at, None, inclusive, rest)
            init = self.fresh(substitute(d.init, rest, rest))
            first = self.same_stretch(at, None, inclusive, rest)
            init = init if first is None else Select(first, init, Const(0.0))
            out.append(Piece((init,) if gate is None else (gate, init)))
        return out

    def fresh(self, e: Expr) -> Expr:
        """With bound indices of its own."""
        return rename(e, {i: self.names.index(i) for i in bound(e)})


def opened(gate: Expr) -> tuple[Expr, Expr | None]:
    """A gate that closes for good as one that never does, and the condition under which it is open.

    rewrite:  exp(g[t]) if cut[t] == 0 else 0   ->   (exp(g[t]) if cut[t] == 0 else 1),  cut[t] == 0
    """
    match gate:
        case Select(cond, x, Const(value=0)):
            x, inner = opened(x)
            return Select(cond, x, Const(1.0)), conjunction([cond, inner])
        case Select(cond, Const(value=0), x):
            return opened(Select(Unary("not", cond), x, Const(0.0)))
        case Binary("*", a, b):
            (x, p), (y, q) = opened(a), opened(b)
            return (
                (gate, None)
                if p is None and q is None
                else (Binary("*", x, y), conjunction([p, q]))
            )
        case _:
            return gate, None


def product(factors: Sequence[Expr]) -> Expr:
    return reduce(lambda a, b: Binary("*", a, b), factors) if factors else Const(1.0)


def _lone(e: Expr) -> Expr:
    return Index(e.name) if isinstance(e, Position) else e


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


def _summands(e: Expr) -> list[Expr]:
    match e:
        case Binary("+", a, b):
            return _summands(a) + _summands(b)
        case Binary("-", a, b):
            return _summands(a) + [Binary("*", Const(-1.0), x) for x in _summands(b)]
        case Unary("-", a):
            return [Binary("*", Const(-1.0), x) for x in _summands(a)]
        case _:
            return [e]


def _factors(e: Expr) -> list[Expr]:
    match e:
        case Binary("*", a, b):
            return _factors(a) + _factors(b)
        case Unary("-", a):
            return [Const(-1.0), *_factors(a)]
        case _:
            return [e]


def gathered(e: Expr, features: set[str]) -> Expr:
    """Summands that share a factor with a feature of the state as one: each would be a sum over the past of its own.

    rewrite:  b[t] * K[t,e] * V[t,f] - a[t] * b[t] * K[t,e] * U[t,f]   ->   b[t] * K[t,e] * (V[t,f] - a[t] * U[t,f])
    """
    groups: list[list[list[Expr]]] = []
    for summand in _summands(e):
        mine = _factors(summand)
        shared = [g for g in groups if any(f in g[0] and free(f) & features for f in mine)]
        if shared:
            shared[0].append(mine)
        else:
            groups.append([mine])
    out: Expr | None = None
    for group in groups:
        if len(group) == 1:
            whole = product(group[0])
        else:
            common = [f for f in group[0] if all(f in other for other in group[1:])]
            rests = [_without(other, common) for other in group]
            whole = Binary("*", product(common), reduce(_plus, rests))
        out = whole if out is None else _plus(out, whole)
    return e if out is None or len(groups) == len(_summands(e)) else out


def _without(factors: list[Expr], common: list[Expr]) -> Expr:
    rest = list(factors)
    for f in common:
        rest.remove(f)
    return product(rest)


def _plus(a: Expr, b: Expr) -> Expr:
    return Binary("+", a, b)


def _log(e: Expr) -> Expr:
    """The logarithm of a gate, without one where it can be."""
    match e:
        case Call("exp", (x,)):
            return x
        case Binary("*", a, b):
            return Binary("+", _log(a), _log(b))
        case Select(cond, a, b):
            return Select(cond, _log(a), _log(b))
        case _:
            return Call("log", (Call("max", (e, Const(LEAST_GATE))),))
