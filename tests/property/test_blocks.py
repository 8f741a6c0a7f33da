"""Reductions in two levels, places in a block and then blocks: whatever they are written as, they equal the reference.

Programs differ in how a block is written (`rank j1, j0`, a filter `j // w == n`, a recurrence over blocks), in the
weights inside a block and in those of the blocks.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl import driver
from attndsl.analysis.ranks import classify
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.rewritten import rewritten
from attndsl.diagnostics import DiagnosticError
from attndsl.frontend import load_cascades
from attndsl.runtime.operator import CompiledAttention
from attndsl.source import Source
from attndsl.testing import make_inputs

HEAD = "attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,j], w: int = 4) -> {} {{\n  batch b\n  {}\n}}"
CUT = """rank j1 = |j| // w, j0 = w
  S[i,j1,j0] = Q[i,e] * K[j1 * w + j0, e] + u[j1 * w + j0]
  """
FILTER = """rank n = (|j| + w - 1) // w
  S[i,j] = Q[i,e] * K[j,e] + u[j]{}
  """
RUNNING = """M[j1,i] = max(M[j1-1,i], max[j0](S[i,j1,j0]))                        init {}
  Z[j1,i] = Z[j1-1,i] * exp(M[j1-1,i] - M[j1,i]) + sum[j0](exp(S[i,j1,j0] - M[j1,i]))   init 0
  N[j1,i,f] = N[j1-1,i,f] * exp(M[j1-1,i] - M[j1,i]) + exp(S[i,j1,j0] - M[j1,i]) * V[j1 * w + j0, f]   init 0
  O[i,f] = N[|j1|-1,i,f] / Z[|j1|-1,i]"""
LOCAL = """L[i,j1] = max[j0](S[i,j1,j0])
  P[i,j1,j0] = exp(S[i,j1,j0] - L[i,j1])
  M[i] = max[j1](L[i,j1])
  Z[i] = sum[j1](sum[j0](P[i,j1,j0]) * exp(L[i,j1] - M[i]))
  O[i,f] = P[i,j1,j0] * exp(L[i,j1] - M[i]) / Z[i] * V[j1 * w + j0, f]"""
THREE = """rank j2 = |j| // (w * 2), j1 = 2, j0 = w
  S[i,j2,j1,j0] = Q[i,e] * K[{at}, e] + u[{at}]
  L[i,j2,j1] = max[j0](S[i,j2,j1,j0])
  P[i,j2,j1,j0] = exp(S[i,j2,j1,j0] - L[i,j2,j1])
  R[i,j2] = max[j1](L[i,j2,j1])
  Y[i,j2] = sum[j1](sum[j0](P[i,j2,j1,j0]) * exp(L[i,j2,j1] - R[i,j2]))
  M[i] = max[j2](R[i,j2])
  Z[i] = sum[j2](Y[i,j2] * exp(R[i,j2] - M[i]))
  O[i,f] = P[i,j2,j1,j0] * exp(L[i,j2,j1] - M[i]) / Z[i] * V[{at}, f]"""
FILTERED = """L[i,n] = max[j : j // w == n](S[i,j])
  P[i,j] = exp(S[i,j] - L[i, j // w])
  M[i] = max[n](L[i,n])
  Z[i] = sum[n](sum[j : j // w == n](P[i,j]) * exp(L[i,n] - M[i]))
  O[i,f] = P[i,j] * exp(L[i, j // w] - M[i]) / Z[i] * V[j,f]"""
# Weights that cancel to plain softmax: nothing is kept for each block.
ONE_LEVEL = {
    "local maxima first": CUT + LOCAL,
    "local maxima by a filter": FILTER.format("") + FILTERED,
    "three levels": THREE.format(at="j2 * w * 2 + j1 * w + j0"),
    "three levels, from inside": THREE.format(at="j0 + w * (j1 + 2 * j2)"),
    "running": CUT + RUNNING.format("-1e30"),
    "running, with a sink": CUT + RUNNING.format("0.5"),
}
WITHIN = {
    "softmax": "L[i,n] = max[j : j // w == n](S[i,j])\n  P[i,j] = exp(S[i,j] - L[i, j // w])\n"
    "  Z[i,n] = sum[j : j // w == n](P[i,j])\n  W[i,j] = P[i,j] / Z[i, j // w]",
    "mean": "L[i,n] = max[j : j // w == n](S[i,j])\n  W[i,j] = sigmoid(S[i,j] - L[i, j // w]) / w",
}
ACROSS = {
    "log-sum-exp": "G[i,n] = log(sum[j : j // w == n](exp(S[i,j] - 3)) + 1)\n  A[i,n] = softmax[n](G[i,n])",
    "maximum": "G[i,n] = max[j : j // w == n](S[i,j])\n  A[i,n] = sigmoid(G[i,n])",
}
TWO_LEVELS = {
    f"{a} of {b}": FILTER + f"{ACROSS[a]}\n  {WITHIN[b]}\n  O[i,f] = W[i,j] * A[i, j // w] * V[j,f]"
    for a in ACROSS
    for b in WITHIN
}
TWO_LEVELS["softmax in ranks of blocks"] = (
    CUT + "P[i,j1,j0] = softmax[j0](S[i,j1,j0])\n  G[i,j1] = logsumexp[j0](S[i,j1,j0])\n"
    "  O[i,f] = softmax[j1](G[i,j1] / 2) * P[i,j1,j0] * V[j1 * w + j0, f]"
)
OUTPUTS = {"largest": "max", "smallest": "min", "sums": "sum"}


@cache
def op(text: str, outputs: str = "O[b,i,f]") -> CompiledAttention:
    return attndsl.compile(HEAD.format(outputs, text), backend="eager")


def check(o: CompiledAttention, queries: int, keys: int, w: int, offset: float) -> None:
    """Outputs and gradients of the kernels and of the dense reference."""
    sizes = {"b": 2, "i": queries, "j": keys, "e": 4, "f": 3}
    given = make_inputs(o, sizes, params={"w": w}, dtype=torch.float64, seed=keys)
    given["u"] = torch.where(torch.arange(keys) < keys // 2, offset, 0.0).expand(2, keys).double()
    own = {n: x.clone().requires_grad_() for n, x in given.items()}
    made, want = (
        x if isinstance(x, tuple) else (x,) for x in (o(**own, w=w), o.reference(**own, w=w))
    )
    ups = [torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double() for x in want]
    for x, y in zip(made, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)
    found, exact = (
        torch.autograd.grad(x, list(own.values()), ups, allow_unused=True) for x in (made, want)
    )
    for x, y in zip(found, exact, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ONE_LEVEL)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    blocks=st.integers(1, 5),
    rest=st.integers(0, 3),
    w=st.integers(1, 7),
    offset=st.sampled_from([0.0, 300.0, -300.0]),
)
def test_what_cancels_is_one_sweep(
    name: str, blocks: int, rest: int, w: int, offset: float
) -> None:
    o = op(ONE_LEVEL[name])
    check(o, 5, blocks * w + min(rest, w - 1), w, offset)


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_nothing_is_left_of_the_blocks(name: str) -> None:
    (c,) = load_cascades(Source("t", HEAD.format("O[b,i,f]", ONE_LEVEL[name])))
    made = rewritten(c)
    assert all(r.extent is None for r in made.ranks)
    assert all(d.init is None for d in made.body)
    ranks = classify(made)
    assert all(ranks.of.get(i, i) in ("b", "i", "j", "f") for d in made.body for i in d.indices)


@pytest.mark.parametrize("name", TWO_LEVELS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    blocks=st.integers(1, 4),
    w=st.integers(1, 7),
    causal=st.booleans(),
    offset=st.sampled_from([0.0, 30.0, -300.0]),
)
def test_two_levels(name: str, blocks: int, w: int, causal: bool, offset: float) -> None:
    keys = blocks * w
    check(
        op(TWO_LEVELS[name].replace("{}", "   where j <= i" if causal else "")),
        keys,
        keys,
        w,
        offset,
    )


@pytest.mark.parametrize("name", OUTPUTS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(keys=st.integers(1, 23), w=st.integers(1, 7), causal=st.booleans())
def test_a_value_of_each_block_as_output(name: str, keys: int, w: int, causal: bool) -> None:
    text = FILTER.format("   where j <= i" if causal else "")
    text += (
        f"B[i,n] = {OUTPUTS[name]}[j : j // w == n](S[i,j])\n  O[i,f] = softmax[j](S[i,j]) * V[j,f]"
    )
    check(op(text, "O[b,i,f], B[b,i,n]"), keys, keys, w, 0.0)


def test_a_recurrence_that_does_not_telescope_is_never_taken_for_one_that_does() -> None:
    """The gate is another quotient than that of the maximum: refused, and what it is written as has its value."""
    other = RUNNING.format("-1e30").replace("M[j1-1,i] - M[j1,i])", "M[j1-1,i] - 2 * M[j1,i])")
    text = HEAD.format("O[b,i,f]", CUT + other)
    (c,) = load_cascades(Source("t", text))
    sizes = {"b": 2, "i": 3, "j": 8, "e": 4, "f": 3}
    inputs = make_inputs(op(CUT + other), sizes, params={"w": 4}, dtype=torch.float64)
    got, want = (interpret(x, inputs, {"w": 4})["O"] for x in (rewritten(c), c))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    with pytest.raises(DiagnosticError, match="A0404"):
        check(op(CUT + other), 3, 8, 4, 0.0)


def test_pooled_keys_stay_short_sums() -> None:
    """Blocks of one input are no sweep for rows: four keys are added where they are read."""
    text = (
        "rank p = |j| // w, r = w\n  k[p,e] = sum[r](K[p * w + r, e]) / w\n  v[p,f] = sum[r](V[p * w + r, f]) / w\n"
        "  S[i,p] = Q[i,e] * k[p,e] + 0 * u[p]\n  O[i,f] = softmax[p](S[i,p]) * v[p,f]"
    )
    (c,) = load_cascades(Source("t", HEAD.format("O[b,i,f]", text)))
    assert rewritten(c) == c


def test_examples_fuse_to_one_sweep() -> None:
    from pathlib import Path

    for name in ("two_sweeps", "running_softmax"):
        program = driver.load(Path(f"examples/{name}.attn"))
        assert program.forward is not None
        assert len(program.forward.steps) == 1
