"""References of the linear and recurrent family, token by token: a state, an update, a read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.examples.case import (
    Build,
    Draw,
    Inputs,
    Outputs,
    Params,
    Registry,
    Sizes,
    also,
    only_qkv,
)

RECURRENT = Registry()

Step = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def outer(k: Tensor, v: Tensor) -> Tensor:
    """`k vᵀ`, the state that a key and its value write."""
    return k[..., :, None] * v[..., None, :]


def read(q: Tensor, state: Tensor) -> Tensor:
    """`qᵀ S`."""
    return torch.einsum("...e,...ef->...f", q, state)


def run(state: Tensor, length: int, step: Step) -> tuple[Tensor, Tensor]:
    """Outputs of all steps `[b,h,t,f]`, and the last state."""
    outputs = []
    for t in range(length):
        state, output = step(state, t)
        outputs.append(output)
    return torch.stack(outputs, dim=2), state


def empty(k: Tensor, v: Tensor) -> Tensor:
    """The zero state of keys and values."""
    return k.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])


def plain(q: Tensor, k: Tensor, v: Tensor, keep: Callable[[int], Tensor | float]) -> Tensor:
    """`S ← keep(t) S + k vᵀ`, read by `q` after the write."""

    def step(state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        state = keep(t) * state + outer(k[:, :, t], v[:, :, t])
        return state, read(q[:, :, t], state)

    return run(empty(k, v), k.shape[2], step)[0]


def always(t: int) -> float:
    """No decay."""
    return 1.0


def shares(q: Tensor, k: Tensor, v: Tensor, extra: float = 0.0) -> Outputs:
    """Linear attention over its running sum of weights, kept as one more value channel."""
    both = plain(q, k, torch.cat([v, torch.ones_like(v[..., :1])], dim=-1), always)
    return {"O": both[..., :-1] / (both[..., -1:] + extra)}


def scale(x: Inputs) -> float:
    return float(x["Q"].shape[-1] ** -0.5)


@RECURRENT.case("linear", only_qkv)
def linear(x: Inputs, p: Params) -> Outputs:
    return shares(F.elu(x["Q"]) + 1, F.elu(x["K"]) + 1, x["V"])


@RECURRENT.case("linear_relu", only_qkv)
def linear_relu(x: Inputs, p: Params) -> Outputs:
    return shares(F.relu(x["Q"]), F.relu(x["K"]), x["V"], extra=1e-6)


@RECURRENT.case("linear_exp", only_qkv)
def linear_exp(x: Inputs, p: Params) -> Outputs:
    return shares(x["Q"].exp(), x["K"].exp(), x["V"])


@RECURRENT.case("linear_identity", only_qkv)
def linear_identity(x: Inputs, p: Params) -> Outputs:
    return {"O": plain(x["Q"] * scale(x), x["K"], x["V"], always)}


def taylor(y: Tensor) -> Tensor:
    """Features whose dot product is `1 + y·z + (y·z)² / 2`."""
    square = outer(y, y).flatten(-2) / 2**0.5
    return torch.cat([torch.ones_like(y[..., :1]), y, square], dim=-1)


@RECURRENT.case("based", only_qkv)
def based(x: Inputs, p: Params) -> Outputs:
    root = scale(x) ** 0.5
    return shares(taylor(x["Q"] * root), taylor(x["K"] * root), x["V"])


def draw_maps(d: Draw, s: Sizes) -> Inputs:
    maps = ("Wq", "Wk")
    return {name: d.normal(s.h, s.r, s.e, scale=s.e**-0.5) for name in maps}


def both_signs(x: Inputs, tensor: str, weight: str) -> Tensor:
    mapped = torch.einsum("bhte,hde->bhtd", x[tensor], x[weight])
    return torch.cat([mapped, -mapped], dim=-1)


@RECURRENT.case("hedgehog", also(draw_maps))
def hedgehog(x: Inputs, p: Params) -> Outputs:
    return shares(both_signs(x, "Q", "Wq").exp(), both_signs(x, "K", "Wk").exp(), x["V"])


@RECURRENT.case("hedgehog_softmax", also(draw_maps))
def hedgehog_softmax(x: Inputs, p: Params) -> Outputs:
    q, k = both_signs(x, "Q", "Wq"), both_signs(x, "K", "Wk")
    return shares(q.softmax(-1), k.softmax(-1), x["V"])


def draw_gamma(d: Draw, s: Sizes) -> Inputs:
    return {"gamma": d.uniform(0.8, 0.99, s.h)}


@RECURRENT.case("retnet", also(draw_gamma))
def retnet(x: Inputs, p: Params) -> Outputs:
    return {"O": plain(x["Q"] * scale(x), x["K"], x["V"], lambda t: x["gamma"][:, None, None])}


@RECURRENT.case("lightning", also(lambda d, s: {"s": d.uniform(0.01, 0.5, s.h)}))
def lightning(x: Inputs, p: Params) -> Outputs:
    return {"O": plain(x["Q"], x["K"], x["V"], lambda t: torch.exp(-x["s"])[:, None, None])}


@RECURRENT.case("simple_gla", also(lambda d, s: {"g": d.uniform(-0.5, 0.0, s.b, s.h, s.j)}))
def simple_gla(x: Inputs, p: Params) -> Outputs:
    keep = x["g"].exp()[..., None, None]
    return {"O": plain(x["Q"] * scale(x), x["K"], x["V"], lambda t: keep[:, :, t])}


def draw_mamba(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
    return {
        "X": d.normal(s.b, s.h, s.i, s.f),
        "B": d.normal(s.b, s.i, s.e),
        "C": d.normal(s.b, s.i, s.e),
        "dt": d.uniform(0.01, 0.5, s.b, s.h, s.i),
        "logA": d.normal(s.h),
        "D": d.normal(s.h),
    }, {}


@RECURRENT.case("mamba2", draw_mamba)
def mamba2(x: Inputs, p: Params) -> Outputs:
    keep = torch.exp(-x["logA"].exp()[:, None] * x["dt"])[..., None, None]
    read_by, write_by = (x[n][:, None].expand(-1, x["X"].shape[1], -1, -1) for n in ("C", "B"))
    y = plain(read_by, write_by, x["dt"][..., None] * x["X"], lambda t: keep[:, :, t])
    return {"Y": y + x["D"][:, None, None] * x["X"]}


def draw_gates(d: Draw, s: Sizes) -> Inputs:
    return {"loga": d.uniform(-0.5, 0.0, s.b, s.h, s.i, s.e)}


@RECURRENT.case("gla", also(draw_gates))
def gla(x: Inputs, p: Params) -> Outputs:
    keep = x["loga"].exp()[..., None]
    return {"O": plain(x["Q"], x["K"], x["V"], lambda t: keep[:, :, t])}


def draw_gla_state(d: Draw, s: Sizes) -> Inputs:
    return {**draw_gates(d, s), "H0": d.normal(s.b, s.h, s.e, s.f)}


@RECURRENT.case("gla_recurrent", also(draw_gla_state))
def gla_recurrent(x: Inputs, p: Params) -> Outputs:
    def step(state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        state = x["loga"][:, :, t].exp()[..., None] * state
        state = state + outer(x["K"][:, :, t], x["V"][:, :, t])
        return state, read(x["Q"][:, :, t], state)

    outputs, last = run(x["H0"], x["K"].shape[2], step)
    return {"O": outputs, "HT": last}


def sequences(**channels: str) -> Build:
    """Inputs `[b,h,t,…]` by kind: channels `e` and `f`, unit keys `k`, gates `g`, `1` and `-`."""

    def build(d: Draw, s: Sizes) -> tuple[Inputs, Params]:
        lead = (s.b, s.h, s.i)
        draw: dict[str, Callable[[], Tensor]] = {
            "e": lambda: d.normal(*lead, s.e),
            "f": lambda: d.normal(*lead, s.f),
            "k": lambda: F.normalize(d.normal(*lead, s.e), dim=-1),
            "1": lambda: d.uniform(0.1, 0.9, *lead),
            "g": lambda: d.uniform(0.5, 1.0, *lead, s.e),
            "-": lambda: d.uniform(-0.5, 0.0, *lead),
            "u": lambda: d.normal(s.h, s.e),
        }
        return {name: draw[kind]() for name, kind in channels.items()}, {}

    return build


@RECURRENT.case("hgrn2", sequences(Q="e", g="g", V="f"))
def hgrn2(x: Inputs, p: Params) -> Outputs:
    return {"O": plain(x["Q"], 1 - x["g"], x["V"], lambda t: x["g"][:, :, t, :, None])}


@RECURRENT.case("rwkv6", sequences(R="e", K="e", V="f", w="g", u="u"))
def rwkv6(x: Inputs, p: Params) -> Outputs:
    def step(state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        new = outer(x["K"][:, :, t], x["V"][:, :, t])
        output = read(x["R"][:, :, t], state + x["u"][..., None] * new)
        return x["w"][:, :, t, :, None] * state + new, output

    return {"O": run(empty(x["K"], x["V"]), x["K"].shape[2], step)[0]}


@RECURRENT.case("rwkv7", sequences(R="e", w="g", K="e", V="f", A="k", B="k"))
def rwkv7(x: Inputs, p: Params) -> Outputs:
    def step(state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        w, a, b = (x[n][:, :, t] for n in ("w", "A", "B"))
        state = (torch.diag_embed(w) + outer(b, a)) @ state
        state = state + outer(x["K"][:, :, t], x["V"][:, :, t])
        return state, read(x["R"][:, :, t], state)

    return {"O": run(empty(x["K"], x["V"]), x["K"].shape[2], step)[0]}


def delta(x: Inputs, keep: Callable[[int], Tensor | float]) -> Outputs:
    """`S ← keep (1 - β k kᵀ) S + β k vᵀ`."""

    def step(state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        k, beta = x["K"][:, :, t], x["beta"][:, :, t, None, None]
        erase = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device) - beta * outer(k, k)
        state = keep(t) * (erase @ state) + beta * outer(k, x["V"][:, :, t])
        return state, read(x["Q"][:, :, t], state)

    return {"O": run(empty(x["K"], x["V"]), x["K"].shape[2], step)[0]}


@RECURRENT.case("deltanet", sequences(Q="e", K="k", V="f", beta="1"))
def deltanet(x: Inputs, p: Params) -> Outputs:
    return delta(x, always)


@RECURRENT.case("gated_delta", sequences(Q="e", K="k", V="f", g="-", beta="1"))
def gated_delta(x: Inputs, p: Params) -> Outputs:
    return delta(x, lambda t: x["g"][:, :, t, None, None].exp())


@RECURRENT.case("momentum", sequences(Q="e", K="k", V="f", eta="1", theta="1", alpha="1"))
def momentum(x: Inputs, p: Params) -> Outputs:
    """A velocity `S'`, and the memory that it moves."""
    speed = empty(x["K"], x["V"])

    def step(state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        nonlocal speed
        eta, theta, alpha = (x[n][:, :, t, None, None] for n in ("eta", "theta", "alpha"))
        speed = eta * speed + theta * outer(x["K"][:, :, t], x["V"][:, :, t])
        state = alpha * state + speed
        return state, read(x["Q"][:, :, t], state)

    return {"O": run(empty(x["K"], x["V"]), x["K"].shape[2], step)[0]}


@RECURRENT.case("delta_product", sequences(Q="e", K="k", V="f", beta="1", L="k", W="f", gamma="1"))
def delta_product(x: Inputs, p: Params) -> Outputs:
    """Two steps of the delta rule, one after the other."""

    def step(state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        for k, v, rate in (("K", "V", "beta"), ("L", "W", "gamma")):
            key, value = x[k][:, :, t], x[v][:, :, t]
            error = value - read(key, state)
            state = state + x[rate][:, :, t, None, None] * outer(key, error)
        return state, read(x["Q"][:, :, t], state)

    return {"O": run(empty(x["K"], x["V"]), x["K"].shape[2], step)[0]}


@RECURRENT.case("gated_tanh", sequences(Q="e", K="k", V="f", g="g"))
def gated_tanh(x: Inputs, p: Params) -> Outputs:
    def step(state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        g = x["g"][:, :, t, :, None]
        state = g * state.tanh() + (1 - g) * outer(x["K"][:, :, t], x["V"][:, :, t])
        return state, read(x["Q"][:, :, t], state)

    return {"O": run(empty(x["K"], x["V"]), x["K"].shape[2], step)[0]}


@RECURRENT.case("latte", only_qkv, e=12)
def latte(x: Inputs, p: Params) -> Outputs:
    latents = torch.softmax(x["Q"], dim=-1)
    rows = []
    for i in range(x["K"].shape[2]):
        over_time = torch.softmax(x["K"][:, :, : i + 1], dim=2)  # [b, h, j, l]
        means = torch.einsum("bhjl,bhjf->bhlf", over_time, x["V"][:, :, : i + 1])
        rows.append(read(latents[:, :, i], means))
    return {"O": torch.stack(rows, dim=2)}


def lion_features(x: Inputs) -> tuple[Tensor, Tensor]:
    return F.silu(x["Q"]) + 0.5, F.silu(x["K"]) + 0.5


@RECURRENT.case("lion", only_qkv)
def lion(x: Inputs, p: Params) -> Outputs:
    q, k = lion_features(x)
    total = torch.einsum("bhte,bhse->bht", q, k)[..., None]
    return {"O": read(q, torch.einsum("bhse,bhsf->bhef", k, x["V"])[:, :, None]) / total}


@RECURRENT.case("lion_decay", also(draw_gamma))
def lion_decay(x: Inputs, p: Params) -> Outputs:
    """One pass forward, one backward, the token itself counted once."""
    q, k = lion_features(x)
    values = torch.cat([x["V"], torch.ones_like(x["V"][..., :1])], dim=-1)

    def keep(t: int) -> Tensor:
        return x["gamma"][:, None, None]

    forward = plain(q, k, values, keep)
    backward = plain(q.flip(2), k.flip(2), values.flip(2), keep).flip(2)
    both = forward + backward - (q * k).sum(-1, keepdim=True) * values
    return {"O": both[..., :-1] / both[..., -1:]}
