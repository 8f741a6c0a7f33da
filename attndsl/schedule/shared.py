"""Sums over heads of sums that carry over, heads apart.

    dB[t,n] = sum[h,s : t <= s](C[s,n] * exp(G[h,s] - G[h,t]) * dA[h,s,t])
    ->       dB.apart[h,t,n] = sum[s : t <= s](C[s,n] * exp(G[h,s] - G[h,t]) * dA[h,s,t])
             dB[t,n]         = sum[h](dB.apart[h,t,n])

A kernel that sums over heads visits every pair of positions for each of them; apart, each head carries a state, and
what it makes is most often needed by itself (the gradients of its gate). Gradients of tensors that heads share have
this form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import Cascade, Define, Index, Read, Reduce, Reduction
from attndsl.cascade.walk import free
from attndsl.schedule.forms import is_large

# Whether a sum over one sequence, for rows of another, carries over from chunk to chunk.
Carries = Callable[[Define], bool]


def heads_apart(c: Cascade, ranks: Ranks, carries: Carries) -> Cascade:
    """The cascade with such sums in two steps."""
    body: list[Define] = []
    for d in c.body:
        body += _apart(d, ranks, carries) or [d]
    return dataclasses.replace(c, body=tuple(body))


def _apart(d: Define, ranks: Ranks, carries: Carries) -> list[Define] | None:
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or not is_large(e, ranks):
        return None
    heads = tuple(i for i in e.indices if ranks.kind(i) is Kind.BATCH)
    rest = tuple(i for i in e.indices if i not in heads)
    features = [i for i in d.indices if ranks.kind(i) is Kind.FEATURE]
    if not heads or len(rest) != 1 or len(ranks.sequence(d.indices)) != 1 or not features:
        return None
    asked = conjuncts(e.where)
    within = [c for c in asked if rest[0] in free(c)]
    first = len([i for i in d.indices if ranks.kind(i) is Kind.BATCH])
    kept = (*d.indices[:first], *heads, *d.indices[first:])
    name = f"{d.tensor}.apart"
    one = Define(name, kept, Reduce(e.op, rest, e.body, conjunction(within)), span=d.span)
    if not carries(one):
        return None
    total = Reduce(
        e.op,
        heads,
        Read(name, tuple(Index(i) for i in kept)),
        conjunction(c for c in asked if c not in within),
    )
    return [one, dataclasses.replace(d, expr=total)]
