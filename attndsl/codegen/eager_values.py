"""The values of an eager kernel: their dimensions and kinds, and the lines that define them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from attndsl.cascade.nodes import DType
from attndsl.codegen.eager_exprs import ATOM, Scope, Text, align
from attndsl.codegen.eager_lines import fitted
from attndsl.codegen.eager_names import Names
from attndsl.schedule.tile import Plan, Role, Stmt, TileProgram


@dataclass(slots=True)
class State:
    """What one rendering learns for the next, until nothing changes: see `render_kernel`."""

    walked: set[str] = field(default_factory=set)  # GRID axes that are Python loops
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of declared values
    tensors: set[str] = field(default_factory=set)  # declared values that are not Python numbers


class EagerValues(ABC):
    """Writes lines of Python, and knows the axes and sizes of the values in them."""

    def __init__(self, program: TileProgram, plan: Plan, name: str, state: State) -> None:
        self.program, self.plan, self.name, self.state = program, plan, name, state
        self.names = Names()
        self.lines: list[str] = []
        self.depth = 0
        self.values: dict[str, Text] = {}
        self.loaded: dict[str, str] = {}  # values that are a tensor's own elements
        self.positions: set[str] = set()
        grid = [a.name for a in program.of(Role.GRID)]
        self.grid = tuple(a for a in grid if a not in state.walked)
        self.axes = {a.name: a for a in program.axes}
        self.order = (*self.grid, *(a.name for a in program.axes if a.name not in self.grid))
        for t in program.tensors:
            self.names.of("tensor", t)
        for p in program.params:
            self.names.of("param", p)
        self.kinds = dict(plan.params)
        self.target = "t"

    # --- leaves of expressions ----------------------------------------------------------------------------------------

    def scope(self, safe: bool = False) -> Scope:
        return Scope(
            order=self.order,
            value=lambda v: self.values[v],
            position=self.position,
            extent=self.extent,
            param=lambda p: Text(self.names.of("param", p), self.kinds.get(p, DType.FLOAT)),
            block=self.block_of,
            origin=lambda a: self.names.of("origin", a, f"{a}0"),
            fresh=lambda: self.names.new(f"{self.target}_part"),
            emit=self.emit,
            safe=safe,
        )

    def block_of(self, axis: str) -> str:
        """The block of an axis; a PAIR axis has that of the axis it stands for."""
        axis = self.program.stands_for(axis)
        return self.names.of("block", axis, f"block_{axis}")

    def position(self, axis: str) -> Text:
        if self.scalar(axis):
            return Text(self.names.of("loop", axis, axis), DType.INT)
        self.positions.add(axis)
        return Text(self.names.of("position", axis, f"at_{axis}"), DType.INT, (axis,), False)

    def extent(self, rank: str) -> str:
        return self.names.of("extent", rank, f"n_{rank}")

    def scalar(self, axis: str) -> bool:
        """Whether a Python loop walks the points of an axis one by one."""
        role = self.axes[axis].role
        return role in (Role.LOOP, Role.POINT, Role.WALK) or (
            role is Role.GRID and axis not in self.grid
        )

    def tiled(self, axis: str) -> bool:
        return self.axes[axis].role in (Role.TILE, Role.STREAM, Role.PAIR)

    def ends(self, axis: str) -> tuple[str, str]:
        return self.names.of("origin", axis, f"{axis}0"), self.names.of("end", axis, f"{axis}1")

    def size(self, axis: str) -> str:
        if self.tiled(axis):
            first, end = self.ends(axis)
            return f"{end} - {first}"
        if self.axes[axis].role is Role.BAND:
            return " + ".join(map(self.block_of, self.program.banded()))
        return self.extent(self.axes[axis].rank)

    def shape(self, dims: tuple[str, ...]) -> str:
        sizes = ", ".join(self.size(a) for a in dims)
        return f"({sizes},)" if len(dims) == 1 else f"({sizes})"

    # --- lines --------------------------------------------------------------------------------------------------------

    def emit(self, line: str) -> None:
        indent = 4 * self.depth
        inside = indent + 4  # the template indents the body of the function
        for part in fitted(line, inside, lambda: self.names.new(f"{self.target}_part")):
            self.lines.append(" " * indent + part if part else "")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.emit(head)
        self.depth += 1
        yield
        self.depth -= 1

    @contextmanager
    def indented(self, by: int) -> Iterator[None]:
        self.depth += by
        yield
        self.depth -= by

    def captured(self, action: Callable[[], None]) -> list[str]:
        outer, self.lines = self.lines, []
        action()
        outer, self.lines = self.lines, outer
        return outer

    # --- values -------------------------------------------------------------------------------------------------------

    def define(self, name: str, text: Text) -> None:
        code = self.names.of("value", name)
        if text.code != code:
            self.emit(f"{code} = {text.code}")
        self.values[name] = replace(text, code=code, prec=ATOM)

    def named(self, t: Text) -> Text:
        name = self.names.new(f"{self.target}_at")
        self.emit(f"{name} = {t.code}")
        return replace(t, code=name, prec=ATOM)

    def spread(self, text: Text, dims: tuple[str, ...], dtype: DType) -> Text:
        """A value with all the dimensions and of the kind that its statement declares."""
        if text.host and not dims:
            return text
        if text.host:
            shape, want = self.shape(dims), self.dtype(dtype)
            code = f"torch.full({shape}, {text.code}, dtype={want}, device=device)"
            return Text(code, dtype, dims, False)
        text = self.cast(text, dtype)
        full = self.sorted({*text.dims, *dims})
        if full == text.dims:
            return text
        text = align(text, full)
        return Text(f"{text.at(ATOM)}.expand{self.shape(full)}", text.kind, full, False)

    def cast(self, text: Text, dtype: DType) -> Text:
        if text.host or text.kind is dtype:
            return text
        return Text(f"{text.at(ATOM)}.to({self.dtype(dtype)})", dtype, text.dims, False)

    def dtype(self, kind: DType) -> str:
        return {DType.FLOAT: "acc", DType.INT: "torch.int64", DType.BOOL: "torch.bool"}[kind]

    def sorted(self, axes: set[str]) -> tuple[str, ...]:
        return tuple(a for a in self.order if a in axes)

    # --- statements ---------------------------------------------------------------------------------------------------

    def statements(self, body: tuple[Stmt, ...]) -> None:
        for s in body:
            self.statement(s)

    @abstractmethod
    def statement(self, s: Stmt) -> None:
        """Print one statement."""
