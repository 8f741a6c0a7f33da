"""The position of the first query as a part of the program.

S[i,j] = … where j <= i     with_start(c, "int")      S[i,j]   = … where j <= i + start
                            with_start(c, "tensor")   S[b,i,j] = … where j <= i + start[b]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias

from attndsl.callerrors import CallError
from attndsl.cascade.domains import START, apply_start
from attndsl.cascade.nodes import (
    Cascade,
    Define,
    DType,
    Expr,
    Index,
    Param,
    Read,
    TensorDecl,
)
from attndsl.cascade.walk import free, rewrite

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
