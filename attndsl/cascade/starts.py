"""The shift of positions that a call may give: `start`, the position of the first query."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from attndsl.callerrors import CallError
from attndsl.cascade.alignments import ONE, Alignment, alignments, shifted_indices, times
from attndsl.cascade.bind import Binding, eval_int
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Define,
    DType,
    Expr,
    Param,
    Position,
    Read,
    ScalarParam,
)
from attndsl.cascade.printer import print_expr
from attndsl.cascade.types import offset
from attndsl.cascade.walk import children, walk, with_children

START = "start"
"""The parameter that `apply_start` adds."""


def apply_start(cascade: Cascade) -> Cascade:
    """Make the shift of positions explicit.

    rewrite:  S[i,j] = …  where j <= i   ->   S[i,j] = …  where j <= i + start          (new parameter start: int = 0)
    for every `i` of `shifted_indices`; a subscript that is just `i` stays. A step of a recurrence (`H[t-1]`) stays too.
    """
    shifted = {i for i, _ in shifted_indices(cascade)}
    if not shifted or any(p.name == START for p in cascade.params):
        return cascade
    recurrent = {d.tensor for d in cascade.body if d.init is not None}

    def shift(e: Expr) -> Expr:
        if isinstance(e, Position) and e.name in shifted:
            return Binary("+", e, Param(START, span=e.span), span=e.span)
        if isinstance(e, Read) and e.tensor in recurrent:
            return dataclasses.replace(
                e, subs=tuple(s if offset(s) is not None else shift(s) for s in e.subs)
            )
        old = children(e)
        new = tuple(shift(c) for c in old)
        return e if all(a is b for a, b in zip(old, new, strict=True)) else with_children(e, new)

    def maybe(e: Expr | None) -> Expr | None:
        return None if e is None else shift(e)

    body = tuple(
        Define(d.tensor, d.indices, shift(d.expr), maybe(d.where), maybe(d.init), span=d.span)
        for d in cascade.body
    )
    return dataclasses.replace(
        cascade,
        body=body,
        params=(*cascade.params, ScalarParam(START, DType.INT, 0)),
        assumes=tuple(shift(a) for a in cascade.assumes),
    )


def resolve_start(cascade: Cascade, binding: Binding, start: Any) -> dict[str, Any]:
    """For every kept index that stands on a reduced index's axis: the position of its first point (nothing if 0).

    `start` is None, a number, "end", or an int tensor of one number a batch. Raises `CallError` A0505 where it is
    needed and missing, or given and of no use.
    """
    if isinstance(start, int) and start == 0:
        return {}  # positions as they are written: nothing to resolve, as for a derived backward program
    env = {**binding.params, **{f"|{r}|": n for r, n in binding.extents.items()}}
    found = alignments(cascade)
    start = _checked_start(cascade, binding, start)
    if start is not None and not found and _uses_positions(cascade):
        raise CallError(
            "A0505",
            f"{cascade.name}: `start` was given, and no query index is compared with a key index",
            help="leave `start` out",
        )
    out: dict[str, Any] = {}
    for a in found:
        try:
            ends, length, slack = _lengths(a, binding, env)
        except (KeyError, ValueError, TypeError, ZeroDivisionError):
            continue  # by zero only behind an `if` that does not take it: `bind` saw to that
        differ = not 0 <= ends - length < slack
        if start is None:
            if differ:
                raise _needs_start(cascade, a, binding)
        elif isinstance(start, str):
            at = max(ends - length, 0) if differ else 0
            if ends < length and differ:
                raise CallError(
                    "A0505",
                    f'{cascade.name}: start="end" with |{a.kept}| = {length} past the {ends} positions of '
                    + ", ".join(f"`{t.index}`" for t in a.group),
                )
            if out.setdefault(a.kept, at) != at:
                raise CallError(
                    "A0505", f'{cascade.name}: start="end" is two different positions of `{a.kept}`'
                )
        else:
            out[a.kept] = start
    return {i: s for i, s in out.items() if not (isinstance(s, int) and s == 0)}


def _checked_start(cascade: Cascade, binding: Binding, start: Any) -> Any:
    """`start` as None, an int, "end" or a tensor of the right shape."""
    shape = getattr(start, "shape", None)
    if start is None or (isinstance(start, str) and start == "end"):
        return start
    if shape is not None and len(shape) == 1 and not start.is_floating_point():
        batch = cascade.batch[0] if cascade.batch else None
        if batch is not None and binding.extents[batch] == shape[0]:
            return start
        came = f"a tensor of shape {tuple(shape)}"
    elif not isinstance(start, bool) and hasattr(start, "__index__") and not shape:
        if int(start.__index__()) >= 0:
            return int(start.__index__())
        came = f"{int(start.__index__())}"
    else:
        came = f"{start!r}" if shape is None else f"a tensor of shape {tuple(shape)}"
    raise CallError(
        "A0505",
        f"{cascade.name}: `start` is {came}",
        help='pass "end", a number of at least 0, or an int tensor with one position a batch',
    )


def check_places(name: str, start: Any) -> None:
    """Raises: CallError A0505, if a tensor of places holds a negative one."""
    if start.numel() and int(start.min()) < 0:
        raise CallError(
            "A0505", f"{name}: `start` holds {int(start.min())}, and positions begin at 0"
        )


def _uses_positions(cascade: Cascade) -> bool:
    """Does a position of a kept index matter anywhere but in a subscript that is just that index?"""
    return any(
        isinstance(n, Position)
        for d in cascade.body
        for root in (d.expr, d.where, d.init)
        if root is not None
        for n in _numbers(root, frozenset(cascade.batch))
    )


def _numbers(e: Expr, batch: frozenset[str]) -> Iterable[Expr]:
    """All subexpressions; positions of batch indices, which nothing shifts, left out."""
    return (n for n in walk(e) if not (isinstance(n, Position) and n.name in batch))


def _lengths(a: Alignment, binding: Binding, env: Mapping[str, Any]) -> tuple[int, int, int]:
    """Positions on the reduced side, on the kept side, and by how much the first may be larger, all in equal units."""
    own_factor, own_divisor = eval_int(a.own.factor, env), eval_int(a.own.divisor, env)
    divisors = [eval_int(t.divisor, env) for t in a.group]
    factors = [eval_int(t.factor, env) for t in a.group]
    unit = own_divisor
    for d in divisors:
        unit *= d
    sizes = [abs(f) * unit // d for f, d in zip(factors, divisors, strict=True)]
    own = abs(own_factor) * unit // own_divisor
    step = max(own, 1)
    spans = [(binding.extents[t.index] - 1) * s for t, s in zip(a.group, sizes, strict=True)]
    ends = (sum(spans) + min(sizes)) // step
    return ends, binding.extents[a.kept], max(min(sizes) // step, 1)


def _needs_start(cascade: Cascade, a: Alignment, binding: Binding) -> CallError:
    kept = a.kept
    others = ", ".join(f"|{t.index}| = {binding.extents[t.index]}" for t in a.group)
    scaled = any((t.factor, t.divisor) != (ONE, ONE) for t in (a.own, *a.group))
    lengths = f", in steps that differ (`{kept}` against {_steps(a)})" if scaled else ""
    return CallError(
        "A0505",
        f"{cascade.name}: |{kept}| = {binding.extents[kept]} and {others} stand on one axis{lengths}, and the call"
        f" does not say where the first `{kept}` stands",
        help=f'pass `start="end"` if the `{kept}` are the last positions (a key-value cache), or `start=n`'
        " (`start=0`: they begin where the others do)",
    )


def _steps(a: Alignment) -> str:
    """The other side of an alignment, in units of the kept index: `2 * j / 3`."""
    parts = []
    for t in a.group:
        up, down = times(t.factor, a.own.divisor), times(t.divisor, a.own.factor)
        text = t.index if up == ONE else f"{print_expr(up)} * {t.index}"
        parts.append(text if down == ONE else f"{text} / {print_expr(down)}")
    return ", ".join(f"`{p}`" for p in parts)
