"""The invariants of the cascade IR, as an executable specification: run between passes in tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Leaf,
    Local,
    Logic,
    Node,
    Param,
    Position,
    Read,
    Reduce,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.printer import print_cascade, print_expr
from attndsl.cascade.types import Types, time_axis
from attndsl.cascade.walk import free, walk
from attndsl.internal import InternalError

_ARITY = {"min": (2, None), "max": (2, None)}
_FUNCTIONS = frozenset(
    {
        "exp",
        "exp2",
        "log",
        "log2",
        "sqrt",
        "rsqrt",
        "tanh",
        "sigmoid",
        "logsigmoid",
        "softplus",
        "relu",
        "elu",
        "silu",
    }
    | {"gelu", "erf", "sin", "cos", "acos", "abs", "sign", "floor", "ceil", "min", "max"}
)
_BINARY = frozenset({"+", "-", "*", "/", "//", "%", "**"})
_COMPARE = frozenset({"<", "<=", ">", ">=", "==", "!="})


def verify(cascade: Cascade) -> None:
    """Raise `InternalError`, with the cascade's text, if an invariant of the cascade IR is broken."""
    broken = list(_Checker(cascade).broken())
    if broken:
        raise InternalError(
            f"the cascade `{cascade.name}` is malformed: " + "; ".join(broken), dump=_dump(cascade)
        )


def _dump(cascade: Cascade) -> str:
    try:
        return print_cascade(cascade)
    except Exception:  # a cascade that is malformed enough cannot be printed
        return repr(cascade)


class _Checker:
    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self.ranks = {r.name for r in cascade.ranks}
        self.params = {p.name for p in cascade.params}
        self.axes: dict[str, int] = {t.name: len(t.dims) for t in cascade.inputs}

    def broken(self) -> Iterable[str]:
        yield from self._declarations()
        for d in self.cascade.body:
            yield from self._definition(d)
        for o in self.cascade.outputs:
            if o.name not in self.cascade.defined:
                yield f"output `{o.name}` is not defined"
            elif sorted(found := self.cascade.define(o.name).indices) != sorted(o.indices):
                yield f"output `{o.name}` has indices {o.indices}, and its definition {found}"
        for fact in self.cascade.assumes:
            yield from self._closed(fact, "an `assume`", set(free(fact)) & self.ranks, set())

    def _declarations(self) -> Iterable[str]:
        names = [t.name for t in self.cascade.inputs] + [d.tensor for d in self.cascade.body]
        for name in sorted({n for n in names if names.count(n) > 1}):
            yield f"tensor `{name}` is given twice"
        ranks = [r.name for r in self.cascade.ranks]
        for name in sorted({n for n in ranks if ranks.count(n) > 1}):
            yield f"rank `{name}` is given twice"
        for name in sorted(set(names) & (self.ranks | self.params)):
            yield f"`{name}` is a tensor and also a rank or a parameter"
        for r in self.cascade.ranks:
            if r.iterates is not None and r.iterates not in self.ranks:
                yield f"rank `{r.name}` iterates `{r.iterates}`, which is no rank"
            if r.extent is not None:
                yield from self._closed(r.extent, f"the extent of `{r.name}`", set(), set())
        for t in self.cascade.inputs:
            if len(t.dims) != len(t.ranks):
                yield f"input `{t.name}` has {len(t.dims)} axes and {len(t.ranks)} ranks"
            for rank in t.ranks:
                if rank not in self.ranks:
                    yield f"rank `{rank}` of input `{t.name}` is not declared"
            for dim in t.dims:
                yield from self._closed(dim, f"an axis of `{t.name}`", self.ranks, set())
        for b in self.cascade.batch:
            if b not in self.ranks:
                yield f"batch index `{b}` is no rank"

    def _definition(self, d: Define) -> Iterable[str]:
        what = f"the definition of `{d.tensor}`"
        if len(set(d.indices)) != len(d.indices):
            yield f"{what} repeats an index"
        for i in d.indices:
            if i not in self.ranks:
                yield f"{what} has index `{i}`, which is no rank"
        scope = set(d.indices)
        if d.init is not None:
            time = time_axis(d)
            if time is None:
                yield f"{what} has an initial value and does not read its past"
            else:
                yield from self._closed(
                    d.init, f"the initial value of `{d.tensor}`", scope - {time[0]}, set()
                )
            self.axes[d.tensor] = len(d.indices)
        if d.where is not None:
            yield from self._closed(d.where, f"the domain of `{d.tensor}`", scope, set())
        yield from self._closed(d.expr, what, scope, set())
        self.axes[d.tensor] = len(d.indices)

    def _closed(self, e: Expr, what: str, scope: set[str], unknowns: set[str]) -> Iterable[str]:
        """Every name of `e` is bound; every operator is one of the language's."""

        def inside(x: Expr, more: Iterable[str] = (), locals_: Iterable[str] = ()) -> Iterable[str]:
            return self._closed(x, what, scope | set(more), unknowns | set(locals_))

        if not isinstance(e, Node):
            yield f"{what} holds {e!r}, which is no expression"
            return
        match e:
            case Const():
                pass
            case Param():
                if e.name not in self.params:
                    yield f"{what} names `{e.name}`, which is no parameter"
            case Extent():
                if e.rank not in self.ranks:
                    yield f"{what} names |{e.rank}|, which is no rank"
            case Index() | Position():
                if e.name not in scope:
                    yield f"{what} names index `{e.name}`, which is not bound there"
            case Local():
                if e.name not in unknowns:
                    yield f"{what} names the unknown `{e.name}` outside of its `solve`"
            case Read():
                if e.tensor not in self.axes:
                    yield f"{what} reads `{e.tensor}`, which is not defined before"
                elif self.axes[e.tensor] != len(e.subs):
                    yield f"{what} reads `{e.tensor}` at {len(e.subs)} of its {self.axes[e.tensor]} axes"
                for s in e.subs:
                    yield from inside(s)
            case Unary():
                if e.op not in ("-", "not"):
                    yield f"{what} has the operator `{e.op}`"
                yield from inside(e.arg)
            case Binary() | Compare():
                if e.op not in (_BINARY if isinstance(e, Binary) else _COMPARE):
                    yield f"{what} has the operator `{e.op}`"
                yield from inside(e.left)
                yield from inside(e.right)
            case Logic():
                if e.op not in ("and", "or") or len(e.args) < 2:
                    yield f"{what} has `{e.op}` of {len(e.args)}"
                for a in e.args:
                    yield from inside(a)
            case Select():
                for a in (e.cond, e.then, e.other):
                    yield from inside(a)
            case Call():
                least, most = _ARITY.get(e.fn, (1, 1))
                if e.fn not in _FUNCTIONS:
                    yield f"{what} calls `{e.fn}`"
                elif len(e.args) < least or (most is not None and len(e.args) > most):
                    yield f"{what} calls `{e.fn}` with {len(e.args)} arguments"
                for a in e.args:
                    yield from inside(a)
            case Reduce():
                yield from self._binds(e, what, scope)
                yield from inside(e.body, e.indices)
                if e.where is not None:
                    yield from inside(e.where, e.indices)
            case Solve():
                if e.iters < 1 or e.equation.op != "==":
                    yield f"{what} has a malformed `solve`"
                yield from inside(e.lo)
                yield from inside(e.hi)
                yield from inside(e.equation, (), (e.var,))
            case Leaf():
                yield f"{what} holds a leaf of a later IR"
            case _:
                assert_never(e)

    def _binds(self, e: Reduce, what: str, scope: set[str]) -> Iterable[str]:
        if not e.indices:
            yield f"{what} has a reduction over no index"
        if len(set(e.indices)) != len(e.indices):
            yield f"{what} has a reduction that binds an index twice"
        for i in e.indices:
            if i not in self.ranks:
                yield f"{what} binds `{i}`, which is no rank"
            if i in scope:
                yield f"{what} binds `{i}` where it is bound already"


def verify_types(cascade: Cascade) -> None:
    """Raise `InternalError` where a condition is no truth value or a subscript no integer."""
    types = Types(cascade)
    for d in cascade.body:
        for root in (d.expr, d.where, d.init):
            for n in walk(root) if root is not None else ():
                match n:
                    case Read():
                        wrong = [s for s in n.subs if types.of(s) is not DType.INT]
                    case Logic():
                        wrong = [a for a in n.args if types.of(a) is not DType.BOOL]
                    case Select() if types.of(n.cond) is not DType.BOOL:
                        wrong = [n.cond]
                    case Reduce(where=Node() as where) if types.of(where) is not DType.BOOL:
                        wrong = [where]
                    case _:
                        wrong = []
                if wrong:
                    raise InternalError(
                        f"the cascade `{cascade.name}` is mistyped: `{print_expr(wrong[0])}` in `{print_expr(n)}`",
                        dump=print_cascade(cascade),
                    )
        if d.where is not None and types.of(d.where) is not DType.BOOL:
            raise InternalError(
                f"the cascade `{cascade.name}` is mistyped: the domain of `{d.tensor}` is no condition",
                dump=print_cascade(cascade),
            )
