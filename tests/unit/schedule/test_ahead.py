"""What chunks compute before their state is known: which statements leave the walk, and that both halves agree."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from attndsl.analysis.stabilise import stabilised
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Binary, Cascade, Const, Select
from attndsl.cascade.unroll import unrolled
from attndsl.codegen.aot import kernel_table
from attndsl.codegen.triton import render_module
from attndsl.frontend import load_cascades
from attndsl.schedule import plan_forward
from attndsl.schedule import tile as t
from attndsl.schedule.ahead import ahead
from attndsl.schedule.carried import Split, updated
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import Axis
from attndsl.source import Source
from tests.unit.schedule.harness import draw, kernels, load, run

DELTA = """attention delta(Q[b,t,e], K[b,t,e], V[b,t,f], beta[b,t], g[b,t]) -> O[b,t,f] {
  batch b
  H[t,e,f] = exp(-g[t]**2) * (H[t-1,e,f] - beta[t] * K[t,e] * (K[t,c] * H[t-1,c,f])) + K[t,e] * V[t,f]   init 0
  O[t,f] = Q[t,e] * H[t,e,f]
}"""
LINEAR = """attention linear(Q[b,t,e], K[b,t,e], V[b,t,f]) -> O[b,t,f] {
  batch b
  H[t,e,f] = H[t-1,e,f] + K[t,e] * V[t,f]   init 0
  O[t,f] = Q[t,e] * H[t,e,f]
}"""
# What gradients of queries are of: features that are kept have gates, and those that are summed have none.
VECTORS = """attention vectors(W[b,i,f], K[b,j,e], V[b,j,f], loga[b,j,e]) -> X[b,i,e] {
  batch b
  assume loga <= 0
  C[j,e] = sum[l : l <= j](loga[l,e])
  A[i,j] = W[i,f] * V[j,f]   where j <= i
  X[i,e] = A[i,j] * K[j,e] * exp(C[i,e] - C[j,e])
}"""


def vectors() -> Cascade:
    """By chunks: positions of rows count from the first of a call."""
    (cascade,) = load_cascades(Source("test.attn", VECTORS))
    return stabilised(cascade).cascade


def body(p: t.TileProgram) -> tuple[t.Stmt, ...]:
    return p.prologue if p.sweep is None else p.sweep.ranges[0].body


def test_systems_are_solved_for_all_chunks_at_once() -> None:
    plan = plan_forward(unrolled(load(DELTA)))
    (first,) = [p for p in kernels(plan) if p.follows is not None]
    (walk,) = [p for p in kernels(plan) if p.name == first.follows]
    assert first.sweep is None
    assert sum(isinstance(s, t.Solve) for s in body(first)) == 2
    assert not any(isinstance(s, t.Solve) for s in body(walk))
    # What the walk multiplies by its state, and what it leaves in it.
    products = [s for s in body(walk) if isinstance(s, t.Dot | t.AccDot)]
    states = {s.name for s in walk.prologue if isinstance(s, t.Declare)}
    assert all(states & (used(s) | updated(s)) for s in products if s.name.startswith("U"))
    assert {*first.writes} <= {*walk.reads}
    assert all(plan.buffer(w).kind is t.BufferKind.TEMP for w in first.writes)


def test_nothing_is_split_that_memory_would_make_slower() -> None:
    plan = plan_forward(unrolled(load(LINEAR)))
    assert all(p.follows is None for p in kernels(plan))


def test_rows_of_another_length_are_left_alone() -> None:
    plan = plan_forward(unrolled(load(DELTA)))
    (walk,) = [p for p in kernels(plan) if any(p.name == x.follows for x in kernels(plan))]
    axes = tuple(
        dataclasses.replace(a, rank="elsewhere") if a.role is t.Role.PAIR else a for a in walk.axes
    )
    assert ahead(dataclasses.replace(walk, axes=axes), plan.buffers) is None


@pytest.mark.parametrize("length", [1, 5, 16, 17, 40])
@pytest.mark.parametrize("chunk", [4, 16])
def test_both_halves_agree_with_the_interpreter(length: int, chunk: int) -> None:
    c = load(DELTA)
    x = draw(c, {"b": 2, "t": length, "e": 4, "f": 6})
    x["K"] = torch.nn.functional.normalize(x["K"], dim=-1)
    made = run(plan_forward(unrolled(c)), c, x, tiles={"t": chunk})
    torch.testing.assert_close(made["O"], interpret(c, x)["O"], rtol=1e-10, atol=1e-10)


def test_a_kernel_ahead_takes_the_chunks_of_its_walk() -> None:
    plan = plan_forward(unrolled(load(DELTA)))
    table = kernel_table(render_module("delta", plan, None, ""))
    (first,) = [k for k, v in table.items() if "follows" in v["facts"]]
    assert table[first]["facts"]["follows"] in table


def test_loops_over_features_leave_the_walk_and_programs_share_its_columns() -> None:
    plan = plan_forward(vectors())
    (first,) = [p for p in kernels(plan) if p.follows is not None]
    (walk,) = [p for p in kernels(plan) if p.name == first.follows]
    assert any(isinstance(s, t.For) for s in body(first))
    assert not any(isinstance(s, t.For) for s in body(walk))
    assert not walk.of(t.Role.POINT)
    # No sum over `e` is left, so its columns are apart; the kernel ahead asks how far all of them reach.
    assert [a.rank for a in walk.of(t.Role.TILE)] == ["e"]
    assert [a.rank for a in first.of(t.Role.TILE)] == ["i"]


@pytest.mark.parametrize("scale", [0.1, 1, 60])
@pytest.mark.parametrize("length", [1, 16, 17, 40])
@pytest.mark.parametrize("columns", [4, 8])
def test_columns_apart_agree_with_the_interpreter(scale: float, length: int, columns: int) -> None:
    c = vectors()
    x = draw(c, {"b": 2, "i": length, "j": length, "e": 6, "f": 5})
    x["loga"] = -x["loga"].abs() * scale
    made = run(plan_forward(c), c, x, tiles={"i": 16, "e": columns})
    torch.testing.assert_close(made["X"], interpret(c, x)["X"], rtol=1e-10, atol=1e-10)


def test_a_loop_that_does_more_than_add_stays() -> None:
    e = Axis("e", "e", t.Role.FULL)
    point = Axis("e_pt", "e", t.Role.POINT)
    program = t.TileProgram("p", (e, point), (), (), (), (), (), None, ())
    split = Split(program, set())
    x, y = t.Val("x"), t.Val("y")
    adds = t.Assign("x", Binary("+", x, y))
    twice = t.Assign("x", Binary("+", x, x))
    chosen = t.Assign("x", Select(Const(True), Binary("+", x, y), x))
    other = t.Assign("x", Select(Const(True), y, x))
    split.moving = {"x"}
    for s, known in ((adds, True), (chosen, True), (twice, False), (other, False)):
        assert split.adds(t.For("e_pt", (s,)), "x") is known
    assert not split.adds(t.For("e_pt", (adds,), "x"), "x")


def test_what_no_loop_adds_to_is_stored_before_the_loop() -> None:
    (first,) = [p for p in kernels(plan_forward(vectors())) if p.follows is not None]
    loop = next(k for k, s in enumerate(first.prologue) if isinstance(s, t.For))
    looped = updated(first.prologue[loop])
    early = [k for k, s in enumerate(first.prologue) if isinstance(s, t.Store)]
    assert early
    assert max(early) < loop
    # The sum that the loop adds to is stored after it; between them the stores are all there are.
    (late,) = first.epilogue
    assert isinstance(late, t.Store)
    assert late.value in looped
    assert len(early) + 1 == len(first.writes)
