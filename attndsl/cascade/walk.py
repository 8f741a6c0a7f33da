"""The rewrite kit: children, bottom-up maps, substitution and free indices of cascade expressions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Expr,
    Index,
    Local,
    Logic,
    Position,
    Read,
    Reduce,
    Select,
    Solve,
    Unary,
)

# By the kind of a node and not by `match`: planning asks some hundred thousand nodes.
_PARTS: dict[type, Callable[[Any], tuple[Expr, ...]]] = {
    Read: attrgetter("subs"),
    Unary: lambda e: (e.arg,),
    Binary: attrgetter("left", "right"),
    Compare: attrgetter("left", "right"),
    Logic: attrgetter("args"),
    Call: attrgetter("args"),
    Select: attrgetter("cond", "then", "other"),
    Reduce: lambda e: (e.body,) if e.where is None else (e.body, e.where),
    Solve: attrgetter("lo", "hi", "equation"),
}


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions, in source order."""
    parts = _PARTS.get(type(e))
    return () if parts is None else parts(e)


def with_children(e: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same node over other subexpressions."""
    match e:
        case Read():
            return Read(e.tensor, new, span=e.span)
        case Unary():
            return Unary(e.op, new[0], span=e.span)
        case Binary():
            return Binary(e.op, new[0], new[1], span=e.span)
        case Compare():
            return Compare(e.op, new[0], new[1], span=e.span)
        case Logic():
            return Logic(e.op, new, span=e.span)
        case Call():
            return Call(e.fn, new, span=e.span)
        case Select():
            return Select(new[0], new[1], new[2], span=e.span)
        case Reduce():
            where = new[1] if len(new) > 1 else None
            return Reduce(e.op, e.indices, new[0], where, span=e.span)
        case Solve():
            equation = new[2]
            assert isinstance(equation, Compare)
            return dataclasses.replace(e, lo=new[0], hi=new[1], equation=equation)
        case _:
            return e


def rewrite(e: Expr, rule: Callable[[Expr], Expr | None]) -> Expr:
    """Apply `rule` bottom-up; None keeps the node."""
    old = children(e)
    new = tuple(rewrite(c, rule) for c in old)
    if any(a is not b for a, b in zip(old, new, strict=True)):
        e = with_children(e, new)
    out = rule(e)
    return e if out is None else out


def replaced(e: Expr, old: Expr, new: Expr) -> Expr:
    """With one subexpression in place of another, wherever it occurs."""
    return rewrite(e, lambda n: new if n == old else None)


def walk(e: Expr) -> Iterator[Expr]:
    """Every node, parents first."""
    ahead = [e]
    while ahead:  # not by recursion: a node would pass through a generator of each node above it
        e = ahead.pop()
        yield e
        ahead += reversed(children(e))


def reads(e: Expr) -> frozenset[str]:
    """Names of all tensors read."""
    return frozenset(n.tensor for n in walk(e) if isinstance(n, Read))


def bound(e: Expr) -> frozenset[str]:
    """Indices that a reduction inside binds."""
    return frozenset(i for n in walk(e) if isinstance(n, Reduce) for i in n.indices)


def free(e: Expr) -> frozenset[str]:
    """Indices that occur, as a subscript or as a number, and are not bound inside."""
    match e:
        case Index() | Position():
            return frozenset({e.name})
        case Reduce():
            inside = free(e.body) | (free(e.where) if e.where is not None else frozenset())
            return inside - frozenset(e.indices)
        case _:
            out: frozenset[str] = frozenset()
            for c in children(e):
                out |= free(c)
            return out


def substitute(e: Expr, subs: Mapping[str, Expr], local: Mapping[str, Expr] | None = None) -> Expr:
    """Replace indices by expressions.

    `subs[i]` stands for `i` as a number; `local[i]`, if given, for `i` as a lone subscript. Where `local` is left out,
    a lone subscript becomes `Index(j)` if `subs[i]` is `Position(j)`, else `subs[i]` itself. `Index(j)` in the place of
    a number becomes `Position(j)`: rules for numbers look for no other.
    """

    def rule(n: Expr) -> Expr | None:
        match n:
            case Position() if n.name in subs:
                to = subs[n.name]
                return Position(to.name, span=to.span) if isinstance(to, Index) else to
            case Index() if local is not None and n.name in local:
                return local[n.name]
            case Index() if n.name in subs:
                to = subs[n.name]
                return Index(to.name, span=n.span) if isinstance(to, Position) else to
            case _:
                return None

    return rewrite(e, rule)


def rename(e: Expr, names: Mapping[str, str]) -> Expr:
    """Rename indices, bound ones included."""

    def rule(n: Expr) -> Expr | None:
        match n:
            case Index() | Position() | Local() if n.name in names:
                return dataclasses.replace(n, name=names[n.name])
            case Reduce() if any(i in names for i in n.indices):
                return dataclasses.replace(n, indices=tuple(names.get(i, i) for i in n.indices))
            case Solve() if n.var in names:
                return dataclasses.replace(n, var=names[n.var])
            case _:
                return None

    return rewrite(e, rule)
