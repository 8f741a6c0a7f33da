"""Which kernels a program becomes, and programs whose kernels were once wrong."""

from __future__ import annotations

import pytest
import torch

from attndsl.cascade.autodiff import differentiate
from attndsl.cascade.interpreter import interpret
from attndsl.runtime.stages import plan_passes
from attndsl.schedule import plan_backward, plan_forward
from attndsl.schedule import tile as t
from attndsl.schedule.tile import BufferKind, HostSum, Role
from tests.unit.schedule.harness import draw, forward, kernels, load, run

HEAD = "attention t(Q[b,i,e], K[b,j,e], V[b,j,f], v[b,j]) -> {} {{\n  batch b\n  "


def program(outputs: str, *lines: str) -> str:
    return HEAD.format(outputs) + "\n  ".join(lines) + "\n}"


SCORE = "S[i,j] = Q[i,e] * K[j,e]   where j <= i"
FLASH = program("O[b,i,f]", SCORE, "O[i,f] = softmax[j](S[i,j]) * V[j,f]")
TWO = program(
    "O[b,i,f]",
    SCORE,
    "N[i] = sum[j](S[i,j]**2)",
    "O[i,f] = sum[j](exp(S[i,j] / (1 + N[i])) * V[j,f])",
)
COLUMNS = program(
    "O[b,i,f], C[b,j]",
    SCORE,
    "P[i,j] = softmax[j](S[i,j])",
    "O[i,f] = P[i,j] * V[j,f]",
    "C[j] = sum[i](P[i,j])",
)
EXTENTS = {"b": 2, "i": 11, "j": 11, "e": 3, "f": 3, "d": 3}


def states(p: t.TileProgram) -> set[str]:
    return {s.name for s in p.prologue if isinstance(s, t.Declare)}


def test_softmax_attention_is_one_sweep() -> None:
    """Maximum, sum and product in one walk over the keys, corrected on the way; nothing between kernels."""
    plan = forward(FLASH)
    (kernel,) = kernels(plan)
    assert len(states(kernel)) == 3
    assert kernel.sweep is not None
    assert kernel.order == "reverse"
    assert [r.masked for r in kernel.sweep.ranges] == [False, True]
    (product,) = {s for r in kernel.sweep.ranges for s in r.body if isinstance(s, t.AccDot)}
    assert product.scale is not None
    assert not [b for b in plan.buffers if b.kind is BufferKind.TEMP]


def test_what_does_not_scale_is_known_before() -> None:
    """`exp(S / (1 + N))` has no correction for a change of `N`: a kernel for `N`, then one for `O`."""
    plan = forward(TWO)
    first, second = kernels(plan)
    assert first.writes == ("N",)
    assert second.writes == ("O",)
    assert "N" in second.reads
    assert plan.notes


def test_sums_of_columns_have_a_kernel_by_columns() -> None:
    """It walks the queries, and reads what the kernel by rows left: one number a row."""
    plan = forward(COLUMNS)
    by_columns = next(p for p in kernels(plan) if p.writes == ("C",))
    assert by_columns.of(Role.TILE)[0].rank == "j"
    assert by_columns.of(Role.STREAM)[0].rank == "i"
    assert [p.writes for p in kernels(plan)].index(("C",)) > 0
    assert all(len(b.ranks) == 2 for b in plan.buffers if b.kind is BufferKind.TEMP)


def test_sums_over_everything_are_rows_first() -> None:
    plan = forward(program("G[b]", SCORE, "G = sum[i,j](S[i,j] * v[j])"))
    (total,) = [s for s in plan.steps if isinstance(s, HostSum)]
    assert total.out == "G"
    assert plan.buffer(total.src).ranks == ("b", "i")


def test_the_backward_pass_is_a_kernel_by_rows_and_one_by_columns() -> None:
    """FlashAttention-2's: both recompute the scores; between them lies one number a row."""
    g = differentiate(load(FLASH))
    plan = plan_backward(g.forward, g.backward, g.gradients)
    rows, columns = kernels(plan)
    assert {"D", "dQ"} <= set(rows.writes)
    assert {"dK", "dV"} <= set(columns.writes)
    assert (rows.of(Role.STREAM)[0].rank, columns.of(Role.STREAM)[0].rank) == ("j", "i")
    assert "D" in columns.reads
    assert not [b for b in plan.buffers if {"i", "j"} <= set(b.ranks)]


def test_rows_that_another_gradient_sums_are_not_summed_again() -> None:
    """`du`, of a bias of queries, is the sum of what `dQ` is made of: one product of the two, not one for each."""
    biased = FLASH.replace("v[b,j]", "u[b,e]").replace("Q[i,e] *", "(Q[i,e] + u[e]) *")
    g = differentiate(load(biased))
    plan = plan_backward(g.forward, g.backward, g.gradients)
    (total,) = [s for s in plan.steps if isinstance(s, HostSum)]
    rows = kernels(plan)[0]
    assert total.src in rows.writes
    assert rows.sweep is not None
    for r in rows.sweep.ranges:
        assert len([s for s in r.body if isinstance(s, t.AccDot)]) == 1


def test_nothing_stands_in_the_sweep_that_the_stream_does_not_move() -> None:
    (kernel,) = kernels(forward(FLASH))
    assert kernel.sweep is not None
    swept = {s.tensor for r in kernel.sweep.ranges for s in r.body if isinstance(s, t.Load)}
    assert swept == {"K", "V"}


def test_planning_is_deterministic() -> None:
    assert repr(forward(COLUMNS)) == repr(forward(COLUMNS))


WRONG_ONCE = {
    # The offset of `i - j` was carried by the stream, and two kept sequences have none.
    "two kept sequences and a slope": program(
        "O[b,i,j]",
        "S[i,j] = Q[i,e] * K[j,e] - 0.5 * (i - j)   where j <= i",
        "O[i,j] = tanh(S[i,j])",
    ),
    # `Z` is in memory and moves no more with `M`, though `T` as a whole does not change with `M`.
    "a normaliser in memory beside a running maximum": program(
        "O[b,i,f]",
        SCORE.replace("j <= i", "i <= j"),
        "T[i,j] = sum[e](softmax[j](S[i,j]) * K[j,e])",
        "O[i,f] = sum[j](T[i,j] * V[j,f])",
    ),
    # Rows that see nothing: `P / Z` is 0 / 0, and `1 / Z` is infinite.
    "a quotient of empty sums in a product": program(
        "O[b,i,f]",
        SCORE.replace("j <= i", "i < j"),
        "T[i,j] = sum[e](softmax[j](S[i,j]) * K[j,e])",
        "O[i,f] = sum[j](T[i,j] * V[j,f])",
    ),
    "two filters on one weight, inside a sum over features": program(
        "O[b,i,f], R[b,i,f]",
        SCORE,
        "P[i,j] = exp(S[i,j] - M[i])",
        "T[i,j] = sum[e](P[i,j] * tanh(K[j,e]))",
        "O[i,f] = sum[j : j > 2](T[i,j] * V[j,f])",
        "R[i,f] = sum[j : j < 5](T[i,j] * V[j,f])",
    ).replace("P[i,j] = exp", "M[i] = max[j](S[i,j])\n  P[i,j] = exp"),
}


@pytest.mark.parametrize("name", WRONG_ONCE)
def test_kernels_that_were_wrong(name: str) -> None:
    cascade = load(WRONG_ONCE[name])
    inputs = draw(cascade, EXTENTS)
    got = run(plan_forward(cascade), cascade, inputs, tiles={"i": 4, "j": 4})
    for output, x in interpret(cascade, inputs, start=0).items():
        torch.testing.assert_close(got[output], x, rtol=1e-10, atol=1e-10)


def test_factors_of_rows_go_to_the_weights_and_leave_loaded_tiles_alone() -> None:
    """A tile that is multiplied as it lies in memory takes no registers: `dS[i,j] / tau[i]` by `Q[i,e]`."""
    cascade = load(
        "attention t(Q[b,i,e], K[b,j,e], V[b,j,f], tau[b,i]) -> O[b,i,f] {\n  batch b\n  assume tau > 0\n"
        "  S[i,j] = Q[i,e] * K[j,e] / tau[i]   where j <= i\n  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n}"
    )
    backward = plan_passes(cascade, ("Q", "K", "V")).backward
    assert backward is not None
    (kernel,) = (k for k in kernels(backward) if "dK" in k.writes)
    assert kernel.sweep is not None
    for r in kernel.sweep.ranges:
        loaded = {s.name for s in r.body if isinstance(s, t.Load)}
        products = [s for s in r.body if isinstance(s, t.AccDot)]
        assert len(products) == 2
        assert all(p.right in loaded for p in products)
