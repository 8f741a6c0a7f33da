"""Every softmax example as machine code for two GPUs, without one: it assembles, its loops do not spill, and its
products read what they are meant to.

Slow: `make slow`. Each example is compiled forward and backward, with all kernels of both targets in parallel.
Kernels that do spill are listed in `spills.json` with how many loads and stores of local memory their loops hold; none
may hold more. `pytest -m slow tests/unit/test_machine_code.py --update-golden` writes the list anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attndsl.codegen.descriptors import misread
from attndsl.codegen.sass import disassemble, sass_stats
from attndsl.driver import CompileOptions, compile_file
from tests.examples.references import SOFTMAX_CASES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parents[2] / "examples"
KNOWN = Path(__file__).with_name("spills.json")
PROGRAMS = sorted({case.example for case in SOFTMAX_CASES.values()})
TARGETS = ("sm_80", "sm_90")


def code(folder: Path) -> dict[str, str]:
    """The machine code by kernel and target."""
    found = sorted(folder.glob("*.cubin"))
    return {path.name.removesuffix(".cubin"): disassemble(path.read_bytes()) for path in found}


def spills(code: dict[str, str]) -> dict[str, int]:
    """Loads and stores of local memory inside loops, by kernel and target, where there are any."""
    found = {name: sass_stats(text).spills_in_loops for name, text in code.items()}
    return {name: n for name, n in found.items() if n}


def known() -> dict[str, dict[str, int]]:
    """By `program, head dim`: what is known to spill."""
    listed: dict[str, dict[str, int]] = json.loads(KNOWN.read_text(encoding="utf-8"))
    return listed


@pytest.mark.parametrize(
    ("name", "head_dim"),
    [
        *((name, 128) for name in PROGRAMS),
        *((name, d) for name in ("alibi", "causal") for d in (64, 256)),
    ],
)
def test_loops_do_not_spill(name: str, head_dim: int, update_golden: bool, tmp_path: Path) -> None:
    options = CompileOptions(head_dim=head_dim)
    done = compile_file(EXAMPLES / f"{name}.attn", out=tmp_path, targets=TARGETS, options=options)
    facts = json.loads(done.files[-1].read_text())
    for stage in ("forward", "backward", *(["few_queries"] if "few_queries" in facts else [])):
        for kernel in facts[stage]["kernels"]:
            assert set(kernel["code"]) == set(TARGETS)
    made = code(tmp_path)
    assert {k: misread(text) for k, text in made.items() if misread(text)} == {}
    key, found = f"{name}, {head_dim}", spills(made)
    if update_golden:
        rest = {k: v for k, v in known().items() if k != key} | ({key: found} if found else {})
        KNOWN.write_text(json.dumps(dict(sorted(rest.items())), indent=1) + "\n", encoding="utf-8")
    allowed = known().get(key, {})
    assert {k: n for k, n in found.items() if n > allowed.get(k, 0)} == {}
