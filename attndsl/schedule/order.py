"""The order of one turn of a sweep: products of loaded tiles first, products into accumulators last.

    s = dot(k, q);  p = exp2(s);  dv += dot(p, do);  dp = dot(v, do);  ds = p * dp;  dk += dot(ds, q)
    ->  s = dot(k, q);  dp = dot(v, do);  p = exp2(s);  ds = p * dp;  dv += dot(p, do);  dk += dot(ds, q)

Matrix units and ordinary ones then work in two long phases, which blocks that share a multiprocessor overlap; and no
operand of a running product waits in registers while the next pairs are made.
"""

from __future__ import annotations

from collections.abc import Sequence

from attndsl.schedule import tile as t
from attndsl.schedule.specialise import defined, used


def arrange(body: Sequence[t.Stmt]) -> tuple[t.Stmt, ...]:
    """The statements of a turn, in an order with the same meaning."""
    early, rest = _products_first(body)
    return (*early, *_sums_last(rest))


def _products_first(body: Sequence[t.Stmt]) -> tuple[list[t.Stmt], list[t.Stmt]]:
    """Products that need nothing but loads, with their loads; and the other statements."""
    makers = {name: s for s in body if (name := defined(s)) is not None}
    moved: dict[int, None] = {}
    for s in body:
        if isinstance(s, t.Dot):
            needed = _needed(s, makers)
            if needed is not None:
                moved |= dict.fromkeys(needed)
    early = [s for s in body if id(s) in moved]
    return early, [s for s in body if id(s) not in moved]


def _needed(dot: t.Dot, makers: dict[str, t.Stmt]) -> list[int] | None:
    """The statements that a product of loaded tiles needs; None if it needs pairs, or what is updated."""
    out: list[int] = []
    todo: list[t.Stmt] = [dot]
    while todo:
        s = todo.pop()
        out.append(id(s))
        for name in used(s):
            maker = makers.get(name)
            match maker:
                case None:  # made before the sweep; an accumulator would be no operand
                    continue
                case t.Load(guard=None):
                    todo.append(maker)
                case t.Compute(dims=()):
                    todo.append(maker)
                case _:
                    return None
    return out


def _sums_last(body: Sequence[t.Stmt]) -> list[t.Stmt]:
    """Products into accumulators go behind what does not read them."""
    out: list[t.Stmt] = []
    late: list[t.AccDot] = []
    for s in body:
        if isinstance(s, t.AccDot):
            late.append(s)
            continue
        changed = {s.name} if isinstance(s, t.Assign) else set()
        waiting = [x for x in late if x.name in used(s) or changed & used(x)]
        if waiting or isinstance(s, t.For):
            out += late
            late = []
        out.append(s)
    return out + list(late)
