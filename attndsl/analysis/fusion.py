"""How many sweeps are left of a program after fusion, and the fact that forces each further one.

    fused(normal form, ranks)      softmax: M, Z and O together     1 sweep

A sum joins the sweep that makes a value it reads, where it can follow that value as it moves (`Following`). Where the
numbers forbid it though the algebra does not, `Sweeps.bound` is what the algebra alone would ask for. Levels are those
of `sweeps`: 1 while sweep 1 runs, 1.5 after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from attndsl.analysis.blocks import Blocks
from attndsl.analysis.following import Following
from attndsl.analysis.ranks import Ranks
from attndsl.analysis.rowscans import within_of
from attndsl.analysis.scans import scan_of
from attndsl.analysis.separability import Separated
from attndsl.analysis.sweeps import Sweeps, Visits, stands, swept, visits_points
from attndsl.cascade.nodes import Cascade, Define, Expr, Local, Read, Reduce, Reduction, Solve
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import children, free, reads, walk


def fused(c: Cascade, ranks: Ranks, inside: frozenset[str] = frozenset()) -> Sweeps:
    """The sweeps that are left of a program in normal form, where every large reduction is a definition.

    `inside` names running sums that are added up where they are read, each chunk of its own (`schedule/restarts.py`).
    """
    found = _Fusion(c, ranks, inside, exact=True).run()
    by_algebra = _Fusion(c, ranks, inside, exact=False).run()
    bound = len(by_algebra.visits.result())
    return found.visits.result(found.facts, found.joined, bound)


@dataclass(slots=True)
class _Fusion:
    cascade: Cascade
    ranks: Ranks
    inside: frozenset[str]
    exact: bool
    """Whether terms may only be corrected in ways that keep their digits."""
    blocks: Blocks = field(init=False)
    visits: Visits = field(init=False)
    level: dict[str, float] = field(init=False, default_factory=dict)
    stream: dict[str, frozenset[str]] = field(init=False, default_factory=dict)
    roots: set[str] = field(init=False, default_factory=set)
    steps: set[str] = field(init=False, default_factory=set)
    """What is made anew in every step of the search for a root."""
    facts: list[str] = field(init=False, default_factory=list)
    joined: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.blocks = Blocks.of(self.cascade, self.ranks)
        self.visits = Visits(self.cascade, self.ranks)
        for d in self.cascade.body:
            below = list(walk(d.expr))
            if any(isinstance(n, Solve) for n in below):
                continue
            if any(
                isinstance(n, Local) or (isinstance(n, Read) and n.tensor in self.steps)
                for n in below
            ):
                self.steps.add(d.tensor)

    def run(self) -> _Fusion:
        for d in self.cascade.body:
            roots = [n for n in walk(d.expr) if isinstance(n, Solve) and self.searched(n)]
            if roots:
                self.search(d, roots)
            elif (self.reduces(d) or d.init is not None) and within_of(d, self.ranks) is None:
                number, after = self.reduction(d)
                self.level[d.tensor] = number + 0.5 if after else number
                if d.tensor not in self.steps:
                    self.note(number, d)
            else:
                below = [n for n in walk(d.expr) if isinstance(n, Read)]
                self.level[d.tensor] = max((self.read(n) for n in below), default=0)
                streams = (self.stream.get(n.tensor, frozenset()) for n in below)
                self.stream[d.tensor] = frozenset[str]().union(*streams)
        for o in self.cascade.outputs:
            d, level = self.cascade.define(o.name), self.level[o.name]
            if visits_points(self.cascade, self.ranks, d) and level != math.ceil(level):
                self.note(math.ceil(level), d)
                fact = (
                    f"every point of `{o.name}` is an output, and needs what is reduced over them"
                )
                self.facts.append(fact)
        return self

    def reduces(self, d: Define) -> bool:
        return isinstance(d.expr, Reduce) and bool(self.ranks.sequence(d.expr.indices))

    # --- reductions --------------------------------------------------------------------------------------------------

    def reduction(self, d: Define) -> tuple[int, bool]:
        """In which sweep a reduction or a recurrence is made, and whether it is known only after it."""
        e = d.expr
        over = frozenset(e.indices if isinstance(e, Reduce) else d.indices)
        self.stream[d.tensor] = self.blocks.stream(e) if isinstance(e, Reduce) else frozenset()
        parts: tuple[Expr, ...] = (e,)
        following = Following(self.cascade, self.ranks)
        if isinstance(e, Reduce):
            parts = tuple(following.opened(x, over) for x in children(e))
        below = [n for x in parts for n in walk(x) if isinstance(n, Read)]
        below += [p for n in below for p in following.behind(n, over)]
        number, pivots = 1, list[Read]()
        for n in below:
            if n.tensor == d.tensor or not self.level.get(n.tensor):
                continue
            level = self.read(n)
            if n.tensor in self.inside:
                number = max(number, int(level))
                self.joined.append(
                    f"`{d.tensor}` runs along with `{n.tensor}`: only differences of it are taken, and it begins anew "
                    "with each chunk"
                )
            elif level == int(level) or self.joins(d, n, over):
                number = max(number, int(level))
                pivots += [n] if level != int(level) else []
            elif number < math.ceil(level):
                number = math.ceil(level)
                self.facts.append(self.why_before(d, n, over))
        if not isinstance(e, Reduce):
            return number, False
        fixed = frozenset(x for x, level in self.level.items() if level < number)
        following = Following(self.cascade, self.ranks, fixed)
        hot = [n for n in dict.fromkeys(pivots) if int(self.level[n.tensor]) == number]
        stuck = [n for n in hot if not self.follows(following, d, n)]
        self.facts += [following.why_apart(d, n.tensor) for n in stuck]
        if not stuck:
            self.joined += [why_along(following, d, n) for n in hot]
        # A scan is at hand at every point of the sweep that carries it.
        carried = scan_of(d, self.ranks) is not None
        return number + bool(stuck), not carried and not self.blocks.within(e)

    def joins(self, d: Define, n: Read, over: frozenset[str]) -> bool:
        """Whether a value is constant along what is reduced, and made in a sweep over the same, for the same rows."""
        rows = self.rows(free(n)) == self.rows(d.indices) and n.tensor not in self.roots
        return rows and not free(n) & over and self.stream[n.tensor] == self.stream[d.tensor]

    def follows(self, following: Following, d: Define, n: Read) -> bool:
        assert isinstance(d.expr, Reduce)
        if d.expr.op is not Reduction.SUM:
            return False
        if following.how(d, n) is not None:
            return True
        if self.exact:
            return False
        hot = {x for x, level in self.level.items() if int(level) == int(self.level[n.tensor])}
        return isinstance(following.separated(d, hot), Separated)

    def read(self, n: Read) -> float:
        level = self.level.get(n.tensor, 0)
        between = level and level == int(level) and stands(self.cascade, self.ranks, n)
        return level + 0.5 if between else level

    def rows(self, indices: Iterable[str]) -> frozenset[str]:
        return frozenset(self.ranks.of.get(i, i) for i in self.ranks.sequence(tuple(indices)))

    def note(self, number: int, d: Define) -> None:
        stop = {
            x.tensor
            for x in self.cascade.body
            if x.tensor in self.level and self.reduces(x) and x.tensor not in self.steps
        }
        self.visits.note(number, d.tensor, d.expr, frozenset(stop - {d.tensor}))

    def why_before(self, d: Define, n: Read, over: frozenset[str]) -> str:
        """Why a reduction cannot join the sweep that makes a value it reads."""
        if self.reduces(d) and (free(n) & over or n.tensor in self.roots):
            return Following(self.cascade, self.ranks).why_apart(d, n.tensor)
        return (
            f"`{n.tensor}` must be known before `{d.tensor}`: they keep or reduce different ranks"
        )

    # --- roots -------------------------------------------------------------------------------------------------------

    def searched(self, e: Solve) -> bool:
        """Whether every step of the search for a root is a reduction over a sequence."""
        below = {n.tensor for n in walk(e.equation) if isinstance(n, Read)} & self.steps
        defs = (self.cascade.define(x) for x in below)
        return swept(e.equation, self.ranks) or any(self.reduces(d) or reads(d.expr) for d in defs)

    def search(self, d: Define, roots: list[Solve]) -> None:
        """A root takes a sweep for each step, after what its bracket and its equation read."""
        start = math.floor(max(self.read(n) for n in walk(d.expr) if isinstance(n, Read)))
        steps = max(r.iters for r in roots)
        for k in range(1, steps + 1):
            self.note(start + k, d)
        self.facts.append(f"`{d.tensor}` is searched for: every step is a sweep, {steps} at most")
        self.level[d.tensor] = start + steps + 0.5
        self.stream[d.tensor] = frozenset()
        self.roots.add(d.tensor)


def why_along(following: Following, d: Define, n: Read) -> str:
    """How a sum runs along with a value it reads."""
    move = following.how(d, n)
    begin = f"`{d.tensor}` runs along with `{n.tensor}`"
    if move is None:
        return f"{begin}: its terms separate"
    if move.count is not None:
        return f"{begin}: it is the spread around this mean, and moves with its square"
    if move.still:
        return f"{begin}: its terms do not change with it"
    if move.factor:
        return f"{begin}: its terms scale by `{n.tensor}`**{print_expr(move.k)}"
    k = {"-1": "-", "1": ""}.get(print_expr(move.k), f"{print_expr(move.k)} * ")
    return f"{begin}: its terms scale by exp({k}`{n.tensor}`)"
