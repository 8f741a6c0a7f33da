"""A CUDA context for each thread that launches.

Triton makes a context current in a thread that launches a kernel, but not before it describes tiles to the copy engine,
which needs one as well. A thread of autograd has none until it allocates or launches for the first time; where PyTorch
has the memory at hand, our kernel is that first launch ("Failed to create tensor map descriptor: invalid device
context").
"""

from __future__ import annotations

import threading

import torch

_BOUND = threading.local()


def bind(device: torch.device) -> None:
    """See that this thread has the context of a CUDA device; once for each thread and device."""
    if device.type != "cuda":
        return
    bound: set[int | None] = _BOUND.__dict__.setdefault("devices", set())
    if device.index not in bound:
        # CUDA's runtime binds the context to a thread with its first launch, also while a graph is captured.
        torch.zeros(1, device=device)
        bound.add(device.index)
