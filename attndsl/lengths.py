"""At which lengths chunks, pairs and single tokens pay: the three ways to run a program whose past is a state.

    by pairs      every row against every column: operations grow with the square of the length
    by chunks     pairs inside a chunk, a state between chunks: operations grow with the length
    one token     the state alone, read and written once: bytes do not depend on the length

Each is counted from its own schedule, so what is compared is what would run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attndsl.analysis.ranks import Kind, always_last, classify
from attndsl.cascade.bind import Number
from attndsl.codegen.configs import choose_chunk
from attndsl.codegen.kernel_facts import kernel_facts
from attndsl.codegen.names import identifier
from attndsl.schedule.cost import GPUS, Cost, Gpu, bound, kernel_cost
from attndsl.schedule.few_heads import cut_walks, tiles, worth
from attndsl.schedule.pieces import LEAST, in_pieces
from attndsl.schedule.tile import Plan, Role, TileProgram

if TYPE_CHECKING:
    from attndsl.cascade.nodes import Cascade
    from attndsl.driver import Program
    from attndsl.sizes import Sizes

# Shared memory of a block on the GPUs that chunks were measured on; the default chunk depends on it.
SHARED = 232448
LONGEST = 1 << 20
# Multiprocessors of an H100 and an H200.
PROCESSORS = 132


def plan_costs(
    plan: Plan, extents: Mapping[str, int], params: Mapping[str, Number], itemsize: int
) -> list[Cost]:
    """The cost of each kernel of a plan, in launch order, with the chunks that it would take by default."""
    return [
        kernel_cost(plan, p, extents, params, itemsize, chunk_blocks(plan, p, extents, itemsize))
        for p in plan.steps
        if isinstance(p, TileProgram)
    ]


def chunk_blocks(
    plan: Plan, p: TileProgram, extents: Mapping[str, int], itemsize: int
) -> dict[str, int]:
    """The default length of a chunk and its columns, by axis; nothing for a kernel that walks no chunks."""
    facts = kernel_facts(plan, p)
    if not facts.get("chunks"):
        return {}
    try:
        chosen = choose_chunk(facts, dict(extents), itemsize, SHARED)
    except ValueError:
        return {}
    names = {f"BLOCK_{identifier(a.name).upper()}": a.name for a in p.axes}
    return {names[k]: n for k, n in chosen.items() if k in names}


def length_facts(
    program: Program, usual: Sizes, itemsize: int, gpu: str | None
) -> dict[str, Any] | None:
    """What each way costs, and from which length on chunks take less than pairs; None without chunks."""
    plan = program.forward
    if plan is None or not any(s.of(Role.PAIR) for s in plan.steps if isinstance(s, TileProgram)):
        return None
    sequences = _sequences(program.shifted, usual)
    if len({usual.extents[r] for r in sequences}) != 1:
        return None
    pairs = _by_pairs(program)

    def at(p: Plan, length: int) -> list[Cost]:
        extents = {**usual.extents, **dict.fromkeys(sequences, length)}
        return plan_costs(p, extents, usual.params, itemsize)

    (now,) = {usual.extents[r] for r in sequences}
    facts: dict[str, Any] = {"length": now, "by_chunks": _sum(at(plan, now))}
    chunk = max((max(b.values()) for b in _all_blocks(plan, usual, itemsize) if b), default=0)
    facts["chunk"] = chunk
    if pairs is not None:
        facts["by_pairs"] = _sum(at(pairs, now))
        facts["chunks_from"] = {
            "operations": _first(lambda n: _flops(at(plan, n)) <= _flops(at(pairs, n)), least=16),
            **{
                name: _first(
                    lambda n, g=g: (
                        _seconds(at(plan, n), g, itemsize) <= _seconds(at(pairs, n), g, itemsize)
                    ),
                    least=16,
                )
                for name, g in GPUS.items()
                if gpu in (None, name)
            },
        }
    facts["few_heads"] = _few_heads(plan, usual, now)
    token = _one_token(program, usual, sequences, itemsize, gpu)
    if token is not None:
        facts["one_token"] = token
    return facts


def _few_heads(plan: Plan, usual: Sizes, length: int) -> dict[str, Any]:
    """Up to how many heads walks are cut into pieces, and into how many; which walks stay whole."""
    cut = in_pieces(plan)
    walks = () if cut is None else cut_walks(cut)
    made = {s.name for s in cut.steps if isinstance(s, TileProgram)} if cut is not None else set()
    swept = [s.name for s in plan.steps if isinstance(s, TileProgram) and s.sweep is not None]
    facts: dict[str, Any] = {"whole": [n for n in swept if f"{n}_parts" not in made]}
    if not walks:
        return facts
    columns = max(math.prod(tiles(w, usual.extents)) for w in walks)
    most = max(
        (n for n in range(1, PROCESSORS) if worth(n * columns, length, PROCESSORS) > 1), default=0
    )
    least = next((n for n in range(LEAST, LONGEST, LEAST) if worth(columns, n, PROCESSORS) > 1), 0)
    counts = {n: worth(n * columns, length, PROCESSORS) for n in (1, 4, 16, most)}
    return {
        **facts,
        "processors": PROCESSORS,
        "programs_for_each": columns,
        "most": most,
        "least_length": least,
        "pieces": {n: c for n, c in counts.items() if 0 < n <= most},
    }


def _all_blocks(plan: Plan, usual: Sizes, itemsize: int) -> list[dict[str, int]]:
    out = []
    for p in plan.steps:
        if isinstance(p, TileProgram) and p.sweep is not None:
            blocks = chunk_blocks(plan, p, usual.extents, itemsize)
            facts = kernel_facts(plan, p)
            if not facts.get("scans"):
                out.append({a: n for a, n in blocks.items() if a == p.sweep.axis})
    return out


def _sequences(c: Cascade, usual: Sizes) -> list[str]:
    ranks = classify(c)
    features = always_last(c, ranks)  # normalised over, maybe
    long = [r for r in usual.extents if ranks.kind(r) is Kind.SEQUENCE]
    return [r for r in long if ranks.of.get(r, r) not in features]


def _by_pairs(program: Program) -> Plan | None:
    """The same forward pass over pairs of positions, as it runs for a call with `start`; None where there is none."""
    from attndsl.analysis.numbered import numbered
    from attndsl.analysis.stabilise import stabilised
    from attndsl.cascade.rewritten import rewritten
    from attndsl.cascade.starts import apply_start
    from attndsl.schedule import Refused, plan_forward

    try:
        ready = numbered(rewritten(program.cascade))
        plan = plan_forward(stabilised(apply_start(ready)).cascade)
    except Refused:
        return None
    walks = [s for s in plan.steps if isinstance(s, TileProgram) and s.sweep is not None]
    return plan if any(not s.of(Role.PAIR) for s in walks) else None


def _one_token(
    program: Program, usual: Sizes, sequences: list[str], itemsize: int, gpu: str | None
) -> dict[str, Any] | None:
    """What a step costs: the program with its state, at a length of one."""
    from attndsl.analysis.numbered import numbered
    from attndsl.analysis.stabilise import stabilised
    from attndsl.cascade.rewritten import rewritten
    from attndsl.schedule import Refused, plan_forward
    from attndsl.schedule.stateful import NoState, with_state

    try:
        made = with_state(program.cascade)
        whole = stabilised(numbered(rewritten(made.cascade))).cascade
        plan = plan_forward(whole, wide=made.after, kinds=made.kinds)
    except (NoState, Refused):
        return None
    extents = {**usual.extents, **dict.fromkeys(sequences, 1)}
    for r in whole.ranks:
        if r.name not in extents and r.iterates in extents:
            extents[r.name] = extents[r.iterates]
    try:
        parts = [math.prod(extents[r] for r in whole.input(n).ranks) for n in made.before]
        costs = plan_costs(plan, extents, usual.params, itemsize)
    except KeyError:
        return None
    return {
        "state": {n: list(whole.input(n).ranks) for n in made.before},
        "state_bytes": 4 * sum(parts),
        **_sum(costs),
        "at_best": {
            name: {"microseconds": 1e6 * _seconds(costs, g, itemsize)}
            for name, g in GPUS.items()
            if gpu in (None, name)
        },
    }


def _flops(costs: list[Cost]) -> int:
    return sum(c.flops for c in costs)


def _seconds(costs: list[Cost], gpu: Gpu, itemsize: int) -> float:
    return sum(bound(c, gpu, itemsize)[0] for c in costs)


def _sum(costs: list[Cost]) -> dict[str, int]:
    return {"flops": _flops(costs), "bytes": sum(c.moved for c in costs)}


def _first(holds: Any, least: int) -> int | None:
    """The first length, in steps of `least`, from which something holds; None up to the longest."""
    low, high = 0, 1
    while not holds(high * least):
        low, high = high, high * 2
        if high * least > LONGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle * least) else (middle, high)
    return high * least
