"""One step of a launcher: the launch of a kernel, or what the host does itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from attndsl.cascade.nodes import DType
from attndsl.codegen.arguments import Argument
from attndsl.codegen.gluon import HopperContext
from attndsl.codegen.kernel_context import KernelContext
from attndsl.codegen.kernel_names import Reaches
from attndsl.codegen.names import identifier
from attndsl.schedule.tile import (
    MOST_ROWS,
    SIXTEEN,
    Buffer,
    BufferKind,
    HostScale,
    HostSum,
    Plan,
    Role,
    TileProgram,
)


@dataclass(frozen=True, slots=True)
class StepContext:
    """One step of a launcher: lines before the launch, the grid, and the kernel with its arguments; or a host sum."""

    comment: str
    lines: tuple[str, ...]
    kernel: str = ""
    grid: str = ""
    arguments: tuple[str, ...] = ()
    hopper: HopperStep | None = None  # the same step by a kernel whose warps specialise
    when: str = ""  # a condition of the launcher's


@dataclass(frozen=True, slots=True)
class HopperStep:
    """When a kernel whose warps specialise takes a step, and how it is launched."""

    tensors: str
    kernel: str
    grid: str
    arguments: tuple[str, ...]
    lines: tuple[str, ...] = ()  # before the launch
    listed: str = ""  # what its tiles cost, where the host lists who takes which


def launch(
    step: TileProgram,
    context: KernelContext,
    tensors: dict[str, str],
    lengths: dict[str, str],
    inputs: str = "inputs",
    parts: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> StepContext:
    """The launch of a portable kernel; `tensors` and `lengths` are the launcher's names of buffers and ranks.

    `inputs` is what it calls the inputs of this kernel, `parts` what it calls halves and scales of tensors.
    """
    scaled = {a.of for a in context.arguments if a.kind == "scales"}
    apart = ", apart" if parts and scaled else ""
    lines = [f'cfg = configure("{context.name}", extents, {inputs}, config{apart})']
    passed = []
    padded = False
    for a in context.arguments:
        what, _, rest = a.passed.partition(":")
        match what:
            case "stride":
                tensor, axis = rest.rsplit(":", 1)
                if axis == "0":  # those of the other axes follow
                    passed.append(f"*launch_strides({tensors[tensor]})")
            case "bounds":
                tensor, axis, block = rest.rsplit(":", 2)
                name = a.name.removesuffix("_ptr")
                lines.append(f'{name} = block_bounds({tensors[tensor]}, {axis}, cfg["{block}"])')
                passed.append(name)
            case "reach":
                passed.append(rest.removesuffix("_ptr"))
            case "tiles":
                tensor, axis, block, row = rest.rsplit(":", 3)
                width = f'cfg["{row}"]'
                if row in lengths:
                    width = f"padded({lengths[row]}, itemsize)"
                    padded = True
                named = parts[tensor][0] if parts and tensor in scaled else tensors[tensor]
                passed.append(f'tiles_of({named}, {axis}, cfg["{block}"], {width})')
            case "scales":
                tensor, axis, block = rest.rsplit(":", 2)
                scales = f'scales_of({parts[tensor][1]}, {axis}, cfg["{block}"])' if parts else ""
                passed.append(scales or "None")
            case "pad":
                passed.append(f"{a.name}=padded({lengths[rest]}, itemsize)")
                padded = True
            case _:
                passed += _passed(a, tensors, lengths, inputs)
    blocks = {a.of: a.name for a in context.arguments if a.kind == "block"}
    if padded:
        lines.append(f"itemsize = least_bytes({inputs})")
    grid = [lengths[a.rank] for a in step.of(Role.GRID)]
    count = ""
    for tiled in step.of(Role.TILE):
        count = f"tiles_{identifier(tiled.name)}"
        ends = ", ".join(lengths[r] for r in (tiled.rank, *step.paired(tiled)))
        end = f"max({ends})" if step.paired(tiled) else ends
        lines.append(f'{count} = triton.cdiv({end}, cfg["{blocks[tiled.name]}"])')
        grid.append(count)
    for r in context.reaches:
        lines += _finding(r, count, tensors, lengths)
    return StepContext(
        comment=context.summary,
        lines=tuple(lines),
        kernel=context.name,
        grid=" * ".join(grid) or "1",
        arguments=(*passed, "**cfg"),
    )


# Tiles of ids that one program of `find_reach` looks up.
MANY = 4


def _finding(r: Reaches, tiles: str, tensors: dict[str, str], lengths: dict[str, str]) -> list[str]:
    """What finds where the ids of each tile stand, before the kernel that asks."""
    name = r.name.removesuffix("_ptr")
    outer = [lengths[rank] for rank in r.ranks]
    rows = " * ".join(outer) or "1"
    fill = (None,) * (MOST_ROWS - len(outer))
    inner = [*["1"] * MOST_ROWS, *outer][1 - MOST_ROWS :]
    of, ids = (tensors[x] for x in r.tensors)
    along = [f"*strides_along({x}, {(*fill, *k)})" for x, k in zip((of, ids), r.axes, strict=True)]
    block, stream = (f'cfg["{b}"]' for b in r.blocks)
    ends = [lengths[e] for e in r.ends]
    return [
        f"{name} = torch.empty((4 + {' * '.join([*outer, tiles])} * 4,), dtype=torch.int32, device=device)",
        f"grid = ({rows}, triton.cdiv({tiles}, {MANY}))",
        "find_reach[grid](",
        *(f"    {x}," for x in (of, ids, name, *along, *inner, *ends)),
        f"    TILE={block},",
        f"    BLOCK={stream},",
        f"    MANY={MANY},",
        ")",
    ]


def hopper_launch(
    step: TileProgram, context: HopperContext, tensors: dict[str, str], lengths: dict[str, str]
) -> HopperStep:
    """The launch of a kernel whose warps specialise."""
    boxes = {d.name: d for d in context.descriptors}
    pads = {a.name: a.of for a in context.arguments if a.kind == "pad"}
    blocks = {a.name for a in context.arguments if a.kind == "block"}
    passed = []
    for a in context.arguments:
        what, _, rest = a.passed.partition(":")
        match what:
            case "descriptor":
                box = []
                for side in boxes[a.name].box:
                    b, _, part = side.partition("*")
                    code = f'cfg["{b}"]' if b in blocks else b
                    code = f"padded({lengths[pads[b]]}, 2)" if b in pads else code
                    if part:
                        code += f' * cfg["{part.removesuffix("//128")}"] // 128'
                    box.append(code)
                d, tensor = boxes[a.name], tensors[rest]
                if d.turned is not None:
                    tensor = f"turned({tensor}, {d.turned})"
                passed.append(f"memory_tiles({tensor}, [{', '.join(box)}])")
            case "stride":
                tensor, axis = rest.rsplit(":", 1)
                passed.append(f"launch_strides({tensors[tensor]})[{axis}]")
            case "pad":
                passed.append(f"{a.name}=padded({lengths[rest]}, 2)")
            case "reach":
                passed.append(rest.removesuffix("_ptr"))
            case _:
                passed += _passed(a, tensors, lengths)
    grid = [lengths[a.rank] for a in step.of(Role.GRID)]
    (tiled,) = step.of(Role.TILE)
    tiles = f'triton.cdiv({lengths[tiled.rank]}, cfg["{context.tile}"])'
    grid.append(tiles)
    alike = [d for d in context.descriptors if not d.adds and not d.sixteen]
    names = dict.fromkeys(tensors[d.tensor] for d in alike)
    return HopperStep(
        tensors=f"({', '.join(names)},)",
        kernel=context.name,
        grid=" * ".join(grid),
        arguments=(*passed, "**cfg"),
        lines=tuple(x for r in context.reaches for x in _finding(r, tiles, tensors, lengths)),
        listed=f"{context.name}_costs(extents, params, cfg)" if context.costs else "",
    )


def _passed(
    a: Argument, tensors: dict[str, str], lengths: dict[str, str], inputs: str = "inputs"
) -> list[str]:
    """What a launch passes for an argument that every kernel takes alike; nothing for those in its configuration."""
    what, _, rest = a.passed.partition(":")
    match what:
        case "tensor":
            return [tensors[rest]]
        case "extent":
            return [f"{a.name}={lengths[rest]}" if a.kind == "full" else lengths[rest]]
        case "param":
            value = f'params["{rest}"]'
            return [f"int({value})" if a.kind == "param_bool" else value]
        case "type":
            return [f'{a.name}=element_type({inputs}["{rest}"])']
        case "acc":
            return ["ACC=ACC"]
        case "programs" | "run":
            return [f"{a.name}={what}"]
        case "turns":
            return [f"{a.name}=turns"]
    return []


def host_sum(
    step: HostSum, plan: Plan, tensors: dict[str, str], lengths: dict[str, str]
) -> StepContext:
    """The rest of a sum, by the host, in a fixed order."""
    out = plan.buffer(step.out)
    axes = f"({', '.join(map(str, step.axes))}{',' if len(step.axes) == 1 else ''})"
    scale = tensors[step.scale] if step.scale else "None"
    call = f"sum_into(shape, {tensors[step.src]}, {axes}, {dtype_of(out)}, {scale})"
    return StepContext(
        comment=f"{step.out}: the rest of its sum, in a fixed order",
        lines=(f"shape = {shape_of(out, lengths)}", f"{tensors[step.out]} = {call}"),
    )


def host_scale(step: HostScale, tensors: dict[str, str], lengths: dict[str, str]) -> StepContext:
    """The scale of fixed-point sums, by the host."""
    count = " * ".join(lengths[r] for r in step.count) or "1"
    return StepContext(
        comment=f"{step.out}: the scale of fixed-point sums",
        lines=(f"{tensors[step.out]} = fixed_scale({tensors[step.src]}, {count})",),
    )


def extent_of(rank: str, blocks: Mapping[str, tuple[str, int]]) -> str:
    """The extent of a rank, in a launcher; `blocks` has those that number blocks of so many points of another."""
    if rank not in blocks:
        return f'extents["{rank}"]'
    of, width = blocks[rank]
    if not of:
        return str(width)
    return f'-(-extents["{of}"] // {width})'


def dtype_of(buffer: Buffer) -> str:
    """The element type of a buffer, in a launcher."""
    if buffer.kind is BufferKind.FIXED or buffer.dtype is DType.INT:
        return "torch.int64"
    if buffer.dtype is DType.BOOL:
        return "torch.bool"
    if buffer.like == SIXTEEN:
        return "torch.bfloat16"
    return f'inputs["{buffer.like}"].dtype' if buffer.like else "acc"


def shape_of(buffer: Buffer, lengths: dict[str, str]) -> str:
    """The shape of a buffer, in a launcher."""
    sizes = [lengths[r] for r in buffer.ranks]
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
