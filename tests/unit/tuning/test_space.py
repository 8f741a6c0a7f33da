"""Search spaces by arithmetic: no torch, no Triton, no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from attndsl import driver
from attndsl.codegen.kernel_facts import kernel_facts
from attndsl.schedule.tile import TileProgram
from attndsl.sizes import USUAL, sizes
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.machine import MACHINES
from attndsl.tuning.space import Space, default, explore

ROOT = Path(__file__).parents[3]
H100, A100 = MACHINES["H100"], MACHINES["A100"]


@cache
def kernels(
    name: str, **given: int
) -> tuple[tuple[Kernel, dict[str, int], dict[str, object]], ...]:
    program = driver.load(ROOT / "examples" / f"{name}.attn")
    found = sizes(program.shifted, USUAL, given)
    return tuple(
        (
            Kernel(step.name, plan.name, plan, step, kernel_facts(plan, step)),
            program.extents(found),
            {"start": 0, **found.params},
        )
        for plan in program.plans
        for step in plan.steps
        if isinstance(step, TileProgram)
    )


def space(name: str, which: int = 0, machine=H100, itemsize: int = 2, **given: int) -> Space:
    kernel, extents, params = kernels(name, **given)[which]
    return explore(kernel, extents, params, itemsize, machine)


def test_every_configuration_is_tried_or_refused_with_a_figure() -> None:
    found = space("causal")
    configs = [c.config for c in found.candidates] + [r.config for r in found.rejected]
    assert len(configs) == 300
    assert len({tuple(c.items()) for c in configs}) == 300
    assert all(any(x.isdigit() for x in r.why) for r in found.rejected)


def test_shared_memory_registers_and_warps_prune() -> None:
    because = {
        tuple(r.config[k] for k in ("BLOCK_I", "BLOCK_J", "num_warps", "num_stages")): r.why
        for r in space("causal").rejected
    }
    # 4 stages of 256 keys and values of 256 bytes each, and 64 queries
    assert because[64, 256, 4, 4] == "540672 bytes of shared memory, and a block has 232448"
    assert "registers a thread, and 4 warps have 255 each" in because[256, 64, 4, 1]
    assert because[16, 16, 16, 1] == "256 points in a tile, and 16 warps multiply 2048 at a time"


def test_a_smaller_gpu_has_fewer_candidates() -> None:
    assert len(space("causal", machine=A100).candidates) < len(space("causal").candidates)


def test_tiles_are_no_larger_than_what_they_walk_over() -> None:
    found = space("causal", i=100, j=100)
    assert max(c.config["BLOCK_I"] for c in found.candidates) <= 128
    whys = {r.why for r in found.rejected if r.config["BLOCK_I"] == 256}
    assert "256 points of i in a tile, and there are 128 at most" in whys


def test_the_order_is_by_expected_time() -> None:
    seconds = [c.seconds for c in space("causal").candidates]
    assert seconds == sorted(seconds)
    assert 1e-4 < seconds[0] < 1e-2  # of a layer with 32 heads, 4096 positions


def test_what_runs_without_tuning_is_tried_first() -> None:
    kernel, extents, _ = kernels("causal")[0]
    first = default(kernel, extents, 2, H100)
    configs = space("causal").configs(first)
    assert configs[0] == first
    assert configs.count(first) == 1
    assert len(configs) == len(space("causal").candidates)


def test_coarse_tiles_are_expected_to_waste_more_of_a_window() -> None:
    def seconds(name: str, rows: int, **given: int) -> float:
        return next(
            c.seconds
            for c in space(name, **given).candidates
            if (c.config["BLOCK_I"], c.config["BLOCK_J"]) == (rows, 64)
            and c.config["num_warps"] == rows // 16
        )

    wasted = seconds("window", 128, w=512) / seconds("window", 64, w=512)
    assert wasted > 1.1 * seconds("full", 128) / seconds("full", 64)


def test_kernels_without_a_stream_have_one_stage() -> None:
    unswept = [
        k for k in range(len(kernels("alibi"))) if not kernels("alibi")[k][0].facts["stream"]
    ]
    assert unswept
    for which in unswept:
        found = space("alibi", which)
        assert found.candidates
        assert {c.config["num_stages"] for c in found.candidates} == {1}


EXAMPLES = sorted(p.stem for p in (ROOT / "examples").glob("*.attn"))


def scheduled(name: str) -> bool:
    from attndsl.diagnostics import DiagnosticError

    try:
        kernels(name)
    except DiagnosticError:
        return False
    return True


def check(name: str) -> None:
    for which, (kernel, extents, _) in enumerate(kernels(name)):
        found = space(name, which)
        assert found.candidates, kernel.name
        assert set(default(kernel, extents, 2, H100)) == set(found.candidates[0].config)


@pytest.mark.parametrize("name", ["alibi", "documents", "mla", "gla", "bias_toeplitz"])
def test_every_kernel_has_candidates(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kernel_of_every_example_has_candidates(name: str) -> None:
    if not scheduled(name):
        pytest.skip("refused by every schedule")
    check(name)


def test_exploring_needs_no_torch() -> None:
    run = """
import sys
from tests.unit.tuning.test_space import space
assert space("causal").candidates
assert not {"torch", "triton"} & set(sys.modules), "torch or triton"
"""
    subprocess.run([sys.executable, "-c", run], check=True, cwd=ROOT)


def measured_choices(card: str, programs: list[str]):
    """What the model would choose of the committed trials, and how far that is from the best."""
    from benchmarks.model import guesses

    path = ROOT / "benchmarks" / "results" / "tuning" / f"examples-{card}.json"
    return list(guesses(json.loads(path.read_text()), programs))


def test_the_model_s_first_choice_is_near_the_best_on_an_h200() -> None:
    """Of kernels with many values a pair, dense biases; no accumulators."""
    from benchmarks.model import NEAR

    made = measured_choices("h200", ["bias_dense", "entmax", "softcap"])
    assert {g.kernel for g in made} >= {"bias_dense_backward_dK_dV", "entmax_M"}
    assert {g.kernel: g.over for g in made if g.over > NEAR} == {}


def test_what_the_model_chooses_is_noted_in_front_of_the_rows() -> None:
    from benchmarks.model import Guess, noted

    text = '{"machine": {"card": "H200"}, "shape": {"h": 16},\n "rows": [\n  {"a": [1]}\n]}\n'
    once = noted(text, [Guess("k", 3, (64, 4), (128, 8), 1.25)])
    assert json.loads(once)["model"] == [["k", 3, [64, 4], 1.25]]
    twice = noted(once, [Guess("k", 4, (64, 4), (64, 4), 1.0)])
    assert json.loads(twice)["model"] == [["k", 4, [64, 4], 1.0]]
    assert json.loads(twice)["rows"] == json.loads(text)["rows"]
    assert len(twice.splitlines()) == len(once.splitlines())


def test_the_model_s_first_choice_is_near_the_best_of_what_was_measured() -> None:
    """On an H100, of kernels of several kinds, forward and backward; `benchmarks/model.py` does it for all."""
    from benchmarks.model import NEAR

    programs = ["block_window", "causal", "fox", "linear_relu", "softcap", "stick_breaking"]
    made = measured_choices("h100", programs)
    assert {g.kernel for g in made} >= {
        *("causal", "causal_backward_D_dQ", "causal_backward_dK_dV"),
        *("block_window_backward_dK_dV", "softcap", "stick_breaking"),
    }
    assert sum(g.trials for g in made) > 100
    assert {g.kernel: g.over for g in made if g.over > NEAR} == {}


def test_the_model_knows_the_measured_list() -> None:
    """The committed times of 300 configurations: what is ruled out is slow, and the first choices are fast."""
    path = ROOT / "benchmarks" / "results" / "tuning" / "causal-forward-h200.json"
    measured = {
        tuple(r["config"].items()): r.get("ms", float("inf"))
        for r in json.loads(path.read_text())["rows"]
    }
    assert len(measured) == 300
    best = min(measured.values())
    found = space("causal", machine=MACHINES["H200"], h=16)
    order = [measured[tuple(c.config.items())] for c in found.candidates]
    assert order[0] <= 1.15 * best
    assert min(order[:5]) <= 1.01 * best
    assert min(measured[tuple(r.config.items())] for r in found.rejected) > 1.3 * best
    first = default(kernels("causal", h=16)[0][0], kernels("causal", h=16)[0][1], 2, H100)
    assert measured[tuple(first.items())] <= 1.15 * best
