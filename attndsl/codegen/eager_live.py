"""Statements whose values nothing uses, left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from attndsl.cascade.nodes import Node
from attndsl.schedule.tile import (
    Compute,
    Dot,
    Fold,
    For,
    Load,
    Loop,
    Pick,
    Range,
    Scan,
    Stmt,
    TileProgram,
    Val,
)

# Fields that name a value, beside `Val` leaves.
_USES = ("left", "right", "src", "matrix", "value", "scale", "guard", "lo", "hi", "going")


def live(program: TileProgram) -> TileProgram:
    """The program without values that are computed and never used."""
    while True:
        used = set(_used(program))
        smaller = _without(program, used)
        if smaller == program:
            return program
        program = smaller


def _used(node: Any) -> Iterator[str]:
    if isinstance(node, Val):
        yield node.name
    elif isinstance(node, tuple):
        for x in node:
            yield from _used(x)
    elif isinstance(node, Node):
        for f in dataclasses.fields(node):
            value = getattr(node, f.name)
            if f.name in _USES and isinstance(value, str):
                yield value
            elif f.name != "span":
                yield from _used(value)


def _without(program: TileProgram, used: set[str]) -> TileProgram:
    def body(statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for s in statements:
            match s:
                case Compute() | Load() | Dot() | Fold() | Scan() | Pick() if s.name not in used:
                    continue
                case For():
                    out.append(dataclasses.replace(s, body=body(s.body)))
                case _:
                    out.append(s)
        return tuple(out)

    def loop(x: Loop) -> Loop:
        return dataclasses.replace(x, prologue=body(x.prologue))

    def tiles(x: Range) -> Range:
        return dataclasses.replace(x, body=body(x.body))

    sweep = program.sweep
    if sweep is not None:
        ranges = tuple(r for r in map(tiles, sweep.ranges) if r.body)
        sweep = dataclasses.replace(sweep, ranges=ranges) if ranges else None
    rounds = program.rounds
    if rounds is not None:
        rounds = dataclasses.replace(
            rounds, prologue=body(rounds.prologue), epilogue=body(rounds.epilogue)
        )
    return dataclasses.replace(
        program,
        rounds=rounds,
        prologue=body(program.prologue),
        loops=tuple(loop(x) for x in program.loops),
        sweep=sweep,
        epilogue=body(program.epilogue),
    )
