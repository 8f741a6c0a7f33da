"""Words of the references of `recent`: inputs of special kinds, gates, states stepped one position at a time."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as fn
from torch import Tensor, einsum

from tests.road.case import Make

sig = torch.sigmoid


def causal(x: SimpleNamespace) -> Tensor:
    keep: Tensor = x.j <= x.i
    return keep


def unit_rows(t: Tensor) -> Tensor:
    return t / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def mk(dims: str, f: Callable[[Tensor], Tensor] = lambda t: t) -> Make:
    """Normal numbers of these axes, mapped."""

    def made(known: SimpleNamespace, g: torch.Generator) -> Tensor:
        shape = [int(eval(d, {}, vars(known))) for d in dims.split(",")]
        return f(torch.randn(shape, generator=g, dtype=torch.float64))

    return made


unit = mk("b,h,t,e", lambda t: t / t.norm(dim=-1, keepdim=True))
gate = mk("b,h,t", sig)
log_gate = mk("b,h,t", fn.logsigmoid)
log_gate_e = mk("b,h,t,e", lambda t: fn.logsigmoid(t + 2))
log_gate_j = mk("b,h,j", fn.logsigmoid)


def outer(k: Tensor, v: Tensor) -> Tensor:
    return k[..., :, None] * v[..., None, :]


def states(n: int, step: Callable[[Tensor, int], Tensor], *shape: int) -> Tensor:
    """A state after each position, from zero."""
    state, out = torch.zeros(shape, dtype=torch.float64), []
    for t in range(n):
        state = step(state, t)
        out.append(state)
    return torch.stack(out, 2)


def read_out(x: SimpleNamespace, states: Tensor) -> Tensor:
    return einsum("bhte,bhtef->bhtf", x.Q, states)


def of_state(x: SimpleNamespace) -> tuple[int, int, int, int]:
    """The shape of a state of two features."""
    return x.n_b, x.n_h, x.n_e, x.n_f


QKV_T = "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]"
O_T = "O[b,h,t,f]"
T = {"t": 13}
