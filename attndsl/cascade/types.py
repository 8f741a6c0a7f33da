"""What kind of value each expression has, and which definitions are recurrences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Leaf,
    Local,
    Logic,
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.walk import reads, walk
from attndsl.internal import InternalError

_OF_ARGUMENTS = frozenset({"abs", "sign", "min", "max", "floor", "ceil"})


class Types:
    """The kinds of all names of a cascade: `Types(c).of(expr)`, `Types(c).tensors["S"]`."""

    def __init__(self, cascade: Cascade) -> None:
        self.params: dict[str, DType] = {p.name: p.dtype for p in cascade.params}
        self.tensors: dict[str, DType] = {t.name: t.dtype for t in cascade.inputs}
        # A sum that reads itself, at earlier points, is read before it is made.
        self.tensors |= {d.tensor: DType.FLOAT for d in cascade.body}
        for d in cascade.body:
            kind = self.of_recurrence(d) if d.init is not None else self.of(d.expr)
            self.tensors[d.tensor] = kind

    def of_recurrence(self, d: Define) -> DType:
        """The least kind that holds the initial value and every later one."""
        assert d.init is not None
        kind = self.of(d.init)
        self.tensors[d.tensor] = kind
        return _join(kind, self.of(d.expr))

    def of(self, e: Expr) -> DType:
        return dtype_of(e, self.tensors, self.params)


def dtype_of(e: Expr, tensors: Mapping[str, DType], params: Mapping[str, DType]) -> DType:
    """The kind of an expression's value: `/` gives a float, `//` of integers an integer.

    A power is an integer if its base is one and its exponent a constant of at least 0. `floor` keeps the kind.
    """

    def of(x: Expr) -> DType:
        return dtype_of(x, tensors, params)

    match e:
        case Const():
            return constant_type(e.value)
        case Param():
            return params[e.name]
        case Extent() | Index() | Position():
            return DType.INT
        case Local() | Solve():
            return DType.FLOAT
        case Read():
            return tensors[e.tensor]
        case Unary():
            return DType.BOOL if e.op == "not" else _number(of(e.arg))
        case Binary(op="/"):
            return DType.FLOAT
        case Binary(op="**"):
            joined = _number(_join(of(e.left), of(e.right)))
            whole = isinstance(e.right, Const) and e.right.value >= 0
            return joined if whole else DType.FLOAT
        case Binary():
            return _number(_join(of(e.left), of(e.right)))
        case Compare() | Logic():
            return DType.BOOL
        case Select():
            return _join(of(e.then), of(e.other))
        case Call():
            if e.fn in _OF_ARGUMENTS:
                return _number(_join(*(of(a) for a in e.args)))
            return DType.FLOAT
        case Reduce():
            if e.op in (Reduction.ANY, Reduction.ALL):
                return DType.BOOL
            return _number(of(e.body))
        case Leaf():
            raise InternalError(f"`{type(e).__name__}` in a cascade")
        case _:
            assert_never(e)


def constant_type(value: float | int | bool) -> DType:
    """The kind of a literal."""
    if isinstance(value, bool):
        return DType.BOOL
    return DType.INT if isinstance(value, int) else DType.FLOAT


def _join(*kinds: DType) -> DType:
    for kind in (DType.FLOAT, DType.INT):
        if kind in kinds:
            return kind
    return DType.BOOL


def _number(kind: DType) -> DType:
    """A truth value in arithmetic counts as 0 or 1."""
    return DType.INT if kind is DType.BOOL else kind


def offset(e: Expr) -> tuple[str, int] | None:
    """`(i, c)` for a subscript `i + c` with a constant `c`, else None."""
    match e:
        case Index() | Position():
            return e.name, 0
        case Binary(op="+", left=Position(name=i), right=Const(value=int(c))):
            return i, c
        case Binary(op="+", left=Const(value=int(c)), right=Position(name=i)):
            return i, c
        case Binary(op="-", left=Position(name=i), right=Const(value=int(c))):
            return i, -c
        case _:
            return None


def time_axis(d: Define) -> tuple[str, int] | None:
    """The index that a recurrence runs over, and its step: +1 if it reads its past (`H[t-1]`), -1 its future.

    None for a definition that does not read itself.
    """
    if d.tensor not in reads(d.expr):
        return None
    for n in walk(d.expr):
        if isinstance(n, Read) and n.tensor == d.tensor:
            for i, sub in zip(d.indices, n.subs, strict=True):
                at = offset(sub)
                if at is not None and at[0] == i and at[1] in (-1, 1):
                    return i, -at[1]
    return None
