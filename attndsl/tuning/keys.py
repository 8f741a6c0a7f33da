"""The keys of kernels in the database: equal where one configuration serves.

key_of(kernel, "f3f3a59f8b1cacc0", extents, dtypes={"Q": "bfloat16", …}, gpu="NVIDIA H100 80GB HBM3")
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

from attndsl.cascade.nodes import Cascade, DType
from attndsl.schedule.tile import Plan, Role
from attndsl.tuning.database import Key
from attndsl.tuning.kernel import Kernel

SHORT = {
    "float8_e4m3fn": "e4m3",
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "float64": "fp64",
}


def key_of(
    kernel: Kernel,
    program: str,
    extents: Mapping[str, int],
    dtypes: Mapping[str, str],
    gpu: str,
    name: str = "",
) -> Key:
    """The key of one kernel at one size; `name` is `name_in_key(kernel)`, for those who have it."""
    pads, floats = kernel.facts["pads"], types(kernel, dtypes)
    # Of other types than float32 nothing comes in halves, with gradients or without.
    halves = "-halves" if "halves" in kernel.facts and "fp32" in floats.split("+") else ""
    return Key(
        program=program,
        kernel=(name or name_in_key(kernel)) + halves,
        gpu=gpu,
        dtypes=floats,
        dims=" ".join(f"{r}={extents[r]}" for r in sorted(set(pads.values()))),
        bucket=bucket(kernel, extents),
    )


def name_in_key(kernel: Kernel) -> str:
    """A kernel's name with its digest."""
    return f"{kernel.name}-{digest(kernel)}"


def digest(kernel: Kernel) -> str:
    """Of what tile sizes depend on; the order in which values are declared is no part of it."""
    facts = {k: sorted(map(str, v)) if isinstance(v, tuple) else v for k, v in kernel.facts.items()}
    facts["tiles"] = kernel.facts["tiles"]
    facts.pop("halves", None)  # `key_of` says it
    warps = [] if kernel.warps is None else [kernel.warps]
    text = json.dumps([kernel.dialect, facts, *warps], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def types(kernel: Kernel, dtypes: Mapping[str, str]) -> str:
    """The types of what passes through shared memory; a slope of float32 beside bfloat16 is no other case."""
    data = [dtypes[n] for n in kernel.facts["data"] if n in dtypes] or list(dtypes.values())
    floats = sorted({SHORT[d] for d in data if d in SHORT})
    return "+".join(floats)


def float_types(
    cascade: Cascade, forward: Plan, cotangents: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """The types of what has an input's type: inputs, outputs made like them, and the gradients of these.

    `own` are the types of inputs; `cotangents` names the gradients of outputs.
    """
    out = {t.name: own[t.name] for t in cascade.inputs if t.dtype is DType.FLOAT}
    out |= {b.name: own.get(b.like, b.like) for b in forward.buffers if b.like is not None}
    return out | {c: out[o] for o, c in cotangents.items() if o in out}


def bucket(kernel: Kernel, extents: Mapping[str, int]) -> str:
    """Programs of the grid, and extents of the tiled, streamed and looped axes, each up to the next power of two."""
    grid = math.prod(extents[a.rank] for a in kernel.program.of(Role.GRID))
    parts = [f"programs={power(grid)}"]
    for role in (Role.TILE, Role.STREAM, Role.LOOP):
        parts += [f"{a.name}={power(extents[a.rank])}" for a in kernel.program.of(role)]
    return " ".join(parts)


def power(n: int) -> int:
    """The power of two from `n` up."""
    return 1 << max(0, n - 1).bit_length()
