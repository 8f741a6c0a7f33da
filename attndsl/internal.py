"""A fault of the compiler itself: never the user's mistake."""

from __future__ import annotations


class InternalError(Exception):
    """An invariant of the compiler is broken; `dump` is the program at that point, as text."""

    def __init__(self, message: str, *, dump: str = "") -> None:
        self.dump = dump
        super().__init__(f"internal error: {message}" + (f"\n\n{dump}" if dump else ""))
