"""How many steps a tile takes, and which of them each group takes part in.

Groups have 64 rows each. Where an end of the sweep moves with the tile, tiles of the stream near it have nothing for
the rows of one group, or need no mask there. So each group finds where the sweep of its own rows begins and ends by
the statements that say so of a tile (`counted_ends`); what it has no use for it waits for, and gives back:

    tile of the stream     0     1     2    …   16    17     a window of 1024 keys, tiles of 64
    rows   0 to  63       cut   all   all   …   cut    -
    rows  64 to 127        -    cut   all   …   all   cut
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attndsl.cascade.nodes import Expr
from attndsl.cascade.walk import rewrite
from attndsl.codegen.exprs import ATOM
from attndsl.codegen.gluon_layouts import ROWS
from attndsl.codegen.gluon_steps import StepPrinter
from attndsl.codegen.joining import Joined, join
from attndsl.schedule.ends import counted_ends, moving, moving_ends
from attndsl.schedule.tile import Compute, Range, Val
from attndsl.schedule.warps import Order


@dataclass(slots=True)
class OwnPrinter(StepPrinter):
    """Prints how steps are counted."""

    joined: Joined | None = None
    """All ranges of the sweep as one loop, if they are."""
    own_ends: tuple[Compute, ...] = ()
    """What the ends of a group's own sweep follow from; nothing where they are those of the tile."""

    @property
    def groups_alone(self) -> bool:
        """Whether a group goes its own way: by steps of its own, to its next rows as soon as it is done with these.

        Not where groups meet in every step to add to memory, or hear together which tile is the next. With one product
        of scores a tile of the stream is as wide as the rows of all groups, and either has something in each: forward
        passes lose 1 to 3 %.
        """
        roles = self._roles
        several = any(len(b.scores) > 1 for b in roles.bodies)
        return several and not roles.across and not roles.dealt

    def find_own(self) -> None:
        """Whether groups go by ends of their own: in one loop that goes on, over ends that numbers alone say."""
        self.joined = join(self._roles.sweep, sums=2)
        ends = counted_ends(self.program) if self._roles.folded and self.joined else None
        if ends is None or not self.groups_alone:
            return
        self.own_ends = moving(self.program, ends)
        low, high = moving_ends(self.program)
        self.begin, self.end = "begin" if low else "0", "end" if high else "total"

    def count_steps(self) -> None:
        """How many tiles each range has; the unmasked ranges come first, as one stretch of steps."""
        assert self.program.sweep is not None
        block = self.blocks[self._roles.stream]
        if self.own_ends:
            lo, hi = self._ends_of(self.program.sweep.ranges)
            self._emit(f"total = tl.maximum({self._steps_between(lo, hi)}, 1)")
            self.place = f"{lo} + t * {block}"
            return
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
        self.place = place

    def _ends_of(self, ranges: Sequence[Range], *, own: bool = False) -> tuple[str, str]:
        """Where ranges that follow each other begin and end: for a tile's rows, or a group's."""
        lo, hi = (self._own_name(n) if own else n for n in (ranges[0].lo, ranges[-1].hi))
        return self._values[lo].text.at(ATOM), self._values[hi].text.at(ATOM)

    def _own_name(self, name: str) -> str:
        return f"own_{name}" if any(s.name == name for s in self.own_ends) else name

    def _of_own(self, s: Compute) -> Compute:
        """A statement of the tile's rows as one of the group's."""

        def renamed(e: Expr) -> Expr | None:
            return Val(self._own_name(e.name)) if isinstance(e, Val) else None

        return replace(s, name=self._own_name(s.name), expr=rewrite(s.expr, renamed))

    def _steps_between(self, lo: str, hi: str) -> str:
        return f"tl.cdiv(tl.maximum({hi} - {lo}, 0), {self.blocks[self._roles.stream]})"

    def own_steps(self) -> list[str]:
        """The steps of this group: from `begin`, before `end`; what comes before is given back at once."""
        if not self.own_ends:
            return []
        assert self.program.sweep is not None
        ranges, tile = self.program.sweep.ranges, self._roles.tile
        first, _ = self._ends_of(ranges)
        kept = self._origins[tile], self.blocks[tile]
        here = self.names.fresh(f"own_{self._origins[tile]}")
        self._emit(f"{here} = {self._origins[tile]} + GROUP * {ROWS}")
        self._origins[tile], self.blocks[tile] = here, str(ROWS)
        self._body(tuple(map(self._of_own, self.own_ends)))
        self._origins[tile], self.blocks[tile] = kept
        lo, hi = self._ends_of(ranges, own=True)
        plain = next(k for k, r in enumerate(ranges) if not r.masked)
        full, full_end = self._ends_of(ranges[plain : plain + 1], own=True)
        # A sum that is carried takes one step at least, in which every pair is masked if there is nothing.
        one = int(self._roles.order is Order.CARRIED)
        if self.begin != "0":
            last = "total - 1" if one else "total"
            block = self.blocks[self._roles.stream]
            self._emit(f"begin = tl.minimum(tl.maximum({lo} - {first}, 0) // {block}, {last})")
        if self.end != "total":
            least = self.begin if not one else "1" if self.begin == "0" else "begin + 1"
            own = f"tl.minimum({self._steps_between(first, hi)}, total)"
            self._emit(f"end = tl.maximum({least}, {own})")
        place = self._origins[self._roles.stream]
        cuts = [f"{place} < {full}"] if plain else []
        cuts += [f"{place} >= {full_end}"] if plain < len(ranges) - 1 else []
        self.cut = " | ".join(f"({c})" for c in cuts) if len(cuts) > 1 else cuts[0]
        if self.begin != "0":
            self._give_back("0", "begin")
        lines, self._lines = self._lines, []
        return lines

    def steps_behind(self) -> list[str]:
        """What comes behind the last step of this group."""
        if self.end != "total":
            self._give_back(self.end, "total")
        lines, self._lines = self._lines, []
        return lines

    def _give_back(self, lo: str, hi: str) -> None:
        """Steps that a group takes no part in: their tiles must be there before they are given back."""
        self._emit(f"for t in range({lo}, {hi}):")
        self._indent += 1
        self._next("done + t")
        for name in self._roles.rings:
            self._await(name, "stage", "phase")
            # No product keeps the group's warps together here: one that ran ahead would give back what others still
            # have to see come.
            self._arrive([name], "stage", met=True)
        self._indent -= 1
