"""Tuned configurations for a call: looked up when a call of its kind comes first.

look_up(cascade, stage, inputs, extents)      # {"causal": {"BLOCK_I": 128, …}}, or None
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from attndsl.cascade.nodes import Cascade
from attndsl.runtime.stages import Config, Stage
from attndsl.tuning.database import Key
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.keys import float_types, key_of, name_in_key
from attndsl.tuning.problem import hash_of, kernels_of, special_of
from attndsl.tuning.store import store


@dataclass(frozen=True, slots=True)
class Known:
    """What does not change from call to call: the program's hash, the kernels of a stage, and their names in keys."""

    program: str
    kernels: tuple[Kernel, ...]
    names: tuple[str, ...]
    special: dict[str, str]
    """By kernel, the one for the same step whose warps specialise, where the stage has it."""


_known: WeakKeyDictionary[Stage, Known] = WeakKeyDictionary()


def look_up(
    cascade: Cascade, stage: Stage, inputs: Mapping[str, Tensor], extents: dict[str, int]
) -> Config:
    """The configurations that are known for the kernels of a call; None if there are none."""
    found: dict[str, dict[str, int]] = {}
    wanted = keys(cascade, stage, inputs, extents)
    entries = {k: store().find(key, triton_version()) for k, key in wanted.items()}
    special = known_of(cascade, stage).special
    for kernel, entry in entries.items():
        if entry is None or kernel in special.values():
            continue
        found[kernel] = dict(entry.config)
        other = special.get(kernel, "")
        rival = entries.get(other)
        # Times of one search compare; of what was never measured beside the other the module decides.
        if rival is not None and rival.key.bucket == entry.key.bucket:
            found[other] = dict(rival.config) if rival.ms < entry.ms else {}
    return found or None


def keys(
    cascade: Cascade, stage: Stage, inputs: Mapping[str, Tensor], extents: dict[str, int]
) -> dict[str, Key]:
    """The keys of the kernels that a call launches, and those of its backward pass."""
    device = next(iter(inputs.values())).device
    forward, extents = stage.launcher(extents, device)
    own = {n: str(x.dtype).removeprefix("torch.") for n, x in inputs.items()}
    types = float_types(cascade, stage.passes.forward, stage.passes.cotangents, own)
    known, gpu = known_of(cascade, stage), gpu_name(device)
    return {
        k.name: key_of(k, known.program, extents, types, gpu, name)
        for k, name in zip(known.kernels, known.names, strict=True)
        if k.launcher in (forward, "backward")
    }


def known_of(cascade: Cascade, stage: Stage) -> Known:
    """What is known of a stage; a decoding loop asks at every length."""
    if stage not in _known:
        kernels = kernels_of(stage.passes, stage.module.KERNELS)
        table = getattr(stage.module, "HOPPER", {})
        made = {k.name: s for k in kernels if (s := special_of(k, table)) is not None}
        every = (*kernels, *made.values())
        special = {k: s.name for k, s in made.items()}
        _known[stage] = Known(hash_of(cascade), every, tuple(map(name_in_key, every)), special)
    return _known[stage]


@cache
def gpu_name(device: torch.device) -> str:
    """The name by which entries know a GPU."""
    return torch.cuda.get_device_properties(device).name if device.type == "cuda" else device.type


@cache
def triton_version() -> str:
    """Of the compiler; entries found with another are not used."""
    from importlib.metadata import version

    return version("triton")
