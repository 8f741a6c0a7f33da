"""The operator on CPU: values, gradients, `start`, and PyTorch's own machinery around it."""

from __future__ import annotations

import ast
import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import attndsl
from tests.unit.runtime.programs import ALIBI, WINDOW, alibi_inputs, compiled


def close(got: torch.Tensor, want: torch.Tensor, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(got.double(), want.double(), rtol=rtol, atol=rtol)


def test_outputs_and_gradients_match_the_reference() -> None:
    op = compiled(ALIBI)
    inputs = alibi_inputs(grad=True)
    o, lse = op(*inputs)
    ro, rlse = op.reference(*inputs, dtype=torch.float64)
    close(o, ro)
    close(lse, rlse)
    do, dlse = torch.randn_like(o), torch.randn_like(lse)
    got = torch.autograd.grad([o, lse], inputs, [do, dlse])
    want = torch.autograd.grad([ro, rlse], inputs, [do.double(), dlse.double()])
    for g, w in zip(got, want, strict=True):
        close(g, w, 1e-4)


def test_tensors_by_name() -> None:
    op = compiled(ALIBI)
    q, k, v, s = alibi_inputs()
    by_place = op(q, k, v, s)
    by_name = op(slope=s, V=v, K=k, Q=q, G=2)
    assert all(torch.equal(a, b) for a, b in zip(by_place, by_name, strict=True))


@pytest.mark.parametrize("program", ["Q", "O", "L_S", "n_b", "len_b", "dQ", "t_hopper", "t"])
def test_a_program_called_as_what_its_modules_name(program: str) -> None:
    text = f"""attention {program}(Q[b,i,e], K[b,j,e], V[b,j,f], t[j]) -> O[b,i,f] {{ batch b
      S[i,j] = Q[i,e] * K[j,e] + t[j]
      O[i,f] = softmax[j](S[i,j]) * V[j,f] }}"""
    op = attndsl.compile(text, backend="eager")
    q, k, v = torch.randn(3, 2, 7, 4)
    inputs = [x.requires_grad_() for x in (q, k, v, torch.randn(7))]
    o = op(*inputs)
    ro = op.reference(*inputs)
    close(o, ro)
    for g, w in zip(
        torch.autograd.grad(o.sum(), inputs), torch.autograd.grad(ro.sum(), inputs), strict=True
    ):
        close(g, w, 1e-4)
    for backward in (False, True):  # the Triton module: no local name of a launcher is a kernel's
        tree = ast.parse(op.source("triton", backward=backward))
        top = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        for launcher in (n for n in tree.body if isinstance(n, ast.FunctionDef)):
            stored = {
                n.id
                for n in ast.walk(launcher)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
            used = {
                n.value.id
                for n in ast.walk(launcher)
                if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name)
            }
            assert not stored & used & top


def test_an_input_called_self() -> None:
    text = """attention p(self[b,i,e], K[b,j,e]) -> O[b,i,e] { batch b
      O[i,e] = softmax[j](self[i,c] * K[j,c]) * K[j,e] }"""
    op = attndsl.compile(text, backend="eager")
    q, k = torch.randn(2, 2, 7, 4)
    close(op(self=q, K=k), op.reference(self=q, K=k))


def test_parameters() -> None:
    op = compiled(WINDOW)
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 17, 8, generator=g)
    for params in ({"cap": 3.0}, {"cap": 3, "w": 2}, {"cap": 3.0, "w": 2, "strict": True}):
        close(op(q, k, v, **params), op.reference(q, k, v, **params))
    assert not torch.equal(op(q, k, v, cap=3.0, w=2), op(q, k, v, cap=3.0, w=2, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_output_types(dtype: torch.dtype) -> None:
    q, k, v, s = alibi_inputs(dtype=dtype)
    slope = s if dtype is torch.float64 else s.float()
    o, lse = compiled(ALIBI)(q, k, v, slope)
    assert o.dtype is dtype
    assert lse.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    ro, rlse = compiled(ALIBI).reference(q, k, v, slope, dtype=torch.float64)
    close(o, ro, 2e-2)
    close(lse, rlse, 1e-5)


def test_gradients_only_where_asked() -> None:
    op = compiled(ALIBI)
    q, k, v, s = alibi_inputs()
    k.requires_grad_()
    o, _ = op(q, k, v, s)
    o.sum().backward()
    ro, _ = op.reference(q, kd := k.detach().requires_grad_(), v, s)
    ro.sum().backward()
    close(k.grad, kd.grad, 1e-4)
    assert q.grad is None


def test_an_unused_output_has_gradient_zero() -> None:
    op = compiled(ALIBI)
    inputs = alibi_inputs(grad=True)
    _, lse = op(*inputs)
    _, rlse = op.reference(*inputs)
    w = torch.randn_like(lse)
    got = torch.autograd.grad((lse * w).sum(), inputs)
    want = torch.autograd.grad((rlse * w).sum(), inputs, allow_unused=True)
    for g, r in zip(got, want, strict=True):
        close(g, torch.zeros_like(g) if r is None else r, 1e-4)


def test_strided_inputs_and_cotangents() -> None:
    op = compiled(ALIBI)
    q, k, v, s = alibi_inputs()
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    strided = [x.requires_grad_() for x in strided]
    dense = [x.requires_grad_() for x in (q, k, v)]
    o1, _ = op(*strided, s)
    o2, _ = op(*dense, s)
    assert torch.equal(o1, o2)
    do = torch.randn(o1.shape[::-1]).permute(3, 2, 1, 0)
    for a, b in zip(
        torch.autograd.grad(o1, strided, do),
        torch.autograd.grad(o2, dense, do.contiguous()),
        strict=True,
    ):
        assert torch.equal(a, b)
    op(*dense, s)[0].sum().backward()  # a cotangent of strides 0


# --- start ---


def test_start_places_the_queries() -> None:
    op = compiled(ALIBI)
    q, k, v, s = alibi_inputs(21)
    whole, lse = op(q, k, v, s)
    last = slice(18, 21)
    for start in ("end", 18, torch.tensor([18, 18]), torch.tensor([18, 18], dtype=torch.int32)):
        o, part = op(q[:, :, last], k, v, s, start=start)
        close(o, whole[:, :, last])
        close(part, lse[:, :, last])
    o, _ = op(q[:, :, 4:9], k, v, s, start=4)
    close(o, whole[:, :, 4:9])


def test_start_for_each_batch_entry() -> None:
    op = compiled(ALIBI)
    q, k, v, s = alibi_inputs(3, 21, grad=True)
    at = torch.tensor([2, 18])
    o, lse = op(q, k, v, s, start=at)
    for b, n in enumerate(at.tolist()):
        want, wlse = op.reference(q[b : b + 1], k[b : b + 1], v[b : b + 1], s, start=n)
        close(o[b : b + 1], want)
        close(lse[b : b + 1], wlse)
    got = torch.autograd.grad(o.sum(), (q, k, v, s))
    total = sum(
        op.reference(q[b : b + 1], k[b : b + 1], v[b : b + 1], s, start=n)[0].sum()
        for b, n in enumerate(at.tolist())
    )
    for g, w in zip(got, torch.autograd.grad(total, (q, k, v, s)), strict=True):
        close(g, w, 1e-4)


def test_start_is_shifted_in_the_backward_pass_too() -> None:
    op = compiled(ALIBI)
    q, k, v, s = alibi_inputs(3, 21, grad=True)
    o, _ = op(q, k, v, s, start="end")
    ro, _ = op.reference(q, k, v, s, start="end")
    for g, w in zip(
        torch.autograd.grad(o.sum(), (q, k, v, s)),
        torch.autograd.grad(ro.sum(), (q, k, v, s)),
        strict=True,
    ):
        close(g, w, 1e-4)


@pytest.mark.parametrize(
    ("n", "m", "start"), [(0, 0, None), (0, 5, "end"), (5, 0, 0), (5, 3, 1), (3, 5, 9)]
)
def test_empty_and_odd_lengths(n: int, m: int, start: int | str | None) -> None:
    op = compiled(ALIBI)
    inputs = alibi_inputs(n, m, grad=True)
    o, lse = op(*inputs, start=start)
    ro, rlse = op.reference(*inputs, start=start)
    close(o, ro)
    close(lse, rlse)
    got = torch.autograd.grad(o.sum(), inputs)
    want = torch.autograd.grad(ro.sum(), inputs, allow_unused=True)
    for g, w, x in zip(got, want, inputs, strict=True):
        close(g, torch.zeros_like(x) if w is None else w, 1e-4)


def test_out() -> None:
    op = compiled(ALIBI)
    inputs = alibi_inputs()
    o, lse = op(*inputs)
    into = (torch.empty_like(o), torch.empty(2, 21, 4).transpose(1, 2))
    assert op(*inputs, out=into) is into
    assert torch.equal(into[0], o)
    assert torch.equal(into[1], lse)
    with pytest.raises(TypeError, match="`out` does not fit"):
        op(*inputs, out=into[::-1])
    with pytest.raises(TypeError, match="cannot be differentiated through"):
        op(*alibi_inputs(grad=True), out=into)


def test_no_batch_entry() -> None:
    q, k, v, s = (x[:0] if x.dim() > 1 else x for x in alibi_inputs(5, grad=True))
    o, _ = compiled(ALIBI)(q, k, v, s)
    assert o.shape == (0, 4, 5, 12)
    assert torch.equal(torch.autograd.grad(o.sum(), s)[0], torch.zeros(4))


def test_copies_of_a_model_that_holds_it() -> None:
    op = compiled(ALIBI)
    assert copy.deepcopy({"op": op})["op"] is op
    again = pickle.loads(pickle.dumps(op))
    x = alibi_inputs()
    assert torch.equal(again(*x)[0], op(*x)[0])


# --- PyTorch's machinery ---


def test_opcheck() -> None:
    op = compiled(ALIBI)
    torch.library.opcheck(op._op, (*alibi_inputs(9, grad=True), None, None, "", None))
    q, k, v, s = alibi_inputs(2, 9)
    torch.library.opcheck(op._op, (q, k, v, s, None, 7, "int", None))
    torch.library.opcheck(op._op, (q, k, v, s, torch.tensor([1, 7]), None, "tensor", 2))


def test_compiles_as_one_graph() -> None:
    op = compiled(ALIBI)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def layer(q, k, v, s):  # type: ignore[no-untyped-def]
        return op(q * 1.0, k, v, s)[0] * 2.0

    for n in (9, 11, 14):
        inputs = alibi_inputs(n, grad=True)
        got, want = layer(*inputs), op(*inputs)[0] * 2.0
        close(got, want)
        for a, b in zip(
            torch.autograd.grad(got.sum(), inputs),
            torch.autograd.grad(want.sum(), inputs),
            strict=True,
        ):
            close(a, b, 1e-4)


def test_a_new_length_does_not_retrace() -> None:
    op = compiled(ALIBI)
    torch._dynamo.reset()
    count = 0

    def backend(graph, example):  # type: ignore[no-untyped-def]
        nonlocal count
        count += 1
        return graph.forward

    @torch.compile(fullgraph=True, dynamic=True, backend=backend)
    def layer(q, k, v, s):  # type: ignore[no-untyped-def]
        return op(q, k, v, s)[0]

    for n in (9, 11, 14, 23):
        inputs = alibi_inputs(n)
        close(layer(*inputs), op(*inputs)[0])
    assert count == 1


def test_decoding_compiles_once() -> None:
    op = compiled(ALIBI)
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(q, k, v, s, start):  # type: ignore[no-untyped-def]
        return op(q, k, v, s, start=start)[0]

    q, k, v, s = alibi_inputs(1, 21)
    for n in (3, 7, 8, 20):
        close(step(q, k, v, s, n), op(q, k, v, s, start=n)[0])


def test_no_grad_keeps_nothing() -> None:
    op = compiled(ALIBI)
    kept: list[torch.Size] = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.shape)
        return x

    inputs = alibi_inputs(grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        with torch.no_grad():
            o, _ = op(*inputs)
        assert kept == []
        assert o.grad_fn is None
        op(*inputs)
    # inputs, the output and the row statistics: nothing of |i| x |j|
    assert all(len(s) < 2 or s[-2:] != (21, 21) for s in kept)
    assert 4 <= len(kept) <= 7


def test_checkpointing() -> None:
    op = compiled(ALIBI)
    inputs = alibi_inputs(grad=True)
    o = checkpoint(lambda *x: op(*x)[0], *inputs, use_reentrant=False)
    got = torch.autograd.grad(o.sum(), inputs)
    want = torch.autograd.grad(op(*inputs)[0].sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_autocast_narrows_the_operands_of_products() -> None:
    op = compiled(ALIBI)
    inputs = alibi_inputs(grad=True)
    q, k, v, s = inputs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o, lse = op(*inputs)
    assert (o.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    want, _ = op(*(x.bfloat16() for x in (q, k, v)), s)
    assert torch.equal(o, want)
    o.float().sum().backward()
    assert {x.grad.dtype for x in inputs} == {torch.float32}


def test_no_second_derivative() -> None:
    op = compiled(ALIBI)
    inputs = alibi_inputs(grad=True)
    (g,) = torch.autograd.grad(op(*inputs)[0].sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match=r"`alibi` has no second derivative.*op.reference"):
        g.sum().backward()


def test_explain_and_source() -> None:
    op = compiled(ALIBI)
    text = op.explain(backward=True)
    assert "attention alibi(" in text
    assert "dslope[h]" in text
    source = op.source("eager")
    assert "def forward(" in source
    assert "def backward(" in source
    assert "import triton" not in source


def test_a_new_length_generates_nothing() -> None:
    op = attndsl.compile(ALIBI, backend="eager")
    op(*alibi_inputs(9))
    stages = dict(op._engine.stages)
    op(*alibi_inputs(13))
    assert op._engine.stages == stages


def test_attention_spec_is_the_same_program() -> None:
    from attndsl import Tensor

    @attndsl.attention_spec(backend="eager")
    def causal(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"], V: Tensor["b,h,j,f"]):  # noqa: F821, UP037
        batch(b, h)  # noqa: F821
        S[i, j : j <= i] = Q[i, e] * K[j, e] / sqrt(len(e))  # noqa: F821
        O[i, f] = softmax[j](S[i, j]) * V[j, f]  # noqa: F821
        return O[i, f]  # noqa: F821

    q, k, v = torch.randn(3, 2, 2, 11, 8)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    close(causal(q, k, v), want)


def test_a_gradient_that_is_spread_comes_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sum()` hands back one value with strides of 0, which neither wide loads nor the copy engine can read."""
    from attndsl.runtime.stages import Stage

    seen: list[tuple[int, ...]] = []
    run = Stage.backward

    def backward(self: Stage, tensors: Any, given: Any, *rest: Any) -> Any:
        seen.extend(g.stride() for g in given.values())
        return run(self, tensors, given, *rest)

    monkeypatch.setattr(Stage, "backward", backward)
    op = attndsl.load(Path(__file__).parents[3] / "examples" / "causal.attn", backend="eager")
    q, k, v = (torch.randn(1, 2, 9, 4, requires_grad=True) for _ in range(3))
    out = op(q, k, v)
    out.sum().backward()
    assert seen == [out.stride()]
