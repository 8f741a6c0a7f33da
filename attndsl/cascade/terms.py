"""One contribution to a gradient: a product, summed over indices where conditions hold.

A definition `S[i,j] = … table[i - j + n] …` contributes to the gradient of `table[m]` the term

    sum[i,j : i - j + n == m](dS[i,j] * …)

A read at a lone index renames that index to the tensor's own; any other subscript becomes a
condition, the scatter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attndsl.cascade.definedness import Conditions, unique
from attndsl.cascade.monomials import Monomial
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import Binary, Compare, Const, Expr, Extent, Index, Position, Read
from attndsl.cascade.types import offset
from attndsl.cascade.walk import free, rename, rewrite, substitute


@dataclass(frozen=True, slots=True)
class Term:
    """`sum[indices : where](factor)`."""

    factor: Monomial
    indices: tuple[str, ...] = ()
    where: Conditions = ()

    def rename(self, names: Mapping[str, str]) -> Term:
        return Term(
            self.factor.map(lambda b: rename(b, names)),
            tuple(names.get(i, i) for i in self.indices),
            unique(rename(c, names) for c in self.where),
        )

    def substitute(self, index: str, value: Expr) -> Term:
        """With a number in place of an index."""

        def put(e: Expr) -> Expr:
            return rewrite(substitute(e, {index: value}), _collected)

        return Term(self.factor.map(put), self.indices, unique(put(c) for c in self.where))

    def times(self, m: Monomial) -> Term:
        """Multiplied by a factor that is free of the summed indices."""
        return Term(self.factor * m, self.indices, self.where)


def pinned(term: Term, names: Names) -> Term:
    """A sum over blocks of which only one counts, as that one.

    rewrite:  sum[n : j // w == n](x[n])   ->   x[j // w], where `j // w < |n|`
    requires: `n` is a rank that the program declares by its extent; axes of inputs are gathered from as they are
    """
    for c in term.where:
        match c:
            case Compare("==", block, Position(n)) if n in term.indices and n not in free(block):
                extent = names.ranks[names.root(n)].extent
                if extent is None:
                    continue
                out = term.substitute(n, block)
                held = () if _covers(extent, block, names) else (Compare("<", block, extent),)
                where = unique((*(x for x in out.where if x != Compare("==", block, block)), *held))
                indices = tuple(i for i in out.indices if i != n)
                return pinned(Term(out.factor, indices, where), names)
    return term


def _covers(extent: Expr, block: Expr, names: Names) -> bool:
    """Whether `j // w` is always below a number of blocks: that of all begun ones."""
    match block, extent:
        case (
            Binary("//", Position(j), w),
            Binary("//", Binary("-", Binary("+", Extent(r), v), Const(1)), u),
        ):
            return w == v == u and names.root(j) == r
        case _:
            return False


def _collected(e: Expr) -> Expr | None:
    """`t + 1 - 1` as `t`; a subscript that is a lone index as `Index`."""
    match e:
        case Binary("+" | "-", _, Const()):
            step = _offset(e)
            if step is None:
                return None
            base, c = step
            if c == 0:
                return base
            return Binary("+" if c > 0 else "-", base, Const(abs(c)))
        case Read() if any(isinstance(s, Position) for s in e.subs):
            subs = tuple(Index(s.name) if isinstance(s, Position) else s for s in e.subs)
            return replace(e, subs=subs)
        case _:
            return None


def _offset(e: Expr) -> tuple[Expr, int] | None:
    """An expression as a position and a constant."""
    match e:
        case Position():
            return e, 0
        case Binary("+" | "-" as op, left, Const(value=int(c))):
            inner = _offset(left)
            return None if inner is None else (inner[0], inner[1] + (c if op == "+" else -c))
        case _:
            return None


def gather(
    target: tuple[str, ...],
    subs: tuple[Expr, ...],
    scope: tuple[str, ...],
    term: Term,
    names: Names,
) -> Term:
    """The contribution to `target` of a read at `subs`, made at every point of `scope`.

    A read at `t - 1` is met from the other side: the point `t` receives what was read at `t + 1`,
    where there is one.
    """
    moved: dict[str, str] = {}
    shifted: dict[str, tuple[str, int]] = {}
    matched: list[tuple[Expr, str]] = []
    for own, sub in zip(target, subs, strict=True):
        step = offset(sub)
        if step is None or step[0] not in scope or step[0] in moved or step[0] in shifted:
            matched.append((sub, own))
        elif isinstance(sub, Index):
            moved[step[0]] = own
        else:
            shifted[step[0]] = (own, step[1])
    rest = tuple(i for i in scope if i not in moved and i not in shifted)
    inner = {i: names.index(i) for i in rest if i in target}
    # a shifted index goes by way of a name of its own, since it may have the name of its target
    away = {i: names.index(i) for i in shifted}
    out = Term(term.factor, rest, term.where).rename({**moved, **inner, **away})
    for i, (own, c) in shifted.items():
        here = (
            Binary("-", Position(own), Const(c)) if c > 0 else Binary("+", Position(own), Const(-c))
        )
        limit = Extent(names.root(i))
        inside = Compare("<=", Const(0), here) if c > 0 else Compare("<", here, limit)
        out = out.substitute(away[i], here)
        out = Term(out.factor, out.indices, unique((*out.where, inside)))
    scatter = []
    for sub, own in matched:
        lhs = rename(sub, {**moved, **inner})
        rhs = Index(own) if isinstance(sub, Index) else Position(own)
        scatter.append(Compare("==", lhs, rhs))
    return Term(out.factor, out.indices, unique((*out.where, *scatter)))
