"""Recurrences that no example has: by chunks, in pieces with a state between them, and as their dense form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.cascade.bind import bind
from attndsl.diagnostics import DiagnosticError
from attndsl.runtime.stages import Stage, plan_passes
from attndsl.schedule.tile import Role, TileProgram
from tests.property.test_chunks import error

SIZES = {"b": 2, "h": 2, "e": 8, "f": 12, "r": 3}
N = 40
READ = "O[t,f] = Q[t,e] * H[t,e,f]"

# More inputs than Q, K and V; what the state is; what is read from it, where it is not `READ`.
PROGRAMS: dict[str, tuple[str, str, str]] = {
    "two gates": (
        ", g[b,h,t,e], l[b,h,t]",
        "assume g <= 0, l <= 0; H[t,e,f] = exp(g[t,e] + l[t]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0",
        READ,
    ),
    "gates of both features": (
        ", g[b,h,t,e], m[b,h,t,f]",
        "H[t,e,f] = sigmoid(g[t,e]) * sigmoid(m[t,f]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0",
        READ,
    ),
    "gates of low rank": (
        ", U[b,h,t,r], W[h,r,e]",
        "x[t,e] = -softplus(U[t,r] * W[r,e])\n"
        "H[t,e,f] = exp(x[t,e]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0",
        READ,
    ),
    "decays from a tensor": (
        ", gamma[h,e]",
        "assume 0 < gamma < 1; H[t,e,f] = gamma[e] * H[t-1,e,f] + K[t,e] * V[t,f] init 0",
        READ,
    ),
    "a carried normaliser": (
        ", g[b,h,t]",
        "assume g <= 0; H[t,e,f] = exp(g[t]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0\n"
        "M[t,e] = exp(g[t]) * M[t-1,e] + K[t,e] init 0",
        "O[t,f] = sum[e](Q[t,e] * H[t,e,f]) / max(abs(sum[e](Q[t,e] * M[t,e])), 1)",
    ),
    "two readers": (
        ", g[b,h,t]",
        "assume g <= 0; H[t,e,f] = exp(g[t]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0",
        "O[t,f] = Q[t,e] * H[t,e,f] - tanh(sum[e](K[t,e] * H[t-1,e,f]))",
    ),
    "rotations": (
        ", w[b,h,t,e]",
        "C[t,e] = sum[s : s <= t](w[s,e])\n"
        "A[t,s] = (Q[t,e] * cos(C[t,e])) * (K[s,e] * cos(C[s,e]))"
        " + (Q[t,e] * sin(C[t,e])) * (K[s,e] * sin(C[s,e])) where s <= t",
        "O[t,f] = A[t,s] * V[s,f]",
    ),
    "a delta rule with a normalised key": (
        ", beta[b,h,t]",
        "n[t] = rsqrt(sum[e](K[t,e]**2) + 1e-6); X[t,e] = K[t,e] * n[t]\n"
        "H[t,e,f] = H[t-1,e,f] - beta[t] * X[t,e] * (X[t,c] * H[t-1,c,f]) + X[t,e] * V[t,f] init 0",
        READ,
    ),
    "a transition of rank one": (
        ", a[b,h,t,e]",
        "H[t,e,f] = H[t-1,e,f] + 0.1 * K[t,e] * (a[t,c] * H[t-1,c,f]) + K[t,e] * V[t,f] init 0",
        READ,
    ),
    "one state after another": (
        ", g[b,h,t]",
        "assume g <= 0; H[t,e,f] = exp(g[t]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0\n"
        "Y[t,f] = Q[t,e] * H[t,e,f]\n"
        "G[t,e,f] = exp(g[t]) * G[t-1,e,f] + K[t,e] * Y[t,f] init 0",
        "O[t,f] = Q[t,e] * G[t,e,f]",
    ),
    "a channel at a time": (
        ", m[b,h,t,f]",
        "H[t,f] = sigmoid(m[t,f]) * H[t-1,f] + (1 - sigmoid(m[t,f])) * V[t,f] init 0",
        "O[t,f] = H[t,f] * sum[e](Q[t,e] * K[t,e])",
    ),
}


def program(name: str) -> attndsl.CompiledAttention:
    more, state, read = PROGRAMS[name]
    head = f"attention other(Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]{more}) -> O[b,h,t,f]"
    return attndsl.compile(f"{head} {{ batch b, h\n{state}\n{read} }}")


def inputs(op: attndsl.CompiledAttention) -> dict[str, Tensor]:
    torch.manual_seed(2)
    out: dict[str, Tensor] = {}
    for t in op.cascade.inputs:
        x = torch.randn([SIZES.get(r, N) for r in t.ranks], dtype=torch.float64)
        x = -x.abs() if t.name in ("g", "l") else x
        x = torch.sigmoid(x) if t.name in ("beta", "gamma") else x
        out[t.name] = torch.nn.functional.normalize(x, dim=-1) if t.name == "K" else x
    return out


@pytest.mark.parametrize("name", PROGRAMS)
def test_chunks_agree_with_the_dense_form(name: str) -> None:
    op = program(name)
    given = inputs(op)
    leaves = {n: x.clone().requires_grad_() for n, x in given.items()}
    want = op.reference(**leaves)
    up = torch.randn_like(want)
    grads = torch.autograd.grad(want, list(leaves.values()), up)
    passes = plan_passes(op.cascade, tuple(given))
    assert passes.backward is not None
    for s in (*passes.forward.steps, *passes.backward.steps):
        if isinstance(s, TileProgram):  # no kernel visits pairs of positions
            assert not (s.of(Role.TILE) and s.of(Role.STREAM)) or s.of(Role.PAIR), s.name
    stage = Stage(op.cascade, passes, "eager", "")
    shapes = {n: tuple(x.shape) for n, x in given.items()}
    extents = stage.extents(bind(op.cascade, shapes, {}).extents, {})
    for chunk in (4, 16, 64):
        config = dict.fromkeys("ts", chunk) | dict.fromkeys("ef", 8)
        out = stage.module.forward(given, extents, {}, config)
        kept = {n: out[n] for n in passes.residuals}
        made = stage.module.backward(
            {**given, **kept, passes.cotangents["O"]: up}, extents, {}, config
        )
        assert error([out["O"]], [want.detach()]) < 1e-12
        assert error([made[passes.gradients[n]] for n in given], list(grads)) < 1e-10


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n != "rotations"])
def test_pieces_with_a_state_agree_with_the_whole(name: str) -> None:
    op = program(name)
    given = inputs(op)
    state, pieces = None, []
    for part in (slice(0, 13), slice(13, 14), slice(14, N)):
        own = {n: x[:, :, part] if x.shape[2:3] == (N,) else x for n, x in given.items()}
        out, state = op(**own, state=state, return_state=True)
        pieces.append(out)
    assert error([torch.cat(pieces, 2)], [op.reference(**given)]) < 1e-12


@pytest.mark.parametrize(
    ("past", "why"),
    [
        ("tanh(g[t]) * H[t-1,e,f]", "scaled by what may be negative"),
        ("tanh(H[t-1,e,f])", "not linear in its past"),
        (
            "H[t-1,e,f] - K[t,e] * (K[t,c] * H[t-1,c,f]) - Q[t,e] * (Q[t,c] * H[t-1,c,f])",
            "asked for several sums of its past in one step",
        ),
    ],
)
def test_other_recurrences_are_walked_and_it_is_said_why(past: str, why: str) -> None:
    op = attndsl.compile(
        "attention other(Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], g[b,h,t]) -> O[b,h,t,f] { batch b, h\n"
        f"H[t,e,f] = {past} + g[t] * K[t,e] * V[t,f]   init 0\n{READ} }}"
    )
    passes = plan_passes(op.cascade, ("Q", "K", "V"))
    for plan in (passes.forward, passes.backward):
        assert plan is not None
        assert any("one position after the other" in note for note in plan.notes)
        assert any(why in note for note in plan.notes)


def test_a_state_that_is_turned_over_is_refused() -> None:
    op = attndsl.compile(
        "attention other(Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]) -> O[b,h,t,f] { batch b, h\n"
        f"H[t,e,f] = 0.9 * H[t-1,f,e] + K[t,e] * V[t,f]   init 0\n{READ} }}"
    )
    for wrt in ((), ("Q", "K", "V")):
        with pytest.raises(DiagnosticError, match="mixes the entries of its past") as refused:
            plan_passes(op.cascade, wrt)
        assert refused.value.codes == ["A0401"]
