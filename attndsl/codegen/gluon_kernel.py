"""One tile program as a Gluon kernel whose warps specialise: three functions that share what a portable kernel does.

The statements are printed as for the portable kernel (`KernelPrinter`); what is added is where they stand (`Roles`) and
the layouts of values, which follow from the products: a value [tile, stream] has the layout of a score product, a value
[tile, full] that of an accumulator, and a row or column is a slice of one of them. Where a row of scores meets an
accumulator it crosses from one slice to the other; the rows are held by the same threads, so nothing moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from attndsl.cascade.nodes import DType, Position
from attndsl.codegen.exprs import ATOM, Text, broadcast
from attndsl.codegen.kernel import KernelPrinter
from attndsl.codegen.kernel_names import Section, Tiles
from attndsl.schedule.tile import AccDot, Fold, Load, Role
from attndsl.schedule.warps import Body, Roles

ROWS = 64  # of the tile, to a group of four warps: what one warp-group product covers


@dataclass(slots=True)
class GluonPrinter(KernelPrinter):
    """Prints the three functions: `main`, `producer` and `consumer` hold their lines after `run_roles`."""

    roles: Roles | None = None
    descriptors: dict[str, str] = field(default_factory=dict)
    main: list[Section] = field(default_factory=list)
    producer: list[str] = field(default_factory=list)
    consumer: list[Section] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    _full_of: dict[str, str] = field(default_factory=dict)
    _coordinates: dict[str, list[str]] = field(default_factory=dict)

    # --- layouts ---------------------------------------------------------------------------------------------------

    @property
    def _roles(self) -> Roles:
        assert self.roles is not None
        return self.roles

    def _home(self, dims: tuple[str, ...]) -> str:
        """The layout of values with these axes."""
        tile, stream = self._roles.tile, self._roles.stream
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

    # --- the functions -----------------------------------------------------------------------------------------------

    def run_roles(self) -> None:
        """Print all three functions."""
        roles = self._roles
        for load in (*roles.resident.values(), *roles.rings.values()):
            self.descriptors.setdefault(load.tensor, "")
        for tensor in self.descriptors:
            self.descriptors[tensor] = self.names.fresh(f"{tensor}_desc")
        self._run_main()
        self._run_producer()
        self._run_consumer()

    def _take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def _run_main(self) -> None:
        self._prologue()
        self._body(self._roles.scalars)
        for name, load in (*self._roles.resident.items(), *self._roles.rings.items()):
            self._coordinates[name] = [self._coordinate(name, s) for s in load.subs]
        self._counts()
        scalars = self._take()
        self.main = [
            Section("program", tuple(self._program_id())),
            Section("scalars", (*self._top, *scalars)),
            Section("shared memory", tuple(self._allocations())),
        ]
        self._top = []

    def _coordinate(self, name: str, sub: object) -> str:
        """Where a tile of memory stands along one axis of its tensor; "" where it moves or is whole."""
        if isinstance(sub, Position) and self.program.axis(sub.name).role in (
            Role.TILE,
            Role.STREAM,
            Role.FULL,
        ):
            return "@" + sub.name
        text = self._printer.cast(self._printer.print(sub), DType.INT)  # type: ignore[arg-type]
        if text.static or isinstance(sub, Position):
            return text.code
        # The copy engine counts in 32 bits; a tensor of ids may not.
        return self.part(replace(text, code=f"tl.cast({text.code}, tl.int32)"), f"{name}_at").code

    def _counts(self) -> None:
        """How many tiles each range has; the unmasked ranges come first, as one stretch of steps."""
        assert self.program.sweep is not None
        block = self.blocks[self._roles.stream]
        ranges = sorted(self.program.sweep.ranges, key=lambda r: r.masked)
        total, place, whole = "0", "", "0"
        for k, r in enumerate(ranges):
            lo, hi = (self._values[n].text.at(ATOM) for n in (r.lo, r.hi))
            # Stages are counted in 32 bits; ends of ranges may be read from a tensor of 64.
            count = f"tl.cast(tl.cdiv(tl.maximum({hi} - {lo}, 0), {block}), tl.int32)"
            name = self.names.fresh("steps")
            self._emit(f"{name} = {count}" if k == 0 else f"{name} = {total} + {count}")
            here = f"{lo} + (t - {total}) * {block}" if k else f"{lo} + t * {block}"
            place = here if not place else f"tl.where(t < {total}, {place}, {here})"
            total = name
            if not r.masked:
                whole = name
        self._emit(f"whole = {whole}")
        # A sweep over nothing still takes one step, in which every pair is masked.
        self._emit(f"total = tl.maximum({total}, 1)")
        self._place = place

    _place: str = ""

    def _allocations(self) -> Iterator[str]:
        roles = self._roles
        for name, load in roles.resident.items():
            shape = ", ".join(["GROUPS", *self.box(load)])
            d = self.descriptors[load.tensor]
            yield f"{name}_tile = gl.allocate_shared_memory({d}.dtype, [{shape}], {d}.layout)"
            self.shared.append(f"{name}_tile")
        yield "ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())"
        yield "mbarrier.init(ready, count=1)"
        self.shared.append("ready")
        for name, load in roles.rings.items():
            shape = ", ".join(["STAGES", *self.box(load)])
            d = self.descriptors[load.tensor]
            yield f"{name}_ring = gl.allocate_shared_memory({d}.dtype, [{shape}], {d}.layout)"
            for what in ("full", "empty"):
                yield (
                    f"{name}_{what} = gl.allocate_shared_memory(gl.int64, [STAGES, 1], "
                    "mbarrier.MBarrierLayout())"
                )
            self.shared += [f"{name}_ring", f"{name}_full", f"{name}_empty"]
        yield "for stage in gl.static_range(STAGES):"
        for name in roles.rings:
            yield f"    mbarrier.init({name}_full.index(stage), count=1)"
            yield f"    mbarrier.init({name}_empty.index(stage), count=GROUPS)"
        yield "fence_async_shared()"

    def box(self, load: Load) -> list[str]:
        """The shape of a tile in memory: 1 along what is fixed."""
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
        return out

    def _matrix(self, load: Load) -> str:
        return ", ".join(b for b in self.box(load) if b != "1")

    def _at(self, name: str, tile: str) -> str:
        out = []
        for c in self._coordinates[name]:
            if not c.startswith("@"):
                out.append(c)
            elif self.program.axis(c[1:]).role is Role.TILE:
                out.append(tile)
            elif self.program.axis(c[1:]).role is Role.STREAM:
                out.append(self._origins[c[1:]])
            else:
                out.append("0")
        return f"[{', '.join(out)}]"

    def _bytes(self, load: Load) -> str:
        return " * ".join([b for b in self.box(load) if b != "1"] + ["2"])

    def _run_producer(self) -> None:
        roles = self._roles
        total = " + ".join(f"GROUPS * {self._bytes(x)}" for x in roles.resident.values())
        emit = self._emit
        emit(f"mbarrier.expect(ready, {total})")
        emit("for group in gl.static_range(GROUPS):")
        for name, load in roles.resident.items():
            at = self._at(name, f"{self._origins[roles.tile]} + group * {ROWS}")
            emit(
                f"    tma_load({self.descriptors[load.tensor]}, {at}, ready, {name}_tile.index(group))"
            )
        emit("for t in range(total):")
        self._indent += 1
        emit("stage = t % STAGES")
        emit("phase = (t // STAGES) & 1")
        emit(f"{self._origins[roles.stream]} = tl.cast({self._place}, tl.int32)")
        for name, load in roles.rings.items():
            full = f"{name}_full.index(stage)"
            emit(f"mbarrier.wait({name}_empty.index(stage), phase ^ 1)")
            emit(f"mbarrier.expect({full}, {self._bytes(load)})")
            emit(
                f"tma_load({self.descriptors[load.tensor]}, {self._at(name, '')}, {full}, "
                f"{name}_ring.index(stage))"
            )
        self._indent -= 1
        self.producer = self._take()

    def _run_consumer(self) -> None:
        roles = self._roles
        self._body(roles.rows)
        rows = self._take()
        masked = next((b for b in roles.bodies if b.masked), roles.bodies[0])
        whole = next((b for b in roles.bodies if not b.masked), None)
        self._emit("mbarrier.wait(ready, 0)")
        self._first(masked)
        first = self._take()
        if whole is not None:
            self._emit("# Tiles without a mask.")
            self._emit("for t in range(1, whole):")
            self._step(whole)
        self._emit("# Tiles that the mask or the end cuts.")
        self._emit("for t in range(tl.maximum(whole, 1), total):")
        self._step(masked)
        loops = self._take()
        self._last(masked)
        last = self._take()
        self._body(self.program.epilogue)
        epilogue = self._take()
        layouts = self._layouts()
        sections = [
            ("layouts", layouts),
            ("positions", [*self._consumer_positions(), *self._top]),
            ("rows", rows),
            ("first tile", first),
            (f"sweep over {roles.stream}", loops),
            ("last product", last),
            ("epilogue", epilogue),
        ]
        self.consumer = [Section(title, tuple(lines)) for title, lines in sections if lines]

    def _layouts(self) -> list[str]:
        for s in self.program.epilogue:
            for d in (getattr(s, "dims", ()),):
                if len(d) == 2:
                    self._home(d)
        for body in self._roles.bodies:
            for acc in body.sums:
                self._home(self._values[acc.name].text.dims)
        block = self.blocks[self._roles.stream]
        out = [
            f"SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {block}, 16])"
        ]
        for name, full in self._full_of.items():
            pad = self.extents[self.program.axis(full).rank].pad
            out.append(
                f"{name}: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {pad}, 16])"
            )
        return out

    def _consumer_positions(self) -> list[str]:
        roles, out = self._roles, []
        tile, stream = roles.tile, roles.stream
        offs, rows = self._offsets[tile], self._home((tile,))
        out.append(f"{offs} = GROUP * {ROWS} + gl.arange(0, {ROWS}, {rows})")
        out.append(f"{self._axes[tile]} = {self._origins[tile]} + {offs}")
        offs = self._offsets[stream]
        columns = self._home((stream,))
        out.append(f"{offs} = gl.arange(0, {self.blocks[stream]}, {columns})")
        for name, full in self._full_of.items():
            pad = self.extents[self.program.axis(full).rank].pad
            out.append(f"{self._axes[full]} = gl.arange(0, {pad}, gl.SliceLayout(0, {name}))")
        return out

    # --- the pipeline ------------------------------------------------------------------------------------------------

    def _score_rings(self, body: Body) -> list[str]:
        return list(dict.fromkeys(d.right for d in body.scores))

    def _sum_rings(self, body: Body) -> list[str]:
        return list(dict.fromkeys(a.right for a in body.sums))

    def _issue_scores(self, body: Body, stage: str) -> None:
        roles = self._roles
        for dot in body.scores:
            left, right = roles.resident[dot.left], roles.rings[dot.right]
            a = f"{dot.left}_tile.index(GROUP).reshape([{self._matrix(left)}])"
            b = f"{dot.right}_ring.index({stage}).reshape([{self._matrix(right)}]).permute((1, 0))"
            zeros = f"gl.zeros({self._shape(dot.dims)}, ACC, SCORES)"
            self._define(
                dot.name,
                Text(
                    f"warpgroup_mma({a}, {b}, {zeros}, use_acc=False, is_async=True)",
                    dot.dims,
                    DType.FLOAT,
                ),
            )

    def _issue_sums(self, body: Body, stage: str) -> None:
        for acc in body.sums:
            name = self._values[acc.name].text.code
            right = self._roles.rings[acc.right]
            b = f"{acc.right}_ring.index({stage}).reshape([{self._matrix(right)}])"
            self._emit(
                f"{name} = warpgroup_mma({self._operand_name(acc)}, {b}, {name}, is_async=True)"
            )

    def _operand_name(self, acc: AccDot) -> str:
        return f"{self._values[acc.name].text.code}_operand"

    def _wait_scores(self, body: Body, left: int) -> None:
        names = [self._values[d.name].text.code for d in body.scores]
        comma = "," if len(names) > 1 else ""
        target = ", ".join(names) if comma else names[0]
        self._emit(f"{target} = warpgroup_mma_wait({left}, deps=[{', '.join(names)}])")

    def _wait_sums(self, body: Body) -> None:
        names: list[str] = []
        for acc in body.sums:
            names += [self._values[acc.name].text.code, self._operand_name(acc)]
        if names:
            self._emit(f"{', '.join(names)} = warpgroup_mma_wait(0, deps=[{', '.join(names)}])")

    def _arrive(self, rings: Sequence[str], stage: str) -> None:
        for name in rings:
            self._emit(f"mbarrier.arrive({name}_empty.index({stage}), count=1)")

    def _middle(self, body: Body) -> None:
        self._emit(f"{self._origins[self._roles.stream]} = {self._place}")
        stream = self._roles.stream
        self._emit(f"{self._axes[stream]} = {self._origins[stream]} + {self._offsets[stream]}")
        self._masks.append({})
        self._line = None
        self._masked = body.masked
        self._body(body.middle)
        self._masked = False
        self._masks.pop()

    def _rescale(self, body: Body) -> None:
        for acc in body.sums:
            if acc.scale is not None:
                old = self._values[acc.name].text
                scale = self._printer.number(self._values[acc.scale].text)
                self._emit(f"{old.code} = {old.code} * {self.broadcast(scale, old.dims)}")

    def _operands(self, body: Body) -> None:
        for acc in body.sums:
            value = self._values[acc.left].text
            home = self._home(self._values[acc.name].text.dims)
            like = self._storage(acc.like)
            self._emit(
                f"{self._operand_name(acc)} = gl.convert_layout({value.at(ATOM)}.to({like}), "
                f"gl.DotOperandLayout(0, {home}, 2))"
            )

    def _first(self, body: Body) -> None:
        """The first tile: nothing of an earlier one is to be multiplied yet."""
        sums = self._sum_rings(body)
        for name in self._score_rings(body):
            self._emit(f"mbarrier.wait({name}_full.index(0), 0)")
        self._issue_scores(body, "0")
        self._wait_scores(body, 0)
        self._arrive([n for n in self._score_rings(body) if n not in sums], "0")
        self._emit("t = 0")
        self._middle(body)
        self._rescale(body)
        self._operands(body)

    def _step(self, body: Body) -> None:
        scores, sums = self._score_rings(body), self._sum_rings(body)
        self._indent += 1
        self._emit("stage, phase = t % STAGES, (t // STAGES) & 1")
        self._emit("last, last_phase = (t - 1) % STAGES, ((t - 1) // STAGES) & 1")
        for name in scores:
            self._emit(f"mbarrier.wait({name}_full.index(stage), phase)")
        for name in sums:
            if name not in scores:
                self._emit(f"mbarrier.wait({name}_full.index(last), last_phase)")
        self._issue_scores(body, "stage")
        self._issue_sums(body, "last")
        self._wait_scores(body, len(body.sums))
        self._arrive([n for n in scores if n not in sums], "stage")
        self._middle(body)
        self._wait_sums(body)
        self._arrive(sums, "last")
        self._rescale(body)
        self._operands(body)
        self._indent -= 1

    def _last(self, body: Body) -> None:
        scores, sums = self._score_rings(body), self._sum_rings(body)
        if not sums:
            return
        self._emit("last, last_phase = (total - 1) % STAGES, ((total - 1) // STAGES) & 1")
        for name in sums:
            if name not in scores:
                self._emit(f"mbarrier.wait({name}_full.index(last), last_phase)")
        self._issue_sums(body, "last")
        self._wait_sums(body)


def used(names: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Those of `names` that occur in `lines`, in order."""
    found = set(re.findall(r"[A-Za-z_]\w*", "\n".join(lines)))
    return [n for n in names if n in found]
