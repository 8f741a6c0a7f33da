"""Recurrences that are walked one position after the other: random ones, and those of a family each."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.cascade.bind import bind
from attndsl.runtime.stages import Passes, Stage, plan_passes
from attndsl.schedule.tile import For, TileProgram
from tests.property.test_chunks import error

SIZES = {"b": 2, "h": 2, "e": 5, "f": 19, "r": 3, "c": 5}
N = 70  # a block of 64 positions, and a part of one

FAMILIES = {
    "low rank": (
        ", P[b,h,t,r,e], R[b,h,t,r,e], w[h], H0[b,h,e,f]",
        "H[t,e,f] = 0.9 * H[t-1,e,f] - w * P[t,r,e] * (R[t,r,c] * H[t-1,c,f]) + K[t,e] * V[t,f] init H0[e,f]",
        "O[t,f] = Q[t,e] * H[t,e,f]",
    ),
    "a gate that reads the state": (
        ", g[b,h,t,e]",
        "H[t,e,f] = sigmoid(g[t,e] * H[t-1,e,f]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0",
        "O[t,f] = Q[t,e] * tanh(H[t,e,f])",
    ),
    "a normaliser beside it": (
        ", g[b,h,t]",
        "H[t,e,f] = tanh(g[t]) * H[t-1,e,f] + K[t,e] * V[t,f] init 0; N[t,e] = tanh(g[t]) * N[t-1,e] + K[t,e] init 0",
        "O[t,f] = Q[t,e] * H[t,e,f] / (1 + (Q[t,e] * N[t,e])**2)",
    ),
    "parameters that all batches share": (
        ", W[h,e], U[e,f]",
        "H[t,e,f] = tanh(W[e] * H[t-1,e,f] + U[e,f]) + K[t,e] * V[t,f] init U[e,f]",
        "O[t,f] = Q[t,e] * H[t,e,f]",
    ),
    "from the last to the first": (
        ", g[b,h,t]",
        "H[t,e,f] = tanh(g[t]) * H[t+1,e,f] + K[t,e] * V[t,f] init 0",
        "O[t,f] = Q[t,e] * H[t,e,f]",
    ),
    "a matrix that mixes one feature": (
        ", W[h,e,c], g[b,h,t,e]",
        "s[t,e] = (1 - sigmoid(g[t,e])) * s[t-1,e] + sigmoid(g[t,e]) * tanh(W[e,x] * s[t-1,x] + K[t,e]) init 0",
        "O[t,f] = sum[e](Q[t,e] * s[t,e]) * V[t,f]",
    ),
    "a matrix that mixes two": (
        ", A[b,h,t,e,c]",
        "H[t,e,f] = 0.2 * A[t,e,x] * H[t-1,x,f] + K[t,e] * V[t,f] init 0",
        "O[t,f] = Q[t,e] * H[t,e,f]",
    ),
    "the state is an output": (
        ", g[b,h,t,f]",
        "O[t,f] = (1 - sigmoid(g[t,f])) * O[t-1,f] + sigmoid(g[t,f]) * tanh(V[t,f] + O[t-1,f]) init 0",
        "Z[t,f] = O[t,f] * sum[e](Q[t,e] * K[t,e])",
    ),
}


def family(name: str) -> str:
    more, state, read = FAMILIES[name]
    out = "O[b,h,t,f]" + (", Z[b,h,t,f]" if "Z[" in read else "")
    head = f"attention walked(Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f]{more}) -> {out}"
    return f"{head} {{ batch b, h\n{state}\n{read} }}"


def drawn(seed: int) -> str:
    """One to three states, each read by the next, with rank-one terms and gates of every shape."""
    rng = random.Random(seed)
    inputs = ["Q[b,h,t,e]", "K[b,h,t,e]", "V[b,h,t,f]"]
    body = ["batch b, h"]
    states = rng.randint(1, 3)
    for n in range(states):
        gate = rng.choice(["t", "t,e", "t,f", "t,e,f"][:3])
        inputs.append(f"g{n}[b,h,{gate}]")
        act = rng.choice(["tanh", "sigmoid", "sin"])
        terms = [f"{act}(g{n}[{gate}]) * S{n}[t-1,e,f]"]
        for k in range(rng.randint(0, 3)):
            inputs += [f"A{n}{k}[b,h,t,e]", f"B{n}{k}[b,h,t,e]"]
            of = rng.choice([f"S{m}" for m in range(n + 1)])
            terms.append(f"0.3 * A{n}{k}[t,e] * (B{n}{k}[t,c] * {of}[t-1,c,f])")
        if n:
            terms.append(rng.choice([f"0.5 * S{n - 1}[t,e,f]", f"cos(S{n - 1}[t,e,f])"]))
        terms.append("K[t,e] * V[t,f]")
        init = rng.choice(["0", f"I{n}[e,f]"])
        if init != "0":
            inputs.append(f"I{n}[b,h,e,f]")
        body.append(f"S{n}[t,e,f] = {' + '.join(terms)}   init {init}")
    body.append(f"O[t,f] = Q[t,e] * S{states - 1}[t,e,f]")
    return f"attention drawn({', '.join(inputs)}) -> O[b,h,t,f] {{\n" + "\n".join(body) + "\n}"


def given(op: attndsl.CompiledAttention, n: int) -> dict[str, Tensor]:
    torch.manual_seed(4)
    out = {}
    for t in op.cascade.inputs:
        x = torch.randn([SIZES.get(r, n) for r in t.ranks], dtype=torch.float64)
        out[t.name] = torch.nn.functional.normalize(x, dim=-1) if t.ranks[-1] == "e" else x
    return out


def walked(passes: Passes) -> bool:
    """Whether every kernel walks positions."""
    plans = [p for p in (passes.forward, passes.backward) if p is not None]
    kernels = [s for p in plans for s in p.steps if isinstance(s, TileProgram)]
    return all(any(isinstance(s, For) and s.lo for s in k.prologue) for k in kernels)


def agrees(text: str, n: int = N) -> attndsl.CompiledAttention:
    """The program, whose kernels in their eager form make what the dense form makes, with its gradients."""
    op = attndsl.compile(text, backend="eager")
    values = {k: x.requires_grad_() for k, x in given(op, n).items()}
    want, got = op.reference(**values), op(**values)
    want, got = ((x,) if isinstance(x, Tensor) else x for x in (want, got))
    up = [torch.randn_like(x) for x in want]
    there = torch.autograd.grad(want, list(values.values()), up, allow_unused=True)
    mine = torch.autograd.grad(got, list(values.values()), up, allow_unused=True)
    assert error([x.detach() for x in got], [x.detach() for x in want]) < 1e-12
    for a, b in zip(mine, there, strict=True):
        assert (
            error([torch.zeros(1) if a is None else a], [torch.zeros(1) if b is None else b]) < 1e-9
        )
    return op


@pytest.mark.parametrize("name", FAMILIES)
def test_walks_agree_with_the_dense_form(name: str) -> None:
    op = agrees(family(name))
    assert walked(plan_passes(op.cascade, tuple(t.name for t in op.cascade.inputs)))


@pytest.mark.parametrize("seed", range(10))
def test_random_recurrences_agree_with_the_dense_form(seed: int) -> None:
    agrees(drawn(seed))


@pytest.mark.parametrize("n", [1, 64, 65, 128])
def test_lengths_around_a_block(n: int) -> None:
    agrees(family("a gate that reads the state"), n)


@pytest.mark.parametrize("seed", range(4))
def test_token_by_token_and_in_pieces(seed: int) -> None:
    """Values from a state, and the gradient that goes through it."""
    op = attndsl.compile(drawn(seed), backend="eager")
    values = {k: x.requires_grad_() for k, x in given(op, 24).items()}
    along = {t.name: t.ranks.index("t") for t in op.cascade.inputs if "t" in t.ranks}

    def part(first: int, last: int) -> dict[str, Tensor]:
        return {
            k: x.narrow(along[k], first, last - first) if k in along else x
            for k, x in values.items()
        }

    want = op.reference(**values)
    state, pieces = None, []
    for first, last in ((0, 9), (9, 10), (10, 24)):
        out, state = op(**part(first, last), state=state, return_state=True)
        pieces.append(out)
    got = torch.cat(pieces, 2)
    assert error([got.detach()], [want.detach()]) < 1e-12
    up = torch.randn_like(want)
    there = torch.autograd.grad(want, list(values.values()), up)
    mine = torch.autograd.grad(got, list(values.values()), up)
    assert error(list(mine), list(there)) < 1e-9
    with torch.no_grad():
        state = None
        for k in range(6):
            token = {n: x.select(along[n], k) if n in along else x for n, x in values.items()}
            out, state = op.step(state, **token)
            assert error([out], [want[:, :, k]]) < 1e-12


def test_programs_share_the_columns_of_a_state() -> None:
    """Gradients that are sums over columns are added up from what each program has."""
    op = attndsl.compile(family("a gate that reads the state"))
    passes = plan_passes(op.cascade, ("Q", "K", "V"))
    assert passes.backward is not None
    assert ("f.tiles", "f", 16) in passes.backward.blocks
    stage = Stage(op.cascade, passes, "eager", "")
    values = given(op, N)
    shapes = {k: tuple(x.shape) for k, x in values.items()}
    extents = stage.extents(bind(op.cascade, shapes, {}).extents, {})
    out = stage.module.forward(values, extents, {})
    again = stage.module.forward(values, extents, {})
    assert torch.equal(out["O"], again["O"])
