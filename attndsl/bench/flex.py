"""FlexAttention's `score_mod` and `mask_mod` from a program's score and mask.

found = score_mask(cascade)
mods = Mods(found, binding, inputs)
flex_attention(q, k, v, score_mod=mods.score, block_mask=create_block_mask(mods.mask, …), scale=mods.scale)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from attndsl.analysis.score_mask import Inexpressible, Score, ScoreMask
from attndsl.cascade.bind import Number
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Expr,
    Extent,
    Index,
    Logic,
    Param,
    Position,
    Read,
    Select,
    Unary,
)
from attndsl.cascade.walk import rewrite, walk

# What the language calls them, and PyTorch.
_SAME = "abs cos erf exp exp2 floor log log2 relu rsqrt sigmoid sin sqrt tanh"
ONE = {name: f"torch.{name}" for name in _SAME.split()}
TWO = {"max": "torch.maximum", "min": "torch.minimum"}
PLACES = ("b", "h", "q_idx", "kv_idx")


class Mods:
    """The functions of one program at one size, and their text.

    `scale` is what the product is multiplied by where the score is nothing else; `score` is None then.

    Raises: Inexpressible.
    """

    def __init__(
        self,
        found: ScoreMask,
        extents: Mapping[str, int],
        params: Mapping[str, Number],
        inputs: Mapping[str, Tensor],
        start: int = 0,
    ) -> None:
        if len(found.batch) != 2:
            raise Inexpressible(f"{len(found.batch)} batch indices, and FlexAttention has two")
        self.start = start
        self.query = found.query
        self.numbers: dict[Expr, Expr] = {Param(n): Const(v) for n, v in params.items()}
        self.numbers |= {Extent(r): Const(n) for r, n in extents.items()}
        self.names = dict(zip((*found.batch, found.query, found.key), PLACES, strict=True))
        self.space: dict[str, Any] = {f"t_{n}": x for n, x in inputs.items()} | {"torch": torch}
        self.scale = 1.0
        self.texts: list[str] = []
        self.score: Callable[..., Tensor] | None = None
        self.mask: Callable[..., Tensor] | None = None
        if found.constant is not None:
            self.scale = float(eval(self.text(found.constant), self.space))
        else:
            self.score = self.function("score_mod", ("score", *PLACES), found.score)
        if found.mask is not None:
            self.mask = self.function("mask_mod", PLACES, found.mask)

    def function(self, name: str, arguments: tuple[str, ...], e: Expr) -> Callable[..., Tensor]:
        """A plain function, as if somebody had written it: a compiler of functions reads nothing else."""
        text = f"def {name}({', '.join(arguments)}):\n    return {self.text(e)}\n"
        self.texts.append(text)
        exec(text, self.space)
        made: Callable[..., Tensor] = self.space[name]
        return made

    def text(self, e: Expr) -> str:
        """An expression in Python."""
        e = rewrite(e, lambda n: self.numbers.get(n))
        return self._spelt(e)

    def _spelt(self, e: Expr) -> str:
        match e:
            case Score():
                return "score"
            case Const():
                return repr(e.value)
            case Index():
                return self.names[e.name]
            case Position():
                # As a number a query stands where the call says; as a subscript it is local.
                name = self.names[e.name]
                return f"({name} + {self.start})" if self.start and e.name == self.query else name
            case Read():
                return f"t_{e.tensor}[{', '.join(map(self._spelt, e.subs))}]"
            case Unary():
                return f"({'-' if e.op == '-' else '~'}{self._spelt(e.arg)})"
            case Binary() | Compare():
                return f"({self._spelt(e.left)} {e.op} {self._spelt(e.right)})"
            case Logic():
                sign = " & " if e.op == "and" else " | "
                return f"({sign.join(map(self._spelt, e.args))})"
            case Select():
                parts = (self._spelt(x) for x in (e.cond, e.then, e.other))
                return f"torch.where({', '.join(parts)})"
            case Call():
                return self._called(e)
            case _:
                raise Inexpressible(f"the score holds a {type(e).__name__.lower()}")

    def _called(self, e: Call) -> str:
        arguments = ", ".join(map(self._spelt, e.args))
        names = ONE if len(e.args) == 1 else TWO
        if e.fn not in names or len(e.args) > 2:
            raise Inexpressible(f"the function `{e.fn}`")
        if all(not isinstance(n, Score | Index | Position | Read) for a in e.args for n in walk(a)):
            # Of numbers: PyTorch's functions take tensors, and a constant is folded anyway. On some processors
            # its square root misses the last digit.
            if e.fn == "sqrt" and (square := float(eval(arguments, self.space))) >= 0:
                return repr(math.sqrt(square))
            value = eval(f"{names[e.fn]}({_as_tensors(arguments, len(e.args))})", self.space)
            return repr(value.item())
        return f"{names[e.fn]}({arguments})"


def _as_tensors(arguments: str, count: int) -> str:
    wrapped = f"torch.tensor({arguments}, dtype=torch.float64)"
    return wrapped if count == 1 else f"*torch.tensor([{arguments}], dtype=torch.float64)"


def depends(found: ScoreMask) -> tuple[bool, bool]:
    """Whether the mask depends on the two batch indices: block masks are made for each then."""
    assert found.mask is not None
    names = {n.name for n in walk(found.mask) if isinstance(n, Index | Position)}
    return found.batch[0] in names, found.batch[1] in names
