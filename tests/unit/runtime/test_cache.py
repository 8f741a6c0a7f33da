"""Generated modules on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.runtime import cache


def test_a_module_is_written_once_and_imported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.ENV, str(tmp_path))
    first = cache.load_module("x = object()\n", "a.b")
    assert cache.load_module("x = object()\n", "a.b").x is first.x
    assert cache.load_module("x = 2\n", "a.b").x == 2
    files = sorted(tmp_path.iterdir())
    assert len([f for f in files if f.suffix == ".py"]) == 2
    assert not [f for f in files if f.suffix == ".tmp"]
    assert first.__file__ == str(next(f for f in files if "object" in f.read_text()))


def test_a_damaged_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENV, str(tmp_path / "one"))
    path = Path(str(cache.load_module("y = 1\n", "m").__file__))
    monkeypatch.setenv(cache.ENV, str(tmp_path / "two"))
    (tmp_path / "two").mkdir()
    other = tmp_path / "two" / path.name
    other.write_text("y = 'half a fi")
    assert cache.load_module("y = 1\n", "m").y == 1
    assert other.read_text() == "y = 1\n"


def test_a_directory_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(cache.ENV, str(blocked))
    assert cache.load_module("z = 3\n", "m").z == 3


def test_a_module_that_fails_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENV, str(tmp_path))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.load_module("1 / 0\n", "m")


def test_a_name_longer_than_file_names() -> None:
    module = cache.load_module("x = 7\n", "n" * 300)
    assert module.x == 7
