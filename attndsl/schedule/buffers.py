"""The tensors in memory of a pass, and its steps with the sums that the framework takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from attndsl.analysis.ranks import Kind, alike, before_sequences, never_features, undeclared_batch
from attndsl.cascade.nodes import Define
from attndsl.cascade.types import Types
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.prepare import Prepared
from attndsl.schedule.tile import Buffer, BufferKind, HostScale, HostSum, Step, TileProgram


def buffers_of(
    ready: Prepared,
    steps: Sequence[TileProgram | HostScale],
    residuals: tuple[str, ...],
    kept: tuple[str, ...],
    like: dict[str, str],
    given: tuple[str, ...] = (),
) -> tuple[Buffer, ...]:
    """Inputs, what the kernels and the framework write, fixed-point accumulators and their scales.

    `kept` are the outputs that nobody declared: `residuals` that are not the program's own; `given` the inputs that
    are another pass's `kept`.

    Raises: Refused, where an intermediate would be as large as the scores.
    """
    c, ranks, scattered = ready.cascade, ready.ranks, ready.scattered
    kept = (*kept, *given)
    defs = {d.tensor: d for d in c.body}
    outputs = {o.name for o in c.outputs}
    fixed = {s.fixed for s in scattered.values()}
    made = [w for s in steps if isinstance(s, TileProgram) for w in s.writes]
    buffers = [Buffer(i.name, i.ranks, BufferKind.INPUT, i.dtype) for i in c.inputs]

    types = Types(c)

    def extents(d: Define) -> tuple[str, ...]:
        return tuple(ranks.of.get(i, i) for i in d.indices)

    for x in dict.fromkeys([*made, *(h.out for h in ready.host), *scattered]):
        if x in fixed:
            continue
        d = defs[x]
        kind = BufferKind.OUTPUT if x in outputs else BufferKind.TEMP
        if x in residuals:
            kind = BufferKind.RESIDUAL
        sequences = ranks.sequence(d.indices)
        if (
            kind is not BufferKind.OUTPUT
            and len(sequences) > 1
            and not _as_large(ready, extents(d), kept)
        ):
            names = " and ".join(f"`{i}`" for i in sequences)
            why = f"`{x}` would be kept in memory over {names}, and no intermediate of that size is"
            raise Refused("A0406", why, d.span)
        apart = _beyond(ready, extents(d), kept)
        if kind is not BufferKind.OUTPUT and apart is not None and x not in ready.checkpoints:
            names = " and ".join(f"`{i}`" for i in apart)
            raise Refused("A0406", f"`{x}` would be kept in memory over {names}", d.span)
        buffers.append(Buffer(x, extents(d), kind, types.tensors[x], like.get(x)))
    for x, sums in scattered.items():
        buffers.append(Buffer(sums.fixed, extents(defs[x]), BufferKind.FIXED))
    scales = [s.out for s in steps if isinstance(s, HostScale)]
    return (*buffers, *(Buffer(x, (), BufferKind.TEMP) for x in scales))


def _as_large(ready: Prepared, of: Sequence[str], kept: Sequence[str]) -> bool:
    """Whether an output of data holds as much, as the gradient of a cache's pages does: they get it by several ways."""
    ranks = ready.ranks
    return any(
        {*of} <= {ranks.of.get(i, i) for i in o.indices}
        and any(ranks.kind(i) is Kind.FEATURE for i in o.indices)
        for o in ready.cascade.outputs
        if o.name not in kept
    )


def _beyond(ready: Prepared, of: Sequence[str], kept: Sequence[str]) -> tuple[str, str] | None:
    """Two ranks of an intermediate, one of them walked as a batch though not declared so, that no data have together.

    Heads and queries stand together in the inputs, or in a row statistic that another pass was allowed to keep
    (an input of `kept`), so one of each head is no larger than those; queries and keys do not.
    """
    c, ranks = ready.cascade, ready.ranks
    walked = undeclared_batch(c, ranks)
    if not walked:
        return None
    groups = alike(c, ranks.of)

    def named(rank: str) -> str:
        """One name for the ranks of one extent."""
        return min(next((g for g in groups if rank in g), {rank}))

    long = {named(r) for r in never_features(c, ranks) - before_sequences(c, ranks)}
    given = [(i.ranks, i.name in kept) for i in c.inputs]
    given += [(o.indices, False) for o in c.outputs if o.name not in kept]
    rows = [r for r in of if r in walked or ranks.kind(r) is Kind.SEQUENCE]
    for a, b in combinations(rows, 2):
        both = {named(a), named(b)}
        if not walked & {a, b} or not both <= long:
            continue
        for t, allowed in given:
            features = allowed or any(ranks.kind(r) is Kind.FEATURE for r in t)
            here = [ranks.of.get(r, r) for r in t]
            if a != b and {a, b} <= {*here} & walked:  # heads by heads
                break
            # A bias or a mask over queries and keys allows for no second one.
            held = {named(r) for r in here}
            if len(both) == 2 and both <= held and features:
                break
        else:
            return a, b
    return None


def in_launch_order(ready: Prepared, steps: Sequence[TileProgram | HostScale]) -> tuple[Step, ...]:
    """The steps, each kernel followed by the framework's sums of what it wrote."""
    out: list[Step] = []
    for step in steps:
        out.append(step)
        if isinstance(step, HostScale):
            continue
        out += [h for h in ready.host if h.src in step.writes]
        out += [
            HostSum(x, s.fixed, (), s.scale)
            for x, s in ready.scattered.items()
            if s.fixed in step.writes
        ]
    return tuple(out)
