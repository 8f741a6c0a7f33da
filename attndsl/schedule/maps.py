"""Maps of features that sums by chunks multiply, computed once and kept in memory.

    A[i,j] = sum[e](phi(Q[i,e]) * phi(K[j,e]));   O[i,f] = sum[j : j <= i](A[i,j] * V[j,f])
    ->       Q.map[i,e] = phi(Q[i,e]);   K.map[j,e] = phi(K[j,e]);   A[i,j] = sum[e](Q.map[i,e] * K.map[j,e])

A kernel by chunks goes through its keys once for each tile of values, and each product takes its operands from shared
memory: a map on the way there costs its function once for each tile, for each group of warps that multiplies, and the
registers between. Read from memory it costs what the input would have. Only functions that take more than arithmetic
are kept (`elu`, `exp`). What needs every pair of positions meets each row in many tiles, but there products hide it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import Call, Cascade, Define, DType, Expr, Index, Read, Reduce
from attndsl.cascade.walk import children, free, reads, rename, walk, with_children
from attndsl.schedule.forms import is_large

CHEAP = frozenset({"abs", "ceil", "floor", "max", "min", "relu", "round", "sign"})


@dataclass(slots=True)
class Maps:
    """Rewrites a cascade; `kept` are the new tensors, each with the input whose storage type it has."""

    cascade: Cascade
    ranks: Ranks
    carries: Callable[[Define], bool]
    kept: dict[str, str] = field(default_factory=dict)
    made: dict[Expr, Define] = field(default_factory=dict)

    def run(self) -> Cascade:
        inside = self.multiplied()
        body = [
            dataclasses.replace(d, expr=self.apart(d.expr)) if d.tensor in inside else d
            for d in self.cascade.body
        ]
        return dataclasses.replace(self.cascade, body=(*self.made.values(), *body))

    def multiplied(self) -> set[str]:
        """The sums that carry over, and what they are made of where they are taken."""
        defs = {d.tensor: d for d in self.cascade.body}
        out: set[str] = set()

        def visit(d: Define) -> None:
            out.add(d.tensor)
            for name in reads(d.expr) & defs.keys() - out:
                if not is_large(defs[name].expr, self.ranks) and self.over_pairs(defs[name]):
                    visit(defs[name])

        for d in defs.values():
            rows = self.ranks.sequence(d.indices)
            if self.carries(d) and isinstance(d.expr, Reduce) and rows[0] in free(d.expr.body):
                visit(d)
        return out

    def over_pairs(self, d: Define) -> bool:
        return len(self.ranks.sequence(d.indices)) > 1

    def apart(self, e: Expr) -> Expr:
        """With maps as reads of what is kept."""
        if self.is_map(e):
            return self.keep(e)
        below = children(e)
        new = tuple(self.apart(x) for x in below)
        same = all(a is b for a, b in zip(below, new, strict=True))
        return e if same else with_children(e, new)

    def is_map(self, e: Expr) -> bool:
        """Whether it is a costly function of inputs, of one sequence and of features that all of them have."""
        every = list(walk(e))
        if not any(isinstance(x, Call) and x.fn not in CHEAP for x in every):
            return False
        inputs = {t.name: t for t in self.cascade.inputs}
        for x in every:
            if isinstance(x, Reduce):
                return False
            if isinstance(x, Read) and (
                x.tensor not in inputs or not all(isinstance(s, Index) for s in x.subs)
            ):
                return False
        over = free(e)
        roots = [self.ranks.of.get(i, i) for i in over]
        kinds = [self.ranks.kind(i) for i in over]
        first = inputs.get(self.like(e))
        return (
            first is not None
            and len(set(roots)) == len(roots)
            and kinds.count(Kind.SEQUENCE) == 1
            and Kind.FEATURE in kinds
            and first.dtype is DType.FLOAT
        )

    def like(self, e: Expr) -> str:
        """The input that has every index of a map; "" if none has."""
        over = free(e)
        return next((x.tensor for x in walk(e) if isinstance(x, Read) and free(x) == over), "")

    def keep(self, e: Expr) -> Expr:
        """A read of the map's tensor, which is defined the first time."""
        first = next(x for x in walk(e) if isinstance(x, Read) and free(x) == free(e))
        own = [s.name for s in first.subs if isinstance(s, Index)]
        roots = tuple(self.ranks.of.get(i, i) for i in own)
        whole = rename(e, dict(zip(own, roots, strict=True)))
        if whole not in self.made:
            names = Names(
                dataclasses.replace(self.cascade, body=(*self.made.values(), *self.cascade.body))
            )
            name = names.tensor(f"{first.tensor}.map")
            self.made[whole] = Define(name, roots, whole)
            self.kept[name] = first.tensor
        return Read(self.made[whole].tensor, first.subs)
