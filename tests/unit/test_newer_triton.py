"""Every example compiles with another Triton than the installed one, for two GPUs, without one.

    pip install --target newer-triton triton --no-deps
    ATTNDSL_OTHER_TRITON=$PWD/newer-triton pytest -m slow tests/unit/test_newer_triton.py

Kernels are compiled in processes of their own, which find that Triton first. What spills there is printed (`-rP`); the
list of `spills.json` is for the oldest supported one, whose tiles the defaults were chosen by.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attndsl.diagnostics import DiagnosticError
from attndsl.driver import CompileOptions, compile_file

OTHER = os.environ.get("ATTNDSL_OTHER_TRITON", "")
EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(p.stem for p in EXAMPLES.glob("*.attn"))
TARGETS = ("sm_80", "sm_90")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not OTHER, reason="ATTNDSL_OTHER_TRITON names no folder with a Triton"),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiles(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Path(OTHER) / "triton").is_dir()
    monkeypatch.setenv("PYTHONPATH", OTHER, prepend=os.pathsep)
    options = CompileOptions(head_dim=128)
    try:
        done = compile_file(
            EXAMPLES / f"{name}.attn", out=tmp_path, targets=TARGETS, options=options
        )
    except DiagnosticError as refused:
        if not all(code.startswith("A04") for code in refused.codes):
            raise
        pytest.skip("no schedule")
    passes = [done.facts[p] for p in ("forward", "backward", "few_queries") if p in done.facts]
    for kernel in (k for p in passes for k in p["kernels"]):
        assert set(kernel["code"]) == set(TARGETS)
        spilled = {t: c["spilled_bytes"] for t, c in kernel["code"].items() if c["spilled_bytes"]}
        if spilled:
            print(kernel["name"], spilled)
