"""Gradients of gathered reads (`table[h, i - j + …]`, `table[h, bucket[…]]`): sums into places that data decides.

    dtable[h,m] = sum[b,i,j : sub(i,j) == m](x)

One kernel walks (i, j) and adds each term to its place in a 64-bit fixed-point buffer: integer addition does not depend
on the order, so the result is the same at every repeat. The scale comes from the largest term, which a kernel by rows
has found before (`amax`), so nothing overflows and 2**-40 of the largest term is the resolution or better.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Reduce,
    Reduction,
)
from attndsl.cascade.walk import free
from attndsl.schedule.forms import factors, in_order, is_scatter, product_of, scatter_target
from attndsl.schedule.outcomes import Refused


@dataclass(frozen=True, slots=True)
class Scattered:
    """One scattered gradient: its accumulator, its scale, and the row tensors that bound its terms."""

    fixed: str
    scale: str
    amax: str
    row: str
    column: str | None
    needs: tuple[str, ...]


def split_scatters(
    c: Cascade, ranks: Ranks, order: tuple[str, ...]
) -> tuple[Cascade, dict[str, Scattered]]:
    """Add, for every scattered sum, the definition of its largest term by row."""
    body: list[Define] = []
    out: dict[str, Scattered] = {}
    for d in c.body:
        e = d.expr
        if isinstance(e, Reduce) and is_scatter(e, ranks):
            extra, s = _bound(d, e, ranks, order)
            body.append(extra)
            out[d.tensor] = s
        body.append(d)
    return dataclasses.replace(c, body=tuple(body)), out


def _bound(d: Define, e: Reduce, ranks: Ranks, order: tuple[str, ...]) -> tuple[Define, Scattered]:
    """The largest term of each row, from the largest of its factors.

    rewrite:  dtable[m] = sum[i,j : sub(i,j) == m](x[i,j] * u[j])
              ->  dtable.amax[i] = max[j](max(|x[i,j]|, 0)) * max[j](|u[j]|)
    requires: one or two sequence ranks are summed; an entry of the table is a number, or a vector of features
    """
    found = scatter_target(e, ranks)
    assert found is not None
    places, rest = found
    targets = {target for _, target in places}
    entry = [i for i in d.indices if i not in targets and ranks.kind(i) is not Kind.BATCH]
    what = ", ".join(f"`{i}`" for i in entry)
    if any(ranks.kind(i) is not Kind.FEATURE for i in entry):
        where = ", ".join(f"`{x}`" for x in sorted(targets)) + f", {what}"
        raise Refused("A0404", f"`{d.tensor}` is a sum for every point of {where}", d.span)
    if len(entry) > 1:
        raise Refused("A0408", f"the gradient of a table with the features {what}", d.span)
    seq = in_order(ranks.sequence(e.indices), ranks, order)
    if len(seq) > 2:
        what = ", ".join(f"`{s}`" for s in seq)
        raise Refused("A0403", f"`{d.tensor}` adds up over {what}: kernels walk two ranks", d.span)
    row, column = seq[0], (seq[1] if len(seq) > 1 else None)
    batch = [i for i in (*e.indices, *d.indices) if ranks.kind(i) is Kind.BATCH]
    features = tuple(
        i
        for i in (*d.indices, *e.indices)
        if ranks.kind(i) is Kind.FEATURE and i in free(e.body) and i not in targets
    )
    fixed = [f for f in factors(e.body) if not free(f) & set(features)]
    moving = [f for f in factors(e.body) if free(f) & set(features)]
    size: Expr = Call("abs", (product_of(fixed),)) if fixed else Const(1.0)
    if column is not None:
        size = Reduce(Reduction.MAX, (column,), Call("max", (size, Const(0.0))), rest)
    several = column is not None and any(column in free(f) for f in moving)
    if several:  # of a row without terms both are -inf, and their product would be inf
        size = Call("max", (size, Const(0.0)))
    for f in moving:
        names = tuple(i for i in features if i in free(f))
        over: Expr = Reduce(Reduction.MAX, names, Call("abs", (f,)))
        if column is not None and column in free(f):
            over = Call("max", (Reduce(Reduction.MAX, (column,), over), Const(0.0)))
        size = Binary("*", size, over)
    kept = tuple(dict.fromkeys([*batch, row]))
    name = f"{d.tensor}.amax"
    s = Scattered(f"{d.tensor}.fixed", f"{d.tensor}.scale", name, row, column, (name,))
    return Define(name, kept, size, span=d.span), s
