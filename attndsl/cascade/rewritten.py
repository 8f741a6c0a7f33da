"""A program in the form that gradients and schedules start from: the same mathematics, without what hides it.

Recurrences become sums where they can be, ranks in blocks are put together, values that cancel are gone, squared
distances are products where that keeps the digits that count, and what is no number outside a domain is one. The dense
reference evaluates the program as it was written.
"""

from __future__ import annotations

import dataclasses

from attndsl.cascade.between import apart
from attndsl.cascade.blocks import alive, merged_blocks
from attndsl.cascade.cumulated import products_as_sums
from attndsl.cascade.distances import distances_as_products
from attndsl.cascade.guarded import within_domains
from attndsl.cascade.joined import joined
from attndsl.cascade.names import Names, closed, expressions, mentioned
from attndsl.cascade.nodes import Cascade
from attndsl.cascade.telescope import telescoped
from attndsl.cascade.unroll import unrolled


def rewritten(c: Cascade) -> Cascade:
    """The program with recurrences written as sums, as far as they can be, its blocks joined, distances as products."""
    return distances_as_products(unrolled(_in_one(within_domains(c))))


def _in_one(c: Cascade) -> Cascade:
    """One reduction in place of two nested ones, or of a recurrence; as it is, where a recurrence would be left.

    Sums between two positions are differences of running sums in either case, and products exponentials of sums.
    """
    c = apart(products_as_sums(c))
    if all(r.extent is None for r in c.ranks) and all(d.init is None for d in c.body):
        return c
    names = Names(c)
    body = telescoped(c, names)
    whole = joined(body, names)
    made = alive(merged_blocks(whole, names))
    if made == c:
        return c
    if body is not c and any(d.init is not None for d in made.body):
        return c
    found = {i for e in expressions(made.body) for i in mentioned(e)}
    found |= {i for d in made.body for i in d.indices} | {
        i for o in made.outputs for i in o.indices
    }
    found |= {r for t in made.inputs for r in t.ranks}
    found |= {i for t in made.inputs for d in t.dims for i in mentioned(d)}
    found = closed(found, names)
    ranks = tuple(r for n, r in names.ranks.items() if n in found)
    return dataclasses.replace(made, ranks=ranks)
