"""What every name in an expression refers to: all mistakes of one expression are reported together."""

from __future__ import annotations

from attndsl.diagnostics import did_you_mean
from attndsl.frontend import ast
from attndsl.frontend.einstein import binds, occurring
from attndsl.frontend.expand import unknown_function
from attndsl.frontend.habits import INSTEAD
from attndsl.frontend.printer import print_ast, print_expr
from attndsl.frontend.report import Report
from attndsl.frontend.scope import Scope
from attndsl.frontend.vocabulary import FUNCTIONS, NORMALIZERS, OPERATORS, REDUCTIONS, why_taken
from attndsl.source import Span


class Resolver:
    """Checks names, arity and the form of operators; types and places of sums come later.

    An expression that reads a refused tensor is spoiled: it is passed over in silence.
    """

    def __init__(self, scope: Scope, report: Report) -> None:
        self.scope = scope
        self.report = report
        self.refused: set[str] = set()
        self.spoiled = False

    def check(self, *exprs: ast.Expr | None) -> bool:
        """Report what is wrong in the expressions; True if nothing is."""
        before = self.report.said
        self.spoiled = False
        present = [e for e in exprs if e is not None]
        known = set(self.scope.indices)
        for e in present:
            known |= _subscripts(e)
        for e in present:
            self._visit(e, frozenset(known))
        return self.report.said == before and not self.spoiled

    def _visit(self, e: ast.Expr, known: frozenset[str]) -> None:
        match e:
            case ast.Name():
                self._name(e, known)
            case ast.ExtentOf():
                self._extent(e, known)
            case ast.Ref():
                self._ref(e)
            case ast.Big():
                self._big(e)
                known |= binds(e)
            case ast.Call():
                self._call(e)
            case _:
                pass
        for c in self._inside(e):
            self._visit(c, known)

    def _inside(self, e: ast.Expr) -> tuple[ast.Expr, ...]:
        """The subexpressions to visit: neither the names that an operator binds, nor batch indices in a read."""
        match e:
            case ast.Big():
                filters = (s.filter for s in e.subs if s.filter is not None)
                return (*filters, *e.args, *(k.value for k in e.keywords))
            case ast.Ref():
                return tuple(c for c in ast.children(e) if not self._is_batch(c))
            case _:
                return ast.children(e)

    def _is_batch(self, e: ast.Expr) -> bool:
        return isinstance(e, ast.Name) and e.name in self.scope.batch

    def _name(self, e: ast.Name, known: frozenset[str]) -> None:
        scope = self.scope
        if why_taken(e.name) is not None and e.name in known:
            self._free(e)
        elif e.name in scope.batch:
            self._batch(e.name, e.span)
        elif e.name in scope.body and scope.body[e.name].poisoned:
            self.spoiled = True
        elif e.name in scope.tensors:
            want = self._written(e.name)
            if want:
                self._arity(e.name, 0, want, e.span)
        elif e.name not in known and e.name not in scope.params:
            self._unknown(e.name, e.span, known)

    def _unknown(self, name: str, span: Span | None, known: frozenset[str]) -> None:
        scope = self.scope
        if name in OPERATORS or name in FUNCTIONS or name in scope.defs:
            self.report.error(
                "A0204",
                f"`{name}` is not called",
                span,
                "a function without its arguments",
                f"write `{name}(…)`",
            )
            return
        names = {*scope.tensors, *scope.params, *known}
        help = did_you_mean(name, names)
        if name in ("true", "false"):
            help = f"write `{name.title()}`, as in Python"
        elif name in ("inf", "infinity", "nan", "None"):
            help = "restrict the domain instead: `where`, or a filter in a reduction"
        elif help is None:
            help = f"declare it as a parameter: `{name}: float`"
            if span is not None and span.source.name.endswith(".py"):
                help += "; the function is read, not run, and knows nothing of the names around it"
        self.report.error(
            "A0212",
            f"unknown name `{name}`",
            span,
            "no tensor, parameter or index has this name",
            help,
        )

    def _extent(self, e: ast.ExtentOf, known: frozenset[str]) -> None:
        if e.name in self.scope.tensors or e.name in self.scope.params or e.name not in known:
            self.report.error(
                "A0212",
                f"`|{e.name}|` is the extent of no index",
                e.span,
                "no index has this name",
                did_you_mean(e.name, known)
                or (f"there are {', '.join(f'`|{i}|`' for i in sorted(known))}" if known else None),
            )

    def _ref(self, e: ast.Ref) -> None:
        scope = self.scope
        for s in e.subs:
            if s.filter is not None:
                self.report.error(
                    "A0217",
                    f"a filter in the brackets of `{e.name}`",
                    s.filter.span,
                    "only reductions and left sides take filters",
                    "write the condition after `where`, or in the reduction that binds the index",
                )
        if e.name in scope.tensors:
            want = self._written(e.name)
            batch = next((s.expr for s in e.subs if self._is_batch(s.expr)), None)
            if isinstance(batch, ast.Name):
                help = f"write `{_form(e.name, want)}`"
                written = {s.expr.name for s in e.subs if isinstance(s.expr, ast.Name)}
                if not written >= {
                    *scope.batch
                }:  # no habit: one of them is meant, as where heads are mixed
                    help += f", or take `{batch.name}` out of `batch`, if its points are mixed"
                self._batch(batch.name, batch.span, help)
            elif e.name in scope.body and scope.body[e.name].poisoned:
                self.spoiled = True  # refused where it is assigned: no more is said about it
            elif len(e.subs) != len(want):
                self._arity(e.name, len(e.subs), want, e.span)
        elif e.name in OPERATORS:
            self.report.error(
                "A0103",
                f"`{e.name}[…]` without its argument",
                e.span,
                "an opening parenthesis is missing after it",
                f"write `{print_expr(e)}(…)`, with parentheses",
            )
        elif e.name in scope.params:
            self.report.error(
                "A0205",
                f"parameter `{e.name}` is read with brackets",
                e.span,
                "a parameter is one number",
            )
        elif e.name in scope.indices:
            self.report.error(
                "A0204", f"index `{e.name}` is read as a tensor", e.span, "an index has no elements"
            )
        else:
            self.report.error(
                "A0212",
                f"unknown tensor `{e.name}`",
                e.span,
                "no tensor has this name",
                did_you_mean(e.name, scope.tensors),
            )

    def _written(self, tensor: str) -> tuple[str, ...]:
        """How each axis that a read of `tensor` writes was declared."""
        if tensor in self.scope.inputs:
            return tuple(print_expr(a.expr) for a in self.scope.inputs[tensor].written)
        return self.scope.body[tensor].indices

    def _arity(self, tensor: str, got: int, want: tuple[str, ...], span: Span | None) -> None:
        scope = self.scope
        declared = (
            print_ast(scope.inputs[tensor].decl)
            if tensor in scope.inputs
            else f"{tensor}[{','.join(scope.body[tensor].indices)}]"
        )
        batch = scope.inputs[tensor].batch if tensor in scope.inputs else frozenset()
        note = (
            f"; `batch` leaves out {', '.join(f'`{b}`' for b in scope.batch if b in batch)}"
            if batch
            else ""
        )
        plural = "index" if len(want) == 1 else "indices"
        self.report.error(
            "A0205",
            f"`{tensor}` is read with {got} instead of {len(want)} {plural}",
            span,
            f"declared as `{declared}`{note}",
            f"write `{_form(tensor, want)}`",
        )

    def _batch(self, name: str, span: Span | None, help: str | None = None) -> None:
        self.report.error(
            "A0216",
            f"batch index `{name}` appears in the body",
            span,
            f"`batch {name}` leaves it out everywhere",
            help or f"take `{name}` out of `batch` where its number is needed",
        )

    def _big(self, e: ast.Big) -> None:
        if e.op not in OPERATORS:
            self._not_operator(e)
            return
        if not e.subs:
            self.report.error(
                "A0205",
                f"`{e.op}` names no index",
                e.span,
                "empty brackets",
                f"write `{e.op}[j](…)`",
            )
        names: set[str] = set()
        for s in e.subs:
            self._bound(e, s, names)
        if e.op != "solve" and e.keywords:
            self.report.error(
                "A0205",
                f"`{e.op}` takes no keyword arguments",
                e.keywords[0].span,
                "written by keyword",
            )
        if len(e.args) != 1:
            self.report.error(
                "A0205",
                f"`{e.op}[…]` takes 1 argument, not {len(e.args)}",
                e.span,
                "one expression is reduced" if e.op in REDUCTIONS else "one expression is expected",
                f"`{e.op}(a, b)` without brackets is the function" if e.op in FUNCTIONS else None,
            )

    def _bound(self, e: ast.Big, s: ast.Sub, names: set[str]) -> None:
        x = ast.strip(s.expr)
        if not isinstance(x, ast.Name):
            self.report.error(
                "A0207",
                f"`{e.op}` needs a lone index in its brackets",
                s.expr.span,
                "expected one index",
                "join the conditions of a filter with `and`"
                if isinstance(x, ast.Compare | ast.BoolOp)
                else f"reduce over an index, as in `{e.op}[j](…)`",
            )
            return
        if x.name in self.scope.batch:
            self._batch(x.name, x.span)
        if x.name in self.scope.not_indices:
            what = "parameter" if x.name in self.scope.params else "tensor"
            self.report.error(
                "A0211",
                f"`{e.op}` binds `{x.name}`, which is a {what}",
                x.span,
                "expected the name of an index",
            )
        if x.name in names:
            self.report.error(
                "A0207", f"`{e.op}` names index `{x.name}` twice", x.span, "again here"
            )
        names.add(x.name)
        self._free(x)
        if (
            e.op in NORMALIZERS
            and e.args
            and x.name not in occurring(e.args[0], self.scope.not_indices)
        ):
            self.report.error(
                "A0219",
                f"the argument of `{e.op}[{x.name}]` does not carry `{x.name}`",
                e.args[0].span,
                f"no `{x.name}` in it",
                "normalize over an index of the argument",
            )

    def _free(self, x: ast.Name) -> None:
        """An index that is declared by its use alone follows the rules for names too."""
        reason = why_taken(x.name)
        if reason is not None and x.name not in {*self.scope.indices, *self.refused}:
            self.refused.add(x.name)
            self.report.error("A0201", f"`{x.name}` cannot name an index", x.span, f"it {reason}")

    def _not_operator(self, e: ast.Big) -> None:
        scope = self.scope
        if e.op in scope.tensors:
            self.report.error(
                "A0204",
                f"`{e.op}` is a tensor, not a reduction",
                e.span,
                "a read is followed by parentheses",
                "write `*` for a product",
            )
        elif e.op in FUNCTIONS or e.op in scope.defs:
            self.report.error(
                "A0204", f"`{e.op}` takes no index", e.span, "not a reduction", f"write `{e.op}(…)`"
            )
        else:
            self.report.error(
                "A0204",
                f"unknown reduction `{e.op}`",
                e.span,
                "not an operator of the language",
                INSTEAD.get(e.op)
                or did_you_mean(e.op, OPERATORS)
                or f"there are {', '.join(f'`{o}`' for o in sorted(OPERATORS))}",
            )

    def _call(self, e: ast.Call) -> None:
        if e.fn not in FUNCTIONS:
            unknown_function(e, self.scope.defs, self.scope.tensors, self.report)
            return
        if e.keywords:
            self.report.error(
                "A0205",
                f"`{e.fn}` takes no keyword arguments",
                e.keywords[0].span,
                "written by keyword",
            )
        if e.keywords:
            return
        several = e.fn in ("min", "max")
        if several and len(e.args) < 2:
            index = next((s for s in sorted(_subscripts(e))), "j")
            self.report.error(
                "A0205",
                f"`{e.fn}` takes 2 or more arguments, not {len(e.args)}",
                e.span,
                "the function compares its arguments",
                f"for a reduction write `{e.fn}[{index}](…)`",
            )
        elif not several and len(e.args) != 1:
            self.report.error(
                "A0205", f"`{e.fn}` takes 1 argument, not {len(e.args)}", e.span, "called here"
            )


def _form(tensor: str, want: tuple[str, ...]) -> str:
    return f"{tensor}[{','.join(want)}]" if want else tensor


def _subscripts(e: ast.Expr) -> set[str]:
    """Names that stand alone in a subscript: they are indices, declared or not."""
    return {
        x.name
        for n in ast.walk(e)
        if isinstance(n, ast.Ref)
        for x in (ast.strip(s.expr) for s in n.subs)
        if isinstance(x, ast.Name)
    }
