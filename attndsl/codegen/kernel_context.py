"""A portable kernel as its template takes it."""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.codegen import helpers
from attndsl.codegen.arguments import Argument, arguments_of
from attndsl.codegen.kernel import KernelPrinter
from attndsl.codegen.kernel_facts import kernel_facts
from attndsl.codegen.kernel_names import Reaches, Section
from attndsl.codegen.names import RESERVED, Namespace
from attndsl.schedule.tile import Plan, Role, TileProgram


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
    ranks: tuple[str, ...]  # whose extents it takes
    reaches: tuple[Reaches, ...] = ()  # what is found before it


def kernel_context(plan: Plan, program: TileProgram, name: str, wanted: set[str]) -> KernelContext:
    """The context of one kernel; adds the helpers that it calls to `wanted`."""
    printer = KernelPrinter(plan, program, Namespace(RESERVED | helpers.names()), wanted)
    printer.run()
    arguments = arguments_of(printer)
    fixed = tuple(
        a.name for a in arguments if a.kind in ("wide", "extent") or a.kind.startswith("param")
    )
    return KernelContext(
        name=name,
        summary=_summary(program),
        glossary=_glossary(plan, printer),
        fixed=fixed,
        arguments=arguments,
        sections=tuple(printer.sections),
        facts=kernel_facts(plan, program),
        ranks=tuple(printer.extents),
        reaches=tuple(printer.reaches.values()),
    )


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
    for r in printer.reaches.values():
        out.append(
            f"{r.name}  where the ids of each tile of {r.tensors[0]} stand in {r.tensors[1]}"
        )
    for t in printer.tiles.values():
        out.append(f"{t.name}  tiles of {t.tensor} for the copy engine, or None")
    for t in printer.scales.values():
        out.append(f"{t.name}  scales of its rows, where {t.tensor} comes in halves, or None")
    for axis, block in printer.blocks.items():
        out.append(f"{block}  points of {axis} in a tile")
    for e in printer.extents.values():
        if e.pad is not None:
            out.append(f"{e.name}, {e.pad}  |{e.rank}|, and padded to a power of two")
    out.append("ACC  type of arithmetic and of accumulators")
    return tuple(out)
