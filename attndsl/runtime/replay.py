"""Launches kept for the next call of the same kind: for the same shapes, strides and types a launcher does the same.

    watch = Watch(module)
    made = watch("forward", inputs, extents, params, config)      # runs, and remembers
    replay = watch.replay(tensors, [made["O"]], moving=False)
    replay(tensors, start)                                        # allocates and launches, no more

A launcher allocates, launches, and computes a little on the host (sums in a fixed order); all of this depends on the
values of tensors through tensors alone, so it can be repeated with others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attndsl.cascade.starts import START
from attndsl.runtime.launches import Launch, Recorder, rebound, run

PLAIN = (int, float, bool, str, tuple, torch.dtype, type(None))
# What a launcher calls of its module besides kernels: functions of tensors that give a tensor, or a description of
# tiles at its address (None for tensors of some kinds, and then for all of the kind).
ON_HOST = ("sum_into", "fixed_scale", "tiles_of")
# Functions of its module that launch for it, and kernels that are in no table: they look through ids.
LAUNCHING = ("block_bounds",)
PREPARING = ("bound_blocks", "find_reach")

Slots: TypeAlias = tuple[tuple[int, int], ...]
"""Places of arguments, and which tensor of the call stands there."""


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
    described: dict[int, Any] | None = None
    """Of a call that describes tiles: what it gave, by the address of its tensor."""


Allocation: TypeAlias = tuple[Callable[..., Tensor], Tensor]
"""How a tensor is made: by `torch.empty_like`, `torch.zeros_like` or `spread_like`, from a hollow one; PyTorch takes
twice as long to read a shape, a type and a device."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The steps of one kind of call. Tensors are counted: given, allocated, then results of the host's functions."""

    steps: tuple[Step, ...]
    allocations: tuple[Allocation, ...]
    results: tuple[int, ...]
    on: int
    """The number of the device; -1 for a CPU."""

    def __call__(self, given: Sequence[Tensor], start: int) -> list[Tensor]:
        """The results, of tensors of the kind that was recorded; they are on the current device."""
        tensors: list[Any] = [
            *given,
            *[make(like, memory_format=DENSE) for make, like in self.allocations],
        ]
        knobs, stream_of = _triton()
        stream = stream_of(self.on)
        watched = _watched(knobs.launch_enter_hook) or _watched(knobs.launch_exit_hook)
        for step in self.steps:
            if step.described is not None:
                tensors.append(_described(step, tensors[step.tensors[0][1]]))
                continue
            arguments = step.arguments.copy()
            for place in step.starts:
                arguments[place] = start
            if step.launch is None or watched:
                for place, which in step.tensors:
                    arguments[place] = tensors[which]
                if step.launch is None:
                    tensors.append(step.compiled(*arguments))
                else:
                    step.compiled[step.grid](*arguments, stream=stream)
                continue
            for place, which in step.pointers:
                arguments[place] = tensors[which].data_ptr()
            for place, which in step.objects:
                arguments[place] = tensors[which]
            step.launch(*step.grid, stream, *step.between, *arguments)  # type: ignore[misc]
        return [tensors[k] for k in self.results]


def _described(step: Step, x: Tensor) -> Any:
    """The description of a tensor's tiles: for tensors of one kind it depends on the address alone."""
    assert step.described is not None
    address = x.data_ptr()
    if address not in step.described:
        if len(step.described) >= MOST_DESCRIBED:
            step.described.clear()
        arguments = step.arguments.copy()
        arguments[step.tensors[0][0]] = x
        step.described[address] = step.compiled(*arguments)
    return step.described[address]


MOST_DESCRIBED = 64

DENSE = torch.contiguous_format

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


def spread_like(x: Tensor, *, memory_format: torch.memory_format | None = None) -> Tensor:
    """The same, as another tensor is."""
    return spread_zeros(x.shape, dtype=x.dtype, device=x.device)


def hollow(x: Tensor) -> Tensor:
    """A tensor of the same shape, type and device that takes the memory of a single value."""
    return torch.empty((), dtype=x.dtype, device=x.device).expand(x.shape)


def _launching(compiled: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The shortest way into a kernel: past Triton's launcher object where it would allocate nothing."""
    run = compiled.run
    hooks = (compiled.packed_metadata, None, None, None)
    sizes = ("global_scratch_size", "profile_scratch_size")
    if hasattr(run, "launch") and all(getattr(run, s, 1) == 0 for s in sizes):
        switches = (run.launch_cooperative_grid, run.launch_pdl)
        return run.launch, (compiled.function, *switches, None, None, *hooks)
    return run, (compiled.function, *hooks)


def _watched(hook: Any) -> bool:
    """Whether somebody listens to launches, a profiler for example."""
    return hook is not None and bool(getattr(hook, "calls", True))


def preparing(module: ModuleType) -> tuple[str, ...]:
    """The kernels of a module that are in no table."""
    return tuple(n for n in PREPARING if hasattr(module, n))


class _Allocator:
    """Stands in for `torch` in a launcher: keeps what was allocated, and how."""

    def __init__(self) -> None:
        self.made: list[tuple[Tensor, Callable[..., Tensor]]] = []

    def empty(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
        return self._kept(torch.empty(shape, dtype=dtype, device=device), torch.empty_like)

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
        return self._kept(torch.zeros(shape, dtype=dtype, device=device), torch.zeros_like)

    def spread_zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
        return self._kept(spread_zeros(shape, dtype=dtype, device=device), spread_like)

    def _kept(self, out: Tensor, make: Callable[..., Tensor]) -> Tensor:
        self.made.append((out, make))
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Watch:
    """Runs one function of a module, and remembers what it did."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.table: dict[str, Any] = module.KERNELS
        self.done: list[tuple[str, Launch | _Called]] = []
        self.allocator = _Allocator()

    def __call__(self, name: str, *arguments: Any) -> dict[str, Tensor]:
        """What the function of this name returns."""
        # What kernels whose warps specialise take is made anew at every call, so that no launch of one is kept; but it
        # must be seen, or a replay would leave it out.
        kernels = (*self.table, *getattr(self.module, "HOPPER", ()), *preparing(self.module))
        names: dict[str, Any] = {
            n: Recorder(getattr(self.module, n), self._launching(n)) for n in kernels
        }
        for n in ON_HOST:
            if hasattr(self.module, n):
                names[n] = self._calling(n)
        names["torch"] = self.allocator
        for n in LAUNCHING:
            if hasattr(self.module, n):
                names[n] = rebound(self.module, n, names)
        launcher = rebound(self.module, name, names)
        made: dict[str, Tensor] = launcher(*arguments)
        return made

    def _launching(self, name: str) -> Callable[[Launch], Any]:
        def act(launch: Launch) -> Any:
            launch.made = run(launch)
            self.done.append((name, launch))
            return launch.made

        return act

    def _calling(self, name: str) -> Callable[..., Any]:
        fn = getattr(self.module, name)

        def act(*arguments: Any) -> Any:
            out = fn(*arguments)
            self.done.append((name, _Called(fn, arguments, out)))
            return out

        return act

    def replay(
        self, given: Sequence[Tensor], results: Sequence[Tensor], moving: bool
    ) -> Replay | None:
        """The run as something to repeat, or None where that would not be the same.

        `given` are the tensors that the next call will bring, in their order; with `moving`, `start` may have another
        value then.
        """
        before = (*given, *(x for x, _ in self.allocator.made))
        known = {id(x): k for k, x in enumerate(before)}
        if len(known) != len(before):
            return None  # one tensor came twice (see `told_apart`): which place is whose cannot be told
        steps: list[Step] = []
        for name, done in self.done:
            if isinstance(done, _Called):
                if done.made is None:
                    continue
                step = _called(name, done, known)
                # A tensor that it hands through is known already, and counted twice.
                known[id(done.made)] = len(before) + sum(s.grid is None for s in steps)
            else:
                step = self._launched(name, done, known, moving)
            if step is None:
                return None
            steps.append(step)
        if not all(id(x) in known for x in results):
            return None
        return Replay(
            tuple(steps),
            tuple((make, hollow(x)) for x, make in self.allocator.made),
            tuple(known[id(x)] for x in results),
            given[0].get_device(),
        )

    def _launched(
        self, name: str, launch: Launch, known: dict[int, int], moving: bool
    ) -> Step | None:
        kept = name in self.table or name in PREPARING
        if not kept or not hasattr(launch.made, "packed_metadata"):
            return None  # an interpreter compiles nothing
        found = _slots(launch.arguments(), known)
        if found is None:
            return None
        arguments, tensors = found
        kinds = self.table[name]["arguments"] if name in self.table else ()
        starts = tuple(
            place
            for place, (_, kind, of) in enumerate(kinds)
            if moving and kind.startswith("param") and of == START
        )
        x, y, z = (*launch.grid, 1, 1)[:3]
        whole = launch.arguments()
        plain = tuple(s for s in tensors if isinstance(whole[s[0]], Tensor))
        others = tuple(s for s in tensors if s not in plain)
        fn, between = _launching(launch.made)
        return Step(launch.made, (x, y, z), arguments, tensors, starts, fn, between, plain, others)


@dataclass(frozen=True, slots=True)
class _Called:
    fn: Callable[..., Any]
    arguments: tuple[Any, ...]
    made: Any


def _called(name: str, done: _Called, known: dict[int, int]) -> Step | None:
    found = _slots(done.arguments, known)
    if found is None:
        return None
    return Step(done.fn, None, *found, described={} if name == "tiles_of" else None)


def _slots(arguments: tuple[Any, ...], known: dict[int, int]) -> tuple[list[Any], Slots] | None:
    """Arguments without tensors, and the places of these; None if one holds what is not known how to bring again."""
    out = list(arguments)
    slots = []
    for place, x in enumerate(arguments):
        if id(x) in known:
            slots.append((place, known[id(x)]))
            out[place] = None
        elif isinstance(x, Tensor) or (
            not isinstance(x, PLAIN) and not type(x).__module__.startswith("triton.language")
        ):
            return None
    return out, tuple(slots)


def told_apart(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors, each an object of its own: ids that came for queries and for keys may be two another time."""
    seen: set[int] = set()
    out = []
    for x in tensors:
        out.append(x.detach() if id(x) in seen else x)
        seen.add(id(x))
    return out


def kind_of(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """What a launch may depend on of its tensors: shapes, strides, types, devices, and how their memory is aligned."""
    return tuple(
        [(x.shape, x.stride(), x.dtype, x.get_device(), x.data_ptr() & 15) for x in tensors]
    )
