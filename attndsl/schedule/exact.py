"""Sums whose differences are summed again: they are taken without rounding what goes into their products.

    D[j]  = sum[e](K[j,e] * dK[j,e]) - sum[e](Q[j,e] * dQ[j,e])
    dg[j] = sum[m : j <= m](D[m])

A pair of positions on one side of `j` is in both of the sums of `D`, and leaves `dg`: what stays are the pairs that `j`
lies between. Rounded to 16 bits, in `dK` otherwise than in `dQ`, no pair leaves, and the rests of all of them drown the
gradient of a gate that forgets fast. So these two are summed from operands in two parts, the rounded value and what the
rounding took.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from attndsl.analysis.ranks import Ranks
from attndsl.cascade.nodes import Cascade, Define, Expr, Index, Read, Reduce, Reduction
from attndsl.cascade.walk import free, reads, rewrite
from attndsl.schedule import tile as t
from attndsl.schedule.forms import is_large

# Whether a sum over one sequence, for rows of another, carries over from chunk to chunk.
Carries = Callable[[Define], bool]


def exact_sums(c: Cascade, ranks: Ranks, carries: Carries) -> frozenset[str]:
    """The sums that running sums add up."""
    defs = {d.tensor: d for d in c.body}
    out: set[str] = set()

    def visit(e: Expr) -> None:
        for name in reads(e) & defs.keys():
            d = defs[name]
            if not is_large(d.expr, ranks):
                visit(d.expr)
            elif carries(d):
                out.add(name)

    for d in c.body:
        if _runs(d, ranks):
            visit(d.expr)
    return frozenset(out)


def _runs(d: Define, ranks: Ranks) -> bool:
    """Whether a definition is a running sum: its terms know nothing of the row."""
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or len(e.indices) != 1:
        return False
    rows = ranks.sequence(d.indices)
    return len(rows) == 1 and bool(ranks.sequence(e.indices)) and rows[0] not in free(e.body)


def kept_apart(c: Cascade, exact: frozenset[str]) -> tuple[Cascade, frozenset[str]]:
    """With exact sums that are outputs, of 16 bits, as copies of what is read elsewhere.

    rewrite:  dQ[i,e] = sum[j](x), D[i] = dQ[i,e] * Q[i,e]
              ->  dQ.whole[i,e] = sum[j](x), dQ[i,e] = dQ.whole[i,e], D[i] = dQ.whole[i,e] * Q[i,e]
    """
    names = {o.name: f"{o.name}.whole" for o in c.outputs if o.name in exact}

    def rule(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor in names:
            return dataclasses.replace(e, tensor=names[e.tensor])
        return None

    body: list[Define] = []
    for d in c.body:
        d = dataclasses.replace(d, expr=rewrite(d.expr, rule))
        if d.tensor in names:
            whole = Read(names[d.tensor], tuple(map(Index, d.indices)))
            body.append(dataclasses.replace(d, tensor=names[d.tensor]))
            d = dataclasses.replace(d, expr=whole)
        body.append(d)
    return dataclasses.replace(c, body=tuple(body)), frozenset(names.get(x, x) for x in exact)


def exactly(program: t.TileProgram) -> t.TileProgram:
    """A kernel by chunks with the operands of its products in two parts."""
    assert program.sweep is not None

    def rule(s: t.Stmt) -> t.Stmt:
        return dataclasses.replace(s, exact=True) if isinstance(s, t.Dot | t.AccDot) else s

    ranges = tuple(
        dataclasses.replace(r, body=tuple(map(rule, r.body))) for r in program.sweep.ranges
    )
    return dataclasses.replace(program, sweep=dataclasses.replace(program.sweep, ranges=ranges))
