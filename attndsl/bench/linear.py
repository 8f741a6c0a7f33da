"""flash-linear-attention: what its operators compute, and a call of the one that a program is.

The library takes `[B,T,H,D]`. It is given tensors that are laid out so, with gates as it wants them, before the clock
starts, and the gradients that are timed are those of these tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from attndsl.bench.meanings import Match, Operator, axes_of

# Arguments in the order of the inputs; `lg` are logarithms of decays.
OPERATORS = (
    Operator(
        "chunk_linear_attn",
        ("q", "k", "v"),
        """attention plain(q[b,h,t,e], k[b,h,t,e], v[b,h,t,f], scale: float) -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = H[t-1,e,f] + k[t,e] * v[t,f]   init 0
          o[t,f]   = scale * q[t,e] * H[t,e,f]
        }""",
        options={"normalize": False},
    ),
    Operator(
        "chunk_simple_gla",
        ("q", "k", "v", "g_gamma"),
        """attention constant(q[b,h,t,e], k[b,h,t,e], v[b,h,t,f], lg[h], scale: float) -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = exp(lg) * H[t-1,e,f] + k[t,e] * v[t,f]   init 0
          o[t,f]   = scale * q[t,e] * H[t,e,f]
        }""",
    ),
    Operator(
        "chunk_simple_gla",
        ("q", "k", "v", "g"),
        """attention scalar(q[b,h,t,e], k[b,h,t,e], v[b,h,t,f], lg[b,h,t], scale: float) -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = exp(lg[t]) * H[t-1,e,f] + k[t,e] * v[t,f]   init 0
          o[t,f]   = scale * q[t,e] * H[t,e,f]
        }""",
    ),
    Operator(
        "chunk_gla",
        ("q", "k", "v", "g"),
        """attention vector(q[b,h,t,e], k[b,h,t,e], v[b,h,t,f], lg[b,h,t,e], scale: float) -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = exp(lg[t,e]) * H[t-1,e,f] + k[t,e] * v[t,f]   init 0
          o[t,f]   = scale * q[t,e] * H[t,e,f]
        }""",
    ),
    Operator(
        "chunk_delta_rule",
        ("q", "k", "v", "beta"),
        """attention delta(q[b,h,t,e], k[b,h,t,e], v[b,h,t,f], beta[b,h,t], scale: float) -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = H[t-1,e,f] + beta[t] * k[t,e] * (v[t,f] - k[t,c] * H[t-1,c,f])   init 0
          o[t,f]   = scale * q[t,e] * H[t,e,f]
        }""",
    ),
    Operator(
        "chunk_gated_delta_rule",
        ("q", "k", "v", "g", "beta"),
        """attention gated(q[b,h,t,e], k[b,h,t,e], v[b,h,t,f], lg[b,h,t], beta[b,h,t], scale: float) -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = exp(lg[t]) * (H[t-1,e,f] - beta[t] * k[t,e] * (k[t,c] * H[t-1,c,f]))
                     + beta[t] * k[t,e] * v[t,f]   init 0
          o[t,f]   = scale * q[t,e] * H[t,e,f]
        }""",
    ),
    Operator(
        "chunk_kda",
        ("q", "k", "v", "g", "beta"),
        """attention channels(q[b,h,t,e], k[b,h,t,e], v[b,h,t,f], lg[b,h,t,e], beta[b,h,t], scale: float)
            -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = exp(lg[t,e]) * H[t-1,e,f] - beta[t] * k[t,e] * (k[t,c] * exp(lg[t,c]) * H[t-1,c,f])
                     + beta[t] * k[t,e] * v[t,f]   init 0
          o[t,f]   = scale * q[t,e] * H[t,e,f]
        }""",
    ),
    Operator(
        "chunk_rwkv6",
        ("r", "k", "v", "w", "u"),
        """attention bonus(r[b,h,t,e], k[b,h,t,e], v[b,h,t,f], lg[b,h,t,e], u[h,e], scale: float) -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = exp(lg[t,e]) * H[t-1,e,f] + k[t,e] * v[t,f]   init 0
          o[t,f]   = scale * r[t,e] * (H[t-1,e,f] + u[e] * k[t,e] * v[t,f])
        }""",
    ),
    Operator(
        "chunk_rwkv7",
        ("r", "w", "k", "v", "a", "b"),
        """attention rank_one(r[b,h,t,e], lg[b,h,t,e], k[b,h,t,e], v[b,h,t,f], x[b,h,t,e], y[b,h,t,e], scale: float)
            -> o[b,h,t,f] {
          batch b, h
          H[t,e,f] = exp(lg[t,e]) * H[t-1,e,f] + y[t,e] * (x[t,c] * H[t-1,c,f]) + k[t,e] * v[t,f]   init 0
          o[t,f]   = scale * r[t,e] * H[t,e,f]
        }""",
    ),
    Operator(
        "parallel_forgetting_attn",
        ("q", "k", "v", "g"),
        """attention forgetting(q[b,h,t,e], k[b,h,s,e], v[b,h,s,f], lg[b,h,s], scale: float) -> o[b,h,t,f] {
          batch b, h
          C[s]   = sum[l : l <= s](lg[l])
          S[t,s] = scale * q[t,e] * k[s,e] + C[t] - C[s]   where s <= t
          o[t,f] = softmax[s](S[t,s]) * v[s,f]
        }""",
    ),
    Operator(
        "parallel_stickbreaking_attn",
        ("q", "k", "v"),
        """attention breaking(q[b,h,t,e], k[b,h,s,e], v[b,h,s,f], scale: float) -> o[b,h,t,f] {
          batch b, h
          S[t,s] = scale * q[t,e] * k[s,e]   where s < t
          L[t,s] = sum[l : s < l < t](logsigmoid(-S[t,l]))
          o[t,f] = exp(logsigmoid(S[t,s]) + L[t,s]) * v[s,f]
        }""",
    ),
)


def laid_out(
    found: Match, inputs: Mapping[str, Tensor], sizes: Mapping[str, int]
) -> dict[str, Tensor]:
    """The arguments, as leaves of a graph of their own."""
    axes = axes_of(found.operator)
    out = {}
    for argument, given in zip(found.operator.arguments, found.given.values(), strict=True):
        x = given.laid(inputs[given.input].detach(), axes[given.argument], sizes)
        out[argument] = turned(x, axes[given.argument]).contiguous().requires_grad_()
    return out


def turned(x: Tensor, axes: tuple[str, ...]) -> Tensor:
    """From heads before time to time before heads, or back: it is the same turn."""
    return x.transpose(1, 2) if axes[:3] == ("b", "h", "t") else x


def caller(
    found: Match, function: Callable[..., Any], arguments: Mapping[str, Tensor]
) -> Callable[[], Tensor]:
    """A call, whose output has the axes of the program's."""
    order = ("b", "h", "t", "f")
    lacking = [k for k, a in enumerate(order) if a not in found.output]
    places = [found.output.index(a) for a in order if a in found.output]
    back = [places.index(k) for k in range(len(places))]

    def call() -> Tensor:
        made = function(**arguments, scale=found.scale, **found.operator.options)
        out: Tensor = turned(made[0] if isinstance(made, tuple) else made, order[:3])
        for k in reversed(lacking):
            out = out.squeeze(k)
        return out.permute(back)

    return call
