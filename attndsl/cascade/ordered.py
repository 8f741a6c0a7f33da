"""Values that only rise, or only fall, along a sequence: equal ones are neighbours.

    assume j == 0 or doc[j-1] <= doc[j]          the next document's number is no smaller
    N[t] = sum[l : l <= t](1 if cut[l] else 0)   a count never falls
    j // w                                       nor does the number of a block

So `doc[i] == doc[j]` cuts a sequence into stretches: whoever lies between two equal ones is equal to both. A state may
then be carried along, and dropped where a stretch ends; of ids in any order it could not, for a later row may ask for
what was dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from attndsl.cascade.conditions import conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Index,
    Logic,
    Position,
    Read,
    Reduce,
    Reduction,
)
from attndsl.cascade.signs import Sign, sign_of
from attndsl.cascade.types import offset
from attndsl.cascade.walk import free, rewrite

# Tensors that are ordered along an axis, by name and axis, with one name for all that are at most a step apart: a count
# of what came strictly before a point has the values of the count with the point itself.
Ordered = Mapping[tuple[str, int], str]
NONE: Ordered = {}


@dataclass(frozen=True, slots=True)
class Same:
    """`row == column`, one ordered value at a row and at a column: whether they lie in one stretch."""

    row: Expr
    column: Expr


@dataclass(frozen=True, slots=True)
class Count:
    """A running maximum, or sum of what is never negative: over `l <= t`, or `l < t` (`strict`); down, from the end."""

    tensor: str
    axis: int
    of: tuple[Reduction, Expr]
    strict: bool
    up: bool


def ordered(cascade: Cascade) -> Ordered:
    """What is assumed to be ordered, and the counts of what came before."""
    out: dict[tuple[str, int], str] = {}
    apart: list[tuple[tuple[str, int], str]] = []
    for a in cascade.assumes:
        for c in conjuncts(a):
            match _assumed(c):
                case (str() as x, str() as y, int() as axis) if x == y:
                    out[x, axis] = x
                case (x, y, axis):
                    apart.append(((x, axis), y))
                case None:
                    pass
    counts = list(_counts(cascade.body))
    for n in counts:
        out[n.tensor, n.axis] = n.tensor
    apart += [((a.tensor, a.axis), b.tensor) for a, b in _steps(counts)]
    for at, name in apart:
        if at in out:
            out[at] = name
    return out


def said_of(cascade: Cascade, kept: Sequence[str]) -> tuple[Expr, ...]:
    """What is known of counts that another program takes as inputs, as it would be assumed there."""
    indices = {d.tensor: d.indices for d in cascade.body}
    counts = [n for n in _counts(cascade.body) if n.tensor in kept]

    def fact(op: str, a: Count, b: Count, swapped: bool) -> Expr:
        """Of `a` at a point and `b` at the one before, or the other way round."""
        t = indices[a.tensor][a.axis]
        one = Binary("-", Position(t), Const(1))

        def read(n: Count, before: bool) -> Expr:
            own = indices[n.tensor]
            at = (one if before and i == t else Index(i) for i in own)
            return Read(n.tensor, tuple(at))

        said = Compare(op, read(a, swapped), read(b, not swapped))
        return Logic("or", (Compare("==", Position(t), Const(0)), said))

    rises = [fact("<=", n, n, n.up) for n in counts]
    steps = [fact("==", a, b, not a.up) for a, b in _steps(counts)]
    return (*rises, *steps)


def _counts(body: Sequence[Define]) -> Iterator[Count]:
    for d in body:
        match d.expr:
            case Reduce((Reduction.SUM | Reduction.MAX) as how, (col,), of, Compare(op, a, b)):
                if d.where is not None:
                    continue
                rows = [i for i in d.indices if {a, b} == {Position(col), Position(i)}]
                if len(rows) != 1 or rows[0] in free(of) or op not in ("<", "<=", ">", ">="):
                    continue
                if how is Reduction.MAX or sign_of(of, {}) > Sign.ANY:
                    up = (a == Position(col)) == op.startswith("<")
                    plain = rewrite(of, partial(_at, row=col, col="%"))
                    yield Count(d.tensor, d.indices.index(rows[0]), (how, plain), len(op) == 1, up)
            case _:
                pass


def _steps(counts: Sequence[Count]) -> Iterator[tuple[Count, Count]]:
    """Counts of what came strictly before, each with that of the point too."""
    for a in counts:
        for b in counts:
            if a.strict and not b.strict and (a.of, a.up, a.axis) == (b.of, b.up, b.axis):
                yield a, b


def _assumed(c: Expr) -> tuple[str, str, int] | None:
    """The tensors that a condition orders, and their axis: one, or two that are a step apart.

    `j == 0 or doc[j-1] <= doc[j]`; `j < i or doc[i] <= doc[j]`; `t == 0 or M[t] == N[t-1]`.
    """
    if not isinstance(c, Logic) or c.op != "or" or len(c.args) != 2:
        return None
    for first, said in (c.args, c.args[::-1]):
        if not isinstance(said, Compare):
            continue
        a, b = said.left, said.right
        if not (isinstance(a, Read) and isinstance(b, Read) and len(a.subs) == len(b.subs)):
            continue
        if (said.op in ("<", "<=", ">", ">=")) != (a.tensor == b.tensor):
            continue
        differ = [k for k, (x, y) in enumerate(zip(a.subs, b.subs, strict=True)) if x != y]
        if len(differ) == 1 and _excludes(first, a.subs[differ[0]], b.subs[differ[0]]):
            return a.tensor, b.tensor, differ[0]
    return None


def _excludes(first: Expr, x: Expr, y: Expr) -> bool:
    """Whether what is left by `first` are neighbours, or all pairs in one order."""
    match first:
        case Compare("==", Position(name), Const(0)) | Compare("==", Const(0), Position(name)):
            return {offset(x), offset(y)} == {(name, 0), (name, -1)}
        case Compare("<" | "<=" | ">" | ">=", Position(a), Position(b)) if a != b:
            return {x, y} == {Index(a), Index(b)}
        case _:
            return False


def same(c: Expr, row: str, col: str, known: Ordered) -> Same | None:
    """A condition as a comparison of one ordered value at rows and columns; None if it is no such."""
    match c:
        case Compare("==", a, b):
            for x, y in ((a, b), (b, a)):
                if free(x) & {row, col} == {row} and free(y) & {row, col} == {col}:
                    moved = _plain(rewrite(x, lambda n: _at(n, row, col)), known)
                    if moved == _plain(y, known) and _rises(y, col, known):
                        return Same(x, y)
        case _:
            pass
    return None


def _at(n: Expr, row: str, col: str) -> Expr | None:
    return Position(col) if isinstance(n, Position | Index) and n.name == row else None


def _plain(e: Expr, known: Ordered) -> Expr:
    """With positions for indices, and one name for counts that are a step apart.

    A state stands between a row and its columns, at neither's own step: what is equal at both is equal there.
    """
    names = {x: y for (x, _), y in known.items()}

    def rule(n: Expr) -> Expr | None:
        match n:
            case Index(name):
                return Position(name)
            case Read(tensor=x, subs=subs) if names.get(x, x) != x:
                return Read(names[x], tuple(rewrite(s, rule) for s in subs))
            case _:
                return None

    return rewrite(e, rule)


def _rises(e: Expr, col: str, known: Ordered) -> bool:
    """Whether an expression only rises or only falls with a position."""
    if col not in free(e):
        return True
    match e:
        case Position() | Index():
            return True
        case Read(tensor=name, subs=subs):
            moving = [k for k, s in enumerate(subs) if col in free(s)]
            if len(moving) != 1 or (name, moving[0]) not in known:
                return False
            return _rises(subs[moving[0]], col, known)
        case Binary("+" | "-" | "*" | "//", a, b) if col not in free(b):
            return _rises(a, col, known)
        case Binary("+" | "-" | "*", a, b) if col not in free(a):
            return _rises(b, col, known)
        case _:
            return False
