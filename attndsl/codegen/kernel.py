"""One tile program as the body of a Triton kernel: lines of code, section by section.

What a kernel takes and how things are called is in `kernel_names`, lines and variables in `kernel_lines`. On those
stand `kernel_addresses` with `kernel_memory`, `kernel_products` and `kernel_loops`; here each statement finds its own.
"""

from __future__ import annotations

from contextlib import ExitStack

from attndsl.cascade.nodes import DType
from attndsl.codegen.exprs import Text
from attndsl.codegen.kernel_loops import KernelLoops
from attndsl.codegen.kernel_memory import KernelMemory
from attndsl.codegen.kernel_names import Value
from attndsl.codegen.kernel_products import KernelProducts
from attndsl.codegen.programs import TILED
from attndsl.schedule.tile import (
    AccDot,
    Across,
    Assign,
    Compute,
    Declare,
    Dot,
    Fence,
    Fold,
    For,
    Load,
    Pick,
    Reach,
    Role,
    Scan,
    Scatter,
    Solve,
    Stmt,
    Store,
    TileReach,
)


class KernelPrinter(KernelMemory, KernelProducts, KernelLoops):
    """Prints the statements of one program. `sections` and the argument lists are complete after `run`."""

    __slots__ = ()

    def run(self) -> None:
        """Print the whole program."""
        self._prologue()
        self._body(self.program.prologue)
        prologue = self._lines
        self._lines = []
        self._rounds()
        sweep = self._lines
        self._lines = []
        self._body(self.program.epilogue)
        epilogue = self._lines
        self._lines = self._program_id() + self._positions()
        self._section("program")
        self._lines = self._top
        self._section("pointers")
        for title, lines in (
            ("prologue", prologue),
            (f"sweep over {self.program.sweep.axis}" if self.program.sweep else "sweep", sweep),
            ("epilogue", epilogue),
        ):
            self._lines = lines
            self._section(title)
        self.sections = [s for s in self.sections if s.lines]

    def _program_id(self) -> list[str]:
        """Which point of the grid this program is: tiles fastest, then the batch indices from last to first."""
        program = self.program
        tiles, points = program.of(Role.TILE), program.of(Role.GRID)
        out: list[str] = []
        order = [*reversed(tiles), *reversed(points)]
        out.append("pid = tl.program_id(0)")
        for k, axis in enumerate(order):
            last = k == len(order) - 1
            extent = self.extents[axis.rank].name
            if axis.role is Role.TILE:
                count = self.names.fresh(f"tiles_{axis.name}")
                block, origin = self.blocks[axis.name], self._origins[axis.name]
                for other in program.paired(axis):
                    extent = f"tl.maximum({extent}, {self.extents[other].name})"
                out.append(f"{count} = tl.cdiv({extent}, {block})")
                mine = "pid" if last else f"pid % {count}"
                if program.order == "reverse":
                    mine = f"{count} - 1 - {mine}"
                out.append(f"{origin} = {mine if mine == 'pid' else f'({mine})'} * {block}")
                extent = count
            else:
                out.append(f"{self._axes[axis.name]} = {'pid' if last else f'pid % {extent}'}")
            if not last:
                out.append(f"pid = pid // {extent}")
        if not order:
            out.clear()
        return out

    def _positions(self) -> list[str]:
        """The positions inside tiles, axis by axis."""
        out: list[str] = []
        for axis in self.program.axes:
            name = self._axes[axis.name]
            if axis.role in TILED:
                offs = self._offsets[axis.name]
                out.append(f"{offs} = tl.arange(0, {self.blocks[axis.name]})")
                if axis.role is Role.TILE:
                    out.append(f"{name} = {self._origins[axis.name]} + {offs}")
            elif axis.role is Role.BAND:
                band = self.bands[axis.name]
                a, b = (self.blocks[x] for x in self.program.banded())
                out.append(f"{band}: tl.constexpr = 2 * ({a} if {a} > {b} else {b})")
                out.append(f"{name} = tl.arange(0, {band})")
            elif axis.role is Role.FULL:
                out.append(f"{name} = tl.arange(0, {self.extents[axis.rank].pad})")
        return out

    def _prologue(self) -> None:
        for param, name in self.params.items():
            match dict(self.plan.params).get(param):
                case DType.FLOAT:
                    self._top.append(f"{name} = tl.cast({name}, ACC)")
                case DType.BOOL:
                    self._top.append(f"{name} = {name} != 0")

    def _statement(self, s: Stmt) -> None:
        match s:
            case Compute():
                text = self._printer.cast(self._printer.print(s.expr, s.safe), s.dtype)
                zero = frozenset(d for d in s.dims if self._vanishes(s.expr, d))
                self._define(s.name, text, zero)
            case Load():
                self._load(s)
            case Dot() if len(s.dims) == 1:
                self._times_vector(s)
            case Dot():
                halves = self._by_halves(s, s.dims, "None")
                fn, parts = halves or (self._product(s), self._factors(s, s.dims, "None"))
                code = f"{fn}({', '.join(parts)})"
                zero = frozenset(
                    d
                    for d, v in zip(s.dims, (s.left, s.right), strict=True)
                    if d in self._values[v].zero
                )
                self._define(s.name, Text(code, s.dims, DType.FLOAT), zero)
            case Fold():
                self._fold(s)
            case Scan():
                self._scan(s)
            case Pick():
                self._pick(s)
            case Solve():
                self._solve(s)
            case Declare():
                text = self._printer.cast(self._printer.print(s.expr), s.dtype)
                self._define(s.name, self._filled(text, s.dims, s.dtype), frozenset())
                self._values[s.name].text = Text(self._values[s.name].text.code, s.dims, s.dtype)
            case Assign():
                old = self._values[s.name].text
                text = self._printer.cast(self._printer.print(s.expr), old.kind)
                if text.dims != old.dims:
                    text = self._filled(text, old.dims, old.kind)
                self._emit(f"{old.code} = {self._printer.value(text).code}")
            case AccDot():
                old = self._values[s.name].text
                acc = old.code
                if s.scale is not None:
                    scale = self._printer.number(self._values[s.scale].text)
                    acc = f"{acc} * {self.broadcast(scale, old.dims)}"
                halves = self._by_halves(s, old.dims, acc)
                fn, factors = halves or (self._product(s), self._factors(s, old.dims, acc))
                self._emit_call(f"{old.code} = ", fn, factors)
            case For():
                self._points(s)
            case Fence():
                self._emit("tl.debug_barrier()")
            case Store():
                self._store(s)
            case Scatter():
                self._scatter(s)
            case Across():
                self._across(s)
            case Reach():
                self._reach(s)
            case TileReach():
                self._tile_reach(s)

    def _across(self, s: Across) -> None:
        """A product of two tiles, added to memory; whether the tile reaches past its end, its mask says."""
        value = self._values[s.left]
        pointers, mask = self._access(s)
        stream, full = pointers.dims
        if s.over not in value.zero:  # nothing is asked of the last tile's rest so far
            dims = value.text.dims
            kept = self._mask((s.over,), dims)
            code = f"tl.where({kept}, {self._printer.number(value.text).code}, 0.0)"
            value = Value(self.part(Text(code, dims, DType.FLOAT)), value.zero | {s.over})
            self._values[s.left] = value
        a = self._operand(s.left, stream, s, first=True)
        b = self._operand(s.right, full, s, first=False)
        product = self.part(
            Text(f"{self._product(s)}({a}, {b}, None, ACC)", pointers.dims, DType.FLOAT)
        )
        arguments = [pointers.code, product.code]
        arguments += ([] if mask is None else [f"mask={mask}"]) + ['sem="relaxed"']
        self._emit_call("", "tl.atomic_add", arguments)

    def _points(self, s: For) -> None:
        """A loop over points, left out where nothing uses what it makes."""
        with ExitStack() as inside:
            if s.guard is not None:
                self._emit(f"if {self._values[s.guard].text.code}:")
                inside.enter_context(self._nested())
            if s.lo is not None and s.hi is not None:
                self._positions_of(s, s.lo, s.hi)
                return
            rank = self.program.axis(s.axis).rank
            self._emit(f"for {self._axes[s.axis]} in range({self.extents[rank].name}):")
            with self._nested():
                self._body(s.body)

    def _positions_of(self, s: For, lo: str, hi: str) -> None:
        """A loop over positions of a sequence; one from the last counts its steps."""
        axis = self._axes[s.axis]
        turn = self.names.fresh("step") if s.down else axis
        self._emit(f"for {turn} in range({self._scalar(lo)}, {self._scalar(hi)}):")
        with self._nested():
            # A number of Python's own in Triton's interpreter.
            self._emit(f"{axis} = tl.cast({turn}, tl.int32)")
            if s.down:
                first, end = (self._values[n].text.code for n in (lo, hi))
                self._emit(f"{axis} = {end} - 1 - ({axis} - {first})")
            self._line = None
            self._body(s.body)
