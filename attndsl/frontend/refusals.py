"""The words for sums that the Einstein rule refuses."""

from __future__ import annotations

from collections.abc import Mapping, Set

from attndsl.diagnostics import did_you_mean
from attndsl.frontend import ast
from attndsl.frontend.einstein import CannotSum, Refusal, Why, occurring
from attndsl.frontend.printer import print_ast, print_expr
from attndsl.frontend.report import Refused, Report
from attndsl.frontend.scope import Scope


def refuse_sums(error: CannotSum, left: Set[str], scope: Scope, report: Report) -> Refused:
    """Report every refusal; returns the exception to raise."""
    out = Refused()
    # Where `d` was written for `e`, the other `e` is left alone too: that one is no second mistake.
    partners = {_meant(r, scope): r.index for r in error.refusals if r.why is Why.LONE}
    alone = {r.index: r.at for r in error.refusals if r.why is Why.LONE}
    for r in error.refusals:
        match r.why:
            case Why.LONE if r.index in partners:
                continue
            case Why.LONE:
                out = _lone(r, left, alone, scope, report)
            case Why.DIVISOR:
                out = report.error(
                    "A0220",
                    f"the sum over index `{r.index}` would land inside a divisor",
                    r.at.span,
                    f"`{r.index}` occurs in this divisor, and in no factor",
                    f"write the sum: `sum[{r.index}]({print_expr(ast.strip(r.meant or r.at))})`",
                )
            case Why.UNCLEAR:
                carriers = [
                    print_expr(c)
                    for c in ast.children(r.at)
                    if r.index in occurring(c, scope.not_indices)
                ]
                out = report.error(
                    "A0221",
                    f"the place of the sum over index `{r.index}` is not determined",
                    r.at.span,
                    f"carried by {' and by '.join(f'`{c}`' for c in carriers)}",
                    f"write the sum: `sum[{r.index}](…)` around the part that is meant",
                )
    return out


def _lone(
    r: Refusal, left: Set[str], alone: Mapping[str, ast.Expr], scope: Scope, report: Report
) -> Refused:
    x, text = r.index, print_expr(r.at)
    meant = f"`sum[{x}]({text})` if a sum over it alone is meant"
    help = f"write {meant}"
    match r.at:
        case ast.Ref():
            span = next(
                (s.span for s in r.at.subs if x in occurring(s.expr, scope.not_indices)), r.at.span
            )
            index = _meant(r, scope)
            partner = alone.get(index) if index is not None else None
            if isinstance(partner, ast.Ref):
                help = f"write `{index}` to contract with `{partner.name}`, or {meant}"
            elif index is not None:
                help = f"write `{index}`, as it was declared, or {meant}"
            return report.error(
                "A0203",
                f"index `{x}` of `{r.at.name}` is read once and never kept",
                span,
                f"`{r.at.name}` is declared as `{_declared(r.at.name, scope)}`",
                help,
            )
        case ast.Name():
            near = did_you_mean(x, {*scope.not_indices, *left})
            return report.error(
                "A0203",
                f"index `{x}` is used as a number once and never kept",
                r.at.span,
                "a sum over a position alone",
                near or help,
            )
        case _:
            return report.error(
                "A0203",
                f"index `{x}` is carried by a normalizer alone and never kept",
                r.at.span,
                f"its value carries `{x}`: weights alone sum to 1",
                f"multiply by a tensor that carries `{x}`, or keep `{x}` on the left",
            )


def _declared(tensor: str, scope: Scope) -> str:
    if tensor in scope.inputs:
        return print_ast(scope.inputs[tensor].decl)
    return f"{tensor}[{','.join(scope.body[tensor].indices)}]"


def _meant(r: Refusal, scope: Scope) -> str | None:
    """The index that the axis was declared with, where a different one was written."""
    if not isinstance(r.at, ast.Ref):
        return None
    if r.at.name in scope.inputs:
        own: list[str | None] = [a.index for a in scope.inputs[r.at.name].written]
    else:
        own = [*scope.body[r.at.name].indices]
    for s, index in zip(r.at.subs, own, strict=False):
        bare = ast.strip(s.expr)
        if isinstance(bare, ast.Name) and bare.name == r.index and index not in (None, r.index):
            return index
    return None
