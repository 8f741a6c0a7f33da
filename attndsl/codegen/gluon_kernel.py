"""One tile program as a Gluon kernel whose warps specialise: three functions that share what a portable kernel does.

The statements are printed as for the portable kernel (`KernelPrinter`); what is added is where they stand (`Roles`),
the layouts of values (`gluon_layouts`) and the order of a step (`gluon_steps`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from attndsl.cascade.nodes import DType, Position
from attndsl.codegen.exprs import ATOM
from attndsl.codegen.gluon_layouts import ROWS
from attndsl.codegen.gluon_own import OwnPrinter
from attndsl.codegen.kernel_names import Section
from attndsl.schedule.apart import kept_apart
from attndsl.schedule.tile import Across, Load, Role, Store


@dataclass(slots=True)
class GluonPrinter(OwnPrinter):
    """Prints the three functions: `main`, `producer` and `consumer` hold their lines after `run_roles`."""

    main: list[Section] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    """What the producer and the consumers compute of a tile before they part; `turn` for each turn around its sweep."""
    turn: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    producer: list[str] = field(default_factory=list)
    adder: list[str] = field(default_factory=list)
    """One more warp, where tiles add to memory: it starts each addition, and waits for it."""
    consumer: list[Section] = field(default_factory=list)
    staged: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By value that leaves: the resident tile whose memory it may take, if their rows are as long, and its rank."""
    _coordinates: dict[str, list[str]] = field(default_factory=dict)

    # --- the functions -----------------------------------------------------------------------------------------------

    def run_roles(self) -> None:
        """Print all three functions."""
        roles = self._roles
        self.find_own()
        for load in (*roles.resident.values(), *roles.also.values(), *roles.rings.values()):
            self.descriptors.setdefault(load.tensor, "")
        for store in roles.stores.values():
            self.descriptors.setdefault(store.tensor, "")
        for add in roles.across:
            self.descriptors.setdefault(add.tensor, "")
        for tensor in self.descriptors:
            self.descriptors[tensor] = self.names.fresh(f"{tensor}_desc")
        self._run_main()
        self._run_producer()
        self._run_adder()
        self._run_consumer()

    def _take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def _run_main(self) -> None:
        """What belongs to one tile: both other functions begin with it. The kernel itself only makes room."""
        self._prologue()
        self.parameters, self._top = self._top, []
        roles = self._roles
        self._body(roles.scalars)
        for name, moved in roles.moved():
            if name not in roles.rings:
                self._coordinates[name] = [self._coordinate(name, s) for s in moved.subs]
        scalars = self._take()
        self.where = [*self._which(), *self._top, *scalars]
        self._top = []
        for loop in self.program.loops:
            self._body([s for s in loop.prologue if not getattr(s, "dims", ())])
        for name, moved in roles.rings.items():
            along = [self._coordinate(name, s) for s in moved.subs]
            self._coordinates[name] = self.turned(moved, along)
        for add in roles.across:
            self._coordinates[add.tensor] = [self._coordinate(add.tensor, s) for s in add.subs]
        self.count_steps()
        self.turn = self._take()
        self.main = [Section("shared memory", tuple(self._allocations()))]

    def _which(self) -> list[str]:
        """Which tile this is. Where they get shorter, a long one and a short one follow each other."""
        roles = self._roles
        axis = self.program.axis(roles.tile)
        count, place = self.names.fresh(f"tiles_{axis.name}"), self.names.fresh("place")
        out = ["pid = tl.program_id(0) + tile * tl.num_programs(0)"]
        if roles.dealt:
            out = ["pid = turn"]
        elif self._roles.listed:
            out = ["pid = tl.load(turns_ptr + (tile + 1) * tl.num_programs(0) + tl.program_id(0))"]
        elif roles.folded:
            out = ["pid = (tl.program_id(0) + tile // run * tl.num_programs(0)) * run + tile % run"]
        out.append(f"{count} = tl.cdiv({self.extents[axis.rank].name}, {self.blocks[axis.name]})")
        forward, backward = place, f"{count} - 1 - {place}"
        if self.program.order == "reverse":
            forward, backward = backward, forward
        out.append(f"{place} = pid % {count}")
        if roles.folded and not roles.listed and not roles.dealt:
            out.append(f"odd, {place} = {place} % run == 1, {place} // run")
            forward = f"tl.where(odd, {backward}, {forward})"
        out.append(f"{self._origins[axis.name]} = ({forward}) * {self.blocks[axis.name]}")
        out.append(f"pid = pid // {count}")
        points = self.program.of(Role.GRID)
        for k, point in enumerate(reversed(points)):
            if k == len(points) - 1:
                out.append(f"{self._axes[point.name]} = pid")
            else:
                extent = self.extents[point.rank].name
                out.append(f"{self._axes[point.name]} = pid % {extent}")
                out.append(f"pid = pid // {extent}")
        return out

    def _every_tile(
        self,
        first: Sequence[str],
        before: Sequence[str],
        sweep: Sequence[str],
        after: Sequence[str] = (),
        turn: tuple[Sequence[str], Sequence[str]] = ((), ()),
        *,
        rings: bool = False,
    ) -> list[str]:
        """A loop over the tiles of this program: `first`, what both functions must know of a tile, then the rest."""
        count = "tl.cdiv(programs - tl.program_id(0), tl.num_programs(0))"
        if self._roles.listed:
            count = "tl.load(turns_ptr + tl.program_id(0))"
        elif self._roles.folded:
            count = "tl.cdiv(programs // run - tl.program_id(0), tl.num_programs(0)) * run"
        inside = [*self.turn, *sweep, "done += total"]
        for loop in reversed(self.program.loops):
            lo, hi = (self._values[n].text.code for n in (loop.lo, loop.hi))
            line = f"for {self._axes[loop.axis]} in range({lo}, {hi}):"
            inside = [line, *("    " + x for x in inside)]
        lines = [*first, *self.where, *before, *inside, *after]
        head = [
            "# Steps are counted over all tiles: rings go round without regard to them.",
            "done = 0",
            *(["stage, phase = STAGES - 1, 1"] if rings and self.counted_on else []),
        ]
        if self._roles.dealt:
            # `turn` is how the first tile is heard of, and each other one.
            head += ["tile = 0", *turn[0]]
            lines += ["tile += 1", *turn[1]]
            return [*head, "while turn < programs:", *("    " + line for line in lines)]
        return [*head, f"for tile in range({count}):", *("    " + line for line in lines)]

    @property
    def _dealer(self) -> str:
        """Where the number of tiles that programs have taken is kept: the first number of what was found of ids."""
        return next(iter(self.reaches.values())).name

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

    def _allocations(self) -> Iterator[str]:
        roles = self._roles
        for name, load in roles.resident.items():
            shape = ", ".join(["GROUPS", *self.box(load)])
            d = self.descriptors[load.tensor]
            yield f"{name}_tile = gl.allocate_shared_memory({d}.dtype, [{shape}], {d}.layout)"
            self.shared.append(f"{name}_tile")
        for name, load in roles.also.items():
            d = self.descriptors[load.tensor]
            room, shape = "GROUPS if COPIED == 1 else 1", ", ".join(self.box(load)[:-1])
            last = f"{self.box(load)[-1]} if COPIED == 1 else 64"
            yield f"{name}_tile = gl.allocate_shared_memory({d}.dtype, [{room}, {shape}, {last}], {d}.layout)"
            self.shared.append(f"{name}_tile")
        yield from self._staging()
        if roles.dealt:
            layout = "gl.SwizzledSharedLayout(1, 1, 1, order=[0])"
            yield f"turn_slot = gl.allocate_shared_memory(gl.int32, [1], {layout})"
            self.shared.append("turn_slot")
        for name, count in (("ready", "2" if roles.dealt else "1"), ("free", "GROUPS")):
            rooms = "GROUPS, 1" if self.groups_alone else "1"
            yield f"{name} = gl.allocate_shared_memory(gl.int64, [{rooms}], mbarrier.MBarrierLayout())"
            if not self.groups_alone:
                yield f"mbarrier.init({name}, count={count})"
            self.shared.append(name)
        if self.groups_alone:
            yield "for group in gl.static_range(GROUPS):"
            yield "    mbarrier.init(ready.index(group), count=1)"
            yield "    mbarrier.init(free.index(group), count=1)"
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
        for name, column in roles.columns.items():
            kind = "ACC"
            if isinstance(column, Load):
                kind = f"{self.pointers[column.tensor]}.dtype.element_ty"
            shape = f"[STAGES, {self.blocks[roles.stream]}]"
            layout = "gl.SwizzledSharedLayout(1, 1, 1, order=[0])"
            yield f"{name}_ring = gl.allocate_shared_memory({kind}, {shape}, {layout})"
            self.shared.append(f"{name}_ring")
        yield from self._exchange()
        yield "for stage in gl.static_range(STAGES):"
        for name in roles.rings:
            also = 2 if name == self.ring_of_columns() else 1
            yield f"    mbarrier.init({name}_full.index(stage), count={also})"
            yield f"    mbarrier.init({name}_empty.index(stage), count=GROUPS)"
        yield "fence_async_shared()"

    def _exchange(self) -> Iterator[str]:
        """What sums in memory pass through: summands of two steps, and what is being added."""
        for add in self._roles.across:
            name, block = self.across_name(add), self.blocks[self._roles.stream]
            d = self.descriptors[self._roles.resident[add.right].tensor]
            layout = f"gl.NVMMASharedLayout.get_default_for([{ROWS}, {block}], {d}.dtype)"
            yield f"{name}_part = gl.allocate_shared_memory({d}.dtype, [4, {ROWS}, {block}], {layout})"
            own, shape = self.descriptors[add.tensor], ", ".join(self.added_box(add))
            yield f"{name}_out = gl.allocate_shared_memory({own}.dtype, [2, {shape}], {own}.layout)"
            self.shared += [f"{name}_part", f"{name}_out"]
            for what, count in (("there", 2), ("made", 1), ("taken", 1)):
                yield f"{name}_{what} = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())"
                yield "for stage in gl.static_range(2):"
                yield f"    mbarrier.init({name}_{what}.index(stage), count={count})"
                self.shared.append(f"{name}_{what}")
            yield f"{name}_swept = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())"
            yield f"mbarrier.init({name}_swept, count=2)"
            self.shared.append(f"{name}_swept")

    def added_box(self, add: Across) -> list[str]:
        """The shape of what a group adds at a time."""
        box = ["1"] * len(add.subs)
        for k, sub in enumerate(add.subs):
            if sub == Position(self._roles.stream):
                box[k] = str(ROWS)
        box[-1] = self.share(add).replace(" ", "")
        return box

    def _run_adder(self) -> None:
        if not self._roles.across:
            return
        emit = self._emit
        emit("for t in range(total):")
        self._indent += 1
        emit(f"{self._origins[self._roles.stream]} = tl.cast({self.place}, tl.int32)")
        for add in self._roles.across:
            name = self.across_name(add)
            stream = self._origins[self._roles.stream]
            at = self._at(add.tensor, "").replace(stream, f"{stream} + {self.first_row('group')}")
            at = at.removesuffix("0]") + f"{self.first_column(add, 'group')}]"
            emit("for group in gl.static_range(2):")
            emit(f"    mbarrier.wait({name}_made.index(group), (done + t) & 1)")
            emit(f"    tma_add({self.descriptors[add.tensor]}, {at}, {name}_out.index(group))")
            emit("for group in gl.static_range(2):")
            emit("    tma.store_wait(1 - group)")
            emit(f"    mbarrier.arrive({name}_taken.index(group), count=1)")
        self._indent -= 1
        self.adder = [*self.parameters, *self._every_tile([], [], self._take())]

    def _staging(self) -> Iterator[str]:
        """Where tiles wait that leave: in the memory of a resident tile of their shape, which is of no use by then."""
        # Of 8 bits what stays is too narrow for what leaves.
        free = {} if self.plan.eight else dict(self._roles.resident)
        for name, store in self._roles.stores.items():
            shape, d = self.box(store), self.descriptors[store.tensor]
            alike = {n: s for n, x in free.items() if _alike(s := self.box(x), shape)}
            chosen = next((n for n, s in alike.items() if s == shape), next(iter(alike), ""))
            free.pop(chosen, None)
            self.staged[name] = (chosen, alike[chosen][-1] if chosen else "")
            made = f"gl.allocate_shared_memory({d}.dtype, [GROUPS, {', '.join(shape)}], {d}.layout)"
            if chosen and alike[chosen] == shape:
                made = f"{chosen}_tile if APART == 0 else {made}"
            elif chosen:
                same = f"(APART == 0) & ({alike[chosen][-1]} == {shape[-1]})"
                made = f"{chosen}_tile if {same} else {made}"
            self.shared.append(f"{name}_out")
            yield f"{name}_out = {made}"

    def _store(self, s: Store) -> None:
        if s is not self._roles.stores.get(s.value):
            OwnPrinter._store(self, s)
            return
        d, place = self.descriptors[s.tensor], f"{s.value}_out.index(GROUP)"
        value = self._printer.value(self._values[s.value].text).at(ATOM)
        at = self._at(s.value, f"{self._origins[self._roles.tile]} + GROUP * {ROWS}")
        self._emit(f"{place}.reshape([{self._matrix(s)}]).store({value}.to({d}.dtype))")
        self._emit("fence_async_shared()")
        self._emit(f"tma_store({d}, {at}, {place})")

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
        size = [] if self.plan.eight else ["2"]
        return " * ".join([b for b in self.box(load) if b != "1"] + size)

    def _run_producer(self) -> None:
        roles = self._roles
        emit = self._emit
        if self.program.loops:
            self._produce_resident()
        before = self._take()
        emit("for t in range(total):")
        self._indent += 1
        emit("stage, phase = (done + t) % STAGES, ((done + t) // STAGES) & 1")
        emit(f"{self._origins[roles.stream]} = tl.cast({self.place}, tl.int32)")
        self._load_columns()
        for name, load in roles.rings.items():
            full = f"{name}_full.index(stage)"
            emit(f"mbarrier.wait({name}_empty.index(stage), phase ^ 1)")
            emit(f"mbarrier.expect({full}, {self._bytes(load)})")
            emit(
                f"tma_load({self.descriptors[load.tensor]}, {self._at(name, '')}, {full}, "
                f"{name}_ring.index(stage))"
            )
        self._store_columns()
        if not self.program.loops:
            # Stages are free before the last tile is: what comes first of the next is on its way by then.
            emit("if t == tl.minimum(STAGES - 3 if STAGES > 3 else 0, total - 1):")
            self._indent += 1
            self._produce_resident()
            self._indent -= 1
        self._indent -= 1
        fixed = []
        if roles.columns:
            offs = self._offsets[roles.stream]
            fixed = [
                "COLUMNS: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])",
                f"{offs} = gl.arange(0, {self.blocks[roles.stream]}, COLUMNS)",
            ]
        # The consumers, printed later, may read from the same base.
        self.where += self._top
        self._top = []
        first, later, end = [], [], []
        if roles.dealt:
            fixed.append("TURN: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])")
            first = [f"turn = {self._asked()}", "later = turn"]
            later = ["turn = later"]
            # Whoever is the last to find nothing leaves all as it was.
            end = [
                "mbarrier.wait(free, tile & 1 ^ 1)",
                *self._tell(),
                "mbarrier.arrive(ready, count=1)",
                "if turn == programs + tl.num_programs(0) - 1:",
                f"    tl.store({self._dealer}, 0)",
            ]
        every = self._every_tile([], before, self._take(), turn=(first, later))
        self.producer = [*self.parameters, *fixed, *every, *end]

    def _asked(self) -> str:
        return f'tl.atomic_add({self._dealer}, 1, sem="relaxed")'

    def _tell(self) -> list[str]:
        """Tell consumers which tile comes: what they read with the tiles that stay."""
        return [
            "turn_slot.store(gl.full([1], turn, gl.int32, TURN))",
            "mbarrier.arrive(ready, count=1)",
        ]

    def _produce_resident(self) -> None:
        """The tiles that stay, as soon as the last ones are of no use."""
        roles = self._roles
        total = " + ".join(map(self._bytes, roles.resident.values()))
        total += "".join(f" + COPIED * {self._bytes(x)}" for x in roles.also.values())
        free, ready, each = "free", "ready", "    "
        if self.groups_alone:
            self._emit("for group in gl.static_range(GROUPS):")
            self._indent += 1
            free, ready, each = "free.index(group)", "ready.index(group)", ""
        else:
            total = f"GROUPS * ({total})" if " + " in total else f"GROUPS * {total}"
        self._emit(f"mbarrier.wait({free}, tile & 1 ^ 1)")
        if roles.dealt:
            for line in self._tell():
                self._emit(line)
        self._emit(f"mbarrier.expect({ready}, {total})")
        if not self.groups_alone:
            self._emit("for group in gl.static_range(GROUPS):")
        for name, load in (*roles.resident.items(), *roles.also.items()):
            at = self._at(name, f"{self._origins[roles.tile]} + group * {ROWS}")
            place = f"{name}_tile.index(group)"
            line = f"tma_load({self.descriptors[load.tensor]}, {at}, {ready}, {place})"
            if name in roles.also:
                self._emit(f"{each}if COPIED == 1:")
                line = "    " + line
            self._emit(each + line)
        if self.groups_alone:
            self._indent -= 1
        if roles.dealt:
            # Asked for while what was brought is worked on.
            self._emit(f"later = {self._asked()}")

    def _load_columns(self) -> None:
        """Vectors of the stream into registers, while a stage is waited for."""
        roles = self._roles
        if not roles.columns:
            return
        self._producing = True
        stream = roles.stream
        self._emit(f"{self._axes[stream]} = {self._origins[stream]} + {self._offsets[stream]}")
        self._masks.append({})
        self._body(tuple(roles.beside.values()))
        self._masks.pop()
        self._producing = False

    def _store_columns(self) -> None:
        """And into shared memory, once the stage is free."""
        columns = self._roles.columns
        for name in columns:
            self._emit(f"{name}_ring.index(stage).store({self._values[name].text.code})")
        if columns:
            self._emit(f"mbarrier.arrive({self.ring_of_columns()}_full.index(stage), count=1)")

    def _run_consumer(self) -> None:
        roles = self._roles
        mine = ".index(GROUP)" if self.groups_alone else ""
        ready = f"mbarrier.wait(ready{mine}, tile & 1)"
        # What is read from shared memory must be there; else rows are computed while tiles are on their way.
        there = any(getattr(s, "name", "") in {**roles.resident, **roles.also} for s in roles.rows)
        if self._one_sum:
            self.apart = kept_apart(self.program, roles.bodies)
        self._body(roles.rows)
        rows = self._take()
        # Where tiles are dealt, `ready` was waited for to hear of this one.
        if not self.issues_first and not roles.dealt:
            rows = [ready, *rows] if there else [*rows, ready]
        masked = next((b for b in roles.bodies if b.masked), roles.bodies[0])
        whole = next((b for b in roles.bodies if not b.masked), None)
        joined = self.joined
        if joined is not None:
            # One loop; what its masks need is computed where they are.
            kept = {id(s) for s in joined.body}
            self.masks = joined.masks
            masked = replace(
                masked,
                early=tuple(s for s in masked.early if id(s) in kept),
                middle=tuple(s for s in masked.middle if id(s) in kept),
            )
            whole = None
        for loop in self.program.loops:
            self._body([s for s in loop.prologue if getattr(s, "dims", ())])
        own = self.own_steps()
        issued: list[str] = []
        if self.issues_first:
            self.issue_first(masked)
            told = [] if roles.dealt else [ready]
            issued = ["# --- first scores ---", *told, *self._take()]
            if own and self.begin != "0":
                # Which scores are the first, the group must find out.
                own, issued, rows = [*own, *issued, "# --- rows ---", *rows], [], []
        self.before_loops(masked)
        first = self._take()
        if joined is not None:
            where = "" if self.own_ends else " come last, and"
            self._emit(f"# Tiles that the mask or the end cuts{where} are masked.")
            self._emit(f"for t in range({self.first_step()}, {self.end}):")
            self.step(masked)
        elif whole is not None:
            self._emit("# Tiles without a mask.")
            self._emit(f"for t in range({self.first_step()}, whole):")
            self.step(whole)
        if joined is None:
            self._emit("# Tiles that the mask or the end cuts.")
            self._emit(f"for t in range(tl.maximum(whole, {self.first_step()}), total):")
            self.step(masked)
        loops = self._take()
        self.after_loops(masked)
        self.join_parts()
        last = self._take()
        behind = self.steps_behind()
        given = (
            f"give_back(free{mine})" if self.counted_on else f"mbarrier.arrive(free{mine}, count=1)"
        )
        if roles.stores:
            self._emit("if APART == 0:")
            self._emit("    tma.store_wait(0)")
            self._emit(f"    mbarrier.arrive(free{mine}, count=1)")
            early = ["if APART == 1:", f"    {given}"]
        else:
            early = [given]
        back = self._take()
        first_out = next((s for s in self.program.epilogue if s in roles.stores.values()), None)
        for s in self.program.epilogue:
            if s is first_out:
                self._emit("# What is still on its way there must have left.")
                self._emit("tma.store_wait(0)")
            self._body((s,))
        epilogue = [*self._take(), *back]
        for add in roles.across:
            # The other group may read the tile still that stays, in whose memory outputs wait.
            name = self.across_name(add)
            meet = ["if APART == 0:", f"    mbarrier.arrive({name}_swept, count=1)"]
            epilogue = [*meet, f"    mbarrier.wait({name}_swept, tile & 1)", *epilogue]
        layouts = self._layouts()
        fixed, moving = self._consumer_positions()
        around = bool(self.program.loops)
        before = [("positions", [*moving, *self._top]), ("rows", rows)]
        sweep = [
            ("this group's steps", own),
            ("first tile", first),
            (f"sweep over {roles.stream}", [*loops, *([] if around else early)]),
            ("last product", last),
            ("steps of other groups", behind),
        ]
        after = [("epilogue", [*(early if around else []), *epilogue])]
        begun, swept, ended = (
            [x for title, part in p if part for x in (f"# --- {title} ---", *part)]
            for p in (before, sweep, after)
        )
        heard = ["mbarrier.wait(ready, tile & 1)", "turn = tl.max(turn_slot.load(ROWS_OF_ONE), 0)"]
        every = self._every_tile(issued, begun, swept, ended, turn=(heard, heard), rings=True)
        if roles.dealt:
            layouts.append("ROWS_OF_ONE: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])")
        self.consumer = [
            Section("layouts", tuple(layouts)),
            Section("positions in tiles", (*self.parameters, *fixed)),
            Section("every tile", tuple(every)),
        ]
        if roles.stores:
            self.consumer.append(Section("the last ones out", ("tma.store_wait(0)",)))

    def _layouts(self) -> list[str]:
        for s in self.program.epilogue:
            for d in (getattr(s, "dims", ()),):
                if len(d) == 2:
                    self._home(d)
        for body in self._roles.bodies:
            for acc in body.sums:
                self._home(self._values[acc.name].text.dims)
        block = self.blocks[self._roles.stream]
        deep = 32 if self.plan.eight else 16  # what an instruction multiplies has 32 bytes
        out = [
            f"SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {block}, {deep}])"
        ]
        for add in self._roles.across:
            out.append(
                f"ACROSS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {self.share(add)}, 16])"
            )
        for name, full in self._full_of.items():
            pad = self.extents[self.program.axis(full).rank].pad
            out.append(
                f"{name}: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, {pad}, {deep}])"
            )
        return out

    def _consumer_positions(self) -> tuple[list[str], list[str]]:
        """Inside a tile, and of one."""
        roles, out = self._roles, []
        tile, stream = roles.tile, roles.stream
        offs, rows = self._offsets[tile], self._home((tile,))
        out.append(f"{offs} = GROUP * {ROWS} + gl.arange(0, {ROWS}, {rows})")
        moving = [f"{self._axes[tile]} = {self._origins[tile]} + {offs}"]
        offs = self._offsets[stream]
        columns = self._home((stream,))
        out.append(f"{offs} = gl.arange(0, {self.blocks[stream]}, {columns})")
        for name, full in self._full_of.items():
            pad = self.extents[self.program.axis(full).rank].pad
            out.append(f"{self._axes[full]} = gl.arange(0, {pad}, gl.SliceLayout(0, {name}))")
        return out, moving


def _alike(a: list[str], b: list[str]) -> bool:
    """Whether two tiles have one shape as soon as their rows are as long."""
    return len(a) == len(b) and a[:-1] == b[:-1]


def used(names: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Those of `names` that occur in `lines`, in order."""
    found = set(re.findall(r"[A-Za-z_]\w*", "\n".join(lines)))
    return [n for n in names if n in found]
