"""Sums that follow a running value: a maximum's shift, or the growth of a sum that terms are divided by."""

from __future__ import annotations

import pytest
import torch

from attndsl.cascade.interpreter import interpret
from attndsl.schedule import plan_forward
from attndsl.schedule.split import ROWS, SPLIT, plan_split
from tests.unit.schedule.harness import draw, kernels, load, run

POWER = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], p: int = 3) -> O[b,i,f] {{
  batch b
  S[i,j] = Q[i,e] * K[j,e]   where j <= i
  P[i,j] = {weight}
  Z[i]   = sum[j](P[i,j])
  W[i,j] = (P[i,j] / {divisor})**p
  O[i,f] = W[i,j] * V[j,f]{norm}
}}"""
EXTENTS = {"b": 2, "i": 20, "j": 20, "e": 4, "f": 4}


@pytest.mark.parametrize("p", [1, 3, 15])
@pytest.mark.parametrize("norm", ["", " / sum[j](W[i,j])"])
@pytest.mark.parametrize("divisor", ["Z[i]", "N[i]"])
@pytest.mark.parametrize("weight", ["softplus(S[i,j])", "relu(S[i,j] - 3)", "S[i,j]**2"])
def test_a_growing_divisor_is_followed(weight: str, divisor: str, norm: str, p: int) -> None:
    text = POWER.format(weight=weight, divisor=divisor, norm=norm)
    if divisor == "N[i]":
        text = text.replace("  W[i,j]", "  N[i] = sqrt(Z[i]) * 2\n  W[i,j]")
    cascade = load(text)
    plan = plan_forward(cascade)
    assert len(kernels(plan)) == 1
    inputs = draw(cascade, EXTENTS)
    inputs["K"][:, :6] = 0  # with relu, tiles whose weights are all 0 come first
    want = interpret(cascade, inputs, {"p": p})["O"]
    got = run(plan, cascade, inputs, {"p": p}, tiles={"i": 4, "j": 4})["O"]
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_slices_follow_it_too() -> None:
    text = POWER.format(weight="softplus(S[i,j])", divisor="Z[i]", norm=" / sum[j](W[i,j])")
    cascade = load(text)
    plan = plan_split(cascade)
    assert plan is not None
    inputs = draw(cascade, EXTENTS)
    want = interpret(cascade, inputs, {"p": 4})["O"]
    for count in (1, 3, 7):
        extra = {SPLIT: count, ROWS: EXTENTS["i"]}
        got = run(plan, cascade, inputs, {"p": 4}, extra=extra, tiles={"i": 4, "j": 4, ROWS: 4})
        torch.testing.assert_close(got["O"], want, rtol=1e-9, atol=1e-12)


def test_no_weight_leaves_the_range_of_float32() -> None:
    text = POWER.format(weight="S[i,j]**2", divisor="Z[i]", norm=" / sum[j](W[i,j])")
    cascade = load(text)
    inputs = draw(cascade, EXTENTS)
    inputs["Q"] *= 100  # S**30 is beyond 1e38
    want = interpret(cascade, inputs, {"p": 15})["O"]
    single = {n: x.float() for n, x in inputs.items()}
    got = run(plan_forward(cascade), cascade, single, {"p": 15}, tiles={"i": 4, "j": 4})["O"]
    torch.testing.assert_close(got, want.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("definitions", "weight", "why"),
    [
        (
            "t[i] = sum[j](S[i,j]) / |j|",
            "relu(S[i,j] - t[i])",
            "`t` must be known before `relu(S[i,j] - t[i])`, which is not separable in `t`",
        ),
        (
            "t[i] = sum[j](relu(S[i,j])) / |j|",
            "relu(S[i,j]) - t[i]",
            "`t` must be known before `O`: its terms separate into 2 sums, which may cancel",
        ),
        (
            "t[i] = sum[j](S[i,j])\n  z[i] = 1 + sum[j](S[i,j]**2)",
            "exp((S[i,j] - t[i]) / z[i])",
            "`t` must be known before `exp((S[i,j] - t[i]) / z[i])`, "
            "which is not separable in `t` and `z`",
        ),
        (  # the sum of what may be negative may pass through 0
            "z[i] = sum[j](S[i,j])",
            "(S[i,j] / z[i])**2",
            "`z` must be known before `O`: no correction of its terms stays in range",
        ),
    ],
)
def test_what_costs_a_sweep_is_said(definitions: str, weight: str, why: str) -> None:
    text = f"""attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {{
      batch b
      S[i,j] = Q[i,e] * K[j,e]
      {definitions}
      O[i,f] = sum[j](({weight}) * V[j,f])
    }}"""
    plan = plan_forward(load(text))
    assert len(kernels(plan)) == 2
    assert why in plan.notes


@pytest.mark.parametrize(
    ("definitions", "domain", "term"),
    [
        ("M[i] = max[j](S[i,j])", "S[i,j] >= M[i] - 1", "relu(S[i,j]) + 1"),
        ("M[i] = sum[j](S[i,j]) / |j|", "S[i,j] >= M[i]", "exp(S[i,j])"),
        ("M[i] = max[j](S[i,j])", "exp(S[i,j] - M[i]) > 0.3", "2.0"),
    ],
)
def test_a_domain_does_not_follow(definitions: str, domain: str, term: str) -> None:
    """What a running value has let in, or left out, no correction brings back."""
    cascade = load(f"""attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f], N[b,i] {{
      batch b
      S[i,j] = Q[i,e] * K[j,e]
      {definitions}
      O[i,f] = sum[j : {domain}](({term}) * V[j,f])
      T[i,j] = S[i,j] where {domain}
      N[i]   = max[j](T[i,j])
    }}""")
    plan = plan_forward(cascade)
    assert len(kernels(plan)) == 2
    assert any(f"which is taken where `{domain}`" in note for note in plan.notes)
    inputs = draw(cascade, EXTENTS)
    want = interpret(cascade, inputs)
    got = run(plan, cascade, inputs, tiles={"i": 4, "j": 4})
    for o in ("O", "N"):
        torch.testing.assert_close(got[o], want[o], rtol=1e-9, atol=1e-12)


def test_a_domain_that_no_shift_moves_is_no_obstacle() -> None:
    cascade = load("""attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
      batch b
      S[i,j] = Q[i,e] * K[j,e]
      M[i]   = max[j](S[i,j])
      P[i,j] = S[i,j] * exp(S[i,j] - M[i])
      O[i,f] = sum[j : P[i,j] > 0](P[i,j] * V[j,f])
    }""")
    plan = plan_forward(cascade)
    assert len(kernels(plan)) == 1
    inputs = draw(cascade, EXTENTS)
    got = run(plan, cascade, inputs, tiles={"i": 4, "j": 4})["O"]
    torch.testing.assert_close(got, interpret(cascade, inputs)["O"], rtol=1e-9, atol=1e-12)


SOFTPICK = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,j], s[b]) -> O[b,i,f], N[b,i] {
  batch b
  S[i,j] = Q[i,e] * K[j,e] + u[j]
  M[i]   = max[j](S[i,j])
  X[i,j] = exp(S[i,j] - M[i]) - exp(s - M[i])
  N[i]   = sum[j](abs(X[i,j]))
  O[i,f] = relu(X[i,j]) / N[i] * V[j,f]
}"""


@pytest.mark.parametrize("offsets", [(-300, 0), (0, -300), (300, -300), (-300, -300), (-80, 10)])
def test_every_term_stays_in_range(offsets: tuple[int, int]) -> None:
    cascade = load(SOFTPICK)
    plan = plan_forward(cascade)
    assert len(kernels(plan)) == 1
    inputs = draw(cascade, EXTENTS)
    inputs["u"][:, :8], inputs["u"][:, 8:] = offsets
    want = interpret(cascade, inputs)
    single = {n: x.float() for n, x in inputs.items()}
    got = run(plan, cascade, single, tiles={"i": 4, "j": 4})
    torch.testing.assert_close(got["O"], want["O"].float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got["N"], want["N"].float(), rtol=1e-3, atol=1e-5)
