"""From a cascade to kernels: which tensors are written to memory, by which kernel, in which order.

Every output is a *target*. Targets that keep the same ranks share a kernel; a kernel streams at most one sequence rank.
Building a kernel may find that a tensor must be known before (a pivot that does not separate, a row statistic read
from the other side): that tensor becomes a target of an earlier kernel, and planning starts again. This is all there is
to sweeps: a program that fuses to one sweep ends with one kernel, a two-sweep program with two.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from attndsl.analysis.ranks import Kind, Ranks, classify
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.walk import reads
from attndsl.schedule import tile as t
from attndsl.schedule.builder import Builder, Needs, Refused, X, is_large
from attndsl.schedule.normal import conjuncts, inline_where, is_scatter, normalize
from attndsl.schedule.ranges import build_sweep
from attndsl.schedule.scatter import Scattered, build_scatter, split_scatters
from attndsl.schedule.tile import Axis, Buffer, BufferKind, HostScale, HostSum, Plan, Role

Key = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str | None]
LIMIT = 40


@dataclass(slots=True)
class Planning:
    """What planning has learned so far."""

    targets: dict[str, None]
    after: set[tuple[str, str]] = field(default_factory=set)  # (t, p): t loads p from memory
    notes: list[str] = field(default_factory=list)


def plan(
    cascade: Cascade,
    name: str,
    *,
    residuals: tuple[str, ...] = (),
    like: dict[str, str] | None = None,
    known: dict[str, Kind] | None = None,
    row_order: tuple[str, ...] = (),
) -> Plan:
    """The kernels of one pass.

    `cascade` has `start` applied. `residuals` names the outputs kept for the backward pass; `like` gives the outputs whose
    storage type is an input's; `known` the kinds of ranks settled by another pass; `row_order` the sequence ranks in the
    order in which sums over everything are cut into rows.

    Raises: Refused, with the reason.
    """
    ready = prepare(cascade, known, row_order)
    c, ranks, host, scattered = ready.cascade, ready.ranks, ready.host, ready.scattered
    outputs = [o.name for o in c.outputs]
    host_out = {h.out for h in host}
    first = dict.fromkeys(
        [o for o in outputs if o not in host_out and o not in scattered]
        + [h.src for h in host]
        + [x for s in scattered.values() for x in s.needs]
    )
    state = Planning(first)
    for _ in range(LIMIT):
        steps = _attempt(c, ranks, state, name, scattered, host)
        if steps is not None:
            break
    else:
        raise Refused("A0405", "the kernels of this program depend on each other in a circle")
    return _finish(c, ranks, state, steps, host, scattered, name, residuals, like or {})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A cascade in the form that kernels are cut from."""

    cascade: Cascade
    ranks: Ranks
    host: list[HostSum]
    scattered: dict[str, Scattered]


def prepare(
    cascade: Cascade, known: dict[str, Kind] | None = None, row_order: tuple[str, ...] = ()
) -> Prepared:
    """Make domains explicit, classify ranks, name the large reductions, cut sums over everything into rows."""
    ranks = classify(cascade, known)
    c = normalize(explicit_domains(cascade), ranks)
    order = row_order or tuple(
        dict.fromkeys(ranks.of.get(i, i) for o in c.outputs for i in o.indices)
    )
    c, host = _rows_first(c, ranks, order)
    c, scattered = split_scatters(c, ranks, order)
    if scattered:
        c = normalize(c, ranks)
    return Prepared(c, ranks, host, scattered)


# --- sums over everything ------------------------------------------------------------------------------------------


def _rows_first(c: Cascade, ranks: Ranks, order: tuple[str, ...]) -> tuple[Cascade, list[HostSum]]:
    """Cut sums that keep no sequence rank into rows: a kernel makes one number a row, the framework adds them.

    rewrite:  g[h] = sum[b,i,j](x)   ->   g.rows[b,h,i] = sum[j](x);  g[h] = sum[b,i](g.rows[b,h,i])
    """
    body: list[Define] = []
    host: list[HostSum] = []
    for d in c.body:
        e = d.expr
        if not is_large(e, ranks) or is_scatter(e, ranks):  # type: ignore[arg-type]
            body.append(d)
            continue
        assert isinstance(e, Reduce)
        seq = ranks.sequence(e.indices)
        keeps = ranks.sequence(d.indices)
        features = [i for i in d.indices if ranks.kind(i) is Kind.FEATURE]
        if keeps or (len(seq) == 1 and features) or e.op is not Reduction.SUM:
            body.append(d)
            continue
        key = {r: k for k, r in enumerate(order)}
        rows = sorted(seq, key=lambda i: key.get(ranks.of.get(i, i), len(key)))[:1]
        batch = tuple(i for i in e.indices if ranks.kind(i) is Kind.BATCH)
        kept = (*batch, *d.indices, *rows)
        kept = tuple(i for i in kept if ranks.kind(i) is not Kind.FEATURE) + tuple(features)
        rest = tuple(i for i in seq if i not in rows)
        part = f"{d.tensor}.rows"
        expr: Expr = Reduce(e.op, rest, e.body, e.where) if rest else e.body
        domain = None if rest else e.where
        if domain is not None:
            expr = Select(domain, expr, Const(0.0))
        body.append(Define(part, kept, expr, span=d.span))
        axes = tuple(k for k, i in enumerate(kept) if i not in d.indices)
        host.append(HostSum(d.tensor, part, axes))
        summed = Reduce(
            e.op,
            tuple(i for i in kept if i not in d.indices),
            Read(part, tuple(Index(i) for i in kept)),
        )
        body.append(dataclasses.replace(d, expr=summed))
    return dataclasses.replace(c, body=tuple(body)), host


# --- kernels --------------------------------------------------------------------------------------------------------


def target_key(
    defs: dict[str, Define], x: str, ranks: Ranks, grid_order: tuple[str, ...], stop: set[str]
) -> Key:
    """The tiles, the grid and the loops of the kernel that computes a target."""
    d = defs[x]
    of = ranks.of
    grid = tuple(
        sorted(
            (of.get(i, i) for i in d.indices if ranks.kind(i) is Kind.BATCH),
            key=lambda r: (grid_order.index(r) if r in grid_order else len(grid_order), r),
        )
    )
    tiles = tuple(of.get(i, i) for i in ranks.sequence(d.indices))
    loops: tuple[str, ...] = ()
    stream: str | None = None
    for e in _reductions(defs, x, ranks, stop):
        loops = tuple(of.get(i, i) for i in e.indices if ranks.kind(i) is Kind.BATCH)
        stream = next((of.get(i, i) for i in ranks.sequence(e.indices)), None)
        break
    return tiles, grid, loops, stream


def _join(keys: dict[str, Key]) -> dict[str, Key]:
    """Row maps that stream nothing go with a kernel that keeps the same rows."""
    out = dict(keys)
    for x, (tiles, grid, loops, stream) in keys.items():
        if stream is None and not loops and len(tiles) == 1:
            same = [k for k in keys.values() if k[:2] == (tiles, grid) and k[3] and not k[2]]
            if same:
                out[x] = same[0]
    return out


def _reductions(defs: dict[str, Define], x: str, ranks: Ranks, stop: set[str]) -> list[Reduce]:
    """The large reductions that a target reaches without another reduction between."""
    out: list[Reduce] = []
    seen: set[str] = set()
    tiles = {ranks.of.get(i, i) for i in ranks.sequence(defs[x].indices)}

    def visit(name: str) -> None:
        if name in seen or name not in defs or (name in stop and name != x):
            return
        seen.add(name)
        d = defs[name]
        if is_large(d.expr, ranks):
            assert isinstance(d.expr, Reduce)
            if {ranks.of.get(i, i) for i in ranks.sequence(d.indices)} == tiles:
                out.append(d.expr)
            return
        for e in (d.expr, d.where):
            for r in sorted(reads(e)) if e is not None else ():
                visit(r)

    visit(x)
    return out


def _attempt(
    c: Cascade,
    ranks: Ranks,
    state: Planning,
    name: str,
    scattered: dict[str, Scattered],
    host: list[HostSum],
) -> list[t.TileProgram | HostScale] | None:
    """Build every kernel; None if something was learned and planning must start again."""
    defs = {d.tensor: d for d in c.body}
    order = [d.tensor for d in c.body]
    after = {h.out: (h.src,) for h in host} | {x: s.needs for x, s in scattered.items()}
    nodes = sorted([*state.targets, *after], key=order.index)
    stop = set(nodes)
    keys = _join({x: target_key(defs, x, ranks, c.batch, stop) for x in state.targets})
    cones = {x: _cone(defs, x, set(after)) for x in nodes}
    level = _levels(state, nodes, keys, cones, after)
    groups: dict[tuple[int, Key], list[str]] = {}
    for x in sorted(state.targets, key=order.index):
        groups.setdefault((level[x], keys[x]), []).append(x)
    rows = frozenset(r for k in keys.values() if len(k[0]) == 1 for r in k[0][:1])
    work: list[tuple[int, int, Key | None, list[str]]] = [
        (lvl, order.index(members[0]), key, members) for (lvl, key), members in groups.items()
    ]
    work += [(level[x], order.index(x), None, [x]) for x in scattered]
    steps: list[t.TileProgram | HostScale] = []
    for lvl, _, key, members in sorted(work, key=lambda w: w[:2]):
        done = frozenset(x for x in nodes if level[x] < lvl)
        label = f"{name}_{'_'.join(members[:3])}" if len(work) > 1 else name
        try:
            if key is None:
                (x,) = members
                steps.extend(build_scatter(c, ranks, x, scattered[x], done, rows, label))
            else:
                steps.append(_kernel(c, ranks, key, members, done, rows - frozenset(key[0]), label))
        except Needs as need:
            _learn(state, defs, need, members)
            return None
    return steps


def _levels(
    state: Planning,
    nodes: list[str],
    keys: dict[str, Key],
    cones: dict[str, set[str]],
    after: dict[str, tuple[str, ...]],
) -> dict[str, int]:
    """In which round each target is computed: after what it loads, and as late as others of its kind.

    `after` gives the tensors that a sum of the framework or a scatter follows; they have no kernel of their own kind.
    """
    level: dict[str, int] = {}

    def gap(x: str, p: str) -> int:
        if x in after or p in after:
            return 1
        return 0 if keys[p] == keys[x] and (x, p) not in state.after else 1

    for x in nodes:
        below = {*cones[x], *after.get(x, ())}
        level[x] = max((level[p] + gap(x, p) for p in below if p in level), default=0)
    for x in reversed(nodes):
        if x in after:
            continue
        latest = max(level[y] for y in state.targets if keys[y] == keys[x])
        users = [
            level[y] - gap(y, x)
            for y in nodes
            if y != x and (x in cones[y] or x in after.get(y, ()))
        ]
        level[x] = max(level[x], min([latest, *users]))
    return level


def _learn(state: Planning, defs: dict[str, Define], need: Needs, members: list[str]) -> None:
    tensor = need.tensor
    known = tensor in state.targets
    if not known:
        state.targets[tensor] = None
    before = set(state.after)
    for m in members:
        if m != tensor and tensor in _cone(defs, m):
            state.after.add((m, tensor))
    if need.why not in state.notes:
        state.notes.append(need.why)
    if state.after == before and known:
        raise Refused("A0405", need.why, defs[tensor].span)


def _cone(
    defs: dict[str, Define], tensor: str, stop: set[str] | frozenset[str] = frozenset()
) -> set[str]:
    """All body tensors that a tensor is computed from; not through those in `stop`."""
    out: set[str] = set()
    todo = [tensor]
    while todo:
        d = defs[todo.pop()]
        for e in (d.expr, d.where):
            if e is None:
                continue
            for r in reads(e):
                if r in defs and r not in out:
                    out.add(r)
                    if r not in stop:
                        todo.append(r)
    return out - {tensor}


def _kernel(
    c: Cascade,
    ranks: Ranks,
    key: Key,
    members: list[str],
    done: frozenset[str],
    rows: frozenset[str],
    name: str,
) -> t.TileProgram:
    tiles, grid, loops, stream = key
    if len(tiles) > 2:
        spans = (c.define(x).span for x in members)
        kept = ", ".join(f"`{r}`" for r in tiles)
        raise Refused(
            "A0406",
            f"a result that keeps {len(tiles)} sequence ranks ({kept}) has no kernel form",
            next((s for s in spans if s is not None), None),
        )
    axes = [Axis(r, r, Role.GRID) for r in grid] + [Axis(r, r, Role.LOOP) for r in loops]
    tile_names: list[str] = []
    for r in tiles:
        axis = r if r not in tile_names else r + "_2"
        tile_names.append(axis)
        axes.append(Axis(axis, r, Role.TILE))
    if stream is not None:
        axes.append(
            Axis(stream if stream not in tile_names else stream + "_s", stream, Role.STREAM)
        )
    # Short ways first (dV before dK): what they leave in registers the longer ones need anyway.
    defs = {d.tensor: d for d in c.body}
    members = sorted(members, key=lambda m: len(_cone(defs, m, done)))
    for may_root in (True, False):
        b = Builder(c, ranks, list(axes), done, rows, may_root)
        stores: list[t.Stmt] = [
            store_target(b, b.defs[m], _tiles_at(b, m, tile_names)) for m in members
        ]
        if len(b.rooted) < 2:  # one way of masking in a kernel, or values would be computed twice
            break
    return finish_kernel(b, name, stores, tuple(members), loops, causal_order(b))


def _tiles_at(b: Builder, tensor: str, tile_names: list[str]) -> dict[str, Expr]:
    """A target's sequence indices as the kernel's tiles, in order."""
    names = list(tile_names)
    return {i: Position(names.pop(0)) for i in b.ranks.sequence(b.defs[tensor].indices)}


def store_target(b: Builder, d: Define, at: dict[str, Expr]) -> t.Store:
    """Evaluate a target and store it; `at` says where its indices stand (others: at the axis of their rank)."""
    subs: list[Expr] = []
    for i in d.indices:
        rank = b.ranks.of.get(i, i)
        if i in at:
            subs.append(at[i])
        elif b.ranks.kind(i) is Kind.FEATURE:
            subs.append(Position(b.full_axis(rank, frozenset())))
        else:
            subs.append(Position(rank))
    x = b.read(Read(d.tensor, tuple(subs)), final=True)
    cond = inline_where(d, tuple(subs))
    name = d.tensor
    if cond is not None:
        keep = b.eval(cond, True, "inside")
        zero = Const(False) if x.dtype is DType.BOOL else Const(0.0)
        x = b.combine(Select(Const(0), Const(0), Const(0)), [keep, x, X(zero)], x.dtype, name)
    spans = frozenset().union(*(b.dims_of(s) for s in subs))
    for a in b.order(spans - x.dims):
        spread = Compare(">=", Position(a), Const(0))
        parts = [X(spread, frozenset({a}), dtype=DType.BOOL), x, X(Const(0.0))]
        x = b.combine(Select(Const(0), Const(0), Const(0)), parts, x.dtype, name)
    value = b.value(x, name)
    exprs = tuple(s if isinstance(s, Position) else b.bind(b.eval(s), "at").expr for s in subs)
    return t.Store(d.tensor, exprs, value, b.order(spans), span=d.span)


def finish_kernel(
    b: Builder,
    name: str,
    stores: list[t.Stmt],
    writes: tuple[str, ...],
    loops: tuple[str, ...],
    order: str,
) -> t.TileProgram:
    """Put the pieces of a built kernel together."""
    sweep = build_sweep(b) if b.stream is not None else None
    made: list[t.Loop] = []
    for r in loops:
        lo, hi = loop_bounds(b, r)
        made.append(t.Loop(r, lo, hi, tuple(b.loop_body[r])))
    axes = tuple(b.axes[a] for a in b.sorted_axes())
    return t.TileProgram(
        name,
        axes,
        tuple(b.read_buffers),
        writes,
        tuple(b.params),
        tuple(b.prologue),
        tuple(made),
        sweep,
        (*b.epilogue, *stores),
        order,
    )


def loop_bounds(b: Builder, rank: str) -> tuple[str, str]:
    """`[0, |h|)`, or the group `[g*G, (g+1)*G)` where the reduction's condition says `h // G == g`."""
    from attndsl.cascade.nodes import Extent

    for d in b.cascade.body:
        if not is_large(d.expr, b.ranks):
            continue
        assert isinstance(d.expr, Reduce)
        for cond in conjuncts(d.expr.where):
            match cond:
                case Compare("==", Binary("//", Position(h), size), Position(g)) if (
                    b.ranks.of.get(h, h) == rank and g in b.axes and b.axes[g].role is Role.GRID
                ):
                    lo = Binary("*", Position(g), size)
                    hi = Binary("+", lo, size)
                    return (
                        b.value(b.eval(lo, False, "lo_" + rank), "lo_" + rank),
                        b.value(b.eval(hi, False, "hi_" + rank), "hi_" + rank),
                    )
    zero, top = X(Const(0), dtype=DType.INT), b.eval(Extent(rank))
    return b.value(zero, "lo_" + rank), b.value(top, "hi_" + rank)


def causal_order(b: Builder) -> str:
    """Longest tiles first: the last ones, where the reach grows with the position."""
    from attndsl.analysis.intervals import stretches

    tiles = [a.name for a in b.axes.values() if a.role is Role.TILE]
    if b.stream is None or len(tiles) != 1 or not b.domains or b.domains[0] is None:
        return "forward"
    found = stretches(b.domains[0], b.stream, tiles[0], t.Origin(tiles[0]), t.Origin(tiles[0]))
    grows = any(s.high and not s.low for s in found)
    return "reverse" if grows else "forward"


# --- buffers --------------------------------------------------------------------------------------------------------


def _finish(
    c: Cascade,
    ranks: Ranks,
    state: Planning,
    steps: list[t.TileProgram | HostScale],
    host: list[HostSum],
    scattered: dict[str, Scattered],
    name: str,
    residuals: tuple[str, ...],
    like: dict[str, str],
) -> Plan:
    defs = {d.tensor: d for d in c.body}
    buffers: dict[str, Buffer] = {}
    outputs = {o.name: o for o in c.outputs}
    for i in c.inputs:
        buffers[i.name] = Buffer(i.name, i.ranks, BufferKind.INPUT, i.dtype)
    made = [w for s in steps if isinstance(s, t.TileProgram) for w in s.writes]
    scales = [s.out for s in steps if isinstance(s, HostScale)]
    for x in dict.fromkeys([*made, *(h.out for h in host), *scattered]):
        if x in scattered_fixed(scattered):
            continue
        d = defs[x]
        of = tuple(ranks.of.get(i, i) for i in d.indices)
        kind = BufferKind.TEMP
        if x in residuals:
            kind = BufferKind.RESIDUAL
        elif x in outputs:
            kind = BufferKind.OUTPUT
        if kind is not BufferKind.OUTPUT and len(ranks.sequence(d.indices)) > 1:
            names = " and ".join(f"`{i}`" for i in ranks.sequence(d.indices))
            why = f"`{x}` would be kept in memory over {names}, and no intermediate of that size is"
            raise Refused("A0406", why, d.span)
        buffers[x] = Buffer(x, of, kind, DType.FLOAT, like.get(x))
    for x, s in scattered.items():
        of = tuple(ranks.of.get(i, i) for i in defs[x].indices)
        buffers[s.fixed] = Buffer(s.fixed, of, BufferKind.FIXED)
    for x in scales:
        buffers[x] = Buffer(x, (), BufferKind.TEMP)
    out: list[t.Step] = []
    pending = list(host)
    for s in steps:
        if isinstance(s, HostScale):
            out.append(s)
            continue
        out.append(s)
        for h in list(pending):
            if h.src in s.writes:
                out.append(h)
                pending.remove(h)
        for x, sc in scattered.items():
            if sc.fixed in s.writes:
                out.append(HostSum(x, sc.fixed, (), sc.scale))
    params = tuple((p.name, p.dtype) for p in c.params)
    return Plan(name, tuple(buffers.values()), tuple(out), params, tuple(state.notes))


def scattered_fixed(scattered: dict[str, Scattered]) -> frozenset[str]:
    """The names of the fixed-point accumulators."""
    return frozenset(s.fixed for s in scattered.values())
