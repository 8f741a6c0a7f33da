"""Kernels that walk the same chunks with the same state, as one.

    U:  U = k . H * a + ...;   store U;   H = H * decay + k . (v - U)
    O:  load U;   O = q . H' * a + ...;   store O;   H' = H' * decay + k . (v - U)
    ->  U = k . H * a + ...;   store U;   O = q . H * a + ...;   store O;   H = H * decay + k . (v - U)

Each target has a kernel of its own, and each kernel carries what it needs. Where a later one's state starts and is
updated as an earlier one's is, value by value, they are one state; what the later one reads of the other's results, at
the same positions, is there already. So the chunks are walked once, not twice. Kernels that multiply matrices, and
share a state alone, stay apart: registers do not hold the products of both (benchmarks/results/linear-delta.json).

Values are compared by number: two have one number if they are made in the same way from values of one number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from attndsl.cascade.nodes import (
    Const,
    DType,
    Select,
)
from attndsl.schedule import tile as t
from attndsl.schedule.carried import updated
from attndsl.schedule.liveness import flat
from attndsl.schedule.numbering import Number, Numbers
from attndsl.schedule.specialise import defined, renamed, used
from attndsl.schedule.tile import Role


def _body(p: t.TileProgram) -> tuple[t.Stmt, ...]:
    assert p.sweep is not None
    return p.sweep.ranges[0].body


def alike(a: t.TileProgram, b: t.TileProgram) -> bool:
    """Whether two kernels walk the same chunks of the same columns."""
    if a.sweep is None or b.sweep is None or not a.of(Role.PAIR) or a.axes != b.axes:
        return False
    ends = [(p.sweep.axis, p.sweep.descending, len(p.sweep.ranges)) for p in (a, b) if p.sweep]
    return ends[0] == ends[1] and ends[0][2] == 1 and a.params == b.params


def joined(a: t.TileProgram, b: t.TileProgram) -> t.TileProgram | None:
    """One kernel for both, where `b` carries nothing that `a` does not; None where there is none."""
    if not alike(a, b):
        return None
    if not {*a.writes} & {*b.reads} and any(isinstance(s, t.Dot | t.AccDot) for s in _body(b)):
        return None
    numbers = Numbers()
    names: dict[str, Number] = {}
    have: dict[Number, str] = {}
    for s in (*a.prologue, *_body(a)):
        _number(s, numbers, names, have)
    for s in _body(a):
        if isinstance(s, t.Store):
            numbers.stored[numbers.place(s, names)] = s.value
    states = {p.name: _states(p) for p in (a, b)}
    twins = _twins(a, b, numbers, names)
    if twins is None:
        return None
    mine = {x for s in (*a.prologue, *_body(a)) for x in map(defined, flat((s,))) if x is not None}
    theirs = dict(twins)  # a name of b -> its name in the joined kernel
    known = {x: names[y] for x, y in twins.items()}
    prologue: list[t.Stmt] = []
    body: list[t.Stmt] = []
    updates: list[object] = []
    for home, source in ((prologue, b.prologue), (body, _body(b))):
        for s in source:
            if isinstance(s, t.Declare) and s.name in twins:
                continue
            if updated(s) & {*twins}:
                updates.append(numbers.update(s, known))
                continue
            if updates and used(s) & {*twins}:
                return None
            for x in flat((s,)):
                if isinstance(x, t.Load) and x.tensor in a.writes:
                    value = numbers.stored.get(numbers.place(x, known))
                    if value is None or x is not s or not _masked(x.name, b):
                        return None
                    theirs[x.name], known[x.name] = value, names[value]
            name = defined(s)
            if name in theirs:
                continue
            n = _number(s, numbers, known, {})
            if n is not None and n in have and not used(s) & _updated(b):
                theirs[name or ""] = have[n]
                continue
            for new in filter(None, map(defined, flat((s,)))):
                theirs[new] = _fresh(new, mine)
                mine.add(theirs[new])
            home.append(_as(s, theirs))
    own = [s for s in _body(a) if updated(s) & states[a.name]]
    if sorted(map(repr, updates)) != sorted(repr(numbers.update(s, names)) for s in own):
        return None
    first = [s for s in _body(a) if s not in own]
    if _body(a)[len(first) :] != tuple(own):  # they are the last
        return None
    assert a.sweep is not None
    ranges = (dataclasses.replace(a.sweep.ranges[0], body=(*first, *body, *own)),)
    reads = dict.fromkeys((*a.reads, *(r for r in b.reads if r not in a.writes)))
    return dataclasses.replace(
        a,
        reads=tuple(reads),
        writes=(*a.writes, *b.writes),
        prologue=(*a.prologue, *prologue),
        sweep=dataclasses.replace(a.sweep, ranges=ranges),
    )


def _number(
    s: t.Stmt, numbers: Numbers, names: dict[str, Number], have: dict[Number, str]
) -> Number | None:
    """Note the number of what a statement makes; what is updated in place has one of its own."""
    name = defined(s)
    if name is None:
        return None
    if isinstance(s, t.Declare):
        names[name] = numbers.of(("state", id(s)))
        numbers.spans[names[name]] = (frozenset(s.dims), s.dtype)
        return None
    n = numbers.statement(s, names)
    assert n is not None
    names[name] = n
    numbers.spans.setdefault(n, (frozenset(s.dims), getattr(s, "dtype", DType.FLOAT)))  # type: ignore[union-attr]
    have.setdefault(n, name)
    return n


def _updated(p: t.TileProgram) -> set[str]:
    """The values that a turn updates in place."""
    return {n for s in _body(p) for n in updated(s)}


def _states(p: t.TileProgram) -> set[str]:
    return {s.name for s in p.prologue if isinstance(s, t.Declare)}


def _twins(
    a: t.TileProgram, b: t.TileProgram, numbers: Numbers, names: dict[str, Number]
) -> dict[str, str] | None:
    """The states of `b`, in order, by those of `a` that start alike; None if it has others."""
    mine = [s for s in a.prologue if isinstance(s, t.Declare)]
    theirs = [s for s in b.prologue if isinstance(s, t.Declare)]
    known: dict[str, Number] = {}
    for s in b.prologue:
        _number(s, numbers, known, {})

    def start(s: t.Declare, at: dict[str, Number]) -> object:
        return s.dims, s.dtype, numbers.expr(s.expr, at)

    if [start(s, names) for s in mine] != [start(s, known) for s in theirs]:
        return None
    return {y.name: x.name for x, y in zip(mine, theirs, strict=True)}


def _masked(name: str, p: t.TileProgram) -> bool:
    """Whether all that is made of a loaded value is 0 outside, as it was itself: selected, or not stored."""
    for s in _body(p):
        if name not in used(s):
            continue
        match s:
            case t.Compute(expr=Select(_, _, Const(0.0))) | t.Store():
                continue
            case t.Compute() if _masked(s.name, p):
                continue
            case _:
                return False
    return True


def _fresh(base: str, taken: set[str]) -> str:
    name, k = base, 1
    while name in taken:
        name, k = f"{base}_{k}", k + 1
    return name


def _as(s: t.Stmt, names: dict[str, str]) -> t.Stmt:
    """A statement with its values renamed, those that it makes or updates too."""
    s = renamed(s, names)
    match s:
        case t.For():
            return dataclasses.replace(s, body=tuple(_as(x, names) for x in s.body))
        case _ if isinstance(getattr(s, "name", None), str):
            return dataclasses.replace(s, name=names.get(s.name, s.name))  # type: ignore[union-attr,arg-type]
        case _:
            return s


def join_walks(steps: Sequence[t.Step]) -> tuple[t.Step, ...]:
    """Every kernel joined with an earlier one that walks with the same state, where what is between does not matter."""
    out: list[t.Step] = []
    for s in steps:
        place = _place(out, s) if isinstance(s, t.TileProgram) else None
        if place is None:
            out.append(s)
        else:
            k, program = place
            out[k] = program
    return tuple(out)


def _place(before: Sequence[t.Step], s: t.TileProgram) -> tuple[int, t.TileProgram] | None:
    """The last step that a kernel can be joined with."""
    for k in reversed(range(len(before))):
        step = before[k]
        made = set(step.writes) if isinstance(step, t.TileProgram) else {step.out}
        found = joined(step, s) if isinstance(step, t.TileProgram) else None
        if found is not None:
            return k, found
        if made & {*s.reads}:
            return None
    return None
