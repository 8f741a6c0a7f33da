"""Which stretch of a streamed rank a domain leaves open, in closed form.

Example: for `j <= i, i - w < j`, streaming `j` against a tile of rows `i` in [a, b]:

    reach   a - w + 1 <= j < b + 1          some row of the tile sees the key
    full    b - w + 1 <= j < a + 1          every row does, no mask is needed

A comparison of the tile's rows alone (`i < n`) opens or closes the whole stretch: open where it may hold (a < n), full
where it holds for all of them (b < n).

`stretches` brings a condition into disjunctive form, isolates the streamed index in each comparison that is monotone in
it (sums, differences, multiples, `//`), and takes the extremes over the tile by interval arithmetic. A comparison it
cannot solve (an id tensor, a remainder) leaves the reach as it is and makes the stretch partial: always sound, since
the mask is the whole condition.
"""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Expr,
    Extent,
    Index,
    Logic,
    Param,
    Position,
    Read,
    Unary,
)
from attndsl.cascade.walk import free, walk

_FLIP = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_NOT = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
MAX_DISJUNCTS = 2


@dataclass(frozen=True, slots=True)
class Stretch:
    """Integer bounds, low inclusive and high exclusive; none is no bound. `partial`: no tile is known to be full.

    `ids` holds equalities of a value of the tile with an id tensor along the stream: bounds known when the ids are.
    Where one of the conditions `open` fails nothing is open, where one of `full` fails no tile is full.
    """

    low: tuple[Expr, ...] = ()
    high: tuple[Expr, ...] = ()
    full_low: tuple[Expr, ...] = ()
    full_high: tuple[Expr, ...] = ()
    partial: bool = False
    ids: tuple[tuple[Expr, Read], ...] = ()
    open: tuple[Expr, ...] = ()
    full: tuple[Expr, ...] = ()


def stretches(
    cond: Expr | None,
    stream: str,
    tile: str | None,
    first: Expr,
    last: Expr,
    floats: frozenset[str] = frozenset(),
) -> tuple[Stretch, ...]:
    """The stretches of `stream` that `cond` leaves open to a tile of `tile` positions `first … last`.

    A comparison with one of `floats`, parameters or tensors of no integers, bounds nothing: loops count in integers.
    Bounds are maxima of `low` and minima of `high`. With more than two alternatives, one unbounded partial stretch.
    """
    if cond is None:
        return (Stretch(),)
    disjuncts, wide = _dnf(cond), widths(cond)
    streamed, rows = _Unknown(stream, wide), _Tile(tile, first, last, wide)
    if len(disjuncts) > MAX_DISJUNCTS:
        return (Stretch(partial=True),)
    out = []
    for atoms in disjuncts:
        s = Stretch()
        for a in atoms:
            known = _integral(a, floats)
            s = _meet(s, _atom(a, streamed, rows) if known else _PARTIAL)
        out.append(s)
    if any(s == Stretch() for s in out):
        return (Stretch(),)
    return tuple(out)


def bound_of(
    cond: Expr, index: str, floats: frozenset[str] = frozenset()
) -> list[tuple[bool, Expr]]:
    """A comparison as bounds of one index: (True, c) for `index <= c`, (False, c) for `index >= c`; [] if none."""
    if not isinstance(cond, Compare) or cond.op == "!=" or not _integral(cond, floats):
        return []
    left, op, right = cond.left, cond.op, cond.right
    if index in free(right):
        left, right, op = right, left, _FLIP[op]
    if index in free(right):
        return []
    sides = ("<=", ">=") if op == "==" else (op,)
    unknown = _Unknown(index, widths(cond))
    found = [unknown.isolate(left, side, right) for side in sides]
    return [x for x in found if x is not None]


def _dnf(cond: Expr, negate: bool = False) -> list[tuple[Expr, ...]]:
    match cond:
        case Unary("not", arg):
            return _dnf(arg, not negate)
        case Logic(op, args):
            conjunction = (op == "and") != negate
            parts = [_dnf(a, negate) for a in args]
            if not conjunction:
                return [atoms for p in parts for atoms in p]
            out: list[tuple[Expr, ...]] = [()]
            for p in parts:
                out = [a + b for a in out for b in p]
            return out
        case Compare(op, left, right) if negate:
            return [(Compare(_NOT[op], left, right),)]
        case _:
            return [(Unary("not", cond) if negate else cond,)]


def _meet(a: Stretch, b: Stretch) -> Stretch:
    return Stretch(
        a.low + b.low,
        a.high + b.high,
        a.full_low + b.full_low,
        a.full_high + b.full_high,
        a.partial or b.partial,
        a.ids + b.ids,
        a.open + b.open,
        a.full + b.full,
    )


_PARTIAL = Stretch(partial=True)


def _atom(cond: Expr, streamed: _Unknown, rows: _Tile) -> Stretch:
    """The stretch that one comparison leaves open."""
    stream = streamed.index
    if not isinstance(cond, Compare) or cond.op == "!=":
        return _PARTIAL
    left, op, right = cond.left, cond.op, cond.right
    if stream in free(right):
        if stream in free(left):
            return _PARTIAL
        left, right, op = right, left, _FLIP[op]
    if stream not in free(left):
        return _of_rows(left, op, right, rows)
    if op == "==" and isinstance(left, Read):
        alone = [isinstance(x, Index | Position) and x.name == stream for x in left.subs]
        others = [x for x, lone in zip(left.subs, alone, strict=True) if not lone]
        if sum(alone) == 1 and not any({stream, rows.index} & free(x) for x in others):
            return Stretch(ids=((right, left),))
    out = Stretch()
    for side in ("<=", ">=") if op == "==" else (op,):
        bound = streamed.isolate(left, side, right)
        if bound is None:
            return _PARTIAL
        upper, value = bound
        span = rows.span(value)
        if span is None:
            return _PARTIAL
        low, high = span
        if upper:
            out = _meet(out, Stretch(high=(_plus(high, 1),), full_high=(_plus(low, 1),)))
        else:
            out = _meet(out, Stretch(low=(low,), full_low=(high,)))
    return out


def _of_rows(left: Expr, op: str, right: Expr, rows: _Tile) -> Stretch:
    """What a comparison says in which the streamed index does not occur."""
    if op in (">", ">="):
        left, right, op = right, left, _FLIP[op]
    out = Stretch()
    for a, b in ((left, right), (right, left)) if op == "==" else ((left, right),):
        least, most = rows.span(a), rows.span(b)
        if least is None or most is None:
            return _PARTIAL
        side = "<" if op == "<" else "<="
        some, every = Compare(side, least[0], most[1]), Compare(side, least[1], most[0])
        out = _meet(out, Stretch(open=(some,), full=(every,)))
    return out


def _integral(cond: Expr, floats: frozenset[str]) -> bool:
    return all(
        not (isinstance(n, Const) and isinstance(n.value, float))
        and not (isinstance(n, Param) and n.name in floats)
        and not (isinstance(n, Read) and n.tensor in floats)
        and not (isinstance(n, Binary) and n.op in ("/", "**"))
        and not (isinstance(n, Call) and n.fn not in ("min", "max"))
        for n in walk(cond)
    )


@dataclass(frozen=True, slots=True)
class _Unknown:
    """The index that comparisons are solved for; they may divide by `wide` parameters."""

    index: str
    wide: frozenset[str]

    def isolate(self, e: Expr, op: str, other: Expr) -> tuple[bool, Expr] | None:
        """`e op other` as (True, c): index <= c, or (False, c): index >= c."""
        index = self.index
        if op == "<":
            op, other = "<=", _plus(other, -1)
        elif op == ">":
            op, other = ">=", _plus(other, 1)
        match e:
            case Position(name) if name == index:
                return op == "<=", other
            case Unary("-", arg):
                return self.isolate(arg, _FLIP[op], Unary("-", other))
            case Binary("+", a, b) if index not in free(b):
                return self.isolate(a, op, Binary("-", other, b))
            case Binary("+", a, b) if index not in free(a):
                return self.isolate(b, op, Binary("-", other, a))
            case Binary("-", a, b) if index not in free(b):
                return self.isolate(a, op, Binary("+", other, b))
            case Binary("-", a, b) if index not in free(a):
                return self.isolate(b, _FLIP[op], Binary("-", a, other))
            case Binary("//", a, b) if index not in free(b) and _positive(b, self.wide):
                if op == "<=":  # floor(a / b) <= c  <=>  a <= c*b + b - 1
                    top = _plus(Binary("+", Binary("*", other, b), b), -1)
                    return self.isolate(a, "<=", top)
                return self.isolate(a, ">=", Binary("*", other, b))
            case Binary("*", a, Const(int() as k)) if k > 0:
                return self._scaled(a, k, op, other)
            case Binary("*", Const(int() as k), a) if k > 0:
                return self._scaled(a, k, op, other)
            case _:
                return None

    def _scaled(self, a: Expr, k: int, op: str, other: Expr) -> tuple[bool, Expr] | None:
        if op == ">=":  # a*k >= c  <=>  a >= ceil(c / k)
            other = _plus(other, k - 1)
        return self.isolate(a, op, Binary("//", other, Const(k)))


@dataclass(frozen=True, slots=True)
class _Tile:
    """The positions `first … last` of an index, over which extremes are taken; no index is one position."""

    index: str | None
    first: Expr
    last: Expr
    wide: frozenset[str]

    def span(self, e: Expr) -> tuple[Expr, Expr] | None:
        """Least and greatest value of `e` over the tile; None where it is not a known function of the position."""
        tile, wide = self.index, self.wide
        if tile is None or tile not in free(e):
            return e, e
        match e:
            case Position():
                return self.first, self.last
            case Unary("-", arg):
                s = self.span(arg)
                return None if s is None else (Unary("-", s[1]), Unary("-", s[0]))
            case Binary(op, a, b):
                if op == "%" and tile not in free(b) and _positive(b, wide):
                    return Const(0), _plus(b, -1)
                left, right = self.span(a), self.span(b)
                if left is None or right is None:
                    return None
                if op == "+":
                    return Binary("+", left[0], right[0]), Binary("+", left[1], right[1])
                if op == "-":
                    return Binary("-", left[0], right[1]), Binary("-", left[1], right[0])
                if op == "*" and tile not in free(b) and _positive(b, wide):
                    return Binary("*", left[0], b), Binary("*", left[1], b)
                if op == "*" and tile not in free(a) and _positive(a, wide):
                    return Binary("*", a, right[0]), Binary("*", a, right[1])
                if op == "*" and (isinstance(a, Param) or isinstance(b, Param)):  # of either sign
                    ends = tuple(Binary("*", x, y) for x, y in zip(left, right, strict=True))
                    return Call("min", ends), Call("max", ends)
                if op == "//" and tile not in free(b) and _positive(b, wide):
                    return Binary("//", left[0], b), Binary("//", left[1], b)
                return None
            case Call("min" | "max" as fn, args):
                spans = [self.span(a) for a in args]
                if any(s is None for s in spans):
                    return None
                return (
                    Call(fn, tuple(s[0] for s in spans if s is not None)),
                    Call(fn, tuple(s[1] for s in spans if s is not None)),
                )
            case _:
                return None


def widths(e: Expr) -> frozenset[str]:
    """Parameters that positions are divided by: blocks of so many positions, which a call must give as at least 1."""
    return frozenset(
        x.name
        for n in walk(e)
        if isinstance(n, Binary) and n.op in ("//", "%") and free(n.left) and not free(n.right)
        for x in walk(n.right)
        if isinstance(x, Param)
    )


def _positive(e: Expr, wide: frozenset[str]) -> bool:
    """Divisors of positions: constants, extents, and widths."""
    match e:
        case Const(int() as v):
            return v > 0
        case Extent():
            return True
        case Param(name):
            return name in wide
        case Binary("*" | "//" | "+", a, b):
            return _positive(a, wide) and _positive(b, wide)
        case _:
            return False


def _plus(e: Expr, k: int) -> Expr:
    match e:
        case Const(int() as v):
            return Const(v + k)
        case Binary("+", a, Const(int() as v)):
            return _plus_const(a, v + k)
        case Binary("-", a, Const(int() as v)):
            return _plus_const(a, k - v)
        case _:
            return _plus_const(e, k)


def _plus_const(e: Expr, k: int) -> Expr:
    if k == 0:
        return e
    return Binary("+", e, Const(k)) if k > 0 else Binary("-", e, Const(-k))
