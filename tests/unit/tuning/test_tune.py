"""Tuning a program, from its text to entries; on a device that pretends, and once by Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attndsl.codegen.configs import choose, choose_chunk
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.sizes import TRIAL, sizes
from attndsl.tuning.device import Config, Failure, Processes
from attndsl.tuning.keys import bucket, key_of, power
from attndsl.tuning.machine import MACHINES
from attndsl.tuning.problem import hash_of, pose
from attndsl.tuning.space import default
from attndsl.tuning.tune import Found, chosen, entries, entry_for, posed, sizes_at, tune
from tests.unit.tuning.pretending import Pretended

ROOT = Path(__file__).parents[3]
H100 = MACHINES["H100"]


def cascade(name: str = "causal"):
    return load_cascades(read_source(ROOT / "examples" / f"{name}.attn"))[0]


def run(
    device: Pretended, name: str = "causal", *, specialise: bool = False, **given: int
) -> list[Found]:
    c = cascade(name)
    return tune(
        c,
        sizes_at(c, given),
        "bf16",
        H100,
        seconds=60,
        triton="3.6.0",
        workers=2,
        open_device=lambda problems, **more: device,
        specialise=specialise,
    )


def by_rows(config):
    return 1.0 + abs(config.get("BLOCK_I", 0) - 128) / 100 + config["num_stages"] / 50


def test_every_kernel_of_both_passes_gets_an_entry() -> None:
    found = run(Pretended(by_rows))
    assert [f.kernel.name for f in found] == [
        "causal",
        "causal_backward_D_dQ",
        "causal_backward_dK_dV",
    ]
    for f in found:
        assert f.entry is not None
        assert f.entry.config["BLOCK_I"] == 128
        assert f.entry.config["num_stages"] == 1
        assert f.entry.ms <= f.entry.default_ms
        assert f.entry.key.program == hash_of(cascade())
        assert f.entry.key.gpu == "H100"
        assert f.entry.more["tried"] == len(f.outcome.trials)


def test_kernels_whose_warps_specialise_are_candidates_where_asked_for() -> None:
    """They have entries of their own, found beside the portable kernels'."""

    def time(config: Config) -> float:
        return 0.5 + config["STAGES"] / 10 if "STAGES" in config else by_rows(config)

    found = {f.kernel.name: f for f in run(Pretended(time), specialise=True)}
    assert list(found) == [
        *("causal", "causal_hopper"),
        *("causal_backward_D_dQ", "causal_backward_dK_dV"),
        *("causal_backward_D_dQ_hopper", "causal_backward_dK_dV_hopper"),
    ]
    fast, slow = found["causal_hopper"], found["causal"]
    assert fast.entry is not None
    assert slow.entry is not None
    assert fast.entry.config["GROUPS"] == 2
    assert fast.entry.config["STAGES"] == 2
    assert fast.entry.ms < slow.entry.ms
    assert fast.entry.key.kernel.startswith("causal_hopper-")
    assert fast.entry.key.bucket == slow.entry.key.bucket


@pytest.mark.parametrize("machine", ["A100", "H100"])
def test_kernels_whose_warps_specialise_need_a_hopper_card_and_16_bits(machine: str) -> None:
    problems = posed(
        cascade(),
        sizes_at(cascade(), {}),
        "fp32" if machine == "H100" else "bf16",
        MACHINES[machine],
        (),
        specialise=MACHINES[machine].capability == 90,
    )
    assert [k.name for p in problems for k in p.every] == ["causal"]


def test_as_many_compile_at_once_as_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of 64 processors of which 16 are ours, 64 compilers would take 4 times as long to start."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    opened: list[int] = []

    def device(problems: object, *, capability: int, workers: int) -> Pretended:
        opened.append(workers)
        return Pretended(by_rows)

    c = cascade()
    tune(c, sizes_at(c, {}), "bf16", H100, seconds=60, open_device=device, most=2)
    assert opened == [16]


def test_where_a_state_is_carried_the_module_s_own_choice_is_tried_first() -> None:
    """It has a rule of its own: a search that took another would compare with what never runs."""
    told_apart = 0
    for name in ("deltanet", "gla", "rwkv6"):
        c = cascade(name)
        (problem,) = posed(c, sizes_at(c, {}), "bf16", H100, ())
        for kernel in problem.kernels:
            if "chunks" not in kernel.facts:
                continue
            named = {r: problem.extents[r] for r in kernel.facts["pads"].values()}
            wanted = choose_chunk(kernel.facts, named, 2, H100.shared_block)
            told_apart += wanted != choose(kernel.facts, named, 2, H100.shared_block)
            assert default(kernel, problem.extents, 2, H100) == wanted
    assert told_apart


def test_the_others_are_drawn_from_all_over_the_space() -> None:
    configs = [{"BLOCK_I": n} for n in range(1, 101)]
    rows = [c["BLOCK_I"] for c in chosen(configs, 4, 8)]
    assert rows[:4] == [1, 2, 3, 4]
    assert len(set(rows)) == 12
    assert min(rows[4:]) < 20
    assert max(rows) > 90
    assert chosen(configs[:6], 4, 8) == configs[:6]
    assert chosen(configs, None, 8) == configs


def test_a_gain_within_the_noise_keeps_the_default() -> None:
    (forward, *_) = run(Pretended(lambda c: 1.0 - c["num_stages"] / 1000, jitter=0.05))
    first = forward.outcome.first
    assert first is not None
    assert forward.entry is not None
    assert dict(forward.entry.config) == dict(first.config)


def test_a_kernel_with_no_right_candidate_gets_none() -> None:
    def faults(config):
        return ("wrong", "all of them")

    found = run(Pretended(by_rows, faults))
    assert entries(found) == []


def test_nothing_is_kept_that_was_not_compared_with_the_default() -> None:
    (forward, *_) = run(Pretended(by_rows))
    assert forward.entry is not None
    outcome = forward.outcome
    untried = replace(outcome, trials=[t for t in outcome.trials if t is not outcome.first])
    (problem, *_) = posed(cascade(), sizes_at(cascade(), {}), "bf16", H100, ())
    assert entry_for(forward.kernel, problem, "p", H100, outcome, "") is not None
    assert entry_for(forward.kernel, problem, "p", H100, untried, "") is None


def test_nothing_is_kept_where_the_default_s_time_was_disturbed() -> None:
    """What else ran on the card may have been there for the default alone."""
    (calm, *_) = run(Pretended(by_rows))

    def busy(config: Config) -> tuple[str, str] | None:
        return ("disturbed", "0.75 to 7.80 ms") if config == calm.outcome.untuned else None

    (forward, *_) = run(Pretended(by_rows, busy))
    assert forward.outcome.best is not None
    assert forward.entry is None


@pytest.mark.parametrize(("length", "runs"), [(4096, True), (128, False)])
def test_which_form_of_a_kernel_runs_without_an_entry(length: int, runs: bool) -> None:
    """By the rule of the generated module: long sweeps take the kernel whose warps specialise."""
    found = run(Pretended(lambda c: 1.0), specialise=True, h=16, i=length, j=length)
    forms = {f.kernel.name: f.runs for f in found}
    assert forms["causal_hopper"] is runs
    assert forms["causal"] is not runs


def test_few_queries_tune_the_split_pass() -> None:
    found = run(Pretended(lambda c: 1.0), "gqa", i=1, j=8192)
    names = [f.kernel.name for f in found]
    assert names[:2] == ["gqa_slices", "gqa_merge"]


def test_the_last_queries_stand_at_the_end() -> None:
    assert sizes_at(cascade(), {"i": 16, "j": 64}).params["start"] == 48
    assert sizes_at(cascade(), {"i": 64, "j": 64}).params["start"] == 0
    assert "start" not in sizes_at(cascade("full"), {"i": 16, "j": 64}).params


# --- keys ---


def keys(name: str = "causal", wrt: tuple[str, ...] = (), dtype: str = "bf16", **given: int):
    c = cascade(name)
    p = pose(c, "forward", sizes_at(c, given), dtype, wrt=wrt)
    assert p is not None
    return key_of(p.kernels[0], hash_of(c), p.extents, p.floats(), "H100")


def test_a_key_holds_lengths_by_power_of_two() -> None:
    assert keys(h=16).bucket == "programs=64 i=4096 j=4096"
    assert keys(h=16, i=3000, j=4001) == keys(h=16)
    assert keys(b=8, h=8) == keys(h=16)
    assert keys(h=16, i=2048) != keys(h=16)
    assert keys(h=16, e=64) != keys(h=16)
    assert keys(dtype="fp32") != keys()
    assert [power(n) for n in (0, 1, 2, 3, 4, 5)] == [1, 1, 2, 4, 4, 8]


def test_training_and_inference_share_an_entry_where_tiles_depend_on_the_same() -> None:
    assert keys(wrt=("Q", "K", "V")) == keys()


def test_a_slope_in_another_type_is_no_other_key() -> None:
    c = cascade("alibi")
    p = pose(c, "forward", sizes_at(c, {}), "bf16")
    assert p is not None
    one, two = (
        key_of(
            p.kernels[0],
            "h",
            p.extents,
            {"Q": "bfloat16", "K": "bfloat16", "V": "bfloat16", "slope": slope},
            "H100",
        )
        for slope in ("float32", "bfloat16")
    )
    assert one == two
    assert one.dtypes == "bf16"
    assert bucket(p.kernels[0], p.extents) == "programs=128 i=4096 j=4096"


# --- real processes ---


def test_a_candidate_compiles_without_a_gpu() -> None:
    c = cascade()
    problems = posed(c, sizes_at(c, {"h": 16}), "bf16", H100, ("Q", "K", "V"))
    good = {"BLOCK_I": 64, "BLOCK_J": 64, "num_warps": 4, "num_stages": 2}
    with Processes(problems, capability=90, workers=1) as device:
        made = device.compile("causal", good)
        assert 64 <= made.registers <= 255
        assert made.spills == 0
        assert made.shared > 2 * 64 * 128 * 2
        with pytest.raises(Failure, match=r"BLOCK_J|power of 2|shape") as caught:
            device.compile("causal", {**good, "BLOCK_J": 48})
        assert caught.value.kind == "compiler"


MEASURED = """
from attndsl.tuning.device import Failure, Processes
from tests.unit.tuning.test_tune import small
problems = small()
with Processes(problems, capability=90, workers=1) as device:
    good = {"BLOCK_I": 32, "BLOCK_J": 32, "num_warps": 4, "num_stages": 1}
    for kernel in ("causal", "causal_backward_D_dQ"):
        assert len(device.measure(kernel, good, 3).times) == 3
    # Sabotaged: the same names, another program's arithmetic.
    problems[0].module.write_text(problems[0].module.read_text().replace("tl.exp2(", "1.01 * tl.exp2("))
    device.runner.close()
    try:
        device.measure("causal", good, 3)
    except Failure as failure:
        assert failure.kind == "wrong", failure
        assert "allowed" in failure.why
    else:
        raise AssertionError("wrong results went unnoticed")
"""


def small():
    """Both passes, at a size for the interpreter."""
    from attndsl.runtime.starts import with_start

    c = cascade()
    at = sizes(with_start(c, "int"), TRIAL, {"h": 1, "e": 16, "f": 16})
    return posed(c, at, "fp32", H100, ("Q", "K", "V"))


def test_results_are_compared_before_anything_is_timed(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "ATTNDSL_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", MEASURED], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_new_memory_is_poisoned_without_loading_a_compiler() -> None:
    text = (
        "import sys, torch\n"
        "from attndsl.tuning.measuring import poisoned\n"
        "with poisoned():\n    assert bool(torch.empty(1000).isnan().all())\n"
        "assert not torch.are_deterministic_algorithms_enabled()\n"
        "assert 'torch._inductor' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", text], check=True, cwd=ROOT)
