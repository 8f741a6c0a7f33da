"""Sizes that a user gives by name, and those that follow from them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Number, eval_int
from attndsl.cascade.nodes import Cascade
from attndsl.diagnostics import did_you_mean


def computed(
    cascade: Cascade,
    alike: Mapping[str, str],
    extents: Mapping[str, int],
    params: Mapping[str, Number],
    given: Mapping[str, int],
) -> dict[str, int]:
    """Axes that are read at a rank of a computed extent (`theta[d]`, where `rank d = |e| // 2`)."""
    env = {**params, **{f"|{r}|": n for r, n in extents.items()}}
    out: dict[str, int] = {}
    for r in cascade.ranks:
        axis = alike.get(r.name)
        if r.extent is not None and axis is not None and axis in extents and axis not in given:
            out[axis] = eval_int(r.extent, env)
    return out


def check_given(cascade: Cascade, given: Mapping[str, int], names: set[str]) -> None:
    """Raises: CallError, if something is given a size that the program does not have."""
    written = sorted(x for x in names if x.isidentifier() and not re.search(r"_\d+$", x))
    for name in given:
        if name not in names:
            raise CallError(
                "A0501",
                f"{cascade.name}: there is no index or parameter `{name}`",
                help=did_you_mean(name, written)
                or f"there are {', '.join(f'`{x}`' for x in written)}",
            )
