"""Kernels compiled before they are needed: `op.warmup(shapes)`. Nothing is launched, and no tensor takes memory."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from attndsl.callerrors import CallError
from attndsl.cascade.nodes import Cascade, DType
from attndsl.runtime.beforehand import both_passes
from attndsl.runtime.engine import Engine, Start
from attndsl.runtime.launches import Launch, Recorder, rebound
from attndsl.runtime.watching import preparing

# What integer and boolean inputs are taken to be.
OTHERS = {DType.INT: torch.int64, DType.BOOL: torch.bool}


class Compiler:
    """Runs functions of a generated module so that their kernels are compiled, and not launched."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def __call__(self, name: str, *arguments: Any) -> dict[str, Tensor]:
        """What the function returns, without values."""
        names = (*self.module.KERNELS, *getattr(self.module, "HOPPER", ()), *preparing(self.module))
        kernels = {n: Recorder(getattr(self.module, n), compile_only) for n in names}
        made: dict[str, Tensor] = rebound(self.module, name, kernels)(*arguments)
        return made


def compile_only(launch: Launch) -> Any:
    """The machine code for a launch, and, where there is a card, the program in C that launches it."""
    from triton.runtime import driver
    from triton.runtime.jit import MockTensor

    def stand_in(x: Any) -> Any:
        return MockTensor(x.dtype) if isinstance(x, Tensor) else x

    if not hasattr(launch.kernel, "warmup"):
        return None  # an interpreter has nothing to compile
    made = launch.kernel.warmup(
        *map(stand_in, launch.positional),
        grid=launch.grid,
        **{k: stand_in(x) for k, x in launch.keyword.items()},
    )
    build = getattr(driver.active, "launcher_cls", None)
    if build is not None:  # on disk from now on: else a C compiler runs at the first launch
        build(made.src, made.metadata)
    return made


def warm(
    engine: Engine,
    shapes: dict[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
    start: Start,
    params: tuple[Any, ...],
    backward: bool,
) -> None:
    """Compile what a call of these shapes launches, and its backward pass.

    Raises: CallError if the shapes do not fit the program.
    """
    cascade = engine.cascade
    wrt = ",".join(t.name for t in cascade.inputs if t.dtype is DType.FLOAT) if backward else ""
    with FakeTensorMode():
        given = phantoms(cascade, shapes, dtype, device)
        call = engine.prepare(given, start, params, wrt)
        stage = call.stage
        if stage.backend == "eager":
            return
        run = Compiler(stage.module)
        inputs, numbers = call.tensors(given, start.at), engine.numbers(call, start)
        adding = engine.may_add()
        both_passes(stage, inputs, call.extents, numbers, call.config, run, backward, adding)


def place_of(name: str, device: torch.device | str) -> torch.device:
    """The device to compile for.

    Raises: CallError (A0520) where it is a GPU and there is none.
    """
    where = torch.device(device)
    if where.type != "cuda":
        return where
    if not torch.cuda.is_available():
        raise CallError(
            "A0520",
            f"{name}: there is no GPU to compile for",
            help="`attndsl compile --tuned --target sm_90` needs none; `attndsl.install` takes what it writes to where"
            " there is one",
        )
    return torch.device("cuda", torch.cuda.current_device()) if where.index is None else where


def phantoms(
    cascade: Cascade,
    shapes: dict[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """Tensors without memory, in declared order."""
    return tuple(
        torch.empty(shapes[t.name], dtype=OTHERS.get(t.dtype, dtype), device=device)
        for t in cascade.inputs
    )
