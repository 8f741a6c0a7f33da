"""From a cascade to kernels: which tensors are written to memory, by which kernel, in which order.

Every output is a *target*. Targets that keep the same ranks share a kernel; a kernel streams at most one sequence rank.
Building a kernel may find that a tensor must be known before (a pivot that does not separate, a row statistic read
from the other side): that tensor becomes a target of an earlier kernel, and planning starts again. This is all there is
to sweeps: a program that fuses to one sweep ends with one kernel, a two-sweep program with two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from attndsl.analysis.linearity import NotLinear
from attndsl.analysis.ranks import Kind, Ranks
from attndsl.cascade.nodes import Cascade, Define, Local, Solve
from attndsl.cascade.walk import reads
from attndsl.schedule.ahead import split_ahead
from attndsl.schedule.alike import Alike
from attndsl.schedule.buffers import buffers_of, in_launch_order
from attndsl.schedule.checkpoints import build_checkpoints
from attndsl.schedule.columns import build_columns
from attndsl.schedule.dividing import divided
from attndsl.schedule.exact import exact_sums, exactly, kept_apart
from attndsl.schedule.halves import Halves
from attndsl.schedule.kernels import build_chunked, build_kernel
from attndsl.schedule.levels import Key, cone, join, levels, reduced, target_key
from attndsl.schedule.liveness import crowded, flat
from attndsl.schedule.maps import Maps
from attndsl.schedule.outcomes import Needs, Refused
from attndsl.schedule.prepare import Prepared, prepare
from attndsl.schedule.pulled import Pull
from attndsl.schedule.refined import search_again, with_guesses
from attndsl.schedule.restarts import Restart
from attndsl.schedule.scatter_kernel import build_scatter
from attndsl.schedule.shared import heads_apart
from attndsl.schedule.systems import bounded_systems
from attndsl.schedule.tile import For, HostScale, Plan, TileProgram
from attndsl.schedule.together import join_walks
from attndsl.schedule.walks import plan_walks, recurs

# Each round of planning adds a target or an order between two; programs of a hundred lines take less than ten.
LIMIT = 40


@dataclass(slots=True)
class Planning:
    """What planning has learned so far; `apart` has (t, p) where t loads p, though they could share a kernel."""

    targets: dict[str, None]
    apart: set[tuple[str, str]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def plan(
    cascade: Cascade,
    name: str,
    *,
    residuals: tuple[str, ...] = (),
    kept: tuple[str, ...] = (),
    like: dict[str, str] | None = None,
    known: dict[str, Kind] | None = None,
    row_order: tuple[str, ...] = (),
    given: tuple[str, ...] = (),
    maps: bool = True,
    restarted: Mapping[str, Restart] = MappingProxyType({}),
) -> Plan:
    """The kernels of one pass.

    `cascade` has `start` applied. `residuals` names the outputs kept for the backward pass, `kept` those of
    them that the program does not declare; `like` gives the outputs
    whose storage type is an input's; `known` the kinds of ranks settled by another pass; `row_order` the sequence ranks
    in the order in which sums over everything are cut into rows; `given` the inputs that another pass kept; `maps`
    whether maps of features may be kept in memory; `restarted` running sums that begin anew (`restarts`).

    Raises: Refused, with the reason.
    """
    if recurs(cascade):
        return plan_walks(cascade, name, residuals, like or {}, known)

    def planned(ready: Prepared) -> Plan:
        return _planned(
            replace(ready, restarted=restarted), name, residuals, kept, like or {}, given, maps
        )

    ready = prepare(cascade, known, row_order)
    if not ready.solved:
        return planned(ready)
    # Solved sums pay where products find what they read.
    try:
        solved = planned(ready)
    except Refused:
        return planned(prepare(cascade, known, row_order, solve=False))
    if not _loops(solved):
        return solved
    plain = planned(prepare(cascade, known, row_order, solve=False))
    return solved if _loops(solved) <= _loops(plain) else plain


def _loops(plan: Plan) -> int:
    """How many loops over points there are in a pass."""
    return sum(
        isinstance(s, For)
        for k in plan.steps
        if isinstance(k, TileProgram) and k.sweep is not None
        for s in flat(k.sweep.ranges[-1].body if k.sweep.ranges else ())
    )


def _planned(
    ready: Prepared,
    name: str,
    residuals: tuple[str, ...],
    kept: tuple[str, ...],
    like: dict[str, str],
    given: tuple[str, ...],
    maps: bool,
) -> Plan:
    """The kernels of a pass that is prepared."""
    ready, kept = pull_out(ready)
    if maps and not ready.exact:  # there, what a map's rounding takes counts
        found = Maps(ready.cascade, ready.ranks, Halves(ready.cascade, ready.ranks).linear)
        ready = replace(ready, cascade=found.run())
        kept = (*kept, *found.kept)
        like = {**found.kept, **like}
    if ready.exact:
        alike = Alike(ready.cascade, ready.ranks, ready.exact)
        ready = replace(ready, cascade=alike.run())
        kept = (*kept, *alike.kept)
        like = {**alike.kept, **like}
    state = Planning(dict.fromkeys([*_first_targets(ready), *kept]))
    state.apart |= _users(ready, kept)
    for _ in range(LIMIT):
        steps = _attempt(ready, state, name)
        if steps is not None:
            break
    else:
        raise Refused("A0405", "the kernels of this program depend on each other in a circle")
    buffers = buffers_of(ready, steps, residuals, kept, like, given)
    params = tuple((p.name, p.dtype) for p in ready.cascade.params)
    walks = join_walks(in_launch_order(ready, steps))
    every, buffers = split_ahead(walks, buffers)
    every = tuple(bounded_systems(s) if isinstance(s, TileProgram) else s for s in every)
    every = with_guesses(every, {b.name: b.kind for b in buffers})
    used = {r for b in buffers for r in b.ranks}
    blocks = tuple((n, of, w) for n, of, w in ready.blocks if n in used)
    return Plan(name, buffers, every, params, tuple(state.notes), blocks)


def _first_targets(ready: Prepared) -> list[str]:
    """The outputs that a kernel writes, and what the framework's sums and the scatters are made from."""
    by_others = {h.out for h in ready.host} | set(ready.scattered)
    return [
        *(o.name for o in ready.cascade.outputs if o.name not in by_others),
        *(h.src for h in ready.host),
        *(x for s in ready.scattered.values() for x in s.needs),
    ]


def pull_out(ready: Prepared) -> tuple[Prepared, tuple[str, ...]]:
    """With what needs every pair of positions exchanged for sums that carry over; those are kept in memory."""
    apart = heads_apart(ready.cascade, ready.ranks, Halves(ready.cascade, ready.ranks).linear)
    pull = Pull(apart, ready.ranks, {})
    cascade = pull.run()
    cascade = replace(cascade, ranks=pull.cascade.ranks)
    halves = Halves(cascade, ready.ranks)
    cascade = halves.run()
    cascade, exact = kept_apart(cascade, exact_sums(cascade, ready.ranks, halves.linear))
    kept = dict.fromkeys(
        (*pull.kept, *halves.kept, *_read_twice(cascade, ready.ranks, halves.linear), *exact)
    )
    return replace(ready, cascade=cascade, exact=exact), tuple(kept)


def _read_twice(c: Cascade, ranks: Ranks, carries: Callable[[Define], bool]) -> list[str]:
    """Sums of features that carry over and are read several times: chunks are walked once, sums read from memory."""
    users = Counter(r for d in c.body for r in reads(d.expr) if r != d.tensor)
    outputs = {o.name for o in c.outputs}
    return [
        d.tensor
        for d in c.body
        if users[d.tensor] + (d.tensor in outputs) > 1
        and any(ranks.kind(i) is Kind.FEATURE for i in d.indices)
        and carries(d)
    ]


def _users(ready: Prepared, kept: tuple[str, ...]) -> set[tuple[str, str]]:
    """Who reads a tensor that is kept in memory, with that tensor."""
    defs = {d.tensor: d for d in ready.cascade.body}
    return {(x, k) for x in defs for k in kept if x != k and k in cone(defs, x)}


def _attempt(ready: Prepared, state: Planning, name: str) -> list[TileProgram | HostScale] | None:
    """Build every kernel; None if something was learned and planning must start again."""
    c, ranks, scattered = ready.cascade, ready.ranks, ready.scattered
    defs = {d.tensor: d for d in c.body}
    order = [d.tensor for d in c.body]
    after = {h.out: (h.src,) for h in ready.host} | {x: s.needs for x, s in scattered.items()}
    nodes = sorted([*state.targets, *after], key=order.index)
    stop = set(nodes)
    keys = join({x: target_key(defs, x, ranks, c.batch, stop) for x in state.targets})
    cones = {x: cone(defs, x, set(after)) for x in nodes}
    level = levels(state.targets, state.apart, nodes, keys, cones, after)
    groups: dict[tuple[int, Key], list[str]] = {}
    for x in sorted(state.targets, key=order.index):
        groups.setdefault((level[x], keys[x]), []).append(x)
    # Statistics of the rows that kernels keep, and of those that they stream, are computed once, not for every tile.
    rows = frozenset(
        r
        for x, key in keys.items()
        for r in (*key.tiles, key.stream)
        if len(key.tiles) == 1 and x not in ready.checkpoints and r is not None
    )
    work: list[tuple[int, int, Key | None, list[str]]] = [
        (lvl, order.index(members[0]), key, members) for (lvl, key), members in groups.items()
    ]
    work += [(level[x], order.index(x), None, [x]) for x in scattered]
    steps: list[TileProgram | HostScale] = []
    for lvl, _, key, members in sorted(work, key=lambda w: w[:2]):
        done = frozenset(x for x in nodes if level[x] < lvl)
        label = f"{name}_{'_'.join(members[:3])}" if len(work) > 1 else name
        try:
            if key is None:
                (x,) = members
                build = build_columns if x in ready.columns else build_scatter
                steps += build(c, ranks, x, scattered[x], done, rows, label)
            elif ready.checkpoints.issuperset(members):
                for x in members:
                    steps.append(build_checkpoints(c, ranks, x, done, rows, f"{name}_{x}"))
            else:
                others = rows - frozenset(key.tiles)
                steps += _kernels(ready, key, members, done, others, label, name)
        except Needs as need:
            if key is not None and len(members) > 1:

                def by_itself(
                    m: str, key: Key = key, done: frozenset[str] = done, label: str = label
                ) -> None:
                    _kernels(ready, key, [m], done, rows - frozenset(key.tiles), label, name)

                members = _waiting(members, need.tensor, defs, by_itself)
            _learn(state, defs, need, members)
            return None
    return steps


def _kernels(
    ready: Prepared,
    key: Key,
    members: list[str],
    done: frozenset[str],
    rows: frozenset[str],
    label: str,
    name: str,
) -> list[TileProgram]:
    """The kernels of targets of one key: by chunks, each its own, where sums carry over; the others share one."""
    c, ranks = ready.cascade, ready.ranks
    out: list[TileProgram] = []
    if key.root is not None:
        made = build_kernel(c, ranks, key, members, done, rows, label)
        return [search_again(c, ranks, key, made, done, rows)]
    defs = {d.tensor: d for d in c.body}
    taken: set[str] = set()
    # Last ones first: a normaliser that is kept is made on the way to what it divides.
    for m in reversed(members):
        if m in taken:
            continue
        own = label if len(members) == 1 else f"{name}_{m}"
        way = [
            x
            for x in members
            if x in cone(defs, m, done)
            and x not in taken
            and x not in ready.restarted
            and not any(ranks.kind(i) is Kind.FEATURE for i in defs[x].indices)
        ]
        for also in (way, []) if way else ([],):
            try:
                made = build_chunked(
                    c, ranks, key, m, done, rows, own, tuple(also), ready.restarted
                )
            except NotLinear:
                continue
            out.insert(0, exactly(made) if m in ready.exact else made)
            taken |= {m, *also}
            break
    rest = [m for m in members if m not in taken]
    # What only maps rows needs no stream, though it came with those that do.
    maps = [m for m in rest if target_key(defs, m, ranks, c.batch, set(done)).stream is None]
    streams = [m for m in rest if m not in maps]
    if streams and (out or not maps):
        out += _apart(ready, key, streams, done, rows, label, name)
    elif streams:
        out.append(build_kernel(c, ranks, key, rest, done, rows, label))
        maps = []
    if maps:
        alone = key._replace(stream=None)
        apart = f"{name}_{'_'.join(maps[:3])}" if out else label
        out.append(build_kernel(c, ranks, alone, maps, done, rows, apart))
    return out


def _apart(
    ready: Prepared,
    key: Key,
    members: list[str],
    done: frozenset[str],
    rows: frozenset[str],
    label: str,
    name: str,
) -> list[TileProgram]:
    """One kernel of all targets; or several with fewer sums of features, where one would hold too much.

    What the sums share, the scores, is made again in each: a product more, which takes less than registers that spill.
    """
    c, ranks = ready.cascade, ready.ranks
    together = build_kernel(c, ranks, key, members, done, rows, label)
    wide = [m for m in members if any(ranks.kind(i) is Kind.FEATURE for i in c.define(m).indices)]
    if together.loops or not crowded(together):  # loops were not measured
        return [together]
    thin = [m for m in members if m not in wide]

    def build(part: list[str], known: frozenset[str]) -> TileProgram:
        return build_kernel(c, ranks, key, part, known, rows, f"{name}_{part[0]}")

    found = divided({m: _sums(ready, m, done) for m in wide}, thin, done, build)
    return [together] if found is None else found


def _sums(ready: Prepared, m: str, done: frozenset[str]) -> list[str]:
    """The sums of features that a target adds up; itself, where it is one."""
    defs = {d.tensor: d for d in ready.cascade.body}
    found = reduced(defs, m, ready.ranks, done)
    every = [d.tensor for d in found if any(ready.ranks.kind(i) is Kind.FEATURE for i in d.indices)]
    return every if len(every) > 1 and set(every) == {d.tensor for d in found} else [m]


def _waiting(
    members: list[str], tensor: str, defs: dict[str, Define], build: Callable[[str], None]
) -> list[str]:
    """Those of a kernel's targets that wait for a tensor: others make it on their way, and have a kernel without it."""

    def alone(m: str) -> bool:
        if m == tensor or tensor not in cone(defs, m):
            return False
        try:
            build(m)
        except (Needs, Refused):
            return False
        return True

    return [m for m in members if not alone(m)] or members


def _learn(state: Planning, defs: dict[str, Define], need: Needs, members: list[str]) -> None:
    """Make a tensor a target of its own, before those that need it.

    Raises: Refused, if it already was.
    """
    tensor = need.tensor
    roots = frozenset(x for x, d in defs.items() if isinstance(d.expr, Solve))
    inside = {tensor, *cone(defs, tensor, roots)} - roots
    if tensor not in roots and any(isinstance(defs[x].expr, Local) for x in inside):
        why = f"a sum of the unknown stands inside another: each step of the search for `{tensor}` takes two sweeps"
        raise Refused("A0402", why, defs[tensor].span)
    known = tensor in state.targets
    state.targets.setdefault(tensor)
    before = set(state.apart)
    for m in members:
        if m != tensor and tensor in cone(defs, m):
            state.apart.add((m, tensor))
    if need.why not in state.notes:
        state.notes.append(need.why)
    if known and state.apart == before:
        raise Refused("A0405", need.why, defs[tensor].span)
