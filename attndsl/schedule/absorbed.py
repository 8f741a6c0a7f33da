"""Conditions on the stream alone inside a comparison's side: asked once a key, not at each pair.

    mask[i,j] = i >= j and inside[j]   ->   last[j] = j if inside else 2**31 - 1;  mask[i,j] = i >= last

It saves an instruction a pair, and what holds a mask's halves until they meet; only kernels whose warps specialise are
given it, since in portable ones Triton packs such a mask into registers that are wanted for sums (measured).
"""

from __future__ import annotations

from dataclasses import replace

from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import Binary, Compare, Const, DType, Expr, Position, Select, Unary
from attndsl.schedule.affine import affine
from attndsl.schedule.tile import Compute, Range, Stmt, Sweep, TileProgram, Val

LARGEST = 2**31 - 1


def absorbed(program: TileProgram, sweep: Sweep) -> Sweep:
    """The sweep with such conditions inside comparisons, wherever both sides of these are lines."""
    known = {s.name: s for s in program.prologue if isinstance(s, Compute)}
    return replace(sweep, ranges=tuple(_range(r, sweep.axis, known) for r in sweep.ranges))


def _range(r: Range, stream: str, outside: dict[str, Compute]) -> Range:
    known = outside | {s.name: s for s in r.body if isinstance(s, Compute)}
    body: list[Stmt] = []
    for s in r.body:
        made = _mask(s, stream, known) if isinstance(s, Compute) else None
        body += made if made is not None else [s]
    return replace(r, body=tuple(body))


def _mask(s: Compute, stream: str, known: dict[str, Compute]) -> list[Stmt] | None:
    """A mask in two statements: a side of its comparison, and the comparison."""
    parts = conjuncts(s.expr)
    alone = [p for p in parts if isinstance(p, Val) and _dims(p, known) == {stream}]
    if s.dtype is not DType.BOOL or len(s.dims) != 2 or not alone:
        return None
    for p in parts:
        if not isinstance(p, Compare) or p.op not in ("<", "<=", ">", ">="):
            continue
        if not (_line(p.left, known) and _line(p.right, known)):
            continue
        left = _dims(p.left, known) == {stream}
        moves, stays = (p.left, p.right) if left else (p.right, p.left)
        if _dims(moves, known) != {stream} or stream in _dims(stays, known):
            continue
        # What makes the comparison fail: the least number on its greater side, the greatest on the other.
        never = -LARGEST if (p.op in (">", ">=")) == left else LARGEST
        condition = conjunction(alone)
        assert condition is not None
        side = Val(f"{s.name}_side")
        chosen = Select(condition, moves, Const(never))
        new = replace(p, left=side) if left else replace(p, right=side)
        rest = conjunction([new if q is p else q for q in parts if q not in alone])
        assert rest is not None
        return [Compute(side.name, (stream,), DType.INT, chosen), replace(s, expr=rest)]
    return None


def _dims(e: Expr, known: dict[str, Compute]) -> set[str]:
    match e:
        case Position(name):
            return {name}
        case Val(name) if name in known:
            return set(known[name].dims)
        case Binary(_, a, b):
            return _dims(a, known) | _dims(b, known)
        case Unary(_, a):
            return _dims(a, known)
        case _:
            return set()


def _line(e: Expr, known: dict[str, Compute]) -> bool:
    """Whether an expression sums positions, lengths and parameters, and so is far from the largest number."""
    match e:
        case Val(name):
            return name in known and _line(known[name].expr, known)
        case Binary("+" | "-", a, b):
            return _line(a, known) and _line(b, known)
        case Unary("-", a):
            return _line(a, known)
        case _:
            return affine(e) is not None
