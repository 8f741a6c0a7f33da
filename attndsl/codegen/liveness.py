"""Which tiles of values a sweep holds in registers at once: what decides how large its tiles may be."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from attndsl.cascade.nodes import DType
from attndsl.codegen.programs import flat
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import Compute, Declare, Dot, Fold, Load, Scan, Solve, Stmt

Dims = tuple[str, ...]


def held(
    body: tuple[Stmt, ...], full: Iterable[str], cheap: Collection[str] = ()
) -> tuple[Dims, ...]:
    """The dims of the two-dimensional values that live at the fullest moment of one turn of a sweep.

    Tiles that only feed products wait in shared memory and are not counted; `full` names the FULL axes, whose loads are
    such tiles. A load of a value for each pair holds its 64-bit addresses too, and counts three times; but for those in
    `cheap`: they pass through shared memory, or their addresses go with them.
    """
    features = set(full)
    turn = list(flat(body))
    last = {name: k for k, s in enumerate(turn) for name in used(s)}
    live: dict[str, tuple[Dims, ...]] = {}
    most: tuple[Dims, ...] = ()
    for k, s in enumerate(turn):
        live = {n: d for n, d in live.items() if last.get(n, -1) > k or n == getattr(s, "name", "")}
        match s:
            case Dot() | Fold() | Scan() | Solve() if len(s.dims) > 1:
                live[s.name] = (s.dims,)
            case Compute() | Declare() if len(s.dims) > 1 and s.dtype is not DType.BOOL:
                live[s.name] = (s.dims,)
            case Load() if len(s.dims) > 1 and not features & set(s.dims):
                live[s.name] = (s.dims,) * (1 if s.name in cheap else 3)
        now = tuple(d for dims in live.values() for d in dims)
        if len(now) > len(most):
            most = now
    return most
