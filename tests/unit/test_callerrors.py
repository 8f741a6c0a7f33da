"""The errors of calls: every code that is raised can be explained."""

from __future__ import annotations

import re
from pathlib import Path

import attndsl
from attndsl.callerrors import CallError
from attndsl.errors import CODES


def test_every_code_that_a_call_may_raise_is_in_the_catalogue() -> None:
    package = Path(next(iter(attndsl.__path__)))
    raised = {
        code
        for path in package.rglob("*.py")
        for code in re.findall(r'"(A05\d\d)"', path.read_text(encoding="utf-8"))
    }
    assert {"A0501", "A0503", "A0505"} <= raised
    assert raised <= set(CODES)


def test_the_text_has_the_code_the_notes_and_the_help() -> None:
    error = CallError("A0503", "f: |i| is 3", notes=("declared: X[i]", "came: (4,)"), help="pass 3")
    assert str(error).split("\n") == [
        "error[A0503]: f: |i| is 3",
        "  declared: X[i]",
        "  came: (4,)",
        "  = help: pass 3",
    ]
    assert error.code == "A0503"
