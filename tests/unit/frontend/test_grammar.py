"""The grammar itself, and the table that is built from it ahead of time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attndsl.frontend import table
from attndsl.frontend.parser import parse
from attndsl.source import Source


def test_the_grammar_is_unambiguous() -> None:
    # Strict mode refuses terminals that collide and every conflict of the LALR table.
    table.build(table.grammar_text(), strict=True)


def test_the_shipped_table_is_current() -> None:
    assert table.is_current(), f"run {sys.executable} -m attndsl.frontend.table"


def test_a_table_of_another_grammar_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.bin"
    table.write(path)
    assert table.is_current(path)
    monkeypatch.setattr(table, "grammar_text", lambda: "start: /x/")
    assert not table.is_current(path)


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"\x80\x04N."])
def test_a_damaged_table_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    path = tmp_path / "table.bin"
    path.write_bytes(damage)
    monkeypatch.setattr(table, "TABLE", path)
    tree = table.parser.__wrapped__().parse(
        "attention f(X[i]) -> O[i] { O[i] = X[i] }", start="start"
    )
    assert tree.data == "start"


def test_the_command_says_whether_the_table_is_current() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "attndsl.frontend.table", "--check"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "current"
    assert run.stderr == ""


@pytest.mark.parametrize(
    "name",
    ["iffy", "or_", "notes", "initial", "ranks", "wherever", "batches", "Truest", "e", "K_1", "é"],
)
def test_keywords_do_not_split_names(name: str) -> None:
    tree = parse(Source("t", f"attention f({name}[i]) -> O[i] {{ O[i] = {name}[i] }}"))
    (attention,) = tree.items
    assert attention.inputs[0].name.name == name  # type: ignore[union-attr]
