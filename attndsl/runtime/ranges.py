"""Subscripts that leave their tensor, found at the call from extents alone.

    table[i - j + |i| - 1]   where j <= i       from |i| - 1 to 2|i| - 2: must lie within the table

Conditions on data say nothing here: such a subscript is checked as if they always held. Subscripts that contain data
are checked in debug mode.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Binding, Number
from attndsl.cascade.conditions import conjunction, negation
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.nodes import Cascade, Expr, Index, Position, Read, Reduce, Select, Solve
from attndsl.cascade.printer import print_expr
from attndsl.cascade.starts import START, apply_start
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import children, rename, walk
from attndsl.internal import InternalError
from attndsl.runtime.extremes import extremes


@dataclass(frozen=True, slots=True)
class Gather:
    """A subscript to check, with the condition under which it is used."""

    read: Read
    axis: int
    rank: str
    where: Expr | None


class RangeCheck:
    """All affine gathers of a program; calling it with extents checks them."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self.gathers = tuple(_gathers(cascade))
        self.shifted = tuple(_gathers(apply_start(cascade)))
        self.passed: set[object] = set()
        # the index of a sum over `j` that nobody wrote, `j_1`, is `j`
        self.written = {
            r.name: r.iterates
            for r in cascade.ranks
            if r.iterates is not None and re.fullmatch(rf"{re.escape(r.iterates)}_\d+", r.name)
        }

    def __call__(self, binding: Binding, start: int = 0) -> None:
        """Raise `CallError` A0506 if a subscript leaves its tensor."""
        key = (tuple(binding.extents.items()), tuple(binding.params.items()), start)
        if key in self.passed:
            return
        env: dict[str, Number] = {**binding.params, START: start}
        env |= {f"|{r}|": n for r, n in binding.extents.items()}
        for g in self.shifted if start else self.gathers:
            found = extremes(g.read.subs[g.axis], g.where, env)
            extent = binding.extents[g.rank]
            if found is not None and (found[0] < 0 or found[1] >= extent):
                sub = print_expr(rename(g.read.subs[g.axis], self.written))
                raise CallError(
                    "A0506",
                    f"{self.cascade.name}: subscript `{sub}` leaves axis {g.axis} of `{g.read.tensor}`",
                    notes=(
                        f"`{sub}` runs from {found[0]} to {found[1]}",
                        f"the axis has {extent} points",
                    ),
                    help="check the shape of the tensor, or restrict the domain with `where`",
                )
        if len(self.passed) > 1000:
            self.passed.clear()
        self.passed.add(key)


def _gathers(cascade: Cascade) -> Iterator[Gather]:
    axes = {
        t.name: tuple(
            d.name if isinstance(d, Index) else r for d, r in zip(t.dims, t.ranks, strict=True)
        )
        for t in cascade.inputs
    }
    axes |= {d.tensor: d.indices for d in cascade.body}
    declared = {t.name: t.dims for t in cascade.inputs}
    # before the first step of a recurrence there is its start
    steps = {(d.tensor, at[0]) for d in cascade.body for at in [time_axis(d)] if at is not None}
    # Without complete domains a subscript is checked over more points than it is used at.
    with contextlib.suppress(InternalError):
        cascade = explicit_domains(cascade)
    for d in cascade.body:
        for e in (d.expr, d.init):
            for read, where in _reads(e, d.where) if e is not None else ():
                for k, sub in enumerate(read.subs):
                    plain = isinstance(sub, Index) or any(isinstance(n, Read) for n in walk(sub))
                    # `h // G` as declared is what bound the extent
                    same = read.tensor in declared and _same(sub, declared[read.tensor][k])
                    rank = axes[read.tensor][k]
                    if not plain and not same and (read.tensor, rank) not in steps:
                        yield Gather(read, k, rank, where)


def _same(a: Expr, b: Expr) -> bool:
    if isinstance(a, Index | Position) and isinstance(b, Index | Position):
        return a.name == b.name
    kids = children(a), children(b)
    return (
        type(a) is type(b)
        and len(kids[0]) == len(kids[1])
        and (bool(kids[0]) or a == b)
        and all(map(_same, *kids))
        and getattr(a, "op", None) == getattr(b, "op", None)
    )


def _reads(e: Expr, where: Expr | None) -> Iterator[tuple[Read, Expr | None]]:
    """Every read, with all that is known where it happens."""
    match e:
        case Read():
            yield e, where
            for s in e.subs:
                yield from _reads(s, where)
        case Select():
            yield from _reads(e.cond, where)
            yield from _reads(e.then, conjunction((where, e.cond)))
            yield from _reads(e.other, conjunction((where, negation(e.cond))))
        case Reduce():
            if e.where is not None:
                yield from _reads(e.where, where)
            yield from _reads(e.body, conjunction((where, e.where)))
        case Solve():
            return
        case _:
            for c in children(e):
                yield from _reads(c, where)
