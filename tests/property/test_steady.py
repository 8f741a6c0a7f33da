"""Random tests draw the same whatever is loaded: a change is judged by what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

DRAW = """
import sys
sys.path.insert(0, "")
from hypothesis import given, settings, strategies as st
import tests.conftest
{loaded}
drawn = []

@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(n=st.integers(), x=st.floats(), text=st.text())
def draw(n, x, text):
    drawn.append((n, repr(x), text))

draw()
print(ascii(drawn))
"""


def drawn(loaded: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DRAW.format(loaded=loaded)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_draws_do_not_depend_on_loaded_modules() -> None:
    alone = drawn("")
    assert len(alone) > 1000
    assert drawn("import attndsl.driver, tests.road.more_programs, tests.road.unplanned") == alone
