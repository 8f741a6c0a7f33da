"""A device that pretends: times by formula, and faults where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attndsl.tuning.device import Compiled, Config, Failure, Measured


@dataclass
class Pretended:
    """`time(config)` in ms; `faults` says for a configuration at which point which failure comes."""

    time: Callable[[Config], float]
    faults: Callable[[Config], tuple[str, str] | None] = lambda config: None
    jitter: float = 0.0
    start_up: float = 0.0
    interrupt_after: int | None = None
    tick: Callable[[float], None] = lambda seconds: None
    compiled: list[Config] = field(default_factory=list)
    measured: list[tuple[Config, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None: ...

    def ready(self) -> None:
        self.tick(self.start_up)

    def compile(self, kernel: str, config: Config) -> Compiled:
        with self.lock:
            self.compiled.append(config)
        self._fail(config, ("compiler",))
        return Compiled(registers=128, spills=0, shared=1024)

    def measure(
        self, kernel: str, config: Config, repeats: int, limit_ms: float = float("inf")
    ) -> Measured:
        if self.interrupt_after is not None and len(self.measured) >= self.interrupt_after:
            raise KeyboardInterrupt
        self._fail(config, ("fault", "hang", "wrong", "resources", "disturbed"))
        self.measured.append((config, repeats))
        self.tick(0.1)
        ms = self.time(config)
        n = 1 if ms > limit_ms else repeats
        return Measured(tuple(ms * (1 + self.jitter * (-1) ** k) for k in range(n)))

    def _fail(self, config: Mapping[str, int], kinds: tuple[str, ...]) -> None:
        found = self.faults(config)
        if found is not None and found[0] in kinds:
            raise Failure(*found)
