"""A run of a generated launcher, watched: what it allocates, launches and has the host compute, as a `Replay`.

watch = Watch(module)
made = watch("forward", inputs, extents, params, config)      # runs, and remembers
replay = watch.replay(tensors, [made["O"]], moving=False)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from attndsl.cascade.starts import START
from attndsl.runtime.contexts import bind
from attndsl.runtime.launches import Launch, Recorder, rebound, run
from attndsl.runtime.quick import Quick, Slots, example_of, quick
from attndsl.runtime.replay import Allocation, Replay, Step, allocation, spread_zeros

PLAIN = (int, float, bool, str, tuple, list, torch.dtype, type(None))
# What a launcher calls of its module besides kernels: functions of tensors that give a tensor, or a description of
# tiles at its address (None for tensors of some kinds, and then for all of the kind).
ON_HOST = ("sum_into", "fixed_scale", "halved", "tiles_of", "scales_of", "memory_tiles")
# Functions of its module that launch for it, and kernels that are in no table: they look through ids.
LAUNCHING = ("block_bounds", "turned", "parts_of")
# Functions of its module that give a tensor which depends on sizes alone, and is the same one at every call.
KEPT = ("turns_of",)
PREPARING = ("bound_blocks", "find_reach", "turn", "take_apart")


class _Allocator:
    """Stands in for `torch` in a launcher: keeps what was allocated, and how."""

    def __init__(self) -> None:
        self.made: list[tuple[Tensor, Callable[..., Tensor]]] = []

    def empty(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
        return self._kept(torch.empty(shape, dtype=dtype, device=device), torch.empty)

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
        return self._kept(torch.zeros(shape, dtype=dtype, device=device), torch.zeros)

    def spread_zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
        return self._kept(spread_zeros(shape, dtype=dtype, device=device), spread_zeros)

    def same(self, out: Tensor | None) -> Tensor | None:
        """A tensor that is the same one in each call, of two kernels too."""
        if out is not None and all(out is not x for x, _ in self.made):
            self.made.append((out, partial(_itself, out)))
        return out

    def _kept(self, out: Tensor, make: Callable[..., Tensor]) -> Tensor:
        self.made.append((out, make))
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Watch:
    """Runs one function of a module, and remembers what it did."""

    def __init__(self, module: ModuleType, before: Callable[[str], None] | None = None) -> None:
        """`before` is told the name of each kernel that is about to be launched."""
        self.module = module
        self.before = before or (lambda name: None)
        self.table: dict[str, Any] = {**module.KERNELS, **getattr(module, "HOPPER", {})}
        self.done: list[tuple[str, Launch | _Called]] = []
        self.allocator = _Allocator()

    def __call__(self, name: str, *arguments: Any) -> dict[str, Tensor]:
        """What the function of this name returns."""
        more: dict[str, Any] = {n: self._calling(n) for n in ON_HOST if hasattr(self.module, n)}
        for n in KEPT:
            if hasattr(self.module, n):
                more[n] = self._keeping(getattr(self.module, n))
        more["torch"] = self.allocator
        bind(next(iter(arguments[0].values())).device)
        launcher = rebound_all(
            self.module, name, lambda n, kernel: Recorder(kernel, self._launching(n)), more
        )
        made: dict[str, Tensor] = launcher(*arguments)
        return made

    def _launching(self, name: str) -> Callable[[Launch], Any]:
        def act(launch: Launch) -> Any:
            self.before(name)
            launch.made = run(launch)
            self.done.append((name, launch))
            return launch.made

        return act

    def _keeping(self, fn: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
        return lambda *arguments: self.allocator.same(fn(*arguments))

    def _calling(self, name: str) -> Callable[..., Any]:
        fn = getattr(self.module, name)

        def act(*arguments: Any) -> Any:
            out = fn(*arguments)
            if example_of(out) is not None:
                # A module keeps descriptions by address: of two tensors in one place it would be the same object, and
                # whose it was for a call that brings them apart could not be told.
                out = copy.copy(out)
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
        count = len(before)
        for name, done in self.done:
            if isinstance(done, _Called):
                if done.made is None:
                    continue
                step = _called(done, known, count)
                # A tensor that it hands through is known already, and counted twice.
                known[id(done.made)] = count
                count += 1
            else:
                step = self._launched(name, done, known, moving)
            if step is None:
                return None
            steps.append(step)
        if not all(id(x) in known for x in results):
            return None
        return Replay(
            tuple(steps),
            shortened(steps),
            tuple(_again(make, x) for x, make in self.allocator.made),
            tuple(known[id(x)] for x in results),
            given[0].get_device(),
            (None,) * (count - len(before)),
            (0,) * (count - len(before)),
        )

    def _launched(
        self, name: str, launch: Launch, known: dict[int, int], moving: bool
    ) -> Step | None:
        if not hasattr(launch.made, "packed_metadata"):
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


def _itself(x: Tensor) -> Tensor:
    return x


def _again(make: Callable[..., Tensor], x: Tensor) -> Allocation:
    return make if isinstance(make, partial) else allocation(make, x)


@dataclass(frozen=True, slots=True)
class _Called:
    fn: Callable[..., Any]
    arguments: tuple[Any, ...]
    made: Any


def _called(done: _Called, known: dict[int, int], at: int) -> Step | None:
    found = _slots(done.arguments, known)
    if found is None:
        return None
    return Step(done.fn, None, *found, at=at, example=example_of(done.made))


def shortened(steps: Sequence[Step]) -> tuple[Step | Quick, ...]:
    """The steps with launches by the shortest way; tiles that only such launches take are not described any more."""
    tiles = {s.at: s for s in steps if s.example is not None and len(s.tensors) == 1}
    out: list[Step | Quick] = []
    needed: set[int] = set()
    for s in steps:
        made = None
        if (
            s.launch is not None
            and s.grid is not None
            and {w for _, w in s.objects} <= tiles.keys()
        ):
            of = {p: (tiles[w].tensors[0][1], tiles[w].example) for p, w in s.objects}
            made = quick(s.grid, s.launch, s.between, s.arguments, s.pointers, s.starts, of)
        if made is None:
            needed |= {which for _, which in s.tensors}
        out.append(s if made is None else made)
    return tuple(s for s in out if isinstance(s, Quick) or s.at not in tiles or s.at in needed)


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


def _launching(compiled: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The shortest way into a kernel: past Triton's launcher object where it would allocate nothing."""
    run = compiled.run
    hooks = (compiled.packed_metadata, None, None, None)
    sizes = ("global_scratch_size", "profile_scratch_size")
    if hasattr(run, "launch") and all(getattr(run, s, 1) == 0 for s in sizes):
        switches = (run.launch_cooperative_grid, run.launch_pdl)
        return run.launch, (compiled.function, *switches, None, None, *hooks)
    return run, (compiled.function, *hooks)


def rebound_all(
    module: ModuleType,
    launcher: str,
    stand_in: Callable[[str, Any], Any],
    more: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """A launcher of a module with something in place of each kernel, also of those that its helpers launch."""
    kernels = (*module.KERNELS, *getattr(module, "HOPPER", {}), *preparing(module))
    names = {n: stand_in(n, getattr(module, n)) for n in kernels} | (more or {})
    names |= {n: rebound(module, n, names) for n in LAUNCHING if hasattr(module, n)}
    return rebound(module, launcher, names)


def preparing(module: ModuleType) -> tuple[str, ...]:
    """The kernels of a module that are in no table."""
    return tuple(n for n in PREPARING if hasattr(module, n))


def told_apart(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors, each an object of its own: ids that came for queries and for keys may be two another time."""
    seen: set[int] = set()
    out = []
    for x in tensors:
        out.append(x.detach() if id(x) in seen else x)
        seen.add(id(x))
    return out
