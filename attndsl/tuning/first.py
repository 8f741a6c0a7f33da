"""What a call runs where nothing was measured: the model's first choice, or the module's own where that is as good.

    first_choice(kernel, extents, usual(stage, kernels, extents), 2, MACHINES["H100"])

A generated module stands by itself and knows no costs: it takes the first of a list of tiles that fits. Calls through
attndsl have the model besides, and take its choice where it expects a gain that is more than its own error. They do so
at the lengths of a language model's layer, whatever theirs are, and at the peaks of one card for all of a capability:
so a new length costs no compile, and what is built ahead of calls is what they run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Number
from attndsl.cascade.starts import START
from attndsl.codegen.configs import worth_warps
from attndsl.runtime.stages import Stage
from attndsl.schedule.tile import Role
from attndsl.sizes import USUAL, sizes
from attndsl.tuning.device import Config
from attndsl.tuning.kernel import Kernel
from attndsl.tuning.machine import MACHINES, Machine
from attndsl.tuning.model import Load
from attndsl.tuning.space import default, explore

# What the model expects to gain less than this keeps the module's own: of choices within it, it is as often wrong as
# right (`benchmarks/choices.py --only differ`).
GAIN = 1.12
# The cards that the model was fitted to, by capability. On others, and in other types, its order is not known to hold.
FITTED = {90: MACHINES["H100"]}
# A layer as it was measured: the model knows how blocks fill a card's multiprocessors, and for others they fill them
# otherwise.
LAYER = replace(USUAL, heads=16)
# Facts of kernels whose tiles are not free, or that were not among those that the model was fitted to.
SETTLED = ("follows", "walks", "few_rows")


@dataclass(frozen=True, slots=True)
class Usual:
    """Extents and parameters at which choices are made."""

    extents: dict[str, int]
    params: dict[str, Number]


def usual(stage: Stage, kernels: Iterable[Kernel], extents: Mapping[str, int]) -> Usual | None:
    """A layer's extents with the head dims of a call; None where these do not go with them."""
    names = {r.name for r in stage.cascade.ranks}
    full = {r for k in kernels for r in k.facts["pads"].values()}
    try:
        at = sizes(stage.cascade, LAYER, {r: extents[r] for r in sorted(full & names)})
    except CallError:
        return None
    params = {**at.params, **({START: 0} if START in at.params else {})}
    return Usual(stage.extents(at.extents, params), params)


def first_choice(
    kernel: Kernel, extents: Mapping[str, int], at: Usual | None, itemsize: int, machine: Machine
) -> Config | None:
    """The configuration; None of a kernel whose warps specialise and that does not fit."""
    own = default(kernel, extents, itemsize, machine)
    fitted = FITTED.get(machine.capability)
    if kernel.warps is not None or fitted is None or itemsize != 2 or at is None:
        return own
    if any(kernel.facts.get(f) for f in SETTLED):
        return own
    if any(a.rank not in at.extents for a in kernel.program.axes):
        return own  # into how many parts a walk is cut, a call decides
    if kernel.program.of(Role.BAND):
        return own  # rows along diagonals are younger than the fit
    found = explore(kernel, at.extents, at.params, itemsize, fitted).candidates
    mine = next((c for c in found if c.config == own), None)
    if mine is None or not known(mine.load, found[0].load):
        return own
    return own if mine.seconds < GAIN * found[0].seconds else found[0].config


def known(own: Load | None, other: Load | None) -> bool:
    """Whether the model's order of two tilings of a kernel is one to go by: it sweeps, over tiles with the same rows.

    Of running sums, of states and of what rows hold it knows too little: there what it preferred was as often slower,
    by a half at most, as faster. Where rows are the same it was right throughout.
    """
    if own is None or other is None or own.rows != other.rows or own.columns == 1:
        return False
    return not (own.chunks or own.scans or own.looped)


def takes_warps(
    special: Kernel, extents: Mapping[str, int], itemsize: int, machine: Machine
) -> bool:
    """Whether calls of these extents run a kernel whose warps specialise, by the generated module's rule."""
    config = default(special, extents, itemsize, machine)
    if special.warps is None or config is None or itemsize != 2:
        return False
    block = config[f"BLOCK_{special.warps['tile']}"]
    return worth_warps(special.warps, dict(extents), block, machine.multiprocessors)
