"""What is known about a compiled program, as plain data: NAME.json, `explain --json`, and what `explain` prints."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attndsl import __version__
from attndsl.analysis.fusion import fused
from attndsl.analysis.sweeps import as_written
from attndsl.callerrors import CallError
from attndsl.cascade.nodes import Binary, Call, Cascade, Expr, Logic
from attndsl.cascade.walk import rewrite, walk
from attndsl.codegen.names import identifier
from attndsl.lengths import length_facts, plan_costs
from attndsl.schedule import tile as t
from attndsl.schedule.cost import GPUS, Again, Cost, again, bound
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.prepare import prepare
from attndsl.schedule.printer import text_of
from attndsl.schedule.restarts import begun, restarting
from attndsl.schedule.tile import Role
from attndsl.schedule.warps import Unfit, roles
from attndsl.schedule.worth import kept_portable, worth_sweeps
from attndsl.sizes import USUAL, Sizes, sizes

if TYPE_CHECKING:
    from attndsl.codegen.aot import CompiledKernel
    from attndsl.driver import CompileOptions, Program

Facts = dict[str, Any]
ITEM_SIZE = {"bf16": 2, "fp16": 2, "fp32": 4}


def program_facts(program: Program, dtype: str = "bf16", gpu: str | None = None) -> Facts:
    """The program and its kernels; costs at the size of a layer of a language model, on one GPU or on all known."""
    usual = usual_sizes(program)
    facts: Facts = {
        "program": program.cascade.name,
        "hash": program.hash,
        "source": Path(program.source.name).name,
        "attndsl": __version__,
        "sweeps": sweep_facts(program),
    }
    if usual is not None:
        named = [i for t_ in program.cascade.inputs for i in t_.ranks]
        facts["estimated_at"] = {
            "dtype": dtype,
            "extents": {r: usual.extents[r] for r in dict.fromkeys(named)},
            "params": usual.params,
        }
    for name, plan in (("forward", program.forward), ("backward", program.backward)):
        if plan is not None:
            facts[name] = _pass(program, plan, usual, ITEM_SIZE[dtype], gpu)
    if usual is not None:
        lengths = length_facts(program, usual, ITEM_SIZE[dtype], gpu)
        if lengths is not None:
            facts["lengths"] = lengths
    if program.split is not None:  # its costs depend on how few the queries are
        facts["few_queries"] = _pass(program, program.split, None, ITEM_SIZE[dtype], gpu)
    return facts


def compile_facts(
    program: Program,
    command: str,
    options: CompileOptions,
    extents: Mapping[str, int],
    kernels: Sequence[CompiledKernel],
) -> Facts:
    """The same, with what the machine code takes; `extents` are those that it was made for."""
    facts = program_facts(program, options.dtype)
    facts["command"] = command
    facts["compiled_for"] = {"dtype": options.dtype, "extents": dict(extents)}
    code: dict[str, Facts] = {}
    for k in kernels:
        code.setdefault(k.name, {})[k.target] = {
            "registers": k.registers,
            "spilled_bytes": k.spills,
            "shared_bytes": k.shared,
            "config": dict(k.config),
        }
    names = iter(code)
    for p in ("forward", "backward", "few_queries"):  # as the module has them
        for kernel in facts.get(p, {}).get("kernels", ()):
            kernel["code"] = code[next(names)] if kernels else {}
    for name in names:  # the forms whose warps specialise come last
        facts.setdefault("hopper", {})[name] = code[name]
    return facts


def usual_sizes(program: Program) -> Sizes | None:
    """Extents of a language model's layer; None if they do not fit the program."""
    try:
        return sizes(program.shifted, USUAL, kinds=program.kinds)
    except CallError:
        return None


def sweep_facts(program: Program) -> Facts:
    """What each sweep makes and reads, as written and after fusion, and why there is more than one.

    `by_algebra` is what the algebra alone would ask for: fewer where a fusion would cost digits.
    """
    ready = prepare(program.shifted)
    before = as_written(program.cascade)
    after = fused(ready.cascade, ready.ranks, inside(program, ready.cascade))
    return {
        "as_written": [list(x) for x in before.tensors],
        "after_fusion": [list(x) for x in after.tensors],
        "by_algebra": after.bound,
        "reads_as_written": {x: list(at) for x, at in before.reads.items()},
        "reads_after_fusion": {x: list(at) for x, at in after.reads.items()},
        "runs_along": list(after.joined),
        "needed_before": list(after.facts),
        "maxima_inserted": [{"tensor": x, "for": e} for x, e in program.inserted],
    }


def inside(program: Program, c: Cascade) -> frozenset[str]:
    """The running sums that no kernel of the forward pass writes: the one that reads them adds them up itself."""
    if program.forward is None:
        return frozenset()
    made = {b for s in program.forward.steps if isinstance(s, t.TileProgram) for b in s.writes}
    sums = restarting(program.shifted, None, [o.name for o in c.outputs])
    try:
        return begun(c, sums) - made
    except Refused:
        return frozenset()


# --- kernels -------------------------------------------------------------------------------------


def _pass(
    program: Program, plan: t.Plan, usual: Sizes | None, itemsize: int, gpu: str | None
) -> Facts:
    found: dict[str, Cost] = {}
    anew: Again | None = None
    if usual is not None:
        extents = program.extents(usual)
        found = {c.kernel: c for c in plan_costs(plan, extents, usual.params, itemsize)}
        anew = again(plan, extents, usual.params, itemsize)
    return {
        **({"scores_again": asdict(anew)} if anew is not None else {}),
        "kernels": [
            {
                **_kernel(s),
                "hopper": _hopper(plan, s),
                **({"goes_on": s.again.name} if s.again is not None else {}),
                **_cost(found.get(s.name), itemsize, gpu),
            }
            for s in plan.steps
            if isinstance(s, t.TileProgram)
        ],
        "sums_on_the_host": [s.out for s in plan.steps if isinstance(s, t.HostSum)],
        "kept_for_backward": [b.name for b in plan.buffers if b.kind is t.BufferKind.RESIDUAL],
        "notes": list(plan.notes),
    }


def _hopper(plan: t.Plan, p: t.TileProgram) -> str:
    """What the Hopper backends make of a kernel: the roles of its warps, or why it stays as it is."""
    found = roles(plan, p)
    if isinstance(found, Unfit):
        return f"the portable form: {found.reason}"
    moved = dict.fromkeys(x.tensor for x in found.rings.values())
    slower = kept_portable(p, found)
    sweeps = worth_sweeps(p, found)
    worth = ", ".join(f"{d} (sweeps from {n})" for d, n in sweeps.items())
    if len(set(sweeps.values())) == 1:
        worth = f"{', '.join(map(str, sweeps))}, sweeps from {max(sweeps.values())}"
    worth = f"taken for head dim {worth}"
    taken = worth if slower is None else f"not taken: {slower}"
    roles_of = f"one copies tiles of {', '.join(moved)}, groups of four multiply"
    return f"warps specialise: {roles_of}; by `auto` {taken}"


def _kernel(p: t.TileProgram) -> Facts:
    facts: Facts = {
        "name": identifier(p.name),
        "grid": [a.name for a in p.of(Role.GRID)],
        "keeps": [a.name for a in p.of(Role.TILE)],
        "order": p.order,
        "loops": [f"{loop.axis} in {_between(p, loop.lo, loop.hi)}" for loop in p.loops],
        "streams": p.sweep.axis if p.sweep is not None else None,
        "chunks": bool(p.of(Role.PAIR)),
        "descending": p.sweep is not None and p.sweep.descending,
        "bounds": bounds(p),
        "ranges": [
            {"of": _between(p, r.lo, r.hi), "masked": r.masked}
            for r in (p.sweep.ranges if p.sweep is not None else ())
        ],
        "carries": _carried(p),
        "ends": _ends(p),
        "reads": list(p.reads),
        "writes": list(p.writes),
    }
    walked = [_walk(s) for s in p.prologue if isinstance(s, t.For)]
    return {**facts, "walks": walked} if walked else facts


def _walk(s: t.For) -> str:
    """What is done position by position, and in which order."""
    inner = [_walk(x) for x in s.body if isinstance(x, t.For) and x.lo is not None]
    way = "from the last to the first" if s.down else "one after the other"
    return f"{s.axis}, {way}" + (f": in each, {', then '.join(inner)}" if inner else "")


def _between(p: t.TileProgram, lo: str, hi: str) -> str:
    return f"[{_spelt(p, lo)}, {_spelt(p, hi)})"


def _spelt(p: t.TileProgram, name: str) -> str:
    """A bound that is a number or a lone value, instead of its name."""
    for s in p.prologue:
        if isinstance(s, t.Compute) and s.name == name:
            text = text_of(s.expr)
            return text if len(text) <= 4 else name
    return name


def bounds(p: t.TileProgram) -> list[str]:
    """The closed forms of a sweep's ranges: integer scalars that its bounds are made of."""
    if p.sweep is None:
        return []
    wanted = {n for r in p.sweep.ranges for n in (r.lo, r.hi)}
    scalars = [s for s in p.prologue if isinstance(s, t.Compute) and not s.dims]
    short = {s.name: s.expr for s in scalars if len(text_of(s.expr)) <= 4}

    def spelt(e: Expr) -> Expr | None:
        return short.get(e.name) if isinstance(e, t.Val) else None

    lines: list[str] = []
    for s in reversed(p.prologue):
        if isinstance(s, t.Compute) and not s.dims and s.name in wanted:
            if s.name not in short:
                lines.append(f"{s.name} = {text_of(rewrite(s.expr, spelt))}")
            wanted |= _values(s.expr)
        elif isinstance(s, t.Reach) and wanted & {s.low, s.high, s.full_low, s.full_high}:
            lines.append(f"[{s.low}, {s.high}) may hold a {s.tensor} in [{s.first}, {s.last}]")
        elif isinstance(s, t.TileReach) and wanted & {s.low, s.high, s.full_low, s.full_high}:
            lines.append(f"[{s.low}, {s.high}) may hold a {s.tensor} among the tile's {s.of}")
    return lines[::-1]


def _carried(p: t.TileProgram) -> list[Facts]:
    """What a sweep updates: each value, its update, and the factor by which old parts are corrected."""
    if p.sweep is None:
        return []
    body = p.sweep.ranges[-1].body
    named = {s.name: s for s in body if isinstance(s, t.Compute)}
    out: list[Facts] = []
    for s in _flat(p.prologue):
        if not isinstance(s, t.Declare):
            continue
        for u in _flat(body):
            if isinstance(u, t.Assign | t.AccDot) and u.name == s.name:
                lhs = f"{s.name}[{','.join(s.dims)}]" if s.dims else s.name
                factor = _factor(u, named)
                out.append(
                    {
                        "value": lhs,
                        "starts_at": text_of(s.expr),
                        "update": _update(u, body),
                        "corrected_by": factor,
                        "merge": _merge(u, body, factor is not None),
                    }
                )
                break
    return out


def _merge(u: t.Assign | t.AccDot, body: tuple[t.Stmt, ...], corrected: bool) -> str:
    """How the values of two parts of the stream become that of both: as a tile's becomes part of the sum so far."""
    match u:
        case t.Assign(expr=Binary("+", Binary("+", t.Val(), t.Val()), _)):
            return "a + b, each with its count * (mean of both - its own)**2"
    match _value(u, body) if isinstance(u, t.Assign) else None:
        case Call(fn):
            return f"{fn}(a, b)"
        case Logic(op):
            return f"a {op} b"
        case Binary("*"):
            return "a * b"
        case _:
            return "alpha_a * a + alpha_b * b" if corrected else "a + b"


def _ends(p: t.TileProgram) -> list[str]:
    """What is made of the state when the sweep is over."""
    return [
        f"{s.name} = {text_of(s.expr)}" for s in p.epilogue if isinstance(s, t.Compute) and s.name
    ]


def _value(u: t.Assign, body: tuple[t.Stmt, ...]) -> Expr:
    """What is assigned, where it has a name of its own as well."""
    made = {s.name: s.expr for s in body if isinstance(s, t.Compute)}
    return made.get(u.expr.name, u.expr) if isinstance(u.expr, t.Val) else u.expr


def _update(u: t.Assign | t.AccDot, body: tuple[t.Stmt, ...]) -> str:
    """The new value, with the reduction of a tile in place of its name."""
    if isinstance(u, t.Assign):
        text = text_of(_value(u, body))
        for s in body:
            if isinstance(s, t.Fold):
                reduced = f"{s.op.value}[{s.over}]({s.src})"
                text = re.sub(rf"(?<!\w){re.escape(s.name)}(?!\w)", reduced, text)
        return text
    old = f"{u.name} * {u.scale}" if u.scale else u.name
    return f"{old} + dot[{u.over}]({u.left}, {u.right})"


def _factor(u: t.Assign | t.AccDot, named: Mapping[str, t.Compute]) -> str | None:
    """The definition of the value by which an update multiplies the old one."""
    scales = [u.scale] if isinstance(u, t.AccDot) else _scales(u)
    found = next((s for s in scales if s in named), None)
    return f"{found} = {text_of(named[found].expr)}" if found is not None else None


def _scales(u: t.Assign) -> list[str | None]:
    out: list[str | None] = []
    for n in walk(u.expr):
        if isinstance(n, Binary) and n.op == "*" and u.name in _values(n.left):
            out += sorted(_values(n.right))
    return out


def _values(e: Expr) -> frozenset[str]:
    """The values of the tile program in an expression, which the type of expressions does not know."""
    nodes: list[object] = list(walk(e))
    return frozenset(n.name for n in nodes if isinstance(n, t.Val))


def _flat(stmts: tuple[t.Stmt, ...]) -> Iterator[t.Stmt]:
    for s in stmts:
        if isinstance(s, t.For):
            yield from _flat(s.body)
        else:
            yield s


def _cost(c: Cost | None, itemsize: int, gpu: str | None = None) -> Facts:
    if c is None:
        return {}
    at_best, round_at_best = (
        {
            name: {"microseconds": _rounded(seconds * 1e6), "bound_by": what}
            for name, peaks in GPUS.items()
            if gpu in (None, name)
            for seconds, what in (bound(x, peaks, itemsize),)
        }
        for x in (c, c.of_one_round())
    )
    return {
        "flops": c.flops,
        "exponentials": c.exps,
        "bytes": c.moved,
        "flops_per_byte": _rounded(c.intensity),
        "part_of_stream_visited": None if c.visited is None else _rounded(c.visited),
        "at_best": at_best,
        **({"rounds": c.rounds, "round_at_best": round_at_best} if c.rounds > 1 else {}),
    }


def _rounded(x: float) -> float:
    """Four digits."""
    return x if x == 0 else round(x, 3 - math.floor(math.log10(abs(x))))
