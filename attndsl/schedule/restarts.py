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
from typing import TYPE_CHECKING, TypeVar

from attndsl.analysis.linearity import NotLinear
from attndsl.analysis.reach import reach
from attndsl.cascade.monomials import polynomial
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Logic,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Unary,
)
from attndsl.cascade.walk import children, free, reads, rewrite, substitute
from attndsl.schedule.forms import positions
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.tile import Block, Origin, Plan, Role, TileProgram

if TYPE_CHECKING:
    from attndsl.schedule.chunked import ChunkBuilder

T = TypeVar("T")

# A multiple of every chunk.
WIDTH = 1024


def restarting(
    forward: Cascade, backward: Cascade | None, declared: Iterable[str]
) -> dict[str, str]:
    """The sums that may restart, each with the one of the same body that has the row itself."""
    groups: dict[object, dict[bool, Define]] = {}
    for d in forward.body:
        known = _running(d)
        if known is not None:
            key, itself = known
            groups.setdefault(key, {})[itself] = d
    out: dict[str, str] = {}
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
            out |= dict.fromkeys(place, group[True].tensor)
    return out


def tried(plan: Callable[[Mapping[str, str]], T], sums: Mapping[str, str]) -> T:
    """A plan in which sums restart, if there is one; else one in which they go on."""
    if not sums:
        return plan({})
    try:
        return plan(sums)
    except Refused:
        return plan({})


def chunks_alone(plan: Plan, sums: Mapping[str, str]) -> None:
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


def begins(place: Expr) -> Expr:
    """Whether a stretch begins at a position."""
    return Compare("==", Binary("*", Binary("//", place, Const(WIDTH)), Const(WIDTH)), place)


def across(b: ChunkBuilder, e: Read) -> Expr | None:
    """A sum at the anchor beside a chunk, as if it were of the chunk's stretch; None elsewhere.

    before it:  C[m] - partner[m], where the chunk begins a stretch
    after it:   C[m] + partner[m - 1], where the next chunk begins one
    """
    anchor = b.before
    at = [k for k, s in enumerate(e.subs) if s == anchor.inside]
    if not at:
        return None
    (k,) = at
    first: Expr = Origin(b.row)

    def partner(place: Expr) -> Expr:
        subs = (*e.subs[:k], b.anchor(place).inside, *e.subs[k + 1 :])
        return Read(b.restarted[e.tensor], subs, span=e.span)

    if b.ascending:
        other, begin = partner(Binary("-", first, Const(1))), first
        reached = Compare("==", first, b.anchor(first).inside)
        moved = Const(0.0) if b.restarted[e.tensor] == e.tensor else Binary("-", e, other)
    else:
        begin = Binary("+", first, Block(b.row))
        other = partner(Binary("-", begin, Const(1)))
        reached = Compare("==", anchor.place, anchor.inside)
        moved = Binary("+", e, other)
    return Select(Logic("and", (begins(begin), reached)), moved, e)
