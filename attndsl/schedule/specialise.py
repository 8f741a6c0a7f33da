"""Turns the sweep's statements into the body of one range: with its masks, or without them and what they alone need."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, assert_never

from attndsl.cascade.nodes import Const, Expr, Select
from attndsl.cascade.walk import rewrite, walk
from attndsl.schedule import tile as t
from attndsl.schedule.exponents import fold_scales
from attndsl.schedule.values import MaskStmt, SweepStmt

Body: TypeAlias = Sequence[SweepStmt]


def masked_body(body: Body) -> tuple[t.Stmt, ...]:
    """Every mask as a selection, every load along the stream checked."""
    out: list[t.Stmt] = []
    for s in body:
        match s:
            case MaskStmt():
                select = Select(t.Val(s.cond), t.Val(s.src), Const(s.fill))
                out.append(t.Compute(s.name, s.dims, s.dtype, select))
            case t.For():
                out.append(dataclasses.replace(s, body=masked_body(s.body)))
            case _:
                out.append(s)
    return tuple(out)


def unmasked_body(body: Body, stream: str, scalars: Collection[str] = ()) -> tuple[t.Stmt, ...]:
    """No mask, no check along the stream, and nothing that only a mask used.

    `scalars` names the scalar values computed before the sweep.
    """
    return _prune(fold_scales(_strip(body, stream, {}), scalars))


def _strip(body: Body, stream: str, alias: dict[str, str]) -> tuple[t.Stmt, ...]:
    """Without masks and checks; `alias` collects what masked values are without their mask."""
    out: list[t.Stmt] = []
    for s in body:
        match s:
            case MaskStmt():
                alias[s.name] = alias.get(s.src, s.src)
            case t.Load():
                load = renamed(s, alias)
                assert isinstance(load, t.Load)
                bounds = tuple(b for b in load.bounds if b != stream)
                out.append(dataclasses.replace(load, bounds=bounds))
            case t.For():
                out.append(dataclasses.replace(s, body=_strip(s.body, stream, alias)))
            case t.Scatter():
                new = renamed(s, alias)
                assert isinstance(new, t.Scatter)
                bounds = tuple(b for b in new.bounds if b != stream)
                out.append(dataclasses.replace(new, bounds=bounds, guard=None))
            case _:
                out.append(renamed(s, alias))
    return tuple(out)


def _prune(body: tuple[t.Stmt, ...]) -> tuple[t.Stmt, ...]:
    live: set[str] = set()
    out: list[t.Stmt] = []
    for s in reversed(body):
        made = defined(s)
        if made is not None and made not in live:
            continue
        live |= used(s)
        out.append(s)
    return tuple(reversed(out))


def defined(s: t.Stmt) -> str | None:
    """The value that a statement makes, where it does nothing else."""
    match s:
        case t.Compute() | t.Load() | t.Dot() | t.Fold() | t.Scan() | t.Solve() | t.Declare():
            return s.name
        case t.Pick():
            return s.name
        case _:
            return None


def _values(e: Expr) -> set[str]:
    return {n.name for n in walk(e) if isinstance(n, t.Val)}


def used(s: t.Stmt) -> set[str]:
    """The values a statement reads (an updated one is read too)."""
    match s:
        case t.Compute():
            return _values(s.expr)
        case t.Declare():
            return _values(s.expr)
        case t.Assign():
            return _values(s.expr) | {s.name}
        case t.Load():
            return set().union(*(_values(e) for e in s.subs)) | ({s.guard} if s.guard else set())
        case t.Dot():
            return {s.left, s.right}
        case t.AccDot():
            return {s.name, s.left, s.right} | ({s.scale} if s.scale else set())
        case t.Fold() | t.Scan():
            return {s.src}
        case t.Pick():
            return {s.src} | _values(s.at)
        case t.Solve():
            return {s.matrix, s.right}
        case t.For():
            ends = {x for x in (s.guard, s.lo, s.hi) if x is not None}
            return set().union(*(used(x) for x in s.body)) | ends
        case t.Fence():
            return set()
        case t.Store():
            return {s.value}.union(*(_values(e) for e in s.subs))
        case t.Scatter():
            out = {s.value, s.scale}.union(*(_values(e) for e in s.subs))
            return out | ({s.guard} if s.guard else set())
        case t.Across():
            return {s.left, s.right}.union(*(_values(e) for e in s.subs))
        case t.Reach():
            return {s.first, s.last}.union(*(_values(e) for e in s.subs))
        case t.TileReach():
            return set().union(*(_values(e) for e in (*s.subs, *s.of_subs)))
        case _:
            assert_never(s)


def renamed(s: t.Stmt, names: Mapping[str, str]) -> t.Stmt:
    """The statement over other values."""
    if not names:
        return s

    def expr(e: Expr) -> Expr:
        return rewrite(
            e, lambda n: t.Val(names[n.name]) if isinstance(n, t.Val) and n.name in names else None
        )

    def name(v: str) -> str:
        return names.get(v, v)

    match s:
        case t.Compute() | t.Declare() | t.Assign():
            return dataclasses.replace(s, expr=expr(s.expr))
        case t.Load():
            return dataclasses.replace(
                s,
                subs=tuple(expr(e) for e in s.subs),
                guard=None if s.guard is None else name(s.guard),
            )
        case t.Dot():
            return dataclasses.replace(s, left=name(s.left), right=name(s.right))
        case t.AccDot():
            scale = None if s.scale is None else name(s.scale)
            return dataclasses.replace(s, left=name(s.left), right=name(s.right), scale=scale)
        case t.Fold() | t.Scan():
            return dataclasses.replace(s, src=name(s.src))
        case t.Pick():
            return dataclasses.replace(s, src=name(s.src), at=expr(s.at))
        case t.Solve():
            return dataclasses.replace(s, matrix=name(s.matrix), right=name(s.right))
        case t.For():
            guard = None if s.guard is None else name(s.guard)
            return dataclasses.replace(
                s, body=tuple(renamed(x, names) for x in s.body), guard=guard
            )
        case t.Store():
            return dataclasses.replace(s, value=name(s.value), subs=tuple(expr(e) for e in s.subs))
        case t.Scatter():
            return dataclasses.replace(
                s,
                value=name(s.value),
                scale=name(s.scale),
                subs=tuple(expr(e) for e in s.subs),
                guard=None if s.guard is None else name(s.guard),
            )
        case t.Across():
            subs = tuple(expr(e) for e in s.subs)
            return dataclasses.replace(s, left=name(s.left), right=name(s.right), subs=subs)
        case t.Reach():
            subs = tuple(expr(e) for e in s.subs)
            return dataclasses.replace(s, first=name(s.first), last=name(s.last), subs=subs)
        case t.TileReach():
            return s  # at positions of the grid alone
        case t.Fence():
            return s
        case _:
            assert_never(s)
