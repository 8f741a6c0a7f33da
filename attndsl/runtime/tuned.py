"""Tuned configurations for a call: looked up when a call of its kind comes first.

look_up(cascade, stage, inputs, extents)      # {"causal": {"BLOCK_I": 128, …}}, or None
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from attndsl.cascade.nodes import Cascade
from attndsl.runtime.stages import Config, Stage
from attndsl.tuning.database import Key
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.keys import float_types, key_of, name_in_key
from attndsl.tuning.machine import Machine, machine_of
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
    chosen: dict[tuple[str, str], dict[str, int] | None] = field(default_factory=dict)
    """What `untuned` found, by kernel and head dims."""


_known: WeakKeyDictionary[Stage, Known] = WeakKeyDictionary()


def look_up(
    cascade: Cascade, stage: Stage, inputs: Mapping[str, Tensor], extents: dict[str, int]
) -> Config:
    """The configurations that are known or chosen for the kernels of a call; None if it is all the module's own."""
    found: dict[str, dict[str, int]] = {}
    wanted = keys(cascade, stage, inputs, extents)
    entries = {k: store().find(key, triton_version()) for k, key in wanted.items()}
    known, device = known_of(cascade, stage), next(iter(inputs.values())).device
    special = known.special
    for kernel, entry in entries.items():
        if kernel in special.values():
            continue
        if entry is None:
            chosen = untuned(known, kernel, wanted[kernel], extents, stage, device)
            found |= {} if chosen is None else {kernel: chosen}
            continue
        found[kernel] = dict(entry.config)
        other = special.get(kernel, "")
        rival = entries.get(other)
        # Times of one search compare; of what was never measured beside the other the module decides.
        if rival is not None and rival.key.bucket == entry.key.bucket:
            found[other] = dict(rival.config) if rival.ms < entry.ms else {}
    return found or None


def untuned(
    known: Known,
    name: str,
    key: Key,
    extents: Mapping[str, int],
    stage: Stage,
    device: torch.device,
) -> dict[str, int] | None:
    """What the model chooses for a kernel that nothing is known of; None where the module's own choice runs.

    It is asked once for all lengths, and not where a kernel whose warps specialise runs instead.
    """
    if key.dtypes not in ("bf16", "fp16"):
        return None
    from attndsl.tuning.first import FITTED, first_choice, takes_warps, usual
    from attndsl.tuning.space import default

    machine = machine_at(device)
    if machine.capability not in FITTED:
        return None
    by_name = {k.name: k for k in known.kernels}
    other = by_name.get(known.special.get(name, ""))
    if other is not None and takes_warps(other, extents, 2, machine):
        return None
    about = (name, key.dims)
    if about not in known.chosen:
        kernel, found = by_name[name], None
        with suppress(ValueError):  # where no tile fits, who launches it says so
            own = default(kernel, extents, 2, machine)
            found = first_choice(kernel, extents, usual(stage, known.kernels, extents), 2, machine)
        known.chosen[about] = None if found is None or found == own else dict(found)
    return known.chosen[about]


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
def machine_at(device: torch.device) -> Machine:
    """The card."""
    return machine_of(torch.cuda.get_device_properties(device))


@cache
def triton_version() -> str:
    """Of the compiler; entries found with another are not used."""
    from importlib.metadata import version

    return version("triton")
