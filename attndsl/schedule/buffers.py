"""The tensors in memory of a pass, and its steps with the sums that the framework takes."""

from __future__ import annotations

from collections.abc import Sequence

from attndsl.cascade.nodes import Define, DType
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.prepare import Prepared
from attndsl.schedule.tile import Buffer, BufferKind, HostScale, HostSum, Step, TileProgram


def buffers_of(
    ready: Prepared,
    steps: Sequence[TileProgram | HostScale],
    residuals: tuple[str, ...],
    like: dict[str, str],
) -> tuple[Buffer, ...]:
    """Inputs, what the kernels and the framework write, fixed-point accumulators and their scales.

    Raises: Refused, where an intermediate would be as large as the scores.
    """
    c, ranks, scattered = ready.cascade, ready.ranks, ready.scattered
    defs = {d.tensor: d for d in c.body}
    outputs = {o.name for o in c.outputs}
    fixed = {s.fixed for s in scattered.values()}
    made = [w for s in steps if isinstance(s, TileProgram) for w in s.writes]
    buffers = [Buffer(i.name, i.ranks, BufferKind.INPUT, i.dtype) for i in c.inputs]

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
        if kind is not BufferKind.OUTPUT and len(sequences) > 1:
            names = " and ".join(f"`{i}`" for i in sequences)
            why = f"`{x}` would be kept in memory over {names}, and no intermediate of that size is"
            raise Refused("A0406", why, d.span)
        buffers.append(Buffer(x, extents(d), kind, DType.FLOAT, like.get(x)))
    for x, sums in scattered.items():
        buffers.append(Buffer(sums.fixed, extents(defs[x]), BufferKind.FIXED))
    scales = [s.out for s in steps if isinstance(s, HostScale)]
    return (*buffers, *(Buffer(x, (), BufferKind.TEMP) for x in scales))


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
