"""The text of every example's kernels, and what `explain` tells of some: a change of the compiler shows as a diff.

`make golden` writes the files anew; read the diff as a user of the kernels would.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from attndsl import driver
from attndsl.diagnostics import DiagnosticError

HERE = Path(__file__).parent
KERNELS = HERE / "kernels"
EXAMPLES = HERE.parents[1] / "examples"
PROGRAMS = sorted(p.stem for p in EXAMPLES.glob("*.attn"))

# Names are the program's own (`O`), and a position that nothing uses costs nothing.
IGNORED = "--ignore=E741,F841"

# One sweep; a column's gradient that reads a row's statistic; several kernels in a row; a range that data decides.
EXPLAINED = ["alibi", "documents", "softcap", "standardised", "weights"]


def kernels_of(name: str, folder: Path) -> str | None:
    """The text of an example's module; None where no schedule is legal."""
    try:
        path = EXAMPLES / f"{name}.attn"
        (module,) = driver.compile_file(path, out=folder, stop_after="kernel").files
    except DiagnosticError as refused:
        if all(code.startswith("A04") for code in refused.codes):
            return None
        raise
    return module.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels(name: str, update_golden: bool, tmp_path: Path) -> None:
    golden = KERNELS / f"{name}.py"
    text = kernels_of(name, tmp_path)
    if update_golden:
        golden.unlink(missing_ok=True)
        if text is not None:
            golden.write_text(text, encoding="utf-8")
    assert text == (golden.read_text(encoding="utf-8") if golden.is_file() else None)
    ast.parse(text or "")


@pytest.mark.parametrize("name", EXPLAINED)
def test_explanations(name: str, update_golden: bool) -> None:
    golden = HERE / "explain" / f"{name}.txt"
    text = driver.explain(EXAMPLES / f"{name}.attn", backward=True)
    if update_golden:
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_kernels_are_formatted() -> None:
    files = sorted(map(str, KERNELS.glob("*.py")))
    assert files
    ruff = [sys.executable, "-m", "ruff"]
    for options in (
        ["format", "--check", "--line-length=100"],
        ["check", "--select=E,F,W,I", IGNORED, "--line-length=120"],
    ):
        command = [*ruff, *options, "--isolated", *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_nothing_is_left_over() -> None:
    assert {p.stem for p in KERNELS.iterdir()} <= set(PROGRAMS)
