"""Schedules: from a cascade to tile programs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from attndsl.analysis.exponents import in_exponents
from attndsl.analysis.numbered import numbered
from attndsl.analysis.ranks import Kind, classify
from attndsl.cascade.autodiff import Gradient, differentiate
from attndsl.cascade.nodes import Cascade, Define, DType, Reduce, Reduction
from attndsl.cascade.walk import free
from attndsl.schedule.halves import Halves
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.plan import plan
from attndsl.schedule.prepare import prepare
from attndsl.schedule.restarts import Restart, chunks_alone, made_again, restarting, tried
from attndsl.schedule.roles import settle
from attndsl.schedule.split import plan_split
from attndsl.schedule.tile import Plan, Role, TileProgram
from attndsl.schedule.walks import recurs, with_features

__all__ = [
    "Plan",
    "Refused",
    "Scheduled",
    "by_chunks",
    "plan",
    "plan_backward",
    "plan_forward",
    "schedule",
]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The scheduled passes; `kinds` is what they settled of the ranks, `split` the forward pass for few queries."""

    forward: Plan
    gradient: Gradient | None
    backward: Plan | None
    kinds: dict[str, Kind]
    split: Plan | None = None


def schedule(
    cascade: Cascade,
    wrt: Sequence[str] | None,
    gradient: Gradient | None = None,
    wide: tuple[str, ...] = (),
    kinds: dict[str, Kind] | None = None,
) -> Scheduled:
    """Differentiate by the inputs `wrt`, or not at all (None), and find kernels; `cascade` has `start` applied.

    `gradient` is that of the likeliest reading, where the caller has it; `kinds` is that reading, where it is known.

    Raises: Refused, with the reason.
    """

    def attempt(kinds: dict[str, Kind]) -> Scheduled:
        if wrt is None:
            own = [o.name for o in cascade.outputs]

            def one(sums: Mapping[str, Restart]) -> Plan:
                forward = plan_forward(cascade, (), wide, kinds, restarted=sums)
                chunks_alone(forward, sums)
                return forward

            forward = tried(one, restarting(cascade, None, own))
            return Scheduled(forward, None, None, kinds)
        # Most other readings have no forward pass either, and a gradient takes longer to find.
        if kinds:
            plan_forward(cascade, (), wide, kinds)
        g = gradient if gradient is not None and not kinds else differentiate(cascade, wrt, kinds)
        g = replace(g, backward=numbered(g.backward, classify(g.forward, kinds).kinds))

        def both(g: Gradient, sums: Mapping[str, Restart]) -> Scheduled:
            kept = tuple(r for r in g.residuals if r not in g.cotangents)
            forward = plan_forward(g.forward, g.residuals, wide, kinds, g.cotangents, sums)
            chunks_alone(forward, sums)
            backward = plan_backward(g.forward, g.backward, g.gradients, kinds, kept, sums)
            chunks_alone(backward, sums)
            return Scheduled(forward, g, backward, kinds)

        sums = restarting(g.forward, g.backward, g.cotangents)
        again = made_again(g, sums, classify(g.forward, kinds)) if sums else None
        if again is not None:
            try:
                return both(again, sums)
            except Refused:
                pass
        return tried(partial(both, g), sums)

    made = settle(cascade, attempt, kinds)
    g = made.gradient
    whole, residuals = (cascade, ()) if g is None else (g.forward, g.residuals)
    return replace(made, split=split_of(whole, made.forward, residuals, made.kinds))


def split_of(
    cascade: Cascade, forward: Plan, residuals: tuple[str, ...], kinds: dict[str, Kind]
) -> Plan | None:
    """The split-keys form of a forward pass, with outputs of the same types; None where it has none."""
    if any(s.of(Role.PAIR) for s in forward.steps if isinstance(s, TileProgram)):
        return None  # every query has keys of its own chunk
    if recurs(cascade):
        return None
    like = {b.name: b.like for b in forward.buffers if b.like is not None}
    return plan_split(cascade, residuals=residuals, like=like, known=kinds)


def by_chunks(cascade: Cascade) -> bool:
    """Whether the forward pass walks chunks alone, carrying a state from each to the next.

    A position of the first query would cut them apart: rows and columns must be the same positions.
    """
    try:
        ready = prepare(cascade)
        halves = Halves(ready.cascade, ready.ranks)
        if not any(halves.carries(d) or _runs(d) for d in ready.cascade.body):
            return False
        made = settle(cascade, lambda kinds: plan_forward(cascade, kinds=kinds))
    except Refused:
        return False
    sweeps = [s for s in made.steps if isinstance(s, TileProgram) and s.sweep is not None]
    return bool(sweeps) and all(s.of(Role.PAIR) for s in sweeps)


def _runs(d: Define) -> bool:
    """Whether it is a maximum of what came before each row, softmax over time."""
    match d.expr:
        case Reduce(op=Reduction.MAX | Reduction.MIN, where=where) if where is not None:
            return bool({*d.indices} & free(where))
        case _:
            return False


def plan_forward(
    cascade: Cascade,
    residuals: tuple[str, ...] = (),
    wide: tuple[str, ...] = (),
    kinds: dict[str, Kind] | None = None,
    declared: Collection[str] = (),
    restarted: Mapping[str, Restart] = MappingProxyType({}),
) -> Plan:
    """The kernels of the forward pass; `cascade` has `start` applied, `residuals` are outputs kept for the backward.

    `wide` are outputs in the accumulators' type, whatever the inputs' is: states. So is what exponents are made of,
    where it is kept. `kinds` settles what some ranks are for (`roles`); `declared` names the outputs that are the
    program's own; `restarted` running sums that begin anew.
    """
    kinds = with_features(cascade, kinds)
    ranks = classify(cascade, kinds)
    first = next((t for t in cascade.inputs if t.dtype is DType.FLOAT), None)
    kept = tuple(r for r in residuals if r not in declared)
    exact = {*wide, *((in_exponents(cascade) | _extremes(cascade)) & {*kept})}
    like: dict[str, str] = {}
    if first is not None:
        for o in cascade.outputs:
            if o.name not in exact and any(ranks.kind(i) is Kind.FEATURE for i in o.indices):
                like[o.name] = first.name
    # A state is for calls in pieces, most of one step: a map of its own costs a launch there, and saves nothing.
    return plan(
        cascade,
        cascade.name,
        residuals=residuals,
        kept=kept,
        like=like,
        known=kinds,
        maps=not wide,
        restarted=restarted,
    )


def _extremes(c: Cascade) -> frozenset[str]:
    """Maxima and minima: a gradient asks which points they are equal to."""
    ops = (Reduction.MAX, Reduction.MIN)
    return frozenset(d.tensor for d in c.body if isinstance(d.expr, Reduce) and d.expr.op in ops)


def plan_backward(
    forward: Cascade,
    backward: Cascade,
    gradients: dict[str, str],
    kinds: dict[str, Kind] | None = None,
    kept: tuple[str, ...] = (),
    restarted: Mapping[str, Restart] = MappingProxyType({}),
) -> Plan:
    """The kernels of the backward pass; `gradients` maps an input to its gradient, an output of `backward`.

    `kept` are the inputs that the forward pass wrote and the program does not declare.
    """
    ranks = classify(forward, with_features(forward, kinds))
    have = {i.name for i in backward.inputs}
    like = {g: x for x, g in gradients.items() if x in have}
    order = tuple(
        dict.fromkeys(
            ranks.of.get(i, i)
            for o in forward.outputs
            for i in o.indices
            if ranks.kind(i) is Kind.SEQUENCE
        )
    )
    return plan(
        backward,
        backward.name,
        like=like,
        known=dict(ranks.kinds),
        row_order=order,
        given=kept,
        restarted=restarted,
    )
