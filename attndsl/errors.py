"""The catalogue of codes, for `attndsl explain CODE` and for the error index of the documentation.

To add a code, add one `ErrorInfo` to the list of its family:

    A01xx syntax   A02xx names, ranks and types   A03xx algebra   A04xx schedules   A05xx targets, launch, calls
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """One code: a title, what it means and why it is refused, and a wrong and a right example.

    The examples are statements of a body, or whole programs (then they start with `attention`, `def` or `@`).
    """

    code: str
    title: str
    text: str
    wrong: str = ""
    right: str = ""

    @property
    def explanation(self) -> str:
        """The text and the examples, as `attndsl explain` prints them."""
        parts = [self.text.strip()]
        for word, example in (("Wrong", self.wrong), ("Right", self.right)):
            if example:
                lines = "\n".join(f"    {line}" for line in example.strip("\n").split("\n"))
                parts.append(f"{word}:\n\n{lines}")
        return "\n\n".join(parts)


# A03xx: the algebra of a cascade refuses.
ALGEBRA: list[ErrorInfo] = []


def _catalogue(*families: Iterable[ErrorInfo]) -> dict[str, ErrorInfo]:
    found: dict[str, ErrorInfo] = {}
    for info in (i for family in families for i in family):
        if info.code in found:
            raise ValueError(f"{info.code} is in the catalogue twice")
        found[info.code] = info
    return dict(sorted(found.items()))


def _all() -> dict[str, ErrorInfo]:
    from attndsl.codes_calls import CALLS
    from attndsl.codes_schedules import SCHEDULES
    from attndsl.frontend.codes_names import NAMES
    from attndsl.frontend.codes_syntax import SYNTAX

    return _catalogue(SYNTAX, NAMES, ALGEBRA, SCHEDULES, CALLS)


CODES: dict[str, ErrorInfo] = _all()
