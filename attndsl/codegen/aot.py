"""Ahead-of-time compilation of a generated Triton module, on any Linux machine, with or without a GPU.

    kernels = compile_kernels(Path("alibi.py"), extents={"e": 128, "f": 128})
    [(k.name, k.target, k.registers, k.spills) for k in kernels]

Each kernel and target is compiled in a process of its own. The layout class compiled for is the usual one: the last
axis of a tensor is contiguous, other strides and all addresses are multiples of 16.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from attndsl.codegen.configs import choice, choose_eight, choose_warps, padded
from attndsl.codegen.sass import SassStats, disassemble, sass_stats
from attndsl.processors import processors
from attndsl.schedule.tile import SIXTEEN

# Shared memory that one block may ask for, in bytes.
SHARED_MEMORY = {
    "sm_80": 163 * 1024,
    "sm_86": 99 * 1024,
    "sm_89": 99 * 1024,
    "sm_90": 227 * 1024,
    "sm_100": 227 * 1024,
    "sm_120": 99 * 1024,
}
# Of 8 bits they lie in tiles as wide as of 16.
ITEM_SIZE = {"e4m3": 2, "bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8}

LONG_NAME = {
    "e4m3": "float8e4nv",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
}


class CompileError(Exception):
    """Triton or its assembler refused a kernel."""


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel for one target. `registers` are per thread, `spills` bytes of stack per thread, `shared` bytes."""

    name: str
    target: str
    ptx: str
    cubin: bytes
    registers: int
    spills: int
    shared: int
    config: Mapping[str, int]

    @cached_property
    def sass(self) -> str:
        """The machine code as text."""
        return disassemble(self.cubin)

    @cached_property
    def sass_stats(self) -> SassStats:
        """Instruction counts, in all and inside loops."""
        return sass_stats(self.sass)


def kernel_table(source: str, name: str = "KERNELS") -> dict[str, Any]:
    """A table of a generated module, read without importing it: `HOPPER` has the kernels whose warps specialise."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and node.value and ast.unparse(node.target) == name:
            table: dict[str, Any] = ast.literal_eval(node.value)
            return table
    if name == "HOPPER":
        return {}
    raise ValueError(f"the module has no table `{name}`")


def full_ranks(source: str) -> frozenset[str]:
    """The ranks whose extents must be known to compile the kernels of a module."""
    table = kernel_table(source)
    return frozenset(
        of for k in table.values() for _, kind, of in k["arguments"] if kind in ("full", "pad")
    )


def compile_kernels(
    module: Path,
    *,
    targets: Sequence[str] = ("sm_80", "sm_90"),
    dtype: str = "bf16",
    extents: Mapping[str, int],
    dtypes: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    workers: int | None = None,
) -> list[CompiledKernel]:
    """Compile every kernel of a generated module for every target, in parallel.

    `extents` gives the FULL ranks (head dims), `dtype` the type of the inputs (`bf16`, `fp16`, `fp32`, `fp64`),
    `dtypes` that of inputs which differ, `config` block sizes that override the defaults.

    Raises: CompileError with the compiler's words; ValueError (A0502) where no tile fits the target.
    """
    text = module.read_text(encoding="utf-8")
    call = _Call(dtype, extents, dtypes or {}, config or {})
    with tempfile.TemporaryDirectory(prefix="attndsl-aot-") as folder:
        jobs: list[tuple[str, str, dict[str, int], Path]] = []
        for name, kernel, target, chosen in _wanted(text, targets, call):
            capability = int(target.removeprefix("sm_"))
            job = _job(kernel, call, chosen, capability)
            job.update(module=str(module.resolve()), kernel=name, capability=capability)
            path = Path(folder) / f"{name}-{target}.json"
            path.write_text(json.dumps(job), encoding="utf-8")
            jobs.append((name, target, chosen, path))
        with ThreadPoolExecutor(workers or processors()) as pool:
            return list(pool.map(lambda j: _compile(*j), jobs))


@dataclass(frozen=True, slots=True)
class _Call:
    """The call that kernels are compiled for, as `compile_kernels` takes it."""

    dtype: str
    extents: Mapping[str, int]
    dtypes: Mapping[str, str]
    config: Mapping[str, Any]


def _wanted(
    text: str, targets: Sequence[str], call: _Call
) -> Iterator[tuple[str, Mapping[str, Any], str, dict[str, int]]]:
    """The kernels of a module, each with its row of the table, a target, and the configuration there."""
    table = kernel_table(text)
    for name, kernel in table.items():
        for target in targets:
            chosen = _config(name, kernel, target, call)
            other = kernel["facts"].get("follows")
            if other is not None:  # the chunks of another kernel
                theirs = _config(other, table[other], target, call)
                chosen.update((k, theirs[k]) for k in chosen if k.startswith("BLOCK_"))
            yield name, kernel, target, chosen
    for name, kernel in kernel_table(text, "HOPPER").items():
        warps = _warps(name, kernel, call) if "sm_90" in targets else None
        if warps is not None:
            yield name, kernel, "sm_90", warps


def _config(name: str, kernel: Mapping[str, Any], target: str, call: _Call) -> dict[str, int]:
    smem = SHARED_MEMORY.get(target, 99 * 1024)
    chosen = choice(kernel["facts"], dict(call.extents), ITEM_SIZE[call.dtype], smem)
    own = call.config.get(name, call.config)
    chosen.update((k, int(v)) for k, v in own.items() if k in chosen)
    return chosen


def _warps(name: str, kernel: Mapping[str, Any], call: _Call) -> dict[str, int] | None:
    """The configuration of a kernel whose warps specialise; None where the call would take the portable one."""
    tensors = [of.split()[0] for _, kind, of in kernel["arguments"] if kind == "descriptor"]
    if ITEM_SIZE[call.dtype] != 2 or any(
        call.dtypes.get(t, call.dtype) != call.dtype for t in tensors
    ):
        return None
    find = choose_eight if kernel["facts"].get("eight") else choose_warps
    chosen = find(kernel["facts"], dict(call.extents), SHARED_MEMORY["sm_90"])
    if chosen is not None:
        own = call.config.get(name, {})
        chosen.update((k, int(v)) for k, v in own.items() if k in chosen)
    return chosen


def _job(
    kernel: Mapping[str, Any], call: _Call, config: Mapping[str, int], capability: int
) -> dict[str, Any]:
    """Signature, constants and alignment of one kernel, from its table of arguments."""
    dtype, extents, dtypes = call.dtype, call.extents, call.dtypes
    wide = "fp64" if dtype == "fp64" else "fp32"
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    aligned: list[str] = []
    for name, kind, of in kernel["arguments"]:
        signature[name] = "constexpr"
        match kind:
            case "pointer_like":
                signature[name] = f"*{_element(of, call)}"
                aligned.append(name)
            case "pointer_int32":
                signature[name] = "*i32"
                aligned.append(name)
            case "pointer_acc" | "pointer_int" | "pointer_bool" | "pointer_fixed":
                signature[name] = {"pointer_acc": f"*{wide}", "pointer_bool": "*i1"}.get(
                    kind, "*i64"
                )
                aligned.append(name)
            case "scales":  # of tiles in halves, which calls take apart
                constants[name] = None
            case "tiles":
                tensor, ndim, axis, block, row = of.split()
                element = _element(tensor, call)
                if capability < 90 or ITEM_SIZE[dtypes.get(tensor, dtype)] != 2:
                    constants[name] = None
                else:
                    box = [1] * int(ndim)
                    box[int(axis)] = config[block]
                    whole = row not in config
                    box[-1] = padded(int(extents[row]), ITEM_SIZE[dtype]) if whole else config[row]
                    signature[name] = f"tensordesc<{element}{box}>"
            case "descriptor" | "descriptor_acc" | "descriptor_sixteen":
                _, *sides = of.split()
                pads = {n: r for n, k, r in kernel["arguments"] if k == "pad"}
                box = []
                for side in sides:
                    x, _, part = side.partition("*")  # of a row's columns, as many as a group adds
                    n = padded(int(extents[pads[x]]), 2) if x in pads else config.get(x) or int(x)
                    box.append(n * config[part.removesuffix("//128")] // 128 if part else n)
                element = _element(SIXTEEN if kind == "descriptor_sixteen" else of, call)
                element = wide if kind == "descriptor_acc" else element
                signature[name] = f"memory {element} {' '.join(map(str, box))}"
            case "config":
                constants[name] = config[name]
            case "wide":
                signature[name] = "i64"
            case "stride" | "stride_wide":
                signature[name] = "i32" if kind == "stride" else "i64"
                aligned.append(name)
            case "stride_last":
                constants[name] = 1
            case "extent" | "param_int" | "param_bool":
                signature[name] = "i32"
            case "row":
                signature[name] = "i32"
                if int(extents.get(of, 16)) % 16 == 0:
                    aligned.append(name)
            case "param_float":
                signature[name] = "fp64"
            case "full":
                constants[name] = int(extents[of])
            case "pad":
                constants[name] = padded(int(extents[of]), ITEM_SIZE[dtype])
            case "block":
                constants[name] = config[name]
            case "type":
                constants[name] = LONG_NAME[dtypes.get(of, dtype)]
            case "acc":
                constants[name] = LONG_NAME[wide]
            case "stages":
                constants[name] = config["num_stages"]
            case _:
                raise AssertionError(kind)
    options = {k: config[k] for k in ("num_warps", "num_stages", "maxnreg") if k in config}
    return {"signature": signature, "constants": constants, "aligned": aligned, "options": options}


def _element(of: str, call: _Call) -> str:
    """What Triton calls the type of an input's elements."""
    name = "bf16" if of == SIXTEEN else call.dtypes.get(of, call.dtype)
    return {"e4m3": "fp8e4nv"}.get(name, name)


def _compile(name: str, target: str, config: dict[str, int], path: Path) -> CompiledKernel:
    # -P: the folder of the worker, where a triton.py lies too, must not shadow Triton.
    worker = Path(__file__).with_name("aot_worker.py")
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-P", str(worker), str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    if done.returncode != 0:
        raise CompileError(f"{name} for {target} with {config}:\n{done.stderr[-6000:]}")
    result = json.loads(path.with_suffix(".out").read_text(encoding="utf-8"))
    usage = {k: int(v) for k, v in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", result["usage"])}
    return CompiledKernel(
        name=name,
        target=target,
        ptx=path.with_suffix(".ptx").read_text(encoding="utf-8"),
        cubin=path.with_suffix(".cubin").read_bytes(),
        registers=usage["REG"],
        spills=usage.get("STACK", 0) + usage.get("LOCAL", 0),
        shared=result["shared"],
        config=config,
    )
