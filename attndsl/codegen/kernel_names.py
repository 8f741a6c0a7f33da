"""What a kernel takes, and what its arguments, axes and values are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from attndsl.cascade.nodes import DType, Expr, Extent, Param, Position
from attndsl.cascade.walk import walk
from attndsl.codegen.exprs import Text, broadcast
from attndsl.codegen.halves import in_halves
from attndsl.codegen.names import Namespace
from attndsl.codegen.programs import BLOCKED, STRIDED, TILED, expressions, lone, statements
from attndsl.schedule.tile import (
    SIXTEEN,
    AccDot,
    Across,
    Block,
    Buffer,
    Compute,
    Declare,
    Dot,
    Epsilon,
    Fold,
    Load,
    Origin,
    Pick,
    Plan,
    Reach,
    Role,
    Scan,
    Scatter,
    Solve,
    Span,
    Store,
    TileProgram,
    Val,
)


@dataclass(frozen=True, slots=True)
class Stride:
    """A stride argument: of `axis` of `tensor`.

    `wide` ones only ever multiply scalars, and are 64-bit. `free` ones may have any value without a new compilation:
    those of tensors that are not read in rows of memory, where the alignment of a row decides how wide the loads are.
    """

    name: str
    tensor: str
    axis: int
    wide: bool
    free: bool


@dataclass(frozen=True, slots=True)
class Tiles:
    """An argument that says how the copy engine finds tiles of `tensor`: `block` points of `axis`, `row` of the last.

    `row` is a block too, or the rank that a row holds whole.
    """

    name: str
    tensor: str
    axis: int
    block: str
    row: str


@dataclass(frozen=True, slots=True)
class Reaches:
    """An argument with what is found before the kernel: where the ids of each tile stand in another tensor of ids.

    Two tensors with their axes: for each rank of the grid along which one of them differs, then for the tile or the
    stream; None where a tensor lacks a rank. Then these ranks, and the blocks of the tile and of the stream.
    """

    name: str
    tensors: tuple[str, str]
    axes: tuple[tuple[int | None, ...], tuple[int | None, ...]]
    ranks: tuple[str, ...]
    ends: tuple[str, str]
    blocks: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Extents:
    """How the extent of one rank is known in a kernel."""

    rank: str
    name: str
    pad: str | None  # the name of the padded extent, if the rank is known at compile time


@dataclass(frozen=True, slots=True)
class Section:
    """Lines of a kernel under one heading."""

    title: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class Value:
    """A value that the kernel has computed."""

    text: Text
    zero: frozenset[str] = frozenset()  # axes past whose end the value is 0
    tensor: str | None = None  # the tensor from which it was loaded


@dataclass(slots=True)
class KernelNames(ABC):
    """The names of one kernel: what its expressions and statements ask for (`exprs.Symbols`)."""

    plan: Plan
    program: TileProgram
    names: Namespace
    helpers: set[str]
    sections: list[Section] = field(default_factory=list)
    pointers: dict[str, str] = field(default_factory=dict)
    strides: dict[tuple[str, int], Stride] = field(default_factory=dict)
    extents: dict[str, Extents] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    bands: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    bounds: dict[tuple[str, int], str] = field(default_factory=dict)
    reaches: dict[tuple[object, ...], Reaches] = field(default_factory=dict)
    tiles: dict[tuple[str, str, str], Tiles] = field(default_factory=dict)
    halves: frozenset[str] = frozenset()  # loads that may come in halves (`apart`)
    scales: dict[str, Tiles] = field(default_factory=dict)  # of such tensors, the scales of rows
    _axes: dict[str, str] = field(default_factory=dict)
    _offsets: dict[str, str] = field(default_factory=dict)
    _origins: dict[str, str] = field(default_factory=dict)
    _values: dict[str, Value] = field(default_factory=dict)
    _top: list[str] = field(default_factory=list)
    _shared: dict[tuple[object, ...], str] = field(default_factory=dict)
    _masks: list[dict[str, str]] = field(default_factory=lambda: [{}])
    _lines: list[str] = field(default_factory=list)
    _indent: int = 0
    _masked: bool = False  # whether tiles may reach past the end
    _line: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        self.halves = in_halves(self.plan, self.program)
        self._name_tensors()
        self._name_extents()
        for param in self.program.params:
            self.params[param] = self.names.fresh(param)
        self._name_axes()

    def _name_tensors(self) -> None:
        program, fresh = self.program, self.names.fresh
        for name in dict.fromkeys((*program.reads, *program.writes)):
            self.pointers[name] = fresh(f"{name}_ptr")
        narrow: set[tuple[str, int]] = set()
        in_rows: set[str] = set()
        for s in statements(program):
            if isinstance(s, Load | Store | Scatter | Across):
                for k, sub in enumerate(s.subs):
                    if self._free(sub) & self._blocked():
                        narrow.add((s.tensor, k))
                    axis = lone(sub, program)
                    if axis is not None and axis.role is Role.FULL:
                        in_rows.add(s.tensor)
        for name in self.pointers:
            buffer = self.plan.buffer(name)
            if buffer.kind is STRIDED:
                for k, rank in enumerate(buffer.ranks):
                    stride = fresh(f"stride_{name}_{rank}")
                    wide = (name, k) not in narrow
                    self.strides[name, k] = Stride(
                        stride, name, k, wide, wide and name not in in_rows
                    )

    def _name_extents(self) -> None:
        program, fresh = self.program, self.names.fresh
        full = {a.rank for a in program.axes if a.role in (Role.FULL, Role.POINT)}
        ranks = [a.rank for a in program.axes]
        ranks += [
            n.rank
            for s in statements(program)
            for e in expressions(s)
            for n in walk(e)
            if isinstance(n, Extent)
        ]
        for name in self.pointers:
            buffer = self.plan.buffer(name)
            ranks += buffer.ranks[1:] if buffer.kind is not STRIDED else ()
        for s in statements(program):
            if isinstance(s, Reach):
                ranks += self.plan.buffer(s.tensor).ranks
        for rank in dict.fromkeys(ranks):
            if rank in full:
                upper = fresh(rank.upper())
                self.extents[rank] = Extents(rank, upper, fresh(f"{upper}_PAD"))
            else:
                self.extents[rank] = Extents(rank, fresh(f"len_{rank}"), None)

    def _name_axes(self) -> None:
        program, fresh = self.program, self.names.fresh
        for axis in program.axes:
            if axis.role is Role.PAIR:
                continue
            self._axes[axis.name] = fresh(axis.name)
            if axis.role in TILED:
                self.blocks[axis.name] = fresh(f"BLOCK_{axis.name.upper()}")
                self._origins[axis.name] = fresh(f"{axis.name}0")
                self._offsets[axis.name] = fresh(f"offs_{axis.name}")
            elif axis.role is Role.BAND:
                self.bands[axis.name] = fresh(axis.name.upper())
                self._offsets[axis.name] = self._axes[axis.name]
            elif axis.role is Role.FULL:
                self._offsets[axis.name] = self._axes[axis.name]
        for axis in program.of(Role.PAIR):
            stream = self._stands_for(axis.name)
            for known in (self._axes, self._origins, self._offsets):
                known[axis.name] = known[stream]

    def _stands_for(self, axis: str) -> str:
        """The axis whose block and positions an axis has."""
        return self.program.stands_for(axis)

    def _blocked(self) -> frozenset[str]:
        return frozenset(a.name for a in self.program.axes if a.role in BLOCKED)

    def _free(self, e: Expr) -> frozenset[str]:
        """The axes that an expression spans, as far as its positions say; a value spans whatever it spans."""
        out: set[str] = set()
        for n in walk(e):
            if isinstance(n, Position):
                out.add(n.name)
            elif isinstance(n, Val):
                out |= set(self._declared(n.name))
        return frozenset(out)

    def _declared(self, name: str) -> tuple[str, ...]:
        for s in statements(self.program):
            if (
                isinstance(s, Compute | Load | Dot | Fold | Scan | Pick | Solve | Declare)
                and s.name == name
            ):
                return s.dims
        return ()

    # --- Symbols: what expressions ask for ----------------------------------------------------------------------------

    def leaf(self, e: Val | Param | Extent | Position | Block | Origin | Epsilon | Span) -> Text:
        match e:
            case Val():
                return self._values[e.name].text
            case Param():
                kind = dict(self.plan.params).get(e.name, DType.INT)
                return Text(self.params[e.name], (), kind)
            case Extent():
                known = self.extents[e.rank]
                return Text(known.name, (), DType.INT, static=known.pad is not None, natural=True)
            case Position():
                axis = self.program.axis(e.name)
                dims = (axis.name,) if axis.role in BLOCKED else ()
                counted = axis.role is Role.POINT
                return Text(self._axes[axis.name], dims, DType.INT, natural=True, counted=counted)
            case Block():
                name = self.blocks[self._stands_for(e.axis)]
                return Text(name, (), DType.INT, static=True, natural=True)
            case Origin():
                return Text(self._origins[e.axis], (), DType.INT, natural=True)
            case Epsilon():
                return Text(f"{self.use('epsilon')}(ACC)", (), DType.FLOAT)
            case Span():
                return Text(f"{self.use('span')}({self._storage(e.like)})", (), DType.FLOAT)

    def order(self, dims: frozenset[str]) -> tuple[str, ...]:
        return tuple(a.name for a in self.program.axes if a.name in dims)

    def broadcast(self, text: Text, dims: tuple[str, ...]) -> str:
        """`text` at the axes `dims`; a dialect with layouts also moves it there."""
        return broadcast(text, dims)

    @abstractmethod
    def part(self, text: Text, name: str = "t") -> Text:
        """A part of an expression as a variable of its own."""

    def use(self, helper: str) -> str:
        self.helpers.add(helper)
        return helper

    def _spans(self, e: Expr) -> frozenset[str]:
        out: set[str] = set()
        for n in walk(e):
            if isinstance(n, Position):
                out.add(n.name)
            elif isinstance(n, Val):
                out |= set(self._values[n.name].text.dims)
        return frozenset(out)

    def storage(self) -> str | None:
        """The element type of the first product's operands, as text."""
        likes = [s.like for s in statements(self.program) if isinstance(s, Dot | AccDot)]
        if likes and likes[0] in self.plan.eight:
            return (
                "tl.bfloat16"  # which functions are exact enough beside, is beside fewer digits too
            )
        return self._storage(likes[0]) if likes else None

    def _storage(self, like: str) -> str:
        """The element type of a tensor: that of an argument of this kernel, or an argument of its own."""
        if like == SIXTEEN:
            return "tl.bfloat16"
        for name, pointer in self.pointers.items():
            if like in (name, self.plan.buffer(name).like):
                return f"{pointer}.dtype.element_ty"
        if like not in self.types:
            self.types[like] = self.names.fresh(f"{like}_TYPE")
        return self.types[like]

    def _stride(self, buffer: Buffer, axis: int) -> str:
        """The stride of an axis as text; compiler's own buffers are contiguous."""
        if buffer.kind is STRIDED:
            return self.strides[buffer.name, axis].name
        behind = [self.extents[r].name for r in buffer.ranks[axis + 1 :]]
        return " * ".join(behind) or "1"
