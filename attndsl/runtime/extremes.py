"""The least and the greatest value of integer expressions over the points where conditions hold.

An affine expression takes both at corners of the polygon that the index ranges and the affine conditions cut out;
corners are few, so they are simply all tried. `//` and `%` by a number are followed by interval arithmetic, and
`x // k - y // k` by what is known of `x - y`. Conditions on data say nothing here: the expression is bounded as if
they always held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import ceil, floor

from attndsl.cascade.bind import Number, eval_int
from attndsl.cascade.conditions import negation
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
    Select,
    Unary,
)
from attndsl.cascade.sums import signed

# Polygons of more conditions than this are only bounded by their index ranges.
MOST_CONDITIONS = 12

_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class _Affine:
    """`constant + sum of coefficient * index`."""

    constant: int
    terms: tuple[tuple[str, int], ...]

    def plus(self, other: _Affine, sign: int = 1) -> _Affine:
        total = dict(self.terms)
        for i, c in other.terms:
            total[i] = total.get(i, 0) + sign * c
        kept = tuple((i, c) for i, c in total.items() if c)
        return _Affine(self.constant + sign * other.constant, kept)

    def times(self, k: int) -> _Affine:
        return _Affine(self.constant * k, tuple((i, c * k) for i, c in self.terms) if k else ())


def extremes(e: Expr, where: Expr | None, env: Mapping[str, Number]) -> tuple[int, int] | None:
    """Least and greatest value of an expression where a condition holds; None if it never does, or nothing is known."""
    low: list[int] = []
    high: list[int] = []
    for conds in _alternatives(where):
        if _never(conds, env):
            continue
        bounds = _bounds(e, conds, env)
        if bounds is None:
            continue
        low.append(bounds[0])
        high.append(bounds[1])
    return (min(low), max(high)) if low else None


def _alternatives(e: Expr | None) -> list[tuple[Expr, ...]]:
    """A condition as an `or` of `and`s."""
    match e:
        case None:
            return [()]
        case Logic(op="or"):
            return [a for arg in e.args for a in _alternatives(arg)]
        case Logic(op="and"):
            out: list[tuple[Expr, ...]] = [()]
            for arg in e.args:
                more = _alternatives(arg)
                if len(out) * len(more) > 64:
                    continue  # knowing less is safe
                out = [(*a, *b) for a in out for b in more]
            return out
        case _:
            return [(e,)]


def _never(conds: tuple[Expr, ...], env: Mapping[str, Number]) -> bool:
    """Whether a condition on parameters and extents alone is false."""
    for c in conds:
        if isinstance(c, Compare):
            try:
                a, b = eval_int(c.left, env), eval_int(c.right, env)
            except (KeyError, ValueError, TypeError, ZeroDivisionError):
                continue
            if not _holds(c.op, a, b):
                return True
    return False


def _holds(op: str, a: int, b: int) -> bool:
    return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "==": a == b, "!=": a != b}[op]


def _bounds(e: Expr, conds: tuple[Expr, ...], env: Mapping[str, Number]) -> tuple[int, int] | None:
    """The same where all of several conditions hold."""
    form = _affine(e, env)
    if form is not None:
        return _at_corners(form, conds, env)
    found = _parts(e, conds, env)
    return None if found is None else _compared(e, found, conds, env)


def _compared(
    e: Expr, found: tuple[int, int], conds: tuple[Expr, ...], env: Mapping[str, Number]
) -> tuple[int, int] | None:
    """Bounds of an expression that conditions themselves compare with numbers (`i % 4 if i % 4 < 3 else 3`)."""
    low, high = found
    for c in conds:
        if not isinstance(c, Compare):
            continue
        for mine, other, op in (
            (c.left, c.right, c.op),
            (c.right, c.left, _MIRRORED.get(c.op, c.op)),
        ):
            k = _number(other, env) if mine == e else None
            if k is None:
                continue
            if op in ("<", "<=", "=="):
                high = min(high, k - (op == "<"))
            if op in (">", ">=", "=="):
                low = max(low, k + (op == ">"))
    return (low, high) if low <= high else None


def _parts(e: Expr, conds: tuple[Expr, ...], env: Mapping[str, Number]) -> tuple[int, int] | None:
    """Bounds from those of the parts."""
    match e:
        case Binary(op="+" | "-" | "*"):
            a, b = _bounds(e.left, conds, env), _bounds(e.right, conds, env)
            if a is None or b is None:
                return None
            if e.op == "*":
                ends = [x * y for x in a for y in b]
                return min(ends), max(ends)
            if e.op == "-":
                b = (-b[1], -b[0])
            found = a[0] + b[0], a[1] + b[1]
            both = _rounded_alike(e, conds, env)
            return found if both is None else (max(found[0], both[0]), min(found[1], both[1]))
        case Binary(op="//" | "%"):
            a, k = _bounds(e.left, conds, env), _number(e.right, env)
            if a is None or k is None or k <= 0:
                return None
            if e.op == "//":
                return a[0] // k, a[1] // k
            return (a[0] % k, a[1] % k) if a[0] // k == a[1] // k else (0, k - 1)
        case Call(fn="min" | "max"):
            parts = [_bounds(x, conds, env) for x in e.args]
            known = [x for x in parts if x is not None]
            if len(known) < len(parts):
                return None
            pick = min if e.fn == "min" else max
            return pick(x[0] for x in known), pick(x[1] for x in known)
        case Call(fn="abs"):
            a = _bounds(e.args[0], conds, env)
            if a is None:
                return None
            least = 0 if a[0] <= 0 <= a[1] else min(abs(a[0]), abs(a[1]))
            return least, max(abs(a[0]), abs(a[1]))
        case Select():
            then = _bounds(e.then, (*conds, e.cond), env)
            other = _bounds(e.other, (*conds, negation(e.cond)), env)
            if then is None or other is None:
                return then or other
            return min(then[0], other[0]), max(then[1], other[1])
        case _:
            return None


def _rounded_alike(
    e: Expr, conds: tuple[Expr, ...], env: Mapping[str, Number]
) -> tuple[int, int] | None:
    """Bounds of a sum in which `x // k - y // k` stands: by those of `x - y`, which conditions may know more of.

    None where there is no such pair, or nothing is known of its difference or of what stands beside it.
    """
    terms = list(signed(e))
    ups = [t for s, t in terms if s > 0 and isinstance(t, Binary) and t.op == "//"]
    for x in ups:
        k = _number(x.right, env)
        for sign, y in terms:
            if sign > 0 or not (isinstance(y, Binary) and y.op == "//"):
                continue
            if k is None or k <= 0 or _number(y.right, env) != k:
                continue
            apart = _bounds(Binary("-", x.left, y.left), conds, env)
            if apart is None:
                return None
            low, high = apart[0] // k, -(-apart[1] // k)
            for s, other in terms:
                if other is x or other is y:
                    continue
                more = _bounds(other, conds, env)
                if more is None:
                    return None
                low, high = low + min(s * v for v in more), high + max(s * v for v in more)
            return low, high
    return None


def _number(e: Expr, env: Mapping[str, Number]) -> int | None:
    try:
        return eval_int(e, env)
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return None


def _affine(e: Expr, env: Mapping[str, Number]) -> _Affine | None:
    match e:
        case Position() | Index():
            return _Affine(0, ((e.name, 1),))
        case Const() | Param() | Extent():
            k = _number(e, env)
            return None if k is None else _Affine(k, ())
        case Unary(op="-"):
            a = _affine(e.arg, env)
            return None if a is None else a.times(-1)
        case Binary(op="+" | "-"):
            a, b = _affine(e.left, env), _affine(e.right, env)
            if a is None or b is None:
                return None
            return a.plus(b, 1 if e.op == "+" else -1)
        case Binary(op="*"):
            a, b = _affine(e.left, env), _affine(e.right, env)
            if a is None or b is None or (a.terms and b.terms):
                return None
            return b.times(a.constant) if not a.terms else a.times(b.constant)
        case _:
            k = _number(e, env)
            return None if k is None else _Affine(k, ())


def _at_corners(
    form: _Affine, conds: tuple[Expr, ...], env: Mapping[str, Number]
) -> tuple[int, int] | None:
    """Least and greatest value of an affine form over the points where all conditions hold.

    None where there are no such points.
    """
    names = [i for i, _ in form.terms]
    planes = [p for c in conds for p in _planes(c, env)]
    # An index that shares a condition with one of the form's bounds it too.
    for _ in range(2):
        for p in planes:
            mine = [i for i, _ in p.terms]
            if any(i in names for i in mine):
                names += [i for i in mine if i not in names]
    for i in names:
        n = int(env.get(f"|{i}|", 0))
        if n == 0:
            return None
        planes += [_Affine(0, ((i, 1),)), _Affine(n - 1, ((i, -1),))]
    used = [p for p in planes if p.terms and all(i in names for i, _ in p.terms)]
    if any(not p.terms and p.constant < 0 for p in planes):
        return None
    if not names:
        return form.constant, form.constant
    if len(names) > 3 or len(used) > 2 * len(names) + MOST_CONDITIONS:
        return _box(form, env)
    values = [v for at in _corners(used, names) for v in [_value(form, at)]]
    if not values:
        return None
    low, high = ceil(min(values)), floor(max(values))
    return (low, high) if low <= high else None


def _box(form: _Affine, env: Mapping[str, Number]) -> tuple[int, int]:
    low = high = form.constant
    for i, c in form.terms:
        n = int(env[f"|{i}|"])
        low += min(0, c * (n - 1))
        high += max(0, c * (n - 1))
    return low, high


def _planes(c: Expr, env: Mapping[str, Number]) -> list[_Affine]:
    """Forms that are at least 0 where the condition holds."""
    match c:
        case (
            Compare(op="<" | "<=", left=Call(fn="abs", args=(x,)), right=most)
            | Compare(op=">" | ">=", left=most, right=Call(fn="abs", args=(x,)))
        ):
            op = c.op.replace(">", "<")
            sides = (x, Unary("-", x))
            return [p for side in sides for p in _planes(Compare(op, side, most), env)]
        case Compare():
            pass
        case _:
            return []
    a, b = _affine(c.left, env), _affine(c.right, env)
    if a is None or b is None:
        return []
    up, down = b.plus(a, -1), a.plus(b, -1)
    match c.op:
        case "<=":
            return [up]
        case "<":
            return [up.plus(_Affine(-1, ()))]
        case ">=":
            return [down]
        case ">":
            return [down.plus(_Affine(-1, ()))]
        case "==":
            return [up, down]
        case _:
            return []


def _corners(planes: list[_Affine], names: list[str]) -> Iterator[dict[str, Fraction]]:
    for some in combinations(planes, len(names)):
        at = _solve(some, names)
        if at is not None and all(_value(p, at) >= 0 for p in planes):
            yield at


def _value(p: _Affine, at: Mapping[str, Fraction]) -> Fraction:
    return p.constant + sum((c * at[i] for i, c in p.terms), Fraction(0))


def _solve(planes: tuple[_Affine, ...], names: list[str]) -> dict[str, Fraction] | None:
    """The point where all forms are 0, by elimination; None if there is not exactly one."""
    n = len(names)
    rows = [
        [Fraction(dict(p.terms).get(i, 0)) for i in names] + [Fraction(-p.constant)] for p in planes
    ]
    for k in range(n):
        pivot = next((r for r in range(k, n) if rows[r][k] != 0), None)
        if pivot is None:
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for r in range(n):
            if r != k and rows[r][k] != 0:
                factor = rows[r][k]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[k], strict=True)]
    return {i: rows[k][n] for k, i in enumerate(names)}
