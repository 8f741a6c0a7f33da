"""Tiles of float32 in halves: which may come so, and what products of them are worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.codegen.halves import in_halves, taken_apart
from attndsl.codegen.triton import render_module
from attndsl.runtime.stages import Passes, plan_passes
from attndsl.schedule.tile import Load, Plan, TileProgram
from tests.unit.codegen.running import run
from tests.unit.schedule.harness import kernels, load

SOFTMAX = """attention t(Q[b,{q}e], K[b,{k}e], V[b,{k}f]) -> O[b,{q}f] {{
  batch b
  S[{h}i,j] = {score}   where j <= i
  O[{q}f] = softmax[j](S[{h}i,j]) * V[{k}f]
}}"""
PLAIN = {"q": "i,", "k": "j,", "h": "", "score": "Q[i,e] * K[j,e]"}


def planned(**changed: str) -> Passes:
    return plan_passes(load(SOFTMAX.format(**{**PLAIN, **changed})), ("Q", "K", "V"))


def halves(plan: Plan, p: TileProgram) -> set[str]:
    """The tensors that a kernel takes in halves."""
    names = in_halves(plan, p)
    body = p.sweep.ranges[-1].body if p.sweep is not None else ()
    return {s.tensor for s in (*p.prologue, *body) if isinstance(s, Load) and s.name in names}


def test_operands_of_products_come_in_halves() -> None:
    (plan,) = taken_apart(planned().forward)
    (forward,) = kernels(plan)
    assert halves(plan, forward) == {"Q", "K", "V"}
    text = render_module("t", plan, None, "header")
    assert "take_apart" in text


def test_passes_that_make_scores_again_agree() -> None:
    """Two sums of products and what each adds fill registers: dK and dV stay whole, and so does all else."""
    passes = planned()
    assert passes.backward is not None
    plans = taken_apart(passes.forward, passes.backward)
    assert not any(halves(plan, p) for plan in plans for p in kernels(plan))
    assert "take_apart" not in render_module("t", passes.forward, passes.backward, "header")


@pytest.mark.parametrize(
    "score", ["Q[i,e] * K[j,e] - sum[e](K[j,e]**2)", "sum[e](tanh(Q[i,e] + K[j,e]))"]
)
def test_what_is_read_as_numbers_stays_whole(score: str) -> None:
    (plan,) = taken_apart(planned(score=score).forward)
    assert not any(halves(plan, p) & {"Q", "K"} for p in kernels(plan))


def test_rows_stand_beside_each_other() -> None:
    """Between positions and features nothing may stand: scales are copied as rows of their own."""
    inner = {"q": "i,h,", "k": "j,h,", "h": "h,", "score": "Q[i,h,e] * K[j,h,e]"}
    (plan,) = taken_apart(planned(**inner).forward)
    assert not any(halves(plan, p) for p in kernels(plan))


PROBE = """

@triton.jit
def halves_at(parts, scales, at, W: tl.constexpr, off, n):
    e = tl.arange(0, W)
    first = tl.load(parts + at[:, None] * (2 * W) + e[None, :])
    second = tl.load(parts + at[:, None] * (2 * W) + W + e[None, :])
    return tl.tuple([first, second, tl.load(scales + at)])


@triton.jit
def probe(p, a_parts, a_scales, b_parts, b_scales, rows, sums, N: tl.constexpr, W: tl.constexpr):
    at = tl.arange(0, N)
    a = halves_at(a_parts, a_scales, at, W, 0, N)
    b = halves_at(b_parts, b_scales, at, W, 0, N)
    both = dot_of_rows(a, b, tl.float32, tl.float32)
    tl.store(rows + at[:, None] * N + at[None, :], both)
    weights = tl.load(p + at[:, None] * N + at[None, :])
    acc = tl.full([N, W], 0.0, tl.float32)
    acc = dot_by_rows(weights, b, acc, tl.float32, tl.float32)
    tl.store(sums + at[:, None] * W + tl.arange(0, W)[None, :], acc)
"""

SCRIPT = """
torch.manual_seed(0)
n, w = 16, 32
scale = torch.tensor({scale!r})
a, b = (torch.randn(n, w) * scale for _ in range(2))
if {spread}:
    a, b = (x * torch.exp2(torch.randint(-20, 20, (n, 1)).float()) for x in (a, b))
    a[3] = 0
    b[5, 1:] *= 1e-6
p = torch.rand(n, n) * torch.exp2(torch.randint(-20, 1, (n, 1)).float())
p[2] = 0
(ap, sa), (bp, sb) = (module.parts_of(x[None], w) for x in (a, b))
rows, sums = torch.empty(n, n), torch.empty(n, w)
module.probe[(1,)](p, ap, sa, bp, sb, rows, sums, N=n, W=w)
for got, x, y in ((rows, a, b.T), (sums, p, b)):
    exact, sizes = x.double() @ y.double(), x.double().norm(dim=1, keepdim=True) * y.double().norm(dim=0)
    off = ((got.double() - exact).abs() / sizes.clamp(min=1e-300)).max().item()
    assert off <= 2e-7, off
"""


@pytest.mark.parametrize(
    ("scale", "spread"), [(1.0, False), (1.0, True), (1e-12, False), (1e12, True)]
)
def test_products_of_halves(tmp_path: Path, scale: float, spread: bool) -> None:
    """As near as float32 is: relative to the lengths of the two rows, whatever their sizes are."""
    text = render_module("t", planned().forward, None, "header") + PROBE
    run(tmp_path, text, SCRIPT.format(scale=scale, spread=spread))
