"""The gates of a recurrence: what they are between two steps, by running sums of their logarithms."""

from __future__ import annotations

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
from attndsl.cascade.sums import plus, product, summands
from attndsl.cascade.walk import bound, free, rename, rewrite, substitute

# A gate below this is as good as closed; its logarithm must be finite, or a closed gate would be none at all.
LEAST_GATE = 1e-30


class Gates:
    """What scales the state `d` along `time` at every step: `gate`, and nothing of it is left where `keep` fails.

    Running sums of logarithms, and of how many steps closed for good, are defined in `made` as they are asked for.
    """

    def __init__(
        self, cascade: Cascade, d: Define, gate: Expr, names: Names, axis: tuple[str, int]
    ) -> None:
        self.cascade = cascade
        self.d = d
        self.names = names
        self.time, self.step = axis
        self.gate, self.keep = opened(gate)
        if self.keep is not None and self.time not in free(self.keep):
            self.gate, self.keep = gate, None
        self.constant = self.time not in free(self.gate)
        self.made: list[Define] = []
        self.gates: dict[tuple[int, bool], str] = {}
        self.counts: dict[bool, str] = {}

    def logarithms(self) -> list[Expr]:
        """The logarithm of a gate: whole, or in parts where no part knows all features of the others.

        A running sum of `g[t,e] + l[t,f]` would have an entry for each entry of the state.
        """
        whole = _log(self.gate)
        features = {*self.d.indices} - {self.time, *self.cascade.batch}
        groups: dict[frozenset[str], list[Expr]] = {}
        for x in summands(whole):
            groups.setdefault(frozenset(free(x) & features), []).append(x)
        if frozenset().union(*groups) in groups:
            return [whole]
        return [reduce(plus, group) for group in groups.values()]

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
        if self.d.init in (Const(0), Const(0.0)):
            log = rewrite(log, self.unstarted)
        inside = free(log) | {self.time}
        indices = tuple(i for i in self.d.indices if i in inside)
        index = self.names.index(self.time)
        one = self.fresh(substitute(log, {self.time: Position(index)}))
        where = self.past(index, Position(self.time), inclusive)
        self.made.append(Define(name, indices, Reduce(Reduction.SUM, (index,), one, where)))
        return name

    def unstarted(self, n: Expr) -> Expr | None:
        """What another state starts from, left out: the first gate multiplies a start that is 0.

        A running maximum starts far below all numbers, and nothing would be left of what is added to that.
        """
        match n:
            case Select(cond, then, Const()) if cond == started(self.time, self.time, self.step):
                return Select(cond, then, Const(0.0))
            case _:
                return None

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
                far = self.gate_at(k, lone(at), inclusive, rest)
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
        now = self.count_at(lone(at), inclusive, rest)
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

    def fresh(self, e: Expr) -> Expr:
        """With bound indices of its own."""
        return rename(e, {i: self.names.index(i) for i in bound(e)})


def never_negative(cascade: Cascade, e: Expr) -> bool:
    """Whether a gate is surely not negative, by how it is made or by what is assumed."""
    known: dict[str, Sign] = {}
    least: set[str] = set()
    for a in cascade.assumes:
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
            case Binary("+" | "*", a, b) if nonnegative(a) and nonnegative(b):
                return True
            case Binary("**", a, _) if nonnegative(a):
                return True
            case Select(_, a, b):
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
            case Binary("+", a, Binary("*", Binary("-", Const(value=1), b), c)) if a == b:
                return all(nonnegative(x) and at_most_one(x) for x in (a, c))  # between `c` and 1
            case Select(_, a, b):
                return at_most_one(a) and at_most_one(b)
            case _:
                return False

    for d in cascade.body:
        if d.init is None:
            if nonnegative(d.expr):
                known[d.tensor] = max(sign_of(d.expr, known), Sign.NONNEGATIVE)
            if at_most_one(d.expr):
                least.add(d.tensor)
    return nonnegative(e)


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


def started(at: str, time: str, step: int) -> Expr:
    """That a point has one before it, in the direction of a recurrence."""
    if step > 0:
        return Compare(">", Position(at), Const(0))
    return Compare("<", Position(at), Binary("-", Extent(time), Const(1)))


def lone(e: Expr) -> Expr:
    """An index where it stands as a subscript."""
    return Index(e.name) if isinstance(e, Position) else e


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
