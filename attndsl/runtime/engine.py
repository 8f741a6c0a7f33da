"""From the arguments of a call to the generated function that serves it.

Everything that can be found out from shapes and types alone is found out once and kept: checks,
extents, the choice of the stage. A call of a known kind is one dictionary look-up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.alignments import shifted_indices
from attndsl.cascade.bind import Binding, Number, bind
from attndsl.cascade.nodes import Cascade, Index
from attndsl.cascade.starts import START, check_places, resolve_start
from attndsl.runtime import plans
from attndsl.runtime.beforehand import Beforehand
from attndsl.runtime.checks import EIGHT, INTS, TensorCheck, check_eight, check_widths
from attndsl.runtime.cotangents import gathered
from attndsl.runtime.heads import Cutting
from attndsl.runtime.ranges import RangeCheck
from attndsl.runtime.recent import Recent
from attndsl.runtime.replay import Replay, current_device, kind_of, spread_zeros
from attndsl.runtime.stages import TRITON, WARPS, Config, Planner, Stage, plan_passes
from attndsl.runtime.starts import StartKind, shifted_scan, with_start
from attndsl.runtime.watching import Watch, told_apart
from attndsl.schedule.composed import PIECES

_UNKNOWN: Any = object()
# Calls that are remembered; programs with ever new shapes must not fill the memory.
MOST_CALLS = 4096

Gradients: TypeAlias = tuple[Replay, tuple[int | None, ...]]
"""A backward pass that was launched before, and which of its results is the gradient of each input."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call of known shapes and types."""

    stage: Stage
    names: tuple[str, ...]
    extents: dict[str, int]
    params: dict[str, Number]
    binding: Binding
    config: Config = None

    def tensors(self, given: Sequence[Tensor], start_at: Tensor | None) -> dict[str, Tensor]:
        """The tensors of the call by name."""
        out = dict(zip(self.names, given, strict=True))
        if start_at is not None:
            out[START] = start_at
        return out


@dataclass(frozen=True, slots=True)
class Start:
    """The `start` of a call: `how` is "" (not given), "end", "int" or "tensor"."""

    how: str = ""
    value: int | None = None
    at: Tensor | None = None


def is_hopper(device: torch.device) -> bool:
    """Whether kernels whose warps specialise run on a device."""
    if device.type != "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


class Engine:
    """A program, its stages and its calls so far."""

    def __init__(
        self,
        cascade: Cascade,
        backend: str | None,
        planner: Planner,
        header: str,
        autotune: str = "never",
        apart: frozenset[str] = frozenset(),
        deterministic: bool = True,
        precision: str = "split",
    ) -> None:
        self.cascade = cascade
        self.deterministic = deterministic
        self.precision = precision
        self.backend = backend
        self.planner = planner
        self.header = header
        self.autotune = autotune
        self.names = tuple(t.name for t in cascade.inputs)
        self.shifted = bool(shifted_indices(cascade))
        self.scanned = shifted_scan(cascade)
        self.check = TensorCheck(cascade, apart)
        self.ranges = RangeCheck(cascade)
        self.calls: dict[Any, Prepared] = {}
        self.stages: dict[tuple[StartKind, tuple[str, ...], str, tuple[str, ...]], Stage] = {}
        self.cutting = Cutting(header, precision)
        self.replays: dict[Any, Replay | None] = {}
        self.recent_backward: dict[Any, Recent[Gradients]] = {}
        self.beforehand = Beforehand()
        self.lock = threading.RLock()

    # --- stages ---

    def backend_of(self, device: torch.device) -> str:
        """What serves tensors of a device, unless one was asked for.

        Triton on CUDA (and on CPU in Triton's interpreter), else eager; on Hopper "auto", which has more kernels to
        choose from.
        """
        runs = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
        if self.backend in ("triton", "hopper") and not runs:
            raise CallError(
                "A0501",
                f"{self.cascade.name}: the backend is `{self.backend}`, and the tensors are on {device}",
                help='move them to a GPU, set TRITON_INTERPRET=1, or load with backend="eager"',
            )
        if self.backend not in (None, "auto"):
            return self.backend
        if is_hopper(device):
            return "auto"
        return "triton" if runs else "eager"

    def stage(
        self, kind: StartKind, wrt: tuple[str, ...], backend: str, eight: tuple[str, ...] = ()
    ) -> Stage:
        """The generated functions of one way of calling; made when first asked for.

        `eight` names the inputs that have 8 bits.
        """
        key = (kind, wrt, backend, eight)
        with self.lock:
            if key not in self.stages:
                cascade = with_start(self.cascade, kind)
                self.stages[key] = self.planned(cascade, wrt, backend, eight)
            return self.stages[key]

    def planned(
        self, cascade: Cascade, wrt: tuple[str, ...], backend: str, eight: tuple[str, ...] = ()
    ) -> Stage:
        """A stage, from disk where another process planned it."""
        if self.planner is not plan_passes:
            return Stage(
                cascade, self.planner(cascade, wrt), backend, self.header, None, self.precision
            )
        adds = not self.deterministic and backend in WARPS
        name = plans.key_of(cascade, wrt, backend, self.header, adds, self.precision, eight)
        known = plans.recall(name)
        if known is not None:
            return Stage(cascade, known[0], backend, self.header, known[1])
        passes = plan_passes(cascade, wrt, eight=eight)
        if adds and passes.backward is not None:
            from attndsl.schedule.added import added
            from attndsl.schedule.warps import adds as by_the_copy_engine

            made = added(passes.backward)
            if made is not None and by_the_copy_engine(made):
                passes = replace(passes, adding=made)
        stage = Stage(cascade, passes, backend, self.header, None, self.precision)
        plans.remember(name, stage.passes, stage.text)
        return stage

    # --- calls ---

    def prepare(
        self, given: Sequence[Tensor], start: Start, params: Sequence[Number | None], wrt: str
    ) -> Prepared:
        """What is known about a call before its values are looked at."""
        key: Any = (
            *((x.shape, x.dtype, x.device) for x in given),
            start.how if start.at is None else (start.at.shape, start.at.dtype, start.at.device),
            *params,
            wrt,
        )
        try:
            found = self.calls.get(key)
        except TypeError:  # symbolic shapes, while PyTorch traces
            key = None
            found = None
        if found is None:
            found = self.bound(given, start, params, wrt)
            if key is not None:
                if len(self.calls) >= MOST_CALLS:
                    self.calls.clear()
                self.calls[key] = found
        if start.how == "int":  # its value is no part of the key
            if start.value is not None and start.value < 0:
                raise CallError(
                    "A0505",
                    f"{self.cascade.name}: `start` is {start.value}",
                    help='pass "end", a number of at least 0, or an int tensor',
                )
            self.check_scans(start)
        if self.ranges.gathers and start.how != "tensor":
            at = found.params.get(START, 0) if start.how != "int" else start.value
            self.ranges(found.binding, int(at or 0))
        return found

    def bound(
        self, given: Sequence[Tensor], start: Start, params: Sequence[Number | None], wrt: str
    ) -> Prepared:
        shapes = {n: tuple(int(k) for k in x.shape) for n, x in zip(self.names, given, strict=True)}
        values = {
            p.name: v for p, v in zip(self.cascade.params, params, strict=True) if v is not None
        }
        self.check(given)
        binding = bind(self.cascade, shapes, values)
        check_widths(self.cascade, binding.params)
        numbers = dict(binding.params)
        if start.how == "tensor":
            self.check_start(start, given, binding)
        at = {"": None, "end": "end", "int": 1, "tensor": start.at}[start.how]
        shifts = resolve_start(self.cascade, binding, at)
        if start.how in ("end", "int"):
            numbers[START] = next(iter(shifts.values()), 0)
        if start.how == "tensor" or (start.how == "end" and numbers[START]):
            self.check_scans(start)
        stage = self.stage_for(given, start, wrt)
        extents = stage.extents(binding.extents, numbers)
        with self.lock:
            inputs = dict(zip(self.names, given, strict=True))
            stage, extents = self.cutting(stage, inputs, extents)
        config = self.tuned(stage, given, binding, extents, numbers, wrt)
        return Prepared(stage, self.names, extents, numbers, binding, config)

    def stage_for(self, given: Sequence[Tensor], start: Start, wrt: str) -> Stage:
        """The stage of a call; it does not depend on extents, so it can be found while tracing."""
        kinds: dict[str, StartKind] = {"": "none", "end": "int", "int": "int", "tensor": "tensor"}
        kind = kinds[start.how] if self.shifted else "none"
        eight = tuple(n for n, x in zip(self.names, given, strict=True) if x.dtype is EIGHT)
        if eight:
            stateful = self.planner is not plan_passes
            check_eight(self.cascade.name, given[0].device, wrt, stateful)
        return self.stage(
            kind, tuple(wrt.split(",")) if wrt else (), self.backend_of(given[0].device), eight
        )

    def check_scans(self, start: Start) -> None:
        if self.scanned is not None and (start.how != "int" or start.value):
            raise CallError(
                "A0505",
                f"{self.cascade.name}: `{self.scanned}` runs over its index from the beginning, and"
                " `start` is not 0",
                help="what came before is a state, which `start` cannot stand for",
            )

    def check_start(self, start: Start, given: Sequence[Tensor], binding: Binding) -> None:
        assert start.at is not None
        name = self.cascade.name
        if start.at.dtype not in INTS:
            raise CallError(
                "A0505", f"{name}: `start` is a tensor of {start.at.dtype}, not of integers"
            )
        if start.at.device != given[0].device:
            raise CallError(
                "A0501", f"{name}: `start` is on {start.at.device}, the inputs on {given[0].device}"
            )
        if self.cascade.batch:
            b = self.cascade.batch[0]
            want = (binding.extents[b],)
            if tuple(start.at.shape) != want:
                raise CallError(
                    "A0505",
                    f"{name}: `start` has shape {tuple(start.at.shape)}, and |{b}| is {want[0]}",
                    help=f"one number for each `{b}`",
                )

    def check_values(self, call: Prepared, at: Tensor) -> None:
        """The places in a tensor on the CPU; to look at one on a GPU would wait for it (debug mode does)."""
        check_places(self.cascade.name, at)
        if self.ranges.gathers and at.numel():
            for place in (int(at.min()), int(at.max())):
                self.ranges(call.binding, place)

    def tuned(
        self,
        stage: Stage,
        given: Sequence[Tensor],
        binding: Binding,
        extents: dict[str, int],
        numbers: dict[str, Number],
        wrt: str,
    ) -> Config:
        """The tuned configurations of a call's kernels, so far as there are any."""
        if stage.backend not in TRITON or given[0].device.type != "cuda":
            return None
        from attndsl.runtime.tuned import look_up

        inputs = dict(zip(self.names, given, strict=True))
        if PIECES in extents:  # a search is of whole walks; what it found fits both
            return look_up(self.cascade, stage, inputs, extents)
        if self.autotune != "never":  # a search is much to import
            from attndsl.runtime.autotune import tune_call

            names = wrt.split(",") if wrt else ()
            with self.lock:
                tune_call(
                    self.autotune, self.cascade, stage, inputs, binding, extents, numbers, names
                )
        return look_up(self.cascade, stage, inputs, extents)

    # --- running ---

    def run(
        self, given: Sequence[Tensor], start: Start, params: Sequence[Number | None], wrt: str = ""
    ) -> list[Tensor]:
        """The outputs; with `wrt`, then the residuals for the gradients of these inputs."""
        tensors = given if start.at is None else (*given, start.at)
        key = (wrt, start.how, params, kind_of(tensors))
        replay = self.replays.get(key, _UNKNOWN)
        if replay is None or replay is _UNKNOWN or start.how == "int":
            # A number that stands elsewhere at each call is checked at each call.
            call = self.prepare(given, start, params, wrt)
            if start.at is not None and start.at.device.type == "cpu":
                self.check_values(call, start.at)
        if isinstance(replay, Replay):
            return replay(tensors, start.value or 0)
        inputs, numbers = call.tensors(given, start.at), self.numbers(call, start)
        if replay is not _UNKNOWN or call.stage.backend not in TRITON:
            return call.stage.forward(inputs, call.extents, numbers, call.config)
        watch = Watch(
            call.stage.module, self.beforehand.begin(call, inputs, numbers, self.may_add())
        )
        tensors = told_apart(tensors)
        inputs = call.tensors(tensors[: len(given)], None if start.at is None else tensors[-1])
        out = call.stage.forward(inputs, call.extents, numbers, call.config, watch)
        self.keep(key, watch.replay(tensors, out, start.how == "int"))
        return out

    def launched(
        self,
        given: Sequence[Tensor],
        at: Tensor | None,
        how: str,
        params: Sequence[Number | None],
        wrt: str,
    ) -> tuple[Any, Replay | None]:
        """The kind of a call, and how one of this kind was launched before on this device; it does what `run` does."""
        if how == "int":
            return None, None  # what depends on its value is checked first
        key = (wrt, how, params, kind_of(given if at is None else (*given, at)))
        replay = self.replays.get(key)
        if replay is None or (0 <= replay.on != current_device()):
            return key, None
        return key, replay

    def keep(self, key: Any, replay: Replay | None) -> None:
        """Remember how a call was launched; None says that it cannot be repeated so."""
        if len(self.replays) >= MOST_CALLS:
            self.replays.clear()
        self.replays[key] = replay

    def may_add(self) -> bool:
        """Whether sums may depend on timing: this engine allows it, and PyTorch has not been told to forbid it."""
        return not self.deterministic and not torch.are_deterministic_algorithms_enabled()

    def forget(self) -> None:
        """Launch anew what was launched before."""
        self.replays.clear()
        self.recent_backward.clear()

    def brought(
        self,
        given: Sequence[Tensor],
        start: Start,
        params: Sequence[Number | None],
        wrt: str,
        kept: Sequence[Tensor],
        cotangents: Sequence[Tensor | None],
    ) -> tuple[tuple[Tensor, ...], Any]:
        """The tensors that come to a backward pass, and its kind; cotangents are gathered."""
        present = [g for g in cotangents if g is not None]
        brought = (*given, *(() if start.at is None else (start.at,)), *kept, *present)
        known = tuple([g is not None for g in cotangents])
        return brought, (known, wrt, start.how, params, self.may_add(), kind_of(brought))

    def recent_gradients(
        self, wrt: str, params: Sequence[Number | None], grads: Sequence[Tensor | None]
    ) -> Recent[Gradients]:
        """The last kinds of backward passes of calls without `start`."""
        key = (wrt, params, self.may_add(), tuple([g is not None for g in grads]))
        found = self.recent_backward.get(key)
        if found is None:
            if len(self.recent_backward) >= MOST_CALLS:
                self.recent_backward.clear()
            found = self.recent_backward[key] = Recent()
        return found

    def run_backward(
        self,
        given: Sequence[Tensor],
        start: Start,
        params: Sequence[Number | None],
        wrt: str,
        kept: Sequence[Tensor],
        cotangents: Sequence[Tensor | None],
    ) -> list[Tensor]:
        """The gradients of the inputs `wrt`; `kept` are the stage's `passes.residuals`."""
        cotangents = [None if g is None else gathered(g) for g in cotangents]
        brought, key = self.brought(given, start, params, wrt, kept, cotangents)
        replay = self.replays.get(key, _UNKNOWN)
        if isinstance(replay, Replay):
            return replay(brought, start.value or 0)
        call = self.prepare(given, start, params, wrt)
        stage = call.stage
        fresh = replay is _UNKNOWN and stage.backend in TRITON
        if fresh:
            brought = tuple(told_apart(brought))
            given, rest = brought[: len(given)], iter(brought[len(given) :])
            start = start if start.at is None else replace(start, at=next(rest))
            kept = [next(rest) for _ in kept]
            cotangents = [None if g is None else next(rest) for g in cotangents]
        tensors = call.tensors(given, start.at)
        missing = [
            o
            for o, g in zip(stage.outputs, cotangents, strict=True)
            if g is None and o in stage.passes.cotangents
        ]
        wait = self.beforehand.waiting(stage, given[0].device)
        watch = Watch(stage.module, wait) if fresh else None
        make = spread_zeros if watch is None else watch.allocator.spread_zeros
        zeros = {
            o: make(shape, dtype=dtype, device=given[0].device)  # nothing was computed from it
            for o, (shape, dtype) in stage.kinds(tuple(missing), tensors, call.extents).items()
        }
        grads = {
            o: zeros[o] if g is None else g
            for o, g in zip(stage.outputs, cotangents, strict=True)
            if o in stage.passes.cotangents
        }
        tensors |= dict(zip(stage.passes.residuals, kept, strict=True))
        sized = (call.extents, self.numbers(call, start), call.config)
        adding = stage.passes.adding is not None and self.may_add()
        out = stage.backward(tensors, grads, *sized, watch, adding)
        if watch is None:
            return out
        self.keep(key, watch.replay(brought, out, start.how == "int"))
        return out

    def numbers(self, call: Prepared, start: Start) -> dict[str, Number]:
        if start.how == "int" and START in call.params:
            return {**call.params, START: int(start.value or 0)}
        return call.params

    # --- without values ---

    def fake(
        self, given: Sequence[Tensor], start: Start, params: Sequence[Number | None], wrt: str = ""
    ) -> list[Tensor]:
        """What `run` returns, as far as shapes and types go; shapes may be symbolic."""
        self.check(given)
        stage = self.stage_for(given, start, wrt)
        names = (*stage.outputs, *stage.residuals)
        extents: dict[str, Any] = {}
        for t, x in zip(self.cascade.inputs, given, strict=True):
            for dim, rank, n in zip(t.dims, t.ranks, x.shape, strict=True):
                extents.setdefault(dim.name if isinstance(dim, Index) else rank, n)
        needed = {r for n in names for r in stage.passes.forward.buffer(n).ranks}
        if not needed <= extents.keys():  # a computed extent: the numbers are needed
            extents = dict(self.prepare(given, start, params, wrt).extents)
        tensors = dict(zip(self.names, given, strict=True))
        return stage.empty(names, tensors, extents)

    def fake_backward(self, given: Sequence[Tensor], wrt: str) -> list[Tensor]:
        by_name = dict(zip(self.names, given, strict=True))
        return [
            torch.empty_like(by_name[n], memory_format=torch.contiguous_format)
            for n in wrt.split(",")
        ]
