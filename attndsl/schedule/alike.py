"""Operands that sums without rounding share, rounded once, alike for all of them.

    dA[i,j] = sum[f](dU[i,f] * (V[j,f] - U[j,f] * exp(g[j])))      read by a sum over rows and by one over columns
    ->       dU.map[i,f] = dU[i,f];   V.map[j,f] = V[j,f] - U[j,f] * exp(g[j])              kept in the inputs' type
             dA[i,j] = sum[f](dU.map[i,f] * V.map[j,f])

Sums whose differences are summed again (`exact`) take their products from operands in two parts, so that a pair of
positions is the same number in both of them, and leaves the difference. What is rounded before either sum reads it is
no difference between them: each pair changes by a rounding, as in any product, and still leaves. So a pair's product
of features takes its sides from memory, in 16 bits: one part each instead of two, one tile where there were several.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import Cascade, Define, DType, Expr, Index, Read, Reduce, Reduction
from attndsl.cascade.walk import free, reads, rename, walk
from attndsl.schedule.forms import factors, is_large, product_of


@dataclass(slots=True)
class Alike:
    """Rewrites a cascade; `kept` are the new tensors, each with the input whose storage type it has."""

    cascade: Cascade
    ranks: Ranks
    exact: frozenset[str]
    kept: dict[str, str] = field(default_factory=dict)
    made: dict[Expr, str] = field(default_factory=dict)

    def run(self) -> Cascade:
        shared = self.shared()
        names = Names(self.cascade)
        body: list[Define] = []
        for d in self.cascade.body:
            e = d.expr
            if d.tensor in shared and isinstance(e, Reduce):
                parts, maps = self.rounded(e, names)
                body += maps
                d = dataclasses.replace(d, expr=dataclasses.replace(e, body=product_of(parts)))
            body.append(d)
        return dataclasses.replace(self.cascade, body=tuple(body))

    def shared(self) -> set[str]:
        """The products of features of two positions that more than one exact sum is made of."""
        defs = {d.tensor: d for d in self.cascade.body}
        users: dict[str, set[str]] = {}

        def visit(user: str, e: Expr) -> None:
            for name in reads(e) & defs.keys():
                d = defs[name]
                if is_large(d.expr, self.ranks) or len(self.ranks.sequence(d.indices)) != 2:
                    continue
                if user not in users.setdefault(name, set()):
                    users[name].add(user)
                    visit(user, d.expr)

        for x in sorted(self.exact & defs.keys()):
            visit(x, defs[x].expr)
        return {x for x, by in users.items() if len(by) > 1 and self.contracts(defs[x].expr)}

    def contracts(self, e: Expr) -> bool:
        return (
            isinstance(e, Reduce)
            and e.op is Reduction.SUM
            and e.where is None
            and [self.ranks.kind(i) for i in e.indices] == [Kind.FEATURE]
        )

    def rounded(self, e: Reduce, names: Names) -> tuple[list[Expr], list[Define]]:
        """The factors of a product of features with either side from memory, and what is new there."""
        (over,) = e.indices
        every = factors(e.body)
        sides: dict[str, list[Expr]] = {}
        for x in every:
            at = self.ranks.sequence(free(x))
            if over in free(x) and len(at) == 1:
                sides.setdefault(at[0], []).append(x)
        out, made = list(every), list[Define]()
        for side in sides.values():
            value = product_of(side)
            like = self.like(value, e.body)
            if self.stored(value) or like is None:
                continue
            read, new = self.keep(value, like, names)
            made += new
            out = [x for x in out if not any(x is y for y in side)] + [read]
        return out, made

    def stored(self, e: Expr) -> bool:
        """Whether a side is read from an input as it is."""
        return isinstance(e, Read) and e.tensor in {t.name for t in self.cascade.inputs}

    def like(self, value: Expr, body: Expr) -> str | None:
        """The input whose type a side is rounded to: one of the same ranks, which the product reads.

        None where the side is no function of one point each of these ranks.
        """
        if any(isinstance(x, Reduce) for x in walk(value)):
            return None
        if not all(
            isinstance(s, Index) for x in walk(value) if isinstance(x, Read) for s in x.subs
        ):
            return None
        over = self.roots(free(value))
        inputs = {t.name: t for t in self.cascade.inputs if t.dtype is DType.FLOAT}
        for x in walk(body):
            if isinstance(x, Read) and x.tensor in inputs and self.roots(free(x)) == over:
                return x.tensor
        return None

    def roots(self, indices: set[str] | frozenset[str]) -> list[str]:
        return sorted(self.ranks.of.get(i, i) for i in indices)

    def keep(self, e: Expr, like: str, names: Names) -> tuple[Read, list[Define]]:
        """A read of a side's tensor, and its definition the first time."""
        rank = {self.ranks.of.get(i, i): i for i in free(e)}
        shape = next(t for t in self.cascade.inputs if t.name == like).ranks
        roots = tuple(self.ranks.of.get(r, r) for r in shape)
        whole = rename(e, {i: r for r, i in rank.items()})
        new: list[Define] = []
        if whole not in self.made:
            made_of = (x.tensor for x in walk(e) if isinstance(x, Read) and free(x) == free(e))
            self.made[whole] = names.tensor(f"{next(made_of, like)}.map")
            self.kept[self.made[whole]] = like
            new = [Define(self.made[whole], roots, whole)]
        return Read(self.made[whole], tuple(Index(rank[r]) for r in roots)), new
