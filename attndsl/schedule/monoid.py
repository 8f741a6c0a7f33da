"""The state of a one-sweep program as data, and the three kernels that make, combine and finish it.

    monoid(cascade).carried    M: max from -inf;  Z: sum from 0, corrected by exp(-1 * M);  O.1: the same

A part of the keys is swept into a state; states of disjoint parts combine in any order and any grouping, since a sum
brought to the pivots of both is what one sweep would have made; the epilogue makes the outputs of the state of the
whole. The same kernels, cut from the same program, serve split keys (`split`).

Keys know their place: `keys.first`, a parameter, is the position of the first key of a part.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from attndsl.analysis.ranks import declared_rank
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Param,
    Position,
    Read,
    Reduction,
    ScalarParam,
)
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import children, free, walk, with_children
from attndsl.schedule import tile as t
from attndsl.schedule.outcomes import Needs, Refused
from attndsl.schedule.split import (
    SPLIT,
    Cut,
    cut_of,
    merge_builder,
    merge_kernel,
    outputs_of,
    slices_of,
)
from attndsl.schedule.tile import Buffer, BufferKind, Plan
from attndsl.schedule.values import Pivot

FIRST = "keys.first"


@dataclass(frozen=True, slots=True)
class Carried:
    """One value of the state: how parts combine, what no part at all has, and what it is corrected by.

    `follows` holds `(tensor, k, factor)`: a part is multiplied by `exp(k * (new - old))` of the tensor, or by
    `(new / old)**k` of a factor, before it is added.
    """

    name: str
    op: Reduction
    identity: float | bool
    ranks: tuple[str, ...]
    follows: tuple[tuple[str, str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Monoid:
    """`partial` makes the states of one part, `merge` one of several, `finish` the outputs.

    `streamed` names the indices along which parts are cut.
    """

    carried: tuple[Carried, ...]
    partial: Plan
    merge: Plan
    finish: Plan
    streamed: frozenset[str]


def monoid(cascade: Cascade) -> Monoid:
    """The monoid of a program, `start` applied. Outputs are float32 or wider.

    Raises: Refused, with the reason, where there is none: several sweeps, or something that a part cannot know.
    """
    cut = cut_of(cascade)
    if cut is None:
        raise Refused("A0511", "it does not walk over one sequence for the rows of another")
    cut = cut_of(placed(cascade, cut))
    assert cut is not None
    try:
        b, parts, first = slices_of(cut, cut.plain)
    except Needs as need:
        raise Refused("A0511", f"it takes more than one sweep: {need.why}") from None
    into = {key: f"{name}.merged" for key, name in parts.items()}
    merged = merge_kernel(merge_builder(cut, cut.plain), b, cut.plain, "merge", parts, (), into)
    done = merge_kernel(merge_builder(cut, cut.plain), b, cut.plain, "finish", parts, cut.outputs)
    shapes = {key: (*cut.grid, *(b.axes[a].rank for a in s.dims)) for key, s in b.states.items()}
    inputs = tuple(Buffer(i.name, i.ranks, BufferKind.INPUT, i.dtype) for i in cut.cascade.inputs)
    out = tuple(Buffer(parts[k], (SPLIT, *shape), BufferKind.OUTPUT) for k, shape in shapes.items())
    given = tuple(dataclasses.replace(x, kind=BufferKind.INPUT) for x in out)
    kept = tuple(Buffer(into[k], shape, BufferKind.OUTPUT) for k, shape in shapes.items())
    # A pivot may be made of more than the keys: max(M, sink).
    mixed, ending = (tuple(x for x in inputs if x.name in k.reads) for k in (merged, done))
    params = tuple((q.name, q.dtype) for q in cut.cascade.params)
    name = cut.cascade.name
    return Monoid(
        tuple(
            Carried(
                parts[k].removesuffix(".part"),
                s.reduce.op,
                s.reduce.op.identity,
                shapes[k],
                tuple(_follows(p) for p in s.pivots),
            )
            for k, s in b.states.items()
        ),
        Plan(f"{name}_partial", (*inputs, *out), (_renamed(first, f"{name}_partial"),), params),
        Plan(
            f"{name}_merge", (*mixed, *given, *kept), (_renamed(merged, f"{name}_merge"),), params
        ),
        Plan(
            f"{name}_finish",
            (*ending, *given, *outputs_of(cut, (), {})),
            (_renamed(done, f"{name}_finish"),),
            params,
        ),
        frozenset(r for r, root in declared_rank(cascade).items() if root == cut.stream),
    )


def _renamed(p: t.TileProgram, name: str) -> t.TileProgram:
    return dataclasses.replace(p, name=name)


def _follows(p: Pivot) -> tuple[str, str, bool]:
    return p.read.tensor, print_expr(p.k), p.factor


def placed(cascade: Cascade, cut: Cut) -> Cascade:
    """The program of a part of the keys, whose first has the position `keys.first`.

    rewrite:  S[i,j] = … where j <= i   ->   S[i,j] = … where j + keys.first <= i
    requires: nothing reads the number of keys, or a key by another's position: a part does not know them

    Raises: Refused, where something does.
    """
    of = declared_rank(cascade)
    inputs = {x.name: x for x in cascade.inputs}
    body = {d.tensor: d.indices for d in cascade.body}

    def streams(i: str) -> bool:
        return of.get(i, i) == cut.stream

    def along(e: Read) -> list[Expr]:
        """The subscripts that stand on an axis of keys."""
        axes = inputs[e.tensor].ranks if e.tensor in inputs else body[e.tensor]
        return [s for s, r in zip(e.subs, axes, strict=True) if streams(r)]

    def place(e: Expr) -> Expr:
        match e:
            case Extent(rank) if streams(rank):
                raise Refused("A0511", f"it uses |{rank}|, which a part of the keys does not know")
            case Position(name) if streams(name):
                return Binary("+", e, Param(FIRST))
            case Read():
                local = along(e)
                for s in local:
                    if not isinstance(s, Index | Position) or not streams(s.name):
                        why = f"`{e.tensor}` is read at `{print_expr(s)}`, which may lie in another part"
                        raise Refused("A0511", why, e.span)
                subs = tuple(s if s in local else place(s) for s in e.subs)
                return dataclasses.replace(e, subs=subs)
        old = children(e)
        new = tuple(place(c) for c in old)
        return e if new == old else with_children(e, new)

    if any(x == "first" for x in (*inputs, *(p.name for p in cascade.params))):
        raise Refused("A0511", "it has an argument `first` of its own")
    if any(streams(r.name) and r.extent is not None for r in cascade.ranks):
        raise Refused("A0511", f"`{cut.stream}` is cut in blocks by the program itself")
    for x in cascade.inputs:
        for d in x.dims:
            if not isinstance(d, Index) and any(
                streams(i) for n in walk(d) for i in (*free(n), *_extents(n))
            ):
                why = f"the shape of `{x.name}` depends on `{cut.stream}`"
                raise Refused("A0511", why)
    return dataclasses.replace(
        cascade,
        body=tuple(
            Define(
                d.tensor,
                d.indices,
                place(d.expr),
                None if d.where is None else place(d.where),
                d.init,
                span=d.span,
            )
            for d in cascade.body
        ),
        params=(*cascade.params, ScalarParam(FIRST, DType.INT, 0)),
        assumes=(),
    )


def _extents(e: Expr) -> tuple[str, ...]:
    return (e.rank,) if isinstance(e, Extent) else ()
