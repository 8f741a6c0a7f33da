"""Whether a function of values known late and of data separates: `f(u, x) = H_1(u) G_1(x) + … + H_r(u) G_r(x)`.

    separate(P/Z * V,           {Z},    {j})   # one term:   1/Z    *  P*V
    separate((S - mean) * V,    {mean}, {j})   # two terms:  1 * S*V,  -mean * V
    separate(relu(S - t) * V,   {t},    {j})   # none: `relu(S - t)` is not separable

If it does, `sum[j](f)` needs no sweep of its own: the sums of the `G` run along with what makes `u`, and the `H` come
in at the end (or at every step, as a correction). If it does not, `u` must be known before. For a function of `x - u`
there are finitely many terms exactly where it is a sum of `x**p * exp(c*x)`: exponentials, polynomials and cosines
separate, thresholds and sigmoids do not.

Algebra finds the terms, numbers decide: every answer is checked at random points in float64, and where algebra finds
none, the rank of a random matrix of values says whether there are any.

Source: cross ratios of RedFuser (ASPLOS 2026) for rank 1; the rest, finite rank with sign facts, is this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from attndsl.analysis import probe
from attndsl.cascade.nodes import Compare, Expr, Logic, Read
from attndsl.cascade.signs import Sign
from attndsl.cascade.walk import children, free, walk

MAX_RANK = 4
CHECKS = 64  # points at which a factorisation must hold


@dataclass(frozen=True, slots=True)
class Separated:
    """`terms` are pairs `(H, G)` of sympy expressions over the symbols of `atoms`."""

    terms: tuple[tuple[Any, Any], ...]
    atoms: Mapping[Expr, Any]

    @property
    def rank(self) -> int:
        return len(self.terms)


@dataclass(frozen=True, slots=True)
class Inseparable:
    """`part` is the innermost expression that does not separate; `rank` how many terms a sample asked for."""

    part: Expr
    rank: int | None


Facts = tuple[tuple[str, Sign], ...]


def separate(
    body: Expr, late: frozenset[Expr], over: frozenset[str], signs: Mapping[str, Sign]
) -> Separated | Inseparable:
    """Separate a pointwise expression into `late` atoms and those that move with the indices `over`.

    Atoms are reads, parameters, positions and inner reductions; those in neither set are constants. `signs` are of
    tensors and parameters, by name. Answers are kept.
    """
    return _separate(body, late, over, tuple(sorted(signs.items())))


@lru_cache(maxsize=4096)
def _separate(
    body: Expr, late: frozenset[Expr], over: frozenset[str], signs: Facts
) -> Separated | Inseparable:
    q = _Question(body, late, over, dict(signs))
    terms = q.by_algebra()
    if terms is None or len(terms) > MAX_RANK or not q.holds(terms):
        terms = q.by_numbers()
    if terms is not None:
        return Separated(tuple(terms), q.symbols.of)
    return Inseparable(_innermost(body, late, over, signs), q.rank)


def mixed(e: Expr, late: frozenset[Expr], over: frozenset[str]) -> bool:
    """Whether an expression has late atoms and moving ones."""
    return any(n in late for n in walk(e)) and bool(free(e) & over)


def _innermost(e: Expr, late: frozenset[Expr], over: frozenset[str], signs: Facts) -> Expr:
    """The smallest part that does not separate by itself."""
    for c in children(e) if not isinstance(e, Read) else ():
        if isinstance(c, Compare | Logic) or not mixed(c, late, over):
            continue
        if isinstance(_separate(c, late, over, signs), Inseparable):
            return _innermost(c, late, over, signs)
    return e


class _Question:
    """One body in sympy's terms, with its symbols by side."""

    def __init__(
        self, body: Expr, late: frozenset[Expr], over: frozenset[str], signs: Mapping[str, Sign]
    ) -> None:
        import sympy as sp

        from attndsl.analysis.algebra import Symbols

        self.sp = sp
        self.symbols = Symbols(signs)
        self.f = self.symbols.symbolic(body)
        of = self.symbols.of
        self.late = [s for e, s in of.items() if e in late]
        self.data = [s for e, s in of.items() if e not in late and free(e) & over]
        self.rest = [s for e, s in of.items() if s not in {*self.late, *self.data}]
        self.rank: int | None = None
        self.random = Random(0)

    def by_algebra(self) -> list[tuple[Any, Any]] | None:
        """The terms of the expansion, if no factor has symbols of both sides."""
        from attndsl.analysis.algebra import expanded

        sp = self.sp
        late, data = set(self.late), set(self.data)
        terms: dict[Any, Any] = {}
        for t in sp.Add.make_args(expanded(self.f)):
            sides = [sp.S.One, sp.S.One]
            for factor in sp.Mul.make_args(t):
                seen = factor.free_symbols
                if seen & late and seen & data:
                    return None
                sides[1 if seen & data else 0] *= factor
            terms[sides[1]] = terms.get(sides[1], 0) + sides[0]
        merged: dict[Any, Any] = {}  # equal H, one G
        for g, h in terms.items():
            h = sp.factor_terms(h)
            merged[h] = merged.get(h, 0) + g
        return [(h, g) for h, g in merged.items() if h != 0] or [(sp.S.Zero, sp.S.Zero)]

    def holds(self, terms: Iterable[tuple[Any, Any]]) -> bool:
        """Whether the terms add up to the function, at random points."""
        total = self.sp.Add(*(h * g for h, g in terms))
        sizes = self.sp.Add(*(self.sp.Abs(h * g) for h, g in terms))
        f, g, size = (self.function(x) for x in (self.f, total, sizes))
        seen = 0
        for _ in range(4 * CHECKS):
            u, x = self.points(self.late, 1)[0], self.points(self.data, 1)[0]
            want, got, scale = (probe.value(fn, u, x) for fn in (f, g, size))
            if want is None:
                continue
            if (
                got is None
                or scale is None
                or abs(want - got) > 1e-9 * max(scale, abs(want), 1e-30)
            ):
                return False
            seen += 1
            if seen == CHECKS:
                break
        return seen >= CHECKS // 4

    def by_numbers(self) -> list[tuple[Any, Any]] | None:
        """The skeleton of a matrix of values, where its rank is small: `f(u, X) M^-1 f(U, x)`."""
        f = self.function(self.f)
        us, xs = (self.points(side, probe.POINTS) for side in (self.late, self.data))
        self.rank = probe.rank(f, us, xs)
        if self.rank is None or not 0 < self.rank <= MAX_RANK:
            return None
        r, sp = self.rank, self.sp
        for k in range(0, probe.POINTS - r, r):
            u0, x0 = us[k : k + r], xs[k : k + r]
            m = sp.Matrix(r, r, lambda a, b, u0=u0, x0=x0: sp.Float(f(u0[a], x0[b])))
            if probe.rank(f, u0, x0) != r:
                continue
            left = [self.f.subs(dict(zip(self.data, x, strict=True))) for x in x0]
            right = [self.f.subs(dict(zip(self.late, u, strict=True))) for u in u0]
            inverse = m.inv()
            terms = [
                (sp.Add(*(left[b] * inverse[b, a] for b in range(r))), right[a]) for a in range(r)
            ]
            if self.holds(terms):
                return terms
        return None

    def function(self, e: Any) -> Callable[[probe.Point, probe.Point], float]:
        """An expression as a function of floats; constants of neither side stand at one random point."""
        fixed = dict(zip(self.rest, self.points(self.rest, 1, Random(1))[0], strict=True))
        names = [*self.late, *self.data]
        made = self.sp.lambdify(names, e.subs(fixed), "math")

        def call(u: probe.Point, x: probe.Point) -> float:
            out: float = made(*u, *x)
            return out

        return call

    def points(self, side: list[Any], count: int, random: Random | None = None) -> list[Any]:
        return probe.points([bool(s.is_positive) for s in side], count, random or self.random)
