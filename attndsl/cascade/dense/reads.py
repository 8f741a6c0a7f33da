"""Reading tensors: at indices, at integer expressions, and at a recurrence's step before."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attndsl.cascade.dense.core import Core, PastState, StoredTensor
from attndsl.cascade.dense.named import Fault, Named, Value
from attndsl.cascade.nodes import (
    Expr,
    Index,
    Position,
    Read,
)
from attndsl.cascade.printer import print_expr


class Reads(Core):
    """The tensors of one evaluation, and how they are read."""

    def read(self, e: Read, active: Named | None) -> Value:
        subs: list[str | Named] = []
        defined: Named | None = None
        faults: tuple[Fault, ...] = ()
        for s in e.subs:
            match s:
                case Index() | Position() if isinstance(s, Index) or s.name not in self.shifts:
                    subs.append(s.name)
                case _:
                    v = self.eval(s, active)
                    subs.append(v.data)
                    defined = self.axes.both(defined, v.defined)
                    faults += v.faults
        if e.tensor in self.states:
            return self._read_state(e, self.states[e.tensor], subs, defined, faults)
        t = self.tensors[e.tensor]
        data, mask, lead = t.data, t.defined, 0
        if t.time is not None and not isinstance(subs[t.axes.index(t.time)], str):
            assert t.padded is not None
            data, mask, lead = t.padded, t.padded_defined, t.lead
        by_axis: dict[str, str | Named] = {}
        for axis, sub, s in zip(t.axes, subs, e.subs, strict=True):
            if not isinstance(sub, str):
                if lead and axis == t.time:
                    sub = Named(sub.data + lead, sub.dims)
                size = self._size(t, axis, data)
                if self.debug:
                    faults += self._leaving(e, s, sub, size)
                sub = Named(sub.data.clamp(0, max(size - 1, 0)), sub.dims)
            by_axis[axis] = sub
        out = self._gather(data, by_axis)
        if mask is not None:
            defined = self.axes.both(defined, self._gather(mask, by_axis))
        return Value(out, defined, faults)

    def _read_state(
        self,
        e: Read,
        s: PastState,
        subs: list[str | Named],
        defined: Named | None,
        faults: tuple[Fault, ...],
    ) -> Value:
        by_axis = dict(zip(s.axes, subs, strict=True))
        for axis, sub, written in zip(s.axes, subs, e.subs, strict=True):
            if not isinstance(sub, str) and axis in s.value.data.dims:
                size = self.extents[axis]
                if self.debug:
                    faults += self._leaving(e, written, sub, size)
                by_axis[axis] = Named(sub.data.clamp(0, max(size - 1, 0)), sub.dims)
        data = self._gather(s.value.data, by_axis)
        if s.value.defined is not None:
            defined = self.axes.both(defined, self._gather(s.value.defined, by_axis))
        return Value(data, defined, faults)

    def _size(self, t: StoredTensor, axis: str, data: Named) -> int:
        if axis in data.dims:
            return data.data.shape[data.dims.index(axis)]
        return self.extents[axis]

    def _leaving(self, e: Read, s: Expr, sub: Named, size: int) -> tuple[Fault, ...]:
        bad = Named((sub.data < 0) | (sub.data >= size), sub.dims)
        if not bool(bad.data.any()):
            return ()
        low, high = int(sub.data.min()), int(sub.data.max())
        text = f"`{print_expr(s)}` runs from {low} to {high} in `{print_expr(e)}`, and that axis has {size} points"
        return (Fault(bad, text),)

    def _gather(self, x: Named, subs: Mapping[str, str | Named]) -> Named:
        """`x` read at one subscript an axis: an index, which keeps the axis under its name, or integers."""
        data = x.data
        todo: list[str | Named] = []
        axis = 0
        for label in x.dims:
            sub = subs[label]
            if isinstance(sub, str) and sub in self.fixed:
                data = self._slice(x.data, data, axis, self.fixed[sub])
            elif isinstance(sub, Named) and not sub.dims:
                if data.shape[axis] == 0:
                    data = data.new_zeros([n for k, n in enumerate(data.shape) if k != axis])
                else:
                    data = self._slice(x.data, data, axis, int(sub.data))
            else:
                todo.append(sub)
                axis += 1
        plain = [s for s in todo if isinstance(s, str)]
        moving = {d for s in todo if isinstance(s, Named) for d in s.dims}
        clash = {s for s in plain if s in moving or plain.count(s) > 1}
        if not moving and not clash:
            return self.axes.named(data, plain)
        indexed = [
            self.position(s, shifted=False) if isinstance(s, str) else s
            for s in todo
            if not isinstance(s, str) or s in clash
        ]
        first = [k for k, s in enumerate(todo) if not isinstance(s, str) or s in clash]
        last = [k for k in range(len(todo)) if k not in first]
        dims, tensors = self.axes.align(*indexed)
        kept = [s for s in plain if s not in clash]
        data = data.permute([*first, *last])
        if any(n == 0 for n in data.shape[: len(first)]):
            shape = torch.broadcast_shapes(*(t.shape for t in tensors))
            return self.axes.named(
                data.new_zeros((*shape, *data.shape[len(first) :])), [*dims, *kept]
            )
        return self.axes.named(data[tuple(tensors)], [*dims, *kept])

    def _slice(self, whole: Tensor, data: Tensor, axis: int, k: int) -> Tensor:
        """One step's slice; cut once for all steps, so that its gradient is one stack and not a sum of full tensors."""
        if data is not whole or not self.fixed:
            return data.select(axis, k)
        key = (id(data), axis)
        if key not in self.slices:
            self.slices[key] = (data, *torch.unbind(data, axis))
        return self.slices[key][k + 1]
