"""Loads: blocks of memory and gathers, kept inside their axes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from attndsl.analysis.ranks import Kind
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Const,
    DType,
    Expr,
    Extent,
    Index,
    Position,
    Read,
)
from attndsl.cascade.walk import free, walk
from attndsl.schedule import tile as t
from attndsl.schedule.guards import is_statistic
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.tile import Role, Val
from attndsl.schedule.values import SweepStmt, X


def load(kernel: Kernel, e: Read) -> X:
    """An input, or what an earlier kernel left in memory."""
    e = dataclasses.replace(
        e, subs=tuple(_number_of_tile(kernel, kernel.equal.get(s, s)) for s in e.subs)
    )
    plain = tuple(Position(s.name) if isinstance(s, Index) else s for s in e.subs)
    key = ("load", e.tensor, plain)
    if key in kernel.memo:
        return kernel.memo[key]
    decl = kernel.inputs.get(e.tensor)
    ranks = decl.ranks if decl is not None else kernel.defs[e.tensor].indices
    dtype = kernel.types.tensors[e.tensor]
    kernel.read_buffers[e.tensor] = None
    subs: list[Expr] = []
    parts: list[X] = []
    bounds: list[str] = []
    for s, r in zip(e.subs, ranks, strict=True):
        if isinstance(s, (Index, Position)) and lone(kernel, s.name, r):
            x = kernel.position(s.name)
            if kernel.axes[s.name].role in (Role.TILE, Role.STREAM, Role.FULL):
                bounds.append(s.name)
        else:
            x = kernel.eval(Position(s.name) if isinstance(s, Index) else s)
            x = clamp(kernel, x, r, s)
        subs.append(x.expr)
        parts.append(x)
    dims = frozenset().union(*(p.dims for p in parts)) if parts else frozenset()
    on = frozenset().union(*(p.on for p in parts)) if parts else frozenset()
    if len(dims) > 2:
        raise Refused("A0404", f"`{e.tensor}` is read at a point of three ranks at once", e.span)
    name = kernel.names.fresh(e.tensor.lower() if len(e.tensor) == 1 else e.tensor)
    stmt = t.Load(
        name, kernel.order(dims), dtype, e.tensor, tuple(subs), tuple(bounds), span=e.span
    )
    kernel.place(on).append(stmt)
    kernel.memo[key] = X(Val(name), dims, on, dtype)
    return kernel.memo[key]


def _number_of_tile(kernel: Kernel, s: Expr) -> Expr:
    """The number of a block of points where a tile is one block: a number for all of its points."""
    match s:
        case Binary("//", Position(axis), Const(width)) if (
            axis in kernel.axes and kernel.axes[axis].block == width
        ):
            return Binary("//", t.Origin(axis), Const(width))
        case _:
            return s


def lone(kernel: Kernel, axis: str, rank: str) -> bool:
    """Whether a lone axis walks the rank of the memory axis it stands on, so that no clamp is needed."""
    return kernel.ranks.of.get(
        kernel.axes[axis].rank, kernel.axes[axis].rank
    ) == kernel.ranks.of.get(rank, rank)


def clamp(kernel: Kernel, x: X, rank: str, s: Expr) -> X:
    """A computed subscript, kept inside the axis: points outside the domain are loaded too, and not used."""
    if all(kernel.kind(i) is Kind.BATCH for i in free(s)) and not any(
        isinstance(n, Read) for n in walk(s)
    ):
        return kernel.bind(x, "at")
    top = Binary("-", Extent(kernel.ranks.of.get(rank, rank)), Const(1))
    low = Call("max", (x.expr, Const(0)))
    y = X(Call("min", (low, top)), x.dims, x.on, DType.INT)
    return kernel.bind(y, "at")


def is_load(kernel: Kernel, v: str) -> bool:
    """Whether a value is one as it stands in memory: 0 past the end of its axes."""
    places: list[Sequence[SweepStmt]] = [kernel.prologue, kernel.sweep]
    places += [*kernel.loop_body.values(), *(body for _, body in kernel.points)]
    return any(isinstance(s, t.Load) and s.name == v for body in places for s in body)


def bare_like(kernel: Kernel, factors: list[Expr]) -> str:
    """As `dot_like`, of the tensors that are factors themselves: `1 - g[t,e]` of a gate of 32 bits makes keys of 16."""
    bare: list[Expr] = [f for f in factors if isinstance(f, Read)]
    return dot_like(kernel, bare)


def dot_like(kernel: Kernel, factors: list[Expr]) -> str:
    """Whose storage type the operands of a product take: the first tensor of the factors with a feature rank."""
    names: list[str] = []
    for f in factors:
        for n in walk(f):
            if isinstance(n, Read) and n.tensor in kernel.inputs:
                decl = kernel.inputs[n.tensor]
                if decl.dtype is DType.FLOAT and len(kernel.dims_of(n)) == 2:
                    names.append(n.tensor)
    plain = [n for n in names if not is_statistic(kernel, n)]
    return (plain or names or [kernel.like])[0]
