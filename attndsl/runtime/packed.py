"""Sequences packed one after the other in one tensor: each is a call of its own, from a state of its own.

    o = op(q, k, v, cu_seqlens=torch.tensor([0, 5, 12]))           # q[1,h,12,e]: of 5 and of 7 points
    o, state = op(q, k, v, cu_seqlens=ends, state=state, return_state=True)

The first batch index, of extent 1 in the tensors, is that of the sequences in the state. The ends are read by the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attndsl.callerrors import CallError

if TYPE_CHECKING:
    from attndsl.runtime.states import StateLike, States

Run = Callable[[dict[str, Any], "StateLike | None"], Any]


def packed(
    states: States,
    run: Run,
    named: Mapping[str, Any],
    cu_seqlens: Tensor,
    state: StateLike | None,
) -> tuple[Any, ...]:
    """Outputs and states of all sequences; `run` makes those of one.

    Raises: CallError A0501, where `cu_seqlens` are no ends of sequences, or nothing says which state is whose.
    """
    name = states.op.name.removesuffix("_with_state")
    along = _along(name, states, named)
    ends = _ends(name, cu_seqlens, max(named[n].shape[k] for n, k in along.items()))
    before = _apart(name, states, state, len(ends) - 1)
    owned = _owned(name, states, named, len(ends) - 1)
    made: list[tuple[Any, ...]] = []
    for k, ((first, last), start) in enumerate(zip(pairwise(ends), before, strict=True)):
        here = dict(named)
        for n, axis in owned.items():
            here[n] = named[n].narrow(axis, k, 1)
        for n, axis in along.items():
            here[n] = named[n].narrow(axis, first, last - first)
        *outputs, after = run(here, start)
        made.append((*outputs, *((after,) if isinstance(after, Tensor) else after)))
    joined = [_joined(name, states, k, x) for k, x in enumerate(zip(*made, strict=True))]
    after = joined[states.outputs :]
    return (*joined[: states.outputs], after[0] if len(after) == 1 else tuple(after))


def _along(name: str, states: States, named: Mapping[str, Any]) -> dict[str, int]:
    """The axis of time of each input that has one."""
    out: dict[str, int] = {}
    batch = next(iter(states.made.cascade.batch), None)
    for t in states.declared:
        axes = [k for k, r in enumerate(t.ranks) if r in states.made.time]
        x = named.get(t.name)
        if not axes or not isinstance(x, Tensor) or x.ndim != len(t.ranks):
            continue  # what is wrong with it is said by the call
        if batch not in t.ranks or len(axes) > 1 or x.shape[t.ranks.index(batch)] != 1:
            raise CallError(
                "A0501",
                f"{name}: `cu_seqlens` packs sequences along one axis, in a batch of one",
                notes=(f"came:     {t.name} of shape {tuple(x.shape)}",),
            )
        out[t.name] = axes[0]
    if not out:
        raise CallError("A0501", f"{name}: `cu_seqlens` came without a sequence")
    return out


def _owned(name: str, states: States, named: Mapping[str, Any], count: int) -> dict[str, int]:
    """The batch axis of each input without a time that has a value for each sequence (what a state starts from)."""
    out: dict[str, int] = {}
    batch = next(iter(states.made.cascade.batch), None)
    for t in states.declared:
        x = named.get(t.name)
        if batch not in t.ranks or {*t.ranks} & states.made.time or not isinstance(x, Tensor):
            continue
        axis = t.ranks.index(batch)
        if x.ndim != len(t.ranks) or x.shape[axis] == 1:
            continue
        if x.shape[axis] != count:
            raise CallError(
                "A0501",
                f"{name}: `{t.name}` is not that of {count} packed sequences",
                notes=(f"came:     {t.name} of shape {tuple(x.shape)}",),
            )
        out[t.name] = axis
    return out


def _apart(
    name: str, states: States, state: StateLike | None, count: int
) -> Sequence[StateLike | None]:
    """The state of each sequence."""
    if state is None:
        return [None] * count
    parts = (state,) if isinstance(state, Tensor) else state
    batch = states.made.cascade.batch[0]
    held = [states.made.cascade.input(n).ranks for n in states.made.before]
    fits = len(parts) == len(held) and all(
        batch in r and p.ndim == len(r) and p.shape[r.index(batch)] == count
        for p, r in zip(parts, held, strict=False)
    )
    if not fits:
        raise CallError("A0501", f"{name}: `state` is not that of {count} packed sequences")
    out: list[StateLike | None] = []
    for k in range(count):
        own = tuple(p.narrow(r.index(batch), k, 1) for p, r in zip(parts, held, strict=True))
        out.append(own[0] if len(own) == 1 else own)
    return out


def _joined(name: str, states: States, k: int, values: tuple[Tensor, ...]) -> Tensor:
    """One output of all sequences: along the time, or in the batch where it has none."""
    o = states.made.cascade.outputs[k]
    batch = states.made.cascade.batch[0]
    for wanted in (states.made.time, {batch}):
        axes = [a for a, i in enumerate(o.indices) if i in wanted]
        if axes:
            return torch.cat(values, axes[0])
    raise CallError("A0501", f"{name}: `{o.name}` has no axis for several sequences")


def _ends(name: str, cu_seqlens: Tensor, length: int) -> list[int]:
    whole = isinstance(cu_seqlens, Tensor) and cu_seqlens.ndim == 1 and len(cu_seqlens) > 1
    if whole and not cu_seqlens.is_floating_point() and cu_seqlens.dtype is not torch.bool:
        ends: list[int] = cu_seqlens.tolist()
        if ends[0] == 0 and ends[-1] == length and all(a < b for a, b in pairwise(ends)):
            return ends
    raise CallError(
        "A0501",
        f"{name}: `cu_seqlens` are no ends of sequences",
        notes=(f"came:     {cu_seqlens!r}",),
        help=f"an int tensor that rises from 0 to {length}, with one number more than there are sequences",
    )
