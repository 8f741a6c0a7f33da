"""What a reference case is, and the few pieces that the references share.

A case names an example, draws inputs for it, and computes its outputs with plain PyTorch, from the
paper's formulas: nothing here knows the compiler, so that agreement means something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
Params = dict[str, int | float]
Outputs = dict[str, Tensor]

INF = float("inf")


@dataclass(frozen=True)
class Sizes:
    """Extents to draw for: odd by default, so that no tile divides them; `g` key-value heads."""

    b: int = 2
    h: int = 4
    g: int = 2
    i: int = 37
    j: int = 37
    e: int = 24
    f: int = 40
    r: int = 5


@dataclass(frozen=True)
class Draw:
    """Random inputs: drawn in float64 on the CPU, so that each dtype gets the same numbers."""

    generator: torch.Generator
    dtype: torch.dtype
    device: torch.device

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Standard normal numbers times `scale`."""
        x = torch.randn(shape, generator=self.generator, dtype=torch.float64) * scale
        return x.to(self.device, self.dtype)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers between `low` and `high`."""
        x = torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        return x.to(self.device, self.dtype)

    def ints(self, values: Tensor | list[int] | list[list[int]]) -> Tensor:
        """Given integers, as an int32 tensor."""
        return torch.as_tensor(values, dtype=torch.int32).to(self.device)


Build = Callable[[Draw, Sizes], tuple[Inputs, Params]]
Reference = Callable[[Inputs, Params], Outputs]


@dataclass(frozen=True)
class Case:
    """One example (`name`, or what stands before a `:` in it) with its inputs and its reference.

    `on_axis` says that queries and keys share an axis, so that a call with `|i| < |j|` must pass
    `start="end"`; the references always take the queries for the last positions.
    """

    name: str
    build: Build
    reference: Reference
    sizes: Sizes = Sizes()
    on_axis: bool = True

    @property
    def example(self) -> str:
        """The stem of the `.attn` file."""
        return self.name.partition(":")[0]

    def make(
        self,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        **sizes: int,
    ) -> tuple[Inputs, Params]:
        """Inputs by name, in declared order, and parameters by name."""
        draw = Draw(torch.Generator().manual_seed(seed), dtype, torch.device(device))
        fields = {**vars(self.sizes), **sizes}
        return self.build(draw, Sizes(**fields))

    @property
    def gradients(self) -> tuple[str, ...]:
        """The inputs to differentiate: all that hold floats."""
        inputs, _ = self.make()
        return tuple(n for n, x in inputs.items() if x.is_floating_point())


class Registry(dict[str, Case]):
    """Cases by name; used as a decorator of references."""

    def case(
        self, name: str, build: Build, on_axis: bool = True, **sizes: int
    ) -> Callable[[Reference], Reference]:
        """Register the decorated reference under `name`."""

        def register(reference: Reference) -> Reference:
            assert name not in self, name
            self[name] = Case(name, build, reference, Sizes(**sizes), on_axis)
            return reference

        return register


def qkv(d: Draw, s: Sizes, kv_heads: int | None = None) -> Inputs:
    """Queries, keys and values."""
    heads = s.h if kv_heads is None else kv_heads
    return {
        "Q": d.normal(s.b, s.h, s.i, s.e),
        "K": d.normal(s.b, heads, s.j, s.e),
        "V": d.normal(s.b, heads, s.j, s.f),
    }


def only_qkv(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    """Inputs of a program that has no others and no parameters."""
    return qkv(d, s), {}


def also(draw: Callable[[Draw, Sizes], Inputs], **params: int | float) -> Build:
    """Queries, keys and values, the inputs that `draw` adds, and parameters."""
    return lambda d, s: ({**qkv(d, s), **draw(d, s)}, dict(params))


def grid(x: Inputs) -> tuple[Tensor, Tensor]:
    """Positions of the queries `[i,1]`, the last of the keys' axis, and of the keys `[1,j]`."""
    n, m = x["Q"].shape[-2], x["K"].shape[-2]
    positions = torch.arange(m, device=x["Q"].device)
    return positions[m - n :, None] if n <= m else positions[:, None], positions[None, :]


def dots(x: Inputs) -> Tensor:
    """`Q Kᵀ / sqrt(E)`."""
    return x["Q"] @ x["K"].transpose(-1, -2) / x["Q"].shape[-1] ** 0.5


def softmax(scores: Tensor, visible: Tensor | None = None) -> Tensor:
    """Softmax over the visible keys; a row that sees none has weights 0."""
    if visible is not None:
        scores = scores.masked_fill(~visible, -INF)
    peak = scores.detach().amax(-1, keepdim=True)
    weights = torch.exp(scores - torch.where(peak == -INF, 0.0, peak))
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total == 0, 1.0, total)


def attend(scores: Tensor, visible: Tensor | None, v: Tensor) -> Outputs:
    """Softmax attention over the visible keys."""
    return {"O": softmax(scores, visible) @ v}
