"""The kernel of a root: rounds of one sweep each, until the guess of every row stands.

Each round knows the equation's two sides and their slope at the guess, and keeps a bracket around the root. The next
guess comes from a power law, `side = c * (x - a)**p`, which is exact where all scores of a row are equal: through the
second derivative where this is finite, else through the last two rounds. Where it would leave the bracket, or its steps
do not shrink, the bracket is halved. A row is settled when its step is so small that the next one could not be seen.

A search that goes on from a guess in memory (`refined`) finds its bracket in its own sweep, beside the two sides: near
the root it takes a single round. A guess that is no number, or stands outside of the bracket, is given up after it.

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
# How far outside of its bracket a guess of rounded scores may stand, in lengths of the bracket.
NEAR = Const(0.0625)
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
        if k.refines:
            return self.refine()
        lo, hi = self.part(self.e.lo), self.part(self.e.hi)
        solvable = k.names.fresh(f"{self.d.tensor}_solvable")
        k.prologue.append(t.Compute(solvable, k.order(self.dims), DType.BOOL, are_finite(lo, hi)))
        quarter = at_quarter(lo.expr, hi.expr)
        first = {"x": quarter, "old": quarter, "lo": lo.expr, "hi": hi.expr}
        self.declare({v: Select(Val(solvable), e, ZERO) for v, e in first.items()})
        left, right, steep, curve = self.sweep()
        going = self.turn(Val(solvable), left, right, steep, curve)
        self.close(going)
        found = Select(Val(solvable), self.at("x"), lo.expr)
        return k.bind(X(found, self.dims, frozenset({FINAL})), self.d.tensor)

    def refine(self) -> X:
        """The root from a guess in memory. The bracket is known at the end of the first round."""
        k, name = self.kernel, self.d.tensor
        held = k.names.fresh(f"{name}_held")
        k.prologue.append(
            t.Load(held, k.order(self.dims), DType.FLOAT, name, self.subs, k.order(self.dims))
        )
        k.read_buffers[name] = None
        guess = Select(Compare("<=", Call("abs", (Val(held),)), LARGEST), Val(held), ZERO)
        self.declare({"x": guess, "old": guess, "lo": Unary("-", LARGEST), "hi": LARGEST})
        left, right, steep, curve = self.sweep()
        lo, hi = self.part(self.e.lo), self.part(self.e.hi)
        if steep is None:
            raise Refused("A0402", "without a slope no side of a guess is known", self.d.span)
        solvable = self.let("solvable", are_finite(lo, hi), DType.BOOL)
        ends = (Call("max", (self.at("lo"), lo.expr)), Call("min", (self.at("hi"), hi.expr)))
        low, high = (
            self.let(v, Select(solvable, e, ZERO))
            for v, e in zip(("low", "high"), ends, strict=True)
        )
        far = Binary("*", NEAR, Binary("-", high, low))
        fits = (
            Compare(">=", self.at("x"), Binary("-", low, far)),
            Compare("<=", self.at("x"), Binary("+", high, far)),
            Compare("!=", steep.expr, ZERO),
            Compare("<=", Call("abs", (left.expr,)), LARGEST),
            Compare("<=", Call("abs", (right.expr,)), LARGEST),
        )
        # After a step the guess is the search's own.
        known = Compare("!=", self.at("step"), ZERO)
        fit = self.let("fit", Logic("or", (known, Logic("and", fits))), DType.BOOL)
        self.put("lo", low)
        self.put("hi", high)
        going = self.turn(solvable, left, right, steep, curve, fit)
        self.put("x", Select(solvable, self.at("x"), lo.expr))
        self.close(going, 1)
        return k.bind(X(self.at("x"), self.dims, frozenset({FINAL})), name)

    def declare(self, first: dict[str, Expr]) -> None:
        """What passes from round to round; and the guess, for what is read of it."""
        k = self.kernel
        for v, name in self.names.items():
            start = first.get(v, ZERO)
            k.prologue.append(t.Declare(name, k.order(self.dims), DType.FLOAT, start))
        k.guess = X(self.at("x"), self.dims, frozenset({ROUND}))

    def sweep(self) -> tuple[X, X, X | None, X | None]:
        """What a round knows after its sweep: the sides, and their difference's slope and curve."""
        left, right = self.part(self.e.equation.left), self.part(self.e.equation.right)
        return left, right, self.derivative(slope_of), self.derivative(curve_of)

    def close(self, going: str, more: int = 0) -> None:
        """Turn what was built into rounds, and so many `more` than are asked for."""
        k = self.kernel
        for s in k.states.values():
            k.round.insert(0, t.Assign(s.name, Const(s.reduce.op.identity)))
        k.rounds = t.Rounds(self.e.iters + more, going, tuple(k.round), tuple(k.epilogue))
        k.round.clear()
        k.epilogue.clear()

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

    def turn(
        self,
        solvable: Expr,
        left: X,
        right: X,
        steep: X | None,
        curve: X | None,
        fit: Val | None = None,
    ) -> str:
        """Improve the guess at the end of a round; the name of the condition to go on.

        Where a guess from memory is not `fit`, the search begins anew.
        """
        x, lo, hi, step, sign = (self.at(v) for v in ("x", "lo", "hi", "step", "sign"))
        gap = self.let("gap", Binary("-", left.expr, right.expr))
        # The sides' difference times `sign` is positive left of the root.
        rise: Expr = Unary("-", gap)
        if steep is not None:
            rise = Select(Compare("!=", steep.expr, ZERO), steep.expr, rise)
        first = Select(Compare("<=", rise, ZERO), ONE, Const(-1.0))
        fresh: Expr = Compare("==", sign, ZERO)
        if fit is not None:
            fresh = Logic("and", (fresh, fit))
        self.put("sign", Select(fresh, first, sign))
        before = self.let("before", Compare(">", Binary("*", gap, sign), ZERO), DType.BOOL)
        if fit is None:
            self.put("lo", Select(before, x, lo))
            self.put("hi", Select(before, hi, x))
        else:
            after = self.let("after", Logic("and", (fit, Unary("not", before))), DType.BOOL)
            self.put("lo", Select(before, Call("max", (x, lo)), lo))
            self.put("hi", Select(after, Call("min", (x, hi)), hi))
        middle = self.let("middle", Binary("+", lo, Binary("/", Binary("-", hi, lo), TWO)))
        new: Expr = middle
        size: Expr = ZERO
        if steep is not None:
            new, size = self.better(left, right, gap, steep, curve, middle)
        exact: Expr = Compare("==", gap, ZERO)
        new = Select(exact, x, new)
        if fit is not None:
            new = Select(fit, new, at_quarter(lo, hi))
            exact, size = Logic("and", (fit, exact)), Select(fit, size, ZERO)
        new = self.let("next", new)
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
        shown = moved if fit is None else Select(fit, moved, LARGEST)
        self.put("step", Select(more, shown, Const(-1.0)))
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


def at_quarter(lo: Expr, hi: Expr) -> Expr:
    """Where a search begins."""
    return Binary("+", lo, Binary("*", QUARTER, Binary("-", hi, lo)))


def are_finite(lo: X, hi: X) -> Expr:
    """Whether both ends of a bracket are numbers."""
    asked = [v.expr for v in (lo, hi) if not _is_finite(v.expr)]
    finite = [Compare("<=", Call("abs", (e,)), LARGEST) for e in asked]
    if not finite:
        return Const(True)
    return finite[0] if len(finite) == 1 else Logic("and", tuple(finite))


def _is_finite(e: Expr) -> bool:
    """Whether a bound is a number that is written, and finite."""
    while isinstance(e, Unary) and e.op == "-":
        e = e.arg
    return isinstance(e, Const) and abs(e.value) <= LARGEST.value
