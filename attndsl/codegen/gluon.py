"""A tile program as a Hopper kernel: what the Gluon template is filled with, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.cascade.nodes import DType, Position
from attndsl.codegen import helpers
from attndsl.codegen.arguments import Argument, arguments_of
from attndsl.codegen.gluon_kernel import GluonPrinter, used
from attndsl.codegen.host_costs import costs
from attndsl.codegen.kernel_names import Reaches, Section
from attndsl.codegen.names import RESERVED, Namespace
from attndsl.schedule.ends import counted_ends
from attndsl.schedule.liveness import held
from attndsl.schedule.tile import SIXTEEN, Compute, Plan, Role, Stmt, TileProgram
from attndsl.schedule.warps import Order, Roles, Unfit, roles
from attndsl.schedule.worth import kept_portable, worth_sweeps

# What a step of a consumer calls (`templates/triton/module.py.jinja`).
STEPS = frozenset(
    {"padded_product", "following", "give_back", "corrected", "correcting", "registers"}
)
STEPS |= {"own_parts", "for_parts", "whole_rows", "greatest", "meet"}
# Names that the template and the pipeline use for themselves.
PIPELINE = frozenset(
    {"gl", "gluon", "t", "stage", "phase", "last", "last_phase", "whole", "total", "ready", "group"}
    | {
        "GROUP",
        "GROUPS",
        "STAGES",
        "REGISTERS",
        "COPIED",
        "HELD",
        "SCORES",
        "mbarrier",
        "warpgroup_mma",
        "tma_load",
    }
    | {"tma", "tma_store", "tma_add", "ACROSS", "turns_ptr"}
    | {"free", "tile", "done", "programs", "run", "odd", "APART"}
    | {"turn", "later", "turn_slot", "TURN", "ROWS_OF_ONE"}
    | {"in_pairs", "out_of_pairs"}
    | STEPS
    | {"warpgroup_mma_wait", "fence_async_shared", "load", "compute"}
)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A tensor that the copy engine reads in tiles; `box` has a name or a number for each axis."""

    name: str
    tensor: str
    box: tuple[str, ...]
    adds: bool = False  # in the arithmetic's type, and not of the inputs'
    turned: int | None = None  # the axis that lies last, in a copy by a kernel ahead
    sixteen: bool = False  # of 16 bits, where inputs have 8


@dataclass(frozen=True, slots=True)
class HopperContext:
    """What the Gluon template is filled with."""

    name: str
    summary: str
    glossary: tuple[str, ...]
    fixed: tuple[str, ...]
    arguments: tuple[Argument, ...]
    descriptors: tuple[Descriptor, ...]
    load: tuple[str, ...]
    compute: tuple[str, ...]
    load_names: str
    compute_names: str
    main: tuple[Section, ...]
    producer: tuple[str, ...]
    consumer: tuple[Section, ...]
    tile: str
    stream: str
    facts: dict[str, object]
    reaches: tuple[Reaches, ...] = ()  # what is found before it
    add: tuple[str, ...] = ()
    add_names: str = ""
    adder: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()  # of its tiles, where the host lists who takes which


def hopper_kernel(
    plan: Plan, program: TileProgram, name: str, wanted: set[str]
) -> HopperContext | Unfit:
    """The kernel whose warps specialise; adds the helpers that it calls to `wanted`."""
    found = roles(plan, program)
    if isinstance(found, Unfit):
        return found
    names = Namespace(RESERVED | helpers.names() | PIPELINE)
    printer = GluonPrinter(plan, program, names, wanted, roles=found)
    printer.run_roles()
    main = [line for s in printer.main for line in s.lines]
    consumer = [line for s in printer.consumer for line in s.lines]
    everything = [*main, *printer.producer, *printer.adder, *consumer]
    moved = [x for _, x in found.moved()]
    boxes = {x.tensor: " ".join(printer.box(x)) for x in moved}
    added = {add.tensor: printer.added_box(add) for add in found.across}
    boxes |= {t: " ".join(box) for t, box in added.items()}
    arguments = [
        Argument(
            d,
            d,
            f"descriptor:{t}",
            _of_elements(plan, t, t in added),
            f"{t} {boxes[t]}",
        )
        for t, d in printer.descriptors.items()
    ]
    block = {printer.blocks[found.tile], printer.blocks[found.stream]}
    for a in arguments_of(printer):
        if a.kind == "stages" or (a.name not in block and not used([a.name], everything)):
            continue
        arguments.append(a)
    arguments += [
        Argument(n, f"{n}: tl.int32", n, "extent")
        for n in ("programs", "run")
        if used([n], everything)
    ]
    if used(["turns_ptr"], everything):
        arguments.append(Argument("turns_ptr", "turns_ptr", "turns", "pointer_int32"))
    copied = ("COPIED",) if found.also else ()
    held = ("HELD",) if found.order is Order.CARRIED else ()
    for c in ("GROUPS", "STAGES", "APART", "REGISTERS", *copied, *held):
        arguments.append(Argument(c, f"{c}: tl.constexpr", "config", "config"))
    made = [
        left.strip()
        for line in main
        if " = " in line
        for left in line.split(" = ")[0].split(",")
        if left.strip().isidentifier()
    ]
    candidates = [a.name for a in arguments] + list(dict.fromkeys(made))
    constant = {a.name for a in arguments if a.declared.endswith("constexpr")}

    def declare(lines: list[str]) -> tuple[tuple[str, ...], str]:
        # A parameter is converted under its own name.
        assigned = {n for line in lines for n in _assigned(line)} - {a.name for a in arguments}
        chosen = [n for n in dict.fromkeys(used(candidates, lines)) if n not in assigned]
        listed = tuple(f"{n}: gl.constexpr" if n in constant else n for n in chosen)
        return listed, ", ".join(chosen)

    load, load_names = declare(printer.producer)
    compute, compute_names = declare(consumer)
    add, add_names = declare(printer.adder)
    descriptors = {}
    for x in moved:
        d = printer.descriptors[x.tensor]
        turned = None
        if getattr(x, "name", "") in found.turned:
            turned = x.subs.index(Position(found.stream))
        sixteen = plan.buffer(x.tensor).like == SIXTEEN
        descriptors[d] = Descriptor(d, x.tensor, tuple(printer.box(x)), False, turned, sixteen)
    for t, box in added.items():
        d = printer.descriptors[t]
        descriptors[d] = Descriptor(d, t, tuple(box), adds=True)
    return HopperContext(
        name=name,
        summary=_summary(program),
        glossary=tuple(_glossary(printer)),
        fixed=tuple(
            a.name for a in arguments if a.kind in ("wide", "extent") or a.kind.startswith("param")
        ),
        arguments=tuple(arguments),
        descriptors=tuple(descriptors.values()),
        load=load,
        compute=compute,
        load_names=load_names,
        compute_names=compute_names,
        main=tuple(printer.main),
        producer=tuple(printer.producer),
        consumer=tuple(printer.consumer),
        tile=printer.blocks[found.tile],
        stream=printer.blocks[found.stream],
        facts=_facts(program, found, printer),
        reaches=tuple(printer.reaches.values()),
        add=add,
        add_names=add_names,
        adder=tuple(printer.adder),
        costs=costs(program, counted_ends(program) or (), f"{name}_costs", printer.blocks)
        if found.listed
        else (),
    )


def _of_elements(plan: Plan, tensor: str, added: bool) -> str:
    """The kind of a description of tiles, by what their elements are."""
    if added:
        return "descriptor_acc"
    return "descriptor_sixteen" if plan.buffer(tensor).like == SIXTEEN else "descriptor"


def _assigned(line: str) -> list[str]:
    left, equals, _ = line.strip().partition(" = ")
    if not equals:
        return []
    return [n.strip().split(":")[0] for n in left.split(",")]


def _summary(program: TileProgram) -> str:
    points = ", ".join(a.name for a in program.of(Role.GRID))
    tile = program.of(Role.TILE)[0].name
    assert program.sweep is not None
    stream = program.sweep.axis
    return f"Every tile of {tile} of each {points}, some to a program; sweeps {stream}; its warps specialise."


def _glossary(printer: GluonPrinter) -> list[str]:
    out = [f"{d}  tiles of {t} in memory" for t, d in printer.descriptors.items()]
    out += ["GROUPS  consumers, of 64 rows each", "STAGES  tiles in flight in a ring"]
    return out


def _facts(program: TileProgram, found: Roles, printer: GluonPrinter) -> dict[str, object]:
    """What the choice of stages and blocks depends on: shared memory and registers."""

    def full(dims: tuple[str, ...]) -> str:
        name = next(d for d in dims if program.axis(d).role is Role.FULL)
        return program.axis(name).rank

    ranks = {e.pad: e.rank for e in printer.extents.values() if e.pad is not None}
    staged = [(printer.box(s)[-1], printer.staged[value][1]) for value, s in found.stores.items()]
    full_axes = [a.name for a in program.of(Role.FULL)]
    sums = {a.name: printer._values[a.name].text.dims for b in found.bodies for a in b.sums}
    return {
        "tile": printer.blocks[found.tile].removeprefix("BLOCK_"),
        "stream": printer.blocks[found.stream].removeprefix("BLOCK_"),
        "resident": [full(x.dims) for x in found.resident.values()],
        "also": [full(x.dims) for x in found.also.values()],
        "rings": [full(x.dims) for x in found.rings.values()],
        "sums": [full(d) for d in sums.values()],
        "stores": [[ranks[pad], ranks.get(like, "")] for pad, like in staged],
        "order": found.order.value,
        **(
            {
                "across": [full(found.resident[a.right].dims) for a in found.across],
                "turns": len(program.loops),
            }
            if found.across
            else {}
        ),
        **({"eight": True} if printer.plan.eight else {}),
        "columns": sum(4 if x.dtype is DType.FLOAT else 8 for x in found.columns.values()),
        "folded": found.folded,
        "compares": any(map(_compares, (m for b in found.bodies for m in b.middle))),
        "looked_up": found.looked_up,
        "tile_rank": program.axis(found.tile).rank,
        "stream_rank": program.axis(found.stream).rank,
        "grid": [a.rank for a in program.of(Role.GRID)],
        "worth": {} if kept_portable(program, found) is not None else worth_sweeps(program, found),
        "pairs": max(
            len(held((*b.scores, *b.early, *b.middle, *b.sums), full_axes)) for b in found.bodies
        ),
    }


def _compares(s: Stmt) -> bool:
    """Whether a statement asks something of each pair of a row and a key."""
    return isinstance(s, Compute) and s.dtype is DType.BOOL and len(s.dims) == 2
