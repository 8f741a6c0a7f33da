"""Launches of a generated module's kernels, seen: compiled without being run, repeated, or kept for later calls.

    forward = rebound(module, "forward", causal=Recorder(module.causal))
    forward(inputs, extents, params, config)

A launcher calls its kernels as `kernel[grid](...)`, whatever their dialect, by names of its module. A copy of it that
finds other things under these names leaves the module alone, and other threads in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any


@dataclass(slots=True)
class Launch:
    """One launch as the launcher asked for it; `made` is what it returned, for a compiler the compiled kernel."""

    kernel: Any
    grid: tuple[int, ...]
    positional: tuple[Any, ...]
    keyword: dict[str, Any]
    made: Any = None

    def __call__(self) -> Any:
        """Launch it, or launch it again."""
        return self.kernel[self.grid](*self.positional, **self.keyword)

    def arguments(self) -> tuple[Any, ...]:
        """All arguments in the order of the kernel's parameters, without options such as `num_warps`."""
        names: list[str] = self.kernel.arg_names
        rest = names[len(self.positional) :]
        return (*self.positional, *(self.keyword[n] for n in rest))


def run(launch: Launch) -> Any:
    """Launch, and nothing else."""
    return launch()


@dataclass(slots=True)
class Recorder:
    """Stands in for a kernel: does `act` with each launch, and keeps it."""

    kernel: Any
    act: Callable[[Launch], Any] = run
    launches: list[Launch] = field(default_factory=list)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def launched(*positional: Any, **keyword: Any) -> Any:
            launch = Launch(self.kernel, grid, positional, keyword)
            launch.made = self.act(launch)
            self.launches.append(launch)
            return launch.made

        return launched


def rebound(module: ModuleType, launcher: str, names: dict[str, Any]) -> Callable[..., Any]:
    """A launcher of a module that sees other things under some of the module's names."""
    fn: FunctionType = getattr(module, launcher)
    return FunctionType(
        fn.__code__, {**module.__dict__, **names}, fn.__name__, fn.__defaults__, fn.__closure__
    )
