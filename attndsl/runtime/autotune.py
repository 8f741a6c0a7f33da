"""Tuning from inside a call, for those who ask for it: `attndsl.load(path, autotune="once")`.

never    (the default) a call uses what is known, or the module's own choice, and never searches
once     the first call of a kind that nothing is known about searches, and what it finds is kept for every process
always   so does the first call of every kind in every process
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attndsl.cascade.alignments import shifted_indices
from attndsl.cascade.bind import Binding, Number
from attndsl.cascade.nodes import Cascade
from attndsl.cascade.starts import START, resolve_start
from attndsl.runtime.stages import Stage
from attndsl.runtime.tuned import keys, known_of, triton_version
from attndsl.sizes import Sizes
from attndsl.tuning.database import Key
from attndsl.tuning.keys import SHORT
from attndsl.tuning.machine import machine_of
from attndsl.tuning.store import store
from attndsl.tuning.tune import entries, tune

MODES = ("never", "once", "always")
# What one kind of call may spend on its search.
SECONDS = 30.0

_tried: set[Key] = set()


def tune_call(
    mode: str,
    cascade: Cascade,
    stage: Stage,
    inputs: Mapping[str, Tensor],
    binding: Binding,
    extents: dict[str, int],
    numbers: Mapping[str, Number],
    wrt: Sequence[str],
) -> None:
    """Search for what a call launches, if `mode` wants that. What goes wrong is said, and the call runs untuned."""
    device = next(iter(inputs.values())).device
    if mode == "never" or torch.cuda.is_current_stream_capturing():
        return
    # Where kernels whose warps specialise do not fit, they have no entry, and none is to be waited for.
    special = known_of(cascade, stage).special.values()
    found = keys(cascade, stage, inputs, extents)
    wanted = {key for name, key in found.items() if name not in special} - _tried
    if mode == "once":
        wanted = {k for k in wanted if not store().has(k, triton_version())}
    if not wanted:
        return
    _tried.update(wanted)
    torch.cuda.synchronize(device)  # what the caller has asked for would run beside what is timed
    at = Sizes(
        dict(binding.extents),
        placed(cascade, binding, numbers),
        {n: tuple(x.shape) for n, x in inputs.items()},
    )
    dtype = next(d for x in inputs.values() if (d := SHORT.get(str(x.dtype)[6:])) is not None)
    try:
        made = tune(
            cascade,
            at,
            dtype,
            machine_of(torch.cuda.get_device_properties(device)),
            seconds=SECONDS,
            wrt=tuple(wrt),
            specialise=stage.backend == "auto",
            triton=triton_version(),
        )
        trouble = store().add(entries(made))
    except Exception as error:  # a search that cannot run must not keep the call from running
        trouble = str(error)
    if trouble:
        warnings.warn(f"attndsl: {cascade.name}: tuning: {trouble}", stacklevel=2)


def placed(cascade: Cascade, binding: Binding, numbers: Mapping[str, Number]) -> dict[str, Number]:
    """The numbers of a call; where `start` came as a tensor, as if the queries were the last."""
    out = dict(numbers)
    if START not in out and shifted_indices(cascade):
        out[START] = next(iter(resolve_start(cascade, binding, "end").values()), 0)
    return out
