"""The operator on a GPU: streams, graphs, the compiler around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import attndsl
from tests.unit.runtime.programs import ALIBI, alibi_inputs, compiled

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

EXAMPLES = Path(__file__).parents[3] / "examples"


def inputs(n: int = 200, grad: bool = False, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Head dims of 16 and more, as matrix units want them."""
    g = torch.Generator().manual_seed(n)
    shapes = [(2, 4, n, 32), (2, 2, n, 32), (2, 2, n, 64), (4,)]
    drawn = [torch.randn(s, generator=g).cuda().to(dtype) for s in shapes]
    drawn[3] = drawn[3].float()
    return [x.requires_grad_(grad) for x in drawn]


def error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def test_values_and_gradients() -> None:
    op = compiled(ALIBI, None)
    x = inputs(grad=True)
    o, lse = op(*x)
    assert next(iter(op._engine.stages))[2] in ("auto", "triton")
    wide = [t.detach().double().requires_grad_() for t in x]
    ro, rlse = op.reference(*wide)
    assert error(o, ro) < 5e-3
    assert error(lse, rlse) < 1e-4
    do = torch.randn_like(o)
    for a, b in zip(
        torch.autograd.grad(o, x, do), torch.autograd.grad(ro, wide, do.double()), strict=True
    ):
        assert error(a, b) < 1e-2


def test_eager_backend_on_cuda() -> None:
    x = inputs(dtype=torch.float32)
    o, _ = compiled(ALIBI, "eager")(*x)
    ro, _ = compiled(ALIBI, "eager").reference(*x, dtype=torch.float64)
    assert error(o, ro) < 1e-5


def test_calls_with_one_tensor_of_ids_are_repeated() -> None:
    op = attndsl.load(EXAMPLES / "documents.attn")
    q, k, v = (torch.randn(1, 2, 200, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    x = [t.requires_grad_() for t in (q, k, v)]
    ids = torch.arange(200, device="cuda")[None] // 70
    for _ in range(2):
        op(*x, ids, ids).sum().backward()
    kept = list(op._engine.replays.values())
    assert len(kept) == 2
    assert all(r is not None for r in kept)
    # The same kinds of tensors, and two of them.
    out = op(*x, ids, ids + 1 - 1)
    assert error(out, op.reference(*x, ids, ids, dtype=torch.float64)) < 5e-3
    assert error(op(*x, ids, ids * 2), op.reference(*x, ids, ids * 2, dtype=torch.float64)) < 5e-3


def test_strided_inputs() -> None:
    op = compiled(ALIBI, None)
    q, k, v, s = inputs()
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    assert torch.equal(op(*turned, s)[0], op(q, k, v, s)[0])


def test_on_a_stream_of_its_own() -> None:
    op = compiled(ALIBI, None)
    x = inputs()
    want = op(*x)[0]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = op(*x)[0]
    stream.synchronize()
    assert torch.equal(got, want)


def graphed(f: Callable[[], Tensor]) -> Callable[[], Tensor]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            f()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = f()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def test_graph_capture() -> None:
    op = compiled(ALIBI, None)
    x = inputs()
    replay = graphed(lambda: op(*x)[0])
    for _ in range(2):
        for t in x:
            t.normal_()
        assert torch.equal(replay(), op(*x)[0])


def test_graph_capture_with_gradients() -> None:
    op = compiled(ALIBI, None)
    x = inputs(grad=True)

    def step() -> Tensor:
        return torch.cat([g.flatten().float() for g in torch.autograd.grad(op(*x)[0].sum(), x)])

    replay = graphed(step)
    with torch.no_grad():
        for t in x:
            t.normal_()
    torch.testing.assert_close(replay(), step())


def test_graph_capture_of_decoding() -> None:
    op = compiled(ALIBI, None)
    q, k, v, s = inputs()
    q = q[:, :, :1].contiguous()
    at = torch.tensor([5, 150], device="cuda")
    replay = graphed(lambda: op(q, k, v, s, start=at)[0])
    for values in ([7, 199], [0, 63]):
        at.copy_(torch.tensor(values))
        assert torch.equal(replay(), op(q, k, v, s, start=at)[0])


def test_inductor() -> None:
    op = compiled(ALIBI, None)

    @torch.compile(fullgraph=True)
    def layer(q: Tensor, k: Tensor, v: Tensor, s: Tensor) -> Tensor:
        return op(q * 2, k, v, s)[0] + 1

    for n in (64, 200):
        x = inputs(n, grad=True)
        got, want = layer(*x), op(x[0] * 2, *x[1:])[0] + 1
        assert error(got, want) < 1e-2
        do = torch.randn_like(got)
        for a, b in zip(
            torch.autograd.grad(got, x, do), torch.autograd.grad(want, x, do), strict=True
        ):
            assert error(a, b) < 1e-2


def test_autocast() -> None:
    op = compiled(ALIBI, None)
    x = inputs(dtype=torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        o, lse = op(*x)
    assert (o.dtype, lse.dtype) == (torch.bfloat16, torch.float32)


def test_nothing_waits_for_the_gpu() -> None:
    op = compiled(ALIBI, None)
    x = inputs(grad=True)
    op(*x)[0].sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        op(*x)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_small_inputs_are_checked_before_a_launch() -> None:
    q, k, v, s = alibi_inputs()
    with pytest.raises(TypeError, match="different devices"):
        compiled(ALIBI, None)(q.cuda(), k, v, s)
