"""The layouts of values in a kernel whose warps specialise.

They follow from the products: a value [tile, stream] has the layout of a score product, a value [tile, full] that of an
accumulator, and a row or column is a slice of one of them. Where a row of scores meets an accumulator it crosses from
one slice to the other; the rows are held by the same threads, so nothing moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from attndsl.cascade.nodes import DType, Position
from attndsl.codegen.exprs import Text, broadcast
from attndsl.codegen.kernel import KernelPrinter
from attndsl.codegen.kernel_names import Tiles
from attndsl.schedule.tile import Fold, Load, Role, Store
from attndsl.schedule.warps import Roles

ROWS = 64  # of the tile, to a group of four warps: what one warp-group product covers


@dataclass(slots=True)
class LayoutPrinter(KernelPrinter):
    """Prints statements as for the portable kernel, with layouts where Gluon wants them."""

    roles: Roles | None = None
    descriptors: dict[str, str] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    _producing: bool = False
    _full_of: dict[str, str] = field(default_factory=dict)

    @property
    def _roles(self) -> Roles:
        assert self.roles is not None
        return self.roles

    def _home(self, dims: tuple[str, ...]) -> str:
        """The layout of values with these axes."""
        tile, stream = self._roles.tile, self._roles.stream
        if self._producing:
            assert dims == (stream,)
            return "COLUMNS"
        if dims == (tile, stream):
            return "SCORES"
        if dims == (tile,):
            return "gl.SliceLayout(1, SCORES)"
        if dims == (stream,):
            return "gl.SliceLayout(0, SCORES)"
        full = dims[-1]
        accumulator = f"SUMS_{self._axes[full].upper()}"
        self._full_of[accumulator] = full
        return accumulator if len(dims) == 2 else f"gl.SliceLayout(0, {accumulator})"

    def broadcast(self, text: Text, dims: tuple[str, ...]) -> str:
        if len(text.dims) == 1 and len(dims) == 2:
            have = self._home(text.dims)
            want = f"gl.SliceLayout({1 - dims.index(text.dims[0])}, {self._home(dims)})"
            if have != want:
                text = Text(f"gl.convert_layout({text.code}, {want})", text.dims, text.kind)
        return broadcast(text, dims)

    def _shape(self, dims: tuple[str, ...]) -> str:
        sizes = [
            str(ROWS)
            if d == self._roles.tile
            else self.blocks.get(d) or str(self.extents[self.program.axis(d).rank].pad)
            for d in dims
        ]
        return f"[{', '.join(sizes)}]"

    def _filled(self, text: Text, dims: tuple[str, ...], kind: DType) -> Text:
        if text.dims == dims or text.dims:
            return KernelPrinter._filled(self, text, dims, kind)
        if not dims:
            return self._printer.value(text)
        dtype = {DType.FLOAT: "ACC", DType.INT: "gl.int32", DType.BOOL: "gl.int1"}[kind]
        code = f"gl.full({self._shape(dims)}, {text.code}, {dtype}, {self._home(dims)})"
        return Text(code, dims, kind)

    def _spread(self, pointers: Text, dims: tuple[str, ...]) -> str:
        if pointers.dims == dims:
            return pointers.code
        zeros = f"gl.zeros({self._shape(dims)}, gl.int32, {self._home(dims)})"
        return f"{self.broadcast(pointers, dims)} + {zeros}"

    def _tiles(self, s: Load, dims: tuple[str, ...]) -> Tiles | None:
        """What consumers load themselves goes straight to registers."""
        return None

    def _inside(self, axis: str) -> str:
        a = self.program.axis(axis)
        if a.role is not Role.FULL:
            return KernelPrinter._inside(self, axis)
        if axis not in self._masks[0]:
            name = self._masks[0][axis] = self.names.fresh(f"in_{axis}")
            self._top.append(f"{name} = {self._axes[axis]} < {self.extents[a.rank].name}")
        return self._masks[0][axis]

    def _fold(self, s: Fold) -> None:
        KernelPrinter._fold(self, s)
        dims = self._values[s.src].text.dims
        if len(dims) == 2 and s.dims and dims != (self._roles.tile, self._roles.stream):
            name = self._values[s.name].text.code
            self._emit(f"{name} = gl.convert_layout({name}, {self._home(s.dims)})")

    def _storage(self, like: str) -> str:
        for tensor, name in self.descriptors.items():
            if like in (tensor, self.plan.buffer(tensor).like):
                return f"{name}.dtype"
        return KernelPrinter._storage(self, like)

    def box(self, load: Load | Store) -> list[str]:
        """The shape of a tile in memory: 1 along what is fixed; of one that was turned, the stream is the last."""
        out = []
        for sub in load.subs:
            name = sub.name if isinstance(sub, Position) else ""
            role = self.program.axis(name).role if name else None
            if role is Role.TILE:
                out.append(str(ROWS))
            elif role is Role.STREAM:
                out.append(self.blocks[name])
            elif role is Role.FULL:
                out.append(str(self.extents[self.program.axis(name).rank].pad))
            else:
                out.append("1")
        return self.turned(load, out)

    def turned(self, load: Load | Store, sides: list[str]) -> list[str]:
        """Something of each axis of a tile's tensor, in the order in which it lies in memory."""
        if getattr(load, "name", "") not in self._roles.turned:
            return sides
        at = load.subs.index(Position(self._roles.stream))
        return [*sides[:at], *sides[at + 1 :], sides[at]]
