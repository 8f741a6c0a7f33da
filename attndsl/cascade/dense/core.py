"""What every part of an evaluation shares: names, numbers, masks, and operations that know where they are defined.

`active` is, throughout, where a value can matter at all: it decides no meaning, and keeps operations away from points
where they would give infinities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Binding
from attndsl.cascade.dense.named import Axes, Fault, Named, Pointwise, Value
from attndsl.cascade.nodes import (
    Cascade,
    DType,
    Expr,
    Read,
    Reduce,
)
from attndsl.cascade.types import Types
from attndsl.cascade.walk import walk


class StoredTensor:
    """A stored tensor: what is known about it by axis; `data.dims` are labels of `axes`, in any order."""

    def __init__(self, axes: tuple[str, ...], data: Named, defined: Named | None = None) -> None:
        self.axes = axes
        self.data = data
        self.defined = defined
        # a recurrence answers at one point outside of its axis, with its initial value
        self.time: str | None = None
        self.lead = 0
        self.padded: Named | None = None
        self.padded_defined: Named | None = None


class PastState:
    """A recurrence's value at the step before, while it runs."""

    def __init__(self, axes: tuple[str, ...], value: Value) -> None:
        self.axes = axes
        self.value = value


class Core(ABC):
    """The state of one evaluation."""

    def __init__(
        self,
        cascade: Cascade,
        binding: Binding,
        inputs: Mapping[str, Tensor],
        shifts: Mapping[str, int | Tensor],
        dtype: torch.dtype,
        debug: bool,
        explicit: bool,
    ) -> None:
        self.cascade = cascade
        self.binding = binding
        self.extents = binding.extents
        self.dtype = dtype
        self.debug = debug
        self.explicit = explicit
        self.types = Types(cascade)
        self.axes = Axes([*cascade.batch, *(r.name for r in cascade.ranks)])
        self.device = next((t.device for t in inputs.values()), torch.device("cpu"))
        self.tensor_params: dict[str, object] = {}
        self.shifts = shifts
        self.fixed: dict[str, int] = {}
        self.slices: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        self.locals: dict[str, Named] = {}
        self.states: dict[str, PastState] = {}
        self.tensors: dict[str, StoredTensor] = {}
        self.masks: dict[str, Named | None] = {}
        self.summed = _with_reduction(cascade)
        for t in cascade.inputs:
            x = inputs[t.name]
            match t.dtype:
                case DType.FLOAT:
                    x = x.to(dtype)
                case DType.INT:
                    x = x.to(torch.int64)
                case DType.BOOL:
                    x = x.to(torch.bool)
            labels = tuple(f"{t.name}.{k}" for k in range(x.dim()))
            self.tensors[t.name] = StoredTensor(labels, Named(x, labels))

    @abstractmethod
    def eval(self, e: Expr, active: Named | None) -> Value:
        """The value of an expression."""

    def scalar(self, value: float | int | bool) -> Named:
        # a bool is an int to Python
        kinds = {bool: torch.bool, int: torch.int64, float: torch.float64}
        return Named(torch.tensor(value, dtype=kinds[type(value)], device=self.device), ())

    def param(self, name: str) -> Named:
        value = self.tensor_params.get(name, self.binding.params.get(name))
        if isinstance(value, Tensor):
            data = value.to(device=self.device, dtype=torch.int64)
            return Named(data, self.cascade.batch[: data.dim()])
        assert isinstance(value, int | float)
        return self.scalar(value)

    def position(self, name: str, *, shifted: bool) -> Named:
        if name in self.fixed:
            return self.scalar(self.fixed[name])
        x = Named(torch.arange(self.extents[name], device=self.device), (name,))
        shift = self.shifts.get(name) if shifted else None
        if shift is None:
            return x
        if isinstance(shift, Tensor):
            at = Named(
                shift.to(device=self.device, dtype=torch.int64), self.cascade.batch[: shift.dim()]
            )
            return self.axes.map(torch.add, x, at)
        return Named(x.data + shift, x.dims)

    def condition(self, e: Expr | None, active: Named | None) -> Named | None:
        """Where a condition is defined and true."""
        if e is None:
            return None
        v = self.eval(e, active)
        if v.faults:
            self.report(v.faults, self.axes.both(v.defined, active))
        return self.axes.both(Named(v.data.data.to(torch.bool), v.data.dims), v.defined)

    def map(self, fn: Pointwise, args: list[Value]) -> Value:
        """A function that is finite, and has finite gradients, wherever its operands are."""
        faults = tuple(f for a in args for f in a.faults)
        defined = self.axes.both(*(a.defined for a in args))
        return Value(self.axes.map(fn, *(a.data for a in args)), defined, faults)

    def guarded(
        self, fn: Pointwise, args: list[Value], safe: Sequence[float], active: Named | None
    ) -> Value:
        """Any other function: operands are replaced by safe constants where the result is undefined or unused."""
        defined = self.axes.both(*(a.defined for a in args))
        dims = self.axes.sort([d for a in args for d in a.data.dims])
        mask = self.axes.both(defined, self.axes.project(active, dims))
        operands = [
            Value(self.axes.fill(a.data, mask, s), None, a.faults)
            for a, s in zip(args, safe, strict=True)
        ]
        out = self.map(fn, operands)
        return Value(out.data, defined, out.faults)

    def as_float(self, v: Value) -> Value:
        x = v.data.data
        if x.is_floating_point():
            return v
        # a number without axes stays exact, and takes the width of what it meets
        return Value(
            Named(x.to(self.dtype if v.data.dims else torch.float64), v.data.dims),
            v.defined,
            v.faults,
        )

    def joined(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Both as floats if one is, else as integers, or as truth values if both are."""
        if a.data.data.is_floating_point() or b.data.data.is_floating_point():
            return self.as_float(numeric(a)), self.as_float(numeric(b))
        if a.data.data.dtype == b.data.data.dtype == torch.bool:
            return a, b
        return numeric(a), numeric(b)

    def has_reduction(self, e: Expr) -> bool:
        return _contains_reduction(e, self.summed)

    def within(self, faults: tuple[Fault, ...], mask: Named | None) -> tuple[Fault, ...]:
        if mask is None:
            return faults
        return tuple(Fault(self.axes.map(torch.logical_and, f.where, mask), f.text) for f in faults)

    def report(self, faults: tuple[Fault, ...], mask: Named | None) -> None:
        for f in self.within(faults, mask):
            if bool(f.where.data.any()):
                at = f.where.data.nonzero()[0].tolist()
                point = ", ".join(f"{d} = {k}" for d, k in zip(f.where.dims, at, strict=True))
                raise CallError(
                    "A0506", f"{self.cascade.name}: {f.text}", notes=(f"first at {point}",)
                )


def numeric(v: Value) -> Value:
    """A truth value in arithmetic counts as 0 or 1."""
    if v.data.data.dtype != torch.bool:
        return v
    return Value(Named(v.data.data.to(torch.int64), v.data.dims), v.defined, v.faults)


def _contains_reduction(e: Expr, summed: frozenset[str]) -> bool:
    return any(
        isinstance(n, Reduce) or (isinstance(n, Read) and n.tensor in summed) for n in walk(e)
    )


def _with_reduction(cascade: Cascade) -> frozenset[str]:
    """The body tensors whose value goes through a reduction."""
    out: frozenset[str] = frozenset()
    for d in cascade.body:
        if _contains_reduction(d.expr, out):
            out |= {d.tensor}
    return out
