"""Sums that would crowd a kernel have one each; those that fit share the scores, and so do those that fit nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.driver import load
from attndsl.schedule.liveness import crowded, roomy
from attndsl.schedule.tile import TileProgram

EXAMPLES = Path(__file__).parents[3] / "examples"


def kernels(name: str) -> dict[tuple[str, ...], TileProgram]:
    """Kernels of the backward pass by what they write."""
    plan = load(EXAMPLES / f"{name}.attn").backward
    assert plan is not None
    return {s.writes: s for s in plan.steps if isinstance(s, TileProgram)}


@pytest.mark.parametrize("name", ["softpick", "outputs_lse_max", "entropy"])
def test_cut(name: str) -> None:
    found = kernels(name)
    for writes in (("dK",), ("dV",)):
        assert roomy(found[writes])
        assert not crowded(found[writes])


def test_sums_go_with_those_that_need_the_same_scores() -> None:
    """dV adds up a sum for each normaliser; each goes with the gradient of its keys, one kernel reads the other's."""
    found = kernels("differential")
    part = next(w for w in found if "dK2" in w)
    rest = next(w for w in found if "dK1" in w)
    assert {len(part), len(rest)} == {2}
    assert "dV" in rest
    (own,) = set(part) - {"dK2"}
    assert own in found[rest].reads
    for writes in (part, rest):
        assert roomy(found[writes])
        assert not crowded(found[writes])


def test_what_fits_stays_together() -> None:
    assert not crowded(kernels("causal")["dV", "dK"])


def test_what_would_not_fit_alone_stays_together() -> None:
    """The rows' statistics of standardised scores fill a kernel of dK alone."""
    assert crowded(kernels("standardised")["dV", "dK"])
