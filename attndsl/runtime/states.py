"""Calls that take up a state and return one.

    o1, state = op(q[:, :, :100], k[:, :, :100], v[:, :, :100], return_state=True)
    o2, state = op(q[:, :, 100:], k[:, :, 100:], v[:, :, 100:], state=state, return_state=True)
    o, state = op.step(state, q_t, k_t, v_t)          # one token; tensors may lack their axis of time

A state is a tensor, or a tuple of several, in float32 or wider; its layout is the program's own. Gradients flow through
it. A program without a state of a size of its own (softmax, a window) refuses with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.bind import eval_int
from attndsl.cascade.nodes import Cascade, Index, TensorDecl
from attndsl.runtime.stages import plan_passes
from attndsl.schedule.stateful import NoState, Stateful, with_state

if TYPE_CHECKING:
    from attndsl.runtime.operator import CompiledAttention

StateLike: TypeAlias = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class States:
    """A program with its state, as a program of its own."""

    op: CompiledAttention
    made: Stateful
    declared: tuple[TensorDecl, ...]
    outputs: int

    def __call__(self, given: Mapping[str, Tensor], state: StateLike | None, params: Any) -> Any:
        """The outputs of a call, and the state after it."""
        own = {t.name: given[t.name] for t in self.declared if t.name not in self.made.unused}
        out = self.op(*own.values(), *self.parts(given, own, state), **params)
        made, after = out[: self.outputs], out[self.outputs :]
        return (*made, after[0] if len(after) == 1 else after)

    def parts(
        self, given: Mapping[str, Tensor], own: Mapping[str, Tensor], state: StateLike | None
    ) -> Sequence[Tensor]:
        """The parts of the state: those given, or those that the program starts from."""
        count = len(self.made.before)
        if state is not None:
            parts = (state,) if isinstance(state, Tensor) else state
            if not isinstance(parts, tuple | list) or len(parts) != count:
                what = "a tensor" if count == 1 else f"a tuple of {count} tensors"
                raise CallError(
                    "A0501",
                    f"{self.op.name}: `state` should be {what}, as `return_state=True` returns it",
                )
            return parts
        sizes: dict[str, int] = {}
        for t in self.declared:
            if t.name in own:
                for dim, rank, n in zip(t.dims, t.ranks, own[t.name].shape, strict=True):
                    sizes[dim.name if isinstance(dim, Index) else rank] = n
        numbers = {f"|{r}|": n for r, n in sizes.items()}
        for derived in self.made.cascade.ranks:
            if derived.extent is not None:
                sizes.setdefault(derived.name, eval_int(derived.extent, numbers))
        first = next(iter(own.values()))
        wide = any(x.dtype is torch.float64 for x in own.values())
        dtype = torch.float64 if wide else torch.float32
        out = []
        for name, start in zip(self.made.before, self.made.starts, strict=True):
            part = self.made.cascade.input(name)
            shape = [sizes[r] for r in part.ranks]
            if start is None:
                out.append(torch.zeros(shape, dtype=dtype, device=first.device))
                continue
            # It may lack a batch index that the state carries.
            read, at = start
            here = [i.name for i in part.dims if isinstance(i, Index)]
            x = given[read].to(dtype).permute([at.index(i) for i in here if i in at])
            for k, i in enumerate(here):
                x = x if i in at else x.unsqueeze(k)
            out.append(x.expand(shape))
        return out

    def with_time(self, t: TensorDecl, x: Tensor) -> tuple[Tensor, bool]:
        """The tensor of one token with its axis of time, and whether it lacked it."""
        axes = [k for k, r in enumerate(t.ranks) if r in self.made.time]
        if len(axes) == 1 and x.ndim == len(t.ranks) - 1:
            return x.unsqueeze(axes[0]), True
        return x, False

    def without_time(self, k: int, x: Tensor) -> Tensor:
        """An output of one token without its axis of time."""
        o = self.made.cascade.outputs[k]
        axes = [a for a, i in enumerate(o.indices) if i in self.made.time]
        return x.squeeze(axes[0]) if len(axes) == 1 else x


def states_of(
    cascade: Cascade,
    make: Callable[..., CompiledAttention],
    backend: str | None,
    packs: bool = False,
) -> States:
    """The program with its state; `packs`: it is to keep sequences apart.

    Raises: CallError A0513, with the reason, where it has none.
    """
    try:
        made = with_state(cascade)
    except NoState as refused:
        raise CallError(
            "A0513",
            f"{cascade.name}: this program keeps no state: {refused.why}",
            help="give each point the number of its sequence: `where doc[i] == doc[j]`"
            if packs
            else "pass the keys and values so far, and `start`",
        ) from None
    planner = partial(plan_passes, wide=made.after, kinds=made.kinds)
    op = make(made.cascade, backend=backend, planner=planner, apart=frozenset(made.before))
    return States(op, made, cascade.inputs, len(cascade.outputs))
