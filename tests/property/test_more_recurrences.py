"""Linear and recurrent programs that no example has, as a user writes them: whole, in pieces, and token by token."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.callerrors import CallError
from tests.property.test_chunks import error

SIZES = {"b": 2, "h": 2, "e": 4, "f": 4, "c": 4, "n": 3, "m": 5}
N = 19
ABOVE = "Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]"
READ = "O[t,f] = Q[t,e] * H[t,e,f]"

# Inputs, outputs, body.
PROGRAMS: dict[str, tuple[str, str, str]] = {
    "a square of scores beside scores, written at once": (
        ABOVE,
        "O[b,h,t,f]",
        "A[t,s] = 1 + sum[e](Q[t,e] * K[s,e]) + sum[e](Q[t,e] * K[s,e])**2 / 2 where s <= t\n"
        "O[t,f] = A[t,s] * V[s,f]",
    ),
    "a state of keys by keys": (
        f"{ABOVE}, g[b,h,t]",
        "O[b,h,t,f]",
        "assume g <= 0\n"
        "H[t,e,f] = exp(g[t]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0\n"
        "G[t,e,c] = exp(g[t]) * G[t-1,e,c] + K[t,e] * K[t,c] init 0\n"
        "X[t,e] = Q[t,e] - G[t,e,c] * Q[t,c] / 10\n"
        "O[t,f] = X[t,e] * H[t,e,f]",
    ),
    "a gate of channels by a table of states": (
        "V[b,h,t,f], B[b,h,t,n], C[b,h,t,n], d[b,h,t,f], w[h,f,n]",
        "O[b,h,t,f]",
        "H[t,f,n] = exp(-softplus(d[t,f]) * exp(w[f,n])) * H[t-1,f,n] + softplus(d[t,f]) * B[t,n] * V[t,f] init 0\n"
        "O[t,f] = C[t,n] * H[t,f,n]",
    ),
    "a sum of what was read, alike for every feature": (
        "Q[b,h,t,c], K[b,h,t,e], V[b,h,t,f]",
        "O[b,h,t,f]",
        "H[t,e,c] = H[t-1,e,c] + K[t,e] * Q[t,c] init 0\n"
        "X[t,e] = H[t,e,c] * Q[t,c]\n"
        "O[t,f] = sum[e](X[t,e]) * V[t,f]",
    ),
    "a state that is the output": (
        "V[b,h,t,f], z[b,h,t,f]",
        "O[b,h,t,f]",
        "O[t,f] = sigmoid(z[t,f]) * O[t-1,f] + (1 - sigmoid(z[t,f])) * V[t,f] init 0",
    ),
    "a last state, bent": (
        "V[b,h,t,f], z[b,h,t,f], H0[b,h,f]",
        "O[b,h,t,f], L[b,h,f]",
        "H[t,f] = sigmoid(z[t,f]) * H[t-1,f] + V[t,f] init H0[f]\n"
        "O[t,f] = H[t,f] * H[t-1,f]\n"
        "L[f] = tanh(H[|t|-1,f])",
    ),
    "a quotient of two states of channels": (
        "Q[b,h,t,f], K[b,h,t,f], V[b,h,t,f], w[h,f], u[h,f]",
        "O[b,h,t,f]",
        "A[t,f] = exp(-exp(w[f])) * A[t-1,f] + exp(K[t,f]) * V[t,f] init 0\n"
        "B[t,f] = exp(-exp(w[f])) * B[t-1,f] + exp(K[t,f]) init 0\n"
        "x[t,f] = exp(u[f] + K[t,f])\n"
        "O[t,f] = sigmoid(Q[t,f]) * (A[t-1,f] + x[t,f] * V[t,f]) / (B[t-1,f] + x[t,f])",
    ),
    "a chain of states, each from the one before": (
        "V[b,h,t,f], a[b,h,t,f], X0[b,h,f]",
        "O[b,h,t,f]",
        "X[t,f] = sigmoid(a[t,f]) * X[t-1,f] + V[t,f] init X0[f]\n"
        "Y[t,f] = sigmoid(a[t,f]) * Y[t-1,f] + X[t-1,f] * X[t,f] init 0\n"
        "W[t,f] = sigmoid(X[t,f]) * W[t-1,f] + Y[t,f] init 0\n"
        "O[t,f] = W[t,f]",
    ),
    "a matrix whose gate is a state": (
        f"{ABOVE}, a[b,h,t]",
        "O[b,h,t,f]",
        "X[t] = sigmoid(a[t]) * X[t-1] + a[t] init 0\n"
        f"H[t,e,f] = sigmoid(X[t-1]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0\n{READ}",
    ),
    "a state forward, then one backward": (
        "V[b,h,t,f], a[b,h,t,f]",
        "O[b,h,t,f]",
        "X[t,f] = sigmoid(a[t,f]) * X[t-1,f] + V[t,f] init 0\n"
        "Y[t,f] = sigmoid(a[t,f]) * Y[t+1,f] + X[t,f] init 0\n"
        "O[t,f] = Y[t,f]",
    ),
    "a gate with a floor from a tensor": (
        "Q[b,h,t,e], V[b,h,t,f], x[b,h,t,e], low[h,e]",
        "O[b,h,t,f]",
        "G[t,e] = sigmoid(low[e]) + (1 - sigmoid(low[e])) * sigmoid(x[t,e])\n"
        f"H[t,e,f] = G[t,e] * H[t-1,e,f] + (1 - G[t,e]) * V[t,f] init 0\n{READ}",
    ),
    "a running maximum": (
        "V[b,h,t,f], M0[b,h,f]",
        "O[b,h,t,f]",
        "O[t,f] = max(O[t-1,f], V[t,f]) init M0[f]",
    ),
    "exponential gates with the maximum that keeps them in range": (
        f"{ABOVE}, x[b,h,t], y[b,h,t]",
        "O[b,h,t,f]",
        "M[t] = max(logsigmoid(y[t]) + M[t-1], x[t]) init 0\n"
        "a[t] = exp(logsigmoid(y[t]) + M[t-1] - M[t])\n"
        "H[t,e,f] = a[t] * H[t-1,e,f] + exp(x[t] - M[t]) * K[t,e] * V[t,f] init 0\n"
        "N[t,e] = a[t] * N[t-1,e] + exp(x[t] - M[t]) * K[t,e] init 0\n"
        "O[t,f] = sum[e](Q[t,e] * H[t,e,f]) / max(abs(sum[e](Q[t,e] * N[t,e])), exp(-M[t]))",
    ),
    "such gates of channels": (
        "V[b,h,t,f], x[b,h,t,f], y[b,h,t,f]",
        "O[b,h,t,f]",
        "M[t,f] = max(logsigmoid(y[t,f]) + M[t-1,f], x[t,f]) init 0\n"
        "a[t,f] = exp(logsigmoid(y[t,f]) + M[t-1,f] - M[t,f])\n"
        "C[t,f] = a[t,f] * C[t-1,f] + exp(x[t,f] - M[t,f]) * V[t,f] init 0\n"
        "N[t,f] = a[t,f] * N[t-1,f] + exp(x[t,f] - M[t,f]) init 0\n"
        "O[t,f] = C[t,f] / N[t,f]",
    ),
}
STATELESS = {"a gate of channels by a table of states", "a state forward, then one backward"}


def program(name: str) -> attndsl.CompiledAttention:
    inputs, outputs, body = PROGRAMS[name]
    return attndsl.compile(
        f"attention more({inputs}) -> {outputs} {{ batch b, h\n{body}\n}}", backend="eager"
    )


def inputs(op: attndsl.CompiledAttention) -> dict[str, Tensor]:
    torch.manual_seed(3)
    out = {}
    for t in op.cascade.inputs:
        x = torch.randn([SIZES.get(r, N) for r in t.ranks], dtype=torch.float64) / 2
        out[t.name] = -x.abs() if t.name == "g" else x
    return out


def several(x: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(x) if isinstance(x, tuple) else [x]


@pytest.mark.parametrize("name", PROGRAMS)
def test_outputs_and_gradients_agree_with_the_dense_form(name: str) -> None:
    op = program(name)
    ours = {n: x.requires_grad_() for n, x in inputs(op).items()}
    theirs = {n: x.detach().clone().requires_grad_() for n, x in ours.items()}
    got, want = several(op(**ours)), several(op.reference(**theirs))
    assert error([x.detach() for x in got], [x.detach() for x in want]) < 1e-12
    up = [torch.randn_like(x) for x in want]
    made = torch.autograd.grad(got, list(ours.values()), up)
    exact = torch.autograd.grad(want, list(theirs.values()), up)
    assert error(list(made), list(exact)) < 1e-10


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n not in STATELESS])
def test_pieces_and_tokens_agree_with_the_whole(name: str) -> None:
    op = program(name)
    given = inputs(op)
    whole = several(op.reference(**given))
    for cuts in ((0, 7, N), range(6)):
        state, pieces = None, []
        for low, high in pairwise(cuts):
            own = {n: x[:, :, low:high] if x.shape[2:3] == (N,) else x for n, x in given.items()}
            *out, state = (
                op.step(state, **own)
                if high - low == 1
                else op(**own, state=state, return_state=True)
            )
            pieces.append(out)
        for k, want in enumerate(whole):
            if want.shape[2] == N:
                got = torch.cat([p[k] for p in pieces], 2)
                assert error([got], [want[:, :, : got.shape[2]]]) < 1e-12
            elif cuts[-1] == N:
                assert error([pieces[-1][k]], [want]) < 1e-12


@pytest.mark.parametrize(
    "beside",
    [
        "Z[f] = sum[t](V[t,f])",
        "M[f] = max[t](V[t,f]); Z[f] = tanh(M[f])",
        "A[t,s] = Q[t,e] * K[s,e] where s <= t\nZ[t,f] = A[t,s] * V[s,f]",
    ],
)
def test_what_sums_over_time_beside_a_recurrence_keeps_no_state(beside: str) -> None:
    read = "Z[t,f]" if "Z[t" in beside else "Z[f]"
    op = attndsl.compile(
        f"attention more({ABOVE}) -> O[b,h,t,f] {{ batch b, h\n"
        f"H[t,e,f] = H[t-1,e,f] / 2 + K[t,e] * V[t,f] init 0\n{beside}\n"
        f"O[t,f] = Q[t,e] * H[t,e,f] + {read} }}",
        backend="eager",
    )
    with pytest.raises(CallError, match=r"A0513.*(reduces|positions)"):
        op(**inputs(op), return_state=True)


def test_packed_sequences_start_each_from_its_own() -> None:
    op = program("a chain of states, each from the one before")
    ends = [0, 5, 6, N]
    given = {n: x[:1] for n, x in inputs(op).items()}
    given["X0"] = torch.randn(3, SIZES["h"], SIZES["f"], dtype=torch.float64)
    got = op(**given, cu_seqlens=torch.tensor(ends))
    for k, (low, high) in enumerate(pairwise(ends)):
        own = {n: x[:, :, low:high] for n, x in given.items() if n != "X0"}
        want = op.reference(**own, X0=given["X0"][k : k + 1])
        assert error([got[:, :, low:high]], [want]) < 1e-12
    with pytest.raises(CallError, match=r"A0501.*`X0` is not that of 2"):
        op(**given, cu_seqlens=torch.tensor([0, 5, N]))
