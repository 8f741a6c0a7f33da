"""How every tensor of a cascade answers a shift of one of them: the question behind stabilisers.

Shift a row tensor `M[i]` by an arbitrary `d[i]`. Each tensor then stays (`INV`), moves by `k*d`
(`ADD`), is multiplied by `exp(k*d)` (`MUL`), or changes in some other way (`UNKNOWN`):

    P[i,j] = exp(S[i,j] - M[i])        MUL  k = -1
    Z[i]   = sum[j](P[i,j])            MUL  k = -1
    O[i,f] = sum[j](P[i,j] * V[j,f]) / Z[i]       INV: the outputs do not see M
    LSE[i] = M[i] + log(Z[i])          INV

Two clients. Differentiation: a tensor that no output sees has no gradient. The online schedule: an
accumulator of kind `MUL k` is corrected by `exp(k * (m_new - m_old))` when the running `m` moves.
The shift is arbitrary at every point, so `at` says *where* it was taken (`M[i]` against `M[l]`):
factors of different places do not combine, and a sum over the index of the place is `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from attndsl.cascade.monomials import Monomial, Polynomial, polynomial, total
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Leaf,
    Local,
    Logic,
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.walk import free, reads, substitute
from attndsl.internal import InternalError

_NOTHING = Polynomial()


class Kind(StrEnum):
    ZERO = "zero"
    """The constant 0, which every shift and every factor leaves alone."""
    INV = "inv"
    ADD = "add"
    MUL = "mul"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Scaling:
    """`ADD`: the value moves by `k*d[at]`; `MUL`: it is multiplied by `exp(k*d[at])`.

    For a tensor, `k` and `at` are written over its own `indices`; for an expression, over the
    indices in its scope.
    """

    kind: Kind
    k: Polynomial = _NOTHING
    at: tuple[Expr, ...] = ()
    indices: tuple[str, ...] = ()

    @property
    def exponent(self) -> Expr:
        """`k` as an expression."""
        return total(self.k)

    @property
    def invariant(self) -> bool:
        return self.kind in (Kind.INV, Kind.ZERO)


ZERO = Scaling(Kind.ZERO)
INV = Scaling(Kind.INV)
UNKNOWN = Scaling(Kind.UNKNOWN)

_LN2 = Polynomial.of([Monomial.of(Fraction(1), [(Call("log", (Const(2),)), Fraction(1))])])
_PER_LN2 = Polynomial.of([Monomial.of(Fraction(1), [(Call("log", (Const(2),)), Fraction(-1))])])


def scaling(
    cascade: Cascade,
    tensor: str,
    fixed: frozenset[str] = frozenset(),
    kind: Kind = Kind.ADD,
) -> dict[str, Scaling]:
    """The scaling of every body tensor under a shift of `tensor` (which itself is `ADD 1`).

    With `kind=MUL`, `tensor` is multiplied by `exp(d)` instead: the shift of its logarithm.

    The pivot is opaque: how `tensor` is computed does not matter. Tensors in `fixed` are held
    constant: those that are known not to be seen by any output, whatever they depend on.
    """
    env: dict[str, Scaling] = {}
    for d in cascade.body:
        if d.tensor == tensor:
            at = tuple(Index(i) for i in d.indices)
            env[tensor] = Scaling(kind, Polynomial.constant(1), at, d.indices)
        elif d.tensor in fixed:
            env[d.tensor] = replace(INV, indices=d.indices)
        else:
            env[d.tensor] = replace(_of_definition(d, env), indices=d.indices)
    return env


def unseen(cascade: Cascade) -> frozenset[str]:
    """Body tensors that may be shifted at will without any output changing: stabilisers.

    They are found last to first, each with the later ones held fixed, so that `L[i,j1]` is found
    after the `M[i] = max[j1](L[i,j1])` that is built on it.
    """
    out: frozenset[str] = frozenset()
    names = [o.name for o in cascade.outputs]
    for d in reversed(cascade.body):
        if d.tensor in names:
            continue
        env = scaling(cascade, d.tensor, out)
        if all(env[n].invariant for n in names):
            out |= {d.tensor}
    return out


def scaling_of(e: Expr, env: Mapping[str, Scaling]) -> Scaling:
    """The scaling of an expression, given that of the tensors it reads (others do not change)."""
    match e:
        case Const(value=v):
            return ZERO if v == 0 else INV
        case Param() | Extent() | Index() | Position() | Local():
            return INV
        case Read():
            return _read(e, env)
        case Unary("-", arg):
            s = scaling_of(arg, env)
            return replace(s, k=-s.k) if s.kind is Kind.ADD else s
        case Unary():
            return _all_invariant((e.arg,), env)
        case Binary("+" | "-" as op, left, right):
            return _sum(scaling_of(left, env), scaling_of(right, env), -1 if op == "-" else 1)
        case Binary("*", left, right):
            return _product(left, right, env)
        case Binary("/", left, right):
            return _quotient(left, right, env)
        case Binary("**", left, right):
            return _power(left, right, env)
        case Binary():
            return _all_invariant((e.left, e.right), env)
        case Compare():
            return _compare(scaling_of(e.left, env), scaling_of(e.right, env))
        case Logic():
            return _all_invariant(e.args, env)
        case Select():
            if not scaling_of(e.cond, env).invariant:
                return UNKNOWN
            return _join(scaling_of(e.then, env), scaling_of(e.other, env))
        case Call():
            return _call(e, env)
        case Reduce():
            return _reduce(e, env)
        case Solve():
            # The value is the exact root, so the bracket does not matter.
            return _all_invariant((e.equation.left, e.equation.right), env)
        case Leaf():
            raise InternalError(f"`{type(e).__name__}` in a cascade")


def _of_definition(d: Define, env: dict[str, Scaling]) -> Scaling:
    if d.where is not None and not scaling_of(d.where, env).invariant:
        return UNKNOWN
    if d.tensor not in reads(d.expr):
        return scaling_of(d.expr, env)
    parts = (d.expr,) if d.init is None else (d.expr, d.init)
    return _all_invariant(parts, {**env, d.tensor: replace(INV, indices=d.indices)})


def _all_invariant(parts: tuple[Expr, ...], env: Mapping[str, Scaling]) -> Scaling:
    return INV if all(scaling_of(p, env).invariant for p in parts) else UNKNOWN


def _read(e: Read, env: Mapping[str, Scaling]) -> Scaling:
    if not all(scaling_of(s, env).invariant for s in e.subs):
        return UNKNOWN
    s = env.get(e.tensor, INV)
    if s.kind not in (Kind.ADD, Kind.MUL):
        return replace(s, indices=())
    here = dict(zip(s.indices, e.subs, strict=True))
    number = {i: Position(x.name) if isinstance(x, Index) else x for i, x in here.items()}

    def place(x: Expr) -> Expr:
        return substitute(x, number, here)

    return Scaling(s.kind, s.k.map(place), tuple(place(x) for x in s.at))


def _joined_place(a: Scaling, b: Scaling) -> tuple[Expr, ...] | None:
    """The one place of both, or None where they differ."""
    places = {s.at for s in (a, b) if not s.invariant}
    if len(places) > 1:
        return None
    return next(iter(places), ())


def _combined(kind: Kind, k: Polynomial, at: tuple[Expr, ...] | None) -> Scaling:
    if at is None:
        return UNKNOWN
    return Scaling(kind, k, at) if k else INV


def _sum(a: Scaling, b: Scaling, sign: int) -> Scaling:
    kinds = {a.kind, b.kind}
    if Kind.UNKNOWN in kinds:
        return UNKNOWN
    if Kind.MUL in kinds:
        return _join(a, b)
    if a.kind is b.kind is Kind.ZERO:
        return ZERO
    return _combined(Kind.ADD, a.k + (b.k if sign > 0 else -b.k), _joined_place(a, b))


def _join(a: Scaling, b: Scaling) -> Scaling:
    """What both are: equal, or one of them zero (multiplies like anything, does not move)."""
    match a.kind, b.kind:
        case (Kind.ZERO, Kind.MUL | Kind.INV | Kind.ZERO | Kind.UNKNOWN):
            return b
        case (Kind.MUL | Kind.INV, Kind.ZERO):
            return a
        case _:
            return a if a == b else UNKNOWN


def _product(left: Expr, right: Expr, env: Mapping[str, Scaling]) -> Scaling:
    a, b = scaling_of(left, env), scaling_of(right, env)
    match a.kind, b.kind:
        case (Kind.ZERO, _) | (_, Kind.ZERO):
            return ZERO
        case (Kind.UNKNOWN, _) | (_, Kind.UNKNOWN):
            return UNKNOWN
        case (Kind.ADD, Kind.INV):
            return replace(a, k=a.k * polynomial(right))
        case (Kind.INV, Kind.ADD):
            return replace(b, k=b.k * polynomial(left))
        case (Kind.ADD, _) | (_, Kind.ADD):
            return UNKNOWN
        case _:
            return _combined(Kind.MUL, a.k + b.k, _joined_place(a, b))


def _quotient(left: Expr, right: Expr, env: Mapping[str, Scaling]) -> Scaling:
    a, b = scaling_of(left, env), scaling_of(right, env)
    match a.kind, b.kind:
        case (Kind.ZERO, _):
            return ZERO
        case (Kind.UNKNOWN, _) | (_, Kind.UNKNOWN) | (_, Kind.ADD):
            return UNKNOWN
        case (Kind.ADD, Kind.INV):
            return replace(a, k=a.k * polynomial(Binary("/", Const(1), right)))
        case (Kind.ADD, _) | (_, Kind.ZERO):
            return UNKNOWN
        case _:
            return _combined(Kind.MUL, a.k - b.k, _joined_place(a, b))


def _power(left: Expr, right: Expr, env: Mapping[str, Scaling]) -> Scaling:
    a, b = scaling_of(left, env), scaling_of(right, env)
    match a.kind, b.kind:
        case (Kind.INV | Kind.ZERO, Kind.INV | Kind.ZERO):
            return INV
        case (Kind.MUL, Kind.INV):
            return _combined(Kind.MUL, a.k * polynomial(right), a.at)
        case (Kind.INV, Kind.ADD):
            return _combined(Kind.MUL, b.k * polynomial(Call("log", (left,))), b.at)
        case _:
            return UNKNOWN


def _compare(a: Scaling, b: Scaling) -> Scaling:
    """Both sides moved alike, or both multiplied by the same positive factor: the same answer."""
    if a.invariant and b.invariant:
        return INV
    return INV if a == b and a.kind is not Kind.UNKNOWN else _join_sign(a, b)


def _join_sign(a: Scaling, b: Scaling) -> Scaling:
    return INV if {a.kind, b.kind} == {Kind.MUL, Kind.ZERO} else UNKNOWN


def _call(e: Call, env: Mapping[str, Scaling]) -> Scaling:
    args = [scaling_of(a, env) for a in e.args]
    s = args[0]
    match e.fn, s.kind:
        case ("max" | "min", _):
            out = s
            for a in args[1:]:
                out = _join(out, a)
            return out
        case (_, Kind.INV | Kind.ZERO):
            vanishes = s.kind is Kind.ZERO and e.fn in ("relu", "abs", "sign", "sqrt", "tanh")
            return ZERO if vanishes else _all_invariant(e.args, env)
        case ("exp", Kind.ADD):
            return _combined(Kind.MUL, s.k, s.at)
        case ("exp2", Kind.ADD):
            return _combined(Kind.MUL, s.k * _LN2, s.at)
        case ("log", Kind.MUL):
            return _combined(Kind.ADD, s.k, s.at)
        case ("log2", Kind.MUL):
            return _combined(Kind.ADD, s.k * _PER_LN2, s.at)
        case ("relu" | "abs", Kind.MUL):
            return s
        case ("sign", Kind.MUL):
            return INV
        case ("sqrt", Kind.MUL):
            return _combined(Kind.MUL, s.k * Polynomial.constant(Fraction(1, 2)), s.at)
        case ("rsqrt", Kind.MUL):
            return _combined(Kind.MUL, s.k * Polynomial.constant(Fraction(-1, 2)), s.at)
        case _:
            return UNKNOWN


def _reduce(e: Reduce, env: Mapping[str, Scaling]) -> Scaling:
    if e.where is not None and not scaling_of(e.where, env).invariant:
        return UNKNOWN
    s = scaling_of(e.body, env)
    if s.kind is Kind.ZERO:
        return ZERO if e.op is Reduction.SUM else INV
    if s.kind in (Kind.INV, Kind.UNKNOWN):
        return s
    seen = frozenset[str]().union(*(free(x) for x in (*s.at, s.exponent)))
    if seen & frozenset(e.indices):
        return UNKNOWN
    match e.op, s.kind:
        case (Reduction.SUM, Kind.MUL) | (Reduction.MAX | Reduction.MIN, _):
            return s
        case _:
            return UNKNOWN
