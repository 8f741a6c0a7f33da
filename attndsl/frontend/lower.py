"""One attention of the syntax tree to a cascade.

The steps of one statement: expand defs, resolve names, write the Einstein rule's sums, lower with kinds checked, and
give the result the batch indices that it carries.
"""

from __future__ import annotations

from attndsl.cascade import nodes as ir
from attndsl.cascade import walk
from attndsl.cascade.nodes import DType
from attndsl.diagnostics import did_you_mean
from attndsl.frontend import ast
from attndsl.frontend.coupled import join_coupled
from attndsl.frontend.declarations import build_scope
from attndsl.frontend.domains import Domains
from attndsl.frontend.einstein import CannotSum, occurring, write_sums
from attndsl.frontend.expand import Defs, Expander
from attndsl.frontend.expressions import Env, Expressions, conjoin
from attndsl.frontend.helpers import in_order
from attndsl.frontend.names import Namespace, RankTable
from attndsl.frontend.normalizers import Normalizers
from attndsl.frontend.recurrence import Recurrence, find_recurrence
from attndsl.frontend.refusals import refuse_sums
from attndsl.frontend.report import Refused, Report, listed
from attndsl.frontend.resolve import Resolver
from attndsl.frontend.scope import BodyTensor, Scope
from attndsl.frontend.typing import Typed
from attndsl.frontend.usage import check_usage


def lower_attention(attention: ast.Attention, defs: Defs, report: Report) -> ir.Cascade | None:
    """The cascade of one attention; None if anything was refused (the reasons are in the report)."""
    before = report.errors
    scope = build_scope(attention, defs, report)
    if scope.ambiguous:
        return None
    cascade = _Lowering(scope, report, before).run()
    return cascade if report.errors == before else None


class _Lowering:
    def __init__(self, scope: Scope, report: Report, errors_before: int) -> None:
        self.scope = scope
        self.report = report
        self.errors_before = errors_before
        self.body: list[ir.Define] = []
        self.names = Namespace(
            {*scope.inputs, *scope.params, *scope.outputs, *scope.body, *scope.indices, *scope.defs}
        )
        self.ranks = RankTable()
        self.normalizers = Normalizers(
            self.names, self.ranks, scope, report, lambda d: self.body.append(d)
        )
        self.expander = Expander(defs=scope.defs, report=report)
        self.resolver = Resolver(scope, report)
        self.exprs = Expressions(scope, report, self.names, self.ranks, self.normalizers)

        self.domains = Domains({p.name: p.dtype for p in scope.params.values()}, report)

    def run(self) -> ir.Cascade:
        scope = self.scope
        join_coupled(scope, self.explicit)
        self.declare_ranks()
        inputs = tuple(d for d in map(self.input, scope.inputs) if d is not None)
        params = tuple(
            ir.ScalarParam(p.name, p.dtype, p.default, span=p.decl.span)
            for p in scope.params.values()
        )
        assumes: list[ir.Expr] = []
        for stmt in scope.attention.body:
            if isinstance(stmt, ast.Assume):
                assumes += self.assume(stmt)
        for tensor in in_order(scope, self.explicit):
            self.statement(tensor)
        outputs = self.outputs()
        if self.report.errors == self.errors_before:  # a mistyped read is no unused tensor
            check_usage(scope, self.report)
        used = frozenset(
            i
            for d in self.body
            for e in (d.expr, d.where, d.init)
            if e is not None
            for i in (*walk.bound(e), *walk.free(e))
        ) | frozenset(i for d in self.body for i in d.indices)
        return ir.Cascade(
            scope.attention.name.name,
            inputs,
            params,
            outputs,
            scope.batch,
            self.ranks.kept(used),
            tuple(self.body),
            tuple(assumes),
            span=scope.attention.span,
        )

    # --- declarations ----------------------------------------------------------------------------------------------

    def declare_ranks(self) -> None:
        """Ranks of inputs and of `rank` statements, before anything is read."""
        scope = self.scope
        for tensor in scope.inputs.values():
            for a in tensor.axes:
                if a.index is not None and a.index not in scope.ranks:
                    self.ranks.add(ir.Rank(a.index, span=a.expr.span))
        for name in scope.ranks:
            self.ranks.add(ir.Rank(name))
        for name, value in scope.ranks.items():
            try:
                extent = self.rank_extent(value)
            except Refused:
                continue
            self.ranks.set_extent(name, extent)
        for tensor in scope.inputs.values():
            for a in tensor.axes:
                if a.index is None:
                    self.ranks.add(ir.Rank(a.rank, span=a.expr.span))

    def rank_extent(self, value: ast.Expr) -> ir.Expr:
        value = self.expander.expand(value)
        if not self.resolver.check(value):
            raise Refused
        loose: list[ast.Expr] = [n for n in ast.walk(value) if isinstance(n, ast.Ref | ast.Big)]
        loose += [
            n
            for n in ast.walk(value)
            if isinstance(n, ast.Name) and n.name not in self.scope.params
        ]
        if loose:
            raise self.report.error(
                "A0231",
                "the extent of a rank depends on more than extents and parameters",
                loose[0].span,
                "not known before the call",
                "write an extent with bars: `|j|`",
            )
        typed = self.exprs.lower(value, Env())
        return self.exprs.types.int(typed, value.span, "an extent").expr

    def input(self, name: str) -> ir.TensorDecl | None:
        tensor = self.scope.inputs[name]
        try:
            for a in tensor.axes:
                if a.index is None:
                    self.axis_names(a.expr)
            dims = tuple(self.exprs.axis(a.expr) for a in tensor.axes)
        except Refused:
            return None
        return ir.TensorDecl(
            name, dims, tuple(a.rank for a in tensor.axes), tensor.dtype, span=tensor.decl.span
        )

    def axis_names(self, e: ast.Expr) -> None:
        """An axis such as `h//G` is made of lone indices of other axes, of parameters and of numbers."""
        for n in ast.walk(e):
            if isinstance(n, ast.Ref | ast.Big | ast.Call):
                raise self.report.error(
                    "A0207",
                    "an axis is declared by more than index arithmetic",
                    n.span,
                    "not allowed here",
                )
            if (
                isinstance(n, ast.Name)
                and n.name not in self.scope.params
                and n.name not in self.scope.indices
            ):
                known = {*self.scope.params, *self.scope.indices}
                raise self.report.error(
                    "A0212",
                    f"unknown name `{n.name}`",
                    n.span,
                    "no parameter has this name, and no axis is just this index",
                    did_you_mean(n.name, known) or f"declare the parameter: `{n.name}: int`",
                )

    # --- statements ------------------------------------------------------------------------------------------------

    def statement(self, tensor: BodyTensor) -> None:
        if tensor.poisoned:  # its left side was refused
            return
        made = len(self.body)
        groups = dict(self.normalizers.groups)
        try:
            self.assign(tensor)
        except Refused:
            tensor.poisoned = True
            del self.body[made:]
            self.normalizers.groups = groups
            tensor.lowered = True
            return
        tensor.lowered = True
        for made_here in self.body[made:]:
            self.domains.define(made_here)

    def assign(self, tensor: BodyTensor) -> None:
        stmt = tensor.stmt
        expr = self.expander.expand(stmt.expr)
        init = self.expander.expand(stmt.init) if stmt.init is not None else None
        conditions = (*stmt.where, *(s.filter for s in stmt.subs if s.filter is not None))
        where = tuple(self.expander.expand(c) for c in conditions)
        if not self.resolver.check(expr, init, *where):
            raise Refused
        recurrence = find_recurrence(tensor, expr, init, self.report)
        left = frozenset(tensor.indices)
        expr = self.sums(expr, left)
        tensor.batch = self.carried(tensor, (expr, *where, *((init,) if init is not None else ())))
        self.infer_ranks(tensor, expr)
        self.exprs.target = tensor.name
        env = Env({i: i for i in tensor.indices})
        if recurrence is not None:
            self.unbroken(tensor, recurrence, where)
        domain = self.domain(tensor, where, env)
        start = self.initial(tensor, recurrence, init, env)
        value = self.value(tensor, expr, env.where(domain), start)
        tensor.dtype = value.dtype
        self.body.append(
            ir.Define(
                tensor.name,
                (*tensor.batch, *tensor.indices),
                value.expr,
                domain,
                start.expr if start is not None else None,
                span=stmt.span,
            )
        )

    def value(self, tensor: BodyTensor, expr: ast.Expr, env: Env, start: Typed | None) -> Typed:
        """The right side. A recurrence that starts from an integer is tried as one of integers first."""
        if start is None or start.dtype is not DType.INT:
            tensor.dtype = DType.FLOAT
            return self.exprs.lower(expr, env)
        made, names, ranks = len(self.body), self.names.snapshot(), self.ranks.snapshot()
        groups = dict(self.normalizers.groups)
        tensor.dtype = DType.INT
        value = self.exprs.lower(expr, env)
        if value.dtype is DType.INT:
            return value
        del self.body[made:]
        self.names.restore(names)
        self.ranks.restore(ranks)
        self.normalizers.groups = groups
        tensor.dtype = DType.FLOAT
        return self.exprs.lower(expr, env)

    def explicit(self, tensor: BodyTensor, expr: ast.Expr) -> ast.Expr:
        """A right side without defs, its sums written out; raises Refused where it is none."""
        expr = self.expander.expand(expr)
        if tensor.poisoned or not self.resolver.check(expr):
            raise Refused
        return self.sums(expr, frozenset(tensor.indices))

    def sums(self, expr: ast.Expr, left: frozenset[str]) -> ast.Expr:
        try:
            return write_sums(expr, left, self.scope.not_indices)
        except CannotSum as error:
            raise refuse_sums(error, left, self.scope, self.report) from None

    def carried(self, tensor: BodyTensor, exprs: tuple[ast.Expr, ...]) -> tuple[str, ...]:
        """The batch indices of everything that the right side reads, and those that an output declares."""
        scope = self.scope
        found: set[str] = set()
        for e in exprs:
            for n in ast.walk(e):
                if isinstance(n, ast.Name | ast.Ref):
                    if n.name in scope.inputs:
                        found |= scope.inputs[n.name].batch
                    elif n.name in scope.body and n.name != tensor.name:
                        found |= set(scope.body[n.name].batch)
        found |= set(scope.outputs.get(tensor.name, ())) & set(scope.batch)
        return tuple(b for b in scope.batch if b in found)

    def infer_ranks(self, tensor: BodyTensor, expr: ast.Expr) -> None:
        """Ranks for indices of the left side that nothing has declared: those of the subscripts they stand in."""
        env = Env()
        for i in tensor.indices:
            if i not in self.ranks:
                self.ranks.iterate(
                    i, self.exprs.runs_over(i, (expr,), env, tensor.stmt.span), tensor.stmt.span
                )

    def domain(self, tensor: BodyTensor, where: tuple[ast.Expr, ...], env: Env) -> ir.Expr | None:
        parts: list[ir.Expr] = []
        for c in where:
            for x in occurring(c, self.scope.not_indices):
                if x not in tensor.indices:
                    raise self.report.error(
                        "A0230",
                        f"the condition on `{tensor.name}` names `{x}`, which is not its index",
                        c.span,
                        f"`{tensor.name}` has the indices {listed(tensor.indices)}"
                        if tensor.indices
                        else "it has no index",
                        "put the condition on the tensor that is summed, or in a filter: "
                        f"`sum[{x} : …](…)`",
                    )
            parts.append(self.exprs.condition(c, env, "`where`"))
        return conjoin(parts, where[0].span if where else None)

    def unbroken(
        self, tensor: BodyTensor, recurrence: Recurrence, where: tuple[ast.Expr, ...]
    ) -> None:
        """A step that is undefined would leave every later one undefined."""
        for c in where:
            if recurrence.index in occurring(c, self.scope.not_indices):
                raise self.report.error(
                    "A0246",
                    f"the domain of the recurrence `{tensor.name}` names `{recurrence.index}`",
                    c.span,
                    "after a step that is undefined, every later one is undefined too",
                    f"choose inside the step: `… if … else {tensor.name}[…]`",
                )

    def initial(
        self, tensor: BodyTensor, recurrence: Recurrence | None, init: ast.Expr | None, env: Env
    ) -> Typed | None:
        if recurrence is None or init is None:
            return None
        left = frozenset(tensor.indices) - {recurrence.index}
        if recurrence.index in occurring(init, self.scope.not_indices):
            raise self.report.error(
                "A0245",
                f"the start of `{tensor.name}` names `{recurrence.index}`",
                init.span,
                f"a recurrence over `{recurrence.index}` starts before its first point",
            )
        inner = Env({i: i for i in left})
        init = self.sums(init, left)
        return self.exprs.types.number(self.exprs.lower(init, inner), init.span, "`init`")

    def assume(self, stmt: ast.Assume) -> list[ir.Expr]:
        facts: list[ir.Expr] = []
        for c in stmt.conditions:
            try:
                facts.append(self.fact(self.expander.expand(c)))
            except Refused:
                continue
        return facts

    def fact(self, c: ast.Expr) -> ir.Expr:
        """A condition on inputs; a bare tensor name stands for each of its elements."""
        scope = self.scope
        for n in ast.walk(c):
            if isinstance(n, ast.Name | ast.Ref) and n.name in scope.body:
                raise self.report.error(
                    "A0232",
                    f"`assume` speaks of `{n.name}`, which is no input",
                    n.span,
                    "assigned in the body",
                    "facts are about inputs and parameters; what follows from them is derived",
                )
        whole = _elements(c, scope)
        if not self.resolver.check(whole):
            raise Refused
        env = Env({x: x for x in scope.indices})
        return self.exprs.condition(whole, env, "`assume`")

    # --- outputs ---------------------------------------------------------------------------------------------------

    def outputs(self) -> tuple[ir.Output, ...]:
        scope = self.scope
        made: list[ir.Output] = []
        for d in scope.attention.outputs:
            name = d.name.name
            if name not in scope.outputs:
                continue
            declared = scope.outputs[name]
            tensor = scope.body.get(name)
            if tensor is None:
                self.report.error(
                    "A0260",
                    f"output `{name}` is never assigned",
                    d.span,
                    "declared here",
                    f"assign it in the body: `{name}[…] = …`",
                )
                continue
            if tensor.poisoned:
                continue
            kept = [i for i in declared if i not in scope.batch]
            if set(kept) != set(tensor.indices):
                self.report.error(
                    "A0261",
                    f"output `{name}` is declared and assigned with different indices",
                    tensor.stmt.target.span,
                    f"declared as `{name}[{','.join(declared)}]`",
                    f"write `{name}[{','.join(kept)}] = …`" if kept else f"write `{name} = …`",
                )
                continue
            lacking = [b for b in tensor.batch if b not in declared]
            if lacking:
                self.report.error(
                    "A0262",
                    f"output `{name}` lacks the batch index {listed(lacking)}",
                    d.span,
                    f"its value carries {listed(tensor.batch)}",
                    f"declare it as `{name}[{','.join((*tensor.batch, *kept))}]`",
                )
                continue
            made.append(ir.Output(name, declared, span=d.span))
        return tuple(made)


def _elements(c: ast.Expr, scope: Scope) -> ast.Expr:
    """Bare input names get the subscripts that they were declared with."""
    if isinstance(c, ast.Name) and c.name in scope.inputs:
        subs = tuple(ast.Sub(a.expr, span=c.span) for a in scope.inputs[c.name].written)
        return ast.Ref(c.name, subs, span=c.span) if subs else c
    return ast.map_children(c, lambda x: _elements(x, scope))
