"""`precision=`: how operands of float32 are multiplied, without a card."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import attndsl
from attndsl.codegen.aot import ITEM_SIZE, SHARED_MEMORY, compile_kernels, kernel_table
from attndsl.codegen.configs import choice, demand

EXAMPLES = Path(__file__).parents[3] / "examples"
SIZES = {"e": 128, "f": 128}


def operator(example: str, **how: Any) -> Any:
    return attndsl.load(EXAMPLES / f"{example}.attn", backend="triton", **how)


def text(example: str, wrt: tuple[str, ...] = ("Q", "K", "V"), **how: Any) -> str:
    made: str = operator(example, **how)._engine.stage("none", wrt, "triton").text
    return made


def test_products_are_of_parts_by_default() -> None:
    assert 'PRODUCTS = tl.constexpr("bf16x6")' in text("causal")


def test_a_user_turns_back_to_ieee() -> None:
    assert 'PRODUCTS = tl.constexpr("ieee")' in text("causal", precision="ieee")


def test_another_precision_is_none() -> None:
    with pytest.raises(ValueError, match="precision 'tf32' is none of split, ieee"):
        operator("causal", precision="tf32")


def test_a_copy_has_it_too() -> None:
    op = pickle.loads(pickle.dumps(operator("causal", precision="ieee")))
    assert 'tl.constexpr("ieee")' in op._engine.stage("none", (), "triton").text


@pytest.mark.parametrize("example", ["gla", "simplicial2", "selective"])
def test_chunks_loops_and_blocks_keep_ieee_products(example: str) -> None:
    """Parts of what a loop around a sweep multiplies on the way took more shared memory than a block has."""
    assert 'PRODUCTS = tl.constexpr("ieee")' in text(example, ())


def test_parts_have_room_in_shared_memory() -> None:
    """What stays there takes half as much again as its elements; products of IEEE take tiles of their own."""
    smem, size = SHARED_MEMORY["sm_90"], ITEM_SIZE["fp32"]
    tables = [kernel_table(text("causal", precision=p)) for p in ("split", "ieee")]
    chosen = [{k: choice(v["facts"], SIZES, size, smem) for k, v in t.items()} for t in tables]
    for name, kernel in tables[0].items():
        if not kernel["facts"]["stream"]:
            continue
        config = chosen[0][name]
        assert config != chosen[1][name]
        blocks = {k.removeprefix("BLOCK_").lower(): n for k, n in config.items()}
        dims = {**dict.fromkeys(kernel["facts"]["pads"], 128), **blocks}
        how = (size, config["num_warps"], config["num_stages"])
        assert demand(kernel["facts"], dims, *how, parts=True)[0] <= smem


def test_cards_without_room_for_parts_choose_as_for_ieee() -> None:
    smem, size = SHARED_MEMORY["sm_80"], ITEM_SIZE["fp32"]
    split, ieee = (kernel_table(text("causal", precision=p)) for p in ("split", "ieee"))
    for name, kernel in split.items():
        one, other = (choice(k["facts"], SIZES, size, smem) for k in (kernel, ieee[name]))
        assert one == other


def products(target: str, precision: str, folder: Path) -> tuple[int, int]:
    """Instructions of matrix units and multiply-adds of a causal forward kernel's code."""
    path = folder / f"{precision}.py"
    path.write_text(text("causal", (), precision=precision), encoding="utf-8")
    kernels = compile_kernels(path, targets=[target], dtype="fp32", extents=dict.fromkeys("ef", 64))
    (ptx,) = (k.ptx for k in kernels if k.name == "causal")
    return ptx.count("mma_async") + ptx.count("mma.sync"), ptx.count("fma.rn.f32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precision", "parts"),
    [("sm_90", "split", True), ("sm_90", "ieee", False), ("sm_80", "split", False)],
)
def test_matrix_units_multiply_parts(
    target: str, precision: str, parts: bool, tmp_path: Path
) -> None:
    matrix, ordinary = products(target, precision, tmp_path)
    assert (matrix > 0) == parts
    assert (ordinary > 1000) != parts
