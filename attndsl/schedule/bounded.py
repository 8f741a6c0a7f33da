"""Maxima that bound every term of the sums that follow them, so that no running sum leaves the range of floats.

    X[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])         M[i] = max[j](S[i,j]) bounds the first exponential, not the second

Where all scores so far are far below 0, exp(-M) is infinite, and the correction exp(M_old - M_new) that would bring it
back is 0. So the sum runs on max(M, 0), and is brought to the program's own M at its end.
"""

from __future__ import annotations

import dataclasses

from attndsl.analysis.following import Following, Move
from attndsl.analysis.ranks import Ranks
from attndsl.cascade.monomials import polynomial, total
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Index,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.walk import free, rewrite, walk


def bound_terms(c: Cascade, ranks: Ranks) -> Cascade:
    """Let sums follow a maximum that bounds all of their exponentials.

    rewrite:  O[i] = sum[j](relu(X[i,j]))
              ->  M.bound[i]   = max(M[i], 0)
                  X.bound[i,j] = exp(S[i,j] - M.bound[i]) - exp(-M.bound[i])
                  O.run[i]     = sum[j](relu(X.bound[i,j]))
                  O[i]         = O.run[i] / exp(M[i] - M.bound[i])
    requires: the terms are multiplied by exp(-d) where M moves by d; what else is exponentiated beside M is known
              before the sweep. A quotient of two zeros is 0, as everywhere.
    """
    bounds = _Bounds(c, Following(c, ranks))
    for d in c.body:
        bounds.take(d)
    return c if len(bounds.body) == len(c.body) else dataclasses.replace(c, body=tuple(bounds.body))


class _Bounds:
    def __init__(self, c: Cascade, following: Following) -> None:
        self.defs = {d.tensor: d for d in c.body}
        self.following = following
        self.body: list[Define] = []
        self.made: dict[object, str] = {}

    def take(self, d: Define) -> None:
        """One definition; a sum that no maximum of its own bounds becomes three."""
        e, follow = d.expr, self.following
        found = None
        if isinstance(e, Reduce) and e.op is Reduction.SUM and follow.ranks.sequence(e.indices):
            over = frozenset(e.indices)
            opened = follow.opened(e.body, over)
            for pivot in follow.pivots(e):
                rests = _beside(opened, pivot, over, follow)
                if rests and follow.how(d, pivot) == Move(Const(-1)):
                    found = pivot, rests
        if found is None or not isinstance(e, Reduce):
            self.body.append(d)
            return
        pivot, rests = found
        bound = self.bound(pivot, rests, d)
        body = self.copied(e.body, pivot, bound, frozenset(e.indices))
        run = f"{d.tensor}.run"
        self.body.append(dataclasses.replace(d, tensor=run, expr=dataclasses.replace(e, body=body)))
        back = Call("exp", (Binary("-", pivot, bound),))
        read = Read(run, tuple(Index(i) for i in d.indices))
        self.body.append(dataclasses.replace(d, expr=Binary("/", read, back)))

    def bound(self, pivot: Read, rests: tuple[Expr, ...], d: Define) -> Read:
        """The maximum of a pivot and of what it does not bound."""
        name = self.named(f"{pivot.tensor}.bound", (pivot, rests))
        indices = tuple(i for i in d.indices if i in free(pivot))
        read = Read(name, tuple(Index(i) for i in indices))
        if all(x.tensor != name for x in self.body):
            self.body.append(Define(name, indices, Call("max", (pivot, *rests)), span=d.span))
        return read

    def named(self, base: str, key: object) -> str:
        """A name for each key, near `base`."""
        if key not in self.made:
            count = sum(x.startswith(base) for x in self.made.values())
            self.made[key] = base + (str(count + 1) if count else "")
        return self.made[key]

    def copied(self, e: Expr, pivot: Read, bound: Read, over: frozenset[str]) -> Expr:
        """With the bound in place of the pivot, in maps along the stream too."""

        def rule(n: Expr) -> Expr | None:
            if n == pivot:
                return bound
            if not isinstance(n, Read) or n.tensor not in self.following.reduced:
                return None
            d = self.defs[n.tensor]
            if not free(n) & over or d.init is not None or self.following.large(d):
                return None
            name = self.named(f"{d.tensor}.bound", (d.tensor, pivot, bound))
            if all(x.tensor != name for x in self.body):
                along = frozenset(d.indices) - free(pivot)
                self.body.append(
                    dataclasses.replace(
                        d, tensor=name, expr=self.copied(d.expr, pivot, bound, along)
                    )
                )
            return dataclasses.replace(n, tensor=name)

        return rewrite(e, rule)


def _beside(
    body: Expr, pivot: Read, over: frozenset[str], following: Following
) -> tuple[Expr, ...]:
    """What stands beside `-pivot` in exponentials, where it does not move along the stream and is known beforehand."""
    out: dict[Expr, None] = {}
    for n in walk(body):
        if isinstance(n, Call) and n.fn == "exp" and pivot in walk(n.args[0]):
            rest = total(polynomial(Binary("+", n.args[0], pivot)))
            known = not any(
                isinstance(r, Read) and r.tensor in following.reduced for r in walk(rest)
            )
            if known and not free(rest) & over:
                out[rest] = None
    return tuple(out)
