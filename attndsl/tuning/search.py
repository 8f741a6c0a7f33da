"""Successive halving within a budget: many candidates are timed a little, the fastest of them more.

    outcome = search({"causal": [first, second, …]}, device, seconds=30)
    outcome["causal"].best.config

Candidates of each kernel come in the order in which they are worth trying; the first of each is what would run without
tuning, and is measured first. Compiling goes on in parallel, ahead of the device. Ctrl-C ends the search early, with
what is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from attndsl.processors import processors
from attndsl.tuning.device import Compiled, Config, Device, Failure, Measured

# Of the budget, what is kept for the later rungs.
FINALS = 0.25
# Repeats of each rung, and how many candidates of a kernel enter it.
RUNGS = ((4, None), (12, 8), (40, 3))
# How many times the budget a search may take until what would run without tuning has been tried: nothing is worth
# keeping that was not compared with it.
PATIENCE = 2.0
# Of the budget, how long everything waits for what would run without tuning to be compiled.
HELD = 0.5
# Of the best and of what would run without tuning, so many times are taken at least, budget or not: a time that is not
# known decides nothing.
SETTLED = 8
# A candidate slower than this many times the best is not timed to the end.
HOPELESS = 1.5


@dataclass(slots=True)
class Trial:
    """One candidate and what became of it."""

    kernel: str
    config: Config
    compiled: Compiled | None = None
    measured: Measured | None = None
    failure: Failure | None = None

    @property
    def ms(self) -> float:
        """Its time; infinite if it has none."""
        return self.measured.ms if self.measured is not None else float("inf")


@dataclass(slots=True)
class Outcome:
    """What was found for one kernel. `trials` are in the order in which they were tried."""

    kernel: str
    untuned: Config | None = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def first(self) -> Trial | None:
        """What would run without tuning."""
        return next((t for t in self.trials if t.config == self.untuned), None)

    @property
    def best(self) -> Trial | None:
        """The fastest that was right; None if there is none."""
        right = [t for t in self.trials if t.measured is not None]
        # What has been timed more often is known better: a lucky short measurement does not win.
        if not right:
            return None
        most = max(len(t.measured.times) for t in right if t.measured)
        known = [t for t in right if t.measured and 2 * len(t.measured.times) >= most]
        return min(known, key=lambda t: t.ms)


@dataclass(frozen=True, slots=True)
class Event:
    """What the search tells while it works: the trial that has ended, and how far it is."""

    trial: Trial
    tried: int
    of: int
    seconds: float
    outcomes: Mapping[str, Outcome]


Report = Callable[[Event], None]


def search(
    candidates: Mapping[str, Sequence[Config]],
    device: Device,
    *,
    seconds: float,
    workers: int | None = None,
    report: Report = lambda event: None,
    clock: Callable[[], float] = time.monotonic,
    begun: float | None = None,
) -> dict[str, Outcome]:
    """The outcome for every kernel; `seconds` count from `begun`, on the clock, where it was before now."""
    made = Search(candidates, device, seconds, workers or processors(), report, clock)
    made.begin = made.begin if begun is None else begun
    return made.run()


class Search:
    """One search under way."""

    def __init__(
        self,
        candidates: Mapping[str, Sequence[Config]],
        device: Device,
        seconds: float,
        workers: int,
        report: Report,
        clock: Callable[[], float],
    ) -> None:
        self.outcomes = {k: Outcome(k, next(iter(c), None)) for k, c in candidates.items()}
        self.queue = _interleaved(candidates)
        self.of = sum(len(c) for c in candidates.values())
        self.device = device
        self.workers = workers
        self.report = report
        self.clock = clock
        self.begin = clock()
        self.seconds = seconds

    def elapsed(self) -> float:
        return self.clock() - self.begin

    def run(self) -> dict[str, Outcome]:
        """All rungs."""
        try:
            self.first_rung(*RUNGS[0][:1])
            for repeats, most in RUNGS[1:]:
                assert most is not None
                self.rung(repeats, most)
            self.settle()
        except KeyboardInterrupt:
            pass  # what is known is kept
        return self.outcomes

    # --- the first rung: compile and time, as the compiled ones come ---

    def first_rung(self, repeats: int) -> None:
        pool = ThreadPoolExecutor(self.workers)
        running: dict[Future[Compiled], Trial] = {}
        try:
            while True:
                while len(running) < 2 * self.workers and not self.late():
                    trial = next(self.queue, None)
                    if trial is None:
                        break
                    running[pool.submit(self.device.compile, trial.kernel, trial.config)] = trial
                if not running:
                    return
                # What is measured is launched among its pass's other kernels, as they run untuned: until those
                # are compiled, who launches would compile them once more, and have the card meanwhile.
                firsts = [j for j, t in running.items() if self.untuned(t) and not j.done()]
                if firsts and self.elapsed() < self.seconds * HELD:
                    wait(firsts, timeout=0.2, return_when=FIRST_COMPLETED)
                    continue
                # In the order of the queue where several are done: the most promising first.
                done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for job in [j for j in running if j in done]:
                    trial = running.pop(job)
                    if self.elapsed() <= self.seconds or self.untuned(trial):
                        self.measure(trial, job, repeats)
                    if self.late():
                        return
                if self.late():
                    return
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def late(self) -> bool:
        """Whether the first rung should end: once there is anything to go on with, for every kernel."""
        if any(o.untuned is not None and o.first is None for o in self.outcomes.values()):
            return self.elapsed() > self.seconds * PATIENCE
        known = all(any(t.measured for t in o.trials) for o in self.outcomes.values())
        return self.elapsed() > self.seconds * ((1 - FINALS) if known else 1.0)

    def untuned(self, trial: Trial) -> bool:
        """Whether it is what would run without tuning."""
        return trial.config == self.outcomes[trial.kernel].untuned

    def ready(self) -> None:
        """Wait for the device, before the first measurement; what it takes may eat half of the budget, and no more."""
        if not any(o.trials for o in self.outcomes.values()):
            self.device.ready()
            self.begin = max(self.begin, self.clock() - self.seconds / 2)

    def measure(self, trial: Trial, job: Future[Compiled], repeats: int) -> None:
        self.ready()
        outcome = self.outcomes[trial.kernel]
        best = min((t.ms for t in outcome.trials), default=float("inf"))
        try:
            trial.compiled = job.result()
            trial.measured = self.device.measure(
                trial.kernel, trial.config, repeats, HOPELESS * best
            )
        except Failure as failure:
            trial.failure = failure
        outcome.trials.append(trial)
        self.tell(trial)

    # --- later rungs ---

    def rung(self, repeats: int, most: int) -> None:
        """Time the fastest few again, in turns, so that a drifting clock is fair to all."""
        entered = {k: self.fastest(o, most) for k, o in self.outcomes.items()}
        rounds = max(1, repeats // 8)
        for _ in range(rounds):
            for trials in entered.values():
                for trial in trials:
                    if self.elapsed() > self.seconds:
                        return
                    if trial.failure is None:
                        self.again(trial, repeats // rounds)

    def settle(self) -> None:
        """Time the best and what would run without tuning often enough to compare them, if the budget ended before."""
        for outcome in self.outcomes.values():
            best, first = outcome.best, outcome.first
            if best is None or first is None or best is first:
                continue
            for trial in (best, first):
                if trial.measured is not None and len(trial.measured.times) < SETTLED:
                    self.again(trial, SETTLED)

    def again(self, trial: Trial, repeats: int) -> None:
        """Time more often what was right at first; if it is wrong now, it is wrong."""
        assert trial.measured is not None
        try:
            trial.measured += self.device.measure(trial.kernel, trial.config, repeats)
        except Failure as failure:
            if failure.kind != "disturbed":  # what was taken before stands
                trial.failure, trial.measured = failure, None
        self.tell(trial)

    def fastest(self, outcome: Outcome, most: int) -> list[Trial]:
        """The fastest, and what would run without tuning: a gain is measured beside it."""
        right = sorted((t for t in outcome.trials if t.measured), key=lambda t: t.ms)
        chosen = [t for t in right[:most] if t.ms <= HOPELESS * right[0].ms]
        first = outcome.first
        if first is not None and first.measured is not None and first not in chosen:
            chosen.append(first)
        return chosen

    def tell(self, trial: Trial) -> None:
        tried = sum(len(o.trials) for o in self.outcomes.values())
        self.report(Event(trial, tried, self.of, self.elapsed(), self.outcomes))


def _interleaved(candidates: Mapping[str, Sequence[Config]]) -> Iterator[Trial]:
    """The first candidate of every kernel, then the second of every kernel, and so on."""
    for k in range(max((len(c) for c in candidates.values()), default=0)):
        for kernel, configs in candidates.items():
            if k < len(configs):
                yield Trial(kernel, configs[k])
