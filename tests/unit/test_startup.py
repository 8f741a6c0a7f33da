"""`import attndsl`, `attndsl --help` and `attndsl check` load nothing heavy, and are quick."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "triton", "sympy", "jinja2", "numpy"}
ALIBI = str(ROOT / "examples" / "alibi.attn")

# Prints the top-level modules that are loaded when the statements have run, as the last line.
_LOADED = "\nimport sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"


def _loaded(statements: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", statements + _LOADED],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


def _main(*args: str) -> str:
    return f"from attndsl.cli import main; assert main({list(args)!r}) == 0"


def test_the_package_loads_nothing_heavy() -> None:
    assert not _loaded("import attndsl") & (HEAVY | {"rich", "click", "lark"})


def test_every_public_name_exists() -> None:
    # Exports are lazy, so a name that points nowhere would go unnoticed until a user asks for it.
    import attndsl

    for name in attndsl.__all__:
        assert getattr(attndsl, name) is not None
    assert set(attndsl.__all__) <= set(dir(attndsl))


@pytest.mark.parametrize("args", [("--help",), ("compile", "--help"), ("--version",)])
def test_help_loads_no_compiler(args: tuple[str, ...]) -> None:
    assert not _loaded(_main(*args)) & (HEAVY | {"rich", "lark"})


def test_check_loads_neither_torch_nor_sympy() -> None:
    assert not _loaded(_main("check", ALIBI)) & (HEAVY | {"rich"})


def _seconds(tmp_path: Path, *command: str) -> float:
    """Processor time of the quickest of several cold runs.

    Not wall time: other processes on a busy machine would count. A start is single-threaded and reads files that
    are in memory by the second run, so on an idle machine the two are the same. Byte code is kept between the runs,
    as an installed package keeps it, also where the machine that tests says not to write any.
    """
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *command], check=True, capture_output=True, cwd=ROOT, env=env
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        best = min(best, spent)
    return best


def test_import_is_quick(tmp_path: Path) -> None:
    assert _seconds(tmp_path, "-c", "import attndsl") < 0.3


def test_check_is_quick(tmp_path: Path) -> None:
    assert _seconds(tmp_path, "-m", "attndsl", "check", ALIBI) < 0.4
