"""Scans down the rows: the rewrite means the same, and kernels agree with the dense evaluation across blocks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from attndsl.analysis.rowscans import WIDTH
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade, Output
from attndsl.cascade.starts import apply_start
from attndsl.codegen.kernel_facts import kernel_facts
from attndsl.diagnostics import DiagnosticError
from attndsl.driver import load, lower
from attndsl.frontend import parse
from attndsl.schedule.prepare import prepare
from attndsl.schedule.tile import TileProgram
from attndsl.source import Source
from tests.road.compare import compare

HEAD = "attention f(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {\n  batch b, h\n"
DOT = "Q[i,e] * K[j,e] / sqrt(|e|)"
SOFTMAX = "  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n}"
ROWS = 2 * WIDTH + 7  # two whole blocks, and a part of one


def scanned(scan: str, terms: str = f"relu({DOT})", where: str = "where j <= i") -> str:
    return (
        HEAD + f"  X[i,j] = {terms} {where}\n  F[i,j] = {scan}\n"
        f"  S[i,j] = {DOT} - 0.3 * F[i,j] {where}\n{SOFTMAX}"
    )


PROGRAMS = {
    "what is before": scanned("sum[l : l < i](X[l,j])"),
    "and the row itself": scanned("sum[l : l <= i](X[l,j])"),
    "what is behind": scanned("sum[l : l > i](X[l,j])", f"tanh({DOT})", ""),
    "from the row on": scanned("sum[l : l >= i](X[l,j])", f"tanh({DOT})", ""),
    "both ways": HEAD + f"  X[i,j] = relu({DOT}) where j <= i\n  F[i,j] = sum[l : l < i](X[l,j])\n"
    f"  G[i,j] = sum[l : l >= i](X[l,j])\n  S[i,j] = {DOT} - 0.2 * F[i,j] + 0.1 * G[i,j] where j <= i\n{SOFTMAX}",
    "a scan of a scan": HEAD
    + f"  X[i,j] = relu({DOT}) where j <= i\n  F[i,j] = sum[l : l <= i](X[l,j])\n"
    "  Y[i,j] = tanh(F[i,j]) where j <= i\n  G[i,j] = sum[l : l < i](Y[l,j])\n"
    f"  S[i,j] = {DOT} - 0.1 * G[i,j] where j <= i\n{SOFTMAX}",
    "what earlier rows attended to": HEAD
    + f"  X[i,j] = {DOT} where j <= i\n  M[i] = max[j](X[i,j])\n"
    "  P[i,j] = exp(X[i,j] - M[i])\n  Z[i] = sum[j](P[i,j])\n  A[i,j] = P[i,j] / Z[i]\n"
    f"  F[i,j] = sum[l : l < i](A[l,j])\n  S[i,j] = X[i,j] - F[i,j]\n{SOFTMAX}",
    "no softmax": HEAD
    + f"  X[i,j] = relu({DOT}) where j <= i\n  F[i,j] = sum[l : l <= i](X[l,j])\n"
    "  O[i,f] = exp(-F[i,j]) * X[i,j] * V[j,f]\n}",
    "an output": "attention f(Q[b,h,i,e], K[b,h,j,e]) -> F[b,h,i,j] {\n  batch b, h\n"
    f"  X[i,j] = relu({DOT}) where j <= i\n  F[i,j] = sum[l : l <= i](X[l,j])\n}}",
    "a matrix that is given": HEAD.replace(") ->", ", B[h,i,j]) ->")
    + f"  F[i,j] = sum[l : l <= i](B[l,j])\n  S[i,j] = {DOT} + 0.1 * F[i,j] where j <= i\n{SOFTMAX}",
}


def lowered(text: str) -> Cascade:
    source = Source("f.attn", text)
    return apply_start(lower(source, parse(source), None).cascade)


@pytest.mark.parametrize("name", ["what is before", "from the row on", "both ways"])
def test_the_rewrite_means_the_same(name: str) -> None:
    cascade = lowered(PROGRAMS[name])
    ready = prepare(cascade)
    assert ready.checkpoints
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 1, ROWS, 3, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    inputs = {"Q": q, "K": k, "V": v}
    # Before kernels are cut, a scan in blocks is a program like any other.
    whole = dataclasses.replace(ready.cascade, outputs=(Output("F", ("b", "h", "i", "j")),))
    plain = dataclasses.replace(cascade, outputs=whole.outputs)
    want = interpret(plain, inputs, {}, start=0)["F"]
    torch.testing.assert_close(interpret(whole, inputs, {}, start=0)["F"], want)
    assert want.abs().max() > 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_agree_across_blocks(name: str) -> None:
    assert compare(PROGRAMS[name], ROWS, 1) == "ok"


def test_checkpoints_are_a_block_apart() -> None:
    ready = prepare(lowered(PROGRAMS["what is before"]))
    assert ready.blocks == (("i.blocks", "i", WIDTH),)
    (before,) = ready.checkpoints
    assert ready.cascade.define(before).indices[-2:] == ("i.blocks", "j")


def test_columns_that_need_a_scan_along_the_row_are_refused() -> None:
    text = (
        HEAD
        + f"  S[i,j] = {DOT} where j < i\n  L[i,j] = sum[l : j < l and l < i](-softplus(S[i,l]))\n"
        "  A[i,j] = exp(L[i,j]) * sigmoid(S[i,j]) where j < i\n  F[i,j] = sum[l : l < i](A[l,j])\n"
        "  O[i,f] = A[i,j] / (1 + F[i,j]) * V[j,f]\n}"
    )
    with pytest.raises(DiagnosticError) as refused:
        compare(text, 16, 0)
    assert refused.value.diagnostics[0].code == "A0404"


def test_tiles_of_a_loop_over_heads_count_as_loaded_at_every_turn() -> None:
    """Those of the gradient of a mask that heads share: what the choice of tiles must find room for."""
    path = Path(__file__).parents[3] / "examples" / "selective.attn"
    plan = load(path).backward
    assert plan is not None
    (program,) = (
        s for s in plan.steps if isinstance(s, TileProgram) and s.writes == ("dX.before",)
    )
    facts = kernel_facts(plan, program)
    assert facts["fixed"] == {"i": WIDTH}
    assert sorted(facts["streamed"]) == [("i", "e"), ("i", "e"), ("i", "f"), ("j", "e"), ("j", "f")]  # type: ignore[call-overload]
    assert facts["resident"] == (("j", "e"),)
