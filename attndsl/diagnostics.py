"""What a user sees when a program is wrong: a code, the place, the reason, and a way out.

error[A0203]: index `d` of `K` is read once and never kept
 --> windowed.attn:3:23
  |
3 |   S[i,j] = Q[i,e] * K[j,d]
  |                         ^ `K` is declared as `K[b,h,j,e]`
  |
  = help: write `e` to contract with `Q`, or `sum[d](K[j,d])` if a sum over `K` alone is meant
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from attndsl.source import Source, Span


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. The title says what is wrong, the label why here, the help how to fix it."""

    code: str
    title: str
    span: Span | None = None
    label: str = ""
    help: str | None = None
    notes: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        return render(self)


class DiagnosticError(Exception):
    """A program was refused; `diagnostics` holds every finding, warnings included."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        single = isinstance(diagnostics, Diagnostic)
        self.diagnostics: list[Diagnostic] = (
            [diagnostics] if single else list(diagnostics)  # type: ignore[list-item, arg-type]
        )
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return render_all(self.diagnostics)

    @property
    def codes(self) -> list[str]:
        """The codes of all findings, in order."""
        return [d.code for d in self.diagnostics]


_BOLD, _RED, _YELLOW, _BLUE, _RESET = "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;34m", "\x1b[0m"
_TAB = 4
_WIDEST = 160


def render(diagnostic: Diagnostic, color: bool = False) -> str:
    """The diagnostic as text, with the line it points at and carets under it."""

    def paint(style: str, text: str) -> str:
        return f"{style}{text}{_RESET}" if color and text else text

    accent = _RED if diagnostic.severity is Severity.ERROR else _YELLOW
    head = paint(accent, f"{diagnostic.severity}[{diagnostic.code}]")
    out = [f"{head}{paint(_BOLD, f': {diagnostic.title}')}"]
    margin = ""
    if diagnostic.span is not None:
        source = diagnostic.span.source
        line, column = source.line_col(diagnostic.span.start)
        margin = " " * len(str(line))
        bar = paint(_BLUE, "|")
        out.append(f"{margin}{paint(_BLUE, '-->')} {source.name}:{line}:{column}")
        if source.text:
            text, pad, carets = _excerpt(source, diagnostic.span, line, column)
            label = f" {diagnostic.label}" if diagnostic.label else ""
            out.append(f"{margin} {bar}")
            out.append(f"{paint(_BLUE, str(line))} {bar} {text}".rstrip())
            out.append(f"{margin} {bar} {pad}{paint(accent, carets + label)}")
            if diagnostic.help or diagnostic.notes:
                out.append(f"{margin} {bar}")
        elif diagnostic.label:
            out.append(f"{margin} {paint(_BLUE, '=')} {diagnostic.label}")
    elif diagnostic.label:
        out.append(f" {paint(_BLUE, '=')} {diagnostic.label}")
    for kind, advice in [*(("note", n) for n in diagnostic.notes), ("help", diagnostic.help)]:
        if advice:
            out.append(f"{margin} {paint(_BLUE, '=')} {paint(_BOLD, kind)}: {advice}")
    return "\n".join(out)


def render_all(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """All diagnostics, a blank line between two."""
    return "\n\n".join(render(d, color) for d in diagnostics)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A help line with the nearest known name, or None when nothing is near."""
    # Single letters are never "near" each other by ratio, so a case slip is looked for by hand.
    names = sorted(set(known))
    near = [k for k in names if k != name and k.lower() == name.lower()]
    near += difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else None


def _excerpt(source: Source, span: Span, line: int, column: int) -> tuple[str, str, str]:
    """The source line as a terminal shows it, the padding before the carets, and the carets."""
    raw = source.line(line).rstrip("\r")
    first = column - 1
    last = min(first + max(span.end - span.start, 1), max(len(raw), first + 1))
    if len(raw) > _WIDEST:  # a very long line: keep a window around the place
        start = max(0, first - _WIDEST // 2)
        raw, first, last = raw[start : start + _WIDEST], first - start, last - start
        last = min(last, max(len(raw), first + 1))
    before, _ = _shown(raw[:first], 0)
    marked, _ = _shown(raw[first:last] or " ", _width(before))
    text, _ = _shown(raw, 0)
    return text, " " * _width(before), "^" * max(_width(marked), 1)


def _shown(text: str, column: int) -> tuple[str, int]:
    """Tabs expanded, control characters made visible."""
    out = []
    for ch in text:
        piece = " " * (_TAB - column % _TAB) if ch == "\t" else ch
        if ch != "\t" and unicodedata.category(ch) in ("Cc", "Cs", "Cf", "Zl", "Zp"):
            piece = "\N{REPLACEMENT CHARACTER}"
        out.append(piece)
        column += _width(piece)
    return "".join(out), column


def _width(text: str) -> int:
    """Terminal columns: wide characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(ch) else 2 if unicodedata.east_asian_width(ch) in "WF" else 1
        for ch in text
    )
