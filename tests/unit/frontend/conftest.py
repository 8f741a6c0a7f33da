"""Programs for the tests of the frontend."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from attndsl.cascade.nodes import Cascade
from attndsl.cascade.printer import print_cascade
from attndsl.frontend import CheckResult, check
from attndsl.source import Source

ROOT = Path(__file__).parents[3]

HEADER = (
    "attention example(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], g[b,h,t], doc[b,t]: int, w: int = 4)"
    " -> O[b,h,i,f] {\n  batch b, h\n"
)


@pytest.fixture(scope="session")
def whole() -> Callable[[str], str]:
    """Statements as a program; whole programs as they are."""

    def of(text: str) -> str:
        if re.match(r"\s*(attention|def|#)", text):
            return text
        return HEADER + "  " + text.strip().replace("\n", "\n  ") + "\n}\n"

    return of


@pytest.fixture(scope="session")
def look(whole: Callable[[str], str]) -> Callable[[str], CheckResult]:
    """Check statements or a program."""
    return lambda text: check(Source("test.attn", whole(text)))


@pytest.fixture(scope="session")
def load(look: Callable[[str], CheckResult]) -> Callable[[str], Cascade]:
    """The one cascade of a sound program."""

    def of(text: str) -> Cascade:
        result = look(text)
        assert result.ok, "\n".join(map(str, result.diagnostics))
        (cascade,) = result.cascades
        return cascade

    return of


@pytest.fixture(scope="session")
def body(load: Callable[[str], Cascade]) -> Callable[[str], list[str]]:
    """The statements of a sound program's cascade, as text with single blanks."""

    def of(text: str) -> list[str]:
        lines = print_cascade(load(text)).splitlines()[1:-1]
        return [re.sub(r" +", " ", x.strip()) for x in lines if not x.strip().startswith("batch")]

    return of


@pytest.fixture(scope="session")
def contract() -> list[str]:
    """The example programs of the repository."""
    return [p.read_text() for p in sorted((ROOT / "examples").glob("*.attn"))]
