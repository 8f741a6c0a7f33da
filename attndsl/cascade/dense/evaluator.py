"""Expressions: one case for each node of the IR."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.dense import functions
from attndsl.cascade.dense.core import numeric
from attndsl.cascade.dense.functions import FUNCTIONS, SAFE
from attndsl.cascade.dense.named import Named, Pointwise, Value
from attndsl.cascade.dense.reads import Reads
from attndsl.cascade.dense.reductions import Reductions
from attndsl.cascade.dense.roots import Roots
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Index,
    Leaf,
    Local,
    Logic,
    Param,
    Position,
    Read,
    Reduce,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.printer import print_expr
from attndsl.internal import InternalError

_COMPARE: dict[str, Pointwise] = {
    "<": torch.lt,
    "<=": torch.le,
    ">": torch.gt,
    ">=": torch.ge,
    "==": torch.eq,
    "!=": torch.ne,
}


class Evaluator(Reads, Reductions, Roots):
    """Evaluates expressions over the tensors that are stored so far."""

    def eval(self, e: Expr, active: Named | None) -> Value:
        match e:
            case Const():
                return Value(self.scalar(e.value))
            case Param():
                return Value(self.param(e.name))
            case Extent():
                return Value(self.scalar(self.extents[e.rank]))
            case Index():
                return Value(self.position(e.name, shifted=False))
            case Position():
                return Value(self.position(e.name, shifted=True))
            case Local():
                return Value(self.locals[e.name])
            case Read():
                return self.read(e, active)
            case Unary(op="not"):
                return self.map(torch.logical_not, [self.eval(e.arg, active)])
            case Unary():
                return self.map(torch.neg, [numeric(self.eval(e.arg, active))])
            case Binary():
                return self._binary(e, active)
            case Compare():
                a, b = self.joined(self.eval(e.left, active), self.eval(e.right, active))
                return self.map(_COMPARE[e.op], [a, b])
            case Logic():
                return self._logic(e, active)
            case Select():
                return self._select(e, active)
            case Call():
                return self._call(e, active)
            case Reduce():
                return self.reduce(e, active)
            case Solve():
                return self.solve(e, active)
            case Leaf():
                raise InternalError(f"`{type(e).__name__}` in a cascade")
            case _:
                assert_never(e)

    def _binary(self, e: Binary, active: Named | None) -> Value:
        a, b = self.joined(numeric(self.eval(e.left, active)), numeric(self.eval(e.right, active)))
        match e.op:
            case "+":
                return self.map(torch.add, [a, b])
            case "-":
                return self.map(functions.subtract, [a, b])
            case "*":
                return self.guarded(torch.mul, [a, b], (0, 0), active)
            case "/":
                empty = self.has_reduction(e.right)
                a, b = self.as_float(a), self.as_float(b)
                return self.guarded(
                    lambda x, y: functions.divide(x, y, empty), [a, b], (0, 1), active
                )
            case "//" | "%":
                fn = functions.floor_divide if e.op == "//" else torch.remainder
                return self.guarded(self._checked(fn, e), [a, b], (0, 1), active)
            case "**":
                if self.types.of(e) is DType.FLOAT:
                    a, b = self.as_float(a), self.as_float(b)
                return self.guarded(functions.power, [a, b], (1, 1), active)
        raise AssertionError(e.op)

    def _checked(self, fn: Pointwise, e: Expr) -> Pointwise:
        def checked(a: Tensor, b: Tensor) -> Tensor:
            if not b.is_floating_point() and bool((b == 0).any()):
                raise CallError("A0508", f"{self.cascade.name}: `{print_expr(e)}` divides by zero")
            return fn(a, b)

        return checked

    def _logic(self, e: Logic, active: Named | None) -> Value:
        """`and` and `or` look at their arguments from left to right, and only as far as needed."""
        out = self.eval(e.args[0], active)
        for arg in e.args[1:]:
            # the points where the next argument decides
            open_ = Named(out.data.data if e.op == "and" else ~out.data.data, out.data.dims)
            v = self.eval(arg, self.axes.both(active, open_))
            fn = torch.logical_and if e.op == "and" else torch.logical_or
            data = self.axes.map(fn, out.data, v.data)
            defined = out.defined
            if v.defined is not None:
                closed = Named(~open_.data, open_.dims)
                defined = self.axes.both(
                    defined, self.axes.map(torch.logical_or, closed, v.defined)
                )
            faults = out.faults + self.within(v.faults, open_)
            out = Value(data, defined, faults)
        return out

    def _select(self, e: Select, active: Named | None) -> Value:
        c = self.eval(e.cond, active)
        yes = c.data
        no = Named(~yes.data, yes.dims)
        a = self.eval(e.then, self.axes.both(active, yes))
        b = self.eval(e.other, self.axes.both(active, no))
        a, b = self.joined(a, b)
        defined = c.defined
        if a.defined is not None or b.defined is not None:
            true = Named(torch.ones((), dtype=torch.bool, device=self.device), ())
            chosen = self.axes.map(torch.where, yes, a.defined or true, b.defined or true)
            defined = self.axes.both(defined, chosen)
        faults = c.faults + self.within(a.faults, yes) + self.within(b.faults, no)
        return Value(self.axes.map(torch.where, yes, a.data, b.data), defined, faults)

    def _call(self, e: Call, active: Named | None) -> Value:
        args = [numeric(self.eval(a, active)) for a in e.args]
        match e.fn:
            case "min" | "max":
                fn = functions.larger if e.fn == "max" else functions.smaller
                out = args[0]
                for other in args[1:]:
                    a, b = self.joined(out, other)
                    out = self.map(fn, [a, b])
                return out
            case "abs":
                return self.map(torch.abs, args)
            case "sign":
                return self.map(torch.sign, args)
            case "floor" | "ceil":
                if not args[0].data.data.is_floating_point():
                    return args[0]
                return self.map(torch.floor if e.fn == "floor" else torch.ceil, args)
            case _:
                safe = SAFE.get(e.fn, 0.0)
                return self.guarded(FUNCTIONS[e.fn], [self.as_float(args[0])], (safe,), active)
