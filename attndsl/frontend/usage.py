"""What a program declares or computes and never uses.

Source: language reference, section 7: an unused input is a warning, an unused body tensor an error.
"""

from __future__ import annotations

from collections.abc import Iterator

from attndsl.frontend import ast
from attndsl.frontend.report import Report
from attndsl.frontend.scope import Scope


def check_usage(scope: Scope, report: Report) -> None:
    read: dict[str, set[str]] = {}
    for stmt in scope.attention.body:
        reader = stmt.target.name if isinstance(stmt, ast.Assign) else ""
        for e in _expressions(stmt):
            for name in _names(e, scope, set()):
                read.setdefault(name, set()).add(reader)
    for d in scope.attention.inputs:
        for e in d.dims or ():
            for n in ast.walk(e):
                if isinstance(n, ast.Name):
                    read.setdefault(n.name, set()).add("")
    for name, tensor in scope.body.items():
        if name not in scope.outputs and not read.get(name, set()) - {name}:
            report.error(
                "A0263",
                f"{tensor.written} {'are' if tensor.of else 'is'} computed and never used",
                tensor.stmt.target.span,
                "read by no other statement, and no output",
                "remove it, or declare it as an output",
            )
    for d in scope.attention.inputs:
        if d.name.name not in read:
            what = "input" if d.name.name in scope.inputs else "parameter"
            report.warning(
                "A0264",
                f"{what} `{d.name.name}` is never used",
                d.name.span,
                "declared here",
                "remove it",
            )


def _expressions(stmt: ast.Stmt) -> Iterator[ast.Expr]:
    match stmt:
        case ast.Assign():
            yield stmt.expr
            yield from stmt.where
            yield from (s.filter for s in stmt.subs if s.filter is not None)
            if stmt.init is not None:
                yield stmt.init
        case ast.RankDecl():
            yield from (b.value for b in stmt.bindings)
        case ast.Assume():
            yield from stmt.conditions
        case ast.Batch():
            pass


def _names(e: ast.Expr, scope: Scope, seen: set[str]) -> Iterator[str]:
    """Names read, through the bodies of defs as well."""
    for n in ast.walk(e):
        if isinstance(n, ast.Name | ast.Ref):
            yield n.name
        elif isinstance(n, ast.Call) and n.fn in scope.defs and n.fn not in seen:
            seen.add(n.fn)
            yield from _names(scope.defs[n.fn].body, scope, seen)
