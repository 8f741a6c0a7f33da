"""Every program of the softmax family on a GPU against float64, forward and backward.

Odd lengths and head dims, head dims of the aligned class, and few queries over a longer cache (split keys). The error
may not exceed what the dense reference makes in the same type (`attndsl.testing.error_budget`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import attndsl
from attndsl.testing import assert_close_to_reference, make_inputs
from tests.examples.references import CASES, SOFTMAX_CASES

pytestmark = pytest.mark.gpu

EXAMPLES = Path(__file__).parents[2] / "examples"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHAPES = {
    "odd": {},
    "aligned": {"i": 257, "j": 257, "e": 64, "f": 64},
    "few": {"i": 3, "j": 1100, "e": 128, "f": 128},
}
NORMALIZERS = ["sigmoid", "softpick", "differential", "entropy", "column_sums"]


@cache
def op_of(example: str) -> Any:
    return attndsl.load(EXAMPLES / f"{example}.attn", backend="triton")


def inputs_of(name: str, dtype: torch.dtype, shape: str) -> tuple[Any, Any, Any]:
    case = SOFTMAX_CASES[name]
    sizes = dict(SHAPES[shape])
    inputs, params = case.make(0, dtype, "cuda", **sizes)
    return inputs, params, "end" if case.on_axis else None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(SOFTMAX_CASES))
def test_program(name: str, dtype: str, shape: str) -> None:
    inputs, params, start = inputs_of(name, DTYPES[dtype], shape)
    op = op_of(SOFTMAX_CASES[name].example)
    errors = assert_close_to_reference(op, inputs, params=params, start=start, backward=True)
    assert errors


BEYOND = {
    "sparsemax": {"i": 257, "j": 257},
    "entmax15": {"i": 257, "j": 257},
    "entmax_alpha": {"i": 257, "j": 257},
    "stick_breaking": {"i": 200, "j": 200},
    "simplicial2": {"i": 50, "j": 50},
    "selective": {"i": 257, "j": 257},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BEYOND)
def test_rounds_scans_and_loops(name: str, dtype: str) -> None:
    inputs, params = CASES[name].make(0, DTYPES[dtype], "cuda", e=64, f=64, **BEYOND[name])
    op = op_of(CASES[name].example)
    errors = assert_close_to_reference(op, inputs, params=params, start="end", backward=True)
    assert errors


def test_a_scan_down_the_rows_at_head_dim_128() -> None:
    """Its gradient loads four tiles of a head at every turn of a loop: they must fit."""
    inputs, params = CASES["selective"].make(0, torch.bfloat16, "cuda", i=300, j=300, e=128, f=128)
    op = op_of("selective")
    assert assert_close_to_reference(op, inputs, params=params, start="end", backward=True)


@pytest.mark.parametrize("name", sorted(SOFTMAX_CASES))
def test_bitwise_equal_on_repeat(name: str) -> None:
    inputs, params, start = inputs_of(name, torch.bfloat16, "aligned")
    op = op_of(SOFTMAX_CASES[name].example)
    extra = {} if start is None else {"start": start}
    leaves = {
        n: x.clone().requires_grad_() if x.is_floating_point() else x for n, x in inputs.items()
    }
    tracked = [x for x in leaves.values() if x.requires_grad]

    def run() -> list[torch.Tensor]:
        out = op(**leaves, **params, **extra)
        outs = out if isinstance(out, tuple) else (out,)
        loss = sum(torch.where(torch.isfinite(o), o.float(), 0.0).square().sum() for o in outs)
        return [*outs, *torch.autograd.grad(loss, tracked, allow_unused=True)]

    first = run()
    for _ in range(3):
        for a, b in zip(first, run(), strict=True):
            assert a is b or torch.equal(a, b)


@pytest.mark.parametrize("name", ["relu2", "softpick", "causal", "log_scaling", "linear"])
def test_a_gradient_spread_over_every_value(name: str) -> None:
    """`sum()` hands back one value with strides of 0: the gradients are those of a tensor of ones."""
    sizes = {"b": 2, "h": 4, "i": 1024, "j": 1024, "e": 128, "f": 128}
    op = op_of(name)
    given = make_inputs(op, sizes, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    out = op(**given)
    out = out[0] if isinstance(out, tuple) else out
    wrt = list(given.values())
    spread = torch.autograd.grad(out.sum(), wrt, retain_graph=True)
    ones = torch.autograd.grad(out, wrt, torch.ones_like(out))
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(spread, ones, strict=True))
