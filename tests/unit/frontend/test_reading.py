"""Program files as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.diagnostics import DiagnosticError
from attndsl.frontend import check, decode, read_source
from attndsl.source import Source


def test_line_ends_and_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.attn"
    path.write_bytes(b"\xef\xbb\xbfattention f(X[i]) -> O[i] {\r\n  O[i] = X[i]\r}\r\n")
    source = read_source(path)
    assert source == Source(str(path), "attention f(X[i]) -> O[i] {\n  O[i] = X[i]\n}\n")
    assert check(source).ok


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(DiagnosticError) as error:
        decode("# é\n# ".encode() + b"caf\xe9 latte\nrest", "menu.attn")
    (d,) = error.value.diagnostics
    assert d.code == "A0110"
    assert d.span is not None
    assert d.span.source.line_col(d.span.start) == (2, 6)
    assert "0xE9" in d.label


def test_a_missing_file_is_the_system_s_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / "none.attn")


@pytest.mark.parametrize("text", ["", "  \n", "# only a comment\n", ";;"])
def test_nothing_is_no_program(text: str) -> None:
    assert [d.code for d in check(Source("t", text)).diagnostics] == ["A0102"]
