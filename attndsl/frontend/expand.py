"""Defs, expanded before everything else.

    def relu2(x) = max(x, 0)**2          relu2(S[i,j]) * V[j,f]   ->   (max((S[i,j]), 0)**2) * V[j,f]

A def is a named expression: names in it that are no parameters mean what they mean where it is used. The expanded body
and each argument become one factor of a product, as if written in parentheses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from attndsl.diagnostics import did_you_mean
from attndsl.frontend import ast
from attndsl.frontend.habits import INSTEAD
from attndsl.frontend.report import Report
from attndsl.frontend.vocabulary import FUNCTIONS, OPERATORS, why_taken
from attndsl.source import Span

MAX_NODES = 10_000
MAX_DEPTH = 120

Defs = Mapping[str, ast.Function]


def collect_defs(file: ast.File, report: Report) -> Defs:
    """The defs of a file by name, each checked for itself."""
    defs: dict[str, ast.Function] = {}
    for f in file.items:
        if not isinstance(f, ast.Function):
            continue
        name = f.name.name
        reason = why_taken(name)
        if reason is not None:
            report.error("A0201", f"`{name}` cannot name a def", f.name.span, f"it {reason}")
        if name in defs:
            report.error("A0202", f"def `{name}` is written twice", f.name.span, "the second one")
            continue
        seen: set[str] = set()
        for p in f.params:
            reason = why_taken(p.name)
            if reason is not None:
                report.error("A0201", f"`{p.name}` cannot name a parameter", p.span, f"it {reason}")
            if p.name in seen:
                report.error(
                    "A0202", f"parameter `{p.name}` is written twice", p.span, "the second one"
                )
            seen.add(p.name)
        defs[name] = f
    return defs


class Expander:
    """Expands the defs in expressions."""

    def __init__(self, defs: Defs, report: Report) -> None:
        self.defs = defs
        self.report = report

    def expand(self, e: ast.Expr) -> ast.Expr:
        """`e` without defs; raises Refused where a def is used wrongly."""
        if not any(isinstance(n, ast.Call) and n.fn in self.defs for n in ast.walk(e)):
            return e
        self.left = MAX_NODES
        return self._expand(e, (), e.span, 0)

    def _expand(
        self, e: ast.Expr, inside: tuple[str, ...], site: Span | None, depth: int
    ) -> ast.Expr:
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise self.report.error(
                "A0108",
                "an expression is too large once its defs are expanded",
                site,
                f"more than {MAX_NODES} terms, or {MAX_DEPTH} levels",
                "give parts of it names of their own (`T[i,j] = …`)",
            )
        args_expanded = ast.map_children(e, lambda c: self._expand(c, inside, site, depth + 1))
        if not isinstance(args_expanded, ast.Call) or args_expanded.fn not in self.defs:
            return args_expanded
        return self._call(args_expanded, inside, site, depth)

    def _call(
        self, e: ast.Call, inside: tuple[str, ...], site: Span | None, depth: int
    ) -> ast.Expr:
        f = self.defs[e.fn]
        if e.fn in inside:
            chain = " -> ".join([*inside[inside.index(e.fn) :], e.fn])
            raise self.report.error(
                "A0214", f"def `{e.fn}` uses itself", f.name.span, f"the circle is {chain}"
            )
        if e.keywords:
            raise self.report.error(
                "A0205",
                f"`{e.fn}` takes no keyword arguments",
                e.keywords[0].span,
                "written by keyword",
                "pass the arguments by position",
            )
        if len(e.args) != len(f.params):
            raise self.report.error(
                "A0205",
                f"`{e.fn}` takes {len(f.params)} argument{'s' * (len(f.params) != 1)}, not {len(e.args)}",
                e.span,
                f"defined as `{e.fn}({', '.join(p.name for p in f.params)})`",
            )
        bound = {p.name: a for p, a in zip(f.params, e.args, strict=True)}
        span = e.span if not inside else site
        body = self._substitute(f.body, bound, span)
        return ast.Paren(self._expand(body, (*inside, e.fn), span, depth + 1), span=span)

    def _substitute(self, e: ast.Expr, args: Mapping[str, ast.Expr], site: Span | None) -> ast.Expr:
        """The body with arguments for parameters; its own nodes point at the place of use."""
        self.left -= 1
        if self.left < 0:
            raise self.report.error(
                "A0108",
                "an expression is too large once its defs are expanded",
                site,
                f"more than {MAX_NODES} terms",
                "give parts of it names of their own (`T[i,j] = …`)",
            )
        match e:
            case ast.Name() if e.name in args:
                arg = self._copy(args[e.name], site)
                return arg if isinstance(arg, _ATOMS) else ast.Paren(arg, span=arg.span)
            case ast.Ref() | ast.ExtentOf() if e.name in args:
                arg = args[e.name]
                if not isinstance(arg, ast.Name):
                    raise self.report.error(
                        "A0215",
                        f"parameter `{e.name}` stands for a name, and is given an expression",
                        arg.span,
                        "the def reads it with brackets or as an extent",
                    )
                e = dataclasses.replace(e, name=arg.name)
        made = ast.map_children(e, lambda c: self._substitute(c, args, site))
        return dataclasses.replace(made, span=site)

    def _copy(self, e: ast.Expr, site: Span | None) -> ast.Expr:
        """A fresh copy, so that no node stands at two places of a tree."""
        self.left -= 1
        if self.left < 0:
            raise self.report.error(
                "A0108",
                "an expression is too large once its defs are expanded",
                site,
                f"more than {MAX_NODES} terms",
                "give parts of it names of their own (`T[i,j] = …`)",
            )
        return ast.map_children(dataclasses.replace(e), lambda c: self._copy(c, site))


_ATOMS = (ast.Num, ast.Bool, ast.Name, ast.ExtentOf, ast.Ref, ast.Big, ast.Call, ast.Paren)


def unknown_function(e: ast.Call, defs: Defs, tensors: frozenset[str], report: Report) -> None:
    """Report a call of something that is no function."""
    if e.fn in OPERATORS:
        report.error(
            "A0204",
            f"`{e.fn}` needs its index",
            e.span,
            "no index in brackets",
            f"write `{e.fn}[j](…)`",
        )
    elif e.fn in tensors:
        report.error(
            "A0204",
            f"`{e.fn}` is a tensor, not a function",
            e.span,
            "called here",
            f"read it with brackets: `{e.fn}[…]`",
        )
    else:
        help = (
            INSTEAD.get(e.fn)
            or did_you_mean(e.fn, FUNCTIONS | set(defs))
            or "functions are listed in section 17 of the language reference"
        )
        report.error("A0204", f"unknown function `{e.fn}`", e.span, "not defined", help)
