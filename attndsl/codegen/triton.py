"""Portable Triton: a forward and a backward plan as one standalone module.

    render_module("alibi", forward, backward, header) -> str

The module needs torch and Triton only. It holds the helper functions that its kernels call, the kernels, a table that
describes them (`KERNELS`: arguments and what tile sizes depend on), and two launchers:

    forward(inputs, extents, params, config=None) -> outputs and residuals, by buffer name
    backward(inputs, extents, params, config=None) -> gradients, by buffer name

Everything is decided before a template is filled: `kernel.KernelPrinter` prints statements, this module assembles the
arguments, and the templates place both.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from attndsl.cascade.nodes import DType
from attndsl.codegen import configs, helpers
from attndsl.codegen.gluon import HopperContext, hopper_kernel
from attndsl.codegen.kernel import KernelPrinter, Section, is_gather, statements, tile_axes
from attndsl.codegen.literals import literal
from attndsl.codegen.liveness import held
from attndsl.codegen.names import RESERVED, Namespace, identifier
from attndsl.codegen.render import render
from attndsl.schedule.specialise import used
from attndsl.schedule.split import SPLIT
from attndsl.schedule.tile import (
    Buffer,
    BufferKind,
    Declare,
    HostScale,
    HostSum,
    Load,
    Plan,
    Role,
    Solve,
    Stmt,
    TileProgram,
)
from attndsl.schedule.warps import Unfit, roles

# Names that launchers use.
HOST_NAMES = frozenset(
    {
        "configure",
        "element_type",
        "launch_strides",
        "strides_of",
        "accumulator",
        "sum_into",
        "fixed_scale",
        "shape",
    }
)

PARAM_TYPES = {DType.FLOAT: "tl.float64", DType.INT: "tl.int32", DType.BOOL: "tl.int32"}


@dataclass(frozen=True, slots=True)
class Argument:
    """One kernel argument: how it is declared, and what a launcher passes."""

    name: str
    declared: str
    passed: str
    kind: str  # for ahead-of-time compiling; see aot.py
    of: str = ""


@dataclass(frozen=True, slots=True)
class KernelContext:
    """What the kernel template is filled with."""

    name: str
    summary: str
    glossary: tuple[str, ...]
    fixed: tuple[str, ...]  # arguments on whose value no compiled code may depend
    arguments: tuple[Argument, ...]
    sections: tuple[Section, ...]
    facts: dict[str, object]


@dataclass(frozen=True, slots=True)
class StepContext:
    """One step of a launcher: lines before the launch, the grid, and the kernel with its arguments; or a host sum."""

    comment: str
    lines: tuple[str, ...]
    kernel: str = ""
    grid: str = ""
    arguments: tuple[str, ...] = ()
    hopper: HopperStep | None = None  # the same step by a kernel whose warps specialise


@dataclass(frozen=True, slots=True)
class HopperStep:
    """When a kernel whose warps specialise takes a step, and how it is launched."""

    tensors: str
    kernel: str
    grid: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LauncherContext:
    """What a launcher is filled with."""

    name: str
    summary: str
    setup: tuple[str, ...]
    steps: tuple[StepContext, ...]
    results: tuple[tuple[str, str], ...]


SUMMARIES = {
    "forward": "Outputs and residuals, by name.",
    "backward": "Gradients, by name.",
    "forward_split": """What `forward` returns, for few queries: slices of the keys, then their states merged.

    `extents` has two more: `keys.split`, the number of slices, and `rows.packed`, the number of rows
    that share their keys, which is queries times the heads of a tile.
    """,
}


@dataclass(frozen=True, slots=True)
class ModuleContext:
    """What the module template is filled with."""

    name: str
    header: tuple[str, ...]
    helpers: tuple[str, ...]
    configuration: tuple[str, ...]
    kernels: tuple[KernelContext, ...]
    table: str
    launchers: tuple[LauncherContext, ...]
    sums: bool  # whether a launcher sums
    scales: bool  # whether a launcher chooses scales of fixed-point sums
    types: bool  # whether a launcher passes element types
    chunks: bool  # whether a kernel carries a state from chunk to chunk
    tiles: bool  # whether a launcher describes tiles to the copy engine
    bounds: bool  # whether a launcher passes the bounds of blocks of ids
    hopper: tuple[HopperContext, ...] = ()  # kernels whose warps specialise
    hopper_table: str = ""
    by_measurement: bool = False  # whether they are taken only where they were measured faster


@dataclass(slots=True)
class _Module:
    """Names of the module level, shared by both passes."""

    names: Namespace
    helpers: set[str] = field(default_factory=set)
    kernels: list[KernelContext] = field(default_factory=list)
    hopper: list[HopperContext] = field(default_factory=list)
    specialise: bool = False


def render_module(
    name: str,
    forward: Plan,
    backward: Plan | None,
    header: str,
    split: Plan | None = None,
    *,
    hopper: bool = False,
    by_measurement: bool = False,
) -> str:
    """The text of a module with the kernels and launchers of both passes.

    `split` is the split-keys form of the forward pass; its launcher is `forward_split`. With `hopper`, kernels that can
    have a form whose warps specialise get that besides, and take it on a Hopper card; `by_measurement` only for calls
    that it was measured faster for.
    """
    context = module_context(
        name, forward, backward, header, split, hopper=hopper, by_measurement=by_measurement
    )
    return render("triton/module.py.jinja", module=context)


def module_context(
    name: str,
    forward: Plan,
    backward: Plan | None,
    header: str,
    split: Plan | None = None,
    *,
    hopper: bool = False,
    by_measurement: bool = False,
) -> ModuleContext:
    """Everything that the module template places."""
    own = HOST_NAMES | {
        "choose",
        "choose_chunk",
        "demand",
        "padded",
        "least_bytes",
        "block_bounds",
        "bound_blocks",
        "tiles_of",
        "described",
        "Memory",
        "capability",
        "is_phantom",
        "TensorDescriptor",
        "default_config",
        "functools",
        "Any",
    }
    own |= {"gl", "gluon", "hopper", "hopper_config", "choose_warps", "memory_tiles", "MemoryTiles"}
    own |= {"HOPPER", "tma", "tma_load", "mbarrier", "warpgroup_mma", "warpgroup_mma_wait"}
    own |= {"fence_async_shared", "worth_warps", "processors"}
    module = _Module(Namespace(RESERVED | helpers.names() | own), specialise=hopper)
    launchers = [_launcher("forward", forward, module)]
    if backward is not None:
        launchers.append(_launcher("backward", backward, module))
    if split is not None:
        # Few queries are no work for groups of 64 rows.
        launchers.append(_launcher("forward_split", split, replace(module, specialise=False)))
    steps = [s for p in (forward, backward, split) if p is not None for s in p.steps]
    chunks = any("chunks" in k.facts for k in module.kernels)
    table = {
        k.name: {"facts": k.facts, "arguments": [(a.name, a.kind, a.of) for a in k.arguments]}
        for k in module.kernels
    }
    return ModuleContext(
        name=name,
        header=tuple(line.rstrip() for line in header.strip().splitlines()),
        helpers=tuple(helpers.sources(module.helpers)),
        configuration=tuple(
            inspect.getsource(f).rstrip()
            for f in (
                configs.demand,
                configs.padded,
                configs.choose,
                *((configs.choose_chunk,) if chunks else ()),
                *((configs.choose_warps,) if module.hopper else ()),
                *((configs.worth_warps,) if module.hopper and by_measurement else ()),
            )
        ),
        chunks=chunks,
        kernels=tuple(module.kernels),
        table=literal(table),
        launchers=tuple(launchers),
        sums=any(isinstance(s, HostSum) for s in steps),
        scales=any(isinstance(s, HostScale) for s in steps),
        types=any(a.kind == "type" for k in module.kernels for a in k.arguments),
        tiles=any(a.kind == "tiles" for k in module.kernels for a in k.arguments),
        bounds=any(a.passed.startswith("bounds:") for k in module.kernels for a in k.arguments),
        hopper=tuple(module.hopper),
        by_measurement=by_measurement,
        hopper_table=literal(
            {
                k.name: {
                    "facts": k.facts,
                    "arguments": [(a.name, a.kind, a.of) for a in k.arguments],
                }
                for k in module.hopper
            }
        ),
    )


# --- kernels -------------------------------------------------------------------------------------------------------


def _kernel(
    plan: Plan, program: TileProgram, module: _Module
) -> tuple[KernelContext, KernelPrinter]:
    printer = KernelPrinter(plan, program, Namespace(RESERVED | helpers.names()), module.helpers)
    printer.run()
    arguments = _arguments(plan, program, printer)
    fixed = tuple(
        a.name for a in arguments if a.kind in ("wide", "extent") or a.kind.startswith("param")
    )
    context = KernelContext(
        name=module.names.fresh(program.name),
        summary=_summary(program),
        glossary=_glossary(plan, printer),
        fixed=fixed,
        arguments=arguments,
        sections=tuple(printer.sections),
        facts=kernel_facts(plan, program),
    )
    module.kernels.append(context)
    return context, printer


def _arguments(plan: Plan, program: TileProgram, printer: KernelPrinter) -> tuple[Argument, ...]:
    """Arguments in order; `passed` is in terms of the launcher's names, filled in by `_launch`."""
    out: list[Argument] = []
    for tensor, pointer in printer.pointers.items():
        out.append(Argument(pointer, pointer, f"tensor:{tensor}", *_element(plan.buffer(tensor))))
    stream = printer.program.sweep.axis if printer.program.sweep else ""
    for (tensor, k), name in printer.bounds.items():
        passed = f"bounds:{tensor}:{k}:{printer.blocks[stream]}"
        out.append(Argument(name, name, passed, "pointer_int", tensor))
    for t in printer.tiles.values():
        passed = f"tiles:{t.tensor}:{t.axis}:{t.block}:{t.row}"
        ndim = len(plan.buffer(t.tensor).ranks)
        of = f"{t.tensor} {ndim} {t.axis} {t.block} {t.row}"
        out.append(Argument(t.name, t.name, passed, "tiles", of))
    for s in printer.strides.values():
        last = s.axis == len(plan.buffer(s.tensor).ranks) - 1
        kind = (
            "wide" if s.free else ("stride_last" if last else "stride_wide" if s.wide else "stride")
        )
        declared = f"{s.name}: tl.int64" if s.wide else s.name
        out.append(Argument(s.name, declared, f"stride:{s.tensor}:{s.axis}", kind))
    for e in printer.extents.values():
        if e.pad is None:
            out.append(
                Argument(e.name, f"{e.name}: tl.int32", f"extent:{e.rank}", "extent", e.rank)
            )
    types = dict(plan.params)
    for param, name in printer.params.items():
        kind = types.get(param, DType.INT)
        out.append(
            Argument(
                name, f"{name}: {PARAM_TYPES[kind]}", f"param:{param}", f"param_{kind.value}", param
            )
        )
    for e in printer.extents.values():
        if e.pad is not None:
            out.append(
                Argument(e.name, f"{e.name}: tl.constexpr", f"extent:{e.rank}", "full", e.rank)
            )
            out.append(Argument(e.pad, f"{e.pad}: tl.constexpr", f"pad:{e.rank}", "pad", e.rank))
    for axis, block in printer.blocks.items():
        out.append(Argument(block, f"{block}: tl.constexpr", f"block:{axis}", "block", axis))
    for like, name in printer.types.items():
        out.append(Argument(name, f"{name}: tl.constexpr", f"type:{like}", "type", like))
    out.append(Argument("ACC", "ACC: tl.constexpr", "acc", "acc"))
    out.append(Argument("NUM_STAGES", "NUM_STAGES: tl.constexpr", "stages", "stages"))
    return tuple(out)


def _element(buffer: Buffer) -> tuple[str, str]:
    """The kind of a pointer argument: what its elements are, and like which input."""
    if buffer.kind is BufferKind.FIXED:
        return "pointer_fixed", ""
    if buffer.dtype is not DType.FLOAT:
        return f"pointer_{buffer.dtype.value}", ""
    if buffer.kind is BufferKind.INPUT:
        return "pointer_like", buffer.like or buffer.name
    return ("pointer_like", buffer.like) if buffer.like else ("pointer_acc", "")


def _summary(program: TileProgram) -> str:
    grid = [a.name for a in (*program.of(Role.GRID), *program.of(Role.TILE))]
    tiles = ", ".join(f"tile of {a.name}" for a in program.of(Role.TILE))
    points = ", ".join(a.name for a in program.of(Role.GRID))
    where = " and ".join(x for x in (points, tiles) if x)
    sweep = f"; sweeps {program.sweep.axis}" if program.sweep else ""
    return f"One program for each {where}{sweep}." if grid else f"One program{sweep}."


def _glossary(plan: Plan, printer: KernelPrinter) -> tuple[str, ...]:
    out = []
    for tensor, pointer in printer.pointers.items():
        buffer = plan.buffer(tensor)
        out.append(f"{pointer}  {tensor}[{', '.join(buffer.ranks)}], {buffer.kind.value}")
    for t in printer.tiles.values():
        out.append(f"{t.name}  tiles of {t.tensor} for the copy engine, or None")
    for axis, block in printer.blocks.items():
        out.append(f"{block}  points of {axis} in a tile")
    for e in printer.extents.values():
        if e.pad is not None:
            out.append(f"{e.name}, {e.pad}  |{e.rank}|, and padded to a power of two")
    out.append("ACC  type of arithmetic and of accumulators")
    return tuple(out)


def kernel_facts(plan: Plan, program: TileProgram) -> dict[str, object]:
    """What the choice of tile sizes depends on (configs.py)."""
    full = {a.name: a.rank for a in program.axes if a.role is Role.FULL}
    tiles = tuple(a.name for a in program.of(Role.TILE))
    stream = program.sweep.axis if program.sweep else None

    def spelled(dims: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(identifier(pairs.get(d, d)) for d in dims)

    pairs = {a.name: stream or "" for a in program.of(Role.PAIR)}
    moving = {stream, *pairs}
    blocked = {*full, *tiles, *moving}
    wide = {*full, *tiles} if pairs else {*full}
    # The ranges of a sweep do the same work; the last has the masks besides.
    swept = program.sweep.ranges[-1].body if program.sweep and program.sweep.ranges else ()
    inside = {id(s) for s in swept}
    using = swept or tuple(statements(program))
    kept = {n for s in using for n in used(s)}
    streamed: list[tuple[str, ...]] = []
    resident: list[tuple[str, ...]] = []
    carried: list[tuple[str, ...]] = []
    data = [
        s.tensor
        for s in statements(program)
        if isinstance(s, Load) and any(d in wide for d in s.dims)
    ]
    for s in swept:
        match s:
            case Load() if moving & {*s.dims} and any(d in wide for d in s.dims):
                streamed.append(tuple(d for d in s.dims if d in blocked))
    for s in statements(program):
        match s:
            case Load() if (
                id(s) not in inside
                and stream not in s.dims
                and any(d in full for d in s.dims)
                and s.name in kept
            ):
                resident.append(tuple(d for d in s.dims if d in blocked))
            case Declare() if id(s) not in inside and s.dims and stream not in s.dims:
                carried.append(s.dims)
    body = swept or tuple(_unswept(program))
    loads = [s for s in statements(program) if isinstance(s, Load)]
    gathered = {s.name for s in loads if is_gather(plan, program, s)}
    tiled = {s.name for s in loads if tile_axes(plan, program, s) is not None}
    return {
        "tiles": spelled(tiles),
        "stream": identifier(stream) if stream else None,
        "pads": {identifier(a): r for a, r in full.items()},
        "resident": tuple(map(spelled, resident)),
        "streamed": tuple(map(spelled, streamed)),
        "carried": tuple(map(spelled, carried)),
        "pairs": tuple(map(spelled, held(body, full, gathered | tiled))),
        "pairs_by_address": tuple(map(spelled, held(body, full))),
        "data": tuple(dict.fromkeys(data)),
        "loops": len(program.loops),
        "few_rows": any(a.rank == SPLIT for a in program.axes),
        **({"chunks": True} if pairs else {}),
        **({"solves": True} if any(isinstance(s, Solve) for s in swept) else {}),
    }


def _unswept(program: TileProgram) -> Iterator[Stmt]:
    """The statements outside the sweep, in order."""
    yield from program.prologue
    for loop in program.loops:
        yield from loop.prologue
    if program.rounds is not None:
        yield from program.rounds.epilogue
    yield from program.epilogue


# --- launchers -----------------------------------------------------------------------------------------------------


def _launcher(name: str, plan: Plan, module: _Module) -> LauncherContext:
    names = Namespace(RESERVED | HOST_NAMES)
    written: set[str] = set()
    for step in plan.steps:
        written |= set(step.writes) if isinstance(step, TileProgram) else {step.out}
    tensors = {b.name: names.fresh(b.name) for b in plan.buffers}
    made = [b for b in plan.buffers if b.name in written]
    taken = [b for b in plan.buffers if b.name not in written]
    kernels = {
        k: _kernel(plan, s, module) for k, s in enumerate(plan.steps) if isinstance(s, TileProgram)
    }
    ranks: dict[str, None] = {}
    for _, printer in kernels.values():
        ranks.update(dict.fromkeys(printer.extents))
    for b in made:
        ranks.update(dict.fromkeys(b.ranks))
    for step in plan.steps:
        if isinstance(step, HostScale):
            ranks.update(dict.fromkeys(step.count))
    lengths = {r: names.fresh(f"len_{r}") for r in ranks}
    setup = [f'{tensors[b.name]} = inputs["{b.name}"]' for b in taken]
    setup += [f'{v} = extents["{r}"]' for r, v in lengths.items()]
    setup.append("acc, ACC = accumulator(inputs)")
    setup.append("device = next(iter(inputs.values())).device")
    by_host = {s.out for s in plan.steps if not isinstance(s, TileProgram)}
    for b in made:
        if b.name not in by_host:
            setup += _allocation(b, tensors, lengths)
    steps = []
    for k, step in enumerate(plan.steps):
        match step:
            case TileProgram():
                step_context = _launch(step, kernels[k][0], tensors, lengths)
                fast = _hopper_step(plan, step, module, tensors, lengths)
                steps.append(replace(step_context, hopper=fast))
            case HostSum():
                steps.append(_host_sum(step, plan, tensors, lengths))
            case HostScale():
                steps.append(_host_scale(step, tensors, lengths))
    kept = [b.name for b in made if b.kind in (BufferKind.OUTPUT, BufferKind.RESIDUAL)]
    return LauncherContext(
        name=name,
        summary=SUMMARIES[name],
        setup=tuple(setup),
        steps=tuple(steps),
        results=tuple((n, tensors[n]) for n in kept),
    )


def _dtype(buffer: Buffer) -> str:
    if buffer.kind is BufferKind.FIXED or buffer.dtype is DType.INT:
        return "torch.int64"
    if buffer.dtype is DType.BOOL:
        return "torch.bool"
    return f'inputs["{buffer.like}"].dtype' if buffer.like else "acc"


def _shape(buffer: Buffer, lengths: dict[str, str]) -> str:
    sizes = [lengths[r] for r in buffer.ranks]
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"


def _allocation(buffer: Buffer, tensors: dict[str, str], lengths: dict[str, str]) -> list[str]:
    make = "torch.zeros" if buffer.kind is BufferKind.FIXED else "torch.empty"
    name, shape = tensors[buffer.name], _shape(buffer, lengths)
    line = f"{name} = {make}({shape}, dtype={_dtype(buffer)}, device=device)"
    if len(line) <= 96:
        return [line]
    return [f"shape = {shape}", f"{name} = {make}(shape, dtype={_dtype(buffer)}, device=device)"]


def _host_sum(
    step: HostSum, plan: Plan, tensors: dict[str, str], lengths: dict[str, str]
) -> StepContext:
    out = plan.buffer(step.out)
    axes = f"({', '.join(map(str, step.axes))}{',' if len(step.axes) == 1 else ''})"
    scale = tensors[step.scale] if step.scale else "None"
    call = f"sum_into(shape, {tensors[step.src]}, {axes}, {_dtype(out)}, {scale})"
    return StepContext(
        comment=f"{step.out}: the rest of its sum, in a fixed order",
        lines=(f"shape = {_shape(out, lengths)}", f"{tensors[step.out]} = {call}"),
    )


def _host_scale(step: HostScale, tensors: dict[str, str], lengths: dict[str, str]) -> StepContext:
    count = " * ".join(lengths[r] for r in step.count) or "1"
    return StepContext(
        comment=f"{step.out}: the scale of fixed-point sums",
        lines=(f"{tensors[step.out]} = fixed_scale({tensors[step.src]}, {count})",),
    )


def _launch(
    step: TileProgram, context: KernelContext, tensors: dict[str, str], lengths: dict[str, str]
) -> StepContext:
    lines = [f'cfg = configure("{context.name}", extents, inputs, config)']
    passed = []
    padded = False
    for a in context.arguments:
        what, _, rest = a.passed.partition(":")
        match what:
            case "tensor":
                passed.append(tensors[rest])
            case "stride":
                tensor, axis = rest.rsplit(":", 1)
                if axis == "0":  # those of the other axes follow
                    passed.append(f"*launch_strides({tensors[tensor]})")
            case "bounds":
                tensor, axis, block = rest.rsplit(":", 2)
                name = a.name.removesuffix("_ptr")
                lines.append(f'{name} = block_bounds({tensors[tensor]}, {axis}, cfg["{block}"])')
                passed.append(name)
            case "tiles":
                tensor, axis, block, row = rest.rsplit(":", 3)
                width = f'cfg["{row}"]'
                if row in lengths:
                    width = f"padded({lengths[row]}, itemsize)"
                    padded = True
                passed.append(f'tiles_of({tensors[tensor]}, {axis}, cfg["{block}"], {width})')
            case "extent":
                passed.append(f"{a.name}={lengths[rest]}" if a.kind == "full" else lengths[rest])
            case "param":
                value = f'params["{rest}"]'
                passed.append(f"int({value})" if a.kind == "param_bool" else value)
            case "pad":
                passed.append(f"{a.name}=padded({lengths[rest]}, itemsize)")
                padded = True
            case "type":
                passed.append(f'{a.name}=element_type(inputs["{rest}"])')
            case "acc":
                passed.append("ACC=ACC")
    blocks = {a.of: a.name for a in context.arguments if a.kind == "block"}
    if padded:
        lines.append("itemsize = least_bytes(inputs)")
    grid = [lengths[a.rank] for a in step.of(Role.GRID)]
    for tiled in step.of(Role.TILE):
        count = f"tiles_{identifier(tiled.name)}"
        lines.append(f'{count} = triton.cdiv({lengths[tiled.rank]}, cfg["{blocks[tiled.name]}"])')
        grid.append(count)
    return StepContext(
        comment=context.summary,
        lines=tuple(lines),
        kernel=context.name,
        grid=" * ".join(grid) or "1",
        arguments=(*passed, "**cfg"),
    )


def _hopper_step(
    plan: Plan,
    step: TileProgram,
    module: _Module,
    tensors: dict[str, str],
    lengths: dict[str, str],
) -> HopperStep | None:
    """The step by a kernel whose warps specialise, where one is wanted and can be had."""
    if not module.specialise or isinstance(roles(plan, step), Unfit):
        return None
    found = hopper_kernel(plan, step, module.names.fresh(f"{step.name}_hopper"), module.helpers)
    if isinstance(found, Unfit):
        return None
    module.hopper.append(found)
    return _hopper_launch(step, found, tensors, lengths)


def _hopper_launch(
    step: TileProgram, context: HopperContext, tensors: dict[str, str], lengths: dict[str, str]
) -> HopperStep:
    boxes = {d.name: d for d in context.descriptors}
    pads = {a.name: a.of for a in context.arguments if a.kind == "pad"}
    blocks = {a.name for a in context.arguments if a.kind == "block"}
    passed = []
    for a in context.arguments:
        what, _, rest = a.passed.partition(":")
        match what:
            case "descriptor":
                box = [
                    f"padded({lengths[pads[b]]}, 2)"
                    if b in pads
                    else f'cfg["{b}"]'
                    if b in blocks
                    else b
                    for b in boxes[a.name].box
                ]
                passed.append(f"memory_tiles({tensors[rest]}, [{', '.join(box)}])")
            case "tensor":
                passed.append(tensors[rest])
            case "stride":
                tensor, axis = rest.rsplit(":", 1)
                passed.append(f"launch_strides({tensors[tensor]})[{axis}]")
            case "extent":
                passed.append(f"{a.name}={lengths[rest]}" if a.kind == "full" else lengths[rest])
            case "param":
                value = f'params["{rest}"]'
                passed.append(f"int({value})" if a.kind == "param_bool" else value)
            case "pad":
                passed.append(f"{a.name}=padded({lengths[rest]}, 2)")
            case "type":
                passed.append(f'{a.name}=element_type(inputs["{rest}"])')
            case "acc":
                passed.append("ACC=ACC")
    grid = [lengths[a.rank] for a in step.of(Role.GRID)]
    (tiled,) = step.of(Role.TILE)
    grid.append(f'triton.cdiv({lengths[tiled.rank]}, cfg["{context.tile}"])')
    names = dict.fromkeys(tensors[d.tensor] for d in context.descriptors)
    return HopperStep(
        tensors=f"({', '.join(names)},)",
        kernel=context.name,
        grid=" * ".join(grid),
        arguments=(*passed, "**cfg"),
    )
