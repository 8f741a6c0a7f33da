"""Where a piece of program text came from: the file, and the span inside it.

Every node of every IR carries a `Span`, so that an error found late still points at the text the user wrote.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """A named text; `first_line` lets a Python function body keep the line numbers of its file."""

    name: str
    text: str
    first_line: int = 1

    def line_col(self, offset: int) -> tuple[int, int]:
        """1-based line (in the file) and column of a character offset."""
        before = self.text[:offset]
        line = before.count("\n")
        return line + self.first_line, offset - (before.rfind("\n") + 1) + 1

    def line(self, number: int) -> str:
        """The text of one line, by its number in the file."""
        lines = self.text.split("\n")
        index = number - self.first_line
        return lines[index] if 0 <= index < len(lines) else ""


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open character range `[start, end)` of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.line_col(self.start)[0]

    def to(self, other: Span) -> Span:
        """The smallest span that covers both."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))
