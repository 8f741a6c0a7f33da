"""Generated kernels in their eager form against the references: every example, forward and backward.

The tiles are smaller than the lengths and divide none of them, so full, partial and empty tiles all occur.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from attndsl.cascade.bind import bind
from attndsl.cascade.starts import apply_start
from attndsl.diagnostics import DiagnosticError
from attndsl.runtime.stages import Stage, plan_passes
from tests.examples.case import Case, Inputs, Params
from tests.examples.references import CASES
from tests.examples.test_backward import cotangents
from tests.examples.test_references import DECODED, cascade_of, leaves

TILES = {"i": 16, "j": 16, "m": 16}

# Programs whose schedule is still to come: they are refused, with the reason.
UNSCHEDULED = {"latte"}


@cache
def stage_of(example: str) -> Stage:
    cascade = apply_start(cascade_of(example))
    floats = tuple(t.name for t in cascade.inputs if t.dtype == "float")
    return Stage(cascade, plan_passes(cascade, floats), "eager", "")


def check(case: Case, inputs: Inputs, params: Params, start: int = 0) -> None:
    stage = stage_of(case.example)
    if any(p.name == "start" for p in stage.cascade.params):
        params = {**params, "start": start}
    names = case.gradients
    tracked = leaves(inputs, names)
    want = case.reference(tracked, params)
    given = cotangents(want)
    binding = bind(stage.cascade, {n: tuple(x.shape) for n, x in inputs.items()}, params)
    extents = stage.extents(binding.extents, binding.params)
    made = stage.module.forward(inputs, extents, binding.params, config=TILES)
    for name in want:
        torch.testing.assert_close(made[name], want[name].detach(), rtol=1e-9, atol=1e-10)
    expected = torch.autograd.grad(
        [want[n] for n in given],
        [tracked[n] for n in names],
        list(given.values()),
        allow_unused=True,
    )
    named = {stage.passes.cotangents[n]: g for n, g in given.items()}
    back = stage.module.backward({**inputs, **made, **named}, extents, binding.params, config=TILES)
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(
            back[stage.passes.gradients[name]],
            torch.zeros_like(inputs[name]) if gradient is None else gradient,
            rtol=1e-7,
            atol=1e-8,
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )


@pytest.mark.parametrize(
    "name",
    sorted(CASES.keys() - UNSCHEDULED),
)
def test_kernels_equal_reference(name: str) -> None:
    case = CASES[name]
    check(case, *case.make(), start=max(case.sizes.j - case.sizes.i, 0) if case.on_axis else 0)


@pytest.mark.parametrize("name", DECODED)
def test_kernels_of_the_last_queries(name: str) -> None:
    case = CASES[name]
    check(case, *case.make(seed=1, i=3, j=23), start=20)


@pytest.mark.parametrize("name", sorted(UNSCHEDULED))
def test_refusal_names_the_place_and_the_reason(name: str) -> None:
    with pytest.raises(DiagnosticError) as refused:
        stage_of(name)
    (finding,) = refused.value.diagnostics
    assert finding.code.startswith("A04")
    assert finding.span is not None
    assert finding.label
