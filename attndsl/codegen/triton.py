"""Portable Triton: a forward and a backward plan as one standalone module.

    render_module("alibi", forward, backward, header) -> str

The module needs torch and Triton only. It holds the helper functions that its kernels call, the kernels, a table that
describes them (`KERNELS`: arguments and what tile sizes depend on), and two launchers:

    forward(inputs, extents, params, config=None) -> outputs and residuals, by buffer name
    backward(inputs, extents, params, config=None) -> gradients, by buffer name

Everything is decided before a template is filled: `kernel.KernelPrinter` prints statements, `arguments` and `launchers`
say what they take and how they are called, and the templates place all of it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

from attndsl.codegen import configs, helpers
from attndsl.codegen.gluon import STEPS, HopperContext
from attndsl.codegen.halves import taken_apart
from attndsl.codegen.kernel_context import KernelContext
from attndsl.codegen.launchers import HOST_NAMES, LauncherContext, ModuleParts, launcher
from attndsl.codegen.literals import literal
from attndsl.codegen.names import RESERVED, Namespace
from attndsl.codegen.render import render
from attndsl.schedule.tile import HostScale, HostSum, Plan, TileProgram

PRODUCTS = {"split": "bf16x6", "ieee": "ieee"}
"""How Triton multiplies operands of float32, by the precision that a user asks for.

Three parts of bfloat16 hold a float32; six of their nine products are made on matrix units, the others are below its
last bit. Each tile's product is added to a sum by an ordinary addition. So it is as near as IEEE's, and faster.
"""


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
    apart: bool  # whether kernels take tensors of float32 in halves
    halves: bool  # whether a launcher rounds inputs, for where a search starts
    scales: bool  # whether a launcher chooses scales of fixed-point sums
    types: bool  # whether a launcher passes element types
    finders: tuple[
        tuple[str, str], ...
    ]  # facts that decide who finds a kernel's sizes, and who (configs.FINDERS)
    follows: bool  # whether a kernel computes ahead what such a one reads
    tiles: bool  # whether a launcher describes tiles to the copy engine
    bounds: bool  # whether a launcher passes the bounds of blocks of ids
    reaches: bool  # whether a launcher finds where the ids of tiles stand
    fixed: bool  # whether the program settles how many points some tiles have
    hopper: tuple[HopperContext, ...] = ()  # kernels whose warps specialise
    hopper_table: str = ""
    lists: bool = False  # whether the host lists who takes which of their tiles
    adds: bool = False  # whether one of them adds to memory
    adding: tuple[str, str] | None = None  # which one, and the tensors that come to it
    products: str = ""  # how operands of float32 are multiplied, where any are
    by_measurement: bool = False  # whether they are taken only where they were measured faster
    eight: bool = False  # whether inputs have 8 bits


def render_module(
    name: str,
    forward: Plan,
    backward: Plan | None,
    header: str,
    split: Plan | None = None,
    *,
    hopper: bool = False,
    by_measurement: bool = False,
    adding: Plan | None = None,
    precision: str = "split",
) -> str:
    """The text of a module with the kernels and launchers of both passes.

    `split` is the split-keys form of the forward pass; its launcher is `forward_split`. With `hopper`, kernels that can
    have a form whose warps specialise get that besides, and take it on a Hopper card; `by_measurement` only for calls
    that it was measured faster for. `adding` is the form of the backward pass whose tiles add to memory
    (`schedule/added.py`); its launcher is `backward_added`.
    """
    context = module_context(
        name,
        forward,
        backward,
        header,
        split,
        hopper=hopper,
        by_measurement=by_measurement,
        adding=adding,
        precision=precision,
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
    adding: Plan | None = None,
    precision: str = "split",
) -> ModuleContext:
    """Everything that the module template places."""
    own = HOST_NAMES | {
        "choose",
        *(finder.__name__ for finder in configs.FINDERS.values()),
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
        "take_apart",
        "described_scales",
        "strides_within",
        "default_config",
        "functools",
        "Any",
    }
    own |= {"gl", "gluon", "hopper", "hopper_config", "choose_warps", "memory_tiles", "MemoryTiles"}
    own |= {"programs", "run", "launched", "shared_out", "processors", "tma_store"}
    own |= {"HOPPER", "tma", "tma_load", "mbarrier", "warpgroup_mma", "warpgroup_mma_wait"}
    own |= {"fence_async_shared", "worth_warps", "processors"}
    own |= (
        {"choose_eight", "turn", "turned", "in_pairs", "out_of_pairs"} if forward.eight else set()
    )
    own |= STEPS if hopper else set()
    own |= {"heapq", "LISTS", "turns_of", "listed_turns", "tma_add", "copy_and_add", "adds"}
    if backward is None:  # what serves few queries is another forward pass, and agrees with itself
        (forward,) = taken_apart(forward)
    else:
        every = [p for p in (forward, backward, adding, split) if p is not None]
        allowed = dict(zip(map(id, every), taken_apart(*every), strict=True))
        forward, backward = allowed[id(forward)], allowed[id(backward)]
        adding, split = (p if p is None else allowed[id(p)] for p in (adding, split))
    module = ModuleParts(Namespace(RESERVED | helpers.names() | own), specialise=hopper)
    launchers = [launcher("forward", forward, module)]
    if backward is not None:
        launchers.append(launcher("backward", backward, module))
    if adding is not None:
        launchers.append(launcher("backward_added", adding, module))
    if split is not None:
        # Few queries are no work for groups of 64 rows.
        launchers.append(launcher("forward_split", split, replace(module, specialise=False)))
    # Measured where one sweep multiplies pairs. Chunks, walks, blocks of a scan and loops around a sweep stay as they
    # were: parts of what they make on the way took more shared memory than there is.
    known = (*configs.FINDERS, "fixed")
    apart = any(
        (k.facts["stream"] and k.facts["loops"]) or any(f in k.facts for f in known)
        for k in module.kernels
    )
    products = "ieee" if apart else PRODUCTS[precision]
    for k in module.kernels:
        if products == "ieee" and not configs.FINDERS.keys() & k.facts.keys():
            k.facts["ieee"] = True
    in_parts = any("halves" in k.facts for k in module.kernels)
    needed = tuple(helpers.sources(module.helpers))
    steps = [s for p in (forward, backward, split, adding) if p is not None for s in p.steps]
    finders = {
        fact: finder
        for fact, finder in configs.FINDERS.items()
        if any(fact in k.facts for k in module.kernels)
    }
    by_warps = configs.choose_eight if forward.eight else configs.choose_warps
    table = {
        k.name: {"facts": k.facts, "arguments": [(a.name, a.kind, a.of) for a in k.arguments]}
        for k in module.kernels
    }
    return ModuleContext(
        name=name,
        header=tuple(line.rstrip() for line in header.strip().splitlines()),
        helpers=needed,
        configuration=tuple(
            inspect.getsource(f).rstrip()
            for f in (
                configs.demand,
                configs.padded,
                configs.choose,
                *finders.values(),
                *((by_warps,) if module.hopper else ()),
                *((configs.worth_warps,) if module.hopper and by_measurement else ()),
            )
        ),
        finders=tuple((fact, finder.__name__) for fact, finder in finders.items()),
        follows="follows" in finders,
        kernels=tuple(module.kernels),
        table=literal(table),
        launchers=tuple(launchers),
        sums=any(isinstance(s, HostSum) for s in steps),
        apart=in_parts,
        halves=any(isinstance(s, TileProgram) and s.rough for s in steps),
        scales=any(isinstance(s, HostScale) for s in steps),
        types=any(a.kind == "type" for k in module.kernels for a in k.arguments),
        tiles=any(a.kind == "tiles" for k in module.kernels for a in k.arguments),
        bounds=any(a.passed.startswith("bounds:") for k in module.kernels for a in k.arguments),
        reaches=any(k.reaches for k in module.kernels),
        fixed=any("fixed" in k.facts for k in module.kernels),
        hopper=tuple(module.hopper),
        lists=any(a.passed == "turns" for k in module.hopper for a in k.arguments),
        adds=any(k.adder for k in module.hopper),
        adding=None if adding is None else _adding(adding, module),
        by_measurement=by_measurement,
        eight=bool(forward.eight),
        products=products if any("PRODUCTS" in h for h in needed) else "",
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


def _adding(plan: Plan, module: ModuleParts) -> tuple[str, str] | None:
    """The kernel of a plan that adds to memory, and the tensors that are copied for it and were there before."""
    written = {x for s in plan.steps if isinstance(s, TileProgram) for x in s.writes}
    for k in module.hopper:
        if k.adder:
            return k.name, literal(
                tuple(d.tensor for d in k.descriptors if d.tensor not in written)
            )
    return None
