"""Rows along diagonals are multiplied as a band of them; other rows point by point."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.codegen.programs import statements
from attndsl.driver import load
from attndsl.schedule import Plan
from attndsl.schedule.tile import AccDot, Across, Dot, For, Pick, Role, Scatter
from tests.unit.schedule.harness import forward, kernels

EXAMPLES = Path(__file__).parents[3] / "examples"


def scores(row: str) -> Plan:
    return forward(
        "attention t(Q[h,i,e], K[h,j,e], V[h,j,f], R[h,r,e], a[i]: int, b: int) -> O[h,i,f] {\n  batch h\n"
        f"  S[i,j] = Q[i,e] * K[j,e] + Q[i,e] * R[{row}, e]   where j <= i\n"
        "  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n}"
    )


@pytest.mark.parametrize("row", ["i - j", "j - i + |j| - 1", "i + j + b", "min(i - j, 7)"])
def test_scores(row: str) -> None:
    (kernel,) = kernels(scores(row))
    (band,) = kernel.of(Role.BAND)
    made = list(statements(kernel))
    assert not any(isinstance(s, For) for s in made)
    for pick in (s for s in made if isinstance(s, Pick)):
        (product,) = {s for s in made if isinstance(s, Dot) and s.name == pick.src}
        assert (product.dims, product.over) == (("i", band.name), "e")
        assert (pick.dims, pick.over, pick.inside) == (("i", "j"), band.name, True)


@pytest.mark.parametrize("row", ["2 * i - j", "a[i] - j", "(i - j) * (i + j)", "i // 2 - j"])
def test_other_rows_go_point_by_point(row: str) -> None:
    (kernel,) = kernels(scores(row))
    assert not kernel.of(Role.BAND)
    assert any(isinstance(s, For) for s in statements(kernel))


@pytest.mark.parametrize("name", ["transformer_xl", "music_transformer"])
def test_gradients(name: str) -> None:
    """Of queries a product over the band, of the table one for each tile, of keys and values products as ever."""
    plan = load(EXAMPLES / f"{name}.attn").backward
    assert plan is not None
    made = {k.name: list(statements(k)) for k in kernels(plan)}
    every = [s for body in made.values() for s in body]
    assert not any(isinstance(s, For | Across) for s in every)
    bands = {a.name for k in kernels(plan) for a in k.of(Role.BAND)}
    assert any(isinstance(s, AccDot) and s.over in bands for s in every)
    products = {s.name: s for s in every if isinstance(s, Dot)}
    for add in (s for s in every if isinstance(s, Scatter)):
        assert products[add.value].dims[0] in bands
