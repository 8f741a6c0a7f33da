"""The lines of a kernel, the variables that they define, and the masks that bound them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from attndsl.cascade.nodes import Binary, Const, DType, Expr, Unary
from attndsl.codegen.exprs import ATOM, ExpressionPrinter, Text
from attndsl.codegen.kernel_names import KernelNames, Section, Value
from attndsl.codegen.programs import BLOCKED
from attndsl.schedule.tile import Block, For, Origin, Role, Stmt, Val


class KernelLines(KernelNames):
    """Writes lines, one after the other, and keeps what is known of the values in them."""

    __slots__ = ()

    @property
    def _printer(self) -> ExpressionPrinter:
        return ExpressionPrinter(self)

    def _emit(self, line: str) -> None:
        self._lines.append("    " * self._indent + line)

    def _emit_call(self, before: str, fn: str, arguments: list[str]) -> None:
        """A call as a statement: on one line, or one argument to a line."""
        line = f"{before}{fn}({', '.join(arguments)})"
        if len(line) + 4 * self._indent + 4 <= 100:
            self._emit(line)
            return
        self._emit(f"{before}{fn}(")
        for argument in arguments:
            self._emit(f"    {argument},")
        self._emit(")")

    @contextmanager
    def _nested(self) -> Iterator[None]:
        """The inside of a loop or a condition; the masks that are computed there are known only there."""
        self._indent += 1
        self._masks.append({})
        yield
        self._masks.pop()
        self._indent -= 1

    def _section(self, title: str) -> None:
        self.sections.append(Section(title, tuple(self._lines)))
        self._lines = []
        self._line = None

    def _source(self, s: Stmt) -> None:
        """A comment with the line of the program that a statement comes from, where it changes."""
        if s.span is None or isinstance(s, For):
            return
        where = (s.span.source.name, s.span.line)
        if where == self._line:
            return
        self._line = where
        name = where[0].rsplit("/", 1)[-1]
        text = s.span.source.line(where[1]).strip()
        comment = f"# {name}:{where[1]}  {text}".rstrip()
        self._emit(comment if len(comment) <= 84 else comment[:81] + "...")

    # --- statements ---------------------------------------------------------------------------------------------------

    def _body(self, body: Sequence[Stmt]) -> None:
        for s in body:
            self._source(s)
            self._statement(s)

    @abstractmethod
    def _statement(self, s: Stmt) -> None:
        """Print one statement."""

    # --- values -------------------------------------------------------------------------------------------------------

    def _name(self, value: str) -> str:
        """The variable of a value; the ranges of a sweep share theirs."""
        known = self._values.get(value)
        return known.text.code if known is not None else self.names.fresh(value)

    def _define(
        self, name: str, text: Text, zero: frozenset[str] = frozenset(), tensor: str | None = None
    ) -> None:
        code = self._name(name)
        self._emit(f"{code} = {text.code}")
        self._values[name] = Value(replace(text, code=code, level=ATOM), zero, tensor)

    def part(self, text: Text, name: str = "t") -> Text:
        name = self.names.fresh(name)
        self._emit(f"{name} = {text.code}")
        return replace(text, code=name, level=ATOM)

    def _shape(self, dims: tuple[str, ...]) -> str:
        sizes = []
        for d in dims:
            axis = self.program.axis(d)
            block = self.blocks.get(self._stands_for(d)) or self.bands.get(d)
            sizes.append(block if block is not None else str(self.extents[axis.rank].pad))
        return f"[{', '.join(sizes)}]"

    def _filled(self, text: Text, dims: tuple[str, ...], kind: DType) -> Text:
        """The value at exactly `dims`."""
        if text.dims == dims:
            return self._printer.value(text) if not dims else text
        if not text.dims:
            dtype = {DType.FLOAT: "ACC", DType.INT: "tl.int32", DType.BOOL: "tl.int1"}[kind]
            return Text(f"tl.full({self._shape(dims)}, {text.code}, {dtype})", dims, kind)
        return Text(
            f"tl.broadcast_to({self.broadcast(text, dims)}, {self._shape(dims)})", dims, kind
        )

    def _vanishes(self, e: Expr | Val | Block | Origin, axis: str) -> bool:
        """Whether an expression is surely 0 past the end of an axis."""
        match e:
            case Val():
                return axis in self._values[e.name].zero
            case Const():
                return e.value == 0
            case Unary(op="-"):
                return self._vanishes(e.arg, axis)
            case Binary(op="*"):
                a, b = self._vanishes(e.left, axis), self._vanishes(e.right, axis)
                # 0 times something unknown may be 0 times inf.
                return (a and (b or axis not in self._spans(e.right))) or (
                    b and axis not in self._spans(e.left)
                )
            case Binary(op="+" | "-"):
                return self._vanishes(e.left, axis) and self._vanishes(e.right, axis)
            case Binary(op="/"):
                return self._vanishes(e.left, axis) and axis not in self._spans(e.right)
        return False

    # --- masks --------------------------------------------------------------------------------------------------------

    def _mask(
        self, bounds: Iterable[str], dims: tuple[str, ...], guard: str | None = None
    ) -> str | None:
        """The condition under which an access is made, spread over `dims`; None where it always is."""
        terms = []
        for axis in self.order(frozenset(bounds)):
            if self.program.axis(axis).role in BLOCKED:
                inside = Text(self._inside(axis), (axis,), DType.BOOL)
                terms.append(self.broadcast(inside, dims) if len(dims) > 1 else inside.code)
        if guard is not None:
            value = self._printer.value(self._values[guard].text)
            terms.append(self.broadcast(value, dims) if len(dims) > 1 else value.code)
        return " & ".join(terms) or None

    def _inside(self, axis: str) -> str:
        """The name of `position < extent`, computed where the axis is first bounded."""
        a = self.program.axis(axis)
        top = a.role in (Role.TILE, Role.FULL)
        for known in self._masks:
            if axis in known:
                return known[axis]
        name = self._shared.setdefault(("inside", axis), self.names.fresh(f"in_{axis}"))
        extent = self.extents[a.rank]
        line = f"{name} = {self._axes[axis]} < {extent.name}"
        if a.role is Role.FULL:
            line = f"{name} = {self.use('within')}({self._axes[axis]}, {extent.name}, {extent.pad})"
        if top:
            self._masks[0][axis] = name
            self._top.append(line)
        else:
            self._masks[-1][axis] = name
            self._emit(line)
        return name
