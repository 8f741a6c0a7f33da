"""Costs of kernels against closed forms, and sizes to try programs with."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl import driver
from attndsl.callerrors import CallError
from attndsl.lengths import plan_costs
from attndsl.schedule.cost import GPUS, Again, Cost, again, bound, costs
from attndsl.sizes import TRIAL, USUAL, sizes

EXAMPLES = Path(__file__).parents[2] / "examples"
B, H, N, D = 4, 32, 4096, 128  # of `USUAL`


def forward(name: str, **given: int) -> Cost:
    program = driver.load(EXAMPLES / f"{name}.attn", backward=False)
    usual = sizes(program.shifted, USUAL, given)
    assert program.forward is not None
    (cost,) = costs(program.forward, program.extents(usual), usual.params, 2)
    return cost


def test_full_attention() -> None:
    cost = forward("full")
    assert cost.flops == 4 * B * H * N * N * D  # two products
    assert cost.exps >= B * H * N * N  # a weight for each pair
    assert cost.moved == 4 * B * H * N * D * 2  # Q, K, V and O, once
    assert cost.visited == 1.0


def test_causal_attention_visits_the_lower_triangle() -> None:
    cost = forward("causal")
    assert cost.visited == pytest.approx(0.5, abs=0.01)
    assert cost.flops == pytest.approx(forward("full").flops / 2, rel=0.02)


def test_a_window_visits_a_band() -> None:
    visited = forward("window", w=256).visited
    assert visited == pytest.approx(256 / N, abs=64 / N)


def test_key_heads_are_read_once_for_their_group() -> None:
    cost = forward("gqa", G=8)
    assert cost.moved == (2 * B * H + 2 * B * H // 8) * N * D * 2


def test_ranges_that_data_decides_are_not_guessed() -> None:
    assert forward("documents").visited is None
    assert forward("documents").flops == forward("full").flops


def test_the_backward_pass_recomputes_the_scores() -> None:
    program = driver.load(EXAMPLES / "full.attn")
    usual = sizes(program.shifted, USUAL)
    assert program.backward is not None
    found = costs(program.backward, program.extents(usual), usual.params, 2)
    pairs = 2 * B * H * N * N * D
    # S, dP and dQ; S, dP, dK and dV
    assert sorted(round(c.flops / pairs) for c in found if c.flops) == [3, 4]


def by_chunks(name: str, length: int) -> list[Cost]:
    program = driver.load(EXAMPLES / f"{name}.attn", backward=False)
    usual = sizes(program.shifted, USUAL)
    extents = {r: length if n == N else n for r, n in program.extents(usual).items()}
    assert program.forward is not None
    return plan_costs(program.forward, extents, usual.params, 2)


def test_chunks_cost_what_their_products_take() -> None:
    (cost,) = by_chunks("retnet", N)
    c, columns = 64, 64  # a chunk, and the columns of a program: each makes the chunk's scores
    a_point = 2 * D * D + (D // columns) * 2 * c * D + 2 * c * D + 2 * D * D
    assert cost.flops == B * H * N * a_point
    assert cost.moved == 4 * B * H * N * D * 2 + H * 2


@pytest.mark.parametrize("name", ["linear", "gla", "gated_delta", "lion_decay", "hgrn2"])
def test_chunks_cost_in_proportion_to_the_length(name: str) -> None:
    once, twice = by_chunks(name, N), by_chunks(name, 2 * N)
    for a, b in zip(once, twice, strict=True):
        assert b.flops == 2 * a.flops
        assert b.exps == pytest.approx(2 * a.exps, rel=0.01)
        assert b.moved == pytest.approx(2 * a.moved, rel=0.01)


def test_lengths_from_which_chunks_pay() -> None:
    facts = driver.explain_facts(EXAMPLES / "linear.attn", gpu="H100")["lengths"]
    # Where c (d + f) + 2 d f meets n (d + f) / 2, and the scores are made for each half of the columns; the
    # normaliser's vector adds its products.
    assert facts["chunks_from"]["operations"] == 400
    assert facts["by_pairs"]["flops"] > 9 * facts["by_chunks"]["flops"]
    assert facts["one_token"]["state_bytes"] == 4 * B * H * (D * D + D)
    assert "lengths" not in driver.explain_facts(EXAMPLES / "causal.attn")


def test_a_feature_map_of_keys_is_counted_once_for_each_tile_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "window.attn"
    path.write_text(
        "attention p(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] { batch b, h\n"
        "O[i,f] = sum[j](sum[e](Q[i,e] * exp(K[j,e])) * V[j,f]) where i < 7 }"
    )
    program = driver.load(path, backward=False)
    usual = sizes(program.shifted, USUAL)
    assert program.forward is not None
    found = costs(program.forward, program.extents(usual), usual.params, 2)
    assert sum(c.exps for c in found) == B * H * (N // 64) * N * D


def test_explain_tells_of_chunks_and_lengths() -> None:
    text = driver.explain(EXAMPLES / "linear.attn")
    assert "chunks of i, one after the other" in text
    assert "fewer operations from 400 positions on" in text
    assert "of the stream" not in text  # they visit what they visit


@pytest.mark.parametrize(
    ("cost", "what"),
    [
        (Cost("k", 10**15, 0, 1, 1.0), "products"),
        (Cost("k", 1, 10**12, 1, 1.0), "exponentials"),
        (Cost("k", 1, 1, 10**12, 1.0), "memory"),
    ],
)
def test_the_bound_is_the_slowest_part(cost: Cost, what: str) -> None:
    for gpu in GPUS.values():
        seconds, found = bound(cost, gpu, 2)
        assert found == what
        assert seconds >= cost.flops / gpu.flops[2]
        assert seconds >= cost.moved / gpu.bandwidth


@pytest.mark.parametrize("name", sorted(p.stem for p in EXAMPLES.glob("*.attn")))
@pytest.mark.parametrize("scale", [TRIAL, USUAL], ids=["trial", "usual"])
def test_every_example_has_sizes(name: str, scale: object) -> None:
    source = driver.read_source(EXAMPLES / f"{name}.attn")
    cascade = driver.lower(source, driver.parse(source), None).cascade
    found = sizes(cascade, scale)  # type: ignore[arg-type]
    assert set(found.shapes) == {t.name for t in cascade.inputs}
    assert all(n > 0 for shape in found.shapes.values() for n in shape)
    assert set(found.params) == {p.name for p in cascade.params}


def test_given_sizes_win_and_are_checked() -> None:
    source = driver.read_source(EXAMPLES / "alibi.attn")
    cascade = driver.lower(source, driver.parse(source), None).cascade
    assert sizes(cascade, TRIAL, {"i": 7, "G": 4}).shapes["Q"] == (1, 4, 7, 32)
    assert sizes(cascade, TRIAL, {"i": 7, "G": 4}).shapes["K"] == (1, 1, 56, 32)
    with pytest.raises(CallError, match="A0503"):
        sizes(cascade, TRIAL, {"h": 3, "G": 2})


def test_scores_that_are_made_again() -> None:
    """Two sweeps make the scores twice; the second time is what it costs, and memory or the chip what it saves."""
    extents = {"b": 1, "h": 2, "i": 256, "j": 256, "e": 64, "f": 64}

    def found(name: str) -> Again | None:
        plan = driver.load(EXAMPLES / f"{name}.attn", backward=False).forward
        assert plan is not None
        return again(plan, extents, {}, 2)

    assert found("causal") is None
    twice = found("column_sums")
    assert twice is not None
    assert twice.times == 2
    # Tiles of 64 under a causal mask: 10 of 16 are visited.
    pairs = 2 * 256 * 256 * 10 // 16
    assert twice.flops == 2 * 64 * pairs
    assert (twice.kept, twice.moved) == (4 * pairs, 8 * pairs)
    searched = found("entmax15")
    assert searched is not None
    assert searched.times == 1 + 16 + 1
    assert searched.flops == 17 * 2 * 64 * pairs


def test_a_root_costs_its_rounds_and_one_of_them_is_told_apart() -> None:
    program = driver.load(EXAMPLES / "entmax15.attn", backward=False)
    usual = sizes(program.shifted, USUAL, {})
    assert program.forward is not None
    highest, root, _ = costs(program.forward, program.extents(usual), usual.params, 2)
    assert (highest.rounds, root.rounds) == (1, 16)
    assert root.flops == 16 * highest.flops
    assert root.of_one_round().flops == highest.flops
    assert bound(root.of_one_round(), GPUS["H200"], 2)[0] < bound(root, GPUS["H200"], 2)[0] / 15
