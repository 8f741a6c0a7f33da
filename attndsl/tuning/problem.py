"""What is tuned: one pass of a program at one size, written down so that child processes need not plan it again.

pose(cascade, Way("forward", wrt=()), sizes, "bf16")   ->  Problem
"""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from attndsl.cascade.bind import Number
from attndsl.cascade.nodes import Cascade, DType
from attndsl.cascade.starts import START
from attndsl.codegen.aot import kernel_table
from attndsl.runtime.cache import store_module
from attndsl.runtime.stages import WARPS, Passes, Stage, plan_passes
from attndsl.runtime.starts import StartKind, with_start
from attndsl.schedule.tile import Buffer, TileProgram
from attndsl.sizes import Sizes
from attndsl.tuning.first import Usual, usual
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.keys import float_types

# As long as the header of an operator's module: the compiler's cache tells kernels apart by their line, too, and what
# tuning has compiled need not be compiled again by the first call.
HEADER = "source: tuned"

LONG = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}
BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8}


@dataclass(frozen=True, slots=True)
class Problem:
    """One pass at one size. `module` and `eager` are files; `tensors` says what the launcher takes.

    The module is the one that calls run on such a card: what is compiled of it, calls find in Triton's cache.
    """

    cascade: Cascade
    passes: Passes
    launcher: str
    kernels: tuple[Kernel, ...]
    module: Path
    eager: Path
    dtype: str
    extents: dict[str, int]
    params: dict[str, Number]
    seed: int = 0
    special: tuple[Kernel, ...] = ()
    """Kernels whose warps specialise, for some of the `kernels`."""
    usual: Usual | None = None
    """At which extents it is chosen what runs without an entry."""

    @property
    def every(self) -> tuple[Kernel, ...]:
        """All kernels that there are candidates of."""
        return (*self.kernels, *self.special)

    def told(self, kernel: str, config: Mapping[str, int]) -> dict[str, dict[str, int]]:
        """What a launcher is told so that it launches this kernel, with this configuration."""
        portable = all(k.name != kernel for k in self.special)
        return {kernel: dict(config), **({"portable": {"": 1}} if portable else {})}

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the inputs."""
        return BYTES[self.dtype]

    def floats(self) -> dict[str, str]:
        """The tensors that have the inputs' type, with it."""
        own = {t.name: LONG[self.dtype] for t in self.cascade.inputs}
        return float_types(self.cascade, self.passes.forward, self.passes.cotangents, own)

    def tensors(self) -> dict[str, list[Any]]:
        """What the launcher takes, by name: shape, dtype, strides."""
        plan = self.kernels[0].plan
        written: set[str] = set()
        for step in plan.steps:
            written |= set(step.writes) if isinstance(step, TileProgram) else {step.out}
        taken = [b for b in plan.buffers if b.name not in written]
        return {b.name: self._spec(b) for b in taken}

    def _spec(self, b: Buffer) -> list[Any]:
        shape = [self.extents[r] for r in b.ranks]
        strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
        match b.dtype:
            case DType.INT:
                dtype = "int64"
            case DType.BOOL:
                dtype = "bool"
            case DType.FLOAT:
                like = b.like is not None or b.name in self.floats()
                dtype = LONG[self.dtype] if like or self.dtype == "fp64" else "float32"
        return [shape, dtype, strides]

    def save(self, folder: Path) -> Path:
        """The problem as a file for `attndsl.tuning.measuring`."""
        path = folder / f"{self.launcher}.problem"
        path.write_bytes(pickle.dumps(self))
        return path


def hash_of(cascade: Cascade) -> str:
    """A name for a program's meaning, as in `driver.Program.hash`."""
    from attndsl.cascade.printer import print_cascade

    return hashlib.sha256(print_cascade(cascade).encode()).hexdigest()[:16]


def kernels_of(passes: Passes, table: dict[str, Any]) -> tuple[Kernel, ...]:
    """The kernels of a generated module with their tile programs: the table has them in the order of the launchers."""
    plans = (
        ("forward", passes.forward),
        ("backward", passes.backward),
        ("backward_added", passes.adding),
        ("forward_split", passes.split),
    )
    steps = [
        (launcher, plan, s)
        for launcher, plan in plans
        if plan is not None
        for step in plan.steps
        if isinstance(step, TileProgram)
        for s in (step, step.again)
        if s is not None
    ]
    return tuple(
        Kernel(name, launcher, plan, s, entry["facts"])
        for (name, entry), (launcher, plan, s) in zip(table.items(), steps, strict=True)
    )


@dataclass(frozen=True)
class Planned:
    """A program as it is called in one way: its passes, its module for a backend, and the eager one."""

    cascade: Cascade
    passes: Passes
    stage: Stage
    kernels: tuple[Kernel, ...]
    special: tuple[Kernel, ...]
    eager: str


@lru_cache(8)
def planned(
    cascade: Cascade, kind: StartKind, wrt: tuple[str, ...], backend: str = "triton"
) -> Planned:
    """Planned once for all launchers: they are of one module."""
    shifted = with_start(cascade, kind)
    passes = plan_passes(shifted, wrt)
    stage = Stage(shifted, passes, backend, HEADER)
    eager = Stage(shifted, passes, "eager", "")
    kernels = kernels_of(passes, kernel_table(stage.text))
    table = kernel_table(stage.text, "HOPPER") if backend in WARPS else {}
    special = tuple(s for k in kernels if (s := special_of(k, table)) is not None)
    return Planned(shifted, passes, stage, kernels, special, eager.text)


def backend_for(capability: int) -> str:
    """The backend that serves calls on a card of this capability, where none is asked for."""
    return "auto" if capability == 90 else "triton"


def special_of(kernel: Kernel, table: Mapping[str, Any]) -> Kernel | None:
    """The kernel for the same step whose warps specialise, by the table of these; None if there is none."""
    entry = table.get(f"{kernel.name}_hopper")
    if entry is None:
        return None
    return replace(kernel, name=f"{kernel.name}_hopper", warps=entry["facts"])


def pose(
    cascade: Cascade,
    launcher: str,
    sizes: Sizes,
    dtype: str,
    *,
    wrt: tuple[str, ...] = (),
    multiprocessors: int = 132,
    backend: str = "triton",
    specialise: bool = False,
) -> Problem | None:
    """The problem of tuning one launcher; None where the program, at this size, does not use it.

    `backend` is the calls'. With `specialise`, kernels of it whose warps specialise are candidates too.
    """
    # As a call would have it: without `start` where the queries stand at the beginning.
    kind: StartKind = "int" if sizes.params.get(START) else "none"
    params = {n: v for n, v in sizes.params.items() if n != START or kind == "int"}
    made = planned(cascade, kind, wrt, backend)
    extents = made.stage.extents(sizes.extents, params)
    if launcher == "forward_split":
        more = made.stage.few.slices(extents, multiprocessors) if made.stage.few else None
        if more is None:
            return None
        extents |= more
    mine = tuple(k for k in made.kernels if k.launcher == launcher)
    if not mine:
        return None
    may = specialise and BYTES[dtype] == 2
    return Problem(
        cascade=made.cascade,
        passes=made.passes,
        launcher=launcher,
        kernels=mine,
        module=store_module(made.stage.text, f"{cascade.name}_{backend}"),
        eager=store_module(made.eager, f"{cascade.name}_eager"),
        dtype=dtype,
        extents=extents,
        params=params,
        usual=usual(made.stage, mine, extents),
        special=tuple(k for k in made.special if k.launcher == launcher and may),
    )
