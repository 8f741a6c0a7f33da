"""Collecting findings, so that one run reports several mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Set

from attndsl.diagnostics import Diagnostic, Severity
from attndsl.source import Span


class Refused(Exception):
    """Unwinds to the statement that cannot be understood; its reason has been reported already."""


class Report:
    """The findings of one run, in the order of the text, each place and title once."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []
        self.said = 0
        """How many errors were reported, those that had been before among them."""

    def error(
        self,
        code: str,
        title: str,
        span: Span | None,
        label: str = "",
        help: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Refused:
        """Record an error; returns the exception to raise where nothing sensible can follow."""
        self.said += 1
        self.add(Diagnostic(code, title, span, label, help, notes))
        return Refused()

    def warning(
        self, code: str, title: str, span: Span | None, label: str = "", help: str | None = None
    ) -> None:
        self.add(Diagnostic(code, title, span, label, help, severity=Severity.WARNING))

    def add(self, diagnostic: Diagnostic) -> None:
        if not any(_same(diagnostic, old) for old in self._found):
            self._found.append(diagnostic)

    @property
    def failed(self) -> bool:
        return any(d.severity is Severity.ERROR for d in self._found)

    @property
    def errors(self) -> int:
        return sum(d.severity is Severity.ERROR for d in self._found)

    def sorted(self) -> list[Diagnostic]:
        """All findings by place; those without a place come first."""
        return sorted(self._found, key=lambda d: d.span.start if d.span is not None else -1)


def _same(a: Diagnostic, b: Diagnostic) -> bool:
    return (a.code, a.title, a.span) == (b.code, b.title, b.span)


def listed(names: Iterable[str]) -> str:
    """`a`, `b` and `c`; sets are sorted."""
    ordered = sorted(names) if isinstance(names, Set) else names
    quoted = [f"`{n}`" for n in ordered]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
