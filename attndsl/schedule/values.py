"""What a kernel in the making handles: values and what they depend on, masks, states, fresh names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from attndsl.cascade.nodes import Binary, Call, Const, DType, Expr, Logic, Read, Reduce, Select
from attndsl.schedule import tile as t

# What a value depends on, beside the loops and points it stands in.
STREAMED = "%stream"  # the current tile of the stream
RUNNING = "%running"  # a state as it stands in the sweep
FINAL = "%final"  # a state after the sweep
ROUND = "%round"  # the guess of a search, which stands during a round

# Shapes of nodes, for `Kernel.combine` to fill.
_ANY = Const(0)
TIMES = Binary("*", _ANY, _ANY)
PLUS = Binary("+", _ANY, _ANY)
MINUS = Binary("-", _ANY, _ANY)
CHOICE = Select(_ANY, _ANY, _ANY)
BOTH = Logic("and", (_ANY, _ANY))
ABS = Call("abs", (_ANY,))


@dataclass(frozen=True, slots=True)
class X:
    """A pointwise expression with the axes it spans and what it depends on."""

    expr: Expr
    dims: frozenset[str] = frozenset()
    on: frozenset[str] = frozenset()
    dtype: DType = DType.FLOAT
    safe: bool = False


@dataclass(frozen=True, slots=True)
class MaskStmt:
    """`name = src where cond else fill`; an alias of `src` in an unmasked range."""

    name: str
    dims: tuple[str, ...]
    dtype: DType
    src: str
    cond: str
    fill: float | bool


# The sweep's statements, before it is specialised for its ranges.
SweepStmt: TypeAlias = t.Stmt | MaskStmt


@dataclass(frozen=True, slots=True)
class Pivot:
    """A running value that the terms of a sum depend on.

    Where it moves by `d`, they are multiplied by `exp(k*d)`; a `factor` that is multiplied by `c` multiplies them by
    `c**k`. With `count`, it is the mean of so many values, and `count * d**2` is added to their spread.
    """

    read: Read
    k: Expr
    factor: bool = False
    count: Read | None = None


@dataclass(slots=True)
class State:
    """One running reduction, with what its terms depend on.

    `new` is the value after the current step, where other terms may use it.
    """

    name: str
    reduce: Reduce
    dims: tuple[str, ...]
    dtype: DType = DType.FLOAT
    new: X | None = None
    pivots: list[Pivot] = field(default_factory=list)


@dataclass(slots=True)
class Names:
    """Fresh, readable, deterministic value names."""

    used: dict[str, int] = field(default_factory=dict)

    def fresh(self, base: str) -> str:
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in base) or "v"
        n = self.used.get(base, 0)
        self.used[base] = n + 1
        return base if n == 0 else self.fresh(f"{base}_{n}")
