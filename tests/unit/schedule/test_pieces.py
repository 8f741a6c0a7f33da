"""Walks in pieces: however many there are, they leave what one walk leaves, and so do their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attndsl.cascade.bind import bind
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade, DType
from attndsl.cascade.unroll import unrolled
from attndsl.frontend import load_cascades
from attndsl.runtime.heads import FewHeads, few_heads
from attndsl.runtime.stages import Passes, Stage, plan_passes
from attndsl.schedule import few_heads as few
from attndsl.schedule import pieces, plan_forward
from attndsl.schedule import tile as t
from attndsl.schedule.composed import PIECES
from attndsl.schedule.pieces import in_pieces
from attndsl.source import Source
from tests.unit.schedule.harness import draw, kernels, run

PLAIN = """attention plain(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
  batch b
  A[i,j] = Q[i,e] * K[j,e]   where j <= i
  O[i,f] = A[i,j] * V[j,f]
}"""
CONSTANT = PLAIN.replace("V[b,j,f])", "V[b,j,f], a[b])").replace(
    "K[j,e] ", "K[j,e] * exp(-abs(a) * (i - j)) "
)
SCALAR = """attention scalar(Q[b,i,e], K[b,j,e], V[b,j,f], g[b,j]) -> O[b,i,f] {
  batch b
  C[j] = sum[l : l <= j](-g[l]**2)
  A[i,j] = Q[i,e] * K[j,e] * exp(C[i] - C[j])   where j <= i
  O[i,f] = A[i,j] * V[j,f]
}"""
VECTOR = """attention vector(Q[b,i,e], K[b,j,e], V[b,j,f], g[b,j,e]) -> O[b,i,f] {
  batch b
  C[j,e] = sum[l : l <= j](-g[l,e]**2)
  A[i,j] = Q[i,e] * K[j,e] * exp(C[i,e] - C[j,e])   where j <= i
  O[i,f] = A[i,j] * V[j,f]
}"""
NORMAL = """attention normal(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
  batch b
  A[i,j] = exp(Q[i,e]) * exp(K[j,e])   where j <= i
  O[i,f] = A[i,j] / sum[j](A[i,j]) * V[j,f]
}"""
FIRST = """attention first(Q[b,t,e], K[b,t,e], V[b,t,f], g[b,t], H0[b,e,f]) -> O[b,t,f] {
  batch b
  H[t,e,f] = exp(-g[t]**2) * H[t-1,e,f] + K[t,e] * V[t,f]   init H0[e,f]
  O[t,f] = Q[t,e] * H[t,e,f]
}"""
REVERSE = PLAIN.replace("j <= i", "j >= i")
DELTA = """attention delta(Q[b,t,e], K[b,t,e], V[b,t,f], beta[b,t]) -> O[b,t,f] {
  batch b
  H[t,e,f] = H[t-1,e,f] + beta[t] * K[t,e] * (V[t,f] - K[t,c] * H[t-1,c,f])   init 0
  O[t,f] = Q[t,e] * H[t,e,f]
}"""
SOFTMAX = """attention softmax(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
  batch b
  S[i,j] = Q[i,e] * K[j,e]   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}"""
PROGRAMS = (PLAIN, CONSTANT, SCALAR, VECTOR, NORMAL, FIRST, REVERSE)
SIZES = {"b": 2, "i": 29, "j": 29, "t": 29, "e": 4, "f": 3}
TILES = {"i": 4, "j": 4, "t": 4, "e": 2, "f": 2}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of one chunk or more."""
    monkeypatch.setattr(pieces, "LEAST", 4)
    monkeypatch.setattr(pieces, "LEAST_OF_SCANS", 4)


def cascade_of(text: str) -> Cascade:
    (cascade,) = load_cascades(Source("test.attn", text))
    return cascade


def cut_passes(c: Cascade, wrt: tuple[str, ...]) -> tuple[Passes, FewHeads]:
    whole = plan_passes(c, wrt)
    few_of = few_heads(whole)
    assert few_of is not None
    return whole, few_of


@pytest.mark.parametrize("count", [1, 2, 3, 8, 11])
@pytest.mark.parametrize("text", PROGRAMS)
def test_any_number_of_pieces(text: str, count: int) -> None:
    """Pieces of several chunks, of one, and (11 pieces of 8 chunks) empty ones."""
    c = cascade_of(text)
    plan = in_pieces(plan_passes(c, ()).forward)
    assert plan is not None
    x = draw(c, SIZES)
    made = run(plan, c, x, extra={PIECES: count}, tiles=TILES)
    torch.testing.assert_close(made["O"], interpret(c, x)["O"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("text", PROGRAMS)
def test_gradients_in_pieces(text: str) -> None:
    """Against gradients of the interpreter, by PyTorch."""
    c = cascade_of(text)
    x = draw(c, SIZES)
    wrt = tuple(i.name for i in c.inputs if i.dtype is DType.FLOAT)
    _, few_of = cut_passes(c, wrt)
    made, up = gradients(c, few_of.passes, x, 5)
    leaves = {n: v.clone().requires_grad_() for n, v in x.items()}
    want = torch.autograd.grad(interpret(c, leaves)["O"], [*leaves.values()], up)
    for name, g, w in zip(leaves, made, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-9, atol=1e-9, msg=name)


def gradients(
    c: Cascade, passes: Passes, x: dict[str, Tensor], count: int
) -> tuple[list[Tensor], Tensor]:
    stage = Stage(c, passes, "eager", "")
    bound = bind(c, {n: tuple(v.shape) for n, v in x.items()}, {})
    extents = {**stage.extents(bound.extents, {}), PIECES: count}
    out = stage.forward(x, extents, {}, TILES)  # type: ignore[arg-type]
    kept: dict[str, Any] = dict(zip((*stage.outputs, *stage.residuals), out, strict=True))
    up = torch.randn(kept["O"].shape, dtype=torch.float64)
    tensors = x | {r: kept[r] for r in passes.residuals}
    return stage.backward(tensors, {"O": up}, extents, {}, TILES), up  # type: ignore[arg-type]


def test_gates_that_shut_keep_nothing_of_other_pieces() -> None:
    """Products of decays that underflow are 0, and nothing is made of 0 * inf."""
    c = cascade_of(SCALAR)
    plan = in_pieces(plan_passes(c, ()).forward)
    assert plan is not None
    x = draw(c, SIZES)
    x["g"] = x["g"] * 30
    made = run(plan, c, x, extra={PIECES: 5}, tiles=TILES)["O"]
    assert made.isfinite().all()
    torch.testing.assert_close(made, interpret(c, x)["O"], rtol=1e-8, atol=1e-8)


def test_a_walk_becomes_three_kernels() -> None:
    plan = in_pieces(plan_passes(cascade_of(PLAIN), ()).forward)
    assert plan is not None
    parts, starts, walk = kernels(plan)
    assert [a.rank for a in parts.of(t.Role.GRID)] == [PIECES, "b"]
    assert not any(isinstance(s, t.Store) for s in parts.sweep.ranges[0].body)  # type: ignore[union-attr]
    assert "Q" not in parts.reads
    assert starts.sweep is None
    assert [x.axis for x in starts.loops] == [PIECES]
    assert {*parts.writes} <= {*starts.reads}
    assert {*starts.writes} <= {*walk.reads}


def test_a_state_that_comes_into_another_is_cut_too() -> None:
    """Distances to a chunk grow by those between chunks, so the slope of a decay has two states."""
    passes, few_of = cut_passes(cascade_of(CONSTANT), ("Q", "K", "V", "a"))
    assert passes.backward is not None
    assert few_of.passes.backward is not None
    swept = [p.name for p in kernels(passes.backward) if p.sweep is not None and p.of(t.Role.PAIR)]
    names = {p.name for p in kernels(few_of.passes.backward)}
    assert {f"{n}_parts" for n in swept} <= names
    states = [sum(isinstance(s, t.Declare) for s in p.prologue) for p in kernels(passes.backward)]
    assert max(states) > 1


def test_what_does_not_compose_stays_whole() -> None:
    """A delta rule multiplies its state by a matrix at each chunk; softmax has no state to begin a piece with."""
    assert in_pieces(plan_forward(unrolled(cascade_of(DELTA)))) is None
    assert in_pieces(plan_passes(cascade_of(SOFTMAX), ()).forward) is None


def test_pieces_fill_the_card_and_are_not_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LEAST", 256)
    assert few.worth(2, 4096, 132) == 16  # 64 chunks: as many pieces as the kernel between is worth
    assert few.worth(0, 4096, 132) == 16
    assert few.worth(32, 4096, 132) == 4
    assert few.worth(66, 1 << 14, 132) == 2
    assert few.worth(67, 1 << 20, 132) == 1
    assert 60 <= few.worth(2, 1 << 18, 132) <= 66


def test_short_sequences_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels more take longer than what they save."""
    monkeypatch.setattr(pieces, "LEAST", 256)
    assert few.worth(2, 1024, 132) == 1
    assert few.worth(2, 2048, 132) > 1
    assert few.worth(66, 4096, 132) == 1


def test_a_call_with_few_heads_takes_its_own_stage() -> None:
    _, few_of = cut_passes(cascade_of(PLAIN), ())
    sizes = {"b": 1, "i": 4096, "j": 4096, "e": 128, "f": 128}
    assert (few_of.extents(sizes, 132) or {})[PIECES] == 16
    assert few_of.extents({**sizes, "b": 64}, 132) is None
