"""The derived backward program against autograd through the references, for every example."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from attndsl.cascade.autodiff import Gradient, differentiate
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.starts import apply_start
from tests.examples.case import Case, Inputs, Outputs, Params
from tests.examples.references import CASES
from tests.examples.test_references import DECODED, cascade_of, leaves


@cache
def gradient_of(example: str) -> Gradient:
    return differentiate(apply_start(cascade_of(example)))


def cotangents(outputs: Outputs) -> Outputs:
    """A random gradient for every output."""
    generator = torch.Generator().manual_seed(11)
    return {
        n: torch.randn(o.shape, generator=generator, dtype=o.dtype)
        for n, o in sorted(outputs.items())
    }


def check(case: Case, inputs: Inputs, params: Params, start: int = 0) -> None:
    names = case.gradients
    gradient = gradient_of(case.example)
    tracked = leaves(inputs, names)
    want_outputs = case.reference(tracked, params)
    given = cotangents(want_outputs)
    want = torch.autograd.grad(
        [want_outputs[n] for n in given],
        [tracked[n] for n in names],
        list(given.values()),
        allow_unused=True,
    )
    forward = interpret(gradient.forward, inputs, params, start=start)
    available = {**inputs, **forward, **{gradient.cotangents[n]: g for n, g in given.items()}}
    taken = {t.name: available[t.name] for t in gradient.backward.inputs}
    known = {p.name for p in gradient.backward.params}
    got = interpret(
        gradient.backward, taken, {n: v for n, v in params.items() if n in known}, start=start
    )
    assert set(gradient.gradients) == set(names)
    for name, expected in zip(names, want, strict=True):
        torch.testing.assert_close(
            got[gradient.gradients[name]],
            torch.zeros_like(inputs[name]) if expected is None else expected,
            rtol=1e-7,
            atol=1e-8,
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )


@pytest.mark.parametrize("name", sorted(CASES))
def test_backward_program_equals_autograd(name: str) -> None:
    case = CASES[name]
    check(case, *case.make(), start=max(case.sizes.j - case.sizes.i, 0) if case.on_axis else 0)


@pytest.mark.parametrize("name", DECODED)
def test_backward_of_the_last_queries(name: str) -> None:
    case = CASES[name]
    check(case, *case.make(seed=1, i=3, j=23), start=20)
