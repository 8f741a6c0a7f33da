"""Values by number: two have one number if they are made in the same way from values of one number."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TypeAlias

from attndsl.cascade.nodes import Binary, Compare, DType, Expr, Logic, Node, Position
from attndsl.cascade.walk import walk
from attndsl.schedule import tile as t
from attndsl.schedule.tile import Val

Number: TypeAlias = int


@dataclass(slots=True)
class Numbers:
    """The numbers of values, by how they are made."""

    table: dict[object, Number] = field(default_factory=dict)
    stored: dict[object, str] = field(default_factory=dict)  # what was stored where
    spans: dict[Number, tuple[frozenset[str], DType]] = field(default_factory=dict)

    def of(self, key: object) -> Number:
        return self.table.setdefault(key, len(self.table))

    def expr(self, e: Expr, names: dict[str, Number]) -> Number:
        """The number of an expression; factors and summands may stand in any order."""
        match e:
            case Val(name):
                return names[name] if name in names else self.of(("free", name))
            case Binary("*" | "+" as op, _, _):
                parts = sorted(self.expr(x, names) for x in _chain(e, op))
                return self.of((op, *parts))
        fields: list[object] = [type(e).__name__]
        for f in dataclasses.fields(e):
            if f.name != "span":
                fields.append(self.field(getattr(e, f.name), names))
        return self.of(tuple(fields))

    def field(self, x: object, names: dict[str, Number]) -> object:
        if isinstance(x, Node):
            return self.expr(x, names)  # type: ignore[arg-type]
        if isinstance(x, tuple):
            return tuple(self.field(y, names) for y in x)
        return x

    def statement(self, s: t.Stmt, names: dict[str, Number]) -> Number | None:
        """The number of what a statement makes; None where it does something else, or updates a value."""

        def n(name: str | None) -> Number | None:
            return None if name is None else names.get(name, self.of(("free", name)))

        match s:
            case t.Compute():
                whole = self.expr(s.expr, names)
                if not s.safe and self.span(s.expr, names) == (frozenset(s.dims), s.dtype):
                    return whole  # a name for an expression, and nothing else
                return self.of(("compute", s.dims, s.dtype, s.safe, self.expr(s.expr, names)))
            case t.Load():
                return self.of(self.place(s, names))
            case t.Dot():
                return self.of(("dot", s.dims, n(s.left), n(s.right), s.over, s.like, s.exact))
            case t.Fold():
                return self.of(("fold", s.dims, s.op, n(s.src), s.over))
            case t.Scan():
                return self.of(("scan", s.dims, n(s.src), s.over, s.down))
            case t.Pick():
                at = self.expr(s.at, names)
                return self.of(("pick", s.dims, n(s.src), s.over, at, s.inside))
            case t.Solve():
                return self.of(("solve", s.dims, n(s.matrix), n(s.right), s.lower, s.like))
        return None

    def span(self, e: Expr, names: dict[str, Number]) -> tuple[frozenset[str], DType]:
        """The axes that an expression spans, and its kind: that of a comparison, or of the values in it."""
        known = [self.spans.get(names.get(n.name, -1)) for n in walk(e) if isinstance(n, Val)]
        dims = frozenset(n.name for n in walk(e) if isinstance(n, Position))
        kinds = {DType.BOOL} if isinstance(e, Compare | Logic) else set()
        for s in known:
            if s is None:
                return frozenset({"unknown"}), DType.FLOAT
            dims |= s[0]
            kinds.add(s[1])
        for kind in (DType.FLOAT, DType.INT, DType.BOOL):
            if kind in kinds and (kind is not DType.FLOAT or not isinstance(e, Compare | Logic)):
                return dims, kind
        return dims, DType.INT

    def place(self, s: t.Load | t.Store, names: dict[str, Number]) -> object:
        subs = tuple(self.expr(x, names) for x in s.subs)
        guard = names.get(s.guard) if isinstance(s, t.Load) and s.guard else None
        return ("load", s.tensor, subs, guard)

    def update(self, s: t.Stmt, names: dict[str, Number]) -> object:
        """What an update does, for comparison."""
        match s:
            case t.AccDot():
                scale = None if s.scale is None else names[s.scale]
                parts = (names[s.left], names[s.right], s.over, s.like, scale, s.exact)
                return ("more", names[s.name], *parts)
            case t.Assign():
                return ("set", names[s.name], self.expr(s.expr, names))
        return object()


def _chain(e: Expr, op: str) -> list[Expr]:
    if isinstance(e, Binary) and e.op == op:
        return _chain(e.left, op) + _chain(e.right, op)
    return [e]
