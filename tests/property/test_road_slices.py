"""Keys in slices, as for few queries: every program whose keys may be cut gives what it gives whole."""

from __future__ import annotations

import pytest
import torch

from attndsl.cascade.bind import bind
from attndsl.cascade.interpreter import interpret
from attndsl.runtime import few
from attndsl.runtime.stages import plan_passes
from attndsl.schedule.split import ROWS
from tests.road.harness import CASES
from tests.road.state import REFUSED
from tests.unit.schedule.harness import load, run

QUICK = {"mv_noisy_or", "mv_rest_of_the_mass", "softpick_2", "window_or_first", "entropy_by_logs"}
# Of some that are refused the forward pass is too, which others test.
NAMES = sorted(n for n, c in CASES.items() if c.start is None and n not in REFUSED)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in NAMES],
)
def test_slices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "MOST_ROWS", 1000)
    monkeypatch.setattr(few, "LEAST_KEYS", 1)
    monkeypatch.setattr(few, "LEAST_SLICE", 5)
    case = CASES[name]
    cascade = load(case.text)
    made = plan_passes(cascade, ())
    whole, plan = made.forward, made.split
    if plan is None:
        return  # its keys are not cut, which others test
    inputs, params = case.inputs(), dict(case.params)
    want = interpret(cascade, inputs, params)
    sizes = few.FewQueries(whole, plan)
    extents = bind(cascade, {n: tuple(x.shape) for n, x in inputs.items()}, params).extents
    for blocks in (1, 10**6):
        extra = sizes.slices(extents, blocks) or {}
        tiles = dict.fromkeys(("i", "j", "t", ROWS), 4)
        got = run(plan, cascade, inputs, params, extra=extra, tiles=tiles) if extra else want
        for o in cascade.outputs:
            torch.testing.assert_close(got[o.name], want[o.name], rtol=1e-8, atol=1e-8)
