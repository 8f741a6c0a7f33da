"""Plans of programs in text, run as kernels in PyTorch, and evaluated by hand where only numbers are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from attndsl.cascade.bind import bind, eval_int
from attndsl.cascade.nodes import Cascade, DType, Expr, Param, Position
from attndsl.cascade.starts import apply_start
from attndsl.cascade.walk import rewrite
from attndsl.codegen.eager import render_module
from attndsl.frontend import load_cascades
from attndsl.schedule import Plan, plan_forward
from attndsl.schedule import tile as t
from attndsl.source import Source


@cache
def load(text: str) -> Cascade:
    """The cascade of a program, `start` applied."""
    (cascade,) = load_cascades(Source("test.attn", text))
    return apply_start(cascade)


def kernels(plan: Plan) -> list[t.TileProgram]:
    return [s for s in plan.steps if isinstance(s, t.TileProgram)]


def run(
    plan: Plan,
    cascade: Cascade,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, int | float] | None = None,
    *,
    extra: Mapping[str, int] | None = None,
    tiles: Mapping[str, int] | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The outputs of a plan's kernels in their eager form; `given` has what they take, if it is more."""
    module = ModuleType("generated")
    exec(render_module(cascade.name, plan, None, "header"), module.__dict__)
    bound = bind(cascade, {n: tuple(x.shape) for n, x in inputs.items()}, dict(params or {}))
    extents = {**bound.extents, **(extra or {})}
    out: dict[str, Tensor] = module.forward(
        dict(given or inputs), extents, bound.params, dict(tiles or {})
    )
    return out


def draw(cascade: Cascade, extents: Mapping[str, int], seed: int = 0) -> dict[str, Tensor]:
    """Random inputs in float64; ids are small integers in order."""
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = {}
    for decl in cascade.inputs:
        shape = [extents[r] for r in decl.ranks]
        if decl.dtype is DType.FLOAT:
            out[decl.name] = torch.randn(shape, generator=generator, dtype=torch.float64)
        else:
            out[decl.name] = torch.randint(0, 3, shape, generator=generator).sort(-1).values
    return out


def scalars(
    p: t.TileProgram, env: Mapping[str, int], origin: int, blocks: Mapping[str, int]
) -> dict[str, int]:
    """The integers that a kernel's prologue computes, for the tile that starts at `origin`."""
    known: dict[str, int] = dict(env)
    for a in p.axes:
        known[f"%block {a.name}"] = blocks.get(a.name, 1)
        known[f"%origin {a.name}"] = origin
        known[a.name] = 0

    def rule(n: Expr) -> Expr | None:
        match n:
            case t.Val(name=name):
                return Param(f"%{name}")
            case t.Block(axis=axis):
                return Param(f"%block {axis}")
            case t.Origin(axis=axis):
                return Param(f"%origin {axis}")
            case Position(name=name):
                return Param(name)
            case _:
                return None

    for s in p.prologue:
        if isinstance(s, t.Compute) and s.dtype is DType.INT and not s.dims:
            known[f"%{s.name}"] = eval_int(rewrite(s.expr, rule), known)
    return {k[1:]: v for k, v in known.items() if k.startswith("%")}


def visited(
    p: t.TileProgram, env: Mapping[str, int], origin: int, blocks: Mapping[str, int]
) -> Iterator[tuple[int, bool]]:
    """The stream tiles of a sweep in order: where each starts, and whether it is masked."""
    assert p.sweep is not None
    numbers = scalars(p, env, origin, blocks)
    for r in p.sweep.ranges:
        for start in range(numbers[r.lo], numbers[r.hi], blocks[p.sweep.axis]):
            yield start, r.masked


def forward(text: str) -> Plan:
    return plan_forward(load(text))
