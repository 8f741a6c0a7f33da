"""A program, sizes to try it at, and what it means in plain PyTorch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import Tensor

Reference: TypeAlias = Callable[[SimpleNamespace], Any]
Make: TypeAlias = Callable[[SimpleNamespace, torch.Generator], Tensor]

SIZES: Mapping[str, int] = {"b": 2, "h": 2, "i": 19, "j": 19, "n": 19, "e": 8, "f": 6}
CASES: dict[str, Case] = {}


@dataclass(frozen=True, slots=True)
class Case:
    """`reference` gets inputs, parameters and sizes as attributes, and returns the outputs."""

    name: str
    text: str
    reference: Reference
    sizes: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    make: Mapping[str, Make] = field(default_factory=dict)
    start: Any = None
    still: frozenset[str] = frozenset()
    """Inputs that get no gradient (values of minus infinity among them have none)."""

    def all_sizes(self, **others: int) -> dict[str, int]:
        return {**SIZES, **self.sizes, **others}

    def inputs(
        self, seed: int = 0, dtype: torch.dtype = torch.float64, **others: int
    ) -> dict[str, Tensor]:
        """Random inputs by name: normal floats, ids from 0 to 3, bools mostly true."""
        generator = torch.Generator().manual_seed(seed)
        sizes = self.all_sizes(**others)
        known = SimpleNamespace(**sizes, **self.params)
        made = {}
        for name, dims, kind in declared(self.text):
            shape = [int(eval(d, {}, vars(known))) for d in dims]
            if name in self.make:
                x = self.make[name](known, generator)
                assert list(x.shape) == shape, (name, x.shape, shape)
            elif kind == "int":
                x = torch.randint(0, 4, shape, generator=generator)
            elif kind == "bool":
                x = torch.rand(shape, generator=generator) < 0.7
            else:
                x = torch.randn(shape, generator=generator, dtype=torch.float64)
            if x.is_floating_point():
                x = x.to(dtype)
            made[name] = x
        return made

    def expected(self, inputs: Mapping[str, Tensor], **others: int) -> tuple[Tensor, ...]:
        """The outputs by the reference, in float64."""
        sizes = self.all_sizes(**others)
        wide = {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}
        start = 0
        if self.start is not None:
            start = sizes["j"] - sizes["i"] if self.start == "end" else self.start
        first = start[:, None, None, None] if isinstance(start, Tensor) else start
        rows = torch.arange(sizes["i"])[:, None] + first
        columns = torch.arange(sizes["j"])[None, :]
        x = SimpleNamespace(**{f"n_{k}": v for k, v in sizes.items()}, **self.params, **wide)
        x.i, x.j = rows, columns
        out = self.reference(x)
        return out if isinstance(out, tuple) else (out,)


def declared(text: str) -> list[tuple[str, list[str], str]]:
    """Names, axes and types of the inputs of a program."""
    header = text[text.index("(") + 1 : text.index("->")].rsplit(")", 1)[0]
    found = re.findall(r"(\w+)\[([^\]]*)\]\s*(?::\s*(\w+))?", header)
    return [
        (n, [d for d in dims.split(",") if d.strip()], kind or "float") for n, dims, kind in found
    ]


def add(
    name: str,
    inputs: str,
    outputs: str,
    body: str,
    reference: Reference,
    *,
    batch: str = "b, h",
    **more: Any,
) -> None:
    """A case; its name is the program's."""
    assert name not in CASES, name
    head = f"  batch {batch}\n" if batch else ""
    lines = "\n".join(f"  {line.strip()}" for line in body.strip().splitlines())
    text = f"attention {name}({inputs}) -> {outputs} {{\n{head}{lines}\n}}\n"
    CASES[name] = Case(name, text, reference, **more)


# --- words of the references -------------------------------------------------------------------

QKV = "Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]"
O = "O[b,h,i,f]"  # noqa: E741
DOT = "Q[i,e] * K[j,e] / sqrt(|e|)"
SOFTMAX = "O[i,f] = softmax[j](S[i,j]) * V[j,f]"


def scaled(x: SimpleNamespace) -> Tensor:
    return torch.einsum("bhie,bhje->bhij", x.Q, x.K) / math.sqrt(x.n_e)


def softmax(s: Tensor, keep: Tensor | None = None) -> Tensor:
    """Softmax over the last axis; rows without a finite score are 0."""
    if keep is not None:
        s = s.masked_fill(~keep.expand_as(s), -torch.inf)
    top = s.detach().amax(-1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, 0.0)
    p = torch.exp(s - top)
    z = p.sum(-1, keepdim=True)
    return p / torch.where(z == 0, 1.0, z)


def masked(x: Tensor, keep: Tensor, other: float = 0.0) -> Tensor:
    return x.masked_fill(~keep.expand_as(x), other)


def lse(s: Tensor, keep: Tensor | None = None) -> Tensor:
    if keep is not None:
        s = s.masked_fill(~keep.expand_as(s), -torch.inf)
    empty = (s == -torch.inf).all(-1)
    safe = torch.where(empty[..., None], torch.zeros_like(s), s)
    return torch.where(empty, -torch.inf, torch.logsumexp(safe, -1))


def weigh(p: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhij,bhjf->bhif", p, v)


def ratio(p: Tensor) -> Tensor:
    """Rows over their sums, 0 where that is the sum of nothing."""
    z = p.sum(-1, keepdim=True)
    return p / torch.where(z == 0, 1.0, z)
