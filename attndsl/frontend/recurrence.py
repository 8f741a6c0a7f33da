"""Recurrences: a tensor that reads its own past.

    H[t,e,f] = g[t] * H[t-1,e,f] + K[t,e] * V[t,f]   init 0        # forward; `t+1` runs backward

Source: language reference, section 15.
"""

from __future__ import annotations

from dataclasses import dataclass

from attndsl.frontend import ast
from attndsl.frontend.report import Report, listed
from attndsl.frontend.scope import BodyTensor


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The index it runs over, and the direction: 1 reads `t-1`, -1 reads `t+1`."""

    index: str
    direction: int


COUPLED = (
    "recurrences that read each other are one, with an index more that numbers the states: `rank u = 2` and "
    "`H[t,u,f] = … H[t-1,1,f] … if u == 0 else … H[t-1,0,f] …`"
)


def find_recurrence(
    tensor: BodyTensor, expr: ast.Expr, init: ast.Expr | None, report: Report
) -> Recurrence | None:
    """The recurrence that a statement is, None if it does not read itself; raises Refused if it is no legal one."""
    own = [n for n in ast.walk(expr) if isinstance(n, ast.Ref | ast.Name) and n.name == tensor.name]
    if not own:
        if init is not None:
            past = any(
                offset_from(ast.strip(s.expr), i) in (-1, 1)
                for n in ast.walk(expr)
                if isinstance(n, ast.Ref)
                for s in n.subs
                for i in tensor.indices
            )
            raise report.error(
                "A0244",
                f"`{tensor.name}` has an `init` and does not read its own past",
                init.span,
                "nothing starts here",
                COUPLED if past else f"remove it, or read `{tensor.name}` at `t-1`",
            )
        return None
    found = {_step(tensor, n, report) for n in own}
    if len(found) > 1:
        raise report.error(
            "A0243",
            f"`{tensor.name}` reads itself along two indices, or in two directions",
            own[-1].span,
            "a recurrence runs over one index, one way",
        )
    if init is None:
        (step,) = found
        raise report.error(
            "A0242",
            f"the recurrence `{tensor.name}` has no start",
            tensor.stmt.target.span,
            f"it reads `{step.index}{'-' if step.direction > 0 else '+'}1`, which does not exist at the "
            f"{'first' if step.direction > 0 else 'last'} point",
            "add `init 0`, or `init H0[…]` with an input",
        )
    return found.pop()


def _step(tensor: BodyTensor, own: ast.Ref | ast.Name, report: Report) -> Recurrence:
    """The step that one self-read takes."""
    steps: list[Recurrence] = []
    subs = own.subs if isinstance(own, ast.Ref) else ()
    for s, index in zip(subs, tensor.indices, strict=True):
        e = ast.strip(s.expr)
        if isinstance(
            e, ast.Name | ast.Num
        ):  # a number is one of several states that are kept side by side
            continue
        offset = offset_from(e, index)
        if offset not in (-1, 1):
            raise report.error(
                "A0243",
                f"`{tensor.name}` reads itself at another place than one step back",
                e.span,
                f"expected `{index}`, `{index}-1` or `{index}+1`",
                "a longer memory is a wider state: carry what is needed in a tensor of its own",
            )
        steps.append(Recurrence(index, -offset))
    if len(steps) != 1:
        names = [ast.strip(s.expr) for s in subs]
        others = [
            e.name
            for e, i in zip(names, tensor.indices, strict=True)
            if isinstance(e, ast.Name) and e.name != i
        ]
        where = f"at any {listed(others)}" if others else "at the same point"
        raise report.error(
            "A0213",
            f"`{tensor.name}` is read before it is assigned",
            own.span,
            "it steps along two indices at once" if steps else f"it reads itself {where}",
            "a recurrence reads its own past: `t-1` in place of `t`, in one index",
        )
    return steps[0]


def offset_from(e: ast.Expr, index: str) -> int | None:
    """`k` where `e` is `index + k`, else None."""
    if isinstance(e, ast.Binary) and e.op in ("+", "-") and ast.strip(e.left) == ast.Name(index):
        step = ast.strip(e.right)
        if isinstance(step, ast.Num) and isinstance(step.value, int):
            return step.value if e.op == "+" else -step.value
    return None
