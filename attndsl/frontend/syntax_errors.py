"""Syntax errors in the user's terms."""

from __future__ import annotations

import lark

from attndsl.diagnostics import Diagnostic
from attndsl.source import Source, Span


def explain(error: lark.exceptions.UnexpectedInput, source: Source, start: int, end: int) -> Diagnostic:
    """The diagnostic for Lark's complaint about `source.text[start:end]`."""
    position = error.pos_in_stream
    at = end if position is None or position < 0 else start + position
    return Diagnostic("A0101", "unexpected input", Span(source, at, at + 1), "not expected here")
