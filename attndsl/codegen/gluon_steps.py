"""What a consumer does in a step of the sweep, in the order that keeps the matrix units busy.

Products are issued and run on while the warps compute; what a step needs of them is waited for where it is needed.
In which order, `Roles.order` says (`schedule/warps.py`).

A wait is for the assembler no more than an instruction: it moves one up to the products it waits for, past what the
warps could compute meanwhile, unless a loop stands before it. Where products are few that is as well, since groups fill
each other's waits; where they are many, the wait is held back (`HELD`, docs/explanation/hopper.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from attndsl.cascade.nodes import Const, DType, Reduction, Select
from attndsl.codegen.exprs import ATOM, Text
from attndsl.codegen.gluon_layouts import ROWS, LayoutPrinter
from attndsl.schedule.apart import carried_on
from attndsl.schedule.ends import moving_ends
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import (
    AccDot,
    Across,
    Assign,
    Compute,
    Declare,
    Dot,
    Fold,
    Load,
    Stmt,
    Store,
    Val,
)
from attndsl.schedule.warps import Body, Order, begun


@dataclass(slots=True)
class StepPrinter(LayoutPrinter):
    """Prints the steps of a consumer."""

    masks: dict[str, tuple[Stmt, ...]] = field(default_factory=dict)
    """Selections that only tiles from `whole` on need, with what they alone use."""
    place: str = ""
    """Where the stream's tile of step `t` starts."""
    begin: str = "0"
    end: str = "total"
    """The steps that a group takes part in."""
    cut: str = "t >= whole"
    """Whether a step's tile has a mask."""
    apart: dict[str, str] = field(default_factory=dict)
    """Sums of rows that threads keep apart (`schedule/apart.py`), each with what a step adds to it."""

    def _score_rings(self, body: Body) -> list[str]:
        return list(dict.fromkeys(d.right for d in body.scores))

    def _sum_rings(self, body: Body) -> list[str]:
        return list(dict.fromkeys(a.right for a in body.sums))

    def _passing(self, body: Body) -> list[str]:
        """Rings whose tile is of no use once the scores are there."""
        return [n for n in self._score_rings(body) if n not in self._sum_rings(body)]

    def ring_of_columns(self) -> str:
        """The ring whose barriers stand for the vectors beside it too."""
        return self._roles.bodies[0].scores[0].right if self._roles.columns else ""

    def _load(self, s: Load) -> None:
        if s.name in self._roles.resident:
            self._load_resident(s)
        elif s.name in self._roles.also:
            with self._only("COPIED == 1"):
                self._load_resident(s)
            with self._only("COPIED == 0"):
                self._masks.append({})
                LayoutPrinter._load(self, s)
                self._masks.pop()
        else:
            LayoutPrinter._load(self, s)

    def _load_resident(self, s: Load) -> None:
        tile = f"{s.name}_tile.index(GROUP).reshape([{self._matrix(s)}])"
        code = f"{tile}.load({self._home(s.dims)})"
        kind = ".to(ACC)" if s.dtype is DType.FLOAT else ""
        self._define(s.name, Text(code + kind, s.dims, s.dtype))

    def _read_column(self, name: str) -> None:
        """A vector that the producer made; one that only it needs is not there."""
        s = self._roles.columns.get(name)
        if s is None:
            return
        kind = ".to(ACC)" if s.dtype is DType.FLOAT else ""
        code = f"{name}_ring.index(stage).load({self._home(s.dims)}){kind}"
        self._define(name, Text(code, s.dims, s.dtype))

    # --- sums of rows ------------------------------------------------------------------------------------------------

    def _statement(self, s: Stmt) -> None:
        match s:
            case Declare() if s.name in self.apart:
                scores = f"gl.zeros([{ROWS}, {self.blocks[self._roles.stream]}], ACC, SCORES)"
                self._define(s.name, Text(f"own_parts({scores})", s.dims, s.dtype))
            case Fold() if s.name in self.apart.values():
                self._define(s.name, Text(f"own_parts({self._scores(s)})", s.dims, DType.FLOAT))
            case Fold() if (
                self.counted_on and s.op is Reduction.MAX and s.over == self._roles.stream
            ):
                code = f"greatest({self._scores(s)}, {self._home(s.dims)}, HELD)"
                self._define(s.name, Text(code, s.dims, DType.FLOAT))
            case Assign() if s.name in self.apart:
                self._carry_on(s)
            case _:
                LayoutPrinter._statement(self, s)

    def _scores(self, s: Fold) -> str:
        dims = (self._roles.tile, self._roles.stream)
        text = self._printer.number(self._values[s.src].text)
        return self._filled(text, dims, DType.FLOAT).code

    def _carry_on(self, s: Assign) -> None:
        step = carried_on(s.name, s.expr)
        assert step is not None
        code, added = self._values[s.name].text.code, self._values[step[1]].text.at(ATOM)
        factor = self._printer.number(self._printer.print(step[0]))
        old = code
        if step[0] != Const(1.0):
            old += (
                f" * for_parts({factor.code}, {code})" if factor.dims else f" * {factor.at(ATOM)}"
            )
        self._emit(f"{code} = {old} + {added}")

    def join_parts(self) -> None:
        """Whole sums, once the sweep is done."""
        for name in self.apart:
            text = self._values[name].text
            self._emit(f"{text.code} = whole_rows({text.code}, {self._home(text.dims)})")

    # --- parts of a step -------------------------------------------------------------------------------------------

    def _await(self, ring: str, stage: str, phase: str) -> None:
        self._emit(f"mbarrier.wait({ring}_full.index({stage}), {phase})")

    @property
    def _one_sum(self) -> bool:
        """Whether a step carries one sum of 16 bits: what follows was measured for these."""
        return self._roles.order is Order.CARRIED and not self.plan.eight

    @property
    def counted_on(self) -> bool:
        """Whether stages are counted on and given back without a meeting.

        dK and dV alone are slower for it; with five products a sweep of which both ends move spills more.
        """
        return self._one_sum or (bool(self._roles.across) and not all(moving_ends(self.program)))

    def _next(self, step: str) -> None:
        """The stage of a ring that holds the tile of a step, and the phase of its barriers then."""
        if self.counted_on:
            self._emit("stage, phase = following(stage, phase, STAGES)")
        else:
            self._emit(f"stage, phase = {', '.join(place_of(step))}")

    def _last_place(self, step: str) -> None:
        """The same of the step before, whose tile is still there."""
        place = "stage, phase" if self.counted_on else ", ".join(place_of(step))
        self._emit(f"last, last_phase = {place}")

    def _arrive(self, rings: Sequence[str], stage: str, *, met: bool = False) -> None:
        """Give stages back whose tiles only products read; `met` where a warp may still read what lies beside them."""
        for name in rings:
            barrier = f"{name}_empty.index({stage})"
            met = met or not self.counted_on
            self._emit(f"mbarrier.arrive({barrier}, count=1)" if met else f"give_back({barrier})")

    def _matrix(self, load: Load | Store) -> str:
        return ", ".join(b for b in self.box(load) if b != "1")

    def _issue_score(self, dot: Dot, stage: str, start: str = "") -> None:
        left, right = self._roles.resident[dot.left], self._roles.rings[dot.right]
        a = f"{dot.left}_tile.index(GROUP).reshape([{self._matrix(left)}])"
        b = f"{dot.right}_ring.index({stage}).reshape([{self._matrix(right)}]).permute((1, 0))"
        zeros = f"gl.zeros({self._shape(dot.dims)}, ACC, SCORES)"
        code = f"warpgroup_mma({a}, {b}, {zeros}, use_acc=False, is_async=True)"
        if len(self._roles.bodies[0].scores) == 1:
            length = self.extents[self.program.axis(dot.over).rank].name
            code = f"padded_product({a}, {b}, {zeros}, {length})"
        if start:
            code = f"warpgroup_mma({a}, {b}, {zeros} {start}, is_async=True)"
        self._define(dot.name, Text(code, dot.dims, DType.FLOAT))

    def _issue_sum(self, acc: AccDot, stage: str) -> None:
        name = self._values[acc.name].text.code
        right = self._roles.rings[acc.right]
        b = f"{acc.right}_ring.index({stage}).reshape([{self._matrix(right)}])"
        a = f"{name}_operand"
        if acc.right in self._roles.turned:
            home = self._home(self._values[acc.name].text.dims)
            a = f"out_of_pairs({a}, gl.DotOperandLayout(0, {home}, 4))"
            b += ".permute((1, 0))"
        self._emit(f"{name} = warpgroup_mma({a}, {b}, {name}, is_async=True)")

    def _wait(self, left: int, names: Sequence[str]) -> None:
        """Wait until at most `left` products run; `names` must not be touched before."""
        listed = ", ".join(names)
        self._emit(f"{listed} = warpgroup_mma_wait({left}, deps=[{listed}])")

    def _rescale(self, acc: AccDot) -> None:
        if acc.scale is not None:
            old = self._values[acc.name].text
            scale = self._printer.number(self._values[acc.scale].text)
            if acc.scale in self._roles.corrections:
                self._emit(f"{old.code} = corrected({old.code}, {scale.code}, HELD)")
            else:
                self._emit(f"{old.code} = {old.code} * {self.broadcast(scale, old.dims)}")

    def _in_registers(self, acc: AccDot) -> str:
        value = self._values[acc.left].text
        home = self._home(self._values[acc.name].text.dims)
        like = self._storage(acc.like)
        if self.plan.eight:
            return f"in_pairs({self._printer.number(value).code})"
        return f"gl.convert_layout({value.at(ATOM)}.to({like}), gl.DotOperandLayout(0, {home}, 2))"

    def _position(self) -> None:
        stream = self._roles.stream
        self._emit(f"{self._origins[stream]} = {self.place}")
        self._emit(f"{self._axes[stream]} = {self._origins[stream]} + {self._offsets[stream]}")

    def _begin_body(self, body: Body) -> None:
        self._masks.append({})
        self._line = None
        self._masked = body.masked

    def _body(self, body: Sequence[Stmt]) -> None:
        for s in body:
            name = getattr(s, "name", "")
            if not self._producing and name in self._roles.spared:
                self._read_column(name)
                continue
            if name not in self.masks:
                LayoutPrinter._body(self, (s,))
                continue
            # The branch keeps the assembler from comparing before the product is there, in registers that are rare.
            assert isinstance(s, Compute)
            assert isinstance(s.expr, Select)
            assert isinstance(s.expr.then, Val)
            self._define(name, self._values[s.expr.then.name].text)
            self._emit(f"if {self.cut}:")
            self._indent += 1
            self._masks.append({})
            self._body(self.masks[name])
            LayoutPrinter._body(self, (s,))
            self._masks.pop()
            self._indent -= 1

    def _end_body(self) -> None:
        self._masked = False
        self._masks.pop()

    def _names(self, sums: Sequence[AccDot]) -> list[str]:
        """The accumulators, and the operands that must not be overwritten while they are read."""
        out: list[str] = []
        for acc in sums:
            name = self._values[acc.name].text.code
            out += [name, f"{name}_operand"]
        return out

    # --- the order of steps ------------------------------------------------------------------------------------------

    def first_step(self) -> str:
        """What the loops count from."""
        if self._roles.order is not Order.CARRIED:
            return self.begin
        return "1" if self.begin == "0" else f"{self.begin} + 1"

    def before_loops(self, body: Body) -> None:
        """What comes before the loops, for the first tile; behind `issue_first` where that stands apart."""
        if self._roles.order is Order.CARRIED:
            if not self.issues_first:
                self.issue_first(body)
            self._first(body)

    @property
    def issues_first(self) -> bool:
        """Whether a tile's first scores are issued before anything else is known of it than where it lies."""
        return self._roles.order is Order.CARRIED and not self.program.loops

    def issue_first(self, body: Body) -> None:
        """The scores of a tile's first step."""
        self._next("done" if self.begin == "0" else f"done + {self.begin}")
        for name in self._score_rings(body):
            self._await(name, "stage", "phase")
        for dot in body.scores:
            self._issue_score(dot, "stage")

    def step(self, body: Body) -> None:
        """The body of a loop over steps `t`."""
        self._indent += 1
        match self._roles.order:
            case Order.CARRIED:
                self._step_carried(body)
            case Order.ALONE if body.across:
                block = self.blocks[self._roles.stream]
                with self._only(f"{block} == 128"):
                    self._step_alone(body, wide=True)
                self._emit("else:")
                self._indent += 1
                self._step_alone(body)
                self._indent -= 1
            case Order.ALONE:
                self._step_alone(body)
        self._indent -= 1

    def after_loops(self, body: Body) -> None:
        """What is left of the last tile."""
        if self._roles.order is Order.CARRIED:
            self._last(body)

    # --- the sums of a tile run during the next step -----------------------------------------------------------------

    def _first(self, body: Body) -> None:
        """The first tile: nothing of an earlier one is to be multiplied yet."""
        self._emit(f"t = {self.begin}")
        self._position()
        self._begin_body(body)
        self._body(body.early)
        self._wait(0, [self._values[d.name].text.code for d in body.scores])
        self._middle(body)
        self._end_body()
        for acc in body.sums:
            self._rescale(acc)
            name = self._values[acc.name].text.code
            self._emit(f"{name}_operand = {self._in_registers(acc)}")
        with self._only("HELD == 1"):
            for name in self._sum_rings(body):
                self._await(name, "stage", "phase")

    def _await_last(self, sums: Sequence[str], scores: Sequence[str]) -> None:
        """Wait for the last step's tiles of sums; where operands are held back, that was waited for at its end."""
        late = [name for name in sums if name not in scores]
        if late:
            with self._only("HELD == 0"):
                for name in late:
                    self._await(name, "last", "last_phase")

    def _step_carried(self, body: Body) -> None:
        scores, sums = self._score_rings(body), self._sum_rings(body)
        self._last_place("done + t - 1")
        self._next("done + t")
        for name in scores:
            self._await(name, "stage", "phase")
        self._await_last(sums, scores)
        for dot in body.scores:
            self._issue_score(dot, "stage")
        for acc in body.sums:
            self._issue_sum(acc, "last")
        self._position()
        self._begin_body(body)
        self._body(body.early)
        self._wait(len(body.sums), [self._values[d.name].text.code for d in body.scores])
        self._middle(body)
        self._end_body()
        # Waiting for a barrier is a loop, and the wait for the sums stays behind it: they run while the rest is
        # computed, and the operands come when those before are of no more use. Else the assembler waits at once, and
        # they come before.
        made = [(self._values[a.name].text.code, self._in_registers(a)) for a in body.sums]
        left = (self._values[a.left].text.code for a in body.sums)
        with self._only("HELD == 1"):
            for name in sums:
                self._await(name, "stage", "phase")
            computed = dict.fromkeys(n for n in left if n.isidentifier())
            self._wait(0, [*self._names(body.sums), *computed])
            self._arrive(sums, "last")
            for name, operand in made:
                self._emit(f"{name}_operand = {operand}")
        with self._only("HELD == 0"):
            for name, operand in made:
                self._emit(f"{name}_next = {operand}")
            self._wait(0, [*self._names(body.sums), *(f"{name}_next" for name, _ in made)])
            self._arrive(sums, "last")
            for name, _ in made:
                self._emit(f"{name}_operand = {name}_next")
        for acc in body.sums:
            self._rescale(acc)

    def _middle(self, body: Body) -> None:
        """What follows the scores; their rings are free once nothing is read that lies beside their tiles."""
        beside = [
            k
            for k, s in enumerate(body.middle)
            for m in self.masks.get(getattr(s, "name", ""), ())
            if getattr(m, "name", "") in self._roles.columns
        ]
        last = max(beside) + 1 if beside else 0
        self._body(body.middle[:last])
        for name in self._passing(body):
            self._arrive([name], "stage", met=name == self.ring_of_columns())
        self._body(body.middle[last:])

    def _last(self, body: Body) -> None:
        scores, sums = self._score_rings(body), self._sum_rings(body)
        if not sums:
            return
        self._last_place(f"done + {self.end} - 1")
        self._await_last(sums, scores)
        for acc in body.sums:
            self._issue_sum(acc, "last")
        self._wait(0, self._names(body.sums))
        self._arrive(sums, "last")

    # --- the sums of a tile run in its own step ----------------------------------------------------------------------

    def _step_alone(self, body: Body, *, wide: bool = False) -> None:
        """A step; a `wide` tile's sum in memory goes before the sums of its own summands, which run while it leaves."""
        starts: dict[str, tuple[str, str]] = {}
        if not wide:
            body, starts = begun(body, self._roles.stream)
        late = {add.left for add in body.across} if wide else set()
        early = list(body.early)
        self._next("done + t")
        there: list[str] = []
        if starts:
            self._position()
            self._begin_body(body)
        for dot in body.scores:
            if dot.right not in there:
                self._await(dot.right, "stage", "phase")
                there.append(dot.right)
            start = ""
            if dot.name in starts:
                op, vector = starts[dot.name]
                first = _made_of(vector, early)
                self._body(first)
                early = [s for s in early if s not in first]
                code = self._printer.number(self._values[vector].text)
                start = f"{op} {self.broadcast(code, dot.dims)}"
            self._issue_score(dot, "stage", start)
        running: list[str] = [d.name for d in body.scores]
        if not starts:
            self._position()
            self._begin_body(body)
        if not wide:
            self._body(early)
        for s in body.middle:
            self._until(used(s), running)
            if wide:  # vectors as late as can be: their registers are rare
                read = used(s).union(*map(used, self.masks.get(getattr(s, "name", ""), ())))
                first = [m for n in sorted(read) for m in _made_of(n, early)]
                self._body([m for m in early if m in first])
                early = [m for m in early if m not in first]
            self._body((s,))
            for add in body.across:
                if add.left == getattr(s, "name", None):
                    self._hand_over(add)
            for acc in body.sums:
                if acc.left == getattr(s, "name", None):
                    self._begin_sum(acc, there, running, later=acc.left in late)
        for acc in body.sums:  # operands that are scores themselves
            if acc.name not in running and acc.left not in late:
                self._until({acc.left}, running)
                self._begin_sum(acc, there, running)
        self._end_body()
        for add in body.across:
            self._issue_across(add)
        behind = [acc for acc in body.sums if acc.left in late]
        for acc in behind:
            self._issue_sum(acc, "stage")
        given: list[str] = []

        def finish(names: Sequence[str], after: int) -> None:
            """Wait for sums, `after` of which products were issued, and give back what is of no more use."""
            for k, name in enumerate(names):
                self._wait(after + len(names) - 1 - k, self._touched(name, body))
                rest = [*names[k + 1 :], *(a.name for a in behind if a.name not in names)]
                later = {self._ring_of(n, body) for n in rest}
                free = [r for r in there if r not in later and r not in given]
                self._arrive(free, "stage")
                given.extend(free)

        finish(running, 2 * len(body.across) + len(behind))
        if not running and not behind:
            self._arrive(there, "stage", met=True)
        for add in body.across:
            self._pass_on(add, after=len(behind))
        finish([acc.name for acc in behind], 0)

    # --- sums in memory ----------------------------------------------------------------------------------------------

    def across_name(self, add: Across) -> str:
        """What things of a sum in memory are called by."""
        return self.pointers[add.tensor].removesuffix("_ptr")

    def share(self, add: Across) -> str:
        """How many columns a group multiplies, of 64 rows: of a tile of 64 rows half, of one of 128 all of its half."""
        columns = self.box(self._roles.resident[add.right])[-1]
        return f"{columns} * {self.blocks[self._roles.stream]} // 128"

    def first_row(self, group: str) -> str:
        """Where in the tile a group's rows begin."""
        return f"{group} * ({self.blocks[self._roles.stream]} - {ROWS})"

    def first_column(self, add: Across, group: str) -> str:
        """Where its columns begin."""
        columns = self.box(self._roles.resident[add.right])[-1]
        return f"{group} * ({columns} - {self.share(add)})"

    def _hand_over(self, add: Across) -> None:
        """The group's summands into shared memory, for both groups; those beyond the tile's end are zero."""
        name, tile = self.across_name(add), self._roles.tile
        length = self.extents[self.program.axis(tile).rank].name
        value = self._printer.number(self._values[add.left].text)
        there = self._roles.resident[add.right]
        kind = f"{self.descriptors[there.tensor]}.dtype"
        place = f"{name}_part.index((done + t) % 2 * 2 + GROUP)"
        inside = self.broadcast(
            Text(f"({self._axes[tile]} < {length})", (tile,), DType.BOOL), value.dims
        )
        self._emit(f"if {self._origins[tile]} + {self.blocks[tile]} > {length}:")
        self._emit(f"    {place}.store(gl.where({inside}, {value.code}, 0.0).to({kind}))")
        self._emit("else:")
        self._emit(f"    {place}.store({value.at(ATOM)}.to({kind}))")
        self._emit("fence_async_shared()")
        self._meet(f"{name}_there.index((done + t) % 2)")

    def _meet(self, barrier: str) -> None:
        """Arrive when all of the group's warps have come: one meeting, where an arrival is two."""
        self._emit("meet()")
        self._emit(f"give_back({barrier})")

    def _issue_across(self, add: Across) -> None:
        name, share = self.across_name(add), self.share(add)
        right = self._roles.resident[add.right]
        self._emit(f"mbarrier.wait({name}_there.index((done + t) % 2), ((done + t) // 2) & 1)")
        acc = f"gl.zeros([{ROWS}, {share}], ACC, ACROSS), use_acc=False"
        for group in range(2):
            a = f"{name}_part.index((done + t) % 2 * 2 + {group})"
            a += f".slice({self.first_row('GROUP')}, {ROWS}, dim=1).permute((1, 0))"
            b = f"{add.right}_tile.index({group}).reshape([{self._matrix(right)}])"
            b += f".slice({self.first_column(add, 'GROUP')}, {share}, dim=1)"
            self._emit(f"{name} = warpgroup_mma({a}, {b}, {acc}, is_async=True)")
            acc = name

    @contextmanager
    def _only(self, condition: str) -> Iterator[None]:
        """Lines for some configurations of a kernel."""
        self._emit(f"if {condition}:")
        self._indent += 1
        yield
        self._indent -= 1

    def _pass_on(self, add: Across, *, after: int) -> None:
        """What is to be added, to the warp that adds."""
        name = self.across_name(add)
        self._wait(after, [name])
        self._emit(f"mbarrier.wait({name}_taken.index(GROUP), (done + t) & 1 ^ 1)")
        self._emit(f"{name}_out.index(GROUP).reshape([{ROWS}, {self.share(add)}]).store({name})")
        self._emit("fence_async_shared()")
        self._meet(f"{name}_made.index(GROUP)")

    def _begin_sum(
        self, acc: AccDot, there: list[str], running: list[str], *, later: bool = False
    ) -> None:
        """The operand, and the product unless it comes `later`."""
        self._rescale(acc)
        self._emit(f"{self._values[acc.name].text.code}_operand = {self._in_registers(acc)}")
        if acc.right not in there:
            self._await(acc.right, "stage", "phase")
            there.append(acc.right)
        if not later:
            self._issue_sum(acc, "stage")
            running.append(acc.name)

    def _until(self, names: set[str] | frozenset[str], running: list[str]) -> None:
        """Wait for those of the running products that are among `names`; they end in the order of their issue."""
        for name in [n for n in running if n in names]:
            at = running.index(name)
            done = running[: at + 1]
            del running[: at + 1]
            self._wait(len(running), [self._values[n].text.code for n in done])

    def _touched(self, name: str, body: Body) -> list[str]:
        sums = [a for a in body.sums if a.name == name]
        return self._names(sums) if sums else [self._values[name].text.code]

    def _ring_of(self, name: str, body: Body) -> str:
        rings = {d.name: d.right for d in body.scores} | {a.name: a.right for a in body.sums}
        return rings[name]


def _made_of(name: str, early: Sequence[Stmt]) -> list[Stmt]:
    """Those of the statements that a value is made of, and its own."""
    wanted, out = {name}, list[Stmt]()
    for s in reversed(early):
        if getattr(s, "name", None) in wanted:
            wanted |= used(s)
            out.append(s)
    return out[::-1]


def place_of(step: str) -> tuple[str, str]:
    """The stage of a ring that holds the tile of a step, and the phase of its barriers then."""
    return f"({step}) % STAGES", f"(({step}) // STAGES) & 1"
