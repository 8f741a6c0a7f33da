"""Launches of a generated module's kernels, intercepted: seen, compiled without being run, or repeated.

    with intercepted(module, "causal", recorder):
        module.forward(inputs, extents, params, config)
    recorder.launches     # [(grid, positional, keyword), ...]

A launcher calls its kernels as `kernel[grid](...)`, whatever their dialect; so this is the place where a single kernel
can be told from the pass that it is part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(slots=True)
class Launch:
    """One launch as the launcher asked for it."""

    kernel: Any
    grid: tuple[int, ...]
    positional: tuple[Any, ...]
    keyword: dict[str, Any]

    def __call__(self) -> Any:
        """Launch it again."""
        return self.kernel[self.grid](*self.positional, **self.keyword)


def run(launch: Launch) -> Any:
    """Launch, and nothing else."""
    return launch()


@dataclass(slots=True)
class Recorder:
    """Stands in for a kernel: keeps what it is launched with, and does `act` with each launch."""

    kernel: Any
    act: Callable[[Launch], Any] = run
    launches: list[Launch] = field(default_factory=list)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def launched(*positional: Any, **keyword: Any) -> Any:
            launch = Launch(self.kernel, grid, positional, keyword)
            self.launches.append(launch)
            return self.act(launch)

        return launched


@contextmanager
def intercepted(
    module: ModuleType, names: tuple[str, ...], act: Callable[[Launch], Any] = run
) -> Iterator[dict[str, Recorder]]:
    """Recorders in place of a module's kernels, for the time of the block."""
    recorders = {n: Recorder(getattr(module, n), act) for n in names}
    try:
        for n, r in recorders.items():
            setattr(module, n, r)
        yield recorders
    finally:
        for n, r in recorders.items():
            setattr(module, n, r.kernel)
