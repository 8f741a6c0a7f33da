"""The names of one attention: tensors, parameters and indices."""

from __future__ import annotations

from dataclasses import dataclass, field

from attndsl.cascade.nodes import DType
from attndsl.frontend import ast
from attndsl.frontend.expand import Defs
from attndsl.source import Span


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a tensor: `index` for a lone index, else the expression that was written; `batch` if left out."""

    expr: ast.Expr
    index: str | None
    rank: str
    batch: bool


@dataclass(frozen=True, slots=True)
class InputTensor:
    decl: ast.Decl
    axes: tuple[Axis, ...]
    dtype: DType
    batch: frozenset[str]

    @property
    def name(self) -> str:
        return self.decl.name.name

    @property
    def written(self) -> tuple[Axis, ...]:
        """The axes that a read writes."""
        return tuple(a for a in self.axes if not a.batch)


@dataclass(frozen=True, slots=True)
class ParamDecl:
    decl: ast.Decl
    dtype: DType
    default: float | int | bool | None

    @property
    def name(self) -> str:
        return self.decl.name.name


@dataclass(slots=True)
class BodyTensor:
    """A tensor of the body: as it is assigned, and what is known once its statement has been lowered."""

    stmt: ast.Assign
    indices: tuple[str, ...]
    batch: tuple[str, ...] = ()
    dtype: DType | None = None
    lowered: bool = False
    poisoned: bool = False
    of: tuple[str, ...] = ()
    """The recurrences that were written, where this is several of them."""

    @property
    def name(self) -> str:
        return self.stmt.target.name

    @property
    def written(self) -> str:
        """As the program calls it."""
        return " and ".join(f"`{n}`" for n in self.of or (self.name,))


@dataclass(slots=True)
class Scope:
    """Everything that names mean in one attention."""

    attention: ast.Attention
    defs: Defs
    inputs: dict[str, InputTensor] = field(default_factory=dict)
    params: dict[str, ParamDecl] = field(default_factory=dict)
    outputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    batch: tuple[str, ...] = ()
    ranks: dict[str, ast.Expr] = field(default_factory=dict)
    indices: dict[str, Span | None] = field(default_factory=dict)
    """Declared indices: of inputs, outputs, rank statements, and left sides."""
    body: dict[str, BodyTensor] = field(default_factory=dict)
    ambiguous: bool = False
    """Whether a name means two things, so that nothing can be said about statements."""

    @property
    def tensors(self) -> frozenset[str]:
        return frozenset(self.inputs) | frozenset(self.body)

    @property
    def not_indices(self) -> frozenset[str]:
        return self.tensors | frozenset(self.params)
