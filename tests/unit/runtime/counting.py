"""What calls of a program would compile on a GPU, counted without one.

    counted = Counted(cascade)
    counted.call(length=100, batch=2, heads=4, aligned=True)      # the kernels that are new, as Triton tells them apart

Every launch is stopped where Triton would look the kernel up. What it looks it up by (types, arguments that are 1 or
multiples of 16, constants, options) is computed by Triton itself, for a card of compute capability 9.0.
"""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from attndsl.cascade.nodes import Cascade, DType
from attndsl.codegen.configs import choice
from attndsl.runtime.launches import Launch, Recorder
from attndsl.runtime.stages import Stage, plan_passes
from attndsl.runtime.starts import with_start
from attndsl.runtime.watching import preparing
from attndsl.sizes import Scale, sizes

TYPES = {DType.FLOAT: torch.bfloat16, DType.INT: torch.int64, DType.BOOL: torch.bool}


def tensor(shape: tuple[int, ...], dtype: torch.dtype, aligned: bool) -> Tensor:
    """Zeros; unaligned ones start at an odd element, in rows of odd length."""
    if aligned or not shape:
        return torch.zeros(shape, dtype=dtype)
    row = shape[-1] + 1 + shape[-1] % 2
    flat = torch.zeros(math.prod(shape[:-1]) * row + 1, dtype=dtype)
    return flat[1:].view(*shape[:-1], row)[..., : shape[-1]]


@cache
def backend() -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import CUDABackend

    return CUDABackend(GPUTarget("cuda", 90, 32))


class Counted:
    """The kernels of one program, forward and backward, and by what Triton tells the compiled ones apart."""

    def __init__(self, cascade: Cascade) -> None:
        self.program = cascade
        cascade = with_start(cascade, "int")
        floats = tuple(t.name for t in cascade.inputs if t.dtype is DType.FLOAT)
        self.stage = Stage(cascade, plan_passes(cascade, floats), "triton", "counted")
        self.keys: set[tuple[str, str]] = set()
        module = self.stage.module
        for name in (*module.KERNELS, *preparing(module)):
            kernel = getattr(module, name)
            while isinstance(kernel, Recorder):  # another of these has the same module
                kernel = kernel.kernel
            setattr(module, name, Recorder(kernel, self.look_up))
        pretend(module)

    def look_up(self, launch: Launch) -> None:
        """Note by what Triton would look a kernel up."""
        from triton.runtime.jit import compute_cache_key, create_function_from_signature

        kernel = launch.kernel
        bind = create_function_from_signature(kernel.signature, kernel.params, backend())
        _, specialised, options = bind(*launch.positional, **launch.keyword, debug=False)
        self.keys.add((kernel.__name__, compute_cache_key({}, specialised, options)))

    def call(
        self, length: int, batch: int, heads: int, aligned: bool, spread: bool = False, **given: int
    ) -> set[tuple[str, str]]:
        """What a call, forward and backward, adds to what is compiled; of heads there are twice as many for queries.

        With `spread`, the gradients of all outputs are one value each, as those of a sum are.
        """
        before = set(self.keys)
        scale = Scale(batch, 2 * heads, length, 16, 32, 16, 2, 8)
        found = sizes(self.program, scale, given)
        inputs = {
            t.name: tensor(found.shapes[t.name], TYPES[t.dtype], aligned)
            for t in self.program.inputs
        }
        stage, params = self.stage, {**found.params, "start": 0}
        extents = stage.extents(found.extents, params)
        made = stage.forward(inputs, extents, params)
        named = dict(zip((*stage.outputs, *stage.residuals), made, strict=True))
        kept = {r: named[r] for r in stage.passes.residuals}
        shapes = {o: tuple(named[o].shape) for o in stage.outputs}
        grads = {
            o: torch.zeros((), dtype=named[o].dtype).expand(shape)
            if spread
            else tensor(shape, named[o].dtype, True)
            for o, shape in shapes.items()
        }
        grads = {o: g for o, g in grads.items() if o in stage.passes.cotangents}
        stage.backward({**inputs, **kept}, grads, extents, params)
        return self.keys - before


def pretend(module: ModuleType) -> None:
    """Make a module launch for a card that is not there."""
    smem = 227 * 1024

    def default_config(kernel: str, full: Any, itemsize: int, _: Any) -> Any:
        return choice(module.KERNELS[kernel]["facts"], dict(full), itemsize, smem)

    module.__dict__["default_config"] = default_config
    module.__dict__["capability"] = lambda device: 9
