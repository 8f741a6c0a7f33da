"""Exponentials of scores written without a maximum: given one, where no output can tell.

    P[i,j] = exp(S[i,j])                       ->   M.exp[i] = max[j](S[i,j]);  P[i,j] = exp(S[i,j] - M.exp[i])
    O[i,f] = P[i,j] / sum[j](P[i,j]) * V[j,f]

In exact arithmetic both are the same: `P` is multiplied by `exp(-M.exp[i])`, and so is the sum that divides it. In
float32 the first overflows at a score of 88. Whether outputs can tell is asked of `scaling`, as for a maximum that the
user wrote. An output that moves by a known amount (`log(Z)`) or by a known factor (`Z`) is moved back at its end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

from attndsl.analysis.ranks import Kind as RankKind
from attndsl.analysis.ranks import Ranks, classify
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.invariance import Kind, Scaling, scaling
from attndsl.cascade.monomials import polynomial, total
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Define,
    Expr,
    Index,
    Position,
    Rank,
    Read,
    Reduce,
    Reduction,
    Unary,
)
from attndsl.cascade.printer import print_part
from attndsl.cascade.signs import Sign, sign_of, signs
from attndsl.cascade.walk import children, free, rename, rewrite, walk, with_children
from attndsl.source import Span

# Functions that are small whatever their argument: their exponential is.
_BOUNDED = frozenset({"tanh", "sigmoid", "logsigmoid", "erf", "sin", "cos", "acos", "sign"})


@dataclass(frozen=True, slots=True)
class Left:
    """An exponential of a score that keeps its range, and the output that would change with its scale."""

    span: Span | None
    text: str
    output: str


@dataclass(frozen=True, slots=True)
class Stabilised:
    """`inserted` names the new maxima, each with the exponential that it is for."""

    cascade: Cascade
    inserted: tuple[tuple[str, str], ...] = ()
    left: tuple[Left, ...] = ()


@dataclass(slots=True)
class _Group:
    """The exponentials of one score, whatever their bound indices are called."""

    arg: Expr
    first: str
    where: Expr | None
    span: Span | None
    same_domain: bool = True
    calls: list[tuple[str, Call]] = field(default_factory=list)


def stabilised(c: Cascade) -> Stabilised:
    """The program with the maxima that it lacks, as far as they are sound."""
    ranks = classify(c)
    inserted: list[tuple[str, str]] = []
    left: list[Left] = []
    for key in list(_groups(c, ranks)):
        group = _groups(c, ranks)[key]
        text = f"{group.calls[0][1].fn}({print_part(group.arg, c)})"
        made, name = _with_maximum(c, ranks, group, len(inserted))
        if made is None:
            left.append(Left(group.span, text, name))
        else:
            inserted.append((name, text))
            c = made
    return Stabilised(c, tuple(inserted), tuple(left))


# --- finding them ----------------------------------------------------------------------------------------------------


def _groups(c: Cascade, ranks: Ranks) -> dict[Expr, _Group]:
    known = signs(c)
    defs = {d.tensor: d for d in c.body}
    out: dict[Expr, _Group] = {}
    for d in c.body:
        if d.init is not None:
            continue
        for call, where in _exponentials(d.expr, d.where):
            arg = call.args[0]
            if not _is_score(arg, defs, ranks) or sign_of(Unary("-", arg), known) > Sign.ANY:
                continue
            if isinstance(arg, Unary) and sign_of(arg.arg, known) > Sign.ANY:
                continue
            to = {i: ranks.of.get(i, i) for i in free(arg)}
            if len(set(to.values())) < len(to):
                continue
            key = rename(arg, to)
            cond = None if where is None else rename(where, to)
            group = out.setdefault(key, _Group(key, d.tensor, cond, call.span or d.span))
            group.same_domain &= group.where == cond
            group.calls.append((d.tensor, call))
    return out


def _exponentials(e: Expr, where: Expr | None) -> Iterator[tuple[Call, Expr | None]]:
    """Every `exp`, with the conditions of the reductions around it."""
    if isinstance(e, Call) and e.fn in ("exp", "exp2"):
        yield e, where
    if isinstance(e, Reduce):
        where = conjunction((*conjuncts(where), *conjuncts(e.where)))
    for x in children(e):
        yield from _exponentials(x, where)


def _is_score(e: Expr, defs: dict[str, Define], ranks: Ranks) -> bool:
    """Whether a value may be as large as a product of a query and a key, and no maximum is taken off it."""
    if any(isinstance(n, Read) and _has_maximum(n.tensor, defs) for n in walk(e)):
        return False
    return _grows(e, defs, ranks)


def _has_maximum(tensor: str, defs: dict[str, Define]) -> bool:
    d = defs.get(tensor)
    return d is not None and any(
        (isinstance(n, Reduce) and n.op is Reduction.MAX)
        or (isinstance(n, Read) and n.tensor != tensor and _has_maximum(n.tensor, defs))
        for n in walk(d.expr)
    )


def _grows(e: Expr, defs: dict[str, Define], ranks: Ranks) -> bool:
    match e:
        case Call(fn, _) if fn in _BOUNDED:
            return False
        case Reduce(Reduction.SUM, indices, body, _) if all(
            ranks.kind(i) is RankKind.FEATURE for i in indices
        ):
            return len({ranks.of.get(i, i) for i in ranks.sequence(tuple(free(body)))}) > 1
        case Reduce():
            return False
        case Read(tensor=t):
            d = defs.get(t)
            return d is not None and d.init is None and _grows(d.expr, defs, ranks)
        case _:
            return any(_grows(x, defs, ranks) for x in children(e))


# --- putting them in -------------------------------------------------------------------------------------------------


def _with_maximum(c: Cascade, ranks: Ranks, g: _Group, count: int) -> tuple[Cascade | None, str]:
    """The program with a maximum over one of the score's sequences, and its name; or none, and who can tell."""
    culprit = c.outputs[0].name
    if not g.same_domain:
        return None, culprit
    reduced = {
        ranks.of.get(i, i)
        for d in c.body
        for n in walk(d.expr)
        if isinstance(n, Reduce)
        for i in n.indices
    }
    for stream in ranks.sequence(tuple(sorted(free(g.arg)))):
        if stream not in reduced:
            continue
        made, name = _inserted(c, ranks, g, stream, count)
        made = _moved_back(made, name)
        found = scaling(made, name)
        told = [o.name for o in c.outputs if not found[o.name].invariant]
        if not told:
            return made, name
        culprit = told[0]
    return None, culprit


def _inserted(c: Cascade, ranks: Ranks, g: _Group, stream: str, count: int) -> tuple[Cascade, str]:
    name = "M.exp" + (str(count + 1) if count else "")
    over = f"{stream}_exp" + (str(count + 1) if count else "")
    seen = free(g.arg) | (free(g.where) if g.where is not None else frozenset())
    rest = seen - {stream}
    indices = (*(b for b in c.batch if b in rest), *sorted(rest - set(c.batch)))
    to = {stream: over}
    where = None if g.where is None else rename(g.where, to)
    top = Define(
        name, indices, Reduce(Reduction.MAX, (over,), rename(g.arg, to), where), span=g.span
    )

    def rule(e: Expr, calls: set[int]) -> Expr:
        old = children(e)
        new = tuple(rule(x, calls) for x in old)
        if id(e) in calls:
            assert isinstance(e, Call)
            own = {ranks.of.get(i, i): i for i in free(e.args[0])}
            subs = tuple(Index(own.get(i, i)) for i in indices)
            return dataclasses.replace(e, args=(Binary("-", e.args[0], Read(name, subs)),))
        return e if all(a is b for a, b in zip(old, new, strict=True)) else with_children(e, new)

    body: list[Define] = []
    for d in c.body:
        if d.tensor == g.first:
            body.append(top)
        calls = {id(x) for t, x in g.calls if t == d.tensor}
        body.append(dataclasses.replace(d, expr=rule(d.expr, calls)) if calls else d)
    extra = Rank(over, None, stream)
    return dataclasses.replace(c, body=tuple(body), ranks=(*c.ranks, extra)), name


def _moved_back(c: Cascade, name: str) -> Cascade:
    """Outputs that a shift of the maximum moves, or multiplies, brought back to what they were.

    rewrite:  L[i] = log(Z[i])   ->   L.run[i] = log(Z[i]);  L[i] = L.run[i] + M.exp[i]
    """
    found = scaling(c, name)
    outputs = {o.name for o in c.outputs}
    runs: dict[str, str] = {}

    def rule(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor in runs:
            return dataclasses.replace(e, tensor=runs[e.tensor])
        return None

    body: list[Define] = []
    for d in c.body:
        s = found[d.tensor]
        where = None if d.where is None else rewrite(d.where, rule)
        d = dataclasses.replace(d, expr=rewrite(d.expr, rule), where=where)
        if d.tensor not in outputs or s.kind not in (Kind.ADD, Kind.MUL) or d.init is not None:
            body.append(d)
            continue
        runs[d.tensor] = f"{d.tensor}.run"
        run = Read(runs[d.tensor], tuple(Index(i) for i in d.indices))
        body.append(dataclasses.replace(d, tensor=run.tensor))
        body.append(dataclasses.replace(d, expr=_back(run, s, name)))
    return dataclasses.replace(c, body=tuple(body))


def _back(e: Expr, s: Scaling, name: str) -> Expr:
    top = Read(name, tuple(Index(x.name) if isinstance(x, Position) else x for x in s.at))
    by = total(-s.k * polynomial(top))
    return Binary("+", e, by) if s.kind is Kind.ADD else Binary("*", e, Call("exp", (by,)))
