"""The cascade IR: a program as a list of single-assignment tensor definitions, with every sum written out.

    Cascade  ::= inputs params outputs batch ranks assumes body:Define*
    Define   ::= tensor [index*] = Expr   (where Expr)?   (init Expr)?
    Expr     ::= Const | Param | Extent | Index | Position | Local
               | Read tensor [Expr*]
               | Unary op Expr | Binary op Expr Expr | Compare op Expr Expr | Logic op Expr*
               | Select Expr Expr Expr | Call fn Expr*
               | Reduce op [index*] Expr (where Expr)?
               | Solve var Expr Expr Compare iters

What the frontend has already done when a cascade exists: `def`s are expanded; normalizers (`softmax[j](S)`) are
desugared into definitions; the Einstein rule is applied, so every sum is a `Reduce`; batch indices are explicit in
every `Read` and on every `Define` (`S[b,h,i,j]`), there is no implicit index left; a bound index has a name of its own,
different from every other index of the cascade, so substitution never captures.

Semantics that every consumer shares (language reference, sections 8, 9, 17):

* A definition has a *domain*: its own `where`, intersected with the domains of what it reads. `where` holds just the
  user's condition unless `rewrite.explicit_domains` has run, after which every `where` (of definitions and of
  reductions) is complete and reads may be evaluated anywhere, provided that reductions and outputs are masked.
* A reduction ranges over the points where its `where` and its body are defined; over no points it is `identity`.
* `a - b` is -inf wherever `a` is -inf (a score of -inf is a point of weight 0); `a / b` is 0 with gradient 0 where
  both are 0 and `b` contains a reduction (a quotient of two empty sums).
* Integers are exact; `//` and `%` floor.
* `Index` is a local subscript (`Q[i,e]`); `Position` is the same index used as a number, shifted by `start` when the
  call gives one. `rewrite.apply_start` makes the shift explicit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from attndsl.source import Span


class DType(StrEnum):
    """The kind of a value; the width is chosen at the call."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Base of all nodes: provenance, which never affects equality or hashing."""

    span: Span | None = field(default=None, compare=False, repr=False)


# --- expressions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf(Node):
    """Base of the leaves that a later IR adds to expressions; a cascade holds none."""


@dataclass(frozen=True, slots=True)
class Const(Node):
    value: float | int | bool


@dataclass(frozen=True, slots=True)
class Param(Node):
    """A scalar parameter of the program (`w`, `cap`)."""

    name: str


@dataclass(frozen=True, slots=True)
class Extent(Node):
    """`|r|`, the number of points of a rank; an integer."""

    rank: str


@dataclass(frozen=True, slots=True)
class Index(Node):
    """An index standing alone in a subscript: always local, never shifted by `start`."""

    name: str


@dataclass(frozen=True, slots=True)
class Position(Node):
    """An index used as a number (integer, 0-based, shifted by `start`)."""

    name: str


@dataclass(frozen=True, slots=True)
class Local(Node):
    """The unknown of a `Solve`."""

    name: str


@dataclass(frozen=True, slots=True)
class Read(Node):
    """One element of an input or of a body tensor; `subs` covers every declared axis, batch axes included.

    A subscript that is a lone index is an `Index`; any other subscript is an integer expression over `Position`s.
    """

    tensor: str
    subs: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`-x` or `not x`."""

    op: str
    arg: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`+ - * / // % **`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """One comparison, `< <= > >= == !=`; chains are expanded into a `Logic("and", …)`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Logic(Node):
    """`and` / `or` of two or more conditions."""

    op: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Select(Node):
    """`then if cond else other`; only the chosen branch needs to be defined."""

    cond: Expr
    then: Expr
    other: Expr


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A pointwise function of the language (`exp`, `tanh`, `max`, …), by its name there."""

    fn: str
    args: tuple[Expr, ...]


class Reduction(StrEnum):
    """The reductions of the IR (`logsumexp` is sugar)."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    PROD = "prod"
    ANY = "any"
    ALL = "all"

    @property
    def identity(self) -> float | bool:
        return {
            "sum": 0.0,
            "max": float("-inf"),
            "min": float("inf"),
            "prod": 1.0,
            "any": False,
            "all": True,
        }[self.value]


@dataclass(frozen=True, slots=True)
class Reduce(Node):
    """`op[indices : where](body)`; binds `indices`."""

    op: Reduction
    indices: tuple[str, ...]
    body: Expr
    where: Expr | None = None


@dataclass(frozen=True, slots=True)
class Solve(Node):
    """The root in `var` of `equation` (monotone in it) between `lo` and `hi`; `iters` caps the kernel's steps."""

    var: str
    lo: Expr
    hi: Expr
    equation: Compare
    iters: int


Expr: TypeAlias = (
    Const
    | Param
    | Extent
    | Index
    | Position
    | Local
    | Read
    | Unary
    | Binary
    | Compare
    | Logic
    | Select
    | Call
    | Reduce
    | Solve
    | Leaf
)


# --- declarations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rank(Node):
    """An index with an extent. `extent` is None where shapes give it, else an integer expression (split ranks).

    `iterates` names, for a bound index (`sum[l : l <= j](…)`), the declared rank whose extent it has.
    """

    name: str
    extent: Expr | None = None
    iterates: str | None = None


@dataclass(frozen=True, slots=True)
class TensorDecl(Node):
    """An input, with one `dims` entry per axis in memory order.

    `dims[k]` is `Index(r)` for a lone index, else an integer expression (`h // G`). `ranks[k]` names the axis's rank:
    `r` itself for a lone index, else a rank of its own (`K.1`), so that every axis has an extent to speak of.
    """

    name: str
    dims: tuple[Expr, ...]
    ranks: tuple[str, ...]
    dtype: DType = DType.FLOAT


@dataclass(frozen=True, slots=True)
class ScalarParam(Node):
    name: str
    dtype: DType
    default: float | int | bool | None = None


@dataclass(frozen=True, slots=True)
class Output(Node):
    """An output: a body tensor of the same name, with its indices in memory order."""

    name: str
    indices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Define(Node):
    """`tensor[indices] = expr where where init init`. `init` is given for recurrences only."""

    tensor: str
    indices: tuple[str, ...]
    expr: Expr
    where: Expr | None = None
    init: Expr | None = None


@dataclass(frozen=True, slots=True)
class Cascade(Node):
    """A whole program; `body` is in order of dependence."""

    name: str
    inputs: tuple[TensorDecl, ...]
    params: tuple[ScalarParam, ...]
    outputs: tuple[Output, ...]
    batch: tuple[str, ...]
    ranks: tuple[Rank, ...]
    body: tuple[Define, ...]
    assumes: tuple[Expr, ...] = ()

    def define(self, tensor: str) -> Define:
        """The definition of a body tensor."""
        return next(d for d in self.body if d.tensor == tensor)

    def input(self, name: str) -> TensorDecl:
        """The declaration of an input."""
        return next(t for t in self.inputs if t.name == name)

    def rank(self, name: str) -> Rank:
        """The rank of an index, by its name."""
        return next(r for r in self.ranks if r.name == name)

    @property
    def defined(self) -> frozenset[str]:
        """The names of all body tensors."""
        return frozenset(d.tensor for d in self.body)
