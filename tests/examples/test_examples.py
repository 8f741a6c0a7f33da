"""The examples folder: which programs must be there, and that each runner has the one form."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

from tests.examples.references import SOFTMAX_CASES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(p.stem for p in EXAMPLES.glob("*.attn"))
RUNNERS = sorted(p.stem for p in EXAMPLES.glob("[!_]*.py"))


def test_every_reference_has_its_program_and_its_runner() -> None:
    named = {c.example for c in SOFTMAX_CASES.values()}
    assert named <= set(PROGRAMS)
    assert named == set(RUNNERS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_says_what_it_is(name: str) -> None:
    text = (EXAMPLES / f"{name}.attn").read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith("# ")
    assert len(re.findall(r"^attention ", text, flags=re.MULTILINE)) == 1
    assert max(map(len, text.splitlines())) <= 126


@pytest.mark.parametrize("name", RUNNERS)
def test_runner_has_the_one_form(name: str) -> None:
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    main = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    assert ast.unparse(main.body[0]) == "op = load(__file__)"
    assert ast.unparse(main.body[-1]).startswith("compare(op, Q=q, K=k, V=v")
    assert ast.unparse(tree.body[-1]) == "if __name__ == '__main__':\n    main()"


@pytest.mark.parametrize("name", RUNNERS)
def test_runner_finds_small_errors(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")  # exits with 1 on a large one
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == "output" for line in lines)
    assert any(line.split()[0] == "dQ" for line in lines)
