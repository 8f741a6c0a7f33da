"""Declares the names of one attention, and reports those that break the rules.

Source: language reference, sections 2-7.
"""

from __future__ import annotations

from collections.abc import Iterator

from attndsl.cascade.nodes import DType
from attndsl.frontend import ast
from attndsl.frontend.constants import constant
from attndsl.frontend.expand import Defs
from attndsl.frontend.report import Report, listed
from attndsl.frontend.scope import Axis, BodyTensor, InputTensor, ParamDecl, Scope
from attndsl.frontend.vocabulary import METHODS, TYPES, why_taken
from attndsl.source import Span


def build_scope(attention: ast.Attention, defs: Defs, report: Report) -> Scope:
    """Declare every name of an attention; mistakes are reported, and what is sound is kept."""
    scope = Scope(attention, defs)
    builder = _Builder(scope, report)
    builder.batch()
    builder.declarations()
    builder.outputs()
    builder.statements()
    builder.clashes()
    return scope


class _Builder:
    def __init__(self, scope: Scope, report: Report) -> None:
        self.scope = scope
        self.report = report

    # --- batch -----------------------------------------------------------------------------------------------------

    def batch(self) -> None:
        declared = {
            x for d in self.scope.attention.inputs for e in d.dims or () for x in _names_in(e)
        }
        batch: list[str] = []
        for stmt in self.scope.attention.body:
            if not isinstance(stmt, ast.Batch):
                continue
            for n in stmt.names:
                if n.name in batch:
                    self.report.error(
                        "A0202", f"batch index `{n.name}` is written twice", n.span, "again here"
                    )
                elif n.name not in declared:
                    self.report.error(
                        "A0212",
                        f"batch index `{n.name}` is the index of no input",
                        n.span,
                        "not declared",
                    )
                else:
                    batch.append(n.name)
        self.scope.batch = tuple(batch)

    # --- inputs and parameters -------------------------------------------------------------------------------------

    def declarations(self) -> None:
        scope, report = self.scope, self.report
        seen: set[str] = set()
        for d in scope.attention.inputs:
            name = d.name.name
            self.allowed(d.name, "an input")
            if name in seen:
                report.error(
                    "A0202", f"`{name}` is declared twice", d.name.span, "declared again here"
                )
                continue
            seen.add(name)
            dtype = self.dtype(d)
            if d.dims is None and d.type is None and d.default is None:
                report.error(
                    "A0206",
                    f"`{name}` is declared without brackets and without a type",
                    d.name.span,
                    "a tensor or a scalar parameter",
                    f"write `{name}[…]` with its indices (`{name}[]` for one number), or `{name}: float`",
                )
            if d.dims is None:
                scope.params[name] = ParamDecl(d, dtype, self.default(d, dtype))
        for d in scope.attention.inputs:
            name = d.name.name
            if name in scope.params or name in scope.inputs:
                continue
            if d.default is not None:
                report.error(
                    "A0206",
                    f"tensor `{name}` has a default value",
                    d.default.span,
                    "only scalar parameters have defaults",
                )
            scope.inputs[name] = self.tensor(d)

    def tensor(self, d: ast.Decl) -> InputTensor:
        axes: list[Axis] = []
        carried: set[str] = set()
        lone: set[str] = set()
        batch = set(self.scope.batch)
        for k, e in enumerate(d.dims or ()):
            e = ast.strip(e)
            index = e.name if isinstance(e, ast.Name) else None
            used = {x for x in _names_in(e) if x == index or x not in self.scope.params}
            if index is not None:
                self.declare(index, e.span)
                if index in lone:
                    self.report.error(
                        "A0207",
                        f"index `{index}` is written twice in `{d.name.name}`",
                        e.span,
                        "each axis needs an index of its own",
                        "a diagonal is read, not declared: `X[i,i]` of an `X[i,k]`",
                    )
                lone.add(index)
            elif not used:
                self.report.error(
                    "A0207",
                    f"an axis of `{d.name.name}` names no index",
                    e.span,
                    "every axis is declared by an index, or by an expression of indices such as `h//G`",
                )
            inside = used & batch
            if inside and used - batch:
                self.report.error(
                    "A0208",
                    f"an axis of `{d.name.name}` mixes batch indices with others",
                    e.span,
                    f"{listed(inside)} is a batch index, {listed(used - batch)} is not",
                    "heads that share one are `h//G`, with `//` and a parameter `G: int`",
                )
            carried |= inside
            rank = index if index is not None else f"{d.name.name}.{k}"
            axes.append(Axis(e, index, rank, bool(inside)))
        return InputTensor(d, tuple(axes), self.dtype(d), frozenset(carried))

    def dtype(self, d: ast.Decl) -> DType:
        if d.type is None:
            match d.default:
                case ast.Bool():
                    return DType.BOOL
                case ast.Num() as n:
                    return DType.INT if isinstance(n.value, int) else DType.FLOAT
            return DType.FLOAT
        if d.type.name not in TYPES:
            self.report.error(
                "A0209",
                f"unknown type `{d.type.name}`",
                d.type.span,
                "expected `float`, `int` or `bool`",
            )
            return DType.FLOAT
        return DType(d.type.name)

    def default(self, d: ast.Decl, dtype: DType) -> float | int | bool | None:
        if d.default is None:
            return None
        value = constant(d.default)
        good = {
            DType.BOOL: isinstance(value, bool),
            DType.INT: isinstance(value, int) and not isinstance(value, bool),
            DType.FLOAT: isinstance(value, int | float) and not isinstance(value, bool),
        }[dtype]
        if not good:
            what = "is no constant" if value is None else f"is of another type than `{dtype}`"
            self.report.error(
                "A0206",
                f"the default of `{d.name.name}` {what}",
                d.default.span,
                f"expected {'an' if dtype is DType.INT else 'a'} `{dtype}` written as a number"
                if dtype is not DType.BOOL
                else "expected `True` or `False`",
            )
            return None
        return float(value) if dtype is DType.FLOAT and value is not None else value

    # --- outputs ---------------------------------------------------------------------------------------------------

    def outputs(self) -> None:
        for d in self.scope.attention.outputs:
            name = d.name.name
            self.allowed(d.name, "an output")
            if name in self.scope.outputs or name in self.scope.inputs or name in self.scope.params:
                self.report.error(
                    "A0202", f"`{name}` is declared twice", d.name.span, "declared again here"
                )
                continue
            indices: list[str] = []
            for e in d.dims or ():
                e = ast.strip(e)
                if not isinstance(e, ast.Name):
                    self.report.error(
                        "A0207",
                        f"an axis of output `{name}` is no lone index",
                        e.span,
                        "expected one index",
                    )
                    continue
                if e.name in indices:
                    self.report.error(
                        "A0207",
                        f"index `{e.name}` is written twice in `{name}`",
                        e.span,
                        "again here",
                    )
                    continue
                self.declare(e.name, e.span)
                indices.append(e.name)
            if d.type is not None or d.default is not None:
                odd = d.type or d.default
                self.report.error(
                    "A0206",
                    f"output `{name}` is declared with a type or a value",
                    odd.span if odd is not None else None,
                    "an output has the type of its value",
                )
            self.scope.outputs[name] = tuple(indices)

    # --- statements ------------------------------------------------------------------------------------------------

    def statements(self) -> None:
        for stmt in self.scope.attention.body:
            match stmt:
                case ast.RankDecl():
                    for b in stmt.bindings:
                        self.allowed(b.name, "an index")
                        if b.name.name in self.scope.ranks:
                            self.report.error(
                                "A0202",
                                f"rank `{b.name.name}` is written twice",
                                b.name.span,
                                "again here",
                            )
                            continue
                        self.declare(b.name.name, b.name.span)
                        self.scope.ranks[b.name.name] = b.value
                case ast.Assign():
                    self.assign(stmt)
                case _:
                    pass

    def assign(self, stmt: ast.Assign) -> None:
        scope, report, name = self.scope, self.report, stmt.target.name
        if name in scope.inputs or name in scope.params:
            report.error(
                "A0210",
                f"input `{name}` is assigned",
                stmt.target.span,
                "inputs keep their values",
                "give the result a name of its own",
            )
            return
        if name in scope.body:
            first = scope.body[name].stmt.target.span
            report.error(
                "A0210",
                f"`{name}` is assigned twice",
                stmt.target.span,
                "assigned again here",
                "every body tensor is assigned once: give the second a name of its own",
                (f"first assigned on line {first.line}",) if first is not None else (),
            )
            return
        self.allowed(stmt.target, "a tensor")
        errors = report.errors
        indices = self.left(stmt)
        scope.body[name] = BodyTensor(stmt, indices, poisoned=report.errors > errors)

    def left(self, stmt: ast.Assign) -> tuple[str, ...]:
        scope, report, name = self.scope, self.report, stmt.target.name
        indices: list[str] = []
        for s in stmt.subs:
            e = ast.strip(s.expr)
            if not isinstance(e, ast.Name):
                report.error(
                    "A0207",
                    f"the left side of `{name}` holds more than lone indices",
                    e.span,
                    "expected one index",
                    "a recurrence is written forward: `H[t] = … H[t-1] …`",
                )
                continue
            if e.name in scope.batch:
                self.batch_index(e.name, e.span)
                continue
            if e.name in indices:
                report.error(
                    "A0207", f"index `{e.name}` is written twice in `{name}`", e.span, "again here"
                )
                continue
            self.declare(e.name, e.span)
            indices.append(e.name)
        return tuple(indices)

    def batch_index(self, name: str, span: Span | None) -> None:
        self.report.error(
            "A0216",
            f"batch index `{name}` appears in the body",
            span,
            f"`batch {name}` leaves it out everywhere",
            f"leave it out here, or take `{name}` out of `batch`",
        )

    # --- names -----------------------------------------------------------------------------------------------------

    def declare(self, index: str, span: Span | None) -> None:
        if index not in self.scope.indices:
            self.allowed(ast.Ident(index, span=span), "an index")
            self.scope.indices[index] = span

    def allowed(self, name: ast.Ident, what: str) -> None:
        reason = why_taken(name.name)
        if reason is None and what == "an input" and name.name in METHODS:
            reason = f"is an argument of `{METHODS[name.name]}`, which takes inputs by name too"
        if reason is not None:
            self.report.error(
                "A0201", f"`{name.name}` cannot name {what}", name.span, f"it {reason}"
            )
        elif name.name in self.scope.defs:
            self.report.error(
                "A0201", f"`{name.name}` cannot name {what}", name.span, "it is the name of a def"
            )

    def clashes(self) -> None:
        """Indices and other names are apart; bound ones are checked where they are bound."""
        scope = self.scope
        others = {
            **dict.fromkeys((*scope.inputs, *scope.body), "a tensor"),
            **dict.fromkeys(scope.params, "a parameter"),
        }
        for index, span in scope.indices.items():
            if index in others:
                scope.ambiguous = True
                self.report.error(
                    "A0211",
                    f"`{index}` is both {others[index]} and an index",
                    span,
                    "used as an index here",
                    "rename one of them",
                )


def _names_in(e: ast.Expr) -> Iterator[str]:
    """Every bare name in an expression."""
    return (n.name for n in ast.walk(e) if isinstance(n, ast.Name))
