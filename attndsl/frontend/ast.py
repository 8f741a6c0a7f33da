"""The syntax tree: a program as it was written, before names, defs and the Einstein rule mean anything.

    File      ::= (Function | Attention)*
    Function  ::= def name(name*) = Expr
    Attention ::= attention name(Decl*) -> Decl* { Stmt* }
    Decl      ::= name [Expr*]? (: type)? (= Expr)?
    Stmt      ::= Assign name [Sub*] Expr (where Expr*)? (init Expr)?
                | Batch name* | RankDecl (name = Expr)* | Assume Expr*
    Expr      ::= Num | Bool | Name | ExtentOf | Ref name [Sub*] | Big op [Sub*] (arg*) | Call fn (arg*)
                | Unary | Binary | Compare | BoolOp | IfExp | Paren
    Sub       ::= Expr (: Expr)?

Parentheses are nodes: the Einstein rule counts a parenthesis as one factor of a product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from attndsl.source import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Base of all nodes: provenance, which never affects equality or hashing."""

    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Ident(Node):
    """A name where it is declared or assigned."""

    name: str


# --- expressions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Num(Node):
    """A literal, kept as it was written (`1e-6`, `4_096`)."""

    text: str

    @property
    def value(self) -> int | float:
        return int(self.text) if self.text.replace("_", "").isdecimal() else float(self.text)


@dataclass(frozen=True, slots=True)
class Bool(Node):
    value: bool


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A bare name: an index as a number, a parameter, a tensor without written indices, or a solve's unknown."""

    name: str


@dataclass(frozen=True, slots=True)
class ExtentOf(Node):
    """`|i|`."""

    name: str


@dataclass(frozen=True, slots=True)
class Sub(Node):
    """One entry between brackets: a subscript, with a filter after a colon."""

    expr: Expr
    filter: Expr | None = None


@dataclass(frozen=True, slots=True)
class Ref(Node):
    """`T[subs]`."""

    name: str
    subs: tuple[Sub, ...]


@dataclass(frozen=True, slots=True)
class Keyword(Node):
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Big(Node):
    """`op[subs](args)`: a reduction, a normalizer or `solve`."""

    op: str
    subs: tuple[Sub, ...]
    args: tuple[Expr, ...]
    keywords: tuple[Keyword, ...] = ()


@dataclass(frozen=True, slots=True)
class Call(Node):
    fn: str
    args: tuple[Expr, ...]
    keywords: tuple[Keyword, ...] = ()


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`-x`, `+x`, `not x`."""

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
    """A chain: `operands[0] ops[0] operands[1] ops[1] …`."""

    operands: tuple[Expr, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BoolOp(Node):
    """`left and right`, `left or right`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class IfExp(Node):
    """`then if cond else other`."""

    then: Expr
    cond: Expr
    other: Expr


@dataclass(frozen=True, slots=True)
class Paren(Node):
    inner: Expr


Expr: TypeAlias = (
    Num
    | Bool
    | Name
    | ExtentOf
    | Ref
    | Big
    | Call
    | Unary
    | Binary
    | Compare
    | BoolOp
    | IfExp
    | Paren
)

# --- declarations and statements -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decl(Node):
    """An input, an output or a scalar parameter; `dims` is None where no brackets were written."""

    name: Ident
    dims: tuple[Expr, ...] | None = None
    type: Ident | None = None
    default: Expr | None = None


@dataclass(frozen=True, slots=True)
class Assign(Node):
    target: Ident
    subs: tuple[Sub, ...]
    expr: Expr
    where: tuple[Expr, ...] = ()
    init: Expr | None = None


@dataclass(frozen=True, slots=True)
class Batch(Node):
    names: tuple[Ident, ...]


@dataclass(frozen=True, slots=True)
class Binding(Node):
    name: Ident
    value: Expr


@dataclass(frozen=True, slots=True)
class RankDecl(Node):
    bindings: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class Assume(Node):
    conditions: tuple[Expr, ...]


Stmt: TypeAlias = Assign | Batch | RankDecl | Assume


@dataclass(frozen=True, slots=True)
class Function(Node):
    name: Ident
    params: tuple[Ident, ...]
    body: Expr


@dataclass(frozen=True, slots=True)
class Attention(Node):
    name: Ident
    inputs: tuple[Decl, ...]
    outputs: tuple[Decl, ...]
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class File(Node):
    items: tuple[Function | Attention, ...]


# --- traversal -----------------------------------------------------------------------------------------------------


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions, in the order they were written."""
    match e:
        case Num() | Bool() | Name() | ExtentOf():
            return ()
        case Ref():
            return sub_exprs(e.subs)
        case Big():
            return (*sub_exprs(e.subs), *e.args, *(k.value for k in e.keywords))
        case Call():
            return (*e.args, *(k.value for k in e.keywords))
        case Unary():
            return (e.arg,)
        case Binary() | BoolOp():
            return (e.left, e.right)
        case Compare():
            return e.operands
        case IfExp():
            return (e.then, e.cond, e.other)
        case Paren():
            return (e.inner,)


def sub_exprs(subs: tuple[Sub, ...]) -> tuple[Expr, ...]:
    """Subscripts and their filters, in the order they were written."""
    return tuple(x for s in subs for x in (s.expr, s.filter) if x is not None)


def map_children(e: Expr, f: Callable[[Expr], Expr]) -> Expr:
    """The same node over `f` of each subexpression."""

    def of_subs(subs: tuple[Sub, ...]) -> tuple[Sub, ...]:
        return tuple(
            dataclasses.replace(
                s, expr=f(s.expr), filter=f(s.filter) if s.filter is not None else None
            )
            for s in subs
        )

    def of_keywords(keywords: tuple[Keyword, ...]) -> tuple[Keyword, ...]:
        return tuple(dataclasses.replace(k, value=f(k.value)) for k in keywords)

    match e:
        case Num() | Bool() | Name() | ExtentOf():
            return e
        case Ref():
            return dataclasses.replace(e, subs=of_subs(e.subs))
        case Big():
            return dataclasses.replace(
                e,
                subs=of_subs(e.subs),
                args=tuple(map(f, e.args)),
                keywords=of_keywords(e.keywords),
            )
        case Call():
            return dataclasses.replace(
                e, args=tuple(map(f, e.args)), keywords=of_keywords(e.keywords)
            )
        case Unary():
            return dataclasses.replace(e, arg=f(e.arg))
        case Binary() | BoolOp():
            return dataclasses.replace(e, left=f(e.left), right=f(e.right))
        case Compare():
            return dataclasses.replace(e, operands=tuple(map(f, e.operands)))
        case IfExp():
            return dataclasses.replace(e, then=f(e.then), cond=f(e.cond), other=f(e.other))
        case Paren():
            return dataclasses.replace(e, inner=f(e.inner))


def walk(e: Expr) -> Iterator[Expr]:
    """Every subexpression, parents first, left to right; no recursion, so any depth is safe."""
    stack = [e]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(children(top)))


def strip(e: Expr) -> Expr:
    """The expression inside any parentheses."""
    while isinstance(e, Paren):
        e = e.inner
    return e
