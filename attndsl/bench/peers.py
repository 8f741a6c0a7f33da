"""Who a program is compared with. Who is not installed, or cannot express the program, says so, and is not guessed.

peer("flex", setup)()      # runs FlexAttention on the setup's inputs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from attndsl.analysis.score_mask import Inexpressible, ScoreMask, score_mask
from attndsl.bench.flex import Mods, depends
from attndsl.bench.linear import OPERATORS, caller, laid_out
from attndsl.bench.meanings import match
from attndsl.cascade.bind import Number
from attndsl.cascade.nodes import Cascade, Index
from attndsl.runtime.operator import CompiledAttention


class Absent(Exception):
    """A peer is not installed here."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A program with the inputs of one comparison; `start` is the first query's position."""

    op: CompiledAttention
    inputs: Mapping[str, Tensor]
    extents: Mapping[str, int]
    params: Mapping[str, Number]
    start: int = 0

    @property
    def cascade(self) -> Cascade:
        return self.op.cascade

    def ours(self) -> Tensor:
        """The program's own data output."""
        made = self.op(**self.arguments())
        return self.picked(made)

    def reference(self) -> Tensor:
        """The same, evaluated densely by PyTorch."""
        made = self.op.reference(**self.arguments())
        return self.picked(made)

    def arguments(self) -> dict[str, Any]:
        """Everything that a call takes, by name."""
        return {**self.inputs, **self.params, **({"start": self.start} if self.start else {})}

    def picked(self, made: Any) -> Tensor:
        """The output with the most axes: statistics have fewer."""
        several: tuple[Tensor, ...] = made if isinstance(made, tuple) else (made,)
        return max(several, key=lambda x: x.ndim)


Call = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Ready:
    """A peer, ready to run, and the tensors that gradients are taken of.

    These are the setup's own, or others for a peer that wants them laid out otherwise: what another layout costs is
    neither the peer's time nor ours.
    """

    call: Call
    leaves: tuple[Tensor, ...]
    names: tuple[str, ...] = ()
    """What the peer calls the leaves, where they are its own."""

    def __call__(self) -> Tensor:
        return self.call()


def floats(setup: Setup) -> tuple[Tensor, ...]:
    """The inputs that can have a gradient."""
    return tuple(x for x in setup.inputs.values() if x.is_floating_point())


def peer(name: str, setup: Setup) -> Ready:
    """A peer, ready to run.

    Raises: Absent, Inexpressible.
    """
    return PEERS[name](setup)


def flex(setup: Setup) -> Ready:
    """FlexAttention, compiled; its score and mask derived from the program."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    found = score_mask(setup.cascade)
    q, k, v = data(setup, found)
    mods = Mods(found, setup.extents, setup.params, setup.inputs, setup.start)
    blocks = None
    if mods.mask is not None:
        over_b, over_h = depends(found)
        blocks = create_block_mask(
            mods.mask,
            q.shape[0] if over_b else None,
            q.shape[1] if over_h else None,
            q.shape[2],
            k.shape[2],
            device=q.device.type,
        )
    run: Any = flex_attention
    if q.is_cuda:
        torch._dynamo.reset()  # or the limit on recompilations sends later programs to eager code
        run = torch.compile(flex_attention)

    def call() -> Tensor:
        out: Tensor = run(
            q, k, v,
            score_mod=mods.score, block_mask=blocks, scale=mods.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        return out

    return Ready(call, floats(setup))


def sdpa(setup: Setup) -> Ready:
    """PyTorch's own attention, by whichever of its kernels it chooses."""
    found = score_mask(setup.cascade)
    q, k, v = data(setup, found)
    mods = Mods(found, setup.extents, setup.params, setup.inputs, setup.start)
    if mods.score is not None:
        raise Inexpressible("a score that is more than a scaled product")
    causal, mask = False, None
    if mods.mask is not None:
        mask = dense(mods, found, q, k)
        if mask.shape[-1] == mask.shape[-2] and band(mask) == (None, 0):
            causal, mask = True, None

    def call() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v,
            attn_mask=mask, is_causal=causal, scale=mods.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip

    return Ready(call, floats(setup))


def fa4(setup: Setup) -> Ready:
    """FlashAttention-4, of CuTe DSL."""
    if find_spec("flash_attn") is None or find_spec("flash_attn.cute") is None:
        raise Absent("flash_attn.cute is not installed")
    found = score_mask(setup.cascade)
    q, k, v = data(setup, found)
    mods = Mods(found, setup.extents, setup.params, setup.inputs, setup.start)
    if mods.score is not None:
        raise Inexpressible("a score that is more than a scaled product")
    bounds: tuple[int | None, int | None] = (None, None)
    if mods.mask is not None:
        # It counts from the last query and key, and so does a band here.
        found_band = band(dense(mods, found, q, k))
        if found_band is None:
            raise Inexpressible("a mask that is no band along the diagonal")
        bounds = found_band
    run = import_module("flash_attn.cute").flash_attn_func
    turned = tuple(x.detach().transpose(1, 2).contiguous().requires_grad_() for x in (q, k, v))
    options: dict[str, Any] = {"softmax_scale": mods.scale}
    options |= {"causal": True} if bounds == (None, 0) else {"window_size": bounds}

    def call() -> Tensor:
        made = run(*turned, **options)
        out: Tensor = made[0] if isinstance(made, tuple) else made
        return out.transpose(1, 2)

    return Ready(call, turned)


def fla(setup: Setup) -> Ready:
    """flash-linear-attention, by the operator of it that gives the same numbers."""
    if find_spec("fla") is None:
        raise Absent("fla is not installed")
    if setup.start:
        raise Inexpressible("the first query stands behind the first key")
    output = max(setup.cascade.outputs, key=lambda o: len(o.indices)).name
    found = match(setup.cascade, setup.extents, setup.params, output, OPERATORS)
    sizes = {a: setup.extents[r] for r, a in found.ranks.items()}
    arguments = laid_out(found, setup.inputs, sizes)
    function = getattr(import_module("fla.ops"), found.operator.function, None)
    if function is None:
        raise Absent(f"this fla has no {found.operator.function}")
    return Ready(caller(found, function, arguments), tuple(arguments.values()), tuple(arguments))


def portable(setup: Setup) -> Ready:
    """The program itself without kernels whose warps specialise."""
    if not next(iter(setup.inputs.values())).is_cuda:
        raise Absent("there is no GPU")
    other = replace(setup, op=CompiledAttention(setup.cascade, backend="triton"))
    return Ready(other.ours, floats(setup))


def eager(setup: Setup) -> Ready:
    """The program's dense evaluation by PyTorch operations, in the inputs' type."""
    return Ready(setup.reference, floats(setup))


PEERS: dict[str, Callable[[Setup], Ready]] = {
    "flex": flex,
    "sdpa": sdpa,
    "fa4": fa4,
    "fla": fla,
    "eager": eager,
    "portable": portable,
}


def data(setup: Setup, found: ScoreMask) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as [batch, heads, length, dim]; heads that share keys are the first to do so."""
    decls = {t.name: t for t in setup.cascade.inputs}
    out = []
    for name in (found.q, found.k, found.v):
        x = setup.inputs[name]
        dims = decls[name].dims[:-2]
        if x.ndim == 3 and dims == (Index(found.batch[0]),):
            x = x.unsqueeze(1)
        elif x.ndim != 4 or dims[0] != Index(found.batch[0]):
            raise Inexpressible(f"`{name}` is not laid out by batch and heads")
        out.append(x)
    if out[0].shape[1] % out[1].shape[1]:
        raise Inexpressible("query heads are no multiple of key heads")
    return out[0], out[1], out[2]


def dense(mods: Mods, found: ScoreMask, q: Tensor, k: Tensor) -> Tensor:
    """The mask over all pairs, with batch axes where it has them."""
    assert mods.mask is not None
    sizes = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    own = (*depends(found), True, True)
    places = []
    for axis, (n, has) in enumerate(zip(sizes, own, strict=True)):
        shape = [1, 1, 1, 1]
        shape[axis] = n if has else 1
        places.append(torch.arange(n if has else 1, device=q.device).view(shape))
    full = mods.mask(*places)
    return full.expand(torch.broadcast_shapes(full.shape, (1, 1, *sizes[2:])))


def band(mask: Tensor) -> tuple[int | None, int | None] | None:
    """How far keys may lie before and behind a query, counted from the last of both; None if the mask is no band.

    None on a side is no bound. `(None, 0)` is causal.
    """
    rows, columns = mask.shape[-2:]
    row = torch.arange(rows, device=mask.device)[:, None] + columns - rows
    gap = torch.arange(columns, device=mask.device)[None, :] - row
    seen = gap.expand_as(mask)[mask]
    if not seen.numel():
        return None
    least, most = int(seen.min()), int(seen.max())
    if not torch.equal(mask, ((gap >= least) & (gap <= most)).expand_as(mask)):
        return None
    return (None if least == int(gap.min()) else -least, None if most == int(gap.max()) else most)
