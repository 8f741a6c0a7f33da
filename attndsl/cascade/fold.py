"""Fold a softmax's denominator into its exponent.

before:  exp(S[i,j] - M[i]) / Z[i]           two numbers a row to keep, one division a point
after:   exp(S[i,j] - L[i])                  L[i] = M[i] + log(Z[i])

Sound where the denominator is a sum of positive exponentials of which the numerator is one: then it
is 0 only where the numerator is (a row without points, or with scores of minus infinity alone).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from attndsl.cascade.definedness import at
from attndsl.cascade.invariance import Kind, scaling, scaling_of
from attndsl.cascade.monomials import Monomial, Polynomial, expression, monomial, polynomial, total
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import children, free, reads, rename, walk, with_children


class Folding:
    """The exponentials and positive sums of one cascade.

    `keep` adds a definition to the forward program and returns its name; `repeat` adds one to the
    backward program, over the indices and the domain of the tensor it is named after. `sequence` has the ranks
    that are settled to be sequences: no number is kept for every pair of their points.
    """

    def __init__(
        self,
        cascade: Cascade,
        hidden: frozenset[str],
        keep: Callable[[str, tuple[str, ...], Expr], str],
        repeat: Callable[[Define, Expr], str],
        expand: Callable[[Monomial], Monomial],
        sequence: frozenset[str] = frozenset(),
    ) -> None:
        self.body = {d.tensor: d for d in cascade.body if d.init is None}
        self.outputs = {o.name for o in cascade.outputs}
        self.scalings = {m: scaling(cascade, m, hidden - {m}) for m in hidden if m in self.body}
        self.keep = keep
        self.repeat = repeat
        self.expand = expand
        self.sequence = sequence
        self.sums: dict[Expr, str] = {}
        self.weights: dict[tuple[str, Polynomial], str] = {}

    def fold(self, m: Monomial) -> Monomial:
        """Every quotient in a product folded, also those inside of its factors."""
        written_out = self.expand(m)
        folded = self.quotients(written_out)
        out = m if folded == written_out else folded
        return out.map(self.inside)

    def inside(self, e: Expr) -> Expr:
        """An expression with the quotients in it folded."""
        match e:
            case Read() | Binary("*" | "/", _, _):
                m = monomial(e)
                written_out = self.expand(m)
                folded = self.quotients(written_out)
                if folded != written_out:
                    return expression(folded.map(self.inside))
        if isinstance(e, Read):
            return e
        old = children(e)
        new = tuple(self.inside(c) for c in old)
        return e if all(a is b for a, b in zip(old, new, strict=True)) else with_children(e, new)

    def quotients(self, m: Monomial) -> Monomial:
        """Every exponential that stands over a sum it belongs to, taken under one exponent."""
        for base, power in m.powers:
            if power < 0 and power.denominator == 1 and self.positive(base) and self.sums_up(base):
                chosen = self.numerators(m, base)
                new = self.folded(chosen, base) if chosen else None
                if new is not None:
                    over = Monomial.of(
                        Fraction(1), [*((b, Fraction(1)) for b in chosen), (base, Fraction(-1))]
                    )
                    return self.quotients(m / over * new)
        return m

    # --- which sums, which exponentials ---

    def positive(self, e: Expr) -> bool:
        """A sum of exponentials, of products of them, of sums of them."""
        match e:
            case Call("exp" | "exp2", _):
                return True
            case Binary("+" | "*", a, b):
                return self.positive(a) and self.positive(b)
            case Reduce(op=Reduction.SUM):
                return self.positive(e.body)
            case Read() if e.tensor in self.body:
                return self.positive(self.body[e.tensor].expr)
            case _:
                return False

    def sums_up(self, divisor: Expr) -> bool:
        """Whether a reduction makes it, for every row: what is a number for every point is computed again, not kept."""
        if len(free(divisor) & self.sequence) > 1:
            return False
        return any(isinstance(n, Reduce) for n in self.cone(divisor))

    def exponent(self, e: Expr) -> Polynomial | None:
        """`x` for an `exp(x)`, or for a tensor that is one."""
        match e:
            case Call("exp", (x,)):
                return polynomial(x)
            case Read() if e.tensor in self.body:
                d = self.body[e.tensor]
                match d.expr:
                    case Call("exp", (x,)):
                        return polynomial(at(x, d.indices, e.subs))
        return None

    def numerators(self, m: Monomial, divisor: Expr) -> list[Expr]:
        """Exponentials of `m` that are terms of the divisor: one that answers a stabiliser alike, or all of them."""
        inside = self.cone(divisor)
        found = [
            b
            for b, p in m.powers
            if p >= 1 and self.exponent(b) is not None and self.belongs(b, inside)
        ]
        for chosen in ([b] for b in found):
            if self.balanced(chosen, divisor):
                return chosen if len(found) == 1 or not self.balanced(found, divisor) else found
        return found if found and self.balanced(found, divisor) else []

    def belongs(self, e: Expr, cone: list[Expr]) -> bool:
        if isinstance(e, Read):
            return any(isinstance(n, Read) and n.tensor == e.tensor for n in cone)
        return any(isinstance(n, Call) and n.fn == "exp" and reads(n) == reads(e) for n in cone)

    def cone(self, e: Expr) -> list[Expr]:
        """Every expression that the divisor is a sum or product of."""
        out: list[Expr] = []
        for n in walk(e):
            out.append(n)
            if isinstance(n, Read) and n.tensor in self.body and self.positive(n):
                out += self.cone(self.body[n.tensor].expr)
        return out

    def balanced(self, chosen: list[Expr], divisor: Expr) -> bool:
        """Does the quotient stay when a stabiliser of the divisor moves?"""
        for env in self.scalings.values():
            below = scaling_of(divisor, env)
            if below.kind is not Kind.MUL:
                continue
            above = Polynomial()
            for b in chosen:
                s = scaling_of(b, env)
                if s.kind is Kind.MUL:
                    above = above + s.k
                elif not s.invariant:
                    return False
            if above != below.k:
                return False
        return True

    # --- the new exponent ---

    def folded(self, chosen: list[Expr], divisor: Expr) -> Monomial | None:
        shift = self.log(divisor)
        exponent = -shift
        for b in chosen:
            x = self.exponent(b)
            assert x is not None
            exponent = exponent + x
        source = next((b for b in chosen if isinstance(b, Read)), None)
        if source is None:
            return monomial(Call("exp", (total(exponent),)))
        d = self.body[source.tensor]
        names = {
            s.name: i for s, i in zip(source.subs, d.indices, strict=True) if isinstance(s, Index)
        }
        if len(names) != len(d.indices):
            return None
        own = exponent.map(lambda b: rename(b, names))
        if not free(total(own)) <= frozenset(d.indices):
            return None
        key = (d.tensor, own)
        if key not in self.weights:
            self.weights[key] = self.repeat(d, Call("exp", (total(own),)))
        return monomial(Read(self.weights[key], source.subs))

    def log(self, divisor: Expr) -> Polynomial:
        """`log(divisor)`, written as a tensor that no stabiliser moves, and the stabilisers' part."""
        if isinstance(divisor, Read):
            d = self.body[divisor.tensor]
            here = Read(d.tensor, tuple(Index(i) for i in d.indices))
            own, indices = self.parts(here, d.indices)
            return own.map(lambda b: at(b, indices, divisor.subs))
        own, _ = self.parts(divisor, tuple(sorted(free(divisor))))
        return own

    def parts(self, divisor: Expr, indices: tuple[str, ...]) -> tuple[Polynomial, tuple[str, ...]]:
        moved = Polynomial()
        for m, env in self.scalings.items():
            s = scaling_of(divisor, env)
            if s.kind is Kind.MUL:
                moved = moved + s.k * Polynomial.of([monomial(Read(m, s.at))])
        still = polynomial(Call("log", (divisor,))) - moved
        name = self.existing(still, indices) or self.sums.get(total(still))
        if name is None:
            stem = divisor.tensor if isinstance(divisor, Read) else ""
            value = self.where_finite(total(still), divisor)
            name = self.keep(f"L{stem[1:]}" if stem.startswith("Z") else "L", indices, value)
            self.sums[total(still)] = name
        own = self.body[name].indices if name in self.body else indices
        value = Read(name, tuple(Index(i) for i in own))
        return Polynomial.of([monomial(value)]) + moved, indices

    def where_finite(self, log: Expr, divisor: Expr) -> Expr:
        """The logarithm, or 0 where a stabiliser of no points takes the divisor to infinity: no weight is left there.

        rewrite:  M[i] + log(sum[j](P[i,j]) + exp(-M[i]))   ->   … if M[i] > -3e38 else 0
        """
        for m, env in self.scalings.items():
            s = scaling_of(divisor, env)
            if s.kind is Kind.MUL and self.bare(divisor, m) and self.may_be_empty(self.body[m]):
                some = Compare(">", Read(m, s.at), Unary("-", Const(3e38)))
                log = Select(some, log, Const(0.0))
        return log

    def bare(self, e: Expr, m: str) -> bool:
        """Whether a term of a sum reads the stabiliser outside of reductions, and so stays without points."""
        match e:
            case Binary("+", a, b):
                return self.bare(a, m) or self.bare(b, m)
            case Read() if e.tensor in self.body and e.tensor != m:
                return self.bare(self.body[e.tensor].expr, m)
            case Reduce():
                return False
            case _:
                return any(isinstance(n, Read) and n.tensor == m for n in walk(e))

    def may_be_empty(self, d: Define) -> bool:
        """A reduction of what has a domain."""
        if not isinstance(d.expr, Reduce):
            return False
        return d.expr.where is not None or any(
            self.body[r].where is not None for r in reads(d.expr.body) & self.body.keys()
        )

    def existing(self, value: Polynomial, indices: tuple[str, ...]) -> str | None:
        """A tensor of the program that has this value already: the user's own log-sum-exp."""
        for d in self.body.values():
            if d.where is None and set(d.indices) == set(indices) and polynomial(d.expr) == value:
                return d.tensor
        return None
