"""Schedules: from a cascade to tile programs."""

from __future__ import annotations

from attndsl.analysis.ranks import Kind, classify
from attndsl.cascade.nodes import Cascade, DType
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.plan import plan
from attndsl.schedule.tile import Plan

__all__ = ["Plan", "Refused", "plan", "plan_backward", "plan_forward"]


def plan_forward(
    cascade: Cascade, residuals: tuple[str, ...] = (), wide: tuple[str, ...] = ()
) -> Plan:
    """The kernels of the forward pass; `cascade` has `start` applied, `residuals` are outputs kept for the backward.

    `wide` are outputs in the accumulators' type, whatever the inputs' is: states.
    """
    ranks = classify(cascade)
    first = next((t for t in cascade.inputs if t.dtype is DType.FLOAT), None)
    like: dict[str, str] = {}
    if first is not None:
        for o in cascade.outputs:
            if o.name not in wide and any(ranks.kind(i) is Kind.FEATURE for i in o.indices):
                like[o.name] = first.name
    return plan(cascade, cascade.name, residuals=residuals, like=like)


def plan_backward(forward: Cascade, backward: Cascade, gradients: dict[str, str]) -> Plan:
    """The kernels of the backward pass; `gradients` maps an input to its gradient, an output of `backward`."""
    ranks = classify(forward)
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
    return plan(backward, backward.name, like=like, known=dict(ranks.kinds), row_order=order)
