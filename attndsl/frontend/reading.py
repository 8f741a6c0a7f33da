"""Program files, as text."""

from __future__ import annotations

import sys
from os import PathLike
from pathlib import Path

from attndsl.diagnostics import Diagnostic, DiagnosticError
from attndsl.source import Source, Span


def read_source(path: str | PathLike[str]) -> Source:
    """The text of a program file, under its path as it was given.

    Raises: DiagnosticError (A0110) if the file is no UTF-8 text; OSError if it cannot be read.
    """
    return decode(Path(path).read_bytes(), str(path))


def read_stdin() -> Source:
    """The program that comes through standard input.

    Raises: DiagnosticError (A0110) if it is no UTF-8 text.
    """
    return decode(sys.stdin.buffer.read(), "<stdin>")


def decode(data: bytes, name: str) -> Source:
    """The source of these bytes; line ends are made `\\n`, and a byte order mark is dropped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", errors="replace")
        column = len(before) - (before.rfind("\n") + 1)
        line = data[: error.start].count(b"\n") + 1
        # The excerpt shows the line as far as it can be read.
        shown = data.decode("utf-8", errors="replace").split("\n")[line - 1].rstrip("\r")
        source = Source(name, shown, first_line=line)
        raise DiagnosticError(
            Diagnostic(
                "A0110",
                f"`{name}` is not UTF-8 text",
                Span(source, min(column, len(shown)), min(column, len(shown)) + 1),
                f"byte 0x{data[error.start]:02X} is no character",
                "save the file as UTF-8",
            )
        ) from None
    return Source(name, text.replace("\r\n", "\n").replace("\r", "\n"))
