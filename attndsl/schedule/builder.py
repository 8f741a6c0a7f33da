"""Evaluates cascade expressions into the statements of one kernel: the entry to the modules that each do one part."""

from __future__ import annotations

import dataclasses

from attndsl.analysis.ranks import Kind
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
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
from attndsl.cascade.types import constant_type
from attndsl.cascade.walk import walk
from attndsl.schedule import tile as t
from attndsl.schedule.forms import is_large, is_loop_of_pairs
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.masks import masked_root, reaches
from attndsl.schedule.memory import load
from attndsl.schedule.outcomes import Needs, Refused
from attndsl.schedule.pointwise import (
    binary,
    call_type,
    exp_difference,
    nearly_equal,
)
from attndsl.schedule.products import small_reduce
from attndsl.schedule.search import search
from attndsl.schedule.states import reduction_state
from attndsl.schedule.tile import Role, Val
from attndsl.schedule.values import (
    STREAMED,
    X,
)


class Builder(Kernel):
    """One kernel in the making, with the rules of evaluation."""

    def eval(self, e: Expr, final: bool = False, name: str = "v") -> X:
        """The value of an expression whose indices are axes of this kernel."""
        match e:
            case Const(value):
                return X(e, dtype=constant_type(value))
            case Param(p):
                self.params[p] = None
                return X(e, dtype=next(s.dtype for s in self.cascade.params if s.name == p))
            case Extent():
                rank = self.ranks.of.get(e.rank, e.rank)
                return X(dataclasses.replace(e, rank=rank), dtype=DType.INT)
            case Position(axis) | Index(axis):
                return self.position(axis)
            case Val(v):
                return self.made[v]
            case t.Block():
                return X(e, dtype=DType.INT)
            case t.Origin(axis):
                streamed = self.axes[axis].role is Role.STREAM
                return X(e, on=frozenset({STREAMED} if streamed else ()), dtype=DType.INT)
            case Read():
                return self.read(e, final)
            case Reduce():
                return small_reduce(self, e, final, name)
            case Call("exp", (Binary("-", a, b),)):
                return exp_difference(self, a, b, final, name)
            case Binary("+", Call("elu", (a,)), Const(value=1 | 1.0 as one)):
                # exp(a) - 1 + 1 below 0: the difference costs digits and, to keep them, many instructions
                grown = Call("exp", (Call("min", (a, Const(0.0))),))
                above = Binary("+", a, Const(float(one)))
                return self.eval(Select(Compare(">", a, Const(0.0)), above, grown), final, name)
            case Unary(op, arg):
                x = self.eval(arg, final, name)
                return self.combine(e, [x], DType.BOOL if op == "not" else x.dtype, name)
            case Binary("//" | "%" as op, a, b):
                with self.stepping():
                    return binary(self, e, op, a, b, final, name)
            case Binary(op, a, b):
                return binary(self, e, op, a, b, final, name)
            case Compare(op, a, b):
                with self.stepping():
                    x, y = self.eval(a, final, name), self.eval(b, final, name)
                numbers = isinstance(a, Const) or isinstance(b, Const)
                if op == "==" and DType.FLOAT in (x.dtype, y.dtype) and not numbers:
                    return nearly_equal(self, x, y, name)
                return self.combine(e, [x, y], DType.BOOL, name)
            case Logic(_, args):
                return self.combine(e, [self.eval(a, final, name) for a in args], DType.BOOL, name)
            case Select():
                parts = [self.eval(c, final, name) for c in (e.cond, e.then, e.other)]
                kinds = {p.dtype for p in parts[1:]}
                kind = next(iter(kinds)) if len(kinds) == 1 else DType.FLOAT
                return self.combine(e, parts, kind, name)
            case Call("floor" | "ceil" | "sign" as fn, args):
                with self.stepping():
                    parts = [self.eval(a, final, name) for a in args]
                return self.combine(e, parts, call_type(fn, parts), name)
            case Call(fn, args):
                parts = [self.eval(a, final, name) for a in args]
                return self.combine(e, parts, call_type(fn, parts), name)
            case _:
                what = type(e).__name__.lower()
                raise Refused("A0402", f"`{what}` has no tile form in this schedule", e.span)

    def read(self, e: Read, final: bool) -> X:
        """The value of a tensor at subscripts over the kernel's axes: loaded, a state, or computed here."""
        if e.tensor in self.inputs or e.tensor in self.available:
            return load(self, e)
        d = self.defs[e.tensor]
        if d.init is not None:
            raise Refused("A0401", f"`{e.tensor}` is a recurrence", d.span)
        subs = tuple(Position(s.name) if isinstance(s, Index) else s for s in e.subs)
        if isinstance(d.expr, Local):
            if self.guess is None:
                raise Refused("A0402", f"`{d.tensor}` is read outside of its equation", d.span)
            return self.guess
        if isinstance(d.expr, Solve):
            if self.search != d.tensor:
                raise Needs(d.tensor, f"`{d.tensor}` is a root, found before what it is used in")
            return search(self, d, subs)
        if is_large(d.expr, self.ranks) and not (
            is_loop_of_pairs(d, self.ranks) and d.tensor not in self.walked
        ):
            return reduction_state(self, d, subs, final)
        if self.stream is not None and computed_elsewhere(self, d, subs):
            raise Needs(d.tensor, f"`{d.tensor}` is a row statistic, computed once a row")
        carries = self.carries_stream(subs)
        depends = e.tensor in self.reduces and not carries
        if self.root is not None and (e.tensor, subs) == self.root[:2]:
            return masked_root(self, final)
        below = self.root if self.root is not None and reaches(self, d, self.root[0]) else None
        key = ("read", e.tensor, subs, final if depends else None, below)
        if key not in self.memo:
            x = self.eval(self.inlined(d, subs), final, e.tensor)
            self.memo[key] = self.bind(x, e.tensor, d.span)
        return self.memo[key]


def computed_elsewhere(kernel: Kernel, d: Define, subs: tuple[Expr, ...]) -> bool:
    """A row statistic with an inner reduction, read along the stream, of a rank that has a kernel by rows."""
    seq = kernel.ranks.sequence(d.indices)
    if len(seq) != 1 or kernel.ranks.of.get(seq[0], seq[0]) not in kernel.rows:
        return False
    if any(kernel.ranks.kind(i) is Kind.FEATURE for i in d.indices):
        return False
    return kernel.carries_stream(subs) and any(isinstance(n, Reduce) for n in walk(d.expr))
