"""Where tensors are defined, and where their positions stand: the two implicit parts of a cascade made explicit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Binding, eval_int
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
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
    ScalarParam,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.printer import print_expr
from attndsl.cascade.types import offset, time_axis
from attndsl.cascade.walk import children, free, substitute, walk, with_children
from attndsl.diagnostics import Diagnostic, DiagnosticError
from attndsl.internal import InternalError

START = "start"
"""The parameter that `apply_start` adds."""

_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


# --- conditions ------------------------------------------------------------------------------------------------------


def conjuncts(e: Expr | None) -> tuple[Expr, ...]:
    """The parts of a conjunction; none for None."""
    match e:
        case None | Const(value=True):
            return ()
        case Logic(op="and"):
            return tuple(c for a in e.args for c in conjuncts(a))
        case _:
            return (e,)


def conjunction(parts: Iterable[Expr | None]) -> Expr | None:
    """All of the conditions, each once; None if there are none."""
    out: list[Expr] = []
    for part in parts:
        for c in conjuncts(part):
            if c not in out:
                out.append(c)
    if not out:
        return None
    return out[0] if len(out) == 1 else Logic("and", tuple(out))


def negation(e: Expr) -> Expr:
    """`not e`, pushed inwards."""
    match e:
        case Compare():
            return Compare(_NEGATED[e.op], e.left, e.right, span=e.span)
        case Logic():
            op = "or" if e.op == "and" else "and"
            return Logic(op, tuple(negation(a) for a in e.args), span=e.span)
        case Unary(op="not"):
            return e.arg
        case Const():
            return Const(not e.value, span=e.span)
        case _:
            return Unary("not", e, span=e.span)


def _disjunction(a: Expr | None, b: Expr | None) -> Expr | None:
    if a is None or b is None or a == negation(b):
        return None
    return a if a == b else Logic("or", (a, b))


# --- domains ---------------------------------------------------------------------------------------------------------


def explicit_domains(cascade: Cascade) -> Cascade:
    """Complete every domain.

    rewrite:  S[i,j] = … where j <= i;  P[i,j] = exp(S[i,j] - M[i])   ->   P[i,j] = exp(…)  where j <= i
              O[i,f] = sum[j](P[i,j] * V[j,f])                        ->   O[i,f] = sum[j : j <= i](…)
    A `where` that is None afterwards means everywhere. Reductions are defined everywhere (over no points they are their
    identity), so a domain never goes through one.

    Raises `DiagnosticError` A0246 for a recurrence that is undefined at some of its steps.
    """
    domains: dict[str, tuple[tuple[str, ...], Expr | None]] = {}
    body = []
    for d in cascade.body:
        if d.init is not None:
            domains[d.tensor] = (d.indices, d.where)
        expr = _complete(d.expr, domains)
        where = None if d.where is None else _complete(d.where, domains)
        init = None if d.init is None else _complete(d.init, domains)
        domain = conjunction((where, _domain(d.where, domains), _domain(d.expr, domains)))
        time = time_axis(d)
        if time is not None and domain is not None and time[0] in free(domain):
            raise DiagnosticError(_cut(d, time[0]))
        domains[d.tensor] = (d.indices, domain)
        body.append(dataclasses.replace(d, expr=expr, where=domain, init=init))
    return dataclasses.replace(cascade, body=tuple(body))


def _cut(d: Define, time: str) -> Diagnostic:
    return Diagnostic(
        "A0246",
        f"the domain of the recurrence `{d.tensor}` names `{time}`",
        d.span,
        "it reads what is undefined at some steps, and after such a step every later one is undefined too",
        "choose inside the step: `… if … else …`",
    )


def _complete(e: Expr, domains: Mapping[str, tuple[tuple[str, ...], Expr | None]]) -> Expr:
    """Every reduction inside with its complete `where`."""
    old = children(e)
    new = tuple(_complete(c, domains) for c in old)
    out = e if all(a is b for a, b in zip(old, new, strict=True)) else with_children(e, new)
    if isinstance(e, Reduce):
        assert isinstance(out, Reduce)
        where = conjunction((out.where, _domain(e.where, domains), _domain(e.body, domains)))
        out = dataclasses.replace(out, where=where)
    return out


def _domain(
    e: Expr | None, domains: Mapping[str, tuple[tuple[str, ...], Expr | None]]
) -> Expr | None:
    """The condition under which an expression is defined; None if always."""

    def of(x: Expr) -> Expr | None:
        return _domain(x, domains)

    match e:
        case None | Const() | Param() | Extent() | Index() | Position() | Local() | Reduce():
            return None
        case Read():
            return conjunction((*(of(s) for s in e.subs), _read_domain(e, domains)))
        case Unary() | Binary() | Compare() | Call() | Solve():
            return conjunction(of(c) for c in children(e))
        case Logic():
            # looked at from left to right, and only as far as needed
            out = of(e.args[0])
            for k, arg in enumerate(e.args[1:], 1):
                needed = of(arg)
                if needed is not None:
                    before = e.args[0] if k == 1 else Logic(e.op, e.args[:k])
                    decided = negation(before) if e.op == "and" else before
                    out = conjunction((out, _disjunction(decided, needed)))
            return out
        case Select():
            then, other = of(e.then), of(e.other)
            if then == other:
                return conjunction((of(e.cond), then))
            no = negation(e.cond)
            if then is None:
                chosen = _disjunction(e.cond, other)
            elif other is None:
                chosen = _disjunction(no, then)
            else:
                chosen = _disjunction(conjunction((e.cond, then)), conjunction((no, other)))
            return conjunction((of(e.cond), chosen))
        case Leaf():
            raise InternalError(f"`{type(e).__name__}` in a cascade")
        case _:
            assert_never(e)


def _read_domain(
    e: Read, domains: Mapping[str, tuple[tuple[str, ...], Expr | None]]
) -> Expr | None:
    indices, domain = domains.get(e.tensor, ((), None))
    if domain is None:
        return None
    as_number: dict[str, Expr] = {}
    for i, sub in zip(indices, e.subs, strict=True):
        as_number[i] = Position(sub.name, span=sub.span) if isinstance(sub, Index) else sub
    return substitute(domain, as_number, dict(zip(indices, e.subs, strict=True)))


# --- positions -------------------------------------------------------------------------------------------------------


def apply_start(cascade: Cascade) -> Cascade:
    """Make the shift of positions explicit.

    rewrite:  S[i,j] = …  where j <= i   ->   S[i,j] = …  where j <= i + start          (new parameter start: int = 0)
    for every `i` of `shifted_indices`; a subscript that is just `i` stays. A step of a recurrence (`H[t-1]`) stays too.
    """
    shifted = {i for i, _ in shifted_indices(cascade)}
    if not shifted or any(p.name == START for p in cascade.params):
        return cascade
    recurrent = {d.tensor for d in cascade.body if d.init is not None}

    def shift(e: Expr) -> Expr:
        if isinstance(e, Position) and e.name in shifted:
            return Binary("+", e, Param(START, span=e.span), span=e.span)
        if isinstance(e, Read) and e.tensor in recurrent:
            return dataclasses.replace(
                e, subs=tuple(s if offset(s) is not None else shift(s) for s in e.subs)
            )
        old = children(e)
        new = tuple(shift(c) for c in old)
        return e if all(a is b for a, b in zip(old, new, strict=True)) else with_children(e, new)

    def maybe(e: Expr | None) -> Expr | None:
        return None if e is None else shift(e)

    body = tuple(
        Define(d.tensor, d.indices, shift(d.expr), maybe(d.where), maybe(d.init), span=d.span)
        for d in cascade.body
    )
    return dataclasses.replace(
        cascade,
        body=body,
        params=(*cascade.params, ScalarParam(START, DType.INT, 0)),
        assumes=tuple(shift(a) for a in cascade.assumes),
    )


def shifted_indices(cascade: Cascade) -> tuple[tuple[str, str], ...]:
    """Pairs (kept `i`, reduced `j`) that stand on one axis: where their extents differ, a call must give `start`.

    They are joined by an affine comparison or difference (`j <= i`, `i - j`), or by an equal `//` of both. A bound
    index stands for the rank that it iterates.
    """
    return tuple(dict.fromkeys((a.kept, t.index) for a in _alignments(cascade) for t in a.group))


@dataclass(frozen=True, slots=True)
class _Term:
    """`sign * factor * index // divisor`, one term of an affine form."""

    sign: int
    index: str
    factor: Expr
    divisor: Expr


@dataclass(frozen=True, slots=True)
class _Alignment:
    """`own` is the kept index's term; `group` are the terms of reduced indices that it is compared with."""

    own: _Term
    group: tuple[_Term, ...]

    @property
    def kept(self) -> str:
        return self.own.index


_ONE = Const(1)


def _alignments(cascade: Cascade) -> list[_Alignment]:
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
    out: list[_Alignment] = []
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
                    found = _Alignment(
                        dataclasses.replace(own, sign=1),
                        tuple(dataclasses.replace(t, sign=1) for t in group),
                    )
                    if group and found not in out and own.index not in declared:
                        out.append(found)
    return out


def _forms(e: Expr, integers: frozenset[str]) -> Iterable[list[_Term]]:
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


def _inside(e: Expr, integers: frozenset[str]) -> Iterable[list[_Term]]:
    """Forms below the sums at the top of `e`."""
    if isinstance(e, Binary) and e.op in "+-":
        yield from _inside(e.left, integers)
        yield from _inside(e.right, integers)
    else:
        for c in children(e):
            yield from _forms(c, integers)


def _terms(e: Expr, sign: int, integers: frozenset[str]) -> list[_Term]:
    """The terms that are a multiple of one position, or of its `//`; other terms say nothing."""
    match e:
        case Position():
            return [_Term(sign, e.name, _ONE, _ONE)]
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
            return [dataclasses.replace(t, divisor=_times(t.divisor, e.right)) for t in inner]
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


def _scaled(t: _Term, by: Expr) -> _Term:
    if isinstance(by, Const) and by.value < 0:
        return dataclasses.replace(t, sign=-t.sign, factor=_times(t.factor, Const(-by.value)))
    return dataclasses.replace(t, factor=_times(t.factor, by))


def _times(a: Expr, b: Expr) -> Expr:
    return b if a == _ONE else a if b == _ONE else Binary("*", a, b)


def resolve_start(cascade: Cascade, binding: Binding, start: Any) -> dict[str, Any]:
    """For every kept index that stands on a reduced index's axis: the position of its first point (nothing if 0).

    `start` is None, a number, "end", or an int tensor of one number a batch. Raises `CallError` A0505 where it is
    needed and missing, or given and of no use.
    """
    if isinstance(start, int) and start == 0:
        return {}  # positions as they are written: nothing to resolve, as for a derived backward program
    env = {**binding.params, **{f"|{r}|": n for r, n in binding.extents.items()}}
    found = _alignments(cascade)
    start = _checked_start(cascade, binding, start)
    if start is not None and not found and _uses_positions(cascade):
        raise CallError(
            "A0505",
            f"{cascade.name}: `start` was given, and no query index is compared with a key index",
            help="leave `start` out",
        )
    out: dict[str, Any] = {}
    for a in found:
        try:
            ends, length, slack = _lengths(a, binding, env)
        except (KeyError, ValueError, TypeError, ZeroDivisionError):
            continue  # by zero only behind an `if` that does not take it: `bind` saw to that
        differ = not 0 <= ends - length < slack
        if start is None:
            if differ:
                raise _needs_start(cascade, a, binding)
        elif isinstance(start, str):
            at = max(ends - length, 0) if differ else 0
            if ends < length and differ:
                raise CallError(
                    "A0505",
                    f'{cascade.name}: start="end" with |{a.kept}| = {length} past the {ends} positions of '
                    + ", ".join(f"`{t.index}`" for t in a.group),
                )
            if out.setdefault(a.kept, at) != at:
                raise CallError(
                    "A0505", f'{cascade.name}: start="end" is two different positions of `{a.kept}`'
                )
        else:
            out[a.kept] = start
    return {i: s for i, s in out.items() if not (isinstance(s, int) and s == 0)}


def _checked_start(cascade: Cascade, binding: Binding, start: Any) -> Any:
    """`start` as None, an int, "end" or a tensor of the right shape."""
    shape = getattr(start, "shape", None)
    if start is None or (isinstance(start, str) and start == "end"):
        return start
    if shape is not None and len(shape) == 1 and not start.is_floating_point():
        batch = cascade.batch[0] if cascade.batch else None
        if batch is not None and binding.extents[batch] == shape[0]:
            return start
        came = f"a tensor of shape {tuple(shape)}"
    elif not isinstance(start, bool) and hasattr(start, "__index__") and not shape:
        if int(start.__index__()) >= 0:
            return int(start.__index__())
        came = f"{int(start.__index__())}"
    else:
        came = f"{start!r}" if shape is None else f"a tensor of shape {tuple(shape)}"
    raise CallError(
        "A0505",
        f"{cascade.name}: `start` is {came}",
        help='pass "end", a number of at least 0, or an int tensor with one position a batch',
    )


def _uses_positions(cascade: Cascade) -> bool:
    """Does a position of a kept index matter anywhere but in a subscript that is just that index?"""
    return any(
        isinstance(n, Position)
        for d in cascade.body
        for root in (d.expr, d.where, d.init)
        if root is not None
        for n in _numbers(root, frozenset(cascade.batch))
    )


def _numbers(e: Expr, batch: frozenset[str]) -> Iterable[Expr]:
    """All subexpressions; positions of batch indices, which nothing shifts, left out."""
    return (n for n in walk(e) if not (isinstance(n, Position) and n.name in batch))


def _lengths(a: _Alignment, binding: Binding, env: Mapping[str, Any]) -> tuple[int, int, int]:
    """Positions on the reduced side, on the kept side, and by how much the first may be larger, all in equal units."""
    own_factor, own_divisor = eval_int(a.own.factor, env), eval_int(a.own.divisor, env)
    divisors = [eval_int(t.divisor, env) for t in a.group]
    factors = [eval_int(t.factor, env) for t in a.group]
    unit = own_divisor
    for d in divisors:
        unit *= d
    sizes = [abs(f) * unit // d for f, d in zip(factors, divisors, strict=True)]
    own = abs(own_factor) * unit // own_divisor
    step = max(own, 1)
    spans = [(binding.extents[t.index] - 1) * s for t, s in zip(a.group, sizes, strict=True)]
    ends = (sum(spans) + min(sizes)) // step
    return ends, binding.extents[a.kept], max(min(sizes) // step, 1)


def _needs_start(cascade: Cascade, a: _Alignment, binding: Binding) -> CallError:
    kept = a.kept
    others = ", ".join(f"|{t.index}| = {binding.extents[t.index]}" for t in a.group)
    scaled = any((t.factor, t.divisor) != (_ONE, _ONE) for t in (a.own, *a.group))
    lengths = f", in steps that differ (`{kept}` against {_steps(a)})" if scaled else ""
    return CallError(
        "A0505",
        f"{cascade.name}: |{kept}| = {binding.extents[kept]} and {others} stand on one axis{lengths}, and the call"
        f" does not say where the first `{kept}` stands",
        help=f'pass `start="end"` if the `{kept}` are the last positions (a key-value cache), or `start=n`'
        " (`start=0`: they begin where the others do)",
    )


def _steps(a: _Alignment) -> str:
    """The other side of an alignment, in units of the kept index: `2 * j / 3`."""
    parts = []
    for t in a.group:
        up, down = _times(t.factor, a.own.divisor), _times(t.divisor, a.own.factor)
        text = t.index if up == _ONE else f"{print_expr(up)} * {t.index}"
        parts.append(text if down == _ONE else f"{text} / {print_expr(down)}")
    return ", ".join(f"`{p}`" for p in parts)
