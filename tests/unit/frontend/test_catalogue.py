"""The catalogue's own examples: the wrong one has the code, the right one has not."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from attndsl.errors import CODES, ErrorInfo
from attndsl.frontend import CheckResult

OURS = [i for c, i in CODES.items() if c.startswith(("A01", "A02", "A03"))]


@pytest.mark.parametrize(
    "info", [i for i in OURS if i.wrong and i.wrong[0] != "@"], ids=lambda i: i.code
)
def test_the_examples(look: Callable[[str], CheckResult], info: ErrorInfo) -> None:
    assert info.code in [d.code for d in look(info.wrong).diagnostics]
    assert info.code not in [d.code for d in look(info.right).diagnostics]


@pytest.mark.parametrize("info", OURS, ids=lambda i: i.code)
def test_the_words(info: ErrorInfo) -> None:
    assert re.fullmatch(r"A0[123]\d\d", info.code)
    assert info.title[0].islower() or info.title[0] == "`"
    assert not info.title.endswith(".")
    assert info.text.endswith(".")
    assert info.text in info.explanation
    assert info.right in info.explanation.replace("\n    ", "\n")


def test_every_code_the_frontend_uses_is_in_the_catalogue() -> None:
    from pathlib import Path

    import attndsl.frontend

    (folder,) = attndsl.frontend.__path__
    used = {
        code
        for p in Path(folder).glob("*.py")
        if not p.name.startswith("codes_")
        for code in re.findall(r'"(A\d{4})"', p.read_text("utf-8"))
    }
    assert used == {i.code for i in OURS}
