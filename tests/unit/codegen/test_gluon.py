"""Kernels whose warps specialise: which programs get them, and what their machine code is like."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attndsl import driver
from attndsl.cascade.nodes import Compare, DType
from attndsl.codegen.aot import compile_kernels
from attndsl.codegen.configs import choose_warps
from attndsl.codegen.descriptors import misread
from attndsl.codegen.triton import render_module
from attndsl.output import module_text
from attndsl.runtime.stages import plan_passes
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import Compute, Load, Plan, TileProgram, TileReach
from attndsl.schedule.warps import Order, Roles, Unfit, begun, roles
from tests.unit.schedule.harness import load

EXAMPLES = Path(__file__).parents[3] / "examples"

SCAN = """
attention several(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = (elu(Q[i,e]) + 1) * (elu(K[j,e]) + 1)   where j <= i, i - j < 64
  O[i,f] = S[i,j] * V[j,f]
}
"""


def found(path: Path) -> dict[str, Roles | Unfit]:
    program = driver.load(path)
    out: dict[str, Roles | Unfit] = {}
    for plan in program.plans:
        assert isinstance(plan, Plan)
        out |= {s.name: roles(plan, s) for s in plan.steps if isinstance(s, TileProgram)}
    return out


def test_roles_of_softmax_attention() -> None:
    forward = found(EXAMPLES / "causal.attn")["causal"]
    assert isinstance(forward, Roles)
    assert (forward.tile, forward.stream) == ("i", "j")
    assert [x.tensor for x in forward.resident.values()] == ["Q"]
    assert [x.tensor for x in forward.rings.values()] == ["K", "V"]
    assert {b.masked for b in forward.bodies} == {True, False}
    for body in forward.bodies:
        assert len(body.scores) == len(body.sums) == 1


def test_the_backward_pass_has_roles_too() -> None:
    kernels = found(EXAMPLES / "causal.attn")
    keys = kernels["causal_backward_dK_dV"]
    assert isinstance(keys, Roles)
    assert {x.tensor for x in keys.resident.values()} == {"K", "V"}
    assert {x.tensor for x in keys.rings.values()} == {"Q", "dO"}
    assert all(len(b.sums) == 2 for b in keys.bodies)


def test_heads_that_share_keys_are_turns_around_the_sweep() -> None:
    keys = found(EXAMPLES / "gqa.attn")["gqa_backward_dK_dV"]
    assert isinstance(keys, Roles)
    assert {x.tensor for x in keys.beside.values() if isinstance(x, Load)} == {"L_S", "D"}
    assert {x.tensor for x in keys.stores.values()} == {"dK", "dV"}
    assert keys.order is Order.ALONE
    assert found(EXAMPLES / "gqa.attn")["gqa"].order is Order.CARRIED  # type: ignore[union-attr]


def test_the_producer_makes_the_vectors_of_the_stream() -> None:
    """What is computed of them alone too: a consumer reads the scaled log-sum-exp, and never the plain one."""
    for name in ("causal", "softcap"):
        keys = found(EXAMPLES / f"{name}.attn")[f"{name}_backward_dK_dV"]
        assert isinstance(keys, Roles)
        assert len(keys.columns) == 2 < len(keys.beside)
        loads = {n for n, s in keys.beside.items() if isinstance(s, Load)}
        assert len(loads & set(keys.columns)) == 1


def test_the_producer_makes_what_positions_add_to_them() -> None:
    """A bias in the query's position is part of the exponent's shift; masks ask consumers' own positions."""
    keys = found(EXAMPLES / "alibi.attn")["alibi_backward_dK_dV"]
    assert isinstance(keys, Roles)
    loads = {n for n, s in keys.beside.items() if isinstance(s, Load)}
    alone = {n for n, s in keys.beside.items() if n not in loads and not used(s) & set(keys.beside)}
    assert len(alone) == 1
    assert alone | loads <= keys.spared | set(keys.columns)
    read = {n for b in keys.bodies for s in (*b.early, *b.middle) for n in used(s)}
    masks = [s for b in keys.bodies for s in b.early if isinstance(s, Compute)]
    masks = [s for s in masks if s.dtype is not DType.FLOAT and s.name in read]
    assert masks
    assert not keys.spared & {s.name for s in masks}


def test_a_mask_is_one_branch_of_a_step() -> None:
    """Which queries are there at all is asked inside it, not by one of its own."""
    program = driver.load(EXAMPLES / "causal.attn")
    text = module_text(program, driver.CompileOptions(hopper=True))
    begin = text.index("def causal_backward_dK_dV_hopper_compute(")
    body = text[begin : text.index("@gluon.jit", begin)]
    branch = "if (i0 < own_full) | (i0 >= own_full_end):"
    assert body.count(branch) == 1
    assert body.index(branch) < body.index("i < len_i")


def test_an_operand_waits_where_registers_have_room_for_it() -> None:
    """A softcap's dQ holds the capped score beside the weight and the product: no tile more."""
    plain, capped = (found(EXAMPLES / f"{n}.attn") for n in ("causal", "softcap"))
    assert plain["causal_backward_D_dQ"].order is Order.CARRIED  # type: ignore[union-attr]
    assert capped["softcap_backward_D_dQ"].order is Order.ALONE  # type: ignore[union-attr]
    assert capped["softcap"].order is Order.CARRIED  # type: ignore[union-attr]


def test_the_reach_of_a_tile_is_known_to_all_warps() -> None:
    """Ids of keys come beside the tiles of keys, and the tile's reach before the warps part."""
    kernels = found(EXAMPLES / "documents.attn")
    keys = {"documents": "kdoc", "documents_backward_D_dQ": "kdoc"}
    for name, ids in (keys | {"documents_backward_dK_dV": "qdoc"}).items():
        kernel = kernels[name]
        assert isinstance(kernel, Roles), kernel
        assert ids in {x.tensor for x in kernel.columns.values() if isinstance(x, Load)}
        assert any(isinstance(s, TileReach) for s in kernel.scalars)


def test_what_lies_beside_a_tile_is_read_before_its_stage_is_given_back() -> None:
    program = driver.load(EXAMPLES / "documents.attn")
    text = module_text(program, driver.CompileOptions(hopper=True))
    consumer = text.split("def documents_hopper_compute(")[1].split("\n@gluon.jit")[0]
    seen = re.findall(r"(kdoc_ring\S*\.load)|mbarrier\.arrive\(k_empty", consumer)
    assert [bool(read) for read in seen] == [True, False] * 2  # in the first step and in the loop


def test_a_mask_is_one_comparison_a_pair() -> None:
    for kernel in found(EXAMPLES / "causal.attn").values():
        assert isinstance(kernel, Roles)
        (masked, *_) = [r for r in kernel.sweep.ranges if r.masked]
        masks = [s for s in masked.body if isinstance(s, Compute) and s.name == "mask"]
        assert [type(s.expr) for s in masks] == [Compare]


def test_operands_that_are_computed_keep_the_portable_form(tmp_path: Path) -> None:
    path = tmp_path / "several.attn"
    path.write_text(SCAN, encoding="utf-8")
    forward = found(path)["several"]
    assert isinstance(forward, Unfit)
    assert "tile of memory" in forward.reason or "waits for" in forward.reason, forward.reason


@pytest.mark.parametrize(
    "example",
    ["causal", *(pytest.param(n, marks=pytest.mark.slow) for n in ("full", "window", "documents"))],
)
@pytest.mark.parametrize("dim", [128, pytest.param(64, marks=pytest.mark.slow)])
def test_a_kernel_adds_up_what_another_summed(example: str, dim: int, tmp_path: Path) -> None:
    """Five products, of which groups share the fifth's; the copy engine adds, and one warp has it do so."""
    program = driver.load(EXAMPLES / f"{example}.attn")
    path = tmp_path / f"{example}.py"
    options = driver.CompileOptions(hopper=True, added=True)
    path.write_text(module_text(program, options), encoding="utf-8")
    name = f"{example}_backward_dK_dV_dQ_hopper"
    made = compile_kernels(path, targets=["sm_90"], extents={"e": dim, "f": dim})
    (kernel,) = (k for k in made if k.name == name)
    assert kernel.shared <= 227 * 1024
    # A narrow head's queries go by 128 where sweeps are long, and a group adds all columns of half of them.
    wide = dim == 64 and example in ("causal", "full")
    assert kernel.config["BLOCK_I"] == (128 if wide else 64)
    assert kernel.ptx.count("cp.reduce.async.bulk.tensor") == 2 * (2 if wide else dim // 64)
    # Waited for one by one, products would be as many as waits. Those of narrow heads are of four instructions.
    several = 4 if dim == 64 else 5
    assert kernel.sass.count("HGMMA") >= several * kernel.sass.count("WARPGROUP.DEPBAR") > 0
    # Of 128 queries, what is read once a step (addresses, bounds) waits in local memory.
    assert kernel.sass_stats.spills_in_loops <= (24 if wide else 10)
    assert not misread(kernel.sass)


@pytest.mark.parametrize(("dim", "scores", "sums"), [(96, 6, 8), (128, 8, 8)])
def test_scores_are_no_products_of_padding(
    dim: int, scores: int, sums: int, tmp_path: Path
) -> None:
    """Of 96 features, which lie in tiles of 128, instructions multiply 96."""
    program = driver.load(EXAMPLES / "full.attn")
    path = tmp_path / "full.py"
    path.write_text(module_text(program, driver.CompileOptions(hopper=True, backward=False)))
    made = compile_kernels(path, targets=["sm_90"], extents={"e": dim, "f": dim})
    (kernel,) = (k for k in made if k.name == "full_hopper")
    # Those of the first tile and of the last product, and those of the loop, for each way of sharing rows.
    assert kernel.sass.count("HGMMA") == 2 * 2 * (scores + sums)
    assert kernel.spills == 0


@pytest.mark.parametrize("mask", ["", "   where j <= i"])
def test_products_of_8_bits_run_asynchronously(mask: str, tmp_path: Path) -> None:
    """Weights go from scores to operands in the registers they are in: two numbers are converted, and nothing moves."""
    text = f"""attention eight(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {{
      batch b
      S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|){mask}
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }}"""
    passes = plan_passes(load(text), (), eight=("Q", "K", "V"))
    path = tmp_path / "eight.py"
    path.write_text(render_module("eight", passes.forward, None, "header", hopper=True))
    (kernel,) = (
        k
        for k in compile_kernels(
            path, targets=["sm_90"], dtype="e4m3", extents={"e": 128, "f": 128}
        )
        if k.name == "eight_hopper"
    )
    counts = kernel.sass_stats.in_loops
    assert kernel.spills == 0
    assert counts["QGMMA"] >= 4 * kernel.sass.count("WARPGROUP.DEPBAR") > 0
    assert counts["SHFL"] <= 2 * counts["QGMMA"]  # those of row statistics alone
    assert counts["PRMT"] <= counts["F2FP"]
    assert not misread(kernel.sass)


def test_products_begin_with_vectors_that_are_added_to_them() -> None:
    """`dP - D` of dK and dV; where a vector is read besides, or the product is, nothing begins."""
    keys = found(EXAMPLES / "causal.attn")["causal_backward_dK_dV"]
    assert isinstance(keys, Roles)
    for body in keys.bodies:
        changed, starts = begun(body, keys.stream)
        assert starts == {"dP_S": ("-", "d")}
        (made,) = (s for s in changed.middle if getattr(s, "name", "") == "dS")
        assert used(made) == {"dP_S", "P_S"}
    forward = found(EXAMPLES / "causal.attn")["causal"]
    assert isinstance(forward, Roles)
    assert not any(begun(b, forward.stream)[1] for b in forward.bodies)


def test_blocks_fit_what_a_group_holds() -> None:
    facts = {
        "tile": "I",
        "stream": "J",
        "resident": ["e"],
        "also": [],
        "folded": True,
        "rings": ["e", "f"],
        "sums": ["f"],
        "stores": [["f", "e"]],
        "order": "carried",
        "looked_up": False,
        "columns": 0,
        "pairs": 1,
        "compares": False,
    }
    smem = 227 * 1024
    chosen = choose_warps(facts, {"e": 128, "f": 128}, smem)
    assert chosen is not None
    assert (chosen["GROUPS"], chosen["BLOCK_I"], chosen["BLOCK_J"]) == (2, 128, 128)
    narrow = choose_warps(facts, {"e": 64, "f": 64}, smem)
    assert narrow is not None
    assert (narrow["GROUPS"], narrow["BLOCK_I"], narrow["REGISTERS"]) == (3, 192, 160)
    # One product of 64 for each exponential is too few to run beside it.
    assert (chosen["HELD"], narrow["HELD"]) == (1, 0)
    two = choose_warps(facts | {"resident": ["e", "f"], "pairs": 2}, {"e": 64, "f": 64}, smem)
    assert two is not None
    assert two["HELD"] == 1
    masked = choose_warps({**facts, "compares": True}, {"e": 64, "f": 64}, smem)
    assert masked is not None
    assert (masked["GROUPS"], masked["BLOCK_I"], masked["REGISTERS"]) == (2, 128, 240)
    added = facts | {"order": "alone", "across": ["e"], "turns": 0, "worth": {64: 4096}, "pairs": 2}
    added |= {"resident": ["e", "f"], "sums": ["e", "f"], "stores": [["e", "e"], ["f", "f"]]}
    queries = {}
    for dim, turns in ((64, 0), (64, 1), (128, 0)):
        blocks = choose_warps(added | {"turns": turns}, {"e": dim, "f": dim}, smem)
        assert blocks is not None
        queries[dim, turns] = blocks["BLOCK_J"]
    assert queries == {(64, 0): 128, (64, 1): 64, (128, 0): 64}
    # Two tiles of pairs leave three groups just room enough, and none for a mask.
    two = {**facts, "pairs": 2, "folded": False}
    for compares, groups in ((False, 3), (True, 2)):
        made = choose_warps({**two, "compares": compares}, {"e": 128, "f": 128}, smem)
        assert made is not None
        assert (made["GROUPS"], made["BLOCK_J"], made["STAGES"]) == (groups, 64, 3)
    near = choose_warps(facts | {"looked_up": True}, {"e": 128, "f": 128}, smem)
    assert near is not None
    assert (near["BLOCK_J"], near["STAGES"]) == (64, 3)
    wide = choose_warps(facts, {"e": 256, "f": 256}, smem)
    assert wide is not None
    assert wide["BLOCK_J"] < 128
    assert choose_warps(facts, {"e": 1024, "f": 1024}, smem) is None


@pytest.mark.parametrize(
    "example",
    [
        "causal",
        pytest.param("full", marks=pytest.mark.slow),
        pytest.param("alibi", marks=pytest.mark.slow),
        pytest.param("softcap", marks=pytest.mark.slow),
        pytest.param("window", marks=pytest.mark.slow),
        pytest.param("gqa", marks=pytest.mark.slow),
        pytest.param("sigmoid", marks=pytest.mark.slow),
        pytest.param("bias_dense", marks=pytest.mark.slow),
    ],
)
def test_products_run_asynchronously(example: str, tmp_path: Path) -> None:
    program = driver.load(EXAMPLES / f"{example}.attn")
    path = tmp_path / f"{example}.py"
    path.write_text(module_text(program, driver.CompileOptions(hopper=True)), encoding="utf-8")
    made = compile_kernels(path, targets=["sm_90"], extents={"e": 128, "f": 128})
    hopper = [k for k in made if k.name.endswith("_hopper")]
    assert hopper
    for kernel in hopper:
        assert kernel.shared <= 227 * 1024
        products = kernel.sass.count("HGMMA")
        # A product that is waited for by itself would have a wait of its own. At head dim 128 a product of scores takes
        # eight instructions, a sum four by tiles of 64; by tiles of 32, where values of pairs need the room, two.
        issued = " ".join(re.findall(r"HGMMA|WARPGROUP\.DEPBAR|BRA", kernel.sass))
        shortest = min(len(x.split()) for x in re.findall(r"(?:HGMMA ?)+", issued))
        least = 4 if shortest == 2 else 5
        assert products >= least * kernel.sass.count("WARPGROUP.DEPBAR") > 0, kernel.name
        # Accumulators of two gradients leave little room; what spills there is not in every step.
        assert kernel.sass_stats.spills_in_loops <= 64, kernel.name
