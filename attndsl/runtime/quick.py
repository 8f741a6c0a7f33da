"""The shortest way into compiled kernels: everything that a launch takes is written down, but for addresses.

Tiles that the copy engine loads are described to it by a tensor map. With shapes and strides known a map depends on the
address alone; making one takes as long as half a launch, and PyTorch's allocator gives the same addresses again and
again. So maps are kept by address.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from attndsl.runtime.contexts import bind

# Maps that are kept for one argument; a program whose tensors never lie where they lay must not fill the memory.
MOST_MAPS = 4096

Slots: TypeAlias = tuple[tuple[int, int], ...]
"""Places of arguments, and which tensor of the call stands there."""


class Maps(dict[int, Any]):
    """What the driver takes for a description of tiles, by the address of the tiles."""

    def __init__(self, like: Any, expand: Callable[[Any], list[Any]]) -> None:
        super().__init__()
        self.like = like
        self.expand = expand

    def all(self, address: int) -> list[Any]:
        """The map and what goes with it, which is the same for all addresses."""
        return self.expand(_at(self.like, address))

    def __missing__(self, address: int) -> Any:
        if len(self) >= MOST_MAPS:
            self.clear()
        if torch.cuda.is_initialized():
            bind(torch.device("cuda", torch.cuda.current_device()))
        made = self[address] = self.all(address)[0]
        return made


@dataclass(frozen=True, slots=True)
class Quick:
    """One launch. `maps` are places of tensor maps with the tensor and the maps that are known of it."""

    launch: Callable[..., Any]
    arguments: tuple[Any, ...]
    stream: int
    pointers: Slots
    maps: tuple[tuple[int, int, Maps], ...]
    starts: tuple[int, ...]

    def __call__(self, addresses: Sequence[int], start: int, stream: int) -> None:
        """Launch with tensors that lie at these addresses."""
        arguments = [*self.arguments]
        arguments[self.stream] = stream
        for place, which in self.pointers:
            arguments[place] = addresses[which]
        for place, which, maps in self.maps:
            arguments[place] = maps[addresses[which]]
        for place in self.starts:
            arguments[place] = start
        self.launch(*arguments)


def example_of(made: Any) -> Any:
    """A description of tiles, in any dialect of Triton, that holds an address in place of a tensor; None if it is none.

    Generated modules describe tiles so (their `Memory`).
    """
    if not all(hasattr(made, n) for n in ("base", "shape", "strides", "block_shape")):
        return None
    return copy.copy(made) if hasattr(made.base, "address") else None


def _at(like: Any, address: int) -> Any:
    out = copy.copy(like)
    out.base = copy.copy(like.base)
    out.base.address = address
    return out


def opened(launch: Callable[..., Any]) -> tuple[Callable[..., Any], dict[int, Any]] | None:
    """Triton's launcher behind the function that turns descriptions into maps, and what that takes, by place.

    None where this Triton does it otherwise; it may then be called as it is.
    """
    closure = getattr(launch, "__closure__", None) or ()
    names = getattr(getattr(launch, "__code__", None), "co_freevars", ())
    held = {n: c.cell_contents for n, c in zip(names, closure, strict=True)}
    if not {"launcher", "tensordesc_indices", "tensordesc_meta"} <= held.keys():
        return None
    places = sorted(held["tensordesc_indices"])
    return held["launcher"], dict(zip(places, held["tensordesc_meta"], strict=True))


def quick(
    grid: tuple[int, int, int],
    launch: Callable[..., Any],
    between: tuple[Any, ...],
    arguments: Sequence[Any],
    pointers: Slots,
    starts: tuple[int, ...],
    tiles: dict[int, tuple[int, Any]],
) -> Quick | None:
    """The launch of one kernel; None where there is no shorter way into it.

    `tiles` are the places that take a description: which tensor it is of, and one like it.
    """
    behind, metas = launch, dict[int, Any]()
    if tiles:
        found = opened(launch)
        if found is None or found[1].keys() != tiles.keys():
            return None
        behind, metas = found
    out: list[Any] = [*grid, None, *between]
    places: dict[int, int] = {}
    maps: list[tuple[int, int, Maps]] = []
    for place, x in enumerate(arguments):
        places[place] = len(out)
        if place in tiles:
            which, like = tiles[place]
            address = like.base.data_ptr()
            known = Maps(like, _expanding(metas[place]))
            maps.append((len(out), which, known))
            out += known.all(address)
        else:
            out.append(x)
    return Quick(
        behind,
        tuple(out),
        len(grid),
        tuple((places[p], which) for p, which in pointers),
        tuple(maps),
        tuple(places[p] for p in starts),
    )


def _expanding(meta: Any) -> Callable[[Any], list[Any]]:
    from triton.backends.nvidia import driver

    def expand(description: Any) -> list[Any]:
        return list(driver.make_tensordesc_arg(description, meta))

    return expand
