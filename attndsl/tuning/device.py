"""Where candidates are compiled and run: child processes, or, in tests, something that pretends.

with Processes([forward, backward], capability=90, workers=16) as device:
    device.compile("causal", config)                  # Compiled(registers=203, spills=0, …); from any thread
    device.measure("causal", config, repeats=10)      # Measured(ms=0.42, …); one at a time
"""

from __future__ import annotations

import queue
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from attndsl.tuning.child import Child, ChildError, Message

if TYPE_CHECKING:
    from attndsl.tuning.problem import Problem

Config: TypeAlias = Mapping[str, int]


class Failure(Exception):
    """A candidate is out. `kind`: `compiler` (refused, or crashed), `fault`, `hang`, `wrong` (results), `resources`,
    `disturbed` (others ran on the card)."""

    def __init__(self, kind: str, why: str) -> None:
        self.kind = kind
        self.why = why
        super().__init__(f"{kind}: {why}")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a candidate's machine code takes: registers a thread, bytes spilled a thread, bytes shared a block."""

    registers: int
    spills: int
    shared: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Times of a candidate in milliseconds, in the order taken."""

    times: tuple[float, ...]

    @property
    def ms(self) -> float:
        """The median."""
        return statistics.median(self.times)

    @property
    def noise(self) -> float:
        """The standard error of the median, as a part of it (from the median absolute deviation)."""
        if len(self.times) < 3:
            return float("inf")
        middle = self.ms
        spread = statistics.median(abs(t - middle) for t in self.times)
        # 1.4826 turns the deviation into that of a normal distribution; its median scatters 1.2533 times as its mean.
        return float(1.2533 * 1.4826 * spread / len(self.times) ** 0.5 / middle)

    def __add__(self, other: Measured) -> Measured:
        return Measured((*self.times, *other.times))


class Device(Protocol):
    """The seam between the search and the machine. `compile` and `measure` raise `Failure`."""

    def ready(self) -> None:
        """Wait until candidates can be measured."""

    def compile(self, kernel: str, config: Config) -> Compiled: ...

    def measure(
        self, kernel: str, config: Config, repeats: int, limit_ms: float = float("inf")
    ) -> Measured: ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds until a process counts as hanging: starting, compiling one candidate, running one."""

    start: float = 180.0
    compile: float = 60.0
    run: float = 30.0


class Staff:
    """The children of one search, or of one after another: most of a short search is importing what they need."""

    def __init__(
        self,
        workers: int,
        timeouts: Timeouts = Timeouts(),
        compiler: str = "attndsl.tuning.compiling",
        runner: str = "attndsl.tuning.measuring",
    ) -> None:
        self.compilers = [
            Child(compiler, {"do": "open"}, start_timeout=timeouts.start) for _ in range(workers)
        ]
        self.runner = Child(runner, start_timeout=timeouts.start)
        # A search that has ended may have left one at work, which comes back when it is done.
        self.idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
        for child in self.compilers:
            self.idle.put(child)

    def close(self) -> None:
        """End all of them."""
        for child in (*self.compilers, self.runner):
            child.close()


class Processes:
    """Compilers in `workers` processes, and one process that owns the GPU; each restarted when a candidate ends it.

    It can compile before it is entered, while another with the same `staff` has the process that owns the GPU.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        capability: int,
        workers: int,
        timeouts: Timeouts = Timeouts(),
        compiler: str = "attndsl.tuning.compiling",
        runner: str = "attndsl.tuning.measuring",
        staff: Staff | None = None,
    ) -> None:
        self.problems = {k.name: p for p in problems for k in p.every}
        self.capability = capability
        self.timeouts = timeouts
        self.folder = tempfile.TemporaryDirectory(prefix="attndsl-tuning-")
        paths = [str(p.save(Path(self.folder.name))) for p in problems]
        self.staff = staff or Staff(workers, timeouts, compiler, runner)
        self.lent = staff is not None
        self.idle, self.runner = self.staff.idle, self.staff.runner
        self.opening: Message = {"do": "open", "problems": paths}
        self.starter = ThreadPoolExecutor(1)
        self.starting: Future[Message] | None = None

    def __enter__(self) -> Processes:
        self.runner.opening = self.opening
        # Exact results take a while; candidates compile meanwhile.
        self.starting = self.starter.submit(self.runner.reopen)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ready(self) -> None:
        """Wait for the process that owns the GPU.

        Raises: ChildError if it cannot even start.
        """
        starting, self.starting = self.starting, None
        if starting is None:
            return
        try:
            starting.result()
        except ChildError as error:
            if error.kind != "hung":
                raise
            raise ChildError(
                "hung",
                f"exact results to compare with were not there in {self.timeouts.start:.0f} s; sizes for which they are"
                " can be given (`--shape`)",
            ) from None

    def close(self) -> None:
        """End all processes, but for those that are lent."""
        if not self.lent:
            self.runner.kill()
        self.starter.shutdown()
        if not self.lent:
            self.staff.close()
        self.folder.cleanup()

    def compile(self, kernel: str, config: Config) -> Compiled:
        """Compile a candidate in a process that is free; waits for one."""
        p = self.problems[kernel]
        child = self.idle.get()
        try:
            made = child.ask(
                {
                    "do": "compile",
                    "capability": self.capability,
                    "module": str(p.module),
                    "kernel": kernel,
                    "launcher": p.launcher,
                    "tensors": p.tensors(),
                    "extents": p.extents,
                    "params": p.params,
                    "told": p.told(kernel, config),
                },
                self.timeouts.compile,
            )
        except ChildError as error:
            raise Failure("compiler", str(error)) from None
        finally:
            self.idle.put(child)
        return Compiled(made["registers"], made["spills"], made["shared"], made["seconds"])

    def measure(
        self, kernel: str, config: Config, repeats: int, limit_ms: float = float("inf")
    ) -> Measured:
        """Run a candidate: its results are compared, then it is timed."""
        message = {
            "do": "try",
            "launcher": self.problems[kernel].launcher,
            "kernel": kernel,
            "config": dict(config),
            "repeats": repeats,
            "limit_ms": min(limit_ms, 1e9),
        }
        self.ready()
        self.runner.start()  # what goes wrong here is no candidate's fault
        try:
            told = self.runner.ask(message, self.timeouts.run)
        except ChildError as error:
            why = error.why
            if "out of resource" in why or "OutOfResources" in why:
                raise Failure("resources", why) from None
            if error.kind == "hung":
                raise Failure("hang", why) from None
            # A launch that raised may have left the context poisoned.
            self.runner.close()
            raise Failure("fault", why) from None
        for kind in ("wrong", "disturbed"):
            if told.get(kind):
                raise Failure(kind, told[kind])
        return Measured(tuple(told["times"]))
