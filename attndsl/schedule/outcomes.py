"""How building a kernel ends early: something must be known first, or nothing of this kind fits."""

from __future__ import annotations

from attndsl.source import Span


class Needs(Exception):
    """A tensor must be computed by an earlier kernel; `why` is for `explain`."""

    def __init__(self, tensor: str, why: str) -> None:
        super().__init__(tensor, why)
        self.tensor = tensor
        self.why = why


class Refused(Exception):
    """No schedule of this family fits; the message is the reason, the code its kind (A04xx)."""

    def __init__(self, code: str, why: str, span: Span | None = None) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.span = span
