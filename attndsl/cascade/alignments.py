"""Which indices stand on one axis: a query position and the key positions that it is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Param,
    Position,
    Reduce,
    Unary,
)
from attndsl.cascade.walk import children, walk


def shifted_indices(cascade: Cascade) -> tuple[tuple[str, str], ...]:
    """Pairs (kept `i`, reduced `j`) that stand on one axis: where their extents differ, a call must give `start`.

    They are joined by an affine comparison or difference (`j <= i`, `i - j`), or by an equal `//` of both. A bound
    index stands for the rank that it iterates.
    """
    return tuple(dict.fromkeys((a.kept, t.index) for a in alignments(cascade) for t in a.group))


@dataclass(frozen=True, slots=True)
class Term:
    """`sign * factor * index // divisor`, one term of an affine form."""

    sign: int
    index: str
    factor: Expr
    divisor: Expr


@dataclass(frozen=True, slots=True)
class Alignment:
    """`own` is the kept index's term; `group` are the terms of reduced indices that it is compared with."""

    own: Term
    group: tuple[Term, ...]

    @property
    def kept(self) -> str:
        return self.own.index


ONE = Const(1)


def alignments(cascade: Cascade) -> list[Alignment]:
    """Every kept index that is compared with reduced ones, with their terms."""
    base = {r.name: r.iterates for r in cascade.ranks if r.iterates is not None}

    def rank(i: str) -> str:
        while i in base:
            i = base[i]
        return i

    integers = frozenset(p.name for p in cascade.params if p.dtype is DType.INT)
    below: dict[str, set[str]] = {}
    outputs = [o.name for o in cascade.outputs]
    inner = [d for d in reversed(cascade.body) if d.tensor not in outputs]
    for d in [*(cascade.define(o) for o in outputs), *inner]:
        bound = {rank(j) for n in walk(d.expr) if isinstance(n, Reduce) for j in n.indices}
        for i in map(rank, d.indices):
            # where two ranks are each reduced over the other, the query's is the one that the first output keeps
            below.setdefault(i, set()).update(
                j for j in bound if j != i and i not in below.get(j, ())
            )

    # a rank declared in the body (`rank j1 = |j| // w`) has its extent from there: no query stands on it
    declared = {r.name for r in cascade.ranks if r.extent is not None}
    out: list[Alignment] = []
    for d in cascade.body:
        for root in (d.expr, d.where, d.init):
            for terms in _forms(root, integers) if root is not None else ():
                named = [dataclasses.replace(t, index=rank(t.index)) for t in terms]
                for own in named:
                    group = tuple(
                        t
                        for t in named
                        if t.sign == -own.sign and t.index in below.get(own.index, ())
                    )
                    found = Alignment(
                        dataclasses.replace(own, sign=1),
                        tuple(dataclasses.replace(t, sign=1) for t in group),
                    )
                    if group and found not in out and own.index not in declared:
                        out.append(found)
    return out


def _forms(e: Expr, integers: frozenset[str]) -> Iterable[list[Term]]:
    """The affine forms of all comparisons and of all largest sums and differences inside."""
    match e:
        case Compare():
            yield _terms(Binary("-", e.left, e.right), 1, integers)
            for side in (e.left, e.right):
                yield from _inside(side, integers)
        case Binary(op="+" | "-"):
            yield _terms(e, 1, integers)
            yield from _inside(e, integers)
        case _:
            for c in children(e):
                yield from _forms(c, integers)


def _inside(e: Expr, integers: frozenset[str]) -> Iterable[list[Term]]:
    """Forms below the sums at the top of `e`."""
    if isinstance(e, Binary) and e.op in "+-":
        yield from _inside(e.left, integers)
        yield from _inside(e.right, integers)
    else:
        for c in children(e):
            yield from _forms(c, integers)


def _terms(e: Expr, sign: int, integers: frozenset[str]) -> list[Term]:
    """The terms that are a multiple of one position, or of its `//`; other terms say nothing."""
    match e:
        case Position():
            return [Term(sign, e.name, ONE, ONE)]
        case Unary(op="-"):
            return _terms(e.arg, -sign, integers)
        case Binary(op="+" | "-"):
            turned = sign if e.op == "+" else -sign
            return _terms(e.left, sign, integers) + _terms(e.right, turned, integers)
        case Binary(op="*"):
            for a, b in ((e.left, e.right), (e.right, e.left)):
                if _is_number(b, integers):
                    return [_scaled(t, b) for t in _terms(a, sign, integers)]
            return []
        case Binary(op="//") if _is_number(e.right, integers):
            inner = _terms(e.left, sign, integers)
            return [dataclasses.replace(t, divisor=times(t.divisor, e.right)) for t in inner]
        case _:
            return []


def _is_number(e: Expr, integers: frozenset[str]) -> bool:
    """Is it an integer that the call knows? (`0.1 * (i - j)` scales a difference; it moves no position.)"""
    match e:
        case Const():
            return isinstance(e.value, int)
        case Param():
            return e.name in integers
        case Extent():
            return True
        case Unary(op="-"):
            return _is_number(e.arg, integers)
        case Binary(op="+" | "-" | "*" | "//" | "%"):
            return _is_number(e.left, integers) and _is_number(e.right, integers)
        case _:
            return False


def _scaled(t: Term, by: Expr) -> Term:
    if isinstance(by, Const) and by.value < 0:
        return dataclasses.replace(t, sign=-t.sign, factor=times(t.factor, Const(-by.value)))
    return dataclasses.replace(t, factor=times(t.factor, by))


def times(a: Expr, b: Expr) -> Expr:
    """The product of two numbers, either of which may be 1."""
    return b if a == ONE else a if b == ONE else Binary("*", a, b)
