"""Names for parts of a recurrence's step: what reads the past of a state that is assigned below.

    E[t,f]   = V[t,f] - K[t,c] * H[t-1,c,f]                 # H is assigned below, and reads E
    H[t,e,f] = H[t-1,e,f] + K[t,e] * E[t,f]   init 0
    ->
    H[t,e,f] = H[t-1,e,f] + K[t,e] * (V[t,f] - sum[c](K[t,c] * H[t-1,c,f]))   init 0

A helper is written into the step with its own sums written out, and stands behind the recurrence where something else
reads it. All other statements stay in the order in which they were written.

Source: language reference, sections 7 and 15.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from attndsl.frontend import ast
from attndsl.frontend.recurrence import offset_from
from attndsl.frontend.report import Refused
from attndsl.frontend.scope import BodyTensor, Scope
from attndsl.frontend.vocabulary import BINDERS

Explicit: TypeAlias = Callable[[BodyTensor, ast.Expr], ast.Expr]
"""A right side without defs, its sums written out."""


def in_order(scope: Scope, explicit: Explicit) -> list[BodyTensor]:
    """The tensors of the body in the order in which they are lowered, helpers written into the steps that read them."""
    plain: frozenset[str] = frozenset()
    while True:
        order = _Order(scope, explicit, plain)
        for stmt in scope.attention.body:
            if isinstance(stmt, ast.Assign):
                tensor = scope.body.get(stmt.target.name)
                if tensor is not None and tensor.stmt is stmt:
                    order.take(tensor)
        if not order.waiting:
            break
        # The recurrence that one of these reads does not read it: it stands too early, and is told so.
        plain |= order.waiting.keys()
    for tensor, expr in order.steps:
        tensor.stmt = dataclasses.replace(tensor.stmt, expr=expr)
    for helper in order.gone:
        helper.lowered = True
    return order.out


@dataclass(slots=True)
class _Helper:
    tensor: BodyTensor
    expr: ast.Expr
    below: frozenset[str]
    """The recurrences that it reads, none of which has been met yet."""


@dataclass(slots=True)
class _Order:
    scope: Scope
    explicit: Explicit
    plain: frozenset[str]
    """Those that are no helpers."""
    waiting: dict[str, _Helper] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    out: list[BodyTensor] = field(default_factory=list)
    steps: list[tuple[BodyTensor, ast.Expr]] = field(default_factory=list)
    gone: list[BodyTensor] = field(default_factory=list)
    inside: dict[str, set[str]] = field(default_factory=dict)
    """The statements that a helper was written into."""

    def take(self, tensor: BodyTensor) -> None:
        """The next statement: kept for later, if it is a helper."""
        stmt = tensor.stmt
        expr = self.filled(stmt.expr, tensor.name)
        below = self.below(tensor, expr)
        bare = stmt.init is None and not stmt.where and all(s.filter is None for s in stmt.subs)
        if below and bare and tensor.name not in self.plain:
            try:
                self.waiting[tensor.name] = _Helper(tensor, self.explicit(tensor, expr), below)
                return
            except Refused:
                pass  # its own statement says so again
        if expr is not stmt.expr:
            self.steps.append((tensor, expr))
        self.out.append(tensor)
        self.done.add(tensor.name)
        for name, helper in list(self.waiting.items()):
            if helper.below <= self.done and helper.below & self.reached(name):
                del self.waiting[name]
                if self.read_elsewhere(name):
                    self.steps.append((helper.tensor, helper.expr))
                    self.out.append(helper.tensor)
                else:
                    self.gone.append(helper.tensor)
                self.done.add(name)

    def below(self, tensor: BodyTensor, e: ast.Expr) -> frozenset[str]:
        """The recurrences further down whose past an expression reads."""
        return frozenset(
            n.name
            for n in ast.walk(e)
            if isinstance(n, ast.Ref)
            and n.name != tensor.name
            and n.name in self.scope.body
            and n.name not in self.done
            and self.scope.body[n.name].stmt.init is not None
            and any(
                offset_from(ast.strip(s.expr), i) in (-1, 1) for s in n.subs for i in tensor.indices
            )
        )

    def filled(self, e: ast.Expr, reader: str) -> ast.Expr:
        """With helpers in place of what reads them; the same expression where there is none."""
        if not any(isinstance(n, ast.Ref) and n.name in self.waiting for n in ast.walk(e)):
            return e
        return self._filled(e, reader)

    def _filled(self, e: ast.Expr, reader: str) -> ast.Expr:
        if isinstance(e, ast.Ref) and e.name in self.waiting:
            helper = self.waiting[e.name]
            names = [s.expr.name for s in e.subs if isinstance(s.expr, ast.Name)]
            if len(names) == len(helper.tensor.indices) == len(e.subs):
                self.inside.setdefault(e.name, set()).add(reader)
                at = dict(zip(helper.tensor.indices, names, strict=True))
                return ast.Paren(at_other_indices(helper.expr, at), span=e.span)
        return ast.map_children(e, lambda c: self._filled(c, reader))

    def reached(self, name: str) -> set[str]:
        """The statements that a helper was written into, in others or by itself."""
        found = set(self.inside.get(name, ()))
        for reader in list(found):
            if reader in self.inside:
                found |= self.reached(reader)
        return found

    def read_elsewhere(self, name: str) -> bool:
        """Whether an output or a statement needs a helper by itself."""
        written = self.inside[name]
        return name in self.scope.outputs or any(
            isinstance(n, ast.Ref) and n.name == name
            for s in self.scope.attention.body
            if isinstance(s, ast.Assign) and s.target.name not in written
            for n in ast.walk(s.expr)
        )


def at_other_indices(e: ast.Expr, at: Mapping[str, str]) -> ast.Expr:
    """A copy with other names for its indices; those that it binds make way for them."""
    match e:
        case ast.Name() | ast.ExtentOf():
            return dataclasses.replace(e, name=at.get(e.name, e.name))
        case ast.Big() if e.op in BINDERS:
            bound = {s.expr.name for s in e.subs if isinstance(s.expr, ast.Name)}
            inner = {k: v for k, v in at.items() if k not in bound}
            met = bound & {*inner.values()}
            inner |= {b: _free(b, {*inner.values(), *_names(e)}) for b in sorted(met)}
            return ast.map_children(e, lambda c: at_other_indices(c, inner))
        case _:
            return ast.map_children(dataclasses.replace(e), lambda c: at_other_indices(c, at))


def _names(e: ast.Expr) -> set[str]:
    return {n.name for n in ast.walk(e) if isinstance(n, ast.Name)}


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_1"
    return name
