"""Running sums that only differences are taken of, begun anew every `WIDTH` positions.

    C[j] = sum[l : l <= j](g[l]);   exp(C[i] - C[j])
    ->   C[j] = sum[l : l <= j, l // W == j // W](g[l]), in kernels by chunks

The log-gates of a hundred thousand positions add up to numbers of which float32 keeps two digits behind the point, and
a gate is the exponential of the difference of two of them. A kernel by chunks takes differences of points of one chunk,
and with the chunk next to it, so sums over a stretch that holds the chunk do; where a stretch begins, that to the next
chunk is put together from two (`across`). The sums of one body differ from what they were by the same number, with
the row itself (`C`, the partner) or without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from attndsl.analysis.linearity import NotLinear
from attndsl.analysis.ranks import Kind, Ranks
from attndsl.analysis.reach import reach
from attndsl.cascade.autodiff import Gradient
from attndsl.cascade.monomials import polynomial
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Unary,
)
from attndsl.cascade.walk import children, free, reads, rename, rewrite, substitute, walk
from attndsl.schedule.forms import positions
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.tile import Plan, Role, TileProgram

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Restart:
    """A sum that restarts: `partner` is the one of the same body that has the row itself."""

    partner: str
    indices: tuple[str, ...]
    row: int
    """The place of the row among the indices."""
    over: str
    body: Expr
    itself: bool


# A multiple of every chunk.
WIDTH = 1024


def restarting(
    forward: Cascade, backward: Cascade | None, declared: Iterable[str]
) -> dict[str, Restart]:
    """The sums that may restart."""
    groups: dict[object, dict[bool, Define]] = {}
    for d in forward.body:
        known = _running(d)
        if known is not None:
            key, itself = known
            groups.setdefault(key, {})[itself] = d
    out: dict[str, Restart] = {}
    for group in groups.values():
        if True not in group or {d.tensor for d in group.values()} & {*declared}:
            continue
        place = {d.tensor: _place(d) for d in group.values()}
        exprs = [
            e
            for c in (forward, backward)
            if c is not None
            for d in c.body
            if d.tensor not in place
            for e in (d.expr, d.where, d.init)
            if e is not None
        ]
        if all(_unmoved(e, place) for e in exprs):
            for itself, d in group.items():
                e = d.expr
                assert isinstance(e, Reduce)
                partner = group[True].tensor
                made = Restart(partner, d.indices, place[d.tensor], e.indices[0], e.body, itself)
                out[d.tensor] = made
    return out


def made_again(g: Gradient, sums: Mapping[str, Restart], ranks: Ranks) -> Gradient | None:
    """A gradient whose backward pass adds these sums up again, one number for each position, instead of reading them.

    None where there are none. A chunk reads what is added up where it would read the sum.
    """
    given = {t.name: t for t in g.forward.inputs}
    again = [
        x
        for x, known in sums.items()
        if x in g.residuals
        and reads(known.body) <= given.keys()
        and not any(isinstance(n, Param) for n in walk(known.body))
        and not any(ranks.kind(i) is Kind.FEATURE for i in known.indices)
    ]
    if not again:
        return None
    made = list[Define]()
    inputs = {t.name: t for t in g.backward.inputs if t.name not in again}
    for x in again:
        needed = sorted(reads(g.forward.define(x).expr))
        inputs |= {n: given[n] for n in needed if n not in inputs}
    # With the ranks of what is read anew, though no gradient may be asked for that goes over them.
    names = Names(replace(g.backward, inputs=tuple(inputs.values())))
    known_ranks = set(names.ranks)
    for x in again:
        d = g.forward.define(x)
        new = names.index(Names(g.forward).root(sums[x].over))
        made.append(replace(d, expr=rename(d.expr, {sums[x].over: new})))
    more = tuple(r for n, r in names.ranks.items() if n not in known_ranks)
    outputs = tuple(o for o in g.forward.outputs if o.name not in again)
    return replace(
        g,
        forward=replace(g.forward, outputs=outputs),
        backward=replace(
            g.backward,
            inputs=tuple(inputs.values()),
            ranks=(*g.backward.ranks, *more),
            body=(*made, *g.backward.body),
        ),
        residuals=tuple(r for r in g.residuals if r not in again),
    )


def tried(plan: Callable[[Mapping[str, Restart]], T], sums: Mapping[str, Restart]) -> T:
    """A plan in which sums restart, if there is one; else one in which they go on."""
    if not sums:
        return plan({})
    try:
        return plan(sums)
    except Refused:
        return plan({})


def chunks_alone(plan: Plan, sums: Mapping[str, Restart]) -> None:
    """Raises: Refused, if kernels that do not go by chunks read these sums."""
    for k in plan.steps:
        if not isinstance(k, TileProgram) or k.of(Role.PAIR) or k.follows:
            continue
        for x in sorted(sums.keys() & {*k.reads}):
            raise Refused("A0405", f"`{x}` begins anew, and `{k.name}` does not go by chunks")


def _running(d: Define) -> tuple[object, bool] | None:
    """What a running sum from the first position on is of, and whether the row is in it."""
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or len(e.indices) != 1:
        return None
    if d.where is not None or d.init is not None or e.where is None:
        return None
    (over,) = e.indices
    rows = sorted((free(e.where) & {*d.indices}) - {over})
    if len(rows) != 1 or rows[0] in free(e.body):
        return None
    try:
        seen = reach(positions(e.where), rows[0], over)
    except NotLinear:
        return None
    if not seen.ascending or seen.row is not None or seen.column is not None or seen.same:
        return None
    body = positions(substitute(e.body, {over: Position("%")}))
    return (body, d.indices, rows[0]), seen.itself


def _place(d: Define) -> int:
    e = d.expr
    assert isinstance(e, Reduce)
    assert e.where is not None
    (row,) = (free(e.where) & {*d.indices}) - {*e.indices}
    return d.indices.index(row)


def _unmoved(e: Expr, place: Mapping[str, int]) -> bool:
    """Whether an expression stays as it is where one number is added to the sums, whatever it is for other indices."""
    if not reads(e) & place.keys():
        return True
    match e:
        case Read() if e.tensor in place:
            return False
        case Binary("+" | "-" | "*") | Unary("-"):
            if polynomial(e) == polynomial(rewrite(e, lambda n: _moved(n, place))):
                return True
    return all(_unmoved(x, place) for x in children(e))


def _moved(n: Expr, place: Mapping[str, int]) -> Expr | None:
    if not isinstance(n, Read) or n.tensor not in place:
        return None
    k = place[n.tensor]
    if not isinstance(n.subs[k], Index):
        return Read("%elsewhere", n.subs)  # a point of its own may lie in another stretch
    return Binary("+", n, Read("%moved", (*n.subs[:k], *n.subs[k + 1 :])))


def begun(c: Cascade, sums: Iterable[str]) -> frozenset[str]:
    """The reductions that the sums are made of where they are planned, such as `C.1` of `C[j] = -C.1[j] * a`.

    Raises: Refused, where something else is made of them too.
    """
    defs = {d.tensor: d for d in c.body}
    own = {x for x in sums if x in defs}
    made = own | {y for x in own for y in reads(defs[x].expr) & defs.keys()}
    for d in c.body:
        if d.tensor not in own and (other := sorted((reads(d.expr) & made) - own)):
            raise Refused("A0405", f"`{other[0]}` begins anew, and `{d.tensor}` goes on", d.span)
    return frozenset(made)


def at_hand(c: Cascade, ranks: Ranks, tensor: str, known: Restart) -> bool:
    """Whether what a restarting sum adds up is one number for each position, which this pass is given."""
    given = {x.name for x in c.inputs}
    features = any(ranks.kind(i) is Kind.FEATURE for i in known.indices)
    return tensor in c.defined and reads(known.body) <= given and not features


def begins(place: Expr) -> Expr:
    """Whether a stretch begins at a position."""
    return Compare("==", Binary("*", Binary("//", place, Const(WIDTH)), Const(WIDTH)), place)
