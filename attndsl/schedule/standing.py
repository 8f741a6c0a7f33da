"""A reference that stands while it is near enough: sums are corrected only when scores outgrow it.

    standing(program, sweep) -> the sweep, and the corrections that are 1 in most steps

A running maximum M only keeps exponents small. Sums made with another reference are the same but for a factor that goes
out in the end, so that M need not be the maximum: it may stay until scores exceed it by `SLACK`,

    M_new = max(M, M_tile)   ->   M_new = M_tile if M_tile - M > SLACK else M

and exp(M - M_new), which sums are corrected by, is 1 in all but a few steps. Whether a program allows it is derived:
M is taken to be c higher, every value then is what it was, plus a multiple of c, or times a power of exp(c), and what
leaves the kernel must be what it was. A maximum that leaves it, or is compared with something, is kept as it is.

Source: the threshold is FlashAttention-4's (Dao and others 2025).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from attndsl.cascade.nodes import Binary, Call, Compare, Const, Expr, Reduction, Select, Unary
from attndsl.cascade.walk import rewrite, walk
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import (
    AccDot,
    Assign,
    Compute,
    Declare,
    Dot,
    Fold,
    Load,
    Range,
    Stmt,
    Store,
    Sweep,
    TileProgram,
    Val,
)

SLACK = 8 * math.log(2)  # weights are at most 256


class Bound(Exception):
    """A value that depends on the reference in no way that goes out again."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What becomes of a value when the references of before and of after a step rise: `x + r·c`, or `x·exp(r·c)`."""

    old: float = 0.0
    new: float = 0.0
    times: bool = False

    @property
    def none(self) -> bool:
        return abs(self.old) < 1e-6 and abs(self.new) < 1e-6

    def __add__(self, other: Shift) -> Shift:
        return Shift(self.old + other.old, self.new + other.new, self.times or other.times)

    def by(self, factor: float, *, times: bool | None = None) -> Shift:
        kind = self.times if times is None else times
        return Shift(self.old * factor, self.new * factor, kind)

    def like(self, other: Shift) -> bool:
        return (self + other.by(-1)).none and (self.times == other.times or self.none)


NONE = Shift()


def standing(program: TileProgram, sweep: Sweep) -> tuple[Sweep, frozenset[str]]:
    """The sweep with references that stand, and the names of corrections that are 1 then."""
    names = {s.name for s in program.prologue if isinstance(s, Declare)}
    corrections = set[str]()
    for name in sorted(names):
        raised = [_raised(r, name) for r in sweep.ranges]
        if any(x is None for x in raised):
            continue
        found = _corrections(*_seen_through(program, sweep, name), name)
        if found:
            corrections |= found
            sweep = replace(
                sweep,
                ranges=tuple(
                    _lenient(r, x) for r, x in zip(sweep.ranges, raised, strict=True) if x
                ),
            )
    return sweep, frozenset(corrections)


def _raised(r: Range, name: str) -> Compute | None:
    """Where a range takes the maximum of the reference and of what its tile brings, and nothing else."""
    made = {s.name: s for s in r.body if isinstance(s, Compute)}
    kept = [s for s in r.body if isinstance(s, Assign) and s.name == name]
    if len(kept) != 1 or not isinstance(kept[0].expr, Val):
        return None
    new = made.get(kept[0].expr.name)
    match new.expr if new is not None else None:
        case Call("max", (Val(old), Val(tile))) if old == name != tile:
            return new
    return None


def _lenient(r: Range, raised: Compute) -> Range:
    assert isinstance(raised.expr, Call)
    old, tile = raised.expr.args
    far = Compare(">", Binary("-", tile, old), Const(SLACK))
    lenient = replace(raised, expr=Select(far, tile, old))
    return replace(r, body=tuple(lenient if s is raised else s for s in r.body))


def _seen_through(program: TileProgram, sweep: Sweep, name: str) -> tuple[TileProgram, Sweep]:
    """Where all that reads a reference reads `max(x, M)` with one x, that is the reference: M rises, or x stands."""
    new = {r.expr.name for b in sweep.ranges for r in b.body if _is_kept(r, name)}  # type: ignore[union-attr]
    floors: set[Expr] = set()

    def rule(e: Expr) -> Expr | None:
        match e:
            case Call("max", (floor, Val(n) as read)) if n in {name, *new}:
                floors.add(floor)
                return read
        return None

    def through(body: Sequence[Stmt]) -> tuple[Stmt, ...]:
        return tuple(
            replace(s, expr=rewrite(s.expr, rule))
            if isinstance(s, Compute) and s.name not in new
            else s
            for s in body
        )

    plain = (*(s for r in sweep.ranges for s in r.body), *program.epilogue)
    seen = replace(sweep, ranges=tuple(replace(r, body=through(r.body)) for r in sweep.ranges))
    after = replace(program, epilogue=through(program.epilogue))
    bare = sum(_reads(s, {name, *new}) for s in plain if not _is_kept(s, name))
    within = sum(_reads(s, {name, *new}, floors) for s in plain if not _is_kept(s, name))
    raising = len(sweep.ranges)  # each reads M once, to raise it
    return (after, seen) if len(floors) == 1 and bare - within == raising else (program, sweep)


def _is_kept(s: Stmt, name: str) -> bool:
    return isinstance(s, Assign) and s.name == name


def _reads(s: Stmt, names: set[str], floors: set[Expr] | None = None) -> int:
    """How often a statement reads one of the values; with `floors`, inside a maximum with one of them."""
    if not isinstance(s, Compute | Assign):
        return len(used(s) & names) if floors is None else 0
    out = 0
    for e in walk(s.expr):
        match e:
            case Call("max", (floor, Val(n))) if floors is not None and n in names:
                out += floor in floors
            case Val(n) if floors is None and n in names:
                out += 1
    return out


def _corrections(program: TileProgram, sweep: Sweep, name: str) -> set[str]:
    """What sums are multiplied by where the reference rises, if nothing that leaves the kernel depends on it."""
    scaled = set[str]()
    while True:
        try:
            shifts = [_swept(r, name, scaled) for r in sweep.ranges]
            _leaving(program.epilogue, name, scaled)
        except _Scaled as found:
            if found.state in scaled:
                return set()
            scaled = scaled | {found.state}
            continue
        except Bound:
            return set()
        corrected = [
            (s.scale, at[s.scale])
            for r, at in zip(sweep.ranges, shifts, strict=True)
            for s in r.body
            if isinstance(s, AccDot) and s.name in scaled and s.scale is not None
        ]
        step = Shift(1.0, -1.0, True)
        return {n for n, shift in corrected if shift.like(step)}


class _Scaled(Exception):
    """A state that is not the same after a step, and may be one that is made with the reference."""

    def __init__(self, state: str) -> None:
        self.state = state


def _swept(r: Range, name: str, scaled: set[str]) -> dict[str, Shift]:
    """How each value of a step depends on the references."""
    at = dict.fromkeys(scaled, Shift(-1.0, 0.0, True)) | {name: Shift(1.0)}
    raised = _raised(r, name)
    for s in r.body:
        if s is raised:
            if not shift_of(Val(raised.expr.args[1].name), at).none:  # type: ignore[union-attr]
                raise Bound
            at[s.name] = Shift(0.0, 1.0)
        elif isinstance(s, Assign) and s.name == name:
            at[name] = Shift(0.0, 1.0)
        elif isinstance(s, Assign):
            try:
                shift = shift_of(s.expr, at)
            except Bound:
                if s.name in scaled:
                    raise
                raise _Scaled(s.name) from None
            _same(s.name, shift, scaled)
            at[s.name] = shift
        elif isinstance(s, AccDot):
            added = _product(at.get(s.left, NONE), at.get(s.right, NONE))
            carried = _product(at.get(s.name, NONE), at.get(s.scale or "", NONE))
            if not carried.like(added):
                raise _Scaled(s.name) if s.name not in scaled else Bound
            _same(s.name, added, scaled)
            at[s.name] = added
        else:
            _step(s, at)
    return at


def _same(state: str, shift: Shift, scaled: set[str]) -> None:
    """A state must depend on the reference after a step as it did before."""
    if not shift.like(Shift(0.0, -1.0, True) if state in scaled else NONE):
        raise _Scaled(state)


def _leaving(epilogue: Sequence[Stmt], name: str, scaled: set[str]) -> None:
    at = dict.fromkeys(scaled, Shift(-1.0, 0.0, True)) | {name: Shift(1.0)}
    for s in epilogue:
        _step(s, at)


def _step(s: Stmt, at: dict[str, Shift]) -> None:
    match s:
        case Compute():
            at[s.name] = shift_of(s.expr, at)
        case Fold():
            shift = at.get(s.src, NONE)
            summed = s.op is Reduction.SUM and (shift.times or shift.none)
            if not (summed or s.op in (Reduction.MAX, Reduction.MIN) or shift.none):
                raise Bound
            at[s.name] = shift
        case Dot() | Load() | Store() | Declare() | _:
            if not all(at.get(n, NONE).none for n in used(s)):
                raise Bound


def _product(a: Shift, b: Shift) -> Shift:
    if a.none or b.none:
        out = b if a.none else a
        if not out.none and not out.times:
            raise Bound
        return out
    if not (a.times and b.times):
        raise Bound
    return a + b


def shift_of(e: Expr, at: dict[str, Shift]) -> Shift:
    """How an expression depends on the references; raises Bound where it does otherwise."""
    match e:
        case Val(name):
            return at.get(name, NONE)
        case Binary("+" | "-" as op, a, b):
            return _sum(shift_of(a, at), shift_of(b, at), 1.0 if op == "+" else -1.0)
        case Binary("*" | "/" as op, a, b):
            x, y = shift_of(a, at), shift_of(b, at)
            scale = b.value if isinstance(b, Const) else None
            if not x.none and not x.times and scale:
                return x.by(scale if op == "*" else 1 / scale)
            return _product(x, y.by(-1) if op == "/" else y)
        case Unary("-", a):
            x = shift_of(a, at)
            return x if x.times else x.by(-1)
        case Call("exp" | "exp2" as fn, (a,)):
            x = shift_of(a, at)
            if x.times and not x.none:
                raise Bound
            return x.by(math.log(2) if fn == "exp2" else 1.0, times=True)
        case Call("log" | "log2" as fn, (a,)):
            x = shift_of(a, at)
            if not x.times and not x.none:
                raise Bound
            return x.by(1 / math.log(2) if fn == "log2" else 1.0, times=False)
        case Call("max" | "min", (a, b)):
            return _alike([shift_of(a, at), shift_of(b, at)])
        case Compare(_, a, b):
            x, y = shift_of(a, at), shift_of(b, at)
            bare = isinstance(b, Const) and not x.none
            if bare and (b.value == 0.0 if x.times else math.isinf(b.value)):  # type: ignore[union-attr]
                return NONE
            _alike([x, y])
            return NONE
        case Select(Compare("==", seen, Const(value)), Const(), other) if (
            seen == other and value == -math.inf
        ):
            # Before the first score nothing was summed, whatever the reference.
            return shift_of(other, at)
        case Select(cond, a, b):
            if not shift_of(cond, at).none:
                raise Bound
            sides = [(x, shift_of(x, at)) for x in (a, b)]
            return _alike(
                [s for x, s in sides if not _absorbs(x, [o for y, o in sides if y is not x])]
            )
        case _:
            for leaf in walk(e):
                if isinstance(leaf, Val) and not at.get(leaf.name, NONE).none:
                    raise Bound
            return NONE


def _absorbs(x: Expr, others: Iterable[Shift]) -> bool:
    """0 times anything is 0, and -inf plus anything -inf."""
    if not isinstance(x, Const):
        return False
    return all(
        (x.value == 0.0) if o.times else (x.value == -math.inf) for o in others if not o.none
    )


def _sum(a: Shift, b: Shift, sign: float) -> Shift:
    if (a.times and not a.none) or (b.times and not b.none):
        return _alike([a, b])
    return a + b.by(sign)


def _alike(shifts: Sequence[Shift]) -> Shift:
    if not all(s.like(shifts[0]) for s in shifts):
        raise Bound
    return shifts[0] if shifts else NONE
