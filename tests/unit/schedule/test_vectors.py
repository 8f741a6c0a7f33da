"""Vectors that chunks carry meet tiles as these lie in memory."""

from __future__ import annotations

import pytest

from attndsl.cascade.nodes import Cascade
from attndsl.codegen.triton import render_module
from attndsl.frontend import load_cascades
from attndsl.schedule import plan_forward
from attndsl.schedule import tile as t
from attndsl.source import Source
from tests.unit.schedule.harness import kernels

NORMALISED = """def phi(x) = elu(x) + 1
attention normalised(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
  batch b
  A[i,j] = phi(Q[i,e]) * phi(K[j,e])   where j <= i
  O[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]
}"""
DECAYED = """attention decayed(Q[b,i,e], K[b,j,e], V[b,j,f], a[b]) -> O[b,i,f] {
  batch b
  A[i,j] = Q[i,e] * K[j,e] * exp(-abs(a) * (i - j))   where j <= i
  O[i,f] = A[i,j] / max(abs(sum[j](A[i,j])), 1) * V[j,f]
}"""


def load(text: str) -> Cascade:
    (cascade,) = load_cascades(Source("test.attn", text))
    return cascade


def walk(text: str) -> t.TileProgram:
    (found,) = [k for k in kernels(plan_forward(load(text))) if k.sweep is not None]
    return found


@pytest.mark.parametrize("text", [NORMALISED, DECAYED])
def test_a_carried_vector_takes_products_and_no_sums(text: str) -> None:
    program = walk(text)
    body = program.sweep.ranges[0].body  # type: ignore[union-attr]
    vectors = [s for s in body if isinstance(s, t.Dot) and len(s.dims) == 1]
    assert [s.exact for s in vectors] == [True, True]
    rows = {s.over for s in body if isinstance(s, t.Fold)}
    assert rows == {"j"}  # of the chunk's own pairs


def test_maps_come_by_the_copy_engine() -> None:
    text = render_module("normalised", plan_forward(load(NORMALISED)), None, "")
    assert "tiles_of(Q_map" in text
    assert "tiles_of(K_map" in text
