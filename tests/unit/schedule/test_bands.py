"""Rows along diagonals are multiplied as a band of them; other rows point by point."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.codegen.programs import statements
from attndsl.driver import load
from attndsl.schedule import Plan
from attndsl.schedule.tile import AccDot, Dot, For, Load, Pick, Role, Scatter
from attndsl.source import Source
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
    """Of queries a product over the band; of the table one by rows, with bands of keys and values."""
    plan = load(EXAMPLES / f"{name}.attn").backward
    assert plan is not None
    made = {k.writes: k for k in kernels(plan)}
    assert not any(isinstance(s, For | Scatter) for k in made.values() for s in statements(k))
    (rows,) = (k for writes, k in made.items() if writes == ("dR",))
    assert [a.rank for a in rows.of(Role.TILE)] == ["r"]
    loaded = {s.tensor for s in statements(rows) if isinstance(s, Load) and "band" in s.dims}
    assert loaded == {"K", "V"}
    queries = next(k for writes, k in made.items() if "dQ" in writes)
    assert any(isinstance(s, AccDot) and s.over == "band" for s in statements(queries))


def test_rows_that_many_diagonals_share_are_added_up_in_memory() -> None:
    """One product for each tile, whose rows are added to the table's."""
    source = Source(
        "t.attn",
        "attention t(Q[h,i,e], K[h,j,e], V[h,j,f], R[h,r,e]) -> O[h,i,f] {\n  batch h\n"
        "  S[i,j] = Q[i,e] * K[j,e] + Q[i,e] * R[max(min(i - j, 8), -8) + 8, e]\n"
        "  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n}",
    )
    plan = load(source).backward
    assert plan is not None
    every = [s for k in kernels(plan) for s in statements(k)]
    products = {s.name: s for s in every if isinstance(s, Dot)}
    added = [s for s in every if isinstance(s, Scatter)]
    assert added
    assert {products[s.value].dims for s in added} == {("band", "e")}
    assert not any(isinstance(s, For) for s in every)
