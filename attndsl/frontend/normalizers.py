"""Normalizers and `logsumexp`, written out as cascades.

    softmax[j](S)     M = max[j](S);  P = exp(S - M);  Z = sum[j](P);      value P / Z
    logsumexp[j](S)   the same M, P and Z;                                 value M + log(Z)
    sparsemax[j](S)   M = max[j](S);  T = solve[x : M - 1 <= x <= M](sum[j](relu(S - x)) == 1);      value relu(S - T)
    entmax15[j](S)    H = S / 2, then as sparsemax with relu(H - x)**2;    value relu(H - T)**2

Two operators over the same indices of the same argument share their tensors.

Source: Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models" (2019), for entmax and its threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attndsl.cascade import nodes as ir
from attndsl.cascade import walk
from attndsl.cascade.nodes import DType, Reduction
from attndsl.frontend import ast
from attndsl.frontend.names import Namespace, RankTable
from attndsl.frontend.report import Report
from attndsl.frontend.scope import Scope
from attndsl.frontend.typing import Typed
from attndsl.source import Span

if TYPE_CHECKING:
    from attndsl.frontend.expressions import Env, Expressions

ITERS = 16


@dataclass(slots=True)
class Group:
    """The tensors made for one argument and one set of indices, by role (`S`, `M`, `P`, `Z`, `T`)."""

    base: str
    score: ir.Expr
    free: tuple[str, ...]
    over: tuple[str, ...]
    filter: ir.Expr | None = None
    """What restricts the reductions themselves: of rows that the score does not have (a scan)."""
    made: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> tuple[str, ...]:
        return tuple(i for i in self.free if i not in self.over)


class Normalizers:
    """Makes the definitions; `emit` takes each in order of dependence."""

    def __init__(
        self,
        names: Namespace,
        ranks: RankTable,
        scope: Scope,
        report: Report,
        emit: Callable[[ir.Define], None],
    ) -> None:
        self.names = names
        self.ranks = ranks
        self.scope = scope
        self.report = report
        self.emit = emit
        self.groups: dict[tuple[ir.Expr, ir.Expr | None, tuple[str, ...]], Group] = {}

    def lower(self, e: ast.Big, env: Env, lowerer: Expressions) -> Typed:
        """The value of a normalizer (or of `logsumexp`) over reads of its tensors."""
        indices = tuple(x.name for s in e.subs if isinstance(x := ast.strip(s.expr), ast.Name))
        if e.op == "logsumexp":
            env, over = lowerer.bind(e, env)
        else:
            over = tuple(self.carried(e, x, env) for x in indices)
        arg = lowerer.types.number(lowerer.lower(e.args[0], env), e.args[0].span, f"`{e.op}`")
        filters = tuple(s.filter for s in e.subs if s.filter is not None)
        where = lowerer.conjunction(filters, env, "a filter")
        self.check(e, arg.expr, where, lowerer.target)
        if not _is_plain(arg.expr):
            where = self.guarded(arg.expr, where, env)

        names = self.canonical(arg.expr, where)
        score = walk.rename(arg.expr, names)
        domain = walk.rename(where, names) if where is not None else None
        free = tuple(names.values())
        group = self.group(score, domain, free, tuple(names[i] for i in over), e, lowerer)
        value = getattr(self, f"_{e.op}")(group, e.span)
        back = {v: k for k, v in names.items()}
        return Typed(walk.rename(value, back), DType.FLOAT)

    def carried(self, e: ast.Big, index: str, env: Env) -> str:
        if index in env.indices:
            return env.indices[index]
        raise self.report.error(
            "A0219",
            f"`{e.op}` keeps index `{index}`, which is neither on the left nor summed",
            e.span,
            f"its value carries `{index}`",
        )

    def check(
        self,
        e: ast.Big,
        arg: ir.Expr,
        where: ir.Expr | None,
        target: str | None,
    ) -> None:
        if target in walk.reads(arg):
            raise self.report.error(
                "A0241",
                f"`{e.op}` depends on `{target}`, which is being assigned",
                e.span,
                "it would have to be computed anew at every step",
                "write the normalizer out, with `exp`, `max` and `sum`",
            )
        loose = [
            n.name
            for x in (arg, where)
            if x is not None
            for n in walk.walk(x)
            if isinstance(n, ir.Local)
        ]
        inner = {n.var for n in walk.walk(arg) if isinstance(n, ir.Solve)}
        if any(name not in inner for name in loose):
            raise self.report.error(
                "A0241",
                f"`{e.op}` inside a `solve` depends on the unknown",
                e.span,
                "it would have to be computed anew at every step",
                "write the normalizer out, with `exp`, `max` and `sum`",
            )

    def guarded(self, arg: ir.Expr, where: ir.Expr | None, env: Env) -> ir.Expr | None:
        """The domain of a score of its own: the filter, and the conditions around the operator.

        `softmax[j](S[t-1,j]) if t > 0 else 0` must not read `S[-1,j]` for being computed ahead.
        """
        from attndsl.frontend.expressions import conjoin

        free = walk.free(arg)
        inside = [
            g
            for g in env.guards
            if walk.free(g) <= free and not any(isinstance(n, ir.Local) for n in walk.walk(g))
        ]
        return conjoin([*inside, *([where] if where is not None else [])], arg.span)

    def canonical(self, arg: ir.Expr, where: ir.Expr | None) -> dict[str, str]:
        """Names for the free indices outside the statement: a bound index is called after the rank it runs over."""
        found = _in_order(arg) + ([] if where is None else _in_order(where))
        order = [b for b in self.scope.batch if b in found]
        order += [i for i in dict.fromkeys(found) if i not in order]
        ranks = {i: self.ranks.declared(i) if i in self.ranks else i for i in order}
        names = {i: i for i in order if ranks[i] == i}
        for i in order:
            if i in names:
                continue
            names[i] = ranks[i]
            if ranks[i] in {x for k, x in names.items() if k != i}:  # two indices over one rank
                names[i] = i if i in self.scope.indices else self.names.fresh(ranks[i])
                self.ranks.iterate(names[i], ranks[i], None)
        return {i: names[i] for i in order}

    def group(
        self,
        score: ir.Expr,
        domain: ir.Expr | None,
        free: tuple[str, ...],
        over: tuple[str, ...],
        e: ast.Big,
        lowerer: Expressions,
    ) -> Group:
        key = (_with_plain_bounds(score), domain, over)
        wider = domain is not None and not walk.free(domain) <= walk.free(score)
        if wider and e.op == "logsumexp":
            return Group(lowerer.target or "S", score, free, over, domain)
        if key not in self.groups:
            plain = domain is None and _is_plain(score)
            base = score.tensor if isinstance(score, ir.Read) and plain else lowerer.target or "S"
            made = Group(base, score, free, over)
            self.groups[key] = made
            if not plain:
                made.score = self.define(made, "S", free, score, e.span, domain)
        return self.groups[key]

    # --- the cascades ----------------------------------------------------------------------------------------------

    def _softmax(self, g: Group, span: Span | None) -> ir.Expr:
        return ir.Binary("/", self.weights(g, span), self.total(g, span), span=span)

    def _logsumexp(self, g: Group, span: Span | None) -> ir.Expr:
        log = ir.Call("log", (self.total(g, span),), span=span)
        return ir.Binary("+", self.maximum(g, span), log, span=span)

    def _sparsemax(self, g: Group, span: Span | None) -> ir.Expr:
        return _relu(ir.Binary("-", g.score, self.threshold(g, 1, span), span=span))

    def _entmax15(self, g: Group, span: Span | None) -> ir.Expr:
        half = self.half(g, span)
        root = _relu(ir.Binary("-", half.score, self.threshold(half, 2, span), span=span))
        return ir.Binary("**", root, ir.Const(2), span=span)

    def maximum(self, g: Group, span: Span | None) -> ir.Expr:
        if "M" in g.made:
            return self.read(g, "M", g.kept)
        return self.define(g, "M", g.kept, self.reduced(g, Reduction.MAX, g.score, span), span)

    def weights(self, g: Group, span: Span | None) -> ir.Expr:
        shifted = ir.Binary("-", g.score, self.maximum(g, span), span=span)
        weights = ir.Call("exp", (shifted,), span=span)
        return weights if g.filter is not None else self.define(g, "P", g.free, weights, span)

    def total(self, g: Group, span: Span | None) -> ir.Expr:
        weights = self.weights(g, span)
        if "Z" in g.made:
            return self.read(g, "Z", g.kept)
        return self.define(g, "Z", g.kept, self.reduced(g, Reduction.SUM, weights, span), span)

    def half(self, g: Group, span: Span | None) -> Group:
        """The same group over half the score."""
        name = "H"
        half = self.define(g, name, g.free, ir.Binary("/", g.score, ir.Const(2), span=span), span)
        key = (half, None, g.over)
        if key not in self.groups:
            self.groups[key] = Group(g.made[name], half, g.free, g.over)
        return self.groups[key]

    def threshold(self, g: Group, power: int, span: Span | None) -> ir.Expr:
        role = f"T{power}"
        if role in g.made:
            return self.read(g, role, g.kept)
        top = self.maximum(g, span)
        unknown = self.names.fresh("x")
        part = _relu(ir.Binary("-", g.score, ir.Local(unknown), span=span))
        if power != 1:
            part = ir.Binary("**", part, ir.Const(power), span=span)
        mass = self.reduced(g, Reduction.SUM, part, span)
        equation = ir.Compare("==", mass, ir.Const(1), span=span)
        low = ir.Binary("-", top, ir.Const(1), span=span)
        return self.define(
            g, role, g.kept, ir.Solve(unknown, low, top, equation, ITERS, span=span), span
        )

    # --- definitions -----------------------------------------------------------------------------------------------

    def define(
        self,
        g: Group,
        role: str,
        indices: tuple[str, ...],
        expr: ir.Expr,
        span: Span | None,
        where: ir.Expr | None = None,
    ) -> ir.Expr:
        """A read of the group's tensor in this role, made on first use."""
        if role not in g.made:
            g.made[role] = self.names.fresh(f"{role[0]}_{g.base}")
            self.emit(ir.Define(g.made[role], indices, expr, where, span=span))
        return self.read(g, role, indices)

    def read(self, g: Group, role: str, indices: tuple[str, ...]) -> ir.Expr:
        return ir.Read(g.made[role], tuple(ir.Index(i) for i in indices))

    def reduced(self, g: Group, op: Reduction, body: ir.Expr, span: Span | None) -> ir.Expr:
        new: dict[str, str] = {}
        for i in g.over:
            new[i] = self.names.fresh(self.ranks.declared(i))
            self.ranks.iterate(new[i], i, span)
        where = None if g.filter is None else walk.rename(g.filter, new)
        return ir.Reduce(op, tuple(new.values()), walk.rename(body, new), where, span=span)


def _relu(e: ir.Expr) -> ir.Expr:
    return ir.Call("relu", (e,), span=e.span)


def _is_plain(e: ir.Expr) -> bool:
    """A read at lone, distinct indices."""
    if not isinstance(e, ir.Read) or not all(isinstance(s, ir.Index) for s in e.subs):
        return False
    return len(set(e.subs)) == len(e.subs)


def _in_order(e: ir.Expr) -> list[str]:
    """Free indices, in order of occurrence."""
    free = walk.free(e)
    found = [n.name for n in walk.walk(e) if isinstance(n, ir.Index | ir.Position)]
    return [i for i in dict.fromkeys(found) if i in free]


def _with_plain_bounds(e: ir.Expr) -> ir.Expr:
    """The same expression with its bound names numbered, to compare two of them."""
    names: Mapping[str, str] = {
        x: f"%{k}"
        for k, x in enumerate(
            x
            for n in walk.walk(e)
            if isinstance(n, ir.Reduce | ir.Solve)
            for x in (n.indices if isinstance(n, ir.Reduce) else (n.var,))
        )
    }
    return walk.rename(e, names)
