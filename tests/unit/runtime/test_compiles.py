"""How often kernels are compiled: once for each layout class, whatever the lengths, batches and heads.

A layout class says which addresses and strides are multiples of 16 elements, which is compiled in.
Tensors with a head dim last, packed, of a multiple of 16 elements are all of one class. Views at odd addresses are of
another where their strides are odd too; a stride that happens to be a multiple of 16 makes one more. Pairs of positions
(a dense bias) are read in rows as long as the sequence: there are three classes of lengths.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import attndsl
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from tests.unit.runtime.counting import Counted

EXAMPLES = Path(__file__).parents[3] / "examples"
# Scores, a table gathered at positions, ids, sums beside the output, normalisers that take several sweeps, chunks.
PROGRAMS = [
    "alibi",
    "bias_toeplitz",
    "column_sums",
    "documents",
    "fox",
    "gqa",
    "retnet",
    "softcap",
    "sparsemax",
    "transformer_xl",
    "window_sink",
]
LENGTHS = [1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 511, 512, 1000, 2047, 4096, 8191, 8192]
ODD = [1 + 2 * n for n in (0, 1, 7, 8, 31, 32, 500, 4095)]


@cache
def counted(name: str) -> Counted:
    pytest.importorskip("triton")
    (cascade,) = load_cascades(read_source(EXAMPLES / f"{name}.attn"))
    return Counted(cascade)


@pytest.mark.parametrize("name", PROGRAMS)
def test_lengths_batches_and_heads_compile_nothing(name: str) -> None:
    program = counted(name)
    first = program.call(200, 2, 2, aligned=True)
    assert {kernel for kernel, _ in first} >= set(program.stage.module.KERNELS) - others(program)
    for length in LENGTHS:
        assert not program.call(length, 1, 1, aligned=True), f"{length} positions"
    for batch, heads in ((1, 3), (5, 1), (3, 8), (16, 2)):
        assert not program.call(129, batch, heads, aligned=True), f"{batch} x {heads}"


@pytest.mark.parametrize("name", ["bias_dense", "bias_broadcast"])
def test_rows_of_a_length_are_of_one_of_three_classes(name: str) -> None:
    """A pair of positions is read in rows whose stride is a length: a multiple of 16, of 8, or neither."""
    program = counted(name)
    for length in (208, 200, 201):
        program.call(length, 2, 2, aligned=True)
    for length in (1, 2, 8, 15, 16, 24, 63, 64, 129, 1000, 2047, 2048):
        for batch, heads in ((1, 1), (2, 1), (3, 2)):
            assert not program.call(length, batch, heads, aligned=True), f"{length} positions"


@pytest.mark.parametrize("name", ["alibi", "documents", "gqa"])
def test_unaligned_calls_are_a_class_of_their_own(name: str) -> None:
    program = counted(name)
    program.call(200, 2, 2, aligned=True)
    assert program.call(201, 3, 3, aligned=False)
    for length in ODD[1:]:
        assert not program.call(length, 5, 3, aligned=False), f"{length} positions"


@pytest.mark.parametrize("name", ["alibi", "gqa"])
def test_gradients_of_sums_compile_nothing_for_another_length(name: str) -> None:
    program = counted(name)
    program.call(200, 2, 2, aligned=True, spread=True)
    for length in (1, 2, 15, 64, 1000):
        assert not program.call(length, 1, 1, aligned=True, spread=True), f"{length} positions"


def test_one_query_over_a_cache_of_any_length() -> None:
    program = counted("gqa")
    program.call(200, 2, 2, aligned=True)
    first = program.call(4096, 2, 2, aligned=True, i=1)
    assert {kernel for kernel, _ in first} == {"gqa_slices", "gqa_merge"}
    for keys, batch in ((513, 1), (1000, 3), (8191, 2), (65536, 1)):
        for queries in (1, 3):
            assert not program.call(keys, batch, 1, aligned=True, i=queries)


def test_another_head_dim_is_another_kernel() -> None:
    program = counted("gqa")
    program.call(200, 2, 2, aligned=True)
    assert program.call(200, 2, 2, aligned=True, e=32)


def others(program: Counted) -> set[str]:
    """Kernels for few queries, and those that go on in float32: such calls in 16 bits do not launch them."""
    passes = program.stage.passes
    names = (
        [] if passes.split is None else [s.name for s in passes.split.steps if hasattr(s, "name")]
    )
    names += [s.again.name for s in passes.forward.steps if getattr(s, "again", None) is not None]
    return {n.replace(".", "_") for n in names}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_compiles_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton import knobs

    op = attndsl.load(EXAMPLES / "alibi.attn")

    def call(n: int, batch: int, heads: int) -> None:
        shapes = ((batch, 2 * heads, n, 64), (batch, heads, n, 64), (batch, heads, n, 64))
        q, k, v = (torch.randn(s, device="cuda", dtype=torch.bfloat16) for s in shapes)
        slope = torch.rand(2 * heads, device="cuda")
        tracked = [x.requires_grad_() for x in (q, k, v, slope)]
        op(*tracked, G=2)[0].sum().backward()

    call(200, 2, 2)
    compiled: list[str] = []

    def note(*_: object, repr: str = "", **__: object) -> None:
        compiled.append(repr)

    monkeypatch.setattr(knobs.runtime, "jit_post_compile_hook", note)
    for n in LENGTHS:
        call(n, 1, 1)
    for batch, heads in ((1, 3), (5, 1), (3, 8)):
        call(129, batch, heads)
    assert compiled == []
