"""Imports between the packages go one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "attndsl"
BELOW = {
    "cascade": (),
    "analysis": ("cascade",),
    "frontend": ("cascade", "analysis"),  # an analysis says what to warn of
    "schedule": ("cascade", "analysis"),
    "codegen": ("cascade", "analysis", "schedule"),
    # A call looks up what a search has found, and a search makes calls.
    "runtime": ("cascade", "analysis", "schedule", "codegen", "frontend", "tuning"),
    "tuning": ("cascade", "analysis", "schedule", "codegen", "frontend", "runtime"),
}


def imported(path: Path) -> Iterator[str]:
    """The packages of attndsl that a module imports, inside functions too."""
    for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match n:
            case ast.ImportFrom(module="attndsl", names=names):
                yield from (a.name for a in names)
            case ast.ImportFrom(module=str() as module) if module.startswith("attndsl."):
                yield module.split(".")[1]
            case ast.Import(names=names):
                yield from (a.name.split(".")[1] for a in names if a.name.startswith("attndsl."))


@pytest.mark.parametrize("name", BELOW)
def test_a_package_imports_what_is_below_it(name: str) -> None:
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    modules = sorted((PACKAGE / name).rglob("*.py"))
    assert modules
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {found}"
        for path in modules
        for found in imported(path)
        if found in packages and found != name and found not in BELOW[name]
    }
    assert not wrong
