"""Every softmax example as machine code for two GPUs, without one: it assembles, and its loops do not spill.

Slow: `make slow`. Each example is compiled forward and backward, with all kernels of both targets in parallel.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attndsl.codegen.sass import disassemble, sass_stats
from attndsl.driver import CompileOptions, compile_file
from tests.examples.references import SOFTMAX_CASES

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted({case.example for case in SOFTMAX_CASES.values()})
TARGETS = ("sm_80", "sm_90")


def spills(folder: Path) -> dict[str, int]:
    """Loads and stores of local memory inside loops, by kernel and target."""
    found = {
        path.name.removesuffix(".cubin"): sass_stats(disassemble(path.read_bytes()))
        for path in sorted(folder.glob("*.cubin"))
    }
    return {name: stats.spills_in_loops for name, stats in found.items() if stats.spills_in_loops}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", PROGRAMS)
def test_loops_do_not_spill(name: str, head_dim: int, tmp_path: Path) -> None:
    options = CompileOptions(head_dim=head_dim)
    done = compile_file(EXAMPLES / f"{name}.attn", out=tmp_path, targets=TARGETS, options=options)
    facts = json.loads(done.files[-1].read_text())
    for stage in ("forward", "backward"):
        for kernel in facts[stage]["kernels"]:
            assert set(kernel["code"]) == set(TARGETS)
    assert spills(tmp_path) == {}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("head_dim", [256])
@pytest.mark.parametrize("name", ["causal", "alibi"])
def test_large_head_dims_have_tiles_that_fit(
    name: str, head_dim: int, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """They may spill; what does is in the report of the test."""
    options = CompileOptions(head_dim=head_dim)
    compile_file(EXAMPLES / f"{name}.attn", out=tmp_path, targets=TARGETS, options=options)
    record_property("spills", spills(tmp_path))
    assert len(list(tmp_path.glob("*.cubin"))) >= 3 * len(TARGETS)
