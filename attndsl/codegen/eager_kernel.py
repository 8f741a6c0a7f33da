"""One tile program as a Python function over PyTorch tensors.

Batch indices (GRID axes) become leading dimensions of every value that depends on them; tiles, the
sweep and loops are Python loops. The last tile of an axis is a shorter slice, so bounds need no
masks. A GRID axis is walked in Python instead where a loop's bound depends on it (a window of its
own for each head, a data-dependent length).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import assert_never

from attndsl.cascade.nodes import DType
from attndsl.codegen.eager_exprs import Text, show
from attndsl.codegen.eager_live import live
from attndsl.codegen.eager_loops import EagerLoops
from attndsl.codegen.eager_memory import EagerMemory
from attndsl.codegen.eager_sums import EagerSums
from attndsl.codegen.eager_values import State
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
    Plan,
    Reach,
    Role,
    Scan,
    Scatter,
    Solve,
    Stmt,
    Store,
    TileProgram,
    TileReach,
)


@dataclass(frozen=True, slots=True)
class EagerKernel:
    """A rendered kernel, as the template takes it.

    Its arguments are, in order: the buffers read and written, the extents of `ranks`, the program's
    parameters, one block size for each TILE and STREAM axis, and those of dtypes, acc and device in
    `context`.
    """

    name: str
    doc: str
    program: TileProgram
    ranks: tuple[str, ...]
    grid: tuple[str, ...]  # ranks whose points are all in one tensor
    context: tuple[str, ...]
    arguments: tuple[str, ...]
    lines: tuple[str, ...]


def render_kernel(program: TileProgram, plan: Plan, name: str) -> EagerKernel:
    """Print one kernel; again until the axes of values that loops update are known."""
    program = live(program)
    state = State()
    while True:
        before = (set(state.walked), dict(state.dims), set(state.tensors))
        out = _Printer(program, plan, name, state).run()
        if before == (state.walked, state.dims, state.tensors):
            return out


class _Printer(EagerMemory, EagerSums, EagerLoops):
    """Prints one kernel, statement by statement, with what a rendering before has learned."""

    def run(self) -> EagerKernel:
        p = self.program
        tiles = p.of(Role.TILE)
        walked = [a for a in p.of(Role.GRID) if a.name in self.state.walked]
        # The body is printed first: it says which positions are used.
        with self.indented(len(tiles) + len(walked)):
            body = self.captured(self.body)
        if p.of(Role.BAND):  # as wide as the tiles are
            for side in p.banded():
                block, length = self.block_of(side), self.extent(self.axes[side].rank)
                self.emit(f"{block} = max(1, min({block}, {length}))")
        for a in p.axes:
            if a.role in (Role.FULL, Role.BAND) or a.name in self.grid:
                self.arange(a.name)
        for a in walked:
            loop = self.names.of("loop", a.name, a.name)
            self.emit(f"for {loop} in range({self.extent(a.rank)}):")
            self.depth += 1
        for a in tiles:
            ends = [self.extent(r) for r in (a.rank, *p.paired(a))]
            self.tile_head(a.name, "0", f"max({', '.join(ends)})" if ends[1:] else ends[0], body)
        self.lines.extend(body)
        return self.finished()

    def turns(self, s: For) -> str:
        """The points or positions of a loop."""
        if s.lo is not None and s.hi is not None:
            span = f"range({self.bound(s.lo)}, {self.bound(s.hi)})"
            return f"reversed({span})" if s.down else span
        rank = self.extent(self.axes[s.axis].rank)
        if s.guard is not None:
            rank = f"{rank} if {self.values[s.guard].code}.any() else 0"
        return f"range({rank})"

    def finished(self) -> EagerKernel:
        p, n = self.program, self.names
        ranks = sorted(r for kind, r in n.given if kind == "extent")
        tiled = [a.name for a in p.axes if a.role in (Role.TILE, Role.STREAM)]
        kinds = {DType.FLOAT: "float", DType.INT: "int", DType.BOOL: "bool"}
        used = set(re.findall(r"\w+", "\n".join(self.lines)))
        common = {
            "dtypes": "dict[str, torch.dtype]",
            "acc": "torch.dtype",
            "device": "torch.device",
        }
        context = tuple(c for c in common if c in used)
        arguments = [
            *(f"{n.of('tensor', t)}: Tensor" for t in p.tensors),
            *(f"{n.of('extent', r)}: int" for r in ranks),
            *(f"{n.of('param', q)}: {kinds[self.kinds[q]]}" for q in p.params),
            *(f"{n.of('block', a, f'block_{a}')}: int" for a in tiled),
            *(f"{c}: {common[c]}" for c in context),
        ]
        return EagerKernel(
            name=self.name,
            doc=_doc(p, self.grid),
            program=p,
            ranks=tuple(ranks),
            grid=tuple(self.axes[a].rank for a in self.grid),
            context=context,
            arguments=tuple(arguments),
            lines=tuple(self.lines),
        )

    def statement(self, s: Stmt) -> None:
        self.target = str(getattr(s, "name", None) or getattr(s, "value", "t"))
        match s:
            case Compute():
                text = self.spread(show(s.expr, self.scope(s.safe)), s.dims, s.dtype)
                self.define(s.name, text)
            case Load():
                self.define(s.name, self.load(s))
                self.loaded[s.name] = s.tensor
            case Dot():
                self.define(s.name, self.product(s, s.dims))
            case Fold():
                self.define(s.name, self.fold(s))
            case Scan():
                self.define(s.name, self.scan(s))
            case Pick():
                self.define(s.name, self.pick(s))
            case Solve():
                self.define(s.name, self.solve(s))
            case Declare():
                self.declare(s)
            case Assign():
                self.update(s.name, show(s.expr, self.scope()))
            case AccDot():
                self.accumulate(s)
            case For():
                with self.block(f"for {self.names.of('loop', s.axis, s.axis)} in {self.turns(s)}:"):
                    self.statements(s.body)
            case Fence():
                pass  # statements run one after the other
            case Store():
                self.store(s)
            case Scatter():
                self.scatter(s)
            case Across():
                raise AssertionError("tiles that follow each other have no need to add to memory")
            case (
                Reach() | TileReach()
            ):  # the whole stream: here a tile is all of the batch, and ids differ along it
                end = self.extent(self.program.axis(s.axis).rank)
                for name, code in (
                    (s.low, "0"),
                    (s.high, end),
                    (s.full_low, "0"),
                    (s.full_high, "0"),
                ):
                    self.define(name, Text(code, DType.INT, (), True))
            case _:
                assert_never(s)


def _doc(p: TileProgram, grid: tuple[str, ...]) -> str:
    tiles = ", ".join(a.name for a in p.of(Role.TILE)) or "no axis"
    streams = ", ".join(a.name for a in p.of(Role.STREAM))
    whole = f"; all of {', '.join(grid)} at once" if grid else ""
    sweep = f", sweeping {streams}" if streams else ""
    how = f": a tile of {tiles} at a time{sweep}{whole}."
    made = ", ".join(p.writes)
    if len(made) + len(how) > 88:
        made = f"{p.writes[0]} and {len(p.writes) - 1} more"
    return made + how
