"""The oracle: a cascade evaluated densely, straight from its Einsums, with PyTorch operations.

Every value is a tensor with named axes and knows where it is defined (language reference, sections 7 to 9). What is not
defined is replaced by a safe constant *before* each operation, so that gradients through the result are those of the
defined points alone, and never NaN. Sums of products are contracted by `torch.einsum`; nothing else is clever here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.bind import bind
from attndsl.cascade.dense.core import PastState, StoredTensor
from attndsl.cascade.dense.evaluator import Evaluator
from attndsl.cascade.dense.named import Named, Value
from attndsl.cascade.nodes import Cascade, Define, DType
from attndsl.cascade.printer import print_expr
from attndsl.cascade.starts import START, resolve_start
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import reads


def interpret(
    cascade: Cascade,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, int | float | bool] | None = None,
    *,
    start: int | str | Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    want: Sequence[str] | None = None,
    debug: bool = False,
    explicit: bool = False,
) -> dict[str, Tensor]:
    """The outputs of a cascade, or the body tensors named in `want`, each in its declared axes.

        out = interpret(cascade, {"Q": q, "K": k, "V": v}, {"w": 128})["O"]

    Float inputs are computed with in `dtype`, and gradients flow back to them; integers are int64. Where a tensor is
    undefined, 0 is returned. `start` is where the first query stands: a number, "end", or an int tensor `[b]`.
    With `debug`, every subscript is checked where it is used. With `explicit`, a domain is what its `where` says and
    nothing else, as kernels see it after `explicit_domains`: what is read outside of it is NaN.

    Raises `CallError`: see `attndsl.callerrors`.
    """
    binding = bind(cascade, {n: tuple(t.shape) for n, t in inputs.items()}, _plain(params))
    applied = any(p.name == START for p in cascade.params)
    if applied and start is None:
        given = (params or {}).get(START)
        start = None if given is None else int(given)
    shifts: Mapping[str, int | Tensor] = {}
    if not applied or start is None or isinstance(start, str):
        shifts = resolve_start(cascade, binding, start)
        start = next(iter(shifts.values()), 0)
    names = list(want) if want is not None else [o.name for o in cascade.outputs]
    run = _Run(cascade, binding, inputs, {} if applied else shifts, dtype, debug, explicit)
    if applied:
        # the program adds it by itself
        run.tensor_params[START] = start
    for d in _needed(cascade, names):
        run.define(d)
    return {n: run.result(n) for n in names}


def check_assumes(
    cascade: Cascade,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, int | float | bool] | None = None,
) -> None:
    """Raise `CallError` A0507 if an `assume` of the program does not hold for these inputs."""
    binding = bind(cascade, {n: tuple(t.shape) for n, t in inputs.items()}, _plain(params))
    run = _Run(cascade, binding, inputs, {}, torch.float64, False, False)
    for fact in cascade.assumes:
        with torch.no_grad():
            v = run.eval(fact, None)
        bad = run.axes.both(Named(~v.data.data, v.data.dims), v.defined)
        if bad is not None and bool(bad.data.any()):
            at = bad.data.nonzero()[0].tolist()
            point = ", ".join(f"{d} = {k}" for d, k in zip(bad.dims, at, strict=True))
            raise CallError(
                "A0507",
                f"{cascade.name}: the inputs break `assume {print_expr(fact)}`",
                notes=(f"at {point}",) if point else (),
            )


def _plain(params: Mapping[str, int | float | bool] | None) -> dict[str, int | float | bool]:
    return {n: v for n, v in (params or {}).items() if v is not None}


def _needed(cascade: Cascade, names: Sequence[str]) -> list[Define]:
    """The definitions that the named tensors are made of, in order."""
    wanted, out = set(names), []
    for d in reversed(cascade.body):
        if d.tensor in wanted:
            out.append(d)
            for e in (d.expr, d.where, d.init):
                wanted |= reads(e) if e is not None else set()
    return out[::-1]


class _Run(Evaluator):
    """One evaluation of a cascade, definition by definition."""

    def define(self, d: Define) -> None:
        time = time_axis(d)
        if time is None and d.init is None:
            v = self._masked(d)
            if self.explicit and v.data.data.is_floating_point():
                v = Value(self.axes.fill(v.data, v.defined, float("nan")), v.defined)
            self.tensors[d.tensor] = StoredTensor(
                d.indices, v.data, None if self.explicit else v.defined
            )
            self.masks[d.tensor] = v.defined
        else:
            t, step = time if time is not None else (d.indices[0], 1)
            self._recur(d, t, step)

    def _masked(self, d: Define) -> Value:
        """The value of a definition at once, 0 where it is not defined."""
        where = self.condition(d.where, None)
        v = self.eval(d.expr, where)
        defined = self.axes.both(where, v.defined)
        self.report(v.faults, defined)
        data = v.data
        if self.types.tensors[d.tensor] is DType.FLOAT:
            data = Named(data.data.to(self.dtype), data.dims)
        return Value(self.axes.fill(data, defined, 0), defined)

    def _recur(self, d: Define, t: str, step: int) -> None:
        assert d.init is not None
        if t in self.shifts:
            raise CallError(
                "A0505",
                f"{self.cascade.name}: `{d.tensor}` is a recurrence over `{t}`, which cannot be shifted by `start`",
                help="pass the state before the first position as `state=`",
            )
        rest = tuple(i for i in d.indices if i != t)
        init = self.eval(d.init, None)
        first = self._full(init, rest, d)
        past = first
        steps: list[Value] = []
        n = self.extents[t]
        for k in range(n) if step > 0 else reversed(range(n)):
            self.fixed[t] = k
            self.states[d.tensor] = PastState(d.indices, past)
            past = self._full(self._masked(d), rest, d)
            steps.append(past)
        self.fixed.pop(t, None)
        self.states.pop(d.tensor, None)
        self.slices.clear()
        if step < 0:
            steps.reverse()
        outer = [first, *steps] if step > 0 else [*steps, first]

        def stacked(values: list[Value]) -> tuple[Named, Named | None]:
            dims = self.axes.sort(rest)
            data = self.axes.named(
                torch.stack([v.data.data for v in values])
                if values
                else first.data.data.new_zeros((0, *first.data.data.shape)),
                (t, *dims),
            )
            if all(v.defined is None for v in values):
                return data, None
            masks = [
                torch.ones_like(v.data.data, dtype=torch.bool)
                if v.defined is None
                else self.axes.expand(v.defined, dims, self.extents).data
                for v in values
            ]
            return data, self.axes.named(torch.stack(masks), (t, *dims))

        out = StoredTensor(d.indices, *stacked(steps))
        out.time, out.lead = t, 1 if step > 0 else 0
        out.padded, out.padded_defined = stacked(outer)
        self.tensors[d.tensor] = out

    def _full(self, v: Value, dims: tuple[str, ...], d: Define) -> Value:
        data = self.axes.expand(v.data, dims, self.extents)
        if self.types.tensors[d.tensor] is DType.FLOAT:
            data = Named(data.data.to(self.dtype), data.dims)
        return Value(data, v.defined)

    def result(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise CallError("A0501", f"{self.cascade.name}: there is no tensor `{name}`")
        t = self.tensors[name]
        order = next((o.indices for o in self.cascade.outputs if o.name == name), t.axes)
        data = self.axes.expand(
            self.axes.fill(t.data, self.masks.get(name), 0), t.axes, self.extents
        )
        return data.data.permute([data.dims.index(i) for i in order]).contiguous()
