"""Inputs of 8 bits: which products have 8 too, and where the maximum is kept too small."""

from __future__ import annotations

import pytest

from attndsl.runtime.stages import plan_passes
from attndsl.schedule import tile as t
from attndsl.schedule.eight import HEADROOM, lifted
from attndsl.schedule.tile import SIXTEEN
from tests.unit.schedule.harness import kernels, load

HEAD = "attention a(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]{more}) -> O[b,h,i,f]{out} {{\n  batch b, h\n"
SCORE = "  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|){mask}\n"
SOFTMAX = HEAD + SCORE + "  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n{rest}}}"
SINK = (
    HEAD.replace("{more}", ", sink[h]{more}")
    + SCORE
    + """  M[i] = max(sink, max[j](S[i,j]))
  P[i,j] = exp(S[i,j] - M[i])
  O[i,f] = P[i,j] * V[j,f] / (sum[j](P[i,j]) + exp(sink - M[i]))
{rest}}}"""
)
SIGMOID = HEAD + SCORE + "  O[i,f] = sigmoid(S[i,j]) * V[j,f]\n{rest}}}"
DOUBLED = (
    HEAD + "  S[i,j] = (2 * Q[i,e] + 1) * K[j,e]\n  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n{rest}}}"
)
SQUARED = (
    HEAD
    + SCORE
    + """  P[i,j] = exp(2 * S[i,j] - max[j](S[i,j]))
  O[i,f] = P[i,j] / sum[j](P[i,j]) * V[j,f]
{rest}}}"""
)
EIGHT = ("Q", "K", "V")


def text(program: str, more: str = "", out: str = "", mask: str = "", rest: str = "") -> str:
    return program.format(more=more, out=out, mask=mask, rest=rest)


def products(program: str) -> tuple[set[str], set[str]]:
    """What scores and sums are like."""
    plan = plan_passes(load(program), (), eight=EIGHT).forward
    bodies = [r.body for k in kernels(plan) if k.sweep is not None for r in k.sweep.ranges]
    scores = {s.like for b in bodies for s in b if isinstance(s, t.Dot)}
    return scores, {s.like for b in bodies for s in b if isinstance(s, t.AccDot)}


@pytest.mark.parametrize("mask", ["", "   where j <= i"])
@pytest.mark.parametrize("program", [SOFTMAX, SINK])
def test_what_a_maximum_was_taken_off_has_8_bits(program: str, mask: str) -> None:
    assert products(text(program, mask=mask)) == ({"Q"}, {"V"})


def test_scores_that_scales_multiply_too() -> None:
    """By blocks of 128 positions, as any gather."""
    program = text(SOFTMAX, ", a[b,h,m], c[b,h,n]").replace(
        "Q[i,e] * K[j,e]", "sum[e](Q[i,e] * K[j,e]) * a[i // 128] * c[j // 128]"
    )
    assert products(program) == ({"Q"}, {"V"})


def test_other_weights_have_16_bits() -> None:
    """A sigmoid's are not kept inside the type, and `exp(2*S - max(S))` is not bounded."""
    assert products(text(SIGMOID)) == ({"Q"}, {SIXTEEN})
    assert products(text(SQUARED)) == ({"Q"}, {SIXTEEN})


def test_what_is_computed_of_inputs_has_16_bits() -> None:
    assert products(text(DOUBLED))[0] == {SIXTEEN}


def test_outputs_have_16_bits() -> None:
    plan = plan_passes(load(text(SOFTMAX)), (), eight=EIGHT).forward
    assert [b.like for b in plan.buffers if b.kind is t.BufferKind.OUTPUT] == [SIXTEEN]


def test_a_maximum_that_is_an_output_is_what_it_says() -> None:
    program = text(SINK, out=", M[b,h,i]")
    assert str(HEADROOM) not in str(lifted(load(program)))
    assert products(program) == ({"Q"}, {SIXTEEN})


def test_the_headroom_costs_a_subtraction_for_each_row() -> None:
    plan = plan_passes(load(text(SOFTMAX)), (), eight=EIGHT).forward
    (kernel,) = kernels(plan)
    assert kernel.sweep is not None
    for r in kernel.sweep.ranges:
        found = [s for s in r.body if isinstance(s, t.Compute) and str(HEADROOM) in str(s.expr)]
        assert [s.dims for s in found] == [("i",)]
