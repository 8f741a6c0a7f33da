"""Kernels compile ahead of time, with no GPU, into what the machine should run."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.cascade.starts import apply_start
from attndsl.codegen.aot import CompileError, compile_kernels, full_ranks
from attndsl.codegen.configs import choose, demand
from attndsl.codegen.kernel_facts import kernel_facts
from attndsl.codegen.sass import sass_stats
from attndsl.codegen.triton import render_module
from attndsl.frontend import load_cascades
from attndsl.schedule import plan_forward
from attndsl.source import Source
from tests.unit.codegen.alibi_plan import alibi

EXAMPLES = Path(__file__).parents[3] / "examples"
FACTS = kernel_facts(alibi(), alibi().steps[0])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("aot") / "alibi.py"
    path.write_text(render_module("alibi", alibi(), None, "header"), encoding="utf-8")
    return path


def test_forward_compiles_for_ampere_and_hopper(module: Path) -> None:
    kernels = compile_kernels(module, extents={"e": 128, "f": 128}, dtypes={"slope": "fp32"})
    by_target = {k.target: k for k in kernels}
    assert set(by_target) == {"sm_80", "sm_90"}
    for k in kernels:
        assert k.name == "alibi_forward"
        assert k.cubin.startswith(b"\x7fELF")
        assert f".target {k.target}" in k.ptx
        assert 0 < k.registers <= 255
        assert k.sass_stats.spills_in_loops == 0
    # Products on the matrix units of each, and key tiles copied to shared memory while they run.
    assert by_target["sm_80"].sass_stats.in_loops["HMMA"] > 0
    assert by_target["sm_90"].sass_stats.in_loops["HGMMA"] > 0
    assert by_target["sm_80"].sass_stats.in_loops["LDGSTS"] > 0
    assert by_target["sm_90"].sass_stats.in_loops["UTMALDG"] > 0
    assert by_target["sm_90"].shared <= 227 * 1024


def test_what_the_compiler_refuses_is_reported(module: Path) -> None:
    with pytest.raises(CompileError, match="alibi_forward for sm_90"):
        compile_kernels(
            module, targets=("sm_90",), extents={"e": 16, "f": 16}, config={"BLOCK_J": 24}
        )


def test_ranks_that_must_be_known(module: Path) -> None:
    assert full_ranks(module.read_text(encoding="utf-8")) == {"e", "f"}


@pytest.mark.parametrize("dim", [16, 64, 80, 128, 256])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_chosen_tiles_fit(dim: int, itemsize: int) -> None:
    for smem in (99 * 1024, 163 * 1024, 227 * 1024):
        cfg = choose(FACTS, {"e": dim, "f": dim}, itemsize, smem)
        pad = 1 << (dim - 1).bit_length()
        sizes = {"i": cfg["BLOCK_I"], "j": cfg["BLOCK_J"], "e": pad, "f": pad}
        shared, registers = demand(FACTS, sizes, itemsize, cfg["num_warps"], cfg["num_stages"])
        assert shared <= smem
        assert registers <= 226


def test_tiles_are_narrow_where_every_pair_reads_addresses_at_every_point() -> None:
    """Sums of rows that pairs choose, by points: what is on its way takes registers; a value for a pair does not."""
    made = {}
    for name, term in (("rows", "sum[e](Q[i,e] * R[P[i,j],e])"), ("values", "T[P[i,j]]")):
        table = "R[r,e]" if name == "rows" else "T[r]"
        (cascade,) = load_cascades(
            Source(
                f"{name}.attn",
                f"attention {name}(Q[i,e], K[j,e], V[j,f], {table}, P[i,j]: int) -> O[i,f] {{\n"
                f"  S[i,j] = Q[i,e] * K[j,e] + {term}\n  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n}}",
            )
        )
        plan = plan_forward(apply_start(cascade))
        facts = kernel_facts(plan, plan.steps[0])  # type: ignore[arg-type]
        assert facts.get("gathers", False) == (name == "rows")
        made[name] = choose(facts, {"e": 128, "f": 128}, 2, 227 * 1024)
    taken = {name: tuple(cfg.values())[:3] for name, cfg in made.items()}
    assert taken == {"rows": (64, 32, 8), "values": (64, 64, 4)}


def test_a_head_dim_that_no_tile_holds_is_refused_with_the_sums() -> None:
    with pytest.raises(ValueError, match=r"A0510: no tile fits: .*'e': 8192.* shared memory"):
        choose(FACTS, {"e": 8192, "f": 64}, 2, 227 * 1024)


def test_loops_in_machine_code() -> None:
    """A loop is what a backward branch spans; the branch to itself at the end of a kernel is none."""
    text = """
        /*0000*/                   LDL R1, [R2] ;
        /*0010*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0020*/              @!P0 STL [R2], R1 ;
        /*0030*/               @P0 BRA 0x10 ;
        /*0040*/                   EXIT ;
        /*0050*/                   BRA 0x50;
    """
    stats = sass_stats(text)
    assert stats.counts == {"LDL": 1, "HMMA": 1, "STL": 1, "BRA": 2, "EXIT": 1}
    assert stats.in_loops == {"HMMA": 1, "STL": 1, "BRA": 1}
    assert stats.spills_in_loops == 1


def test_waits_at_the_end_of_the_code_are_no_loops() -> None:
    """They branch back into the middle of what waits; nor does a loop around others count, unless it multiplies."""
    text = """
        /*0000*/                   MOV R1, R2 ;
        /*0010*/                   LDL R1, [R2] ;
        /*0020*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], RZ, !UPT ;
        /*0030*/              @!P0 BRA 0x90 ;
        /*0040*/                   STL [R2], R1 ;
        /*0050*/               @P1 BRA 0x20 ;
        /*0060*/               @P2 BRA 0x10 ;
        /*0070*/                   STL [R2], R1 ;
        /*0080*/                   EXIT ;
        /*0090*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R3 ;
        /*00a0*/              @!P0 BRA 0x90 ;
        /*00b0*/                   BRA 0x40 ;
        /*00c0*/                   BRA 0xc0;
    """
    stats = sass_stats(text)
    assert stats.in_loops == {"HGMMA": 1, "BRA": 4, "STL": 1, "SYNCS": 1}
    assert stats.spills_in_loops == 1
