"""The position of the first query as a part of the program.

S[i,j] = … where j <= i     with_start(c, "int")      S[i,j]   = … where j <= i + start
                            with_start(c, "tensor")   S[b,i,j] = … where j <= i + start[b]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias

from attndsl.callerrors import CallError
from attndsl.cascade.alignments import shifted_indices
from attndsl.cascade.nodes import (
    Cascade,
    Define,
    DType,
    Expr,
    Index,
    Param,
    Position,
    Read,
    Reduce,
    TensorDecl,
)
from attndsl.cascade.starts import START, apply_start
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import free, rewrite, walk

StartKind: TypeAlias = Literal["none", "int", "tensor"]


def with_start(cascade: Cascade, kind: StartKind) -> Cascade:
    """The program that takes `start` as a number, or as an int input `start[b]`, or not at all.

    Raises: CallError A0505 for a tensor where the program has no batch index to go with it.
    """
    if kind == "none":
        return cascade
    shifted = apply_start(cascade)
    if kind == "int":
        return shifted
    if not cascade.batch:
        raise CallError(
            "A0505",
            f"{cascade.name}: `start` is a tensor, and the program has no batch index",
            help="pass a number",
        )
    b = cascade.batch[0]
    body: list[Define] = []
    carrying: dict[str, bool] = {}  # body tensors that got the batch index
    for d in shifted.body:
        parts = [_per_batch(e, b, carrying) for e in (d.expr, d.where, d.init)]
        expr, where, init = parts
        assert expr is not None
        indices = d.indices
        if b not in indices and any(b in free(e) for e in parts if e is not None):
            indices = (b, *indices)
            carrying[d.tensor] = True
        body.append(Define(d.tensor, indices, expr, where, init, span=d.span))
    for o in cascade.outputs:
        if o.name in carrying:
            raise CallError(
                "A0505",
                f"{cascade.name}: `start` is a tensor over `{b}`, and output `{o.name}` lacks `{b}`",
                help=f"pass a number, or give `{o.name}` the index `{b}`",
            )
    return dataclasses.replace(
        shifted,
        inputs=(*shifted.inputs, TensorDecl(START, (Index(b),), (b,), DType.INT)),
        params=tuple(p for p in shifted.params if p.name != START),
        body=tuple(body),
        assumes=cascade.assumes,
    )


def _per_batch(e: Expr | None, b: str, carrying: Mapping[str, bool]) -> Expr | None:
    def rule(n: Expr) -> Expr | None:
        match n:
            case Param(name="start"):
                return Read(START, (Index(b),), span=n.span)
            case Read() if n.tensor in carrying:
                return dataclasses.replace(n, subs=(Index(b), *n.subs))
            case _:
                return None

    return None if e is None else rewrite(e, rule)


def shifted_scan(cascade: Cascade) -> str | None:
    """A scan or recurrence that runs over a shifted index, `H[t,e]` or `C[i]` of `sum[l : l <= i]`.

    Its first point would have a past that the call does not give.
    """
    shifted = {i for i, _ in shifted_indices(cascade)}
    ranks = {r.name: r.iterates for r in cascade.ranks}
    running: dict[str, set[int]] = {}  # axes over which a tensor runs, by tensor
    for d in cascade.body:
        time = time_axis(d)
        over = {time[0]} if time is not None else set()
        for n in walk(d.expr):
            if isinstance(n, Reduce) and n.where is not None:
                bound = {ranks.get(i) or i for i in n.indices}
                over |= {
                    i for i in d.indices if (ranks.get(i) or i) in bound and i in free(n.where)
                }
        running[d.tensor] = {d.indices.index(i) for i in over}
        if over & shifted:
            return d.tensor
        for e in (d.expr, d.where, d.init):
            for n in walk(e) if e is not None else ():
                own = running.get(n.tensor, set()) if isinstance(n, Read) else set()
                subs = [n.subs[k] for k in own] if isinstance(n, Read) else []
                if any(isinstance(x, Index | Position) and x.name in shifted for x in subs):
                    assert isinstance(n, Read)
                    return n.tensor
    return None
