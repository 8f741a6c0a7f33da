"""Which values of a kernel by chunks depend on its state, and the two parts of one that is linear in it.

U = k . H * reach + A . V     ->     (k * reach) . H,  and the rest, A . V
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from attndsl.cascade.nodes import Binary, Const, DType, Expr, Position, Select
from attndsl.cascade.walk import walk
from attndsl.schedule import tile as t
from attndsl.schedule.specialise import defined, renamed, used
from attndsl.schedule.tile import Val


@dataclass(frozen=True, slots=True)
class Part:
    """One factor of a state: `sum[over](left * state)`, each of dims and storage type as the product that has it."""

    left: str
    product: t.Dot


@dataclass(slots=True)
class Split:
    """The statements of one kernel by chunks, and what of them is made ahead."""

    program: t.TileProgram
    names: set[str]
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)
    extra: list[t.Stmt] = field(default_factory=list)

    @property
    def body(self) -> tuple[t.Stmt, ...]:
        assert self.program.sweep is not None
        return self.program.sweep.ranges[0].body

    def fresh(self, base: str) -> str:
        k = 1
        while (name := f"{base}_{k}") in self.names:
            k += 1
        self.names.add(name)
        return name

    # --- what depends on the state ------------------------------------------------------------------------------------

    def find_moving(self) -> None:
        """The values that depend on what is carried, those that are updated by such values among them."""
        changed = {n for s in self.body for n in updated(s)}
        self.moving = {
            s.name for s in self.program.prologue if isinstance(s, t.Declare) and s.name in changed
        }
        while True:
            before = len(self.moving)
            for s in self.body:
                if used(s) & self.moving or updated(s) & self.moving:
                    made = defined(s)
                    self.moving |= updated(s) | ({made} if made is not None else set())
            if len(self.moving) == before:
                return

    def local(self, s: t.Stmt) -> bool:
        return not (used(s) | updated(s) | {defined(s) or ""}) & self.moving

    # --- sums that are linear in the state ----------------------------------------------------------------------------

    def parts(self, name: str) -> tuple[list[Part], str] | None:
        """A value as factors of states and the rest, which `extra` makes; None if it is something else."""
        made = next((s for s in self.body if defined(s) == name), None)
        match made:
            case t.Compute(expr=e):
                parts: list[Part] = []
                rest: list[Expr] = []
                for x in summands(e):
                    if self.spans(x) is not None:
                        rest.append(x)
                        continue
                    found = self.parts(x.name) if isinstance(x, Val) else None
                    if found is None:
                        return None
                    parts += found[0]
                    rest.append(Val(found[1]))
                out = self.fresh(name + "_rest")
                total = reduce(lambda x, y: Binary("+", x, y), rest)
                self.keep(t.Compute(out, made.dims, DType.FLOAT, total, span=made.span))
                return parts, out
            case t.Declare():
                return self.accumulated(name)
        return None

    def accumulated(self, name: str) -> tuple[list[Part], str] | None:
        """An accumulator in these two parts."""
        parts: list[Part] = []
        products = {s.name: s for s in self.body if isinstance(s, t.Dot)}
        rest = self.fresh(name + "_rest")
        made: list[t.Stmt] = []
        for s in self.body:
            match s:
                case t.Declare() if s.name == name:
                    made.append(dataclasses.replace(s, name=rest))
                case t.AccDot() if s.name == name:
                    if s.scale is not None or {s.left, s.right} & self.moving:
                        return None
                    made.append(dataclasses.replace(s, name=rest))
                case t.Assign(_, Binary("+", Val(old), more)) if s.name == name == old:
                    factors, scale = self.factor(more, products)
                    if factors is None:
                        if self.spans(more) is None:
                            return None
                        made.append(t.Assign(rest, Binary("+", Val(rest), more), span=s.span))
                        continue
                    left = factors.left
                    if scale is not None:
                        left = self.fresh(left)
                        value = Binary("*", Val(factors.left), scale)
                        self.keep(t.Compute(left, self.dims[factors.left], DType.FLOAT, value))
                    parts.append(Part(left, factors))
                case _ if name in updated(s):
                    return None
        if not made or not parts:
            return None
        for s in made:
            self.keep(s)
        return parts, rest

    def known_part(self, name: str) -> tuple[str, set[int]] | None:
        """What an accumulator takes that is known, as a value of `extra`, and the places of those updates."""
        # Loops name it thrice in a line.
        loops = any(isinstance(s, t.For) and name in updated(s) for s in self.body)
        rest = self.fresh("rest" if loops else name + "_rest")
        made: list[t.Stmt] = []
        places: set[int] = set()
        for k, s in enumerate(self.body):
            match s:
                case t.Declare() if s.name == name:
                    made.append(t.Declare(rest, s.dims, s.dtype, Const(0.0)))
                case t.AccDot(scale=None) if s.name == name:
                    if not {s.left, s.right} & self.moving:
                        made.append(dataclasses.replace(s, name=rest))
                        places.add(k)
                case t.Assign(_, Binary("+", Val(old), more)) if s.name == name == old:
                    if self.spans(more) is not None:
                        made.append(t.Assign(rest, Binary("+", Val(rest), more), span=s.span))
                        places.add(k)
                case t.For() if name in updated(s):
                    if not self.adds(s, name):
                        return None
                    made.append(_into(s, name, rest))
                    places.add(k)
                case _ if name in updated(s):
                    return None
        if not any(self.multiplied(s) for s in made):
            return None
        for s in made:
            self.keep(s)
        return rest, places

    def adds(self, s: t.Stmt, name: str) -> bool:
        """Whether a statement of a loop only adds to an accumulator, and adds what is known."""
        match s:
            case t.For():
                known = s.guard is None or s.guard not in self.moving
                return known and all(self.adds(x, name) for x in s.body)
            case t.Assign() if s.name == name:
                return self.more(s.expr, name)
            case _:
                return self.local(s) and name not in used(s)

    def more(self, e: Expr, name: str) -> bool:
        match e:
            case Binary("+", Val(old), x) if old == name:
                return self.spans(x) is not None
            case Select(where, x, Val(old)) if old == name:
                return self.spans(where) is not None and self.more(x, name)
            case _:
                return False

    def multiplied(self, s: t.Stmt) -> bool:
        """Whether a statement adds a product to an accumulator, at once or by way of a name."""
        if isinstance(s, t.AccDot):
            return True
        todo = used(s) if isinstance(s, t.Assign) else set()
        makers = {n: x for x in self.body if (n := defined(x)) is not None}
        seen: set[str] = set()
        while todo:
            x = makers.get(todo.pop())
            if isinstance(x, t.Dot):
                return True
            if isinstance(x, t.Compute) and x.name not in seen:
                seen.add(x.name)
                todo |= used(x)
        return False

    def factor(self, e: Expr, products: dict[str, t.Dot]) -> tuple[t.Dot | None, Expr | None]:
        """A product of something known with a state, and what multiplies each of its rows."""
        scale: Expr | None = None
        match e:
            case Binary("*", Val(name), s) if name in products:
                scale = s
            case Val(name):
                pass
            case _:
                return None, None
        product = products.get(name)
        if product is None or product.left in self.moving or product.right not in self.moving:
            return None, None
        if scale is not None and self.spans(scale) not in ((), product.dims[:1]):
            return None, None
        return product, scale

    def spans(self, e: Expr) -> tuple[str, ...] | None:
        """The axes of an expression of known values; None if it depends on the state."""
        out: set[str] = set()
        for n in walk(e):
            if isinstance(n, Val):
                if n.name in self.moving:
                    return None
                out |= {*self.dims.get(n.name, ())}
            elif isinstance(n, Position):
                out.add(n.name)
        return tuple(a.name for a in self.program.axes if a.name in out)

    def keep(self, s: t.Stmt) -> None:
        """A statement of the kernel ahead."""
        self.extra.append(s)
        if isinstance(s, t.Compute | t.Declare | t.Solve):
            self.dims[s.name] = s.dims


def _into(s: t.Stmt, name: str, other: str) -> t.Stmt:
    """A loop that adds to another accumulator."""
    match s:
        case t.For():
            return dataclasses.replace(s, body=tuple(_into(x, name, other) for x in s.body))
        case t.Assign() if s.name == name:
            return dataclasses.replace(renamed(s, {name: other}), name=other)  # type: ignore[arg-type]
        case _:
            return s


def updated(s: t.Stmt) -> set[str]:
    """The values that a statement updates in place."""
    match s:
        case t.Assign() | t.AccDot():
            return {s.name}
        case t.For():
            return set().union(*map(updated, s.body))
        case _:
            return set()


def summands(e: Expr) -> list[Expr]:
    """The terms of a sum."""
    if isinstance(e, Binary) and e.op == "+":
        return summands(e.left) + summands(e.right)
    return [e]


def live(body: Sequence[t.Stmt], carried: set[str]) -> tuple[t.Stmt, ...]:
    """Without what neither a store nor a carried value needs."""
    live = set(carried)
    out: list[t.Stmt] = []
    for s in reversed(body):
        made = {defined(s)} if defined(s) is not None else updated(s)
        if made and not made & live:
            continue
        live |= used(s)
        out.append(s)
    return tuple(reversed(out))
