"""A backward pass that computes scores once: one kernel's sums are added up in memory by the tiles of another.

    added(plan) -> the plan with one sweep fewer, or None

A gradient of rows is a sum over keys, a gradient of keys one over rows, and both are made of the same tile of scores:
two kernels compute it, each along its own axis (seven products for attention). Where the tile that one kernel sums
(`dS` in dQ[i] = sum[j] dS[i,j] * K[j]) is made in the other as well, that one can add its part of the sum to memory
(`Across`), and five products are left. In exchange sums are rounded in the order in which tiles come.

What the first kernel computes besides its sum stays: what comes before (the row sums that both sides read) as a kernel
without a sweep, what follows (a factor, the storage type) as one that reads the sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from attndsl.cascade.nodes import Binary, DType, Node, Position
from attndsl.cascade.walk import rewrite
from attndsl.schedule.specialise import defined, used
from attndsl.schedule.tile import (
    AccDot,
    Across,
    Buffer,
    BufferKind,
    Compute,
    Declare,
    Dot,
    Fold,
    Load,
    Plan,
    Role,
    Stmt,
    Store,
    TileProgram,
    Val,
)


@dataclass(frozen=True, slots=True)
class _Sum:
    """What a kernel `giver` sums, by the names of a kernel `taker`."""

    giver: TileProgram
    taker: TileProgram
    acc: AccDot
    own: str
    """The sum of `taker` that takes the same summands: what they are where a mask holds too, its ranges say."""
    right: Load


def added(plan: Plan) -> Plan | None:
    """The plan with the first sum that another kernel's tiles can add up; None if there is none."""
    programs = [s for s in plan.steps if isinstance(s, TileProgram)]
    for giver in programs:
        for taker in programs:
            found = _found(giver, taker) if giver is not taker else None
            if found is not None:
                made = _rebuilt(plan, found)
                if made is not None:
                    return made
    return None


def _found(giver: TileProgram, taker: TileProgram) -> _Sum | None:
    """The one sum of `giver`, if a whole tile of `taker` makes the same summands of the same tensor."""
    if not (_plain(giver) and _plain(taker)) or giver.loops or len(taker.loops) > 1:
        return None
    assert giver.sweep is not None
    assert taker.sweep is not None
    (rows,), (keys,) = giver.of(Role.TILE), taker.of(Role.TILE)
    there = {a.name: a for a in taker.axes}
    stream = taker.axis(taker.sweep.axis)
    if giver.axis(giver.sweep.axis).rank != keys.rank or stream.rank != rows.rank:
        return None
    names = {keys.name: giver.sweep.axis, stream.name: rows.name}
    for a in giver.axes:
        # What is a point of the giver's grid may be a turn of the taker's loop.
        same = there.get(a.name) in (a, replace(a, role=Role.LOOP))
        if a.role in (Role.GRID, Role.FULL) and not same:
            return None
    mine = next((r.body for r in giver.sweep.ranges if not r.masked), None)
    other = next((r.body for r in taker.sweep.ranges if not r.masked), None)
    if mine is None or other is None:
        return None
    sums = [s for s in mine if isinstance(s, AccDot)]
    if len(sums) != 1 or sums[0].scale is not None or _folds(mine):
        return None
    written = {s.tensor: s for s in giver.epilogue if isinstance(s, Store)}
    turns = [s for loop in taker.loops for s in loop.prologue]
    yonder = _Meaning((*taker.prologue, *turns, *other), names)
    here = _Meaning((*giver.prologue, *mine, *giver.epilogue), {}, _quotients(taker, yonder))
    yonder.written = {t: (here, s) for t, s in written.items()}
    wanted = here.of(sums[0].left)
    block = here.of(sums[0].right)
    blocks = [s for s in taker.prologue if isinstance(s, Load) and len(s.dims) == 2]
    right = next((s for s in blocks if yonder.of(s.name) == block), None)
    own = next((s for s in other if isinstance(s, AccDot) and yonder.of(s.left) == wanted), None)
    if right is None or own is None:
        return None
    return _Sum(giver, taker, sums[0], own.name, right)


def _quotients(p: TileProgram, meaning: _Meaning) -> dict[object, object]:
    """What a quotient is throughout a loop: `h // G` is g where h goes from g * G to g * G + G (shared keys)."""
    out: dict[object, object] = {}
    for loop in p.loops:
        match meaning.made.get(loop.lo), meaning.made.get(loop.hi):
            case Compute(expr=Binary("*", Position() as x, width) as lo), Compute(
                expr=Binary("+", start, more)
            ) if start == lo and more == width:
                quotient = Binary("//", Position(loop.axis), width)
                out[meaning._node(quotient)] = x
            case _:
                pass
    return out


def _plain(p: TileProgram) -> bool:
    """Whether a kernel is one sweep of tiles of one axis, and nothing around it."""
    if p.sweep is None or p.rounds is not None or p.sweep.ordered:
        return False
    return len(p.of(Role.TILE)) == 1 and not p.of(Role.PAIR)


def _folds(body: Iterable[Stmt]) -> bool:
    """Whether a step changes anything else that lasts than its sum."""
    return any(not isinstance(s, Compute | Load | Dot | AccDot) for s in body)


class _Meaning:
    """What values are made of, down to tensors: equal for values of two kernels that are one and the same."""

    def __init__(
        self,
        body: Iterable[Stmt],
        names: Mapping[str, str],
        same: Mapping[object, object] | None = None,
    ) -> None:
        self.made = {n: s for s in body if (n := defined(s)) is not None}
        self.names = names
        self.same = same or {}
        self.written: Mapping[str, tuple[_Meaning, Store]] = {}
        self.known: dict[str, object] = {}

    def of(self, name: str) -> object:
        """What a value is made of."""
        if name not in self.known:
            self.known[name] = self._statement(self.made[name]) if name in self.made else name
        return self.known[name]

    def _statement(self, s: Stmt) -> object:
        match s:
            case Compute() | Declare():
                return self._node(s.expr)
            case Load():
                at = tuple(self._node(x) for x in s.subs)
                if s.tensor in self.written:
                    kernel, store = self.written[s.tensor]
                    if at == tuple(kernel._node(x) for x in store.subs):
                        return kernel.of(store.value)
                return ("load", s.tensor, at, None if s.guard is None else self.of(s.guard))
            case Dot():
                sides = frozenset((self.of(s.left), self.of(s.right)))
                return ("dot", sides, self.names.get(s.over, s.over), s.exact)
            case Fold():
                return ("fold", s.op, self.of(s.src), self.names.get(s.over, s.over))
            case _:
                return s

    def _node(self, x: object) -> object:
        """An expression with values put in, and axes as the other kernel calls them."""
        if isinstance(x, Val):
            return self.of(x.name)
        if isinstance(x, Position):
            return Position(self.names.get(x.name, x.name))
        if isinstance(x, Node):
            fields = (getattr(x, f.name) for f in dataclasses.fields(x) if f.compare)
            made = (type(x).__name__, *(self._node(f) for f in fields))
            return self.same.get(made, made)
        if isinstance(x, tuple):
            return tuple(self._node(y) for y in x)
        return x


def _rebuilt(plan: Plan, found: _Sum) -> Plan | None:
    """The kernels that are left of `giver`, and `taker` with the sum."""
    giver, taker = found.giver, found.taker
    declared = next((s for s in giver.prologue if defined(s) == found.acc.name), None)
    last = [s for s in giver.epilogue if isinstance(s, Store)]
    of_sum = [s for s in last if _needs(giver, {s.value}, found.acc.name)]
    if not isinstance(declared, Declare) or len(of_sum) != 1 or taker.sweep is None:
        return None
    (store,) = of_sum
    if not all(isinstance(x, Position) for x in store.subs):
        return None
    before = [s for s in last if s is not store]
    name = f"{store.tensor}.sum"
    buffer = Buffer(name, plan.buffer(store.tensor).ranks, BufferKind.SUM)
    (rows,) = giver.of(Role.TILE)
    moved = {rows.name: taker.sweep.axis}
    subs = tuple(
        rewrite(
            x, lambda n: Position(moved.get(n.name, n.name)) if isinstance(n, Position) else None
        )
        for x in store.subs
    )
    over = taker.of(Role.TILE)[0].name
    full = tuple(d for d in declared.dims if d != rows.name)
    ranges = []
    for r in taker.sweep.ranges:
        bounds = (taker.sweep.axis, *full) if r.masked else full
        left = next(s.left for s in r.body if isinstance(s, AccDot) and s.name == found.own)
        add = Across(name, subs, left, found.right.name, over, found.acc.like, bounds)
        ranges.append(replace(r, body=(*r.body, add)))
    summing = replace(
        taker,
        sweep=replace(taker.sweep, ranges=tuple(ranges)),
        writes=(*taker.writes, name),
    )
    load = Load(declared.name, declared.dims, DType.FLOAT, name, store.subs, store.bounds)
    after = _without_sweep(giver, f"{giver.name}_rest", (store,), {declared.name: load})
    steps: list[object] = []
    for s in plan.steps:
        if s is giver:
            if before:
                steps.append(_without_sweep(giver, f"{giver.name}_first", tuple(before), {}))
        elif s is taker:
            steps += [replace(summing, name=f"{taker.name}_{store.tensor}"), after]
        else:
            steps.append(s)
    if plan.steps.index(giver) > plan.steps.index(taker):
        return None
    return replace(plan, buffers=(*plan.buffers, buffer), steps=tuple(steps))  # type: ignore[arg-type]


def _needs(p: TileProgram, names: set[str], what: str) -> bool:
    """Whether values before or after the sweep are made of `what`."""
    made = {n: s for s in (*p.prologue, *p.epilogue) if (n := defined(s)) is not None}
    todo, seen = list(names), set[str]()
    while todo:
        n = todo.pop()
        if n not in seen:
            seen.add(n)
            todo += used(made[n]) if n in made else ()
    return what in seen


def _without_sweep(
    p: TileProgram, name: str, stores: tuple[Store, ...], given: Mapping[str, Load]
) -> TileProgram:
    """What a kernel computes before and after its sweep for some of its stores; `given` values are loaded."""
    body = [given.get(str(defined(s)), s) for s in (*p.prologue, *p.epilogue)]
    live = set[str]().union(*(used(s) for s in stores))
    kept: list[Stmt] = []
    for s in reversed(body):
        n = defined(s)
        if n in live:
            live |= used(s)
            kept.append(s)
    every = (*reversed(kept), *stores)
    inside = {d for s in every for d in getattr(s, "dims", ())}
    inside |= {
        x.name for s in every if isinstance(s, Store) for x in s.subs if isinstance(x, Position)
    }
    inside |= {s.over for s in every if isinstance(s, Fold)}
    axes = tuple(
        a
        for a in p.axes
        if a.role is not Role.STREAM and (a.role is not Role.FULL or a.name in inside)
    )
    reads = tuple(dict.fromkeys(s.tensor for s in every if isinstance(s, Load)))
    return replace(
        p,
        name=name,
        axes=axes,
        reads=reads,
        writes=tuple(s.tensor for s in stores),
        prologue=tuple(reversed(kept)),
        sweep=None,
        epilogue=stores,
        order="forward",
    )
