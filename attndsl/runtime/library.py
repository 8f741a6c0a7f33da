"""A program as PyTorch operators, so that `torch.compile` sees one opaque call.

    attndsl::causal(Tensor Q, Tensor K, Tensor V, Tensor? start_at, SymInt? start, str how) -> Tensor
    attndsl::causal_saving(…, str wrt) -> Tensor[]                 outputs and residuals
    attndsl::causal_backward(…, str wrt, Tensor[] kept, Tensor?[] cotangents) -> Tensor[]

The first is the operator of the program. Where a gradient is wanted, its autograd kernel calls the
second, and the third in the backward pass; under `torch.compile` these two are what is traced. A plain call, on which
nobody looks, needs no dispatcher, and does not go through it.
`Library.impl` with a `torch.autograd.Function` costs a quarter of `torch.library.custom_op`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad

from attndsl.cascade.nodes import DType
from attndsl.runtime.checks import EIGHT
from attndsl.runtime.engine import Engine, Start
from attndsl.runtime.recent import Recent
from attndsl.runtime.replay import Replay, current_device

NAMESPACE = "attndsl"
_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_taken: set[str] = set()


Place: TypeAlias = tuple[Tensor | None, int | None, str]
"""Where the first query stands: `start_at`, `start`, `how`."""


def nobody_looks(tensors: Sequence[Tensor | None]) -> bool:
    """Whether these are plain tensors with values, and no mode, transform, tracer or profiler would see an operator."""
    for x in tensors:
        kind = type(x)
        if kind is not Tensor and kind is not torch.nn.Parameter and x is not None:
            return False
        if x is not None and x.is_meta:
            return False
    return not (torch.compiler.is_compiling() or mode_looks())


def mode_looks() -> bool:
    """Whether a mode, transform, tracer or profiler would see an operator."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_any_autocast_enabled()
        or torch._C._autograd._profiler_enabled()
        or torch._C._get_tracing_state() is not None
    )


PLAIN = Start()


@dataclass(frozen=True, slots=True)
class Known:
    """A kind of call, and how one of it was launched before; `kept` are the results that the backward pass needs."""

    ops: Operators
    wrt: str
    params: Sequence[Any]
    start: Start = PLAIN
    replay: Replay | None = None
    kept: tuple[int, ...] | None = None


class Operators:
    """The three registered operators of an engine."""

    def __init__(self, engine: Engine) -> None:
        cascade = engine.cascade
        self.engine = engine
        self.kept: dict[Any, tuple[int, ...]] = {}
        self.recent: tuple[Recent[Known], Recent[Known]] = (Recent(), Recent())
        self.inputs = len(cascade.inputs)
        self.outputs = len(cascade.outputs)
        self.defaults: Sequence[Any] = (None,) * len(cascade.params)
        self.floats = tuple(k for k, t in enumerate(cascade.inputs) if t.dtype is DType.FLOAT)
        self.integral = _integral(engine)
        self.cast = frozenset(
            k
            for k, t in enumerate(cascade.inputs)
            if any(t.name in p for p in engine.check.products)
        )
        name, n = _fresh(cascade.name), self.inputs
        types = {DType.INT: "int?", DType.FLOAT: "float?", DType.BOOL: "bool?"}
        arguments = ", ".join(
            [
                *(f"Tensor {_ascii(t.name, k)}" for k, t in enumerate(cascade.inputs)),
                "Tensor? start_at",
                "SymInt? start",
                "str how",
                *(f"{types[p.dtype]} {_ascii(p.name, k)}" for k, p in enumerate(cascade.params, n)),
            ]
        )
        returns = "Tensor" if self.outputs == 1 else f"({', '.join(['Tensor'] * self.outputs)})"
        tags = (torch.Tag.pt2_compliant_tag,)
        _library.define(f"{name}({arguments}) -> {returns}", tags=tags)
        _library.define(f"{name}_saving({arguments}, str wrt) -> Tensor[]", tags=tags)
        _library.define(
            f"{name}_backward({arguments}, str wrt, Tensor[] kept, Tensor?[] cotangents) -> Tensor[]",
            tags=tags,
        )
        packet = getattr(torch.ops, NAMESPACE)
        self.op = getattr(packet, name).default
        self.saving = getattr(packet, f"{name}_saving").default
        self.backward = getattr(packet, f"{name}_backward").default
        for key in ("CPU", "CUDA"):
            _library.impl(name, self._run, key)
            _library.impl(f"{name}_saving", self._run_saving, key)
            _library.impl(f"{name}_backward", self._run_backward, key)
            _library.impl(name, self._autocast(key.lower()), f"Autocast{key}")
        _library.impl(name, self._autograd, "Autograd")
        _library.impl(f"{name}_backward", self._autograd_twice, "Autograd")
        fake = torch.library.register_fake
        fake(f"{NAMESPACE}::{name}", self._fake, lib=_library)
        fake(f"{NAMESPACE}::{name}_saving", self._fake_saving, lib=_library)
        fake(f"{NAMESPACE}::{name}_backward", self._fake_backward, lib=_library)

    # --- calls that need no dispatcher ---

    def call(self, given: tuple[Tensor, ...], place: Place, params: Sequence[Any]) -> Any:
        """What the operator returns, where nobody looks on: a quarter of the time of a call is the dispatcher's."""
        _no_tangents(self.engine.cascade.name, given)
        graded = torch.is_grad_enabled()
        wrt = self._wanted(given) if graded else ""
        at, value, how = place
        start = PLAIN if how == "" else Start(how, value, at)
        key, replay = self.engine.launched(given, at, how, params, wrt)
        if replay is not None and how == "" and params == self.defaults:
            kept = self._kept(given, start, wrt) if wrt else None
            served = Known(self, wrt, params, start, replay, kept)
            self.recent[graded].offer(given, key, served)
        if wrt:
            known = Known(self, wrt, params, start, replay)
            return _Direct.apply((known, None), *given)  # type: ignore[no-untyped-call]
        if replay is not None:
            return self._returned(replay(given if at is None else (*given, at), 0))
        with _device(given[0]), torch._C._AutoDispatchBelowAutograd():
            return self._returned(self.engine.run(given, start, params))

    def forget(self) -> None:
        """Look up anew what was called before."""
        self.engine.forget()
        self.recent = (Recent(), Recent())

    def again(self, given: tuple[Tensor, ...]) -> Any:
        """What `call` returns without `start` and with parameters by default, where it was called so a moment ago.

        None where it was not, or where a mode looks on; tensors on which somebody looks are of another kind.
        """
        found = self.recent[torch.is_grad_enabled()].find(given)
        if found is None or mode_looks() or forward_ad._current_level >= 0:
            return None
        known, addresses = found
        assert known.replay is not None
        if 0 <= known.replay.on != current_device():
            return None
        if known.wrt:
            return _apply((known, addresses), *given)
        return self._returned(known.replay(given, 0, addresses))

    def _wanted(self, given: Sequence[Tensor]) -> str:
        names = self.engine.names
        return ",".join([names[k] for k in self.floats if given[k].requires_grad])

    def _kept(self, given: Sequence[Tensor], start: Start, wrt: str) -> tuple[int, ...]:
        """Which results of a forward pass its backward pass needs."""
        key = (start.how, wrt, given[0].get_device())
        found = self.kept.get(key)
        if found is None:
            found = self.kept[key] = self.engine.stage_for(given, start, wrt).kept
        return found

    # --- kernels ---

    def _split(self, args: tuple[Any, ...]) -> tuple[Sequence[Tensor], Start, Sequence[Any]]:
        n = self.inputs
        start_at, start, how = args[n : n + 3]
        return args[:n], Start(how, start, start_at), args[n + 3 :]

    def _returned(self, out: list[Tensor]) -> Any:
        return out[0] if self.outputs == 1 else tuple(out)

    def _run(self, *args: Any) -> Any:
        given, start, params = self._split(args)
        with _device(given[0]):
            return self._returned(self.engine.run(given, start, params))

    def _run_saving(self, *args: Any) -> list[Tensor]:
        given, start, params = self._split(args[:-1])
        with _device(given[0]):
            return self.engine.run(given, start, params, args[-1])

    def _run_backward(self, *args: Any) -> list[Tensor]:
        given, start, params = self._split(args[:-3])
        with _device(given[0]):
            return self.engine.run_backward(given, start, params, *args[-3:])

    def _fake(self, *args: Any) -> Any:
        return self._returned(self.engine.fake(*self._split(args)))

    def _fake_saving(self, *args: Any) -> list[Tensor]:
        return self.engine.fake(*self._split(args[:-1]), args[-1])

    def _fake_backward(self, *args: Any) -> list[Tensor]:
        return self.engine.fake_backward(args[: self.inputs], args[-3])

    # --- gradients and casts ---

    def _autograd(self, *args: Any) -> Any:
        _no_tangents(self.engine.cascade.name, args[: self.inputs])
        if torch.is_grad_enabled():
            wrt = self._wanted(args)
            if wrt:
                _no_transform(self.engine.cascade.name)
                return _Function.apply(self, wrt, *args)  # type: ignore[no-untyped-call]
        with torch._C._AutoDispatchBelowAutograd():
            return self.op(*args)

    def _autograd_twice(self, *args: Any) -> Any:
        if torch.is_grad_enabled():
            flat = (*args[:-2], *args[-2], *args[-1], len(args[-2]))
            return list(_Twice.apply(self, len(args), *flat))  # type: ignore[no-untyped-call]
        with torch._C._AutoDispatchBelowAutograd():
            return self.backward(*args)

    def _autocast(self, device: str) -> Any:
        key = getattr(torch._C.DispatchKey, f"Autocast{device.upper()}")
        excluded = torch._C.DispatchKeySet(key)

        def cast(*args: Any) -> Any:
            dtype = torch.get_autocast_dtype(device)
            with torch._C._ExcludeDispatchKeyGuard(excluded):
                # float64 stays: autocast never narrows it
                low = (
                    x.to(dtype) if k in self.cast and x.dtype not in (torch.float64, EIGHT) else x
                    for k, x in enumerate(args[: self.inputs])
                )
                return self.op(*low, *args[self.inputs :])

        return cast


class _Function(torch.autograd.Function):
    """The operator with residuals kept for its backward pass."""

    @staticmethod
    def forward(ctx: Any, ops: Operators, wrt: str, *args: Any) -> Any:
        given, start, params = ops._split(args)
        with torch._C._AutoDispatchBelowAutograd():
            made = ops.saving(*args, wrt)
        return _kept(ctx, ops, wrt, given, start, params, made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return (None, None, *_gradients(ctx, grads), *([None] * (3 + len(ctx.call[-1]))))


class _Direct(torch.autograd.Function):
    """The same where nobody looks on. What is no tensor comes in one piece: PyTorch looks at every argument."""

    @staticmethod
    def forward(ctx: Any, call: tuple[Known, list[int] | None], *given: Tensor) -> Any:
        known, addresses = call
        ops, start = known.ops, known.start
        if known.replay is not None:
            # Gradients are off in here, and launches ask no dispatcher.
            made = known.replay(given if start.at is None else (*given, start.at), 0, addresses)
        else:
            with _device(given[0]), torch._C._AutoDispatchBelowAutograd():
                made = ops.engine.run(given, start, known.params, known.wrt)
        return _kept(ctx, ops, known.wrt, given, start, known.params, made, known.kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return (None, *_gradients(ctx, grads))


# Past what `Function.apply` does in Python for transforms of functions, which are known not to be there: a third of it.
_apply: Any = super(torch.autograd.Function, _Direct).apply


def _kept(
    ctx: Any,
    ops: Operators,
    wrt: str,
    given: Sequence[Tensor],
    start: Start,
    params: Sequence[Any],
    made: list[Tensor],
    places: tuple[int, ...] | None = None,
) -> Any:
    """The outputs; what the backward pass needs, at these places of what was made, stays with the graph."""
    kept = [made[k] for k in (ops._kept(given, start, wrt) if places is None else places)]
    ctx.save_for_backward(*given, *kept, *(() if start.at is None else (start.at,)))
    ctx.call = (ops, wrt, len(kept), start.how, start.value, params)
    outputs = made[: ops.outputs]
    if ops.integral:
        ctx.mark_non_differentiable(*(outputs[k] for k in ops.integral))
    ctx.set_materialize_grads(False)
    return ops._returned(outputs)


def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> Sequence[Tensor | None]:
    """The gradient of each input, where it has one."""
    ops: Operators
    ops, wrt, count, how, value, params = ctx.call
    saved, engine = ctx.saved_tensors, ops.engine
    plain = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    recent = engine.recent_gradients(wrt, params, grads) if plain and how == "" else None
    if recent is not None:
        brought = (*saved, *[g for g in grads if g is not None])
        found = recent.find(brought)
        if found is not None and not mode_looks():
            (replay, places), addresses = found
            if replay.on < 0 or replay.on == current_device():
                made = replay(brought, 0, addresses)
                return [None if k is None else made[k] for k in places]
    given = saved[: ops.inputs]
    kept = list(saved[ops.inputs : ops.inputs + count])
    at = saved[-1] if how == "tensor" else None
    names = wrt.split(",")
    places = tuple([names.index(n) if n in names else None for n in engine.names])
    if plain and nobody_looks(saved) and nobody_looks(grads):
        start = Start(how, value, at)
        with _device(given[0]):
            with torch._C._AutoDispatchBelowAutograd():
                made = engine.run_backward(given, start, params, wrt, kept, grads)
            if recent is not None:
                # As they came: gathered ones are of another kind, and are gathered each time.
                brought, key = engine.brought(given, start, params, wrt, kept, grads)
                launched = engine.replays.get(key)
                if launched is not None:
                    recent.offer(brought, key, (launched, places))
    else:
        made = ops.backward(*given, at, value, how, *params, wrt, kept, list(grads))
    return [None if k is None else made[k] for k in places]


class _Twice(torch.autograd.Function):
    """The backward operator where a graph of it is asked for: it runs, and has no gradient itself."""

    @staticmethod
    def forward(ctx: Any, ops: Operators, count: int, *flat: Any) -> Any:
        kept = flat[-1]
        head, rest = flat[: count - 2], flat[count - 2 : -1]
        ctx.name = ops.engine.cascade.name
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(ops.backward(*head, list(rest[:kept]), list(rest[kept:])))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        raise RuntimeError(
            f"attndsl: `{ctx.name}` has no second derivative: its backward pass is a kernel;"
            " use `op.reference(...)`, which is differentiable any number of times"
        )


def _device(x: Tensor) -> Any:
    """Kernels are launched on the current device, so it must be the tensors'."""
    if x.device.type == "cuda" and x.device.index != torch.cuda.current_device():
        return torch.cuda.device(x.device)
    return _NOTHING


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_NOTHING = _Nothing()


def _integral(engine: Engine) -> tuple[int, ...]:
    from attndsl.cascade.types import Types

    kinds = Types(engine.cascade).tensors
    return tuple(
        k for k, o in enumerate(engine.cascade.outputs) if kinds[o.name] is not DType.FLOAT
    )


def _ascii(name: str, place: int) -> str:
    """A name for an argument, which is only ever given by its place."""
    return name if name.isascii() else f"argument_{place}"


def _no_tangents(name: str, given: Sequence[Tensor]) -> None:
    """Refuse forward-mode derivatives, which PyTorch would take for zero where an operator has none."""
    if forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(x).tangent is not None for x in given
    ):
        raise RuntimeError(
            f"attndsl: `{name}` has no forward-mode derivative (`torch.func.jvp`, dual tensors): use"
            " `op.reference(...)`, or its gradient"
        )


def _no_transform(name: str) -> None:
    """Refuse gradients as a transform, in this operator's own words."""
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"attndsl: `{name}` has no gradient under `torch.func` (`grad`, `vjp`, `jacrev`): use"
            " `torch.autograd.grad`, or `op.reference(...)`"
        )


def _fresh(name: str) -> str:
    base = re.sub(r"\W", "_", name, flags=re.ASCII)  # a schema's names are ASCII
    out, k = base, 1
    while {out, f"{out}_saving", f"{out}_backward"} & _taken:
        k += 1
        out = f"{base}_{k}"
    _taken.update({out, f"{out}_saving", f"{out}_backward"})
    return out
