"""The kernel of a root: rounds of one sweep each, until the guess of every row stands.

Each round knows the equation's two sides and their slope at the guess, and keeps a bracket around the root. The next
guess comes from a power law, `side = c * (x - a)**p`, which is exact where all scores of a row are equal: through the
second derivative where this is finite, else through the last two rounds. Where it would leave the bracket, or its steps
do not shrink, the bracket is halved. A row is settled when its step is so small that the next one could not be seen.

source: Newton's method inside a bracket: Press et al., Numerical Recipes, section 9.4
"""

from __future__ import annotations

from collections.abc import Callable

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Logic,
    Read,
    Reduction,
    Select,
    Solve,
    Unary,
)
from attndsl.schedule import tile as t
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.masks import reaches
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.products import fold
from attndsl.schedule.roots import curve_of, guess_of, slope_of
from attndsl.schedule.tile import Epsilon, Val
from attndsl.schedule.values import FINAL, ROUND, X

ZERO, ONE, TWO = Const(0.0), Const(1.0), Const(2.0)
# Where a search begins in its bracket: thresholds of spread scores lie above, and convex sums are met from below.
QUARTER = Const(0.25)
LARGEST = Const(3.0e38)  # about what float32 holds: bounds beyond it are infinite
# The state of a row: the guess and its bracket, the last two steps, and whether the difference of the sides falls (1)
# or rises (-1).
STATE = ("x", "lo", "hi", "step", "step2", "sign")
# Where two rounds give the power: the last guess, and side / slope there.
MEMORY = ("old", "ratio")


def search(kernel: Kernel, d: Define, subs: tuple[Expr, ...]) -> X:
    """Find a root, row by row; its value after the rounds.

    Raises: Needs, for what must be known beforehand; Refused, if the equation has no row of its own.
    """
    assert isinstance(d.expr, Solve)
    return _Search(kernel, d, d.expr, subs).run()


class _Search:
    def __init__(self, kernel: Kernel, d: Define, e: Solve, subs: tuple[Expr, ...]) -> None:
        self.kernel = kernel
        self.d = d
        self.e = e
        self.subs = subs
        self.dims: frozenset[str] = frozenset().union(*(kernel.dims_of(s) for s in subs))
        guess = guess_of(d.tensor)
        sides = (e.equation.left, e.equation.right)
        self.moves = [
            isinstance(s, Read) and reaches(kernel, kernel.defs[s.tensor], guess) for s in sides
        ]
        slope, curve = slope_of(d.tensor) in kernel.defs, curve_of(d.tensor) in kernel.defs
        self.remembers = slope and not curve and not all(self.moves)
        state = (*STATE, *MEMORY) if self.remembers else STATE
        self.names = {v: kernel.names.fresh(f"{d.tensor}_{v}") for v in state}

    def run(self) -> X:
        k = self.kernel
        lo, hi = self.part(self.e.lo), self.part(self.e.hi)
        asked = [v.expr for v in (lo, hi) if not _is_finite(v.expr)]
        finite: list[Expr] = [Compare("<=", Call("abs", (e,)), LARGEST) for e in asked] or [
            Const(True)
        ]
        solvable = k.names.fresh(f"{self.d.tensor}_solvable")
        both = finite[0] if len(finite) == 1 else Logic("and", tuple(finite))
        k.prologue.append(t.Compute(solvable, k.order(self.dims), DType.BOOL, both))
        quarter = Binary("+", lo.expr, Binary("*", QUARTER, Binary("-", hi.expr, lo.expr)))
        first = {"x": quarter, "old": quarter, "lo": lo.expr, "hi": hi.expr}
        for v, name in self.names.items():
            start = Select(Val(solvable), first[v], ZERO) if v in first else ZERO
            k.prologue.append(t.Declare(name, k.order(self.dims), DType.FLOAT, start))
        k.guess = X(self.at("x"), self.dims, frozenset({ROUND}))
        left, right = self.part(self.e.equation.left), self.part(self.e.equation.right)
        steep, curve = self.derivative(slope_of), self.derivative(curve_of)
        for s in k.states.values():
            k.round.insert(0, t.Assign(s.name, Const(s.reduce.op.identity)))
        going = self.turn(Val(solvable), left, right, steep, curve)
        k.rounds = t.Rounds(self.e.iters, going, tuple(k.round), tuple(k.epilogue))
        k.round.clear()
        k.epilogue.clear()
        found = Select(Val(solvable), self.at("x"), lo.expr)
        return k.bind(X(found, self.dims, frozenset({FINAL})), self.d.tensor)

    def part(self, e: Expr) -> X:
        """A bound, or a side of the equation after a round's sweep."""
        assert isinstance(e, Read)
        x = self.kernel.read(Read(e.tensor, self.subs), True)
        if not x.dims <= self.dims:
            raise Refused("A0402", f"`{self.d.tensor}` has more equations than rows", self.d.span)
        return self.kernel.bind(x, e.tensor)

    def derivative(self, of: Callable[[str], str]) -> X | None:
        name = of(self.d.tensor)
        return self.part(Read(name, self.subs)) if name in self.kernel.defs else None

    def at(self, v: str) -> Val:
        return Val(self.names[v])

    def let(self, stem: str, e: Expr, dtype: DType = DType.FLOAT) -> Val:
        """Name a value of the round's end."""
        name = self.kernel.names.fresh(f"{self.d.tensor}_{stem}")
        self.kernel.epilogue.append(t.Compute(name, self.kernel.order(self.dims), dtype, e))
        return Val(name)

    def put(self, v: str, e: Expr) -> None:
        self.kernel.epilogue.append(t.Assign(self.names[v], e))

    def turn(self, solvable: Expr, left: X, right: X, steep: X | None, curve: X | None) -> str:
        """Improve the guess at the end of a round; the name of the condition to go on."""
        x, lo, hi, step, sign = (self.at(v) for v in ("x", "lo", "hi", "step", "sign"))
        gap = self.let("gap", Binary("-", left.expr, right.expr))
        # The sides' difference times `sign` is positive left of the root.
        rise: Expr = Unary("-", gap)
        if steep is not None:
            rise = Select(Compare("!=", steep.expr, ZERO), steep.expr, rise)
        first = Select(Compare("<=", rise, ZERO), ONE, Const(-1.0))
        self.put("sign", Select(Compare("==", sign, ZERO), first, sign))
        before = self.let("before", Compare(">", Binary("*", gap, sign), ZERO), DType.BOOL)
        self.put("lo", Select(before, x, lo))
        self.put("hi", Select(before, hi, x))
        middle = self.let("middle", Binary("+", lo, Binary("/", Binary("-", hi, lo), TWO)))
        new: Expr = middle
        size: Expr = ZERO
        if steep is not None:
            new, size = self.better(left, right, gap, steep, curve, middle)
        exact = Compare("==", gap, ZERO)
        new = self.let("next", Select(exact, x, new))
        moved = self.let("moved", Call("abs", (Binary("-", new, x),)))
        least = Binary("*", Binary("*", TWO, Epsilon()), widest(lo, hi))
        wide = Compare(">", Binary("-", hi, lo), least)
        # After a step s the error is about s * (s / size), and times s / size again where the law knows the curve.
        order = 2 if curve is None or curve.expr == ZERO else 3
        length, unseen = Binary("*", TWO, moved), Binary("*", Epsilon(), size)
        for _ in range(order - 1):
            length, unseen = Binary("*", length, Binary("*", TWO, moved)), Binary("*", unseen, size)
        seen = Compare(">", length, Call("abs", (unseen,)))
        # A settled row has a negative step, and moves no more.
        open_ = self.let("open", Compare(">=", step, ZERO), DType.BOOL)
        conditions = (solvable, open_, wide, Unary("not", exact), seen)
        more = self.let("more", Logic("and", conditions), DType.BOOL)
        if self.remembers:
            self.put("old", x)
        self.put("step2", step)
        self.put("step", Select(more, moved, Const(-1.0)))
        self.put("x", Select(open_, new, x))
        return self.any(more.name)

    def better(
        self, left: X, right: X, gap: Expr, steep: X, curve: X | None, middle: Expr
    ) -> tuple[Expr, Expr]:
        """The guess by the power law where it may be trusted, else the middle; and the size of a step that shows."""
        x, lo, hi, step2 = (self.at(v) for v in ("x", "lo", "hi", "step2"))
        sloped = self.let("sloped", Compare("!=", steep.expr, ZERO), DType.BOOL)
        slope = self.let("slope", Select(sloped, steep.expr, ONE))
        newton = Unary("-", Binary("/", gap, slope))
        side, level = (left, right) if self.moves[0] else (right, left)
        slant = slope if self.moves[0] else Unary("-", slope)
        now = self.let("now", Binary("/", side.expr, slant))
        jump: Expr = newton
        if not all(self.moves) and (curve is None or curve.expr != ZERO):
            bend = None if curve is None else Binary("/", curve.expr, slope)
            jump = self.law(side, level, now, bend, newton)
        there = self.let("there", Binary("+", x, jump))
        length = Call("abs", (Binary("-", there, x),))
        shrinks = (
            Compare("<=", step2, ZERO),
            Compare("<=", length, Binary("/", step2, TWO)),
        )
        # A root at the very end of its bracket may round to beyond it.
        slack = self.let("slack", Binary("*", Binary("*", Const(4.0), Epsilon()), widest(lo, hi)))
        inside = (
            Compare(">=", there, Binary("-", lo, slack)),
            Compare("<=", there, Binary("+", hi, slack)),
        )
        trusted = Logic("and", (sloped, *inside, Logic("or", shrinks)))
        good = self.let("good", trusted, DType.BOOL)
        if self.remembers:
            self.put("ratio", now)
        return Select(good, there, middle), Select(good, now, ZERO)

    def law(self, side: X, level: X, now: Val, bend: Expr | None, newton: Expr) -> Expr:
        """The step to where the power law of the side that moves meets the one that stands.

        With side = c * (x - a)**p, `now` = side / slope is (x - a) / p, and its derivative q is 1 / p.
        """
        if bend is not None:
            q: Expr = Binary("-", ONE, Binary("*", now, bend))
        else:  # from the last two rounds; in the first, p = 1 is Newton's step
            apart = self.let("apart", Binary("-", self.at("x"), self.at("old")))
            moved = Compare("!=", apart, ZERO)
            q = Binary("/", Binary("-", now, self.at("ratio")), Select(moved, apart, ONE))
            q = Select(moved, q, ONE)
        q = self.let("q", Call("max", (Call("min", (q, Const(4.0))), Const(-1.0))))
        above = (Compare(">", s.expr, ZERO) for s in (side, level))
        positive = self.let("positive", Logic("and", tuple(above)), DType.BOOL)
        share = Binary("/", Select(positive, level.expr, ONE), Select(positive, side.expr, ONE))
        log = self.let("log", Call("log", (share,)))
        u = self.let("u", Call("min", (Binary("*", q, log), Const(80.0))))
        small = Compare("<", Call("abs", (u,)), Const(1e-3))
        series = Binary("*", log, Binary("+", ONE, Binary("/", u, TWO)))
        power = Binary("-", Call("exp", (u,)), ONE)
        power = Binary("/", power, Select(small, ONE, q))
        return Select(positive, Binary("*", now, Select(small, series, power)), newton)

    def any(self, v: str) -> str:
        """Whether it holds for any row of the tile."""
        k = self.kernel
        x = X(Val(v), self.dims, frozenset({FINAL}), DType.BOOL)
        for axis in k.order(self.dims):
            x = fold(k, Reduction.ANY, k.value(x, "more"), x, axis, "more")
        going = k.names.fresh("going")
        k.epilogue.append(t.Compute(going, (), DType.BOOL, x.expr))
        return going


def widest(lo: Expr, hi: Expr) -> Expr:
    """The larger size of two bounds."""
    return Call("max", (Call("abs", (lo,)), Call("abs", (hi,))))


def _is_finite(e: Expr) -> bool:
    """Whether a bound is a number that is written, and finite."""
    while isinstance(e, Unary) and e.op == "-":
        e = e.arg
    return isinstance(e, Const) and abs(e.value) <= LARGEST.value
