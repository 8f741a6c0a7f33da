"""The eager dialect: a plan as a module of plain PyTorch; for CPUs, and as a second oracle.

It walks the same tiles as the kernels do, statement by statement, so it needs memory for tiles
only. The module has

    forward(inputs, extents, params, config=None) -> {buffer: tensor}      outputs and residuals
    backward(inputs, extents, params, config=None) -> {buffer: tensor}     gradients

where `inputs` are tensors by buffer name, `extents` integers by rank and `params` numbers by name.
`config` sets block sizes by axis name, `{"i": 64, "j": 128}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import jinja2

from attndsl.cascade.nodes import DType
from attndsl.codegen.eager_kernel import EagerKernel, render_kernel
from attndsl.codegen.eager_names import Names
from attndsl.codegen.launches import extent_of
from attndsl.resources import resource_dir
from attndsl.schedule.tile import (
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
class Launcher:
    """`forward` or `backward`: the body as lines."""

    name: str
    doc: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EagerModule:
    """Everything that the module template places."""

    summary: str
    header: tuple[str, ...]
    kernels: tuple[EagerKernel, ...]
    launchers: tuple[Launcher, ...]
    helpers: frozenset[str]


def render_module(name: str, forward: Plan, backward: Plan | None = None, header: str = "") -> str:
    """The text of the module of one program; it needs torch alone."""
    names = Names()
    kernels: list[EagerKernel] = []
    launchers: list[Launcher] = []
    for stage, plan in (("forward", forward), ("backward", backward)):
        if plan is not None:
            mine = [
                render_kernel(step, plan, names.new(step.name))
                for step in plan.steps
                if isinstance(step, TileProgram)
            ]
            kernels += mine
            launchers.append(_launcher(stage, plan, mine))
    texts = [*(k.lines for k in kernels), *(x.lines for x in launchers)]
    body = "\n".join(line for lines in texts for line in lines)
    module = EagerModule(
        summary=f"{name}: tiled PyTorch, {' and '.join(x.name for x in launchers)}",
        header=tuple(header.rstrip().splitlines()),
        kernels=tuple(kernels),
        launchers=tuple(launchers),
        helpers=frozenset(h for h in HELPERS if f"{h}(" in body or f"{h}." in body),
    )
    return _environment().get_template("module.py.jinja").render(module=module)


HELPERS = (
    "math",
    "stored",
    "span",
    "safe_divide",
    "softplus",
    "to_fixed",
    "from_fixed",
    "fixed_scale",
    "block_size",
)


def _launcher(stage: str, plan: Plan, kernels: list[EagerKernel]) -> Launcher:
    # A program may be called as one of its own tensors is: a local name must not hide the kernel.
    names = Names(frozenset(k.name for k in kernels))
    lines: list[str] = []
    given = [b for b in plan.buffers if b.kind is BufferKind.INPUT]
    made = [b for b in plan.buffers if b.kind is not BufferKind.INPUT]
    local = {b.name: names.of("tensor", b.name) for b in plan.buffers}
    if stage == "backward":  # the forward pass's residuals come in like inputs
        given += [b for b in made if b.kind is BufferKind.RESIDUAL]
        made = [b for b in made if b.kind is not BufferKind.RESIDUAL]
    extent = {
        r: names.of("extent", r, f"n_{r}")
        for r in sorted(
            {r for k in kernels for r in k.ranks}
            | {r for b in made for r in b.ranks}
            | {r for k in kernels for r in k.grid}
        )
    }
    params = {q: names.of("param", q) for k in kernels for q in k.program.params}

    lines += [f'{local[b.name]} = inputs["{b.name}"]' for b in given]
    blocks = {n: (of, width) for n, of, width in plan.blocks}
    lines += [f"{n} = {extent_of(r, blocks)}" for r, n in extent.items()]
    lines += [f'{n} = params["{q}"]' for q, n in params.items()]
    lines += [
        "dtypes = {name: tensor.dtype for name, tensor in inputs.items()}",
        "acc = torch.float64 if torch.float64 in dtypes.values() else torch.float32",
        "device = next(iter(inputs.values())).device",
        "config = config or {}",
        "",
    ]
    lines += [f"{local[b.name]} = {_allocate(b, extent)}" for b in made]
    calls = iter(kernels)
    for step in plan.steps:
        if isinstance(step, HostSum):
            lines.append(f"{local[step.out]} = {_host_sum(step, plan, local)}")
        elif isinstance(step, HostScale):
            count = " * ".join(extent[r] for r in step.count) or "1"
            lines.append(f"{local[step.out]} = fixed_scale({local[step.src]}, {count})")
        else:
            lines += _call(next(calls), names, local, extent, params)
    lines.append("return {")
    out = (BufferKind.OUTPUT, BufferKind.RESIDUAL) if stage == "forward" else (BufferKind.OUTPUT,)
    lines += [f'    "{b.name}": {local[b.name]},' for b in made if b.kind in out]
    lines.append("}")
    doc = {
        "forward": "Outputs, and what the backward pass needs besides the inputs, by name.",
        "backward": "Gradients by name, from inputs, residuals and the gradients of outputs.",
    }[stage]
    text = "\n".join(lines)
    lines = [
        x
        for x in lines
        if not (
            x.startswith(("dtypes =", "acc =", "device =")) and not _used(x.split(" ")[0], text)
        )
    ]
    return Launcher(stage, doc, tuple(lines))


def _used(name: str, text: str) -> bool:
    return len(re.findall(rf"\b{name}\b", text)) > 1


def _dtype(b: Buffer) -> str:
    if b.kind is BufferKind.FIXED:
        return "torch.int64"
    if b.like == SIXTEEN:
        return "torch.bfloat16"
    if b.like is not None:
        return f'dtypes["{b.like}"]'
    return {DType.FLOAT: "acc", DType.INT: "torch.int64", DType.BOOL: "torch.bool"}[b.dtype]


def _shape(ranks: tuple[str, ...], extent: dict[str, str]) -> str:
    sizes = ", ".join(extent[r] for r in ranks)
    return f"({sizes},)" if len(ranks) == 1 else f"({sizes})"


def _allocate(b: Buffer, extent: dict[str, str]) -> str:
    make = "zeros" if b.kind is BufferKind.FIXED else "empty"
    return f"torch.{make}({_shape(b.ranks, extent)}, dtype={_dtype(b)}, device=device)"


def _host_sum(s: HostSum, plan: Plan, local: dict[str, str]) -> str:
    src = local[s.src]
    if s.axes:
        src = f"{src}.sum({s.axes if len(s.axes) > 1 else s.axes[0]})"
    if s.scale is not None:
        return f"from_fixed({src}, {local[s.scale]}, {_dtype(plan.buffer(s.out))})"
    return f"{src}.to({_dtype(plan.buffer(s.out))})"


def _call(
    k: EagerKernel,
    names: Names,
    local: dict[str, str],
    extent: dict[str, str],
    params: dict[str, str],
) -> list[str]:
    p = k.program
    grid = " * ".join(extent[r] for r in k.grid) or "1"
    blocks = [
        f'config.get("{a.name}", block_size({grid}, {256 if a.role is Role.TILE and p.follows is None else 512})),'
        if a.block is None
        else f"{a.block},"
        for a in p.axes
        if a.role in (Role.TILE, Role.STREAM)
    ]
    arguments = [
        *(f"{local[t]}," for t in p.tensors),
        *(f"{extent[r]}," for r in k.ranks),
        *(f"{params[q]}," for q in p.params),
        *blocks,
        *(f"{c}," for c in k.context),
    ]
    return [f"{k.name}(", *(f"    {a}" for a in arguments), ")"]


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("templates") / "eager"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
