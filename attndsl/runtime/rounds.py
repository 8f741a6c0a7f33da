"""Debug mode: whether the kernel of a root finds it in the rounds it has.

`solve[…](…, iters=3)` stands for the exact root, and its kernel improves a guess for 3 rounds at most. What a call with
more rounds would return tells whether these were enough.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.nodes import Cascade, Expr, Solve
from attndsl.cascade.walk import rewrite, walk
from attndsl.diagnostics import DiagnosticError

# Halvings alone take a bracket of any float64 numbers to neighbours in about so many.
PLENTY = 1200


def check_rounds(
    cascade: Cascade, inputs: Mapping[str, Tensor], params: Mapping[str, Any], start: Any
) -> None:
    """Raise `CallError` A0514 where more rounds would move an output by more than its rounding."""
    roots = {d.tensor: n.iters for d in cascade.body for n in walk(d.expr) if isinstance(n, Solve)}
    if not roots:
        return
    from attndsl.runtime.operator import CompiledAttention
    from attndsl.testing import error_budget

    def outputs(program: Cascade) -> tuple[Tensor, ...]:
        op = CompiledAttention(program, backend="eager")
        named: dict[str, Any] = {**inputs, **params}
        made = op(start=start, **named)
        return made if isinstance(made, tuple) else (made,)

    try:
        found, exact = outputs(cascade), outputs(_with_rounds(cascade, PLENTY))
    except DiagnosticError:
        return  # the call itself says why there is no kernel
    for o, x, y in zip(cascade.outputs, found, exact, strict=True):
        try:
            error_budget(y, y, x.dtype).check(o.name, x, y)
        except AssertionError as off:
            least = ", ".join(f"`{t}` has iters={n}" for t, n in roots.items())
            raise CallError(
                "A0514",
                f"{cascade.name}: a root is not found within its rounds: {least}",
                notes=(f"output {off}",),
                help="raise `iters`, or give a narrower bracket",
            ) from None


def _with_rounds(cascade: Cascade, iters: int) -> Cascade:
    def more(e: Expr) -> Expr:
        return dataclasses.replace(e, iters=iters) if isinstance(e, Solve) else e

    body = (dataclasses.replace(d, expr=rewrite(d.expr, more)) for d in cascade.body)
    return dataclasses.replace(cascade, body=tuple(body))
