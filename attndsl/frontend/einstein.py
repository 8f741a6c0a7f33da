"""The Einstein rule: which sums a statement means, written out.

An index that occurs on the right and not on the left is summed, each such index alone, from the outside in:

    S[i,j] = Q[i,e] * K[j,e] + B[i,j]      ->   sum[e](Q[i,e] * K[j,e]) + B[i,j]
    O[i,f] = softmax[j](S[i,j]) * V[j,f]   ->   sum[j](softmax[j](S[i,j]) * V[j,f])

* `+`, `-`, unary minus, the branches of `if`: inside each operand where it occurs;
* a whole chain of `*` and `/`: over the chain if it occurs in two or more factors, else inside the one;
* a function, `**`, `//`, `%`, a comparison: inside the one argument where it occurs;
* a single read, position or normalizer: an error, for a lone sum is a mistyped index more often than a wish.

Source: language reference, section 10.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import Enum

from attndsl.frontend import ast
from attndsl.frontend.vocabulary import BINDERS, NORMALIZERS


class Why(Enum):
    """Why an index cannot be summed."""

    LONE = "a lone sum"
    DIVISOR = "a sum inside a divisor"
    UNCLEAR = "no one place to sum"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An index that the rule refuses to sum, and the expression where it stopped."""

    why: Why
    index: str
    at: ast.Expr
    meant: ast.Expr | None = None
    """What would be summed there by the rule, where it is one expression."""


class CannotSum(Exception):
    """Carries a refusal for every index that cannot be summed."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__(", ".join(f"{r.why.value} over {r.index}" for r in refusals))
        self.refusals = tuple(refusals)


def write_sums(e: ast.Expr, left: Set[str], others: Set[str]) -> ast.Expr:
    """`e` with every sum of the Einstein rule written as `sum[…](…)`.

    `left` are the indices of the left side; `others` the names that are no index (tensors, parameters, unknowns).

    Raises: CannotSum where the rule refuses.
    """
    landings: dict[int, list[str]] = {}
    refused: list[Refusal] = []
    for x in occurring(e, others):
        if x in left:
            continue
        try:
            for node in _Landing(x, others).find(e):
                landings.setdefault(id(node), []).append(x)
        except CannotSum as error:
            refused += error.refusals
    if refused:
        raise CannotSum(refused)
    return _rebuild(e, landings) if landings else e


def occurring(e: ast.Expr, others: Set[str]) -> list[str]:
    """The free indices of `e`, as subscripts or as numbers, in order of first occurrence."""
    found: dict[str, None] = {}
    _collect(e, others, frozenset(), found)
    return list(found)


def binds(e: ast.Big) -> frozenset[str]:
    """The names that an operator binds in its arguments and filters."""
    if e.op not in BINDERS:
        return frozenset()
    return frozenset(s.expr.name for s in e.subs if isinstance(s.expr, ast.Name))


def _collect(e: ast.Expr, others: Set[str], bound: frozenset[str], found: dict[str, None]) -> None:
    match e:
        case ast.Name():
            if e.name not in others and e.name not in bound:
                found.setdefault(e.name)
        case ast.Big():
            inner = bound | binds(e)
            for child in ast.children(e):
                _collect(child, others, inner, found)
        case _:
            for child in ast.children(e):
                _collect(child, others, bound, found)


class _Landing:
    """Finds the nodes over which one index is summed."""

    def __init__(self, index: str, others: Set[str]) -> None:
        self.index = index
        self.others = others

    def occurs(self, e: ast.Expr) -> bool:
        return self.index in occurring(e, self.others)

    def find(self, e: ast.Expr) -> list[ast.Expr]:
        match e:
            case ast.Paren():
                return self.find(e.inner)
            case ast.Binary(op="+" | "-") | ast.Unary(op="+" | "-"):
                return [n for c in ast.children(e) if self.occurs(c) for n in self.find(c)]
            case ast.Binary(op="*" | "/"):
                return self.chain(e)
            case ast.IfExp():
                if self.occurs(e.cond):
                    raise self.refuse(Why.UNCLEAR, e)
                return [n for c in (e.then, e.other) if self.occurs(c) for n in self.find(c)]
            case ast.Ref() | ast.Name():
                raise self.refuse(Why.LONE, e)
            case ast.Big() if e.op in NORMALIZERS and self.index in _named(e):
                raise self.refuse(Why.LONE, e)
            case _:
                return self.argument(e)

    def chain(self, e: ast.Binary) -> list[ast.Expr]:
        factors = [(f, divides) for f, divides in chain_of(e) if self.occurs(f)]
        if all(divides for _, divides in factors):
            raise self.refuse(Why.DIVISOR, factors[0][0], self.only(factors[0][0]))
        return [e] if len(factors) > 1 else self.find(factors[0][0])

    def argument(self, e: ast.Expr) -> list[ast.Expr]:
        """Inside the one argument where the index occurs."""
        inside = [c for c in ast.children(e) if self.occurs(c)]
        if len(inside) > 1:
            raise self.refuse(Why.UNCLEAR, e)
        return self.find(inside[0])

    def only(self, e: ast.Expr) -> ast.Expr | None:
        """The one node of an expression over which the index is summed; None if the rule finds none or several."""
        try:
            found = self.find(e)
        except CannotSum:
            return None
        return found[0] if len(found) == 1 else None

    def refuse(self, why: Why, at: ast.Expr, meant: ast.Expr | None = None) -> CannotSum:
        return CannotSum([Refusal(why, self.index, at, meant)])


def chain_of(e: ast.Expr) -> list[tuple[ast.Expr, bool]]:
    """The factors of a chain of `*` and `/`, each with whether it divides; a parenthesis is one factor."""
    factors: list[tuple[ast.Expr, bool]] = []
    while isinstance(e, ast.Binary) and e.op in ("*", "/"):
        factors.append((e.right, e.op == "/"))
        e = e.left
    return [(e, False), *reversed(factors)]


def _named(e: ast.Big) -> frozenset[str]:
    return frozenset(s.expr.name for s in e.subs if isinstance(s.expr, ast.Name))


def _rebuild(e: ast.Expr, landings: dict[int, list[str]]) -> ast.Expr:
    summed = landings.get(id(e))
    made = ast.map_children(e, lambda c: _rebuild(c, landings))
    if summed is None:
        return made
    subs = tuple(ast.Sub(ast.Name(x, span=e.span), span=e.span) for x in summed)
    return ast.Big("sum", subs, (made,), span=e.span)
