"""The oracle: a cascade evaluated densely, straight from its Einsums, with PyTorch operations.

Every value is a tensor with named axes and knows where it is defined (language reference, sections 7 to 9). What is not
defined is replaced by a safe constant *before* each operation, so that gradients through the result are those of the
defined points alone, and never NaN. Sums of products are contracted by `torch.einsum`; nothing else is clever here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade import dense
from attndsl.cascade.bind import Binding, bind
from attndsl.cascade.dense import Fault, Named, Value
from attndsl.cascade.domains import START, resolve_start
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
    Local,
    Logic,
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
    Solve,
    Unary,
)
from attndsl.cascade.printer import print_expr
from attndsl.cascade.types import Types, time_axis
from attndsl.cascade.walk import reads, walk


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
    shifts = resolve_start(cascade, binding, start)
    at = next(iter(shifts.values()), 0)
    names = list(want) if want is not None else [o.name for o in cascade.outputs]
    run = _Run(cascade, binding, inputs, {} if applied else shifts, dtype, debug, explicit)
    if applied:
        run.tensor_params[START] = at
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


class _Tensor:
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


class _State:
    """A recurrence's value at the step before, while it runs."""

    def __init__(self, axes: tuple[str, ...], value: Value) -> None:
        self.axes = axes
        self.value = value


class _Run:
    """One evaluation. `active` in all methods is where a value can matter at all: it decides no meaning, and keeps
    operations away from points where they would give infinities."""

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
        self.axes = dense.Axes([*cascade.batch, *(r.name for r in cascade.ranks)])
        self.device = next((t.device for t in inputs.values()), torch.device("cpu"))
        self.tensor_params: dict[str, object] = {}
        self.shifts = shifts
        self.fixed: dict[str, int] = {}
        self.slices: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        self.locals: dict[str, Named] = {}
        self.states: dict[str, _State] = {}
        self.tensors: dict[str, _Tensor] = {}
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
            self.tensors[t.name] = _Tensor(labels, Named(x, labels))

    # --- definitions ---

    def define(self, d: Define) -> None:
        time = time_axis(d)
        if time is None and d.init is None:
            v = self._masked(d)
            if self.explicit and v.data.data.is_floating_point():
                v = Value(self.axes.fill(v.data, v.defined, float("nan")), v.defined)
            self.tensors[d.tensor] = _Tensor(
                d.indices, v.data, None if self.explicit else v.defined
            )
            self.masks[d.tensor] = v.defined
        else:
            t, step = time if time is not None else (d.indices[0], 1)
            self._recur(d, t, step)

    def _masked(self, d: Define) -> Value:
        """The value of a definition at once, 0 where it is not defined."""
        where = self._condition(d.where, None)
        v = self.eval(d.expr, where)
        defined = self.axes.both(where, v.defined)
        self._report(v.faults, defined)
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
            self.states[d.tensor] = _State(d.indices, past)
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

        out = _Tensor(d.indices, *stacked(steps))
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

    # --- expressions ---

    def eval(self, e: Expr, active: Named | None) -> Value:
        match e:
            case Const():
                return Value(self._scalar(e.value))
            case Param():
                return Value(self._param(e.name))
            case Extent():
                return Value(self._scalar(self.extents[e.rank]))
            case Index():
                return Value(self._position(e.name, shifted=False))
            case Position():
                return Value(self._position(e.name, shifted=True))
            case Local():
                return Value(self.locals[e.name])
            case Read():
                return self._read(e, active)
            case Unary(op="not"):
                return self._map(torch.logical_not, [self.eval(e.arg, active)])
            case Unary():
                return self._map(torch.neg, [_numeric(self.eval(e.arg, active))])
            case Binary():
                return self._binary(e, active)
            case Compare():
                a, b = self._joined(self.eval(e.left, active), self.eval(e.right, active))
                return self._map(_COMPARE[e.op], [a, b])
            case Logic():
                return self._logic(e, active)
            case Select():
                return self._select(e, active)
            case Call():
                return self._call(e, active)
            case Reduce():
                return self._reduce(e, active)
            case Solve():
                return self._solve(e, active)
            case _:
                assert_never(e)

    def _scalar(self, value: float | int | bool) -> Named:
        kind = (
            torch.bool
            if isinstance(value, bool)
            else torch.int64
            if isinstance(value, int)
            else torch.float64
        )
        return Named(torch.tensor(value, dtype=kind, device=self.device), ())

    def _param(self, name: str) -> Named:
        value = self.tensor_params.get(name, self.binding.params.get(name))
        if isinstance(value, Tensor):
            data = value.to(device=self.device, dtype=torch.int64)
            return Named(data, self.cascade.batch[: data.dim()])
        assert isinstance(value, int | float)
        return self._scalar(value)

    def _position(self, name: str, *, shifted: bool) -> Named:
        if name in self.fixed:
            return self._scalar(self.fixed[name])
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

    def _condition(self, e: Expr | None, active: Named | None) -> Named | None:
        """Where a condition is defined and true."""
        if e is None:
            return None
        v = self.eval(e, active)
        if v.faults:
            self._report(v.faults, self.axes.both(v.defined, active))
        return self.axes.both(Named(v.data.data.to(torch.bool), v.data.dims), v.defined)

    def _map(self, fn: dense.Pointwise, args: list[Value]) -> Value:
        """A function that is finite, and has finite gradients, wherever its operands are."""
        faults = tuple(f for a in args for f in a.faults)
        defined = self.axes.both(*(a.defined for a in args))
        return Value(self.axes.map(fn, *(a.data for a in args)), defined, faults)

    def _guarded(
        self, fn: dense.Pointwise, args: list[Value], safe: Sequence[float], active: Named | None
    ) -> Value:
        """Any other function: operands are replaced by safe constants where the result is undefined or unused."""
        defined = self.axes.both(*(a.defined for a in args))
        dims = self.axes.sort([d for a in args for d in a.data.dims])
        mask = self.axes.both(defined, self.axes.project(active, dims))
        operands = [
            Value(self.axes.fill(a.data, mask, s), None, a.faults)
            for a, s in zip(args, safe, strict=True)
        ]
        out = self._map(fn, operands)
        return Value(out.data, defined, out.faults)

    def _float(self, v: Value) -> Value:
        x = v.data.data
        if x.is_floating_point():
            return v
        # a number without axes stays exact, and takes the width of what it meets
        return Value(
            Named(x.to(self.dtype if v.data.dims else torch.float64), v.data.dims),
            v.defined,
            v.faults,
        )

    def _joined(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Both as floats if one is, else as integers, or as truth values if both are."""
        if a.data.data.is_floating_point() or b.data.data.is_floating_point():
            return self._float(_numeric(a)), self._float(_numeric(b))
        if a.data.data.dtype == b.data.data.dtype == torch.bool:
            return a, b
        return _numeric(a), _numeric(b)

    def _binary(self, e: Binary, active: Named | None) -> Value:
        a, b = self._joined(
            _numeric(self.eval(e.left, active)), _numeric(self.eval(e.right, active))
        )
        match e.op:
            case "+":
                return self._map(torch.add, [a, b])
            case "-":
                return self._map(dense.subtract, [a, b])
            case "*":
                return self._guarded(torch.mul, [a, b], (0, 0), active)
            case "/":
                empty = self._has_reduction(e.right)
                a, b = self._float(a), self._float(b)
                return self._guarded(lambda x, y: dense.divide(x, y, empty), [a, b], (0, 1), active)
            case "//" | "%":
                fn = dense.floor_divide if e.op == "//" else torch.remainder
                return self._guarded(self._checked(fn, e), [a, b], (0, 1), active)
            case "**":
                if self.types.of(e) is DType.FLOAT:
                    a, b = self._float(a), self._float(b)
                return self._guarded(dense.power, [a, b], (1, 1), active)
        raise AssertionError(e.op)

    def _checked(self, fn: dense.Pointwise, e: Expr) -> dense.Pointwise:
        def checked(a: Tensor, b: Tensor) -> Tensor:
            if not b.is_floating_point() and bool((b == 0).any()):
                raise CallError("A0508", f"{self.cascade.name}: `{print_expr(e)}` divides by zero")
            return fn(a, b)

        return checked

    def _has_reduction(self, e: Expr) -> bool:
        return _contains_reduction(e, self.summed)

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
            faults = out.faults + self._within(v.faults, open_)
            out = Value(data, defined, faults)
        return out

    def _select(self, e: Select, active: Named | None) -> Value:
        c = self.eval(e.cond, active)
        yes = c.data
        no = Named(~yes.data, yes.dims)
        a = self.eval(e.then, self.axes.both(active, yes))
        b = self.eval(e.other, self.axes.both(active, no))
        a, b = self._joined(a, b)
        defined = c.defined
        if a.defined is not None or b.defined is not None:
            true = Named(torch.ones((), dtype=torch.bool, device=self.device), ())
            chosen = self.axes.map(torch.where, yes, a.defined or true, b.defined or true)
            defined = self.axes.both(defined, chosen)
        faults = c.faults + self._within(a.faults, yes) + self._within(b.faults, no)
        return Value(self.axes.map(torch.where, yes, a.data, b.data), defined, faults)

    def _call(self, e: Call, active: Named | None) -> Value:
        args = [_numeric(self.eval(a, active)) for a in e.args]
        match e.fn:
            case "min" | "max":
                fn = dense.larger if e.fn == "max" else dense.smaller
                out = args[0]
                for other in args[1:]:
                    a, b = self._joined(out, other)
                    out = self._map(fn, [a, b])
                return out
            case "abs":
                return self._map(torch.abs, args)
            case "sign":
                return self._map(torch.sign, args)
            case "floor" | "ceil":
                if not args[0].data.data.is_floating_point():
                    return args[0]
                return self._map(torch.floor if e.fn == "floor" else torch.ceil, args)
            case _:
                safe = dense.SAFE.get(e.fn, 0.0)
                return self._guarded(dense.FUNCTIONS[e.fn], [self._float(args[0])], (safe,), active)

    # --- reads ---

    def _read(self, e: Read, active: Named | None) -> Value:
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
            return self._read_state(self.states[e.tensor], subs, defined, faults)
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
        self, s: _State, subs: list[str | Named], defined: Named | None, faults: tuple[Fault, ...]
    ) -> Value:
        by_axis = dict(zip(s.axes, subs, strict=True))
        data = self._gather(s.value.data, by_axis)
        if s.value.defined is not None:
            defined = self.axes.both(defined, self._gather(s.value.defined, by_axis))
        return Value(data, defined, faults)

    def _size(self, t: _Tensor, axis: str, data: Named) -> int:
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
            self._position(s, shifted=False) if isinstance(s, str) else s
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

    # --- faults ---

    def _within(self, faults: tuple[Fault, ...], mask: Named | None) -> tuple[Fault, ...]:
        if mask is None:
            return faults
        return tuple(Fault(self.axes.map(torch.logical_and, f.where, mask), f.text) for f in faults)

    def _report(self, faults: tuple[Fault, ...], mask: Named | None) -> None:
        for f in self._within(faults, mask):
            if bool(f.where.data.any()):
                at = f.where.data.nonzero()[0].tolist()
                point = ", ".join(f"{d} = {k}" for d, k in zip(f.where.dims, at, strict=True))
                raise CallError(
                    "A0506", f"{self.cascade.name}: {f.text}", notes=(f"first at {point}",)
                )

    # --- reductions ---

    def _reduce(self, e: Reduce, active: Named | None) -> Value:
        if active is not None and set(active.dims) & set(e.indices):
            active = None
        where = self._condition(e.where, active)
        if e.op is Reduction.SUM and self.types.of(e.body) is DType.FLOAT:
            return self._sum_of_products(e, where, active)
        v = self.eval(e.body, self.axes.both(active, where))
        mask = self.axes.both(where, v.defined)
        faults = self._summed_faults(v.faults, mask, e.indices)
        return Value(self._fold(e.op, v.data, mask, e.indices), None, faults)

    def _summed_faults(
        self, faults: tuple[Fault, ...], mask: Named | None, indices: tuple[str, ...]
    ) -> tuple[Fault, ...]:
        out = []
        for f in self._within(faults, mask):
            kept = tuple(d for d in f.where.dims if d not in indices)
            gone = [k for k, d in enumerate(f.where.dims) if d in indices]
            out.append(
                Fault(Named(f.where.data.any(dim=gone) if gone else f.where.data, kept), f.text)
            )
        return tuple(out)

    def _fold(self, op: Reduction, x: Named, mask: Named | None, indices: tuple[str, ...]) -> Named:
        """A reduction, element by element; over no points it is the identity."""
        logical = op in (Reduction.ANY, Reduction.ALL)
        if not logical and x.data.dtype == torch.bool:
            x = Named(x.data.to(torch.int64), x.dims)
        identity = op.identity
        if not logical and not x.data.is_floating_point() and op in (Reduction.MAX, Reduction.MIN):
            info = torch.iinfo(x.data.dtype)
            identity = info.min if op is Reduction.MAX else info.max
        x = self.axes.fill(x, mask, identity)
        x = self.axes.expand(x, indices, self.extents)
        kept = tuple(d for d in x.dims if d not in indices)
        gone = [k for k, d in enumerate(x.dims) if d in indices]
        data = x.data
        if op in (Reduction.MAX, Reduction.MIN) and any(data.shape[k] == 0 for k in gone):
            shape = [n for k, n in enumerate(data.shape) if k not in gone]
            return Named(torch.full(shape, identity, dtype=data.dtype, device=data.device), kept)
        match op:
            case Reduction.SUM:
                data = data.sum(dim=gone)
            case Reduction.MAX:
                data = data.amax(dim=gone)
            case Reduction.MIN:
                data = data.amin(dim=gone)
            case Reduction.ANY:
                data = data.any(dim=gone)
            case Reduction.ALL:
                data = data.all(dim=gone)
            case Reduction.PROD:
                for k in reversed(gone):
                    data = data.prod(dim=k)
        return Named(data, kept)

    def _sum_of_products(self, e: Reduce, where: Named | None, active: Named | None) -> Value:
        """A sum over a chain of factors, contracted without ever holding the whole product."""
        inner = self.axes.both(active, where)
        sign, over, under = _chain(e.body)
        bound = set(e.indices)
        # a plain read is safe anywhere, so the mask need not be spread over it
        factors = [
            self._float(_numeric(self.eval(x, None if isinstance(x, Read) else inner)))
            for x in over
        ]
        divisors = [
            (self._float(_numeric(self.eval(x, inner))), self._has_reduction(x)) for x in under
        ]
        total = self.axes.both(
            where, *(v.defined for v in factors), *(d.defined for d, _ in divisors)
        )
        faults = self._summed_faults(
            tuple(f for v in (*factors, *(d for d, _ in divisors)) for f in v.faults),
            total,
            e.indices,
        )

        operands = [self.axes.fill(v.data, v.defined, 0) for v in factors]
        masks = [where] if where is not None else []
        after: list[tuple[Named, bool]] = []
        for d, empty in divisors:
            x = self.axes.fill(d.data, d.defined, 1)
            if d.defined is not None:
                masks.append(d.defined)
            if bound & set(x.dims):
                self._divide_into(operands, x, empty)
            else:
                after.append((x, empty))
        scalars = [x for x in operands if not x.dims]
        operands = [x for x in operands if x.dims]
        for m in masks:
            self._mask_into(operands, m)
        covered = {d for x in operands for d in x.dims}
        operands += [
            Named(torch.ones(self.extents[i], dtype=self.dtype, device=self.device), (i,))
            for i in e.indices
            if i not in covered
        ]
        dims = tuple(
            d for d in self.axes.sort([d for x in operands for d in x.dims]) if d not in bound
        )
        out = self._contract(operands, total, active, dims, e.indices)
        for x in scalars:
            out = self.axes.map(torch.mul, out, x)
        if sign < 0:
            out = Named(-out.data, out.dims)
        for x, empty in after:
            if bool((x.data == 0).any()):
                some = self.axes.project(total, [d for d in (*x.dims, *out.dims) if d not in bound])
                x = self.axes.fill(x, some, 1)
            out = self.axes.map(lambda a, b, z=empty: dense.divide(a, b, z), out, x)
        return Value(out, None, faults)

    def _divide_into(self, operands: list[Named], x: Named, empty: bool) -> None:
        """Divide a factor that has all of the divisor's axes, so that 0/0 is seen; else multiply by the reciprocal."""
        for k, f in enumerate(operands):
            if set(x.dims) <= set(f.dims):
                operands[k] = self.axes.map(lambda a, b: dense.divide(a, b, empty), f, x)
                return
        one = Named(torch.ones((), dtype=x.data.dtype, device=self.device), ())
        inverse = self.axes.map(lambda a, b: dense.divide(a, b, False), one, x)
        if empty:
            inverse = self.axes.fill(inverse, Named(x.data != 0, x.dims), 0)
        operands.append(inverse)

    def _mask_into(self, operands: list[Named], mask: Named) -> None:
        """Apply a mask to the smallest factor that has its axes, else make it a factor of its own."""
        fits = [k for k, f in enumerate(operands) if set(mask.dims) <= set(f.dims)]
        if fits:
            k = min(fits, key=lambda k: operands[k].data.numel())
            operands[k] = self.axes.fill(operands[k], mask, 0)
        else:
            operands.append(Named(mask.data.to(self.dtype), mask.dims))

    def _contract(
        self,
        operands: list[Named],
        total: Named | None,
        active: Named | None,
        dims: tuple[str, ...],
        indices: tuple[str, ...],
    ) -> Named:
        """The sum of the product; infinities that no point needs are taken out first, since 0 * inf is NaN."""
        clean = []
        for x in operands:
            if not bool(torch.isfinite(x.data).all()):
                x = self.axes.fill(x, self.axes.project(self.axes.both(total, active), x.dims), 0)
            clean.append(x)
        if len(clean) > 1 and not all(bool(torch.isfinite(x.data).all()) for x in clean):
            product = clean[0]
            for x in clean[1:]:
                product = self.axes.map(torch.mul, product, x)
            return self._fold(Reduction.SUM, product, total, indices)
        return dense.contract(self.axes, clean, dims, self.dtype)

    # --- roots ---

    def _solve(self, e: Solve, active: Named | None) -> Value:
        """The root by bisection, then one Newton step that carries the implicit function's gradient."""
        lo, hi = (self._float(_numeric(self.eval(x, active))) for x in (e.lo, e.hi))

        def residual(x: Named) -> Value:
            self.locals[e.var] = x
            try:
                a, b = self._joined(
                    self.eval(e.equation.left, active), self.eval(e.equation.right, active)
                )
                return self._map(torch.sub, [a, b])
            finally:
                del self.locals[e.var]

        with torch.no_grad():
            low, high = (Named(v.data.data.detach().to(self.dtype), v.data.dims) for v in (lo, hi))
            dims = self.axes.sort([*low.dims, *high.dims, *residual(low).data.dims])
            low, high = (self.axes.expand(x, dims, self.extents) for x in (low, high))
            root = self._bisect(
                low, high, lambda x: self.axes.expand(residual(x).data, dims, self.extents)
            )
        solvable = torch.isfinite(low.data) & torch.isfinite(high.data)
        at = Named(torch.where(solvable, root.data, 0.0).detach().requires_grad_(), dims)
        with torch.enable_grad():
            f = residual(at)
            f_data = self.axes.expand(f.data, dims, self.extents).data
            slope = torch.zeros_like(at.data)
            if f_data.requires_grad:
                slope = torch.autograd.grad(f_data.sum(), at.data, retain_graph=True)[0].detach()
        flat = ~solvable | (slope == 0) | ~torch.isfinite(slope)
        # the residual again, at a root that is a constant: its graph leads to the inputs alone
        f_data = self.axes.expand(
            residual(Named(at.data.detach(), dims)).data, dims, self.extents
        ).data
        step = torch.where(flat, 0.0, f_data) / torch.where(flat, 1.0, slope)
        data = torch.where(solvable, at.data.detach() - step, root.data)
        defined = self.axes.both(lo.defined, hi.defined, f.defined)
        return Value(Named(data, dims), defined, lo.faults + hi.faults + f.faults)

    def _bisect(self, low: Named, high: Named, residual: dense.Residual) -> Named:
        a, b, dims = low.data, high.data, low.dims
        ok = torch.isfinite(a) & torch.isfinite(b)
        a, b = torch.where(ok, a, 0.0), torch.where(ok, b, 0.0)
        rising = residual(Named(b, dims)).data >= residual(Named(a, dims)).data
        for _ in range(_BISECTIONS):
            mid = a + (b - a) / 2
            if bool(((mid == a) | (mid == b)).all()):
                break
            above = (residual(Named(mid, dims)).data > 0) == rising
            a, b = torch.where(above, a, mid), torch.where(above, mid, b)
        mid = a + (b - a) / 2
        return Named(torch.where(ok, mid, low.data), dims)


_BISECTIONS = 200
"""More than float64 has bits: an interval of any width shrinks to two neighbours."""

_COMPARE: dict[str, dense.Pointwise] = {
    "<": torch.lt,
    "<=": torch.le,
    ">": torch.gt,
    ">=": torch.ge,
    "==": torch.eq,
    "!=": torch.ne,
}


def _numeric(v: Value) -> Value:
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


def _chain(e: Expr) -> tuple[int, list[Expr], list[Expr]]:
    """A chain of `*` and `/` as (sign, factors, divisors)."""
    match e:
        case Binary(op="*"):
            s, over, under = _chain(e.left)
            t, more, less = _chain(e.right)
            return s * t, over + more, under + less
        case Binary(op="/"):
            s, over, under = _chain(e.left)
            return s, over, [*under, e.right]
        case Unary(op="-"):
            s, over, under = _chain(e.arg)
            return -s, over, under
        case _:
            return 1, [e], []
