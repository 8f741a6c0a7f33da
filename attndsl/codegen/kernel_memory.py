"""Loads and stores of a kernel: addresses, tiles that the copy engine moves, and fixed-point sums."""

from __future__ import annotations

import dataclasses

from attndsl.cascade.nodes import Const, DType, Expr, Position
from attndsl.codegen.exprs import Text
from attndsl.codegen.kernel_addresses import KernelAddresses
from attndsl.codegen.kernel_names import Reaches, Tiles, Value
from attndsl.codegen.programs import is_gather, lone, tile_axes
from attndsl.schedule.diagonals import diagonal_subs
from attndsl.schedule.tile import Load, Reach, Role, Scatter, Store, TileReach, Val


class KernelMemory(KernelAddresses):
    """Prints what reads and writes tensors."""

    __slots__ = ()

    def _load(self, s: Load) -> None:
        pointers, mask = self._access(s)
        dims = pointers.dims
        if s.guard is not None:
            dims = self.order(frozenset({*dims, *self._values[s.guard].text.dims}))
        zero = frozenset(d for d in dims if d in s.bounds or self.program.axis(d).role is Role.FULL)
        name = self._name(s.name)
        tiles = self._tiles(s, pointers.dims)
        if tiles is not None:
            at = ", ".join(self._corner(sub) for sub in s.subs)
            arguments = [pointers.code, str(mask), tiles.name, f"[{at}]"]
            if s.name in self.halves:
                arguments.append(self._scales(tiles))
            fn = "load_halves" if s.name in self.halves else "load_tile"
            self._emit_call(f"{name} = ", self.use(fn), arguments)
        elif mask is None and pointers.dims == dims and is_gather(self.plan, self.program, s):
            self._emit_call(f"{name} = ", self.use("gather"), [pointers.code])
        else:
            other = "0.0" if s.dtype is DType.FLOAT else "0"
            arguments = [self._spread(pointers, dims)]
            arguments += [] if mask is None else [f"mask={mask}", f"other={other}"]
            self._emit_call(f"{name} = ", "tl.load", arguments)
        text = Text(name, dims, s.dtype, stored=s.dtype is DType.FLOAT)
        self._values[s.name] = Value(text, zero, s.tensor)

    def _tiles(self, s: Load, dims: tuple[str, ...]) -> Tiles | None:
        """The argument by which the copy engine can load this tile, if it can."""
        found = tile_axes(self.plan, self.program, s)
        if found is None or dims != tuple(a.name for _, a in found):
            return None
        (k, block), (_, row) = found
        key = (s.tensor, block.name, row.name)
        if key not in self.tiles:
            name = self.names.fresh(f"{s.tensor}_tiles")
            wide = self.blocks.get(row.name, row.rank)
            rows = self.blocks[self._stands_for(block.name)]
            self.tiles[key] = Tiles(name, s.tensor, k, rows, wide)
        return self.tiles[key]

    def _scales(self, tiles: Tiles) -> str:
        """The argument that finds the scales of the rows of such tiles."""
        if tiles.name not in self.scales:
            name = self.names.fresh(f"{tiles.tensor}_scales")
            self.scales[tiles.name] = dataclasses.replace(tiles, name=name)
        return self.scales[tiles.name].name

    def _corner(self, sub: Expr) -> str:
        """The first position along one axis of a tile."""
        axis = lone(sub, self.program)
        if axis is not None:
            return self._origins.get(axis.name, "0")
        code = self._printer.cast(self._printer.print(sub), DType.INT).code
        return code if isinstance(sub, Position | Const) else f"tl.cast({code}, tl.int32)"

    def _reach(self, s: Reach) -> None:
        """Look the tile's ids up among the least and greatest id of every block of the stream."""
        k = next(k for k, x in enumerate(s.subs) if x == Position(s.axis))
        buffer = self.plan.buffer(s.tensor)
        at, count = "0", "1"
        for other, sub in enumerate(s.subs):
            if other == k:
                continue
            code = self._printer.cast(self._printer.print(sub), DType.INT).at(5)
            length = self.extents[buffer.ranks[other]].name
            at = code if at == "0" else f"({at}) * {length} + {code}"
            count = length if count == "1" else f"{count} * {length}"
        bounds = self.bounds.setdefault((s.tensor, k), self.names.fresh(f"{s.tensor}_bounds_ptr"))
        names = [self._name(n) for n in (s.low, s.high, s.full_low, s.full_high)]
        arguments = [
            bounds,
            at,
            count,
            self.extents[self.program.axis(s.axis).rank].name,
            self._values[s.first].text.code,
            self._values[s.last].text.code,
            self.blocks[s.axis],
        ]
        self._emit_call(f"{', '.join(names)} = ", self.use("reach"), arguments)
        for value, name in zip((s.low, s.high, s.full_low, s.full_high), names, strict=True):
            self._values[value] = Value(Text(name, (), DType.INT))

    def _tile_reach(self, s: TileReach) -> None:
        """Load what was found for the tile before the kernel."""
        program = self.program
        used = {*s.subs, *s.of_subs}
        grid = [a for a in program.of(Role.GRID) if Position(a.name) in used]
        ends = (program.axis(s.tile), program.axis(s.axis))
        key = (s.of, s.of_subs, s.tensor, s.subs)
        if key not in self.reaches:

            def places(subs: tuple[Expr, ...], end: str) -> tuple[int | None, ...]:
                named = {x.name: k for k, x in enumerate(subs) if isinstance(x, Position)}
                return tuple(named.get(n) for n in (*(a.name for a in grid), end))

            self.reaches[key] = Reaches(
                self.names.fresh(f"{s.tensor}_reach_ptr"),
                (s.of, s.tensor),
                (places(s.of_subs, s.tile), places(s.subs, s.axis)),
                tuple(a.rank for a in grid),
                (ends[0].rank, ends[1].rank),
                (self.blocks[s.tile], self.blocks[s.axis]),
            )
        row = "0"
        for a in grid:
            at = self._axes[a.name]
            row = at if row == "0" else f"({row}) * {self.extents[a.rank].name} + {at}"
        block = self.blocks[s.tile]
        tile = f"{self._origins[s.tile]} // {block}"
        tiles = f"tl.cdiv({self.extents[ends[0].rank].name}, {block})"
        names = [self._name(n) for n in (s.low, s.high, s.full_low, s.full_high)]
        arguments = [self.reaches[key].name, row, tile, tiles]
        self._emit_call(f"{', '.join(names)} = ", self.use("reach_of_tile"), arguments)
        for value, name in zip((s.low, s.high, s.full_low, s.full_high), names, strict=True):
            self._values[value] = Value(Text(name, (), DType.INT))

    def _spread(self, pointers: Text, dims: tuple[str, ...]) -> str:
        """Pointers at `dims`: a mask or values wider than an address do not widen it by themselves."""
        if pointers.dims == dims:
            return pointers.code
        return f"{self.broadcast(pointers, dims)} + tl.zeros({self._shape(dims)}, tl.int32)"

    def _store(self, s: Store) -> None:
        pointers, mask = self._access(s)
        value = self._printer.value(self._values[s.value].text)
        code = self.broadcast(value, pointers.dims) if len(pointers.dims) > 1 else value.code
        arguments = [pointers.code, code] + ([] if mask is None else [f"mask={mask}"])
        self._emit_call("", "tl.store", arguments)

    def _scatter(self, s: Scatter) -> None:
        along = diagonal_subs(self.program, s)
        if along is not None:
            self._scatter_diagonals(s, along)
            return
        value = self._printer.number(self._values[s.value].text)
        pointers, mask = self._access(s, value.dims)
        dims = self.order(frozenset({*pointers.dims, *value.dims}))
        scale = self._printer.number(self._values[s.scale].text)
        fixed = self.use("fixed_point")
        code = f"{fixed}({self.broadcast(value, dims)}, {self.broadcast(scale, dims)})"
        amount = self.part(Text(code, dims, DType.INT)).code
        arguments = [self._spread(pointers, dims), amount]
        arguments += ([] if mask is None else [f"mask={mask}"]) + ['sem="relaxed"']
        self._emit_call("", "tl.atomic_add", arguments)

    def _scatter_diagonals(self, s: Scatter, subs: tuple[Expr, ...]) -> None:
        """Terms whose diagonal says where they go: a diagonal's are added up first, always in the same order.

        Diagonals are numbered by the row at which they meet the tile's first column, in stretches of its width.
        """
        value = self._printer.number(self._values[s.value].text)
        row, column = value.dims
        scale = self._printer.number(self._values[s.scale].text)
        inside = self._mask({d for d in value.dims if d in s.bounds}, value.dims, s.guard)
        code = value.code if inside is None else f"tl.where({inside}, {value.code}, 0.0)"
        skewed = self.part(Text(f"{self.use('skewed')}({code})", value.dims, DType.FLOAT)).code
        rows, columns = self.blocks[row], self.blocks[column]
        part = self.names.fresh("stretch")
        self._emit(f"for {part} in tl.static_range(({rows} + {columns} - 2) // {columns} + 1):")
        self._indent += 1
        kept = self._axes[row]
        self._axes[row] = self.names.fresh(f"{row}_diagonal")
        first = f"{self._origins[row]} + ({part} - 1) * {columns} + 1"
        self._emit(f"{self._axes[row]} = {first} + {self._offsets[column]}")
        sums = f"{self.use('diagonals')}({skewed}, {part})"
        code = f"{self.use('fixed_point')}({sums}, {scale.code})"
        amount = self.part(Text(code, (row,), DType.INT)).code
        places: list[Expr] = []
        for k, sub in enumerate(subs):
            if row in self._spans(sub):
                place = self.part(self._printer.cast(self._printer.print(sub), DType.INT), "at")
                sub = Val(f"{s.tensor}.{k}")
                self._values[sub.name] = Value(place)
            places.append(sub)
        pointers = self._pointers(s.tensor, tuple(places), 48)
        arguments = [pointers.code, amount, f"mask={amount} != 0", 'sem="relaxed"']
        self._emit_call("", "tl.atomic_add", arguments)
        self._axes[row] = kept
        self._indent -= 1
