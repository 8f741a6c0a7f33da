"""Expressions of the syntax tree to expressions of the cascade, with their kinds checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from attndsl.cascade import nodes as ir
from attndsl.cascade.nodes import DType, Reduction
from attndsl.frontend import ast
from attndsl.frontend.constants import constant
from attndsl.frontend.recurrence import COUPLED, offset_from
from attndsl.frontend.report import Report
from attndsl.frontend.scope import Scope
from attndsl.frontend.typing import Typed, Types
from attndsl.frontend.vocabulary import NORMALIZERS
from attndsl.source import Span

if TYPE_CHECKING:
    from attndsl.frontend.names import Namespace, RankTable
    from attndsl.frontend.normalizers import Normalizers

DEFAULT_ITERS = 32


@dataclass(frozen=True, slots=True)
class Env:
    """What names stand for inside binders: cascade indices, and the unknowns of solves.

    `guards` are the conditions that hold where the expression is evaluated: a tensor made on the way must not be
    computed outside of them.
    """

    indices: Mapping[str, str] = field(default_factory=dict)
    locals: Mapping[str, str] = field(default_factory=dict)
    guards: tuple[ir.Expr, ...] = ()

    def bind(self, names: Mapping[str, str]) -> Env:
        hidden = {k: v for k, v in self.locals.items() if k not in names}
        return Env({**self.indices, **names}, hidden, self.guards)

    def unknown(self, name: str, local: str) -> Env:
        hidden = {k: v for k, v in self.indices.items() if k != name}
        return Env(hidden, {**self.locals, name: local}, self.guards)

    def where(self, condition: ir.Expr | None) -> Env:
        """The environment where a condition holds too."""
        if condition is None:
            return self
        both = isinstance(condition, ir.Logic) and condition.op == "and"
        parts = condition.args if isinstance(condition, ir.Logic) and both else (condition,)
        return replace(self, guards=(*self.guards, *parts))


class Expressions:
    """Lowers expressions inside one statement; `target` is the tensor it assigns."""

    def __init__(
        self,
        scope: Scope,
        report: Report,
        names: Namespace,
        ranks: RankTable,
        normalizers: Normalizers,
    ) -> None:
        self.scope = scope
        self.report = report
        self.names = names
        self.ranks = ranks
        self.normalizers = normalizers
        self.types = Types(report)
        self.target: str | None = None

    def lower(self, e: ast.Expr, env: Env) -> Typed:
        types = self.types
        match e:
            case ast.Num():
                kind = DType.INT if isinstance(e.value, int) else DType.FLOAT
                return Typed(ir.Const(e.value, span=e.span), kind)
            case ast.Bool():
                return Typed(ir.Const(e.value, span=e.span), DType.BOOL)
            case ast.Paren():
                return self.lower(e.inner, env)
            case ast.Name():
                return self.name(e, env)
            case ast.ExtentOf():
                return Typed(ir.Extent(self.extent(e, env), span=e.span), DType.INT)
            case ast.Ref():
                return self.read(e.name, e.subs, env, e.span)
            case ast.Unary(op="not"):
                arg = types.bool(self.lower(e.arg, env), e.arg.span, "`not`")
                return Typed(ir.Unary("not", arg.expr, span=e.span), DType.BOOL)
            case ast.Unary():
                arg = types.number(self.lower(e.arg, env), e.arg.span, f"`{e.op}`")
                return arg if e.op == "+" else _negate(arg, e.span)
            case ast.Binary():
                a = types.number(self.lower(e.left, env), e.left.span, f"`{e.op}`")
                b = types.number(self.lower(e.right, env), e.right.span, f"`{e.op}`")
                return types.binary(e.op, a, b, e.span)
            case ast.BoolOp():
                return self.logic(e, env)
            case ast.Compare():
                return self.compare(e, env)
            case ast.IfExp():
                cond = types.bool(self.lower(e.cond, env), e.cond.span, "`if`")
                then = self.lower(e.then, env.where(cond.expr))
                other = self.lower(e.other, env.where(ir.Unary("not", cond.expr)))
                kind = types.join(then.dtype, other.dtype, e.span, "`if … else`")
                return Typed(ir.Select(cond.expr, then.expr, other.expr, span=e.span), kind)
            case ast.Call():
                args = tuple(types.number(self.lower(a, env), a.span, f"`{e.fn}`") for a in e.args)
                return types.call(e.fn, args, e.span)
            case ast.Big() if e.op in NORMALIZERS or e.op == "logsumexp":
                return self.normalizers.lower(e, env, self)
            case ast.Big(op="solve"):
                return self.solve(e, env)
            case ast.Big():
                return self.reduce(e, env)

    # --- names and reads -------------------------------------------------------------------------------------------

    def name(self, e: ast.Name, env: Env) -> Typed:
        if e.name in env.locals:
            return Typed(ir.Local(env.locals[e.name], span=e.span), DType.FLOAT)
        if e.name in env.indices:
            return Typed(ir.Position(env.indices[e.name], span=e.span), DType.INT)
        if e.name in self.scope.params:
            return Typed(ir.Param(e.name, span=e.span), self.scope.params[e.name].dtype)
        if e.name in self.scope.tensors:
            return self.read(e.name, (), env, e.span)
        raise self.report.error(
            "A0212",
            f"index `{e.name}` has no meaning here",
            e.span,
            "neither kept on the left nor bound",
        )

    def extent(self, e: ast.ExtentOf, env: Env) -> str:
        index = env.indices.get(e.name, e.name)
        if index not in self.ranks:
            raise self.report.error(
                "A0218",
                f"the extent of `{e.name}` is not known",
                e.span,
                "no declared tensor has this index",
            )
        return self.ranks.declared(index)

    def read(self, name: str, subs: tuple[ast.Sub, ...], env: Env, span: Span | None) -> Typed:
        written = [self.subscript(s.expr, env) for s in subs]
        if name in self.scope.inputs:
            tensor = self.scope.inputs[name]
            rest = iter(written)
            full = tuple(self.axis(a.expr) if a.batch else next(rest) for a in tensor.axes)
            return Typed(ir.Read(name, full, span=span), tensor.dtype)
        body = self.scope.body[name]
        if name != self.target:
            self.available(name, subs, span)
        lead = tuple(ir.Index(b) for b in body.batch)
        assert body.dtype is not None
        return Typed(ir.Read(name, (*lead, *written), span=span), body.dtype)

    def available(self, name: str, subs: tuple[ast.Sub, ...], span: Span | None) -> None:
        """Unwind unless the body tensor has been assigned before this statement."""
        from attndsl.frontend.report import Refused

        body = self.scope.body[name]
        if body.poisoned:
            raise Refused
        if not body.lowered:
            line = body.stmt.target.span.line if body.stmt.target.span is not None else None
            help = "put the statements in the order in which they are computed"
            if any(
                isinstance(n, ast.Ref | ast.Name) and n.name == self.target
                for n in ast.walk(body.stmt.expr)
            ):
                help = (
                    f"`{name}` reads `{self.target}` in turn: one of them must do without the other"
                )
                help = help if body.stmt.init is None else COUPLED
            elif body.stmt.init is None and any(
                offset_from(ast.strip(s.expr), i) in (-1, 1)
                for s, i in zip(subs, body.indices, strict=False)
            ):
                help = (
                    f"`{name}` is no recurrence: write what it was one step away from the states there, "
                    f"in a tensor above (`{name}0[…] = … H[t-1] … if t > 0 else 0`)"
                )
            raise self.report.error(
                "A0213",
                f"`{name}` is read before it is assigned",
                span,
                f"assigned on line {line}" if line is not None else "assigned later",
                help,
            )

    def subscript(self, e: ast.Expr, env: Env) -> ir.Expr:
        bare = ast.strip(e)
        if isinstance(bare, ast.Name) and bare.name in env.indices:
            return ir.Index(env.indices[bare.name], span=e.span)
        return self.types.int(self.lower(e, env), e.span, "a subscript").expr

    def axis(self, e: ast.Expr) -> ir.Expr:
        """A declared axis as an expression of declared indices: `Index(h)`, or `h // G`."""
        env = Env({x: x for x in self.scope.indices})
        return self.subscript(e, env)

    # --- conditions ------------------------------------------------------------------------------------------------

    def condition(self, e: ast.Expr, env: Env, what: str) -> ir.Expr:
        return self.types.bool(self.lower(e, env), e.span, what).expr

    def conjunction(self, es: tuple[ast.Expr, ...], env: Env, what: str) -> ir.Expr | None:
        """Comma-separated conditions: all of them."""
        parts = [self.condition(e, env, what) for e in es]
        return conjoin(parts, es[0].span if es else None)

    def logic(self, e: ast.BoolOp, env: Env) -> Typed:
        args: list[ir.Expr] = []
        for side in (e.left, e.right):
            part = self.condition(side, env, f"`{e.op}`")
            args.extend(part.args if isinstance(part, ir.Logic) and part.op == e.op else (part,))
        return Typed(ir.Logic(e.op, tuple(args), span=e.span), DType.BOOL)

    def compare(self, e: ast.Compare, env: Env) -> Typed:
        operands = [self.lower(x, env) for x in e.operands]
        parts: list[ir.Expr] = []
        for op, a, b in zip(e.ops, operands, operands[1:], strict=False):
            bools = (a.dtype is DType.BOOL) + (b.dtype is DType.BOOL)
            if bools == 1 or (bools == 2 and op not in ("==", "!=")):
                raise self.report.error(
                    "A0250",
                    f"`{op}` compares a `bool`",
                    e.span,
                    f"`{a.dtype}` {op} `{b.dtype}`",
                    "use a condition as it is, or with `and`, `or`, `not`",
                )
            parts.append(ir.Compare(op, a.expr, b.expr, span=e.span))
        whole = conjoin(parts, e.span)
        assert whole is not None
        return Typed(whole, DType.BOOL)

    # --- binders ---------------------------------------------------------------------------------------------------

    def reduce(self, e: ast.Big, env: Env) -> Typed:
        op = Reduction(e.op)
        inner, indices = self.bind(e, env)
        filters = tuple(s.filter for s in e.subs if s.filter is not None)
        where = self.conjunction(filters, inner, "a filter")
        body = self.lower(e.args[0], inner.where(where))
        if op in (Reduction.ANY, Reduction.ALL):
            self.types.bool(body, e.args[0].span, f"`{e.op}`")
        else:
            self.types.number(body, e.args[0].span, f"`{e.op}`")
        return Typed(ir.Reduce(op, indices, body.expr, where, span=e.span), body.dtype)

    def bind(self, e: ast.Big, env: Env) -> tuple[Env, tuple[str, ...]]:
        """The environment inside a reduction, and its new index names."""
        made: dict[str, str] = {}
        for s in e.subs:
            x = ast.strip(s.expr)
            assert isinstance(x, ast.Name)
            over = self.runs_over(x.name, ast.children(e), env, x.span)
            made[x.name] = self.names.fresh(x.name)
            self.ranks.iterate(made[x.name], over, x.span)
        return env.bind(made), tuple(made.values())

    def runs_over(
        self, index: str, where: tuple[ast.Expr, ...], env: Env, span: Span | None
    ) -> str:
        """The declared rank whose extent a new index has: that of a subscript it stands in."""
        found = [r for e in where for r in self.stands_in(index, e)]
        own = index in self.ranks and self.ranks.declared(index) == index
        if own and index in self.scope.ranks:
            return index  # its extent is written: a subscript that has another one is refused at the call
        if own and (index in found or not found):
            return index
        if found:
            return found[0]
        raise self.report.error(
            "A0218",
            f"the extent of `{index}` is not known",
            span,
            "it stands alone in no subscript",
            f"read a tensor at `[…{index}…]`, or declare `rank {index} = …`",
        )

    def stands_in(self, index: str, e: ast.Expr) -> list[str]:
        """The ranks of all subscripts in `e` that are just `index`."""
        from attndsl.frontend.einstein import binds

        if isinstance(e, ast.Big) and index in binds(e):
            return []
        found: list[str] = []
        if isinstance(e, ast.Ref):
            for s, rank in zip(e.subs, self.axis_ranks(e.name), strict=True):
                if isinstance(x := ast.strip(s.expr), ast.Name) and x.name == index and rank:
                    found.append(rank)
        for c in ast.children(e):
            found += self.stands_in(index, c)
        return found

    def axis_ranks(self, tensor: str) -> list[str | None]:
        if tensor in self.scope.inputs:
            return [a.rank for a in self.scope.inputs[tensor].written]
        indices = self.scope.body[tensor].indices
        return [self.ranks.declared(i) if i in self.ranks else None for i in indices]

    def solve(self, e: ast.Big, env: Env) -> Typed:
        unknown, lo, hi = self.bracket(e)
        equation = ast.strip(e.args[0])
        if not isinstance(equation, ast.Compare) or equation.ops != ("==",):
            raise self.report.error(
                "A0240", "`solve` needs an equation", e.args[0].span, "expected `left == right`"
            )
        if not any(isinstance(n, ast.Name) and n.name == unknown for n in ast.walk(equation)):
            raise self.report.error(
                "A0240",
                f"the equation does not name its unknown `{unknown}`",
                equation.span,
                f"no `{unknown}` in it",
            )
        local = self.names.fresh(unknown)
        inner = env.unknown(unknown, local)
        low = self.types.number(self.lower(lo, env), lo.span, "a bound")
        high = self.types.number(self.lower(hi, env), hi.span, "a bound")
        sides = [
            self.types.number(self.lower(s, inner), s.span, "an equation")
            for s in equation.operands
        ]
        root = ir.Compare("==", sides[0].expr, sides[1].expr, span=equation.span)
        iters = self.iters(e)
        return Typed(ir.Solve(local, low.expr, high.expr, root, iters, span=e.span), DType.FLOAT)

    def bracket(self, e: ast.Big) -> tuple[str, ast.Expr, ast.Expr]:
        """The unknown of a solve and its two bounds."""
        if len(e.subs) == 1:
            s = e.subs[0]
            x, f = ast.strip(s.expr), ast.strip(s.filter) if s.filter is not None else None
            if isinstance(x, ast.Name) and isinstance(f, ast.Compare) and f.ops == ("<=", "<="):
                lo, middle, hi = f.operands
                inside = any(n == x for b in (lo, hi) for n in ast.walk(b))
                if ast.strip(middle) == x and not inside:
                    return x.name, lo, hi
        raise self.report.error(
            "A0240",
            "`solve` needs bounds for its unknown",
            e.span,
            "expected `solve[x : lo <= x <= hi](…)`",
        )

    def iters(self, e: ast.Big) -> int:
        iters = DEFAULT_ITERS
        for k in e.keywords:
            value = constant(k.value)
            if k.name != "iters":
                raise self.report.error(
                    "A0205", f"`solve` has no argument `{k.name}`", k.span, "expected `iters`"
                )
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 1000:
                raise self.report.error(
                    "A0240",
                    "`iters` is no count of steps",
                    k.value.span,
                    "expected an integer from 1 to 1000",
                )
            iters = value
        return iters


def conjoin(parts: list[ir.Expr], span: Span | None) -> ir.Expr | None:
    """All of the conditions, nested `and`s flattened; None for none."""
    flat: list[ir.Expr] = []
    for p in parts:
        flat.extend(p.args if isinstance(p, ir.Logic) and p.op == "and" else (p,))
    if len(flat) <= 1:
        return flat[0] if flat else None
    return ir.Logic("and", tuple(flat), span=span)


def _negate(t: Typed, span: Span | None) -> Typed:
    if isinstance(t.expr, ir.Const):
        return Typed(replace(t.expr, value=-t.expr.value, span=span), t.dtype)
    return Typed(ir.Unary("-", t.expr, span=span), t.dtype)
