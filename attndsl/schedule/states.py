"""States: large reductions, declared in the prologue and updated in the sweep or at the turns of a loop."""

from __future__ import annotations

from attndsl.analysis.rowscans import before_of, within_of
from attndsl.analysis.scans import scan_of
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Const,
    Define,
    DType,
    Expr,
    Position,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.walk import free, substitute
from attndsl.schedule import tile as t
from attndsl.schedule.corrections import pivots_of
from attndsl.schedule.forms import merged
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.loops import loop_axis, solve_loops
from attndsl.schedule.masks import masked, reaches, root_of
from attndsl.schedule.outcomes import Needs
from attndsl.schedule.points import extreme_points
from attndsl.schedule.products import fold
from attndsl.schedule.roots import guess_of
from attndsl.schedule.rows import within_value
from attndsl.schedule.scans import scan_value
from attndsl.schedule.sums import sum_state
from attndsl.schedule.tile import Role, Val
from attndsl.schedule.values import CHOICE, FINAL, RUNNING, STREAMED, State, X


def reduction_state(kernel: Kernel, d: Define, subs: tuple[Expr, ...], final: bool) -> X:
    """A large reduction over the stream: its running value in the sweep, its last one after it."""
    e = d.expr
    assert isinstance(e, Reduce)
    block = within_of(d, kernel.ranks)
    if block is not None:
        return within_value(kernel, d, block, subs)
    if before_of(d, kernel.ranks) is not None:
        raise Needs(
            d.tensor, f"`{d.tensor}` is carried from row to row, and tiles of rows stand alone"
        )
    scan = scan_of(d, kernel.ranks)
    if scan is not None and subs[d.indices.index(scan.kept)] == Position(kernel.stream or ""):
        return scan_value(kernel, d, scan, subs)
    if kernel.carries_stream(subs):
        raise Needs(d.tensor, f"`{d.tensor}` is reduced over another rank than this kernel streams")
    if any(i in kernel.loop_body for s in subs for i in free(s)):
        raise Needs(d.tensor, f"`{d.tensor}` is another one at each turn of the loop")
    key = ("state", d.tensor, subs)
    if key in kernel.states:
        return value_of(kernel, kernel.states[key], d, final)
    if kernel.search is not None and not kernel.refines and not in_equation(kernel, d):
        raise Needs(d.tensor, f"`{d.tensor}` stays the same in all rounds of `{kernel.search}`")
    seq = kernel.ranks.sequence(e.indices)
    loops = {axis_of(kernel, e, i) for i in e.indices} - {kernel.stream}
    if seq and (kernel.stream is None or axis_of(kernel, e, seq[0]) != kernel.stream):
        raise Needs(d.tensor, f"`{d.tensor}` streams `{seq[0]}`, this kernel does not")
    if loops != set(kernel.loop_body) and (loops or seq):
        what = ", ".join(f"`{r}`" for r in sorted(loops | set(kernel.loop_body)))
        raise Needs(d.tensor, f"`{d.tensor}` sums over {what}")
    if kernel.points and kernel.needs_at_points:
        raise Needs(d.tensor, f"`{d.tensor}` is read for one point of a feature at a time")
    if kernel.points:
        raise Needs(d.tensor, f"`{d.tensor}` is read point by point")
    kernel.states[key] = make_state(kernel, d, subs)
    return value_of(kernel, kernel.states[key], d, final)


def in_equation(kernel: Kernel, d: Define) -> bool:
    """Whether a tensor depends on the guess of this kernel's search."""
    assert kernel.search is not None
    return reaches(kernel, d, guess_of(kernel.search))


def value_of(kernel: Kernel, s: State, d: Define, final: bool) -> X:
    """A state's last value, or its running one."""
    if final:
        return X(Val(s.name), frozenset(s.dims), frozenset({FINAL}), s.dtype)
    if s.new is None and s.reduce.op is Reduction.SUM:
        keep_running(kernel, s)
    if s.new is None:
        raise Needs(d.tensor, f"`{d.tensor}` must be known before it is used in the same sweep")
    return s.new


def keep_running(kernel: Kernel, s: State) -> None:
    """Name a sum's value after each step, for other terms of the same step; the state takes it at the end.

    rewrite:  Z = Z + fold(x)   ->   Z_new = Z + fold(x); …; Z = Z_new
    """
    for n, stmt in enumerate(kernel.sweep):
        if isinstance(stmt, t.Assign) and stmt.name == s.name:
            new = kernel.names.fresh(s.name + "_new")
            kernel.sweep[n] = t.Compute(new, s.dims, DType.FLOAT, stmt.expr)
            s.new = X(Val(new), frozenset(s.dims), frozenset({RUNNING}))
            kernel.commits.append(t.Assign(s.name, Val(new)))


def axis_of(kernel: Kernel, e: Reduce, index: str) -> str:
    """The axis that walks a reduced index: its first sequence is streamed, everything else is a loop around that."""
    rank = kernel.ranks.of.get(index, index)
    kept = tuple(a.rank for a in kernel.axes.values() if a.role is Role.TILE)
    first, *_ = (*kernel.ranks.sequence(e.indices), None)
    if index == first:
        return rank if rank not in kept else rank + "_s"
    stream = None if first is None else kernel.ranks.of.get(first, first)
    grid = tuple(a.rank for a in kernel.axes.values() if a.role is Role.GRID)
    return loop_axis(rank, (*grid, *kept), stream)


def make_state(kernel: Kernel, d: Define, subs: tuple[Expr, ...]) -> State:
    """Declare a reduction, and update it in the sweep or at the turns of the loops."""
    e = kernel.inlined(d, subs)
    assert isinstance(e, Reduce)
    here: dict[str, Expr] = {}
    for i in e.indices:
        here[i] = Position(axis_of(kernel, e, i))
    body = substitute(e.body, here)
    where = None if e.where is None else substitute(e.where, here)
    where, body = solve_loops(kernel, where, body)
    if e.op is Reduction.SUM:
        where, body = features_inside(kernel, where, body)
    where = conjunction(conjuncts(where))
    spans = frozenset().union(kernel.dims_of(body), *(kernel.dims_of(s) for s in subs))
    dims = kernel.order(spans - {kernel.stream})
    same = (body, where, dims)
    shares = kernel.shares_sums and e.op is Reduction.SUM
    if shares and same in kernel.sums:  # two results are made of one product
        return kernel.sums[same]
    name = kernel.names.fresh(d.tensor)
    dtype = DType.BOOL if e.op in (Reduction.ANY, Reduction.ALL) else DType.FLOAT
    kernel.prologue.append(t.Declare(name, dims, dtype, Const(e.op.identity)))
    state = State(name, e, dims, dtype)
    if shares:
        kernel.sums[same] = state
    if not kernel.ranks.sequence(e.indices):
        loop_state(kernel, state, d, body, where)
        return state
    whole, less = body, None
    if e.op in (Reduction.MAX, Reduction.MIN):
        body, less = without_constant(body)
    pivots = pivots_of(kernel, *([body] if where is None else [body, where]))
    found = root_of(kernel, body, e.op) if kernel.may_root else None
    if found is not None:
        spans = kernel.dims_of(found) | (
            kernel.dims_of(where) if where is not None else frozenset()
        )
        if len(spans) > 2:  # a feature map, not a score: its condition is of another rank
            found = None
    kernel.rooted.add(found is not None)
    outer = kernel.root
    kernel.root = None if found is None else (found.tensor, found.subs, where)
    if e.op is Reduction.SUM:
        rest = kernel.without_itself(d, body, where)
        if rest is not None:
            sum_state(kernel, state, d, rest, where, pivots)
        kernel.sum_made(state, d, body, where)
    else:
        if pivots:
            pivot = pivots[0].tensor
            raise Needs(pivot, f"`{pivot}` must be known before `{e.op.value}` of `{d.tensor}`")
        if not kernel.running_extreme(state, d, whole, where):
            extreme_state(kernel, state, d, body, where, less)
    kernel.root = outer
    kernel.domains.append(where)
    return state


def features_inside(kernel: Kernel, where: Expr | None, body: Expr) -> tuple[Expr | None, Expr]:
    """Conditions on features go to the term: the domain is then one of positions.

    rewrite:  sum[i : j <= i, A[i,f] != 0](x)   ->   sum[i : j <= i](x if A[i,f] != 0 else 0)
    """
    parts = conjuncts(where)
    small = [c for c in parts if any(kernel.axes[a].role is Role.FULL for a in kernel.dims_of(c))]
    for c in small:
        body = Select(c, body, Const(0.0))
    return conjunction(c for c in parts if c not in small), body


def loop_state(kernel: Kernel, state: State, d: Define, body: Expr, where: Expr | None) -> None:
    """A reduction over batch indices alone: accumulated at each turn of the innermost loop."""
    op = state.reduce.op
    x = kernel.eval(body, False, d.tensor)
    if where is not None:
        cond = kernel.eval(where, False, "keep")
        parts = [cond, x, X(Const(op.identity))]
        x = kernel.combine(CHOICE, parts, x.dtype, d.tensor)
    x = kernel.bind(x, d.tensor)
    update = merged(op, Val(state.name), x.expr)
    kernel.loop_body[next(reversed(kernel.loop_body))].append(t.Assign(state.name, update))


def without_constant(body: Expr) -> tuple[Expr, Const | None]:
    """What a maximum is taken of, and what is taken off it afterwards: once a row, not once a pair.

    rewrite:  max[j](S[i,j] - 2)   ->   max[j](S[i,j]) - 2
    """
    match body:
        case Binary("-", x, Const() as c):
            return x, c
        case _:
            return body, None


def extreme_state(
    kernel: Kernel,
    state: State,
    d: Define,
    body: Expr,
    where: Expr | None,
    less: Const | None = None,
) -> None:
    """Update a maximum, or another reduction that needs no correction, with the terms of the stream's tile.

    `less` is taken off what the tile gives.
    """
    assert kernel.stream is not None
    op = state.reduce.op
    if len(kernel.dims_of(body)) > 2:
        whole = body if less is None else Binary("-", body, less)
        extreme_points(kernel, state, d, whole, where)
        return
    x = kernel.eval(body, False, d.tensor)
    v = masked(kernel, x, where, op.identity, d.tensor + "_s")
    dims = kernel.dims_of_value(v)
    tile = X(Val(v), dims, frozenset({STREAMED}))
    folded = fold(kernel, op, v, tile, kernel.stream, d.tensor + "_tile")
    new = kernel.names.fresh(state.name + "_new")
    of_tile = folded.expr if less is None else Binary("-", folded.expr, less)
    both = merged(op, Val(state.name), of_tile)
    kernel.sweep.append(t.Compute(new, state.dims, state.dtype, both))
    state.new = X(Val(new), frozenset(state.dims), frozenset({RUNNING}), state.dtype)
    kernel.commits.append(t.Assign(state.name, Val(new)))
