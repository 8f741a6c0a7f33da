"""The loops of an eager kernel: over tiles, rounds of a search, and points whose bounds differ."""

from __future__ import annotations

import re
from functools import partial

from attndsl.codegen.eager_exprs import ATOM
from attndsl.codegen.eager_values import EagerValues
from attndsl.schedule.tile import Axis, Role


class EagerLoops(EagerValues):
    """Prints loops in Python; a tile is a slice, and the last one of an axis is shorter."""

    def body(self) -> None:
        p = self.program
        self.statements(p.prologue)
        depth = self.depth
        if p.rounds is not None:
            self.emit(f"for _ in range({p.rounds.count}):")
            self.depth += 1
            self.statements(p.rounds.prologue)
        turn = self.depth
        for loop in p.loops:
            lo, hi = self.bound(loop.lo), self.bound(loop.hi)
            self.emit(f"for {self.names.of('loop', loop.axis, loop.axis)} in range({lo}, {hi}):")
            self.depth += 1
            self.statements(loop.prologue)
        if p.sweep is not None:
            axis = p.sweep.axis
            extent = self.extent(self.axes[axis].rank)
            for r in p.sweep.ranges:
                lo, hi = self.bound(r.lo), self.bound(r.hi)
                outer = self.depth
                self.depth += 1
                inner = self.captured(partial(self.statements, r.body))
                self.depth = outer
                self.emit(f"# {'masked' if r.masked else 'unmasked'} tiles of {axis}")
                top = hi if p.of(Role.PAIR) else f"min({hi}, {extent})"
                self.tile_head(axis, lo, top, inner, p.sweep.descending)
                self.lines.extend(inner)
                self.depth = outer
        if p.rounds is not None:
            self.depth = turn
            self.statements(p.rounds.epilogue)
            going = self.values[p.rounds.going]
            self.emit(f"if not {going.code if going.host else f'bool({going.code}.any())'}:")
            self.emit("    break")
        self.depth = depth
        self.statements(p.epilogue)

    def tile_head(self, axis: str, lo: str, hi: str, body: list[str], down: bool = False) -> None:
        """Open the loop over the tiles of an axis; `body` is what will be inside it."""
        first, end = self.ends(axis)
        block = self.names.of("block", axis, f"block_{axis}")
        span = f"range({lo}, {hi}, {block})"
        self.emit(f"for {first} in {f'reversed({span})' if down else span}:")
        self.depth += 1
        if axis in self.positions or any(re.search(rf"\b{end}\b", line) for line in body):
            stop = f"min({first} + {block}, {self.extent(self.axes[axis].rank)})"
            paired = bool(self.pairs(axis))
            # Where the paired axis is longer, the last tiles are empty.
            self.emit(f"{end} = max({first}, {stop})" if paired else f"{end} = {stop}")
        self.arange(axis)
        for pair in self.pairs(axis):
            start, stop = self.ends(pair.name)
            top = self.extent(pair.rank)
            used = re.compile(rf"\b({start}|{stop})\b")
            if pair.name not in self.positions and not any(map(used.search, body)):
                continue
            self.emit(f"{start} = min({first}, {top})")
            self.emit(f"{stop} = min({first} + {block}, {top})")
            self.arange(pair.name)

    def pairs(self, axis: str) -> tuple[Axis, ...]:
        """The axes that stand where a tiled axis stands."""
        p = self.program
        return tuple(a for a in p.of(Role.PAIR) if p.stands_for(a.name) == axis)

    def arange(self, axis: str) -> None:
        if axis not in self.positions:
            return
        name = self.names.of("position", axis)
        if self.tiled(axis):
            first, end = self.ends(axis)
            self.emit(f"{name} = torch.arange({first}, {end}, device=device)")
        else:
            self.emit(f"{name} = torch.arange({self.size(axis)}, device=device)")

    def bound(self, name: str) -> str:
        """A loop's bound as a Python integer; the GRID axes that it depends on become loops."""
        v = self.values[name]
        self.state.walked.update(a for a in v.dims if self.axes[a].role is Role.GRID)
        return v.at(ATOM) if v.host else f"int({v.code})"
