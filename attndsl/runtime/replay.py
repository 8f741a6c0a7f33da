"""Launches kept for the next call of the same kind: for the same shapes, strides and types a launcher does the same.

    watch = Watch(module)
    made = watch("forward", inputs, extents, params, config)      # runs, and remembers
    replay = watch.replay(tensors, [made["O"]], moving=False)
    replay(tensors, start)                                        # allocates and launches, no more

A launcher allocates, launches, and computes a little on the host (sums in a fixed order, bounds of blocks of ids); all
of this depends on the values of tensors through tensors alone, so it can be repeated with others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attndsl.runtime.quick import Quick, Slots


@dataclass(slots=True)
class Step:
    """One launch, or a call of a function on the host, which `compiled` is then, and `grid` None."""

    compiled: Any
    grid: tuple[int, int, int] | None
    arguments: list[Any]
    tensors: Slots
    starts: tuple[int, ...] = ()
    """Places of arguments where the call's `start` stands."""
    launch: Callable[..., Any] | None = None
    """What launches `compiled`."""
    between: tuple[Any, ...] = ()
    """What it takes between the stream and the arguments."""
    pointers: Slots = ()
    """Of `tensors`, those that go to it as an address: Triton would ask each for its own, and the driver for that."""
    objects: Slots = ()
    """The others: descriptions of tiles."""
    at: int = -1
    """Of a call on the host: which tensor of the call its result is."""
    example: Any = None
    """Of a call on the host that describes tiles: what it gave when it was recorded."""


Allocation: TypeAlias = Callable[[], Tensor]
"""What makes a tensor."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The steps of one kind of call. Tensors are counted: given, allocated, then results of the host's functions."""

    steps: tuple[Step, ...]
    short: tuple[Step | Quick, ...]
    """The same by the shortest way, for when nobody listens to launches."""
    allocations: tuple[Allocation, ...]
    results: tuple[int, ...]
    on: int
    """The number of the device; -1 for a CPU."""
    room: tuple[None, ...]
    """Places for the results of the host's functions."""
    nowhere: tuple[int, ...]
    """And for where they lie."""

    def __call__(
        self, given: Sequence[Tensor], start: int, addresses: list[int] | None = None
    ) -> list[Tensor]:
        """The results, of tensors of the kind that was recorded; they are on the current device.

        `addresses` are those of `given`, where they are known.
        """
        made = [make() for make in self.allocations]
        tensors: list[Any] = [*given, *made, *self.room]
        at = [x.data_ptr() for x in given] if addresses is None else addresses
        at = [*at, *[x.data_ptr() for x in made], *self.nowhere]
        knobs, stream_of = _triton()
        stream = stream_of(self.on)
        watched = _watched(knobs.launch_enter_hook) or _watched(knobs.launch_exit_hook)
        for step in self.steps if watched else self.short:
            if isinstance(step, Quick):
                step(at, start, stream)
                continue
            arguments = step.arguments.copy()
            for place in step.starts:
                arguments[place] = start
            if step.launch is None or watched:
                for place, which in step.tensors:
                    arguments[place] = tensors[which]
                if step.launch is None:
                    result = tensors[step.at] = step.compiled(*arguments)
                    at[step.at] = result.data_ptr() if isinstance(result, Tensor) else 0
                else:
                    step.compiled[step.grid](*arguments, stream=stream)
                continue
            for place, which in step.pointers:
                arguments[place] = at[which]
            for place, which in step.objects:
                arguments[place] = tensors[which]
            step.launch(*step.grid, stream, *step.between, *arguments)  # type: ignore[misc]
        return [tensors[k] for k in self.results]


_guards: Any = getattr(getattr(torch._C, "_dynamo", None), "guards", None)

# Kernels go to the current device, whatever their tensors say; asking PyTorch's own wrapper takes three times as long.
current_device: Callable[[], int] = getattr(torch._C, "_cuda_getDevice", lambda: -1)


@cache
def _triton() -> tuple[Any, Any]:
    """Triton's switches of its run time, and what tells a device's stream; a CPU user does not load it."""
    from triton import knobs
    from triton.runtime import driver

    return knobs.runtime, driver.active.get_current_stream


def spread_zeros(shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
    """Zeros; a single one in memory stands for all."""
    return torch.zeros((), dtype=dtype, device=device).expand(shape)


def allocation(make: Callable[..., Tensor], x: Tensor) -> Allocation:
    """What makes another tensor such as `x`, which is dense or spread, as `torch.empty` and the like made it.

    The shortest way to memory is the one that PyTorch's own compiler takes: it asks the current device, and reads a
    shape, strides and a type, no more. Otherwise a tensor like a hollow one is asked for: a shape, a type and a device
    one by one take twice as long.
    """
    short = getattr(_guards, f"_empty_strided_{x.device.type}", None)
    if make is torch.empty and short is not None:
        return partial(short, tuple(x.shape), tuple(x.stride()), x.dtype)
    if make is spread_zeros:
        return partial(spread_zeros, x.shape, dtype=x.dtype, device=x.device)
    likes = {torch.empty: torch.empty_like, torch.zeros: torch.zeros_like}
    return partial(likes[make], hollow(x), memory_format=torch.contiguous_format)


def hollow(x: Tensor) -> Tensor:
    """A tensor of the same shape, type and device that takes the memory of a single value."""
    return torch.empty((), dtype=x.dtype, device=x.device).expand(x.shape)


def _watched(hook: Any) -> bool:
    """Whether somebody listens to launches, a profiler for example."""
    return hook is not None and bool(getattr(hook, "calls", True))


def kind_of(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """What a launch may depend on of its tensors: shapes, strides, types, devices, and how their memory is aligned."""
    return tuple(
        [(x.shape, x.stride(), x.dtype, x.get_device(), x.data_ptr() & 15) for x in tensors]
    )
