"""Sequences packed by ids: states are dropped where an id ends, by chunks of every length."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.callerrors import CallError
from attndsl.cascade.bind import bind
from attndsl.runtime.stages import Stage, plan_passes
from attndsl.schedule.tile import Role, TileProgram
from tests.property.test_chunks import ROOT, error

SIZES = {"b": 2, "h": 2, "e": 8, "f": 12}
N = 40
LENGTHS = torch.tensor([1, 13, 2, 16, 8])
SORTED = "assume j == 0 or doc[j-1] <= doc[j]"

# By what the weights are: more inputs, and the statements.
SUMS = {
    "plain": ("", "A[i,j] = Q[i,e] * K[j,e] where j <= i, doc[i] == doc[j]"),
    "strictly before": ("", "A[i,j] = Q[i,e] * K[j,e] where doc[j] == doc[i], j < i"),
    "decay": (
        ", gamma[h]",
        "assume 0 < gamma < 1; A[i,j] = Q[i,e] * K[j,e] * gamma**(i - j) where j <= i, doc[i] == doc[j]",
    ),
    "vector gate": (
        ", g[b,h,j,e]",
        "assume g <= 0; C[j,e] = sum[l : l <= j](g[l,e])\n"
        "A[i,j] = Q[i,e] * K[j,e] * exp(C[i,e] - C[j,e]) where j <= i, doc[i] == doc[j]",
    ),
    "gates that begin anew": (
        ", g[b,h,j]",
        "assume g <= 0; C[j] = sum[l : l <= j and doc[l] == doc[j]](g[l])\n"
        "A[i,j] = Q[i,e] * K[j,e] * exp(C[i] - C[j]) where j <= i, doc[i] == doc[j]",
    ),
    "both directions": (
        ", gamma[h]",
        "assume 0 < gamma < 1; A[i,j] = Q[i,e] * K[j,e] * gamma**abs(i - j) where doc[i] == doc[j]",
    ),
    "distance": ("", "A[i,j] = Q[i,e] * K[j,e] * (i - j) where j <= i, doc[i] == doc[j]"),
    "blocks": ("", "A[i,j] = Q[i,e] * K[j,e] * (doc[j] + 1) where j <= i, i // 5 == j // 5"),
    "rows of one document": ("", "A[i,j] = Q[i,e] * K[j,e] where j <= i, doc[i] == 1"),
}
HEAD = "attention packed(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], doc[b,j]: int{}) -> O[b,h,i,f] {{ batch b, h\n"
STEPS = {
    "scalar": (", g[b,h,t]", "(exp(g[t]) if first[t] == 0 else 0) * H[t-1,e,f]"),
    "no gate": ("", "(0 if first[t] == 1 else 1) * H[t-1,e,f]"),
    "vector": (", g[b,h,t,e]", "(exp(g[t,e]) if first[t] == 0 else 0) * H[t-1,e,f]"),
    "delta rule": (
        ", g[b,h,t]",
        "(exp(g[t]) if first[t] == 0 else 0) * (H[t-1,e,f] - K[t,e] * (K[t,c] * H[t-1,c,f]))",
    ),
}


def sums(name: str, sorted_: str = SORTED, normal: bool = False) -> attndsl.CompiledAttention:
    more, weights = SUMS[name]
    over = " / sum[j](A[i,j])" if normal else ""
    return attndsl.compile(
        HEAD.format(more) + f"{sorted_}\n{weights}\nO[i,f] = A[i,j]{over} * V[j,f] }}"
    )


def steps(name: str) -> attndsl.CompiledAttention:
    more, past = STEPS[name]
    return attndsl.compile(
        f"attention packed(Q[b,h,t,e], K[b,h,t,e], V[b,h,t,f], first[b,t]: int{more}, H0[b,h,e,f])"
        " -> O[b,h,t,f] { batch b, h\n"
        f"H[t,e,f] = {past} + K[t,e] * V[t,f]   init H0[e,f]\nO[t,f] = Q[t,e] * H[t,e,f] }}"
    )


def ids() -> Tensor:
    """Two rows of documents of several lengths, the second from its end."""
    doc = torch.repeat_interleave(torch.arange(len(LENGTHS)), LENGTHS)
    return torch.stack([doc, len(LENGTHS) - 1 - doc.flip(0)])


def inputs(op: attndsl.CompiledAttention, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    torch.manual_seed(1)
    doc = ids()
    begins = torch.cat([torch.zeros(2, 1), doc.diff(dim=1) != 0], dim=1).long()
    out: dict[str, Tensor] = {"doc": doc, "first": begins}
    for t in op.cascade.inputs:
        x = torch.randn([SIZES.get(r, N) for r in t.ranks], dtype=torch.float64)
        x = {"g": -x.abs(), "gamma": 0.5 + 0.4 * torch.sigmoid(x)}.get(t.name, x)
        x = torch.nn.functional.normalize(x, dim=-1) if t.name == "K" else x
        out.setdefault(t.name, x.to(dtype))
    return {t.name: out[t.name] for t in op.cascade.inputs}


def compare(op: attndsl.CompiledAttention, chunk: int, backend: str, least: float) -> None:
    """Outputs and gradients by chunks of a length, against the dense form."""
    given = inputs(op, torch.float64 if backend == "eager" else torch.float32)
    wide = {n: x.double() if x.is_floating_point() else x for n, x in given.items()}
    floats = tuple(n for n, x in wide.items() if x.is_floating_point())
    leaves = {n: x.clone().requires_grad_(n in floats) for n, x in wide.items()}
    want = op.reference(**leaves)
    up = torch.randn_like(want)
    grads = torch.autograd.grad(want, [leaves[n] for n in floats], up)
    passes = plan_passes(op.cascade, floats)
    stage = Stage(op.cascade, passes, backend, "")
    shapes = {n: tuple(x.shape) for n, x in given.items()}
    extents = stage.extents(bind(op.cascade, shapes, {}).extents, {})
    config = dict.fromkeys("ijtl", chunk) | dict.fromkeys("efc", 8 if backend == "eager" else 16)
    if backend == "triton":
        config = {f"BLOCK_{a.upper()}": n for a, n in config.items()}
    out = stage.module.forward(given, extents, {}, config)
    kept = {n: out[n] for n in passes.residuals}
    cotangent = {passes.cotangents["O"]: up.to(out["O"].dtype)}
    made = stage.module.backward({**given, **kept, **cotangent}, extents, {}, config)
    assert error([out["O"]], [want.detach()]) < least
    assert error([made[passes.gradients[n]] for n in floats], list(grads)) < 10 * least


@pytest.mark.parametrize("chunk", [4, 16, 64])
@pytest.mark.parametrize("name", SUMS)
def test_sums_within_documents(name: str, chunk: int) -> None:
    compare(sums(name), chunk, "eager", 1e-11)


@pytest.mark.parametrize("chunk", [4, 64])
def test_weights_normalised_within_documents(chunk: int) -> None:
    more, _ = SUMS["plain"]
    weights = "A[i,j] = exp(Q[i,e]) * exp(K[j,e]) where j <= i, doc[i] == doc[j]"
    text = f"{SORTED}\n{weights}\nO[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f] }}"
    compare(attndsl.compile(HEAD.format(more) + text), chunk, "eager", 1e-11)


@pytest.mark.parametrize("chunk", [4, 16, 64])
@pytest.mark.parametrize("name", STEPS)
def test_recurrences_that_begin_anew(name: str, chunk: int) -> None:
    compare(steps(name), chunk, "eager", 1e-11)


@pytest.mark.parametrize("program", ["sums('vector gate')", "steps('delta rule')"])
def test_portable_kernels_of_documents(program: str) -> None:
    code = f"from tests.property.test_stretches import *; compare({program}, 16, 'triton', 1e-5)"
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env, cwd=ROOT)


def by_pairs(op: attndsl.CompiledAttention) -> list[str]:
    """Kernels that visit pairs of positions."""
    passes = plan_passes(op.cascade, tuple(t.name for t in op.cascade.inputs if t.name != "doc"))
    assert passes.backward is not None
    steps_ = (*passes.forward.steps, *passes.backward.steps)
    every = [s for s in steps_ if isinstance(s, TileProgram)]
    return [s.name for s in every if s.of(Role.TILE) and s.of(Role.STREAM) and not s.of(Role.PAIR)]


@pytest.mark.parametrize("name", [n for n in SUMS if n != "blocks"])
def test_ordered_ids_need_no_pairs(name: str) -> None:
    assert not by_pairs(sums(name))


@pytest.mark.parametrize("said", ["", "assume j == 0 or doc[j-1] >= 0", "assume doc[j] < 9"])
def test_ids_in_any_order_take_pairs(said: str) -> None:
    op = sums("plain", said)
    assert by_pairs(op)
    given = inputs(op)
    given["doc"] = given["doc"] % 2  # documents in parts
    assert error([op(**given)], [op.reference(**given)]) < 1e-12


@pytest.mark.parametrize(
    "said",
    [
        "assume j == 0 or doc[j] >= doc[j-1]",
        "assume i > j or doc[i] <= doc[j]",
        "assume doc[j] <= doc[i] or i < j",
    ],
)
def test_ways_to_say_that_ids_are_ordered(said: str) -> None:
    op = sums("plain", said)
    assert not by_pairs(op)
    given = inputs(op)
    op(**given, debug=True)
    with pytest.raises(CallError, match="break `assume"):
        op(**{**given, "doc": given["doc"].flip(1)}, debug=True)


def test_ids_of_a_call_say_nothing_of_those_before_it() -> None:
    op = sums("plain")
    with pytest.raises(CallError, match="ids of a call would be compared") as refused:
        op(**inputs(op), return_state=True)
    assert refused.value.code == "A0513"


def test_a_recurrence_that_begins_anew_has_a_state() -> None:
    op = steps("scalar")
    given = inputs(op)
    want = op.reference(**given)
    first = {
        n: x if n == "H0" else x[:, :, :17] if n != "first" else x[:, :17] for n, x in given.items()
    }
    last = {
        n: x if n == "H0" else x[:, :, 17:] if n != "first" else x[:, 17:] for n, x in given.items()
    }
    a, state = op(**first, return_state=True)
    b, _ = op(**last, state=state, return_state=True)
    assert error([torch.cat([a, b], 2)], [want]) < 1e-12
