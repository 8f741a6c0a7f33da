"""Kernels whose warps specialise as Python threads: whether their barriers meet, and whether numbers are right.

Triton's interpreter knows no Gluon. Here every warp or group is a thread, memory is a tensor of float32, and a barrier
counts arrivals and bytes as the machine does. Products and copies are done when they are issued, so what is read too
early shows only where a barrier lets it; threads wait a moment at random before they write, and overtake each other.
"""

from __future__ import annotations

import random
import re
import threading
import time
import traceback
from types import SimpleNamespace
from typing import Any

import torch

LOCK = threading.RLock()
MET = threading.Condition(LOCK)


class Whole(int):
    """A number that can become a value, as a scalar of a kernel can."""

    def to(self, _: object) -> torch.Tensor:
        return torch.tensor(float(self))


class Bar:
    """A barrier in shared memory, or several."""

    def __init__(self, count: int = 1) -> None:
        self.inner = [self, *(Bar() for _ in range(count - 1))]
        self.count = self.pending = self.bytes = self.phase = 0

    def index(self, k: int) -> Bar:
        return self.inner[int(k)]

    def begin(self, count: int) -> None:
        self.count = self.pending = count

    def change(self, arrivals: int, count: int) -> None:
        with MET:
            self.pending -= arrivals
            self.bytes += count
            assert self.pending >= 0, "one arrival too many"
            if self.pending == self.bytes == 0:
                self.phase, self.pending = self.phase + 1, self.count
                MET.notify_all()

    def wait(self, phase: int) -> None:
        with MET:
            if not MET.wait_for(lambda: self.phase & 1 != phase & 1, timeout=10):
                raise RuntimeError("a barrier that nobody comes to")


class Memory:
    """Shared memory."""

    dtype = torch.float32

    def __init__(self, t: torch.Tensor) -> None:
        self.t = t

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.t.shape)

    def index(self, k: int) -> Memory:
        return Memory(self.t[int(k)])

    def reshape(self, shape: list[int]) -> Memory:
        return Memory(self.t.view([int(n) for n in shape]))

    def permute(self, order: tuple[int, ...]) -> Memory:
        return Memory(self.t.permute(*order))

    def slice(self, start: int, length: int, dim: int) -> Memory:
        return Memory(self.t.narrow(dim, start, length))

    def load(self, _: object) -> torch.Tensor:
        with LOCK:
            return self.t.clone()

    def store(self, x: torch.Tensor) -> None:
        time.sleep(random.random() * 2e-4)
        with LOCK:
            self.t.copy_(x.reshape(self.t.shape))


class Tiles:
    """A tensor as the copy engine sees it: what lies past its end reads as 0, and is not written."""

    dtype, layout = torch.float32, None

    def __init__(self, t: torch.Tensor, box: list[int]) -> None:
        self.t, self.box = t, box

    def at(self, place: list[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        ends = [
            (int(x), n, min(n, m - int(x)))
            for x, n, m in zip(place, self.box, self.t.shape, strict=True)
        ]
        there = tuple(slice(x, x + max(0, k)) for x, _, k in ends)
        return there, tuple(slice(0, max(0, k)) for _, _, k in ends)

    def load(self, place: list[int], bar: Bar, to: Memory) -> None:
        with LOCK:
            there, here = self.at(place)
            box = torch.zeros(self.box)
            box[here] = self.t[there]
            to.t.copy_(box.view(to.t.shape))
            bar.change(0, -2 * box.numel())

    def store(self, place: list[int], of: Memory, add: bool = False) -> None:
        with LOCK:
            there, here = self.at(place)
            old = self.t[there] if add else 0.0
            self.t[there] = of.t.view(self.box)[here] + old


class Pointer:
    """Where a tensor begins, and offsets from there."""

    dtype = SimpleNamespace(element_ty=torch.float32)

    def __init__(self, t: torch.Tensor, offset: Any = 0) -> None:
        self.t, self.offset = t.reshape(-1), offset

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.t, self.offset + more)


def _load(p: Pointer, mask: Any = None, other: float = 0.0) -> Any:
    if not isinstance(p.offset, torch.Tensor):
        return p.t[p.offset] if p.t.is_floating_point() else Whole(p.t[p.offset])
    inside = torch.ones_like(p.offset, dtype=torch.bool) if mask is None else mask
    return torch.where(inside, p.t[torch.where(inside, p.offset, 0)], other)


def _store(p: Pointer, x: Any, mask: Any = None) -> None:
    with LOCK:
        if mask is None:
            p.t[p.offset] = x
        else:
            p.t[p.offset[mask]] = x[mask]


def _added(p: Pointer, x: int, sem: str) -> Whole:
    with LOCK:
        p.t[p.offset] += x
        return Whole(p.t[p.offset] - x)


def _highest(x: torch.Tensor, axis: int) -> Any:
    """A number of the kernel's own where the one value of a vector is asked for."""
    return Whole(x.item()) if x.numel() == x.ndim == 1 else x.amax(axis)


def _reach(p: Pointer, row: int, tile: int, tiles: int) -> tuple[Whole, ...]:
    at = 4 + (row * tiles + int(tile)) * 4
    return tuple(Whole(p.t[k]) for k in range(at, at + 4))


def _either(f: Any, g: Any) -> Any:
    def pick(a: Any, b: Any) -> Any:
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return f(torch.as_tensor(a), torch.as_tensor(b))
        return g(a, b)

    return pick


def _where(c: Any, a: Any, b: Any) -> Any:
    if not isinstance(c, torch.Tensor):
        return a if c else b
    return torch.where(c, torch.as_tensor(a), torch.as_tensor(b))


def _product(a: Any, b: Memory, acc: Any, use_acc: bool = True, is_async: bool = False) -> Any:
    with LOCK:
        x = (a.t if isinstance(a, Memory) else a) @ b.t
    return acc + x if use_acc else x


def _threads(parts: list[tuple[Any, tuple[Any, ...]]], *_: object) -> None:
    wrong: list[str] = []

    def go(part: Any, given: tuple[Any, ...]) -> None:
        try:
            part(*given)
        except BaseException:
            wrong.append(traceback.format_exc())

    every = [threading.Thread(target=go, args=p) for p in parts]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join()
    assert not wrong, wrong[0]


def _allocated(kind: object, shape: list[int], _: object = None) -> Bar | Memory:
    return Bar(int(shape[0])) if kind == "barrier" else Memory(torch.zeros([int(n) for n in shape]))


def kernels(source: str, programs: int) -> tuple[dict[str, Any], list[int]]:
    """The functions of a module's kernels, and which program they are taken to be (the one number of the list)."""
    which = [0]

    def nothing(*_: object, **__: object) -> None:
        return None

    def filled(shape: list[int], value: float = 0.0) -> torch.Tensor:
        return torch.full([int(n) for n in shape], value)

    whole = SimpleNamespace(
        cdiv=lambda a, b: -(-a // b),
        maximum=_either(torch.maximum, max),
        minimum=_either(torch.minimum, min),
        where=_where,
        sqrt=lambda x: torch.sqrt(torch.as_tensor(x)),
        exp2=torch.exp2,
        log=torch.log,
        max=_highest,
        atomic_add=_added,
        sum=lambda x, k: x.sum(k),
        load=_load,
        store=_store,
        cast=lambda x, _: x if isinstance(x, torch.Tensor) else Whole(x),
        program_id=lambda _: which[0],
        num_programs=lambda _: programs,
        int32=torch.int32,
        int64=torch.int64,
        constexpr=None,
    )
    layouts = dict.fromkeys(
        ("NVMMADistributedLayout", "SliceLayout", "BlockedLayout", "DotOperandLayout"), nothing
    )
    gluon = SimpleNamespace(
        **layouts,
        NVMMASharedLayout=SimpleNamespace(get_default_for=nothing),
        SwizzledSharedLayout=nothing,
        constexpr=None,
        int64="barrier",
        int32=torch.int32,
        float32=torch.float32,
        arange=lambda a, b, _=None: torch.arange(a, b),
        full=lambda shape, value, *_: filled(shape, value),
        zeros=lambda shape, *_: filled(shape),
        where=_where,
        static_range=range,
        convert_layout=lambda x, _: x,
        allocate_shared_memory=_allocated,
        warp_specialize=_threads,
    )

    def arrive(bar: Bar, count: int) -> None:
        time.sleep(random.random() * 2e-4)
        bar.change(count, 0)

    barrier = SimpleNamespace(
        MBarrierLayout=nothing,
        init=lambda bar, count: bar.begin(count),
        expect=lambda bar, count: bar.change(1, count),
        wait=lambda bar, phase: bar.wait(phase),
        arrive=arrive,
    )
    found: dict[str, Any] = {
        "tl": whole,
        "gl": gluon,
        "mbarrier": barrier,
        "tma": SimpleNamespace(store_wait=nothing),
        "tma_load": lambda tiles, place, bar, to: tiles.load(place, bar, to),
        "tma_store": lambda tiles, place, of: tiles.store(place, of),
        "tma_add": lambda tiles, place, of: tiles.store(place, of, add=True),
        "warpgroup_mma": _product,
        "warpgroup_mma_wait": lambda _, deps: deps[0] if len(deps) == 1 else tuple(deps),
        "fence_async_shared": nothing,
        "reach_of_tile": _reach,
        "floor_div": lambda a, b: a // b,
        "safe_div": lambda a, b: torch.where(b == 0, 0.0, a / b),
    }
    text = source[source.index("# --- kernels for Hopper") : source.index("# --- tile sizes")]
    text = re.sub(r"@gluon\.jit(\((?:.|\n)*?\n\))?\n", "", text)
    text = text.replace("@triton.constexpr_function\n", "")
    text = re.sub(r"@gl\._core(?:.|\n)*?\n\n\n", "", text)
    text = re.sub(r"^(?:tma_\w+|meet) = .*\n", "", text, flags=re.M)
    # A sum in place would change what another name holds too.
    exec(re.sub(r"(\w+) \+= ", r"\1 = \1 + ", text), found)
    # What asks for the layout of registers, or is in the machine's own words.
    found |= {
        "own_parts": lambda x: x.reshape(x.shape[0], -1, 4, 2).sum((1, 3)),
        "for_parts": lambda a, _: a[:, None],
        "whole_rows": lambda parts, _: parts.sum(1),
        "meet": nothing,
        "greatest": lambda x, *_: x.amax(1),
        "corrected": lambda x, factor, _: x if bool((factor == 1).all()) else x * factor[:, None],
    }
    return found, which
