"""Dense tensors with named axes.

A `Named` keeps its axes in one canonical order (the run's), so that two of them broadcast by inserting axes of length
1. A `Value` adds where it is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Pointwise: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """`data.shape[k]` is the extent of index `dims[k]`; `dims` are in canonical order."""

    data: Tensor
    dims: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """Points at which a subscript leaves its tensor, and the text that says so."""

    where: Named
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A dense value; `defined` is None where it is defined everywhere. What `data` holds elsewhere is of no meaning."""

    data: Named
    defined: Named | None = None
    faults: tuple[Fault, ...] = ()


Residual: TypeAlias = Callable[[Named], Named]


class Axes:
    """The canonical order of the index names of one run."""

    def __init__(self, names: Sequence[str]) -> None:
        self._rank: dict[str, int] = {}
        for n in names:
            self._rank.setdefault(n, len(self._rank))

    def sort(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted(set(names), key=lambda n: self._rank.setdefault(n, len(self._rank))))

    def named(self, data: Tensor, dims: Sequence[str]) -> Named:
        """Put axes that are named in any order into the canonical one."""
        order = self.sort(dims)
        assert len(order) == data.dim()
        perm = [list(dims).index(d) for d in order]
        return Named(data if perm == list(range(len(perm))) else data.permute(perm), order)

    def align(self, *xs: Named) -> tuple[tuple[str, ...], list[Tensor]]:
        """The union of the axes, and every tensor with axes of length 1 put in where it lacks one."""
        dims = self.sort([d for x in xs for d in x.dims])
        return dims, [self.spread(x, dims) for x in xs]

    def spread(self, x: Named, dims: tuple[str, ...]) -> Tensor:
        """`x` shaped to broadcast against a tensor whose axes are `dims`."""
        if not x.dims:
            return x.data
        sizes = iter(x.data.shape)
        return x.data.reshape([next(sizes) if d in x.dims else 1 for d in dims])

    def map(self, fn: Callable[..., Tensor], *xs: Named) -> Named:
        """A pointwise function over named tensors."""
        dims, tensors = self.align(*xs)
        return Named(fn(*tensors), dims)

    def both(self, *masks: Named | None) -> Named | None:
        """The conjunction of masks, of which None is true everywhere."""
        out: Named | None = None
        for m in masks:
            if m is not None:
                out = m if out is None or out is m else self.map(torch.logical_and, out, m)
        return out

    def project(self, mask: Named | None, dims: Sequence[str]) -> Named | None:
        """Over the indices `dims` alone: is there any true point? None if everywhere."""
        if mask is None:
            return None
        gone = [k for k, d in enumerate(mask.dims) if d not in dims]
        out = mask
        if gone:
            kept = tuple(d for d in mask.dims if d in dims)
            out = Named(
                mask.data.any(dim=gone) if mask.data.numel() else _any(mask.data, gone), kept
            )
        return None if bool(out.data.all()) else out

    def fill(self, x: Named, mask: Named | None, safe: float | int | bool) -> Named:
        """`x` where the mask is true, a constant elsewhere (through which no gradient flows)."""
        if mask is None:
            return x
        constant = torch.full((), safe, dtype=x.data.dtype, device=x.data.device)
        return self.map(lambda m, t: torch.where(m, t, constant), mask, x)

    def expand(self, x: Named, dims: tuple[str, ...], extents: dict[str, int]) -> Named:
        """`x` with every axis of `dims`, in canonical order."""
        order = self.sort([*dims, *x.dims])
        sizes = [extents[d] for d in order]
        return Named(self.spread(x, order).expand(sizes), order)


def _any(x: Tensor, gone: list[int]) -> Tensor:
    for k in sorted(gone, reverse=True):
        x = x.any(dim=k)
    return x


def contract(axes: Axes, operands: list[Named], out: tuple[str, ...], dtype: torch.dtype) -> Named:
    """The sum of the product of the operands over every index that is not in `out`, two at a time, smallest first."""
    todo = [Named(x.data.to(dtype), x.dims) for x in operands]

    def keep(pair: Sequence[Named], rest: Sequence[Named]) -> tuple[str, ...]:
        wanted = set(out).union(*(x.dims for x in rest))
        return axes.sort([d for x in pair for d in x.dims if d in wanted])

    def size(pair: tuple[Named, ...], dims: tuple[str, ...]) -> int:
        extents = {d: n for x in pair for d, n in zip(x.dims, x.data.shape, strict=True)}
        n = 1
        for d in dims:
            n *= extents[d]
        return n

    todo = [_einsum((x,), keep((x,), todo[:k] + todo[k + 1 :])) for k, x in enumerate(todo)]
    while len(todo) > 1:
        pairs = [(a, b) for a in range(len(todo)) for b in range(a + 1, len(todo))]
        plans = []
        for a, b in pairs:
            rest = [x for k, x in enumerate(todo) if k not in (a, b)]
            dims = keep((todo[a], todo[b]), rest)
            plans.append((size((todo[a], todo[b]), dims), a, b, dims))
        _, a, b, dims = min(plans, key=lambda p: p[:3])
        both = _einsum((todo[a], todo[b]), dims)
        todo = [both, *(x for k, x in enumerate(todo) if k not in (a, b))]
    return todo[0]


def _einsum(operands: tuple[Named, ...], dims: tuple[str, ...]) -> Named:
    if len(operands) == 1 and operands[0].dims == dims:
        return operands[0]
    numbers: dict[str, int] = {}
    args: list[object] = []
    for x in operands:
        args += [x.data, [numbers.setdefault(d, len(numbers)) for d in x.dims]]
    return Named(torch.einsum(*args, [numbers[d] for d in dims]), dims)
