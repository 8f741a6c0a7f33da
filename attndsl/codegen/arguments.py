"""The arguments of a kernel: how each is declared, what a launcher passes, and of what kind it is."""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.cascade.nodes import DType
from attndsl.codegen.kernel_names import KernelNames
from attndsl.schedule.tile import Buffer, BufferKind, Role, TileProgram

PARAM_TYPES = {DType.FLOAT: "tl.float64", DType.INT: "tl.int32", DType.BOOL: "tl.int32"}


@dataclass(frozen=True, slots=True)
class Argument:
    """One kernel argument: how it is declared, and what a launcher passes."""

    name: str
    declared: str
    passed: str
    kind: str  # for ahead-of-time compiling; see aot.py
    of: str = ""


def row_ranks(program: TileProgram) -> frozenset[str]:
    """The ranks whose extents are lengths of rows, in tiles of columns: how even they are decides how wide loads are.

    They are features, which belong to a layout as strides do: a new one may cost a compilation.
    """
    walks = program.sweep is not None and program.of(Role.PAIR)
    return frozenset(a.rank for a in program.of(Role.TILE)) if walks else frozenset()


def arguments_of(names: KernelNames) -> tuple[Argument, ...]:
    """Arguments in order; `passed` is in terms of the launcher's names, which `launches` puts in."""
    plan = names.plan
    out: list[Argument] = []
    for tensor, pointer in names.pointers.items():
        out.append(Argument(pointer, pointer, f"tensor:{tensor}", *_element(plan.buffer(tensor))))
    stream = names.program.sweep.axis if names.program.sweep else ""
    for (tensor, k), name in names.bounds.items():
        passed = f"bounds:{tensor}:{k}:{names.blocks[stream]}"
        out.append(Argument(name, name, passed, "pointer_int", tensor))
    for r in names.reaches.values():
        out.append(Argument(r.name, r.name, f"reach:{r.name}", "pointer_int32"))
    for t in names.tiles.values():
        passed = f"tiles:{t.tensor}:{t.axis}:{t.block}:{t.row}"
        buffer = plan.buffer(t.tensor)
        of = f"{_element(buffer)[1]} {len(buffer.ranks)} {t.axis} {t.block} {t.row}"
        out.append(Argument(t.name, t.name, passed, "tiles", of))
    for t in names.scales.values():
        passed = f"scales:{t.tensor}:{t.axis}:{t.block}"
        out.append(Argument(t.name, t.name, passed, "scales", t.tensor))
    for s in names.strides.values():
        last = s.axis == len(plan.buffer(s.tensor).ranks) - 1
        kind = (
            "wide" if s.free else ("stride_last" if last else "stride_wide" if s.wide else "stride")
        )
        declared = f"{s.name}: tl.int64" if s.wide else s.name
        out.append(Argument(s.name, declared, f"stride:{s.tensor}:{s.axis}", kind))
    rows = row_ranks(names.program)
    for e in names.extents.values():
        if e.pad is None and e.rank in rows:
            out.append(Argument(e.name, e.name, f"extent:{e.rank}", "row", e.rank))
        elif e.pad is None:
            out.append(
                Argument(e.name, f"{e.name}: tl.int32", f"extent:{e.rank}", "extent", e.rank)
            )
    types = dict(plan.params)
    for param, name in names.params.items():
        kind = types.get(param, DType.INT)
        out.append(
            Argument(
                name, f"{name}: {PARAM_TYPES[kind]}", f"param:{param}", f"param_{kind.value}", param
            )
        )
    for e in names.extents.values():
        if e.pad is not None:
            out.append(
                Argument(e.name, f"{e.name}: tl.constexpr", f"extent:{e.rank}", "full", e.rank)
            )
            out.append(Argument(e.pad, f"{e.pad}: tl.constexpr", f"pad:{e.rank}", "pad", e.rank))
    for axis, block in names.blocks.items():
        out.append(Argument(block, f"{block}: tl.constexpr", f"block:{axis}", "block", axis))
    for like, name in names.types.items():
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
