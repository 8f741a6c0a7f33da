"""Programs that nobody planned for, written from the language alone, against references of their own.

Kernels take tiles smaller than the inputs, so that sweeps have full, partial and empty tiles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import attndsl
from tests.road.case import declared
from tests.road.harness import CASES, check, small_tiles
from tests.road.state import QUICK, REFUSED, WRONG

ROOT = Path(__file__).parents[2]
NAMES = sorted(CASES.keys() - REFUSED.keys())


def parameter(name: str) -> object:
    marks = [] if name in QUICK else [pytest.mark.slow]
    if name in WRONG:
        marks.append(pytest.mark.xfail(strict=True, reason=WRONG[name]))
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [parameter(n) for n in NAMES])
def test_program(name: str) -> None:
    with small_tiles(8):
        check(CASES[name], backend="eager")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_program(name: str) -> None:
    """It has a place and a reason, and its reference is right."""
    case = CASES[name]
    op = attndsl.compile(case.text, backend="eager")
    inputs = case.inputs()
    params = {**case.params, **({} if case.start is None else {"start": case.start})}
    got = op.reference(**inputs, **params)
    for g, w in zip(got if isinstance(got, tuple) else (got,), case.expected(inputs), strict=True):
        torch.testing.assert_close(g, w)
    with pytest.raises(attndsl.DiagnosticError) as refused:
        op(**{n: x.requires_grad_(x.is_floating_point()) for n, x in inputs.items()}, **params)
    (finding,) = refused.value.diagnostics
    assert finding.code == REFUSED[name]
    assert finding.span is not None
    assert finding.label


LENGTHS = ["by_hand", "window_or_first", "documents", "sink_per_head", "blocks", "entropy_2"]


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("n", [1, 2, 3, 17, 63, 65, 130])
def test_lengths(name: str, n: int) -> None:
    with small_tiles(16):
        check(CASES[name], backend="eager", i=n, j=n, n=n, b=1 + n % 2, h=1 + n // 2 % 2)


@pytest.mark.parametrize(("e", "f"), [(1, 1), (16, 40), (72, 80), (96, 3), (256, 24)])
@pytest.mark.parametrize("name", ["by_hand", "columns_hide", "variance"])
def test_head_dims(name: str, e: int, f: int) -> None:
    with small_tiles(8):
        check(CASES[name], backend="eager", e=e, f=f)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["distance_slope", "softpick_2", "cosine", "offset_of_300"])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    with small_tiles(8):
        check(CASES[name], backend="eager", dtype=dtype)


@pytest.mark.parametrize("name", ["toeplitz_causal", "gate_out", "forgetting", "window_or_strided"])
def test_views_and_gradients_of_some(name: str) -> None:
    """Inputs laid out otherwise give the same numbers; one input alone gets its gradient alone."""
    case = CASES[name]
    op = attndsl.compile(case.text, backend="eager")
    inputs = case.inputs()
    floats = [n for n, _, kind in declared(case.text) if kind == "float" and n in inputs]
    with small_tiles(8):
        whole = {n: x.clone().requires_grad_() if n in floats else x for n, x in inputs.items()}
        want = op(**whole, **case.params)
        upstream = torch.randn_like(want)
        gradients = torch.autograd.grad(want, [whole[n] for n in floats], upstream)
        for name_, gradient in zip(floats, gradients, strict=True):
            views = {n: x.mT.contiguous().mT if x.dim() > 1 else x for n, x in inputs.items()}
            one = views[name_] = views[name_].detach().requires_grad_()
            got = op(**views, **case.params)
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
            (alone,) = torch.autograd.grad(got, [one], upstream.mT.contiguous().mT)
            torch.testing.assert_close(alone, gradient, rtol=1e-9, atol=1e-11)


TRITON_QUICK = [
    "window_or_first",
    "toeplitz_causal",
    "softpick_2",
    "documents_prefix",
    "spans",
    "mv_rest_of_the_mass",
    "number_in_a_condition",
    "relative_rows_of_keys",
    "relative_values",
]


def interpreted(names: list[str]) -> dict[str, str]:
    """What each case ends with in Triton's interpreter, which a process takes or leaves as a whole."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.road.interpreted", *names],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_some_in_triton() -> None:
    assert interpreted(TRITON_QUICK) == dict.fromkeys(TRITON_QUICK, "ok")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_all_in_triton(part: int) -> None:
    names = [n for n in NAMES if n not in WRONG and n != "huge"]  # float32 cannot hold `huge`
    names = names[part::4]
    assert interpreted(names) == dict.fromkeys(names, "ok")
