"""The interpreter against the references: values and gradients, of every example.

This is what makes the interpreter an oracle: the references know the papers, not the compiler.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade
from attndsl.frontend import load_cascades
from attndsl.source import Source
from tests.examples.case import Case, Inputs, Outputs, Params
from tests.examples.references import CASES, SOFTMAX_CASES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DECODED = sorted(n for n, c in SOFTMAX_CASES.items() if c.on_axis)


@cache
def cascade_of(example: str) -> Cascade:
    path = EXAMPLES / f"{example}.attn"
    cascades: Any = load_cascades(Source(str(path), path.read_text(encoding="utf-8")))
    (cascade,) = cascades.values() if isinstance(cascades, dict) else cascades
    assert isinstance(cascade, Cascade)
    return cascade


def leaves(inputs: Inputs, names: tuple[str, ...]) -> Inputs:
    """Inputs whose named tensors collect gradients."""
    return {n: x.clone().requires_grad_() if n in names else x for n, x in inputs.items()}


def pull_back(outputs: Outputs, inputs: Inputs, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The gradients of one fixed random functional of all outputs."""
    generator = torch.Generator().manual_seed(7)
    loss = sum(
        (o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum()
        for _, o in sorted(outputs.items())
    )
    assert isinstance(loss, Tensor)
    grads = torch.autograd.grad(loss, [inputs[n] for n in names], allow_unused=True)
    return {
        n: torch.zeros_like(inputs[n]) if g is None else g
        for n, g in zip(names, grads, strict=True)
    }


def check(case: Case, inputs: Inputs, params: Params, start: Any = None) -> None:
    names = case.gradients
    mine, theirs = leaves(inputs, names), leaves(inputs, names)
    got = interpret(cascade_of(case.example), mine, params, start=start)
    want = case.reference(theirs, params)
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-10)
    mine_back, theirs_back = pull_back(got, mine, names), pull_back(want, theirs, names)
    for name in names:
        torch.testing.assert_close(
            mine_back[name],
            theirs_back[name],
            rtol=1e-7,
            atol=1e-8,
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )


@pytest.mark.parametrize("name", sorted(CASES))
def test_interpreter_equals_reference(name: str) -> None:
    case = CASES[name]
    check(case, *case.make(), start="end" if case.on_axis and case.sizes.i < case.sizes.j else None)


@pytest.mark.parametrize("name", DECODED)
@pytest.mark.parametrize("queries", [1, 3])
def test_last_queries_over_a_longer_cache(name: str, queries: int) -> None:
    case = CASES[name]
    check(case, *case.make(seed=1, i=queries, j=23), start="end")


@pytest.mark.parametrize("name", DECODED)
def test_start_of_each_sequence(name: str) -> None:
    case = CASES[name]
    inputs, params = case.make(seed=2, i=2, j=19)
    start = torch.full((inputs["Q"].shape[0],), 17, dtype=torch.int32)
    check(case, inputs, params, start=start)


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"two_sweeps", "running_softmax"}))
def test_one_position(name: str) -> None:
    case = CASES[name]
    check(case, *case.make(seed=3, i=1, j=1))


@pytest.mark.parametrize("name", sorted(n for n in SOFTMAX_CASES if "Q" in CASES[n].gradients))
def test_scores_in_the_hundreds(name: str) -> None:
    case = CASES[name]
    inputs, params = case.make(seed=4, i=9, j=9)
    inputs["Q"] = inputs["Q"] * 200
    check(case, inputs, params)
