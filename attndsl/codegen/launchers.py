"""Launchers: the functions of a module that allocate tensors and launch its kernels, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

from attndsl.codegen.gluon import HopperContext, hopper_kernel
from attndsl.codegen.kernel_context import KernelContext, kernel_context
from attndsl.codegen.launches import (
    HopperStep,
    StepContext,
    dtype_of,
    extent_of,
    hopper_launch,
    host_scale,
    host_sum,
    launch,
    shape_of,
)
from attndsl.codegen.names import RESERVED, Namespace
from attndsl.schedule.tile import Buffer, BufferKind, HostScale, HostSum, Plan, TileProgram
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
        "find_reach",
        "strides_along",
        "hopper",
        "programs",
        "run",
        "launched",
        "turns",
        "turns_of",
        "shared_out",
        "processors",
        "memory_tiles",
        "halved",
        "halves",
        "apart",
        "comes_apart",
        "parts_of",
        "scales_of",
        "rounded",
    }
)

SUMMARIES = {
    "forward": "Outputs and residuals, by name.",
    "backward": "Gradients, by name.",
    "backward_added": """Gradients, by name, with fewer products: tiles add to sums in memory, as they come.

    Sums are rounded in that order, so a repeat may differ in the last bits.
    """,
    "forward_split": """What `forward` returns, for few queries: slices of the keys, then their states merged.

    `extents` has two more: `keys.split`, the number of slices, and `rows.packed`, the number of rows
    that share their keys, which is queries times the heads of a tile.
    """,
}


@dataclass(frozen=True, slots=True)
class LauncherContext:
    """What a launcher is filled with."""

    name: str
    summary: str
    setup: tuple[str, ...]
    steps: tuple[StepContext, ...]
    results: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class ModuleParts:
    """The names, helpers and kernels of a module, shared by its launchers."""

    names: Namespace
    helpers: set[str] = field(default_factory=set)
    kernels: list[KernelContext] = field(default_factory=list)
    hopper: list[HopperContext] = field(default_factory=list)
    specialise: bool = False

    def kernel(self, plan: Plan, program: TileProgram) -> KernelContext:
        """The portable kernel of a program, added to the others."""
        context = kernel_context(plan, program, self.names.fresh(program.name), self.helpers)
        self.kernels.append(context)
        return context


def launcher(name: str, plan: Plan, module: ModuleParts) -> LauncherContext:
    """The launcher of a plan; its kernels are added to those of the module."""
    written: set[str] = set()
    for step in plan.steps:
        written |= set(step.writes) if isinstance(step, TileProgram) else {step.out}
    kernels: dict[int, KernelContext] = {}
    agains: dict[int, KernelContext] = {}
    for k, s in enumerate(plan.steps):
        if isinstance(s, TileProgram):
            kernels[k] = module.kernel(plan, s)
            if s.again is not None:
                agains[k] = module.kernel(plan, s.again)
    # A program may be called as one of its own tensors is: a local name must not hide the kernel.
    every = (*kernels.values(), *agains.values())
    own = {f"{kernel.name}{form}" for kernel in every for form in ("", "_hopper")}
    names = Namespace(RESERVED | HOST_NAMES | own)
    tensors = {b.name: names.fresh(b.name) for b in plan.buffers}
    made = [b for b in plan.buffers if b.name in written]
    taken = [b for b in plan.buffers if b.name not in written]
    named = {
        s.name: kernels[k].name for k, s in enumerate(plan.steps) if isinstance(s, TileProgram)
    }
    for kernel in kernels.values():
        if "follows" in kernel.facts:  # by the name that the other has in the module
            kernel.facts["follows"] = named[str(kernel.facts["follows"])]
    ranks: dict[str, None] = {}
    for kernel in kernels.values():
        ranks.update(dict.fromkeys(kernel.ranks))
    for b in made:
        ranks.update(dict.fromkeys(b.ranks))
    for step in plan.steps:
        if isinstance(step, HostScale):
            ranks.update(dict.fromkeys(step.count))
    lengths = {r: names.fresh(f"len_{r}") for r in ranks}
    setup = [f'{tensors[b.name]} = inputs["{b.name}"]' for b in taken]
    blocks = {n: (of, width) for n, of, width in plan.blocks}
    setup += [f"{v} = {extent_of(r, blocks)}" for r, v in lengths.items()]
    setup.append("acc, ACC = accumulator(inputs)")
    setup.append("device = next(iter(inputs.values())).device")
    by_host = {s.out for s in plan.steps if not isinstance(s, TileProgram)}
    for b in made:
        if b.name not in by_host:
            setup += _allocation(b, tensors, lengths)
    halves = _halves(plan, kernels, tensors, names)
    if halves:
        setup += _rounding(halves, tensors)
    rough = {**tensors, **halves}
    parts = _parts((*kernels.values(), *agains.values()), tensors, names)
    if parts:
        setup += _taking_apart(parts, plan, tensors, lengths)
    steps = []
    for k, step in enumerate(plan.steps):
        match step:
            case TileProgram():
                given, taken_from = (rough, "rounded") if step.rough else (tensors, "inputs")
                whole = parts if not step.rough else {}
                step_context = launch(step, kernels[k], given, lengths, taken_from, whole)
                fast = _hopper_step(plan, step, module, given, lengths)
                steps.append(replace(step_context, hopper=fast))
                if step.again is not None:
                    exact = launch(step.again, agains[k], tensors, lengths, parts=parts)
                    steps.append(replace(exact, when="halves"))
            case HostSum():
                steps.append(host_sum(step, plan, tensors, lengths))
            case HostScale():
                steps.append(host_scale(step, tensors, lengths))
    kept = [b.name for b in made if b.kind in (BufferKind.OUTPUT, BufferKind.RESIDUAL)]
    return LauncherContext(
        name=name,
        summary=SUMMARIES[name],
        setup=tuple(setup),
        steps=tuple(steps),
        results=tuple((n, tensors[n]) for n in kept),
    )


def _halves(
    plan: Plan, kernels: dict[int, KernelContext], tensors: dict[str, str], names: Namespace
) -> dict[str, str]:
    """The inputs that kernels of guesses multiply, and what each is called where it is rounded."""
    inputs = {b.name for b in plan.buffers if b.kind is BufferKind.INPUT}
    data: dict[str, None] = {}
    for k, s in enumerate(plan.steps):
        if isinstance(s, TileProgram) and s.rough:
            multiplied = cast("tuple[str, ...]", kernels[k].facts["data"])
            data |= dict.fromkeys(x for x in multiplied if x in inputs)
    return {x: names.fresh(f"{tensors[x]}_16") for x in data}


def _rounding(halves: dict[str, str], tensors: dict[str, str]) -> list[str]:
    """Lines that round inputs, for what is only where a search starts."""
    kinds = "".join(f"{tensors[x]}.dtype, " for x in halves)
    kinds = kinds.rstrip(", ") if len(halves) > 1 else kinds.rstrip()
    given = ", ".join(f'"{x}": {half}' for x, half in halves.items())
    return [
        f"halves = acc is torch.float32 and torch.float32 in ({kinds})",
        *(
            f"{half} = halved({tensors[x]}) if halves else {tensors[x]}"
            for x, half in halves.items()
        ),
        f"rounded = {{**inputs, {given}}}",
    ]


def _parts(
    kernels: tuple[KernelContext, ...], tensors: dict[str, str], names: Namespace
) -> dict[str, tuple[str, str]]:
    """The tensors that kernels can take in halves, and what their halves and scales are called."""
    found = dict.fromkeys(a.of for k in kernels for a in k.arguments if a.kind == "scales")
    return {
        x: (names.fresh(f"{tensors[x]}_parts"), names.fresh(f"{tensors[x]}_scales")) for x in found
    }


def _taking_apart(
    parts: dict[str, tuple[str, str]], plan: Plan, tensors: dict[str, str], lengths: dict[str, str]
) -> list[str]:
    """Lines that take tensors apart, where that pays."""
    lines = [f"apart = comes_apart({', '.join(tensors[x] for x in parts)})"]
    for x, (halves, scales) in parts.items():
        width = f"padded({lengths[plan.buffer(x).ranks[-1]]}, 4)"
        lines.append(
            f"{halves}, {scales} = parts_of({tensors[x]}, {width}) if apart else ({tensors[x]}, None)"
        )
    return lines


def _hopper_step(
    plan: Plan,
    step: TileProgram,
    module: ModuleParts,
    tensors: dict[str, str],
    lengths: dict[str, str],
) -> HopperStep | None:
    """The step by a kernel whose warps specialise, where one is wanted and can be had."""
    if not module.specialise or isinstance(roles(plan, step), Unfit):
        return None
    name = module.names.fresh(f"{step.name}_hopper")
    found = hopper_kernel(plan, step, name, module.helpers)
    if isinstance(found, Unfit):
        return None
    module.hopper.append(found)
    return hopper_launch(step, found, tensors, lengths)


def _allocation(buffer: Buffer, tensors: dict[str, str], lengths: dict[str, str]) -> list[str]:
    zero = buffer.kind in (BufferKind.FIXED, BufferKind.SUM)
    make = "torch.zeros" if zero else "torch.empty"
    name, shape = tensors[buffer.name], shape_of(buffer, lengths)
    line = f"{name} = {make}({shape}, dtype={dtype_of(buffer)}, device=device)"
    if len(line) <= 96:
        return [line]
    return [f"shape = {shape}", f"{name} = {make}(shape, dtype={dtype_of(buffer)}, device=device)"]
