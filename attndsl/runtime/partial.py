"""Partial results: the state of a program over a part of its keys, combined with others, and finished.

    a = op.partial(q, k[:, :, :n], v[:, :, :n])
    b = op.partial(q, k[:, :, n:], v[:, :, n:], first=n)
    o = op.finish(op.merge(a, b))                          # what op(q, k, v) is

Keys that are spread over devices, or over segments of a cache that queries share, are each swept where they are; what
travels is the state, a few numbers a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from attndsl.analysis.stabilise import stabilised
from attndsl.callerrors import CallError
from attndsl.cascade.bind import Binding, Number, bind
from attndsl.cascade.starts import START
from attndsl.codegen.toolkit import sound_assembler
from attndsl.runtime.cache import load_module
from attndsl.runtime.checks import EIGHT, check_eight
from attndsl.runtime.engine import Engine
from attndsl.runtime.ranges import RangeCheck
from attndsl.runtime.stages import TRITON, refusals, storage
from attndsl.runtime.starts import with_start
from attndsl.schedule.monoid import FIRST, Carried, Monoid, monoid, placed
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.split import SPLIT, cut_of
from attndsl.schedule.tile import Plan


@dataclass(frozen=True, slots=True)
class State:
    """What a program carries over some of its keys.

    `tensors` holds the carried values by name (`carried` says what each is), in float32 or wider, laid out
    `[batch…, row, features…]`: what is to be sent elsewhere. `rows` are the inputs that `merge` and `finish` read.
    """

    program: str
    carried: tuple[Carried, ...]
    tensors: Mapping[str, Tensor]
    rows: Mapping[str, Tensor] = field(repr=False)
    dtypes: Mapping[str, torch.dtype] = field(repr=False)
    extents: Mapping[str, int]
    params: Mapping[str, Number]


class Partials:
    """The three kernels of an engine's program, made when first needed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        shifted = with_start(engine.cascade, "int") if engine.shifted else engine.cascade
        self.cascade = stabilised(shifted).cascade
        self.made: dict[str, ModuleType] = {}
        self._monoid: Monoid | None = None
        self._ranges: RangeCheck | None = None
        self._forward: Plan | None = None

    @property
    def monoid(self) -> Monoid:
        """Raises: CallError A0511, with the reason, where parts of the keys have no state that combines."""
        if self._monoid is None:
            try:
                self._monoid = monoid(self.cascade)
            except Refused as refused:
                raise CallError(
                    "A0511",
                    f"{self.cascade.name}: no partial results: {refused.why}",
                    help="call the operator with all keys",
                ) from None
        return self._monoid

    def forward(self) -> Plan:
        """The whole program's plan, which knows how its outputs are stored."""
        if self._forward is None:
            self._forward = self.engine.planner(self.cascade, ()).forward
        return self._forward

    def ranges(self) -> RangeCheck:
        if self._ranges is None:
            cut = cut_of(self.cascade)
            assert cut is not None
            self._ranges = RangeCheck(placed(self.cascade, cut))
        return self._ranges

    @torch.no_grad()
    def partial(
        self, given: Sequence[Tensor], first: int, start: int, params: Mapping[str, Number]
    ) -> State:
        """The state over the keys of the call, whose first has the position `first`."""
        m, engine = self.monoid, self.engine
        engine.check(given)
        if any(x.dtype is EIGHT for x in given):
            check_eight(engine.cascade.name, given[0].device, "", stateful=True)
        inputs = dict(zip(engine.names, given, strict=True))
        binding = bind(engine.cascade, {n: tuple(x.shape) for n, x in inputs.items()}, dict(params))
        numbers: dict[str, Number] = {**binding.params, FIRST: first}
        if engine.shifted:
            numbers[START] = start
        if self.ranges().gathers:
            self.ranges()(Binding(binding.extents, numbers))
        made = self.run(m.partial, inputs, {**binding.extents, SPLIT: 1}, numbers)
        needed = (*m.merge.buffers, *m.finish.buffers)
        rows = {b.name: inputs[b.name] for b in needed if b.name in inputs}
        extents = {r: n for r, n in binding.extents.items() if r not in m.streamed}
        del numbers[FIRST]
        tensors = {n.removesuffix(".part"): x[0] for n, x in made.items()}
        wide = any(x.dtype is torch.float64 for x in given)
        forward = self.forward()
        types = {
            o.name: storage(forward.buffer(o.name), inputs, wide) for o in self.cascade.outputs
        }
        return State(self.cascade.name, m.carried, tensors, rows, types, extents, numbers)

    @torch.no_grad()
    def merge(self, states: Sequence[State]) -> State:
        """One state for the keys of all, which must not overlap."""
        m, one = self.monoid, self.checked(states)
        if len(states) == 1:
            return one
        parts = {
            f"{c.name}.part": torch.stack([s.tensors[c.name] for s in states]) for c in m.carried
        }
        made = self.run(
            m.merge,
            {**one.rows, **parts},
            {**one.extents, SPLIT: len(states)},
            {**one.params, FIRST: 0},
        )
        tensors = {n.removesuffix(".part.merged"): x for n, x in made.items()}
        return dataclasses.replace(one, tensors=tensors)

    @torch.no_grad()
    def finish(self, state: State) -> list[Tensor]:
        """The outputs, where the state is that of all keys."""
        m, one = self.monoid, self.checked([state])
        parts = {f"{c.name}.part": one.tensors[c.name][None] for c in m.carried}
        numbers: dict[str, Number] = {**one.params, FIRST: 0}
        made = self.run(m.finish, {**one.rows, **parts}, {**one.extents, SPLIT: 1}, numbers)
        return [made[o.name].to(one.dtypes[o.name]) for o in self.cascade.outputs]

    def checked(self, states: Sequence[State]) -> State:
        """The first state, if all belong together.

        Raises: CallError A0512, where they do not.
        """
        name = self.cascade.name
        if not states:
            raise CallError("A0512", f"{name}: there is nothing to merge")
        for s in states:
            if not isinstance(s, State):
                raise CallError(
                    "A0512", f"{name}: a state is needed, and a {type(s).__name__} came"
                )
            if s.program != name or s.carried != self.monoid.carried:
                raise CallError("A0512", f"{name}: the state is one of `{s.program}`")
        one = states[0]
        for s in states[1:]:
            for what, a, b in (
                ("extents", one.extents, s.extents),
                ("parameters", one.params, s.params),
            ):
                if a != b:
                    notes = (f"one has   {dict(a)}", f"other has {dict(b)}")
                    raise CallError("A0512", f"{name}: states of different {what}", notes=notes)
        return one

    def run(
        self,
        plan: Plan,
        inputs: dict[str, Tensor],
        extents: dict[str, int],
        params: dict[str, Number],
    ) -> dict[str, Tensor]:
        x = next(iter(inputs.values()))
        backend = self.engine.backend_of(x.device)
        key = f"{plan.name}_{backend}"
        if key not in self.made:
            self.made[key] = load_module(_text(backend, plan, self.engine), key)
        with refusals(self.cascade.name), _on(x), sound_assembler():
            made: dict[str, Tensor] = self.made[key].forward(inputs, extents, params)
        return made


def _text(backend: str, plan: Plan, engine: Engine) -> str:
    if backend in TRITON:  # parts of the keys are for portable kernels
        from attndsl.codegen.triton import render_module as render_triton

        return render_triton(plan.name, plan, None, engine.header, precision=engine.precision)
    from attndsl.codegen.eager import render_module

    text: str = render_module(plan.name, plan, None, engine.header)
    return text


def _on(x: Tensor) -> Any:
    from attndsl.runtime.library import _device

    return _device(x)
