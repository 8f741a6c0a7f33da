"""Kernels compiled beside each other, before they are launched one after another.

    begun = Beforehand()
    wait = begun.begin(call, inputs, numbers, adding=False)   # a stage's first: threads compile all but the first one
    wait("causal_backward_dK_dV")                             # until they have, or at once where nobody compiles it

A first call with gradients would otherwise compile the forward pass's kernel, then the backward pass's, one behind the
other. What a pass launches is found by walking its launcher; nothing is launched by that. Most of compiling goes on
without Python's lock, in LLVM and in programs of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from attndsl.cascade.bind import Number
from attndsl.codegen.toolkit import sound_assembler
from attndsl.processors import processors
from attndsl.runtime.launches import Launch, Recorder
from attndsl.runtime.stages import TRITON, Config, Run, Stage
from attndsl.runtime.watching import rebound_all

if TYPE_CHECKING:
    from attndsl.runtime.engine import Prepared

Wait = Callable[[str], None]
"""Waits until a kernel, by its name, is compiled."""


class Beforehand:
    """What is being compiled for the stages of a program."""

    def __init__(self) -> None:
        self.jobs: WeakKeyDictionary[Stage, dict[torch.device, dict[str, list[Future[None]]]]]
        self.jobs = WeakKeyDictionary()

    def begin(
        self,
        call: Prepared,
        inputs: Mapping[str, Tensor],
        numbers: Mapping[str, Number],
        adding: bool,
    ) -> Wait:
        """Have threads compile what both passes of a call launch, at the first call of its stage on its device.

        `adding` allows sums in the order in which they come.
        """
        device = next(iter(inputs.values())).device
        known = self.jobs.setdefault(call.stage, {})
        if device not in known and worth(call.stage, device):
            known[device] = {}
            # What goes wrong here goes wrong in the call itself, which says it.
            with suppress(Exception):
                known[device] = started(
                    collected(call, dict(inputs), dict(numbers), adding), device
                )
        return self.waiting(call.stage, device)

    def waiting(self, stage: Stage, device: torch.device) -> Wait:
        """What to do before a kernel of a stage is launched."""
        jobs = self.jobs.get(stage, {}).get(device, {})

        def wait(name: str) -> None:
            for job in jobs.pop(name, ()):
                job.result()

        return wait


def worth(stage: Stage, device: torch.device) -> bool:
    """Whether there is anything to compile beside the first kernel."""
    several = stage.passes.backward is not None or len(stage.module.KERNELS) > 1
    return (
        several
        and stage.backend in TRITON
        and device.type == "cuda"
        and not torch.cuda.is_current_stream_capturing()
    )


def both_passes(
    stage: Stage,
    inputs: dict[str, Tensor],
    extents: dict[str, int],
    numbers: dict[str, Number],
    config: Config,
    run: Run,
    backward: bool,
    adding: bool,
) -> None:
    """Have `run` call the functions of a stage's module, with tensors of the right kinds and any values.

    `adding` allows sums in the order in which they come.
    """
    made = stage.forward(inputs, extents, numbers, config, run)
    if not backward:
        return
    kept = dict(zip((*stage.outputs, *stage.residuals), made, strict=True))
    tensors = inputs | {r: kept[r] for r in stage.passes.residuals}
    grads = {o: torch.empty_like(kept[o]) for o in stage.passes.cotangents}
    adding = adding and stage.passes.adding is not None
    stage.backward(tensors, grads, extents, numbers, config, run, adding)


def collected(
    call: Prepared, inputs: dict[str, Tensor], numbers: dict[str, Number], adding: bool
) -> list[tuple[str, Launch]]:
    """What both passes launch, by name; without tensors, so that none is held while it compiles."""
    found: list[tuple[str, Launch]] = []

    def noting(name: str) -> Callable[[Launch], Any]:
        return lambda launch: found.append((name, light(launch)))

    def run(name: str, *arguments: Any) -> dict[str, Tensor]:
        made: dict[str, Tensor] = rebound_all(
            call.stage.module, name, lambda n, kernel: Recorder(kernel, noting(n))
        )(*arguments)
        return made

    both = call.stage.passes.backward is not None
    both_passes(call.stage, inputs, call.extents, numbers, call.config, run, both, adding)
    return found


def started(
    launches: list[tuple[str, Launch]], device: torch.device
) -> dict[str, list[Future[None]]]:
    """Threads at work on all kernels but the first, which who asked compiles at once; by name."""
    out: dict[str, list[Future[None]]] = {}
    first = next((n for n, _ in launches), None)
    rest = [(n, x) for n, x in launches if n != first]
    if not rest:
        return out
    pool = ThreadPoolExecutor(min(len(rest), processors()), "attndsl-compiling")
    for name, launch in rest:
        out.setdefault(name, []).append(pool.submit(compiled, launch, device))
    pool.shutdown(wait=False)
    return out


def compiled(launch: Launch, device: torch.device) -> None:
    """Compile a kernel, and what launches it; who launches it is told what is wrong with it.

    It is not loaded: by loading, Triton gives a thread the CUDA context without which it describes no tiles, and the
    thread of a backward pass may have done nothing else on the card.
    """
    from triton.runtime import driver

    with suppress(Exception), torch.cuda.device(device), sound_assembler():
        made = launch.kernel.warmup(*launch.positional, grid=launch.grid, **launch.keyword)
        driver.active.launcher_cls(made.src, made.metadata)  # on disk from now on


def light(launch: Launch) -> Launch:
    """A launch with something in place of each tensor that Triton compiles the same for."""
    positional = tuple(map(_stand_in, launch.positional))
    keyword = {n: _stand_in(x) for n, x in launch.keyword.items()}
    return Launch(launch.kernel, launch.grid, positional, keyword)


def _stand_in(x: Any) -> Any:
    from triton.runtime.jit import MockTensor

    if isinstance(x, Tensor):
        return x if x.data_ptr() % 16 else MockTensor(x.dtype)
    base = getattr(x, "base", None)  # a description of tiles
    if not isinstance(base, Tensor):
        return x
    out = copy.copy(x)
    object.__setattr__(out, "base", MockTensor(base.dtype))
    return out
