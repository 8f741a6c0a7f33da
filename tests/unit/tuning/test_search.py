"""Successive halving on a device that pretends."""

from __future__ import annotations

import threading

from attndsl.tuning.device import Measured
from attndsl.tuning.search import HOPELESS, SETTLED, Event, search
from tests.unit.tuning.pretending import Pretended

CONFIGS = [{"BLOCK_I": 16 * k, "num_warps": 4} for k in range(1, 41)]


def bowl(config):
    """Fastest at 320."""
    return 1.0 + abs(config["BLOCK_I"] - 320) / 100


def run(device, configs=CONFIGS, seconds=60.0, **more):
    return search({"k": configs}, device, seconds=seconds, workers=4, **more)["k"]


def test_the_fastest_is_found() -> None:
    device = Pretended(bowl)
    outcome = run(device)
    assert outcome.best is not None
    assert outcome.best.config["BLOCK_I"] == 320
    assert len(outcome.trials) == len(CONFIGS)
    assert outcome.first is not None
    assert outcome.first.config == CONFIGS[0]
    # The best and what would have run without tuning were timed most often.
    assert len(outcome.best.measured.times) > 40
    assert len(outcome.first.measured.times) > 40


def test_hopeless_candidates_are_timed_once() -> None:
    outcome = run(Pretended(bowl), [CONFIGS[19], CONFIGS[20], CONFIGS[0]])
    (slow,) = (t for t in outcome.trials if t.config == CONFIGS[0])
    assert slow.ms > HOPELESS * outcome.trials[0].ms
    assert len(slow.measured.times) == 1


def test_every_kind_of_failure_puts_a_candidate_out_and_no_other() -> None:
    kinds = {
        320: ("wrong", "O: error 1e-1, allowed 1e-3"),
        304: ("fault", "died: killed by SIGABRT"),
        336: ("hang", "no answer in 30 s"),
        288: ("compiler", "died: killed by SIGSEGV"),
        352: ("resources", "out of resource: shared memory"),
    }
    outcome = run(Pretended(bowl, lambda c: kinds.get(c["BLOCK_I"])))
    failed = {t.config["BLOCK_I"]: t.failure.kind for t in outcome.trials if t.failure}
    assert failed == {n: kind for n, (kind, _) in kinds.items()}
    assert outcome.best is not None
    assert outcome.best.config["BLOCK_I"] in (272, 368)
    assert all(t.measured is None for t in outcome.trials if t.failure)


def test_what_turns_wrong_later_is_out() -> None:
    seen = []

    def flaky(config):
        if config["BLOCK_I"] == 320:
            seen.append(1)
            return ("wrong", "now and then") if len(seen) > 3 else None
        return None

    outcome = run(Pretended(bowl, flaky))
    assert outcome.best is not None
    assert outcome.best.config["BLOCK_I"] in (304, 336)


def test_a_later_time_that_was_disturbed_leaves_the_first() -> None:
    seen = []

    def busy(config):
        if config["BLOCK_I"] == 320:
            seen.append(1)
            return ("disturbed", "0.75 to 7.80 ms") if len(seen) > 2 else None  # after compiling
        return None

    outcome = run(Pretended(bowl, busy))
    (trial,) = [t for t in outcome.trials if t.config["BLOCK_I"] == 320]
    assert trial.measured is not None
    assert trial.failure is None
    assert outcome.best is not None


def test_nothing_right_is_no_result() -> None:
    outcome = run(Pretended(bowl, lambda c: ("wrong", "all")))
    assert outcome.best is None
    assert len(outcome.trials) == len(CONFIGS)


def test_ctrl_c_keeps_what_is_known() -> None:
    outcome = run(Pretended(bowl, interrupt_after=5))
    assert len(outcome.trials) == 5
    assert outcome.best is not None
    assert outcome.best.ms == min(t.ms for t in outcome.trials)


def test_the_budget_is_kept_and_leaves_time_for_the_finals() -> None:
    now = [0.0]

    def tick(seconds: float) -> None:
        now[0] += seconds

    device = Pretended(bowl, tick=tick)
    outcome = run(device, seconds=2.0, clock=lambda: now[0])
    assert now[0] <= 2.2
    assert 10 < len(outcome.trials) < len(CONFIGS)
    assert any(repeats > 4 for _, repeats in device.measured)


def test_a_slow_start_leaves_half_of_the_budget() -> None:
    now = [0.0]

    def tick(seconds: float) -> None:
        now[0] += seconds

    device = Pretended(bowl, tick=tick, start_up=60.0)
    outcome = run(device, seconds=4.0, clock=lambda: now[0])
    assert 61.5 <= now[0] <= 62.3
    assert len(outcome.trials) > 5


def test_what_went_before_the_search_counts() -> None:
    now = [9.0]

    def tick(seconds: float) -> None:
        now[0] += seconds

    device = Pretended(bowl, tick=tick)
    outcome = run(device, seconds=10.0, clock=lambda: now[0], begun=8.5)
    assert len(outcome.trials) == len(CONFIGS)
    device = Pretended(bowl, tick=tick)
    begun = now[0] - 1.5
    run(device, seconds=3.0, clock=lambda: now[0], begun=begun)
    assert now[0] - begun <= 3.2


def test_a_budget_too_short_for_anything_still_ends() -> None:
    now = [0.0]

    def tick(seconds: float) -> None:
        now[0] += 100 * seconds

    outcome = run(Pretended(bowl, tick=tick), seconds=1.0, clock=lambda: now[0])
    assert outcome.best is not None


def test_kernels_share_the_budget_in_turns() -> None:
    device = Pretended(bowl)
    order: list[str] = []

    def report(event: Event) -> None:
        order.append(event.trial.kernel)

    outcomes = search(
        {"a": CONFIGS[:6], "b": CONFIGS[:3]}, device, seconds=60, workers=1, report=report
    )
    assert len(outcomes["a"].trials) == 6
    assert len(outcomes["b"].trials) == 3
    assert set(order[:4]) == {"a", "b"}


def test_what_is_expected_to_be_fast_is_compiled_first() -> None:
    device = Pretended(bowl)
    run(device)
    assert device.compiled[0] == CONFIGS[0]
    assert [c["BLOCK_I"] for c in device.compiled[:4]] == [16, 32, 48, 64]


def test_noise_is_the_standard_error_of_the_median() -> None:
    assert Measured((1.0, 1.0, 1.0, 1.0)).noise == 0.0
    assert Measured((1.0,)).noise == float("inf")
    wide, narrow = Measured((0.9, 1.0, 1.1) * 4), Measured((0.99, 1.0, 1.01) * 4)
    assert 9 < wide.noise / narrow.noise < 11
    assert Measured((0.9, 1.0, 1.1) * 16).noise < wide.noise


def test_every_kernel_gets_its_turn_when_the_device_was_late() -> None:
    """Measuring the first candidate takes longer than all of the budget."""
    now = [0.0]
    took = iter([50.0])

    def tick(seconds):
        now[0] += next(took, 0.1)

    device = Pretended(bowl, tick=tick)
    device.ready = lambda: None  # type: ignore[method-assign]
    found = search(
        {"a": CONFIGS, "b": CONFIGS, "c": CONFIGS},
        device,
        seconds=30.0,
        workers=4,
        clock=lambda: now[0],
    )
    for outcome in found.values():
        assert outcome.first is not None
        assert outcome.first.measured is not None
    # And no time went to anything else.
    assert len(device.measured) == 3


def test_what_is_never_compiled_does_not_hold_the_search_for_ever() -> None:
    now = [0.0]

    def tick(seconds):
        now[0] += seconds

    wait = threading.Event()
    device = Pretended(bowl, tick=tick)
    compile_ = device.compile

    def compiled(kernel, config):
        if config == CONFIGS[0]:
            wait.wait(20)
        return compile_(kernel, config)

    device.compile = compiled  # type: ignore[method-assign]

    def clock():
        now[0] += 0.05
        return now[0]

    outcome = run(device, seconds=5.0, clock=clock)
    wait.set()
    assert outcome.first is None
    assert outcome.best is not None
    assert now[0] < 60


def test_what_is_compared_is_timed_often_enough_whatever_the_budget() -> None:
    """What would run without tuning comes last, is hopeless, and is timed once: of its noise nothing would be known."""
    now = [0.0]
    others = threading.Event()

    def tick(seconds):
        now[0] += 100 * seconds
        others.set()

    device = Pretended(lambda c: 10.0 if c == CONFIGS[0] else bowl(c), tick=tick)
    device.ready = lambda: None  # type: ignore[method-assign]
    compile_ = device.compile

    def compiled(kernel, config):
        if config == CONFIGS[0]:
            others.wait(20)
        return compile_(kernel, config)

    device.compile = compiled  # type: ignore[method-assign]
    configs = [CONFIGS[0], CONFIGS[19]]
    outcome = search({"k": configs}, device, seconds=15.0, workers=2, clock=lambda: now[0])["k"]
    assert outcome.best is not None
    assert outcome.first is not None
    assert outcome.best.config == CONFIGS[19]
    for trial in (outcome.best, outcome.first):
        assert trial.measured is not None
        assert len(trial.measured.times) >= SETTLED
        assert trial.measured.noise < 0.01
