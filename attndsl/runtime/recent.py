"""The last kinds of call, recognised without asking their tensors one by one.

    recent = Recent()
    found = recent.find(given)               # (what serves them, addresses of the tensors), or None
    recent.offer(given, key, served)         # of a kind that was served otherwise

A look-up by shapes, strides, types and devices makes a tuple of each for each tensor, which takes Python longer than
anything else it does for a call. PyTorch compares them with those of an earlier call in one step, for its own compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Check: TypeAlias = Callable[..., bool]

# Kinds that are told by comparing: each that does not match costs a look at the first tensor that differs.
MOST_KINDS = 4
# What a launch depends on of an address.
ALIGNED = 15


class Recent(Generic[T]):
    """What serves the last kinds of call."""

    def __init__(self) -> None:
        self.kinds: list[tuple[Check, T, Any]] = []
        self.last: Any = None
        self.refused: Any = None

    def find(self, given: Sequence[Tensor]) -> tuple[T, list[int]] | None:
        """What serves these tensors, and where they lie; None where their kind is not known."""
        for check, served, _ in self.kinds:
            if check(*given):
                addresses, low = [x.data_ptr() for x in given], 0
                for at in addresses:
                    low |= at
                return None if low & ALIGNED else (served, addresses)
        return None

    def offer(self, given: Sequence[Tensor], key: Any, served: T) -> None:
        """Learn a kind that comes twice running: to learn one takes longer than to look it up.

        What cannot be told by comparing, or is known and was not found all the same, is left to the look-up. More tells
        kinds apart here than `key` holds, which is what a launch depends on.
        """
        marks = [(type(x), x.requires_grad, x.is_inference()) for x in given]
        key = (key, torch.is_inference_mode_enabled(), marks)
        if self.last != key:
            self.last = key
        elif self.refused != key and all(known != key for *_, known in self.kinds):
            check = check_of(given)
            if check is None:
                self.refused = key
            else:
                self.kinds = [(check, served, key), *self.kinds[: MOST_KINDS - 1]]


def check_of(tensors: Sequence[Tensor]) -> Check | None:
    """What tells whether as many things are tensors of just this kind.

    It compares their class, dispatch keys (as thread-local state leaves them), types, devices, shapes, strides, and
    whether they require a gradient. None where this PyTorch has nothing of the kind, where a tensor comes twice, and
    where a launch would depend on addresses.
    """
    try:
        from torch._C._dynamo.guards import TensorGuards

        sizes: list[Any] = [list(x.shape) for x in tensors]
        strides: list[Any] = [list(x.stride()) for x in tensors]
        guards = TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
        check: Check = guards.check
        known = check(*tensors)
    except (ImportError, TypeError, SystemError, RuntimeError):
        return None
    return check if known and not any(x.data_ptr() & ALIGNED for x in tensors) else None
