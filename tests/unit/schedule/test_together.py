"""Walks that carry one state are one kernel, and no others."""

from __future__ import annotations

import pytest
import torch

from attndsl.cascade.interpreter import interpret
from attndsl.cascade.unroll import unrolled
from attndsl.schedule import plan_forward
from attndsl.schedule import tile as t
from attndsl.schedule.specialise import used
from attndsl.schedule.together import joined
from tests.unit.schedule.harness import draw, kernels, load, run

DELTA = """attention delta(Q[b,t,e], K[b,t,e], V[b,t,f], beta[b,t]) -> O[b,t,f] {
  batch b
  H[t,e,f] = H[t-1,e,f] + beta[t] * K[t,e] * (V[t,f] - K[t,c] * H[t-1,c,f])   init 0
  O[t,f] = Q[t,e] * H[t,e,f]
}"""
STARTED = DELTA.replace("beta[b,t])", "beta[b,t], H0[b,e,f])").replace("init 0", "init H0[e,f]")
APART = """attention apart(Q[b,t,e], K[b,t,e], V[b,t,f], W[b,t,f]) -> O[b,t,f], P[b,t,f] {
  batch b
  H[t,e,f] = H[t-1,e,f] + K[t,e] * V[t,f]   init 0
  G[t,e,f] = G[t-1,e,f] + K[t,e] * W[t,f]   init 0
  O[t,f] = Q[t,e] * H[t,e,f]
  P[t,f] = Q[t,e] * G[t,e,f]
}"""


def walks(text: str) -> list[t.TileProgram]:
    return [p for p in kernels(plan_forward(unrolled(load(text)))) if p.sweep is not None]


def states(p: t.TileProgram) -> int:
    return sum(isinstance(s, t.Declare) for s in p.prologue)


@pytest.mark.parametrize("text", [DELTA, STARTED])
def test_what_a_state_holds_and_what_is_read_of_it_are_one_walk(text: str) -> None:
    (walk,) = walks(text)
    assert [w[0] for w in walk.writes] == ["U", "O"]
    assert states(walk) == 1
    assert not {*walk.writes} & {*walk.reads}  # what the later one loaded is there


def test_states_of_other_values_stay_apart() -> None:
    first, second = walks(APART)
    assert joined(first, second) is None
    assert states(first) == states(second) == 1


def test_a_state_that_starts_elsewhere_is_another() -> None:
    (walk,) = walks(STARTED)
    (other,) = walks(DELTA)
    assert joined(walk, other) is None


def test_updates_stand_behind_all_that_reads_the_state() -> None:
    (walk,) = walks(DELTA)
    assert walk.sweep is not None
    body = walk.sweep.ranges[0].body
    (state,) = (s.name for s in walk.prologue if isinstance(s, t.Declare))
    places = [k for k, s in enumerate(body) if isinstance(s, t.AccDot) and s.name == state]
    assert places == [len(body) - 1]
    assert sum(state in used(s) for s in body[:-1]) == 2


@pytest.mark.parametrize("text", [DELTA, STARTED, APART])
@pytest.mark.parametrize("length", [1, 15, 16, 33])
def test_joined_walks_agree_with_the_interpreter(text: str, length: int) -> None:
    c = load(text)
    x = draw(c, {"b": 2, "t": length, "e": 4, "f": 6})
    x["K"] = torch.nn.functional.normalize(x["K"], dim=-1)
    made = run(plan_forward(unrolled(c)), c, x, tiles={"t": 16})
    for name, want in interpret(c, x).items():
        torch.testing.assert_close(made[name], want, rtol=1e-10, atol=1e-10)
