"""Random programs of the softmax family: kernels, the interpreter and autograd agree.

A program may be refused for want of a schedule; it may not fail otherwise, and may not be wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import attndsl
from tests.road.compare import compare
from tests.road.grammar import programs
from tests.road.harness import small_tiles

ROOT = Path(__file__).parents[2]
LENGTHS = st.sampled_from([1, 2, 3, 5, 9, 13])
SEEDS = st.integers(0, 2**20)
SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large]


def agree(text: str, n: int, seed: int) -> None:
    findings = []
    try:
        with small_tiles(4):
            compare(text, n, seed)
    except attndsl.DiagnosticError as refused:
        findings = refused.diagnostics
    for finding in findings:
        event(f"refused: {finding.code}")
        assert finding.code.startswith("A04") or finding.code == "A0233", str(finding)
        assert finding.span is not None


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_TO_DRAW)
@given(text=programs(), n=LENGTHS, seed=SEEDS)
def test_random_programs(text: str, n: int, seed: int) -> None:
    agree(text, n, seed)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=SLOW_TO_DRAW)
@given(text=programs(), n=LENGTHS, seed=SEEDS)
def test_many_random_programs(text: str, n: int, seed: int) -> None:
    agree(text, n, seed)


def outcome(text: str, n: int, seed: int) -> str:
    """How a program ends in Triton's interpreter."""
    try:
        return compare(text, n, seed, backend="triton", dtype=torch.float32)
    except attndsl.DiagnosticError as refused:
        return "refused" if refused.codes[0].startswith("A04") else str(refused)
    except Exception as error:
        return f"{type(error).__name__}: {error}\n{text}"


@pytest.mark.slow
def test_some_in_triton() -> None:
    drawn: list[str] = []

    @settings(max_examples=25, deadline=None, database=None, derandomize=True)
    @given(text=programs())
    def draw(text: str) -> None:
        drawn.append(text)

    draw()
    code = (
        "import json, sys; from tests.property.test_road_grammar import outcome;"
        "print(json.dumps([outcome(t, 5 + k % 9, k) for k, t in enumerate(json.load(sys.stdin))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        input=json.dumps(drawn),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ends = json.loads(done.stdout.splitlines()[-1])
    assert [e for e in ends if e not in ("ok", "refused")] == []
