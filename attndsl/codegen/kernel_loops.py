"""The loops of a kernel: over rounds of a search, over axes, and over the tiles of the stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from attndsl.cascade.nodes import DType, Position, Select
from attndsl.cascade.walk import walk
from attndsl.codegen.exprs import ATOM, Text
from attndsl.codegen.joining import Joined, join
from attndsl.codegen.kernel_lines import KernelLines
from attndsl.codegen.kernel_names import Value
from attndsl.codegen.programs import expressions, statements
from attndsl.schedule.split import SPLIT
from attndsl.schedule.tile import (
    Assign,
    Compute,
    Declare,
    Loop,
    Range,
    Reach,
    Sweep,
    TileReach,
    Val,
)


class KernelLoops(KernelLines):
    """Prints loops, the sweep among them, in one of four forms: range by range, joined, in order, or all at once."""

    __slots__ = ()

    def _rounds(self) -> None:
        """The loops and the sweep, once or as often as a search takes."""
        rounds = self.program.rounds
        if rounds is None:
            self._loops()
            return
        turn, going = self.names.fresh("round"), self._name(rounds.going)
        self._emit(f"{turn} = 0")
        self._emit(f"{going} = {turn} == 0")
        self._emit(f"while {going} & ({turn} < {rounds.count}):")
        with self._nested():
            self._body(rounds.prologue)
            self._loops()
            self._line = None
            self._emit("# The round's end.")
            self._values[rounds.going] = Value(Text(going, (), DType.BOOL))
            self._body(rounds.epilogue)
            self._emit(f"{turn} += 1")

    def _loops(self) -> None:
        """The loops around the sweep, one inside the other, and the sweep."""
        with ExitStack() as nest:
            for loop in self.program.loops:
                self._enter(loop, nest)
            self._sweep()

    def _enter(self, loop: Loop, nest: ExitStack) -> None:
        axis, lo, hi = self._axes[loop.axis], self._scalar(loop.lo), self._scalar(loop.hi)
        merges = self.program.sweep is None and self.program.axis(loop.axis).rank == SPLIT
        span = f"tl.range({lo}, {hi}, num_stages=NUM_STAGES)" if merges else f"range({lo}, {hi})"
        self._emit(f"for {axis} in {span}:")
        nest.enter_context(self._nested())
        if self._counts_with(loop.axis):  # a number of Python's own in Triton's interpreter
            self._emit(f"{axis} = tl.cast({axis}, tl.int32)")
        self._line = None
        self._body(loop.prologue)

    def _sweep(self) -> None:
        """The ranges of the sweep: in order, joined, or those without a mask first."""
        sweep = self.program.sweep
        if sweep is None:
            return
        origin, block = self._origins[sweep.axis], self.blocks[sweep.axis]
        if sweep.ordered:
            self._walk_in_order(sweep, origin, block)
            return
        looked_up = any(isinstance(s, Reach | TileReach) for s in statements(self.program))
        joined = join(sweep) if looked_up else None
        if joined is not None:
            self._walk_joined(sweep.ranges, joined)
            return
        for r in sweep.ranges:
            if not r.masked:
                lo, hi = self._scalar(r.lo), self._scalar(r.hi)
                self._emit("# Tiles without a mask.")
                self._walk(f"{origin} in tl.range({lo}, {hi}, {block}", "", r)
        cut = [r for r in sweep.ranges if r.masked]
        if cut:
            self._emit("# Tiles that the mask or the end cuts.")
            self._walk_cut(cut, sweep, origin, block)

    def _walk_cut(self, cut: Sequence[Range], sweep: Sweep, origin: str, block: str) -> None:
        """The ranges whose tiles the mask or the end cuts; only those that are walked down have to be one."""
        if len(cut) > 1 and not sweep.descending:
            self._walk_all(cut, origin, block)
            return
        (r,) = cut
        lo, hi = self._scalar(r.lo), self._scalar(r.hi)
        if not sweep.descending:
            self._walk(f"{origin} in tl.range({lo}, {hi}, {block}", "", r)
            return
        step = self.names.fresh("step")
        last = self.names.fresh("last")
        self._emit(f"{last} = (tl.cdiv({hi}, {block}) - 1) * {block}")
        self._walk(f"{step} in tl.range({lo}, {hi}, {block}", f"{origin} = {last} - {step}", r)

    def _counts_with(self, axis: str) -> bool:
        """Whether the position on an axis is used as a number, and not only to find values."""
        return any(
            n == Position(axis)
            for s in statements(self.program)
            if isinstance(s, Compute | Declare | Assign)
            for e in expressions(s)
            for n in walk(e)
        )

    def _walk(self, head: str, first: str, r: Range) -> None:
        """One loop over stream tiles; `first` finds the tile's origin where the loop does not."""
        with self._over_tiles(head, first, masked=r.masked):
            self._body(r.body)

    @contextmanager
    def _over_tiles(self, head: str, first: str = "", *, masked: bool) -> Iterator[None]:
        """A loop over stream tiles: its head, and where its tile stands."""
        assert self.program.sweep is not None
        axis = self.program.sweep.axis
        origin = self._origins[axis]
        self._emit(f"for {head}, num_stages=NUM_STAGES):")
        with self._nested():
            self._line = None
            for line in first.splitlines():
                self._emit(line)
            # Bounds read from tensors may have 64 bits, which the copy engine does not take.
            block = self.blocks[axis]
            self._emit(f"{origin} = tl.multiple_of(tl.cast({origin}, tl.int32), {block})")
            self._emit(f"{self._axes[axis]} = {origin} + {self._offsets[axis]}")
            self._masked = masked
            yield
            self._masked = False

    def _walk_joined(self, ranges: Sequence[Range], joined: Joined) -> None:
        """One loop over adjacent ranges, which applies masks to the tiles that need them."""
        assert self.program.sweep is not None
        origin = self._origins[self.program.sweep.axis]
        block = self.blocks[self.program.sweep.axis]
        lo, hi = self._scalar(ranges[0].lo), self._scalar(ranges[-1].hi)
        plain = next(r for r in ranges if not r.masked)
        start, stop = (self._values[n].text.at(ATOM) for n in (plain.lo, plain.hi))
        first, last = ranges[0].masked, ranges[-1].masked
        cut = [f"{origin} < {start}"] * first + [f"{origin} >= {stop}"] * last
        need = cut[0] if len(cut) == 1 else f"({cut[0]}) | ({cut[1]})"
        self._emit("# Tiles that the mask or the end cuts are masked.")
        with self._over_tiles(f"{origin} in tl.range({lo}, {hi}, {block}", masked=True):
            for s in joined.body:
                self._source(s)
                if not (isinstance(s, Compute) and s.name in joined.masks):
                    self._statement(s)
                    continue
                assert isinstance(s.expr, Select)
                assert isinstance(s.expr.then, Val)
                self._define(s.name, self._values[s.expr.then.name].text)
                self._emit(f"if {need}:")
                with self._nested():
                    self._body((*joined.masks[s.name], s))

    def _walk_in_order(self, sweep: Sweep, origin: str, block: str) -> None:
        """The ranges one after the other, tile by tile, up or down: a scan carries from each tile to the next."""
        for r in sweep.ranges:
            self._emit(
                "# Tiles that the mask or the end cuts." if r.masked else "# Tiles without a mask."
            )
            lo, hi = self._scalar(r.lo), self._scalar(r.hi)
            if not sweep.descending:
                self._walk(f"{origin} in tl.range({lo}, {hi}, {block}", "", r)
                continue
            step, count = self.names.fresh("step"), self.names.fresh("steps")
            low, high = (self._values[n].text.at(ATOM) for n in (r.lo, r.hi))
            self._emit(f"{count} = tl.cdiv(tl.maximum({high} - {low}, 0), {block})")
            head = f"{step} in tl.range(0, {self.use('bound')}({count})"
            self._walk(head, f"{origin} = {low} + ({count} - 1 - {step}) * {block}", r)

    def _walk_all(self, ranges: Sequence[Range], origin: str, block: str) -> None:
        """One loop over several ranges with the same body: the code stands, and is compiled, once."""
        step = self.names.fresh("step")
        total = "0"
        found = ""
        for k, r in enumerate(ranges):
            lo, hi = (self._values[n].text.at(ATOM) for n in (r.lo, r.hi))
            count = self.names.fresh("steps")
            length = f"tl.cdiv(tl.maximum({hi} - {lo}, 0), {block})"
            self._emit(f"{count} = {length}" if k == 0 else f"{count} = {total} + {length}")
            if k == 0:
                found = f"{origin} = {lo} + {step} * {block}"
            else:
                here = f"{lo} + ({step} - {total}) * {block}"
                found += f"\n{origin} = tl.where({step} < {total}, {origin}, {here})"
            total = count
        head = f"{step} in tl.range(0, {self.use('bound')}({total})"
        self._walk(head, found, ranges[0])

    def _scalar(self, name: str) -> str:
        return f"{self.use('bound')}({self._values[name].text.code})"
