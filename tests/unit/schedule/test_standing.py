"""References that stand while they are near enough, and sums of rows that threads keep apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl import driver
from attndsl.schedule.apart import kept_apart
from attndsl.schedule.standing import standing
from attndsl.schedule.tile import Assign, Compute, Plan, Stmt, TileProgram
from attndsl.schedule.warps import Roles, roles

EXAMPLES = Path(__file__).parents[3] / "examples"

LEAVING = """
attention leaving(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f], M[b,h,i] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e]
  M[i]   = max[j](S[i,j])
  P[i,j] = exp(S[i,j] - M[i])
  Z[i]   = sum[j](P[i,j])
  O[i,f] = P[i,j] * V[j,f] / Z[i]
}
"""


def forward(path: Path) -> TileProgram:
    (*_, plan) = (p for p in driver.load(path).plans[:1] if isinstance(p, Plan))
    (kernel,) = (s for s in plan.steps if isinstance(s, TileProgram))
    return kernel


def raised(body: tuple[Stmt, ...], state: str) -> Compute:
    kept = {s.name: s.expr for s in body if isinstance(s, Assign)}[state]
    return next(s for s in body if isinstance(s, Compute) and s.name == getattr(kept, "name", ""))


@pytest.mark.parametrize("name", ["full", "causal", "alibi", "window", "softcap", "documents"])
def test_the_reference_of_a_softmax_stands(name: str) -> None:
    kernel = forward(EXAMPLES / f"{name}.attn")
    assert kernel.sweep is not None
    sweep, corrections = standing(kernel, kernel.sweep)
    assert corrections == {"alpha"}
    for before, after in zip(kernel.sweep.ranges, sweep.ranges, strict=True):
        assert raised(before.body, "M_S") != raised(after.body, "M_S")


@pytest.mark.parametrize("name", ["sink_softmax", "off_by_one"])
def test_so_does_one_that_never_falls_below_a_floor(name: str) -> None:
    kernel = forward(EXAMPLES / f"{name}.attn")
    assert kernel.sweep is not None
    assert standing(kernel, kernel.sweep)[1] == {"alpha"}


def test_a_maximum_that_leaves_is_one() -> None:
    """Beside a reference of the same scores, which stands."""
    kernel = forward(EXAMPLES / "outputs_lse_max.attn")
    assert kernel.sweep is not None
    sweep, corrections = standing(kernel, kernel.sweep)
    assert corrections == {"alpha"}
    for before, after in zip(kernel.sweep.ranges, sweep.ranges, strict=True):
        assert raised(before.body, "M") == raised(after.body, "M")
        assert raised(before.body, "M_S") != raised(after.body, "M_S")


def test_nothing_stands_that_leaves_itself(tmp_path: Path) -> None:
    path = tmp_path / "leaving.attn"
    path.write_text(LEAVING)
    kernel = forward(path)
    assert kernel.sweep is not None
    assert standing(kernel, kernel.sweep) == (kernel.sweep, frozenset())


def test_divisors_of_a_softmax_are_kept_apart() -> None:
    program = driver.load(EXAMPLES / "full.attn")
    plan = program.plans[0]
    assert isinstance(plan, Plan)
    (kernel,) = (s for s in plan.steps if isinstance(s, TileProgram))
    found = roles(plan, kernel)
    assert isinstance(found, Roles)
    assert kept_apart(kernel, found.bodies) == {"Z_S": "Z_S_tile"}
