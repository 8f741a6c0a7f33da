"""States of parts of the keys: however they are cut, ordered and grouped, they end as one sweep would."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import attndsl
from attndsl.callerrors import CallError
from attndsl.runtime.operator import CompiledAttention
from attndsl.runtime.partial import State

HEAD = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,j], s[i], w: int = 3) -> {} {{
  batch b
  S[i,j] = Q[i,e] * K[j,e] + u[j]{}
  {}
}}"""
DOMAINS = ["", "   where j <= i", "   where j < i - 3", "   where i - w < j <= i"]
BODIES = [
    ("O[b,i,f], L[b,i]", "O[i,f] = softmax[j](S[i,j]) * V[j,f]\n  L[i] = logsumexp[j](S[i,j])"),
    (
        "O[b,i,f]",
        "M[i] = max(max[j](S[i,j]), s[i])\n  P[i,j] = exp(S[i,j] - M[i])\n"
        "  O[i,f] = P[i,j] / (sum[j](P[i,j]) + exp(s[i] - M[i])) * V[j,f]",
    ),
    (
        "O[b,i,f]",
        "M[i] = max[j](S[i,j])\n  X[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])\n"
        "  O[i,f] = relu(X[i,j]) / (sum[j](abs(X[i,j])) + 1e-6) * V[j,f]",
    ),
    (
        "O[b,i,f], Z[b,i]",
        "P[i,j] = softplus(S[i,j])\n  Z[i] = sum[j](P[i,j])\n  W[i,j] = (P[i,j] / Z[i])**w\n"
        "  O[i,f] = W[i,j] / sum[j](W[i,j]) * V[j,f]",
    ),
    (
        "O[b,i,f], A[b,i], N[b,i]",
        "O[i,f] = sigmoid(S[i,j]) * V[j,f]\n  A[i] = sum[j](abs(S[i,j]))\n  N[i] = max[j](S[i,j])",
    ),
    (
        "O[b,i,f]",
        "T[i,j] = Q[i,e] * abs(K[j,e]) - u[j]\n"
        "  O[i,f] = (softmax[j](S[i,j]) - 0.5 * softmax[j](T[i,j])) * V[j,f]",
    ),
]


@cache
def op(domain: int, body: int) -> CompiledAttention:
    outputs, lines = BODIES[body]
    return attndsl.compile(HEAD.format(outputs, DOMAINS[domain], lines), backend="eager")


def inputs(keys: int, offsets: list[float], cuts: list[int], dtype: torch.dtype) -> list[Tensor]:
    """Random tensors; the scores of each part are shifted by an offset of their own."""
    g = torch.Generator().manual_seed(keys)
    q, k, v = (torch.randn(2, n, 4, generator=g, dtype=torch.float64) for n in (keys, keys, keys))
    u = torch.zeros(2, keys, dtype=torch.float64)
    for (a, b), offset in zip(pairwise(cuts), offsets, strict=True):
        u[:, a:b] = offset
    s = torch.randn(keys, generator=g, dtype=torch.float64)
    return [x.to(dtype) for x in (q, k, v, u, s)]


def parts(o: CompiledAttention, x: list[Tensor], cuts: list[int]) -> list[State]:
    q, k, v, u, s = x
    return [o.partial(q, k[:, a:b], v[:, a:b], u[:, a:b], s, first=a) for a, b in pairwise(cuts)]


def outputs(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (x,) if isinstance(x, Tensor) else x


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_order_and_grouping_do_not_matter(data: st.DataObject) -> None:
    o = op(data.draw(st.integers(0, 3)), data.draw(st.integers(0, len(BODIES) - 1)))
    keys = 13
    inner = data.draw(st.lists(st.integers(0, keys), min_size=1, max_size=4))  # equal: empty parts
    cuts = [0, *sorted(inner), keys]
    size = len(cuts) - 1
    offsets = data.draw(
        st.lists(st.sampled_from([-300.0, 0.0, 300.0]), min_size=size, max_size=size)
    )
    x = inputs(keys, offsets, cuts, torch.float64)
    states = data.draw(st.permutations(parts(o, x, cuts)))
    while len(states) > 1:  # any two neighbours, or all at once
        n = data.draw(st.integers(2, len(states)))
        k = data.draw(st.integers(0, len(states) - n))
        states[k : k + n] = [o.merge(*states[k : k + n])]
    got, want = outputs(o.finish(states[0])), outputs(o.reference(*x))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("body", range(len(BODIES)))
@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_single_precision(body: int, offset: float) -> None:
    o = op(1, body)
    if "softplus" in BODIES[body][1]:
        offset /= 10  # softplus(-300) is 0 in float32
    cuts = [0, 5, 5, 9, 13]
    x = inputs(13, [offset, 0.0, -offset, 0.0], cuts, torch.float32)
    a, b, c, d = parts(o, x, cuts)
    got = outputs(o.finish(o.merge(o.merge(d, b), o.merge(c, a))))
    one = outputs(o(*x))
    want = outputs(o.reference(*x, dtype=torch.float64))
    for g, n, w in zip(got, one, want, strict=True):
        assert g.dtype == n.dtype
        assert g.isfinite().equal(w.isfinite())
        torch.testing.assert_close(g, w.to(g.dtype), rtol=1e-4, atol=1e-4)


def test_no_keys_at_all() -> None:
    o = op(0, 0)
    q, k, v, u, s = inputs(13, [0.0], [0, 13], torch.float64)
    empty = o.partial(q, k[:, :0], v[:, :0], u[:, :0], s)
    out, lse = o.finish(o.merge(empty, empty))
    assert (out == 0).all()
    assert (lse == -torch.inf).all()


def test_the_monoid_is_data() -> None:
    carried = {c.name: c for c in op(0, 0).carried}
    assert [(c.op.value, c.identity, c.follows) for c in carried.values()] == [
        ("max", -torch.inf, ()),
        ("sum", 0.0, (("M_S", "-1", False),)),
        ("sum", 0.0, (("M_S", "-1", False),)),
    ]
    q, k, v, u, s = inputs(13, [0.0], [0, 13], torch.float32)
    state = op(0, 0).partial(q, k, v, u, s)
    assert {n: tuple(x.shape) for n, x in state.tensors.items()} == {
        n: tuple({"b": 2, "i": 13, "f": 4}[r] for r in c.ranks) for n, c in carried.items()
    }


def test_queries_with_a_place_of_their_own() -> None:
    o = op(1, 0)
    q, k, v, u, s = inputs(13, [0.0], [0, 13], torch.float64)
    want = o.reference(q[:, :3], k, v, u, s[:3], start=7)
    a = o.partial(q[:, :3], k[:, :8], v[:, :8], u[:, :8], s[:3], start=7)
    b = o.partial(q[:, :3], k[:, 8:], v[:, 8:], u[:, 8:], s[:3], start=7, first=8)
    for x, y in zip(o.finish(o.merge(b, a)), want, strict=True):
        torch.testing.assert_close(x, y)


def compiled(text: str) -> CompiledAttention:
    return attndsl.compile(text, backend="eager")


SUM = "attention t(Q[i,e], K[j,e]{}) -> O[i] {{ S[i,j] = Q[i,e] * K[j,e]\n {} }}"


@pytest.mark.parametrize(
    ("more", "lines", "why"),
    [
        ("", "O[i] = sum[j](S[i,j] / |j|)", r"uses \|j\|, which a part of the keys does not know"),
        ("", "O[i] = sum[j : j > 0](S[i,j] * K[j - 1,0])", "`K` is read at `j.* - 1`"),
        (
            "",
            "m[i] = sum[j](S[i,j])\n O[i] = sum[j](relu(S[i,j] - m[i]))",
            r"more than one sweep: `m` must be known before `relu\(S\[i,j\] - m\[i\]\)`",
        ),
        (", first: int = 0", "O[i] = sum[j](S[i,j])", "an argument `first` of its own"),
        ("", "O[i] = Q[i,e] * K[i,e] + sum[j](S[i,j])", "`K` is read at `i`, which may lie"),
    ],
)
def test_programs_without_a_state(more: str, lines: str, why: str) -> None:
    o = compiled(SUM.format(more, lines))
    with pytest.raises(CallError, match=rf"A0511.*{why}"):
        o.partial(torch.ones(3, 4), torch.ones(5, 4))


def test_states_that_do_not_belong_together() -> None:
    o, other = op(0, 0), op(0, 1)
    q, k, v, u, s = inputs(13, [0.0], [0, 13], torch.float32)
    a = o.partial(q, k, v, u, s)
    with pytest.raises(CallError, match=r"A0512.*states of different extents"):
        o.merge(a, o.partial(q[:, :4], k, v, u, s[:4]))
    with pytest.raises(CallError, match=r"A0512.*states of different parameters"):
        o.merge(a, o.partial(q, k, v, u, s, w=4))
    with pytest.raises(CallError, match="A0512"):
        other.finish(a)
    with pytest.raises(CallError, match=r"A0512.*nothing to merge"):
        o.merge()
    with pytest.raises(CallError, match=r"A0512.*a Tensor came"):
        o.finish(q)  # type: ignore[arg-type]
    with pytest.raises(CallError, match=r"A0501.*cannot be differentiated"):
        o.partial(q.clone().requires_grad_(), k, v, u, s)
