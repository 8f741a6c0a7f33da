"""A child that runs candidates on the GPU: `python -m attndsl.tuning.measuring`.

A candidate that faults poisons the CUDA context of its process; so that process is this one, and its parent starts
another. Opened with a problem's file, it draws inputs and computes the exact results: the same pass by the eager
kernels in float64, which share neither tiles nor code with the candidates, and of a few entries of the batch, which
repeat (`copies`). A candidate's results are compared before it is timed, from outputs that are filled with NaN
beforehand.
"""

from __future__ import annotations

import math
import pickle
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from attndsl.codegen.toolkit import sound_assembler
from attndsl.runtime.launches import Launch, Recorder, rebound
from attndsl.schedule.tile import Role
from attndsl.testing import make_inputs
from attndsl.tuning.child import Message, serve
from attndsl.tuning.compiling import load
from attndsl.tuning.copies import copies_of, once, repeated, summed
from attndsl.tuning.problem import LONG, Problem
from attndsl.tuning.turns import turn

# What a candidate may be off, as in `attndsl.testing`: of the error of the same arithmetic in the inputs' type.
FACTOR = 1.5
CACHE_BYTES = 256 << 20
# What one value of pairs may take while exact results are computed.
PAIR_BYTES = 512 << 20
# Clocks that the card idles before launches that are timed, so that all are asked for before the first begins; twice as
# many where that was not enough, up to a tenth of a second.
AHEAD, MOST_AHEAD = 1 << 21, 1 << 27
# How large inputs are drawn: smaller ones where results of the first are no numbers, as of exponentials of long sums.
SCALES = (1.0, 0.25, 0.0625)
# A launch is not disturbed that is so many times slower than the fastest, and milliseconds besides; how often times are
# taken again where half of them are slower than that.
STEADY, SLACK, AGAIN = 1.15, 0.02, 4
# Without a GPU it is Triton's interpreter that runs, for tests.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def wake() -> None:
    """Do what the first launch would wait for: build the driver's module by a C compiler, and hash Triton itself."""
    with suppress(Exception):  # what is wrong here is the first launch's to say
        from triton.runtime import driver
        from triton.runtime.cache import triton_key

        triton_key()
        driver.active.get_current_target()


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory is filled with NaN.

    It comes with deterministic algorithms. PyTorch's public switch for these imports its own compiler, which takes
    longer than all else before the first candidate; the one behind it does not.
    """
    switch = getattr(torch._C, "_set_deterministic_algorithms", torch.use_deterministic_algorithms)
    switch(True, warn_only=True)
    try:
        yield
    finally:
        switch(False)


class Bench:
    """A problem on this process's device."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.copies = copies_of(problem.cascade, problem.extents)
        self.extents = once(problem.extents, self.copies)
        self.dtype = getattr(torch, LONG[problem.dtype])
        self.flush: Tensor | None = None
        self.launch: Launch | None = None
        self.ahead = AHEAD
        for scale in SCALES:
            with turn():
                self.one = self.draw(scale)
                self.inputs = {
                    n: repeated(x, self.ranks(n), self.copies) for n, x in self.one.items()
                }
            self.exact, self.budget = self.expected()
            if all(map(math.isfinite, self.budget.values())):
                break

    def ranks(self, name: str) -> tuple[str, ...]:
        """The axes of a tensor that the pass is given or returns."""
        p = self.problem
        for plan in (p.kernels[0].plan, p.passes.forward):
            for b in plan.buffers:
                if b.name == name:
                    return b.ranks
        return p.cascade.input(name).ranks

    def draw(self, scale: float = 1.0) -> dict[str, Tensor]:
        """Random inputs, one copy; for a backward pass also what the forward pass keeps, and the outputs' gradients."""
        p = self.problem
        # On the CPU it would take longer than all else that this process does before the first candidate.
        drawing = torch.Generator(device=DEVICE).manual_seed(p.seed)
        given = make_inputs(
            p.cascade,
            self.extents,
            params=p.params,
            dtype=self.dtype,
            device=DEVICE,
            generator=drawing,
        )
        given = {n: x * scale if x.is_floating_point() else x for n, x in given.items()}
        if p.launcher != "backward":
            return given
        made = load(str(p.eager)).forward(given, self.extents, p.params, self.tiles())
        kept = {r: made[r] for r in p.passes.residuals}
        generator = torch.Generator(device=DEVICE).manual_seed(p.seed + 1)
        for output, name in p.passes.cotangents.items():
            x = torch.randn(made[output].shape, generator=generator, device=DEVICE)
            kept[name] = torch.where(torch.isfinite(made[output]), x, 0.0).to(made[output].dtype)
        return {**given, **kept}

    def tiles(self) -> dict[str, int]:
        """Block sizes of the eager kernels: as large as memory allows, since each tile costs its launches."""
        p = self.problem
        programs = math.prod(
            self.extents[a.rank]
            for a in p.kernels[0].program.of(Role.GRID)
            if a.rank in self.extents
        )
        side = 1 << (math.isqrt(PAIR_BYTES // (8 * max(1, programs))).bit_length() - 1)
        axes = {a.name for k in p.kernels for a in k.program.axes}
        return dict.fromkeys(axes, min(2048, max(64, side)))

    def expected(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The exact results, and the largest root mean square error that passes for each."""
        p = self.problem
        eager = load(str(p.eager))
        launcher = getattr(eager, "backward" if p.launcher == "backward" else "forward")
        with turn():
            wide = {n: x.double() if x.is_floating_point() else x for n, x in self.one.items()}
            exact = launcher(wide, self.extents, p.params, self.tiles())
        unit = 1e-5 if self.dtype is torch.float32 else 2 * torch.finfo(self.dtype).eps
        # Beside 16-bit results float32 is exact, and takes half the memory.
        wide_enough = torch.float64 if self.dtype.itemsize > 2 else torch.float32
        with turn():
            rough = launcher(self.one, self.extents, p.params, self.tiles())
            out, budget = {}, {}
            for n in (n for n in exact if n in rough):
                times = summed(self.ranks(n), self.copies) if p.launcher == "backward" else 1
                out[n] = repeated(times * exact[n].to(wide_enough), self.ranks(n), self.copies)
                off = FACTOR * rms(rough[n], exact[n]) + unit * rms(exact[n])
                budget[n] = times * off
            return out, budget

    def run(
        self, module: ModuleType, kernel: Recorder, name: str, config: dict[str, int]
    ) -> dict[str, Tensor]:
        """The pass with one kernel seen, its outputs poisoned beforehand."""
        p = self.problem
        with warnings.catch_warnings(), poisoned(), sound_assembler():
            warnings.simplefilter("ignore")
            launcher = rebound(module, p.launcher, {name: kernel})
            made: dict[str, Tensor] = launcher(
                self.inputs, p.extents, p.params, p.told(name, config)
            )
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return made

    def candidate(self, kernel: str, config: dict[str, int]) -> Message:
        """Run one kernel with one configuration, and judge what the pass returns."""
        begin = time.perf_counter()
        module = load(str(self.problem.module))
        recorder = Recorder(getattr(module, kernel))
        made = self.run(module, recorder, kernel, config)
        if not recorder.launches:
            raise RuntimeError(f"{self.problem.launcher} never launched {kernel}")
        self.launch = recorder.launches[-1]
        wrong = []
        for n, exact in self.exact.items():
            error = rms(made[n], exact)
            if not error <= self.budget[n]:
                wrong.append(f"{n}: error {error:.1e}, allowed {self.budget[n]:.1e}")
        return {"wrong": "; ".join(wrong), "seconds": time.perf_counter() - begin}

    def time(self, repeats: int, limit_ms: float) -> Message:
        """Milliseconds of the last candidate, its inputs not in the cache; fewer repeats above `limit_ms`.

        What else runs on the card, of programs that know nothing of turns, makes some launches much slower than others;
        `disturbed` says so where that does not end.
        """
        assert self.launch is not None
        self.launch()
        for _ in range(AGAIN):
            times = self.times(self.launch, repeats, limit_ms)
            if DEVICE == "cpu" or steady(times):
                return {"times": times, "disturbed": ""}
        return {
            "times": times,
            "disturbed": f"{min(times):.3f} to {max(times):.3f} ms: something else runs on the card",
        }

    def times(self, launch: Callable[[], Any], repeats: int, limit_ms: float) -> list[float]:
        """Milliseconds of so many launches; of two, if both are above `limit_ms`."""
        times = self.timed(launch, 1)
        while len(times) < repeats:
            hopeless = min(times) > limit_ms
            if hopeless and len(times) > 1:
                break
            times += self.timed(launch, 1 if hopeless else min(repeats - len(times), 8))
        return times

    def timed(self, launch: Callable[[], Any], repeats: int) -> list[float]:
        """Milliseconds of each of so many launches.

        A card that waits for launches would count the host's time, and compilers keep the host busy: it begins when
        the last has been asked for.
        """
        if DEVICE == "cpu":
            begin = time.perf_counter()
            launch()
            return [1e3 * (time.perf_counter() - begin)]
        if self.flush is None:
            self.flush = torch.empty(CACHE_BYTES, dtype=torch.int8, device="cuda")
        while True:
            pairs = []
            torch.cuda._sleep(self.ahead)
            for _ in range(repeats):
                self.flush.zero_()
                begin_at, end_at = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin_at.record()
                launch()
                end_at.record()
                pairs.append((begin_at, end_at))
            behind = pairs[0][0].query()
            torch.cuda.synchronize()
            if not behind or self.ahead >= MOST_AHEAD:
                return [a.elapsed_time(b) for a, b in pairs]
            self.ahead *= 2


def steady(times: Sequence[float]) -> bool:
    """Whether launches took about as long as the fastest of them, by and large."""
    return statistics.median_high(times) <= STEADY * min(times) + SLACK


def rms(out: Tensor, exact: Tensor | None = None) -> float:
    """The root mean square of a tensor, or of its difference from the exact one; NaN if infinities disagree."""
    if not out.numel():
        return 0.0
    if exact is None:
        wide = torch.where(torch.isfinite(out), out, 0.0)
    else:
        wide = out.to(exact.dtype)
        # Equal infinities differ by nothing; unequal ones, and NaN, leave NaN or infinity behind.
        wide = torch.where(wide == exact, 0.0, wide - exact)
    norm = float(torch.linalg.vector_norm(wide, dtype=torch.float64))
    return norm / math.sqrt(out.numel())


class Session:
    """The state of this process: the problems that are open, by launcher."""

    def __init__(self) -> None:
        self.benches: dict[str, Bench] = {}

    def handle(self, message: Message) -> Message:
        """Open problems, judge a candidate, or time it."""
        match message["do"]:
            case "open":
                self.benches.clear()
                if DEVICE == "cuda":
                    threading.Thread(target=wake, daemon=True).start()
                problems = [pickle.loads(Path(p).read_bytes()) for p in message["problems"]]
                with torch.no_grad():
                    self.benches = {p.launcher: Bench(p) for p in problems}
                if DEVICE == "cuda":
                    # Others on the card need memory too, and wide results take the most.
                    torch.cuda.empty_cache()
                return {"open": True, "device": DEVICE}
            case "try":
                bench = self.benches[message["launcher"]]
                with torch.no_grad(), turn():
                    judged = bench.candidate(message["kernel"], message["config"])
                    if judged["wrong"]:
                        return judged
                    timed = bench.time(message["repeats"], message["limit_ms"])
                return {**judged, **timed}
            case what:
                raise ValueError(what)


if __name__ == "__main__":
    serve(Session().handle)
