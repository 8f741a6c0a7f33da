"""Kernels whose warps specialise, on a Hopper card: against float64, and bitwise equal on repeat."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import attndsl

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = ["full", "causal", "softcap", "window", "sigmoid", "softpick", "off_by_one", "prefix_lm"]
PROGRAMS += ["relu2", "temperature_query"]  # with a factor for each row
SHAPES = [(2, 4, 256, 128), (1, 4, 333, 64), (2, 3, 1000, 128), (1, 2, 517, 96), (1, 2, 1, 64)]
# More tiles than a card has multiprocessors, so that programs go from tile to tile.
SHAPES += [(4, 16, 1000, 64), (3, 7, 1530, 128)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9,
        reason="needs a Hopper card",
    ),
]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_against_float64(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn", backend="hopper")
    torch.manual_seed(0)
    x = [torch.randn(shape, device="cuda", dtype=dtype).requires_grad_() for _ in range(3)]
    wide = [t.detach().double().requires_grad_() for t in x]

    rest = [torch.full(shape[:1], shape[2] // 3, device="cuda")] if name == "prefix_lm" else []
    if name == "temperature_query":
        rest = [(torch.rand(shape[:3], device="cuda") + shape[3] ** 0.5).to(dtype)]
    agrees(op, x, wide, rest)


@pytest.mark.parametrize(
    ("shape", "order", "kind"),
    [
        ((3, 7, 1530, 128), "mixed", torch.int32),
        ((1, 2, 77, 128), "sorted", torch.int32),
        ((2, 3, 333, 64), "sorted", torch.int64),
    ],
)
def test_documents(shape: tuple[int, ...], order: str, kind: torch.dtype) -> None:
    """Ids of keys come beside their tiles; with queries whose document has no keys, and keys that nobody reads."""
    op = attndsl.load(EXAMPLES / "documents.attn", backend="hopper")
    torch.manual_seed(0)
    x = [torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in "QKV"]
    queries = torch.randint(0, 6, (shape[0], shape[2]), device="cuda", dtype=kind)
    if order == "sorted":
        queries = queries.sort(-1)[0]
    keys = queries.clone()
    queries[:, 5::50], keys[:, ::7] = 50, 99
    agrees(op, x, [t.detach().double().requires_grad_() for t in x], [queries, keys])


@pytest.mark.parametrize("heads", [(8, 2), (64, 32)])
@pytest.mark.parametrize("name", ["gqa", "mqa"])
def test_heads_that_share_keys(name: str, heads: tuple[int, int]) -> None:
    """The kernel of dK and dV goes through the heads of a group."""
    queries, keys = heads
    op = attndsl.load(EXAMPLES / f"{name}.attn", backend="hopper")
    torch.manual_seed(0)
    few = (2, keys, 700, 128) if name == "gqa" else (2, 700, 128)
    x = [
        torch.randn(s, device="cuda", dtype=torch.bfloat16).requires_grad_()
        for s in ((2, queries, 700, 128), few, few)
    ]
    params = {"G": queries // keys} if name == "gqa" else {}
    agrees(op, x, [t.detach().double().requires_grad_() for t in x], [], params)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", ["full", "causal", "documents"])
def test_a_hundred_repeats_are_bitwise_equal(name: str, head_dim: int) -> None:
    """Forward and backward, while another stream keeps the card busy."""
    op = attndsl.load(EXAMPLES / f"{name}.attn", backend="hopper")
    torch.manual_seed(0)
    shape = (4, 8, 1000, head_dim)
    x = [torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(3)]
    cotangent = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    ids = (torch.arange(1000, device="cuda") ** 2 // 90000).expand(4, -1).contiguous()
    rest = [ids, ids] if name == "documents" else []
    busy, other = torch.randn(2048, 2048, device="cuda"), torch.cuda.Stream()
    first: list[torch.Tensor] = []
    for _ in range(100):
        with torch.cuda.stream(other):
            busy @ busy
        out = op(*x, *rest)
        made = [out.detach(), *torch.autograd.grad(out, x, cotangent)]
        first = first or made
        assert all(map(torch.equal, made, first))


def agrees(
    op: Any,
    x: list[torch.Tensor],
    wide: list[torch.Tensor],
    rest: list[torch.Tensor],
    params: Any = None,
) -> None:
    """Outputs and gradients are as close to float64 as the dense reference's, and bitwise equal on repeat."""
    dtype = x[0].dtype

    def evaluated(call, tensors):  # type: ignore[no-untyped-def]
        more = [r.to(tensors[0].dtype) if r.is_floating_point() else r for r in rest]
        out = call(*tensors, *more, **(params or {}))
        out = out[0] if isinstance(out, tuple) else out
        cotangent = torch.ones_like(out).cumsum(-1) / out.shape[-1]
        return [out.detach(), *torch.autograd.grad(out, tensors, cotangent)]

    exact = evaluated(op.reference, wide)
    dense = evaluated(op.reference, x)
    made = evaluated(op, x)
    again = evaluated(op, x)
    eps = torch.finfo(dtype).eps
    largest = max(float(e.norm()) for e in exact)
    for a, b, r, e in zip(made, again, dense, exact, strict=True):
        assert torch.equal(a, b)
        if float(e.norm()) < eps**2 * largest:
            # What cancels to nothing (softpick over one key) is compared with what it cancels from.
            assert float((a.double() - e).norm()) <= 2 * eps * largest
        elif float(e.norm()) > 0:
            assert relative(a, e) <= 1.5 * relative(r, e) + 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ["full", "causal", "softcap", "prefix_lm", "window", "documents"])
def test_auto_is_the_faster_form_of_each_kernel(name: str) -> None:
    """Of a long call some kernels are portable, and whose warps specialise in others; at every repeat."""
    torch.manual_seed(0)
    shape = (4, 16, 4096, 128)
    x = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    rest = [torch.full((4,), 1000, device="cuda")] if name == "prefix_lm" else []
    if name == "documents":
        rest = [(torch.arange(4096, device="cuda") // 500).expand(4, -1).contiguous()] * 2
    cotangent = torch.randn_like(x[0])
    made = {}
    for backend in ("triton", "hopper", "auto"):
        op = attndsl.load(EXAMPLES / f"{name}.attn", backend=backend)
        for repeat in range(3):
            given = [t.clone().requires_grad_() for t in x]
            out = op(*given, *rest)
            grads = torch.autograd.grad(out, given, cotangent)
            again = [out.detach(), *grads]
            if repeat:
                assert all(map(torch.equal, again, made[backend]))
            made[backend] = again
            poison = [torch.full_like(t, torch.nan) for t in again]
            del out, grads, given, poison
    assert torch.equal(made["auto"][0], made["hopper"][0])
    for a, b in zip(made["auto"], made["triton"], strict=True):
        assert relative(a, b.double()) < 4e-3
    small = [t[:, :, :100].contiguous() for t in x]
    if name == "documents":
        rest = [rest[0][:, :100].contiguous()] * 2
    one, other = (
        attndsl.load(EXAMPLES / f"{name}.attn", backend=k)(*small, *rest)
        for k in ("triton", "auto")
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("backend", ["triton", "hopper"])
def test_a_thread_without_a_context_launches(backend: str) -> None:
    """Where memory is at hand, the first that a thread asks of CUDA is the description of tiles to the copy engine."""
    op = attndsl.load(EXAMPLES / "causal.attn", backend=backend)
    x = [torch.randn(1, 2, 512, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    given = [t.requires_grad_() for t in x]
    out = op(*given)
    cotangent = torch.randn_like(out)
    known = torch.autograd.grad(out, given, cotangent, retain_graph=True)

    def elsewhere(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Results of a call in a thread that has done nothing yet."""
        made: list[torch.Tensor] = []
        thread = threading.Thread(target=lambda: made.extend([op(*inputs)]))
        thread.start()
        thread.join()
        return made

    with torch.no_grad():
        copies = [t.clone() for t in given]
        spare = torch.empty_like(out)
        del spare
        for inputs in (
            given,
            copies,
        ):  # recorded, and where tensors lie elsewhere than at the recording
            (made,) = elsewhere(inputs)
            assert torch.equal(made, out)
    again = torch.autograd.grad(out, given, cotangent)
    assert all(map(torch.equal, known, again))


@pytest.mark.parametrize("shape", [(2, 3, 1000, 128), (1, 2, 137, 64), (4, 16, 1530, 128)])
@pytest.mark.parametrize("name", ["full", "causal", "window", "prefix_lm", "softcap"])
def test_sums_in_memory(name: str, shape: tuple[int, ...]) -> None:
    """Five products instead of seven are as near to the truth."""
    torch.manual_seed(0)
    x = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in "QKV"]
    rest = [torch.full(shape[:1], shape[2] // 3, device="cuda")] if name == "prefix_lm" else []
    cotangent = torch.randn_like(x[0])
    made = {}
    for deterministic in (True, False):
        op = attndsl.load(EXAMPLES / f"{name}.attn", backend="hopper", deterministic=deterministic)
        given = [t.clone().requires_grad_() for t in x]
        made[deterministic] = torch.autograd.grad(op(*given, *rest), given, cotangent)
    wide = [t.double().requires_grad_() for t in x]
    exact = torch.autograd.grad(op.reference(*wide, *rest), wide, cotangent.double())
    for a, b, e in zip(made[False], made[True], exact, strict=True):
        assert relative(a, e) <= 1.05 * relative(b, e)


def test_what_pytorch_forbids_is_not_done() -> None:
    torch.manual_seed(0)
    x = [torch.randn(4, 16, 4096, 128, device="cuda", dtype=torch.bfloat16) for _ in "QKV"]
    made = {}
    for deterministic in (True, False):
        op = attndsl.load(EXAMPLES / "full.attn", backend="auto", deterministic=deterministic)
        given = [t.clone().requires_grad_() for t in x]
        out = op(*given)
        for forbidden in (False, True, False, True):  # what was launched before, too
            torch.use_deterministic_algorithms(forbidden)
            made[deterministic, forbidden] = torch.autograd.grad(
                out, given, x[0], retain_graph=True
            )
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, made[True, True], made[False, True]))
    assert not torch.equal(made[False, False][0], made[False, True][0])


def test_a_graph_of_sizes_that_were_not_called_before() -> None:
    """The list of tiles comes from the host; where it cannot, the portable kernel is captured."""
    op = attndsl.load(EXAMPLES / "causal.attn", backend="hopper")
    torch.manual_seed(0)
    x = [torch.randn(2, 4, 1000, 128, device="cuda", dtype=torch.bfloat16) for _ in "QKV"]
    op(*x)
    y = [t[:, :, :700].contiguous() for t in x]
    attndsl.load(EXAMPLES / "causal.attn", backend="triton")(*y)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = op(*y)
    graph.replay()
    assert relative(out, op(*y).double()) < 4e-3
