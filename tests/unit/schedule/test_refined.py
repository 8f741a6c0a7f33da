"""Searches that start from a guess of rounded inputs: exact whatever the guess is, and short where it is good."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from attndsl.cascade.interpreter import interpret
from attndsl.schedule import Plan, plan_forward
from attndsl.schedule.tile import BufferKind, Rounds, TileProgram
from attndsl.testing import error_budget
from tests.unit.schedule.harness import draw, kernels, load, run

TEXT = (
    "attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> {outputs} {{\n  batch b\n"
    "  S[i,j] = Q[i,e] * K[j,e]   where j <= i\n{most}"
    "  t[i] = solve[x : {lo} <= x <= {hi}]({equation}, iters=40)\n"
    "  O[i,f] = relu(S[i,j] - t[i])**2 * V[j,f]\n}}"
)


def program(
    equation: str = "sum[j](relu(S[i,j] - x)**2) == 1",
    lo: str = "M[i] - 1",
    hi: str = "M[i]",
    outputs: str = "O[b,i,f]",
    most: str = "  M[i] = max[j](S[i,j])\n",
) -> str:
    return TEXT.format(equation=equation, lo=lo, hi=hi, outputs=outputs, most=most)


PROGRAMS = {
    "a square": program(),
    "a line": program("sum[j](relu(S[i,j] - x)) == 1"),
    "a power": program("sum[j](relu(S[i,j] - x)**1.5) == 1"),
    "a rising side": program("1 == sum[j](exp(x - S[i,j]))", "M[i] - 40", "M[i] + 40"),
    "numbers for a bracket": program("sum[j](sigmoid(S[i,j] - x)) == 0.5", "-90", "90", most=""),
}


def second(text: str, rounds: int | None = None) -> Plan:
    """The plan with a search's second stage alone: `t` is given, as a guess."""
    plan = plan_forward(load(text))
    (stage,) = (s.again for s in kernels(plan) if s.again is not None)
    if rounds is not None:
        assert isinstance(stage.rounds, Rounds)
        stage = dataclasses.replace(stage, rounds=dataclasses.replace(stage.rounds, count=rounds))
    last = kernels(plan)[-1]
    buffers = tuple(
        dataclasses.replace(b, kind=BufferKind.INPUT) if b.name == "t" else b
        for b in plan.buffers
        if b.name != "M"
    )
    return dataclasses.replace(plan, buffers=buffers, steps=(stage, last))


def exact_roots(text: str, inputs: dict[str, Tensor]) -> Tensor:
    cascade = load(text.replace("O[b,i,f] {", "O[b,i,f], t[b,i] {"))
    return interpret(cascade, {n: x.double() for n, x in inputs.items()})["t"]


def check(text: str, inputs: dict[str, Tensor], guess: Tensor, rounds: int | None = None) -> None:
    """In float32, against the exact outputs."""
    cascade = load(text)
    narrow = {n: x.float() for n, x in inputs.items()}
    exact = interpret(cascade, {n: x.double() for n, x in narrow.items()})["O"]
    dense = interpret(cascade, narrow)["O"]
    plan = second(text, rounds)
    named = {**narrow, "t": guess.float().clone()}
    tiles = {"i": 8, "j": 32}
    made = run(plan, cascade, narrow, given=named, tiles=tiles)["O"]
    error_budget(exact, dense, torch.float32).check("O", made, exact)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("off", [0.0, 1e-4, -1e-2, 0.4, -5.0, 1e9, float("nan"), float("-inf")])
def test_any_guess_leads_to_the_root(name: str, off: float) -> None:
    inputs = draw(load(PROGRAMS[name]), {"b": 2, "i": 40, "j": 40, "e": 4, "f": 4})
    check(PROGRAMS[name], inputs, exact_roots(PROGRAMS[name], inputs) + off)


@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
def test_a_near_guess_takes_one_round(scale: float) -> None:
    """Flat rows, spread rows, and rows of one key whose root is the bracket's very end."""
    inputs = draw(load(program()), {"b": 1, "i": 64, "j": 64, "e": 8, "f": 4})
    inputs["Q"] = inputs["Q"] * scale
    guess = exact_roots(program(), inputs)
    noise = torch.randn(guess.shape, generator=torch.Generator().manual_seed(1))
    check(program(), inputs, guess + 2e-5 * noise, rounds=1)


def test_what_may_be_rounded() -> None:
    """A search and the extremum that only it reads; nothing that has other readers, and nothing without products."""

    def marks(text: str) -> list[tuple[bool, bool]]:
        return [(k.rough, k.again is not None) for k in kernels(plan_forward(load(text)))]

    assert marks(program()) == [(True, False), (True, True), (False, False)]
    shown = marks(program(outputs="O[b,i,f], M[b,i]"))
    assert not any(rough or again for rough, again in shown)
    no_products = program().replace("Q[i,e] * K[j,e]", "Q[i,0] - K[j,0]")
    assert not any(rough or again for rough, again in marks(no_products))


def test_the_second_stage_reads_the_guess_and_inputs_alone() -> None:
    (stage,) = (k.again for k in kernels(plan_forward(load(program()))) if k.again)
    assert isinstance(stage, TileProgram)
    assert set(stage.reads) == {"Q", "K", "t"}
    assert stage.writes == ("t",)
