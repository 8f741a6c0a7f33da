"""Counting the sweeps of a program, with every question it asks of the algebra, takes no time worth waiting for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from attndsl.driver import lower
from attndsl.facts import sweep_facts
from attndsl.frontend import parse
from attndsl.frontend.reading import read_source

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.attn"))


@pytest.fixture(scope="module", autouse=True)
def algebra_is_loaded() -> None:
    source = read_source(EXAMPLES[0])
    sweep_facts(lower(source, parse(source), None))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_any_example_in_a_second(path: Path) -> None:
    source = read_source(path)
    program = lower(source, parse(source), None)
    begin = time.process_time()
    sweep_facts(program)
    assert time.process_time() - begin < 1.0
