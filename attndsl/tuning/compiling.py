"""A child that compiles candidates: `python -m attndsl.tuning.compiling`. It needs no GPU.

It walks the generated launcher on tensors without memory, for a driver that knows a target and has no device, so that
what reaches Triton's cache is under the very key that a launch on that GPU looks for.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from attndsl.codegen.toolkit import sound_assembler, tool
from attndsl.runtime.launches import Launch, Recorder, rebound
from attndsl.runtime.watching import preparing
from attndsl.tuning.child import Message, serve

# As many compile as there are processors; who measures, and who called, come first.
NICE = 10


class Cross:
    """A driver of Triton's for a GPU that is not there."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def load(path: str) -> ModuleType:
    """A generated module by its file."""
    name = f"attndsl_generated.{Path(path).stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def phantom(spec: list[Any]) -> Any:
    """A tensor without memory: [shape, dtype, strides]."""
    import torch

    shape, dtype, strides = spec
    return torch.empty_strided(shape, strides, dtype=getattr(torch, dtype), device="meta")


def compile_candidate(message: Message) -> Message:
    """Compile one kernel of a pass, as the launcher is told to take it; what its machine code takes.

    What the pass prepares by kernels of its own is compiled too.
    """
    from triton.runtime import driver

    begin = time.perf_counter()
    driver.set_active(Cross(message["capability"]))
    module = load(message["module"])
    kernel = message["kernel"]
    made: list[Any] = []

    def only_compile(launch: Launch) -> None:
        if launch.kernel is wanted:
            made.append(wanted.warmup(*launch.positional, grid=launch.grid, **launch.keyword))
        elif any(launch.kernel is k for k in before):
            launch.kernel.warmup(*launch.positional, grid=launch.grid, **launch.keyword)

    wanted = getattr(module, kernel)
    before = [getattr(module, n) for n in preparing(module)]
    kernels = (*module.KERNELS, *getattr(module, "HOPPER", ()), *preparing(module))
    names = {n: Recorder(getattr(module, n), only_compile) for n in kernels}
    launcher = rebound(module, message["launcher"], names)
    tensors = {n: phantom(s) for n, s in message["tensors"].items()}
    with sound_assembler():
        launcher(tensors, message["extents"], message["params"], message["told"])
    if not made:
        raise RuntimeError(f"{message['launcher']} never launched {kernel}")
    code = made[-1]
    # The program in C that launches it, on disk from now on: who measures would run a compiler, and have the card
    # meanwhile. Without a driver there is nothing to link it with.
    with suppress(Exception):
        from triton.backends.nvidia.driver import CudaLauncher

        CudaLauncher(code.src, code.metadata)
    return {
        "seconds": time.perf_counter() - begin,
        "shared": int(code.metadata.shared),
        **usage(code.asm["cubin"]),
    }


def usage(cubin: bytes) -> dict[str, int]:
    """Registers a thread, and bytes a thread that are kept in memory for want of registers."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool("cuobjdump"), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {k: int(v) for k, v in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return {"registers": found["REG"], "spills": found.get("STACK", 0) + found.get("LOCAL", 0)}


def handle(message: Message) -> Message:
    """Compile; or, asked to open, import what compiling needs."""
    if message["do"] == "open":
        import torch  # noqa: F401
        import triton  # noqa: F401

        os.nice(NICE)
        return {"open": True}
    return compile_candidate(message)


if __name__ == "__main__":
    serve(handle)
