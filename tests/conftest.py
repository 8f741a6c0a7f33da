"""Options of the whole test suite."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

# The same examples at every run, so that a change is judged by what it does; look for new ones with
# `pytest --hypothesis-profile explore`.
settings.register_profile("explore", settings())
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")


def _no_constants() -> Constants:
    return Constants()


# Hypothesis also draws numbers and strings that it finds in the modules loaded so far, so that draws would change with
# what other tests import. There is no setting for it.
providers._get_local_constants = _no_constants


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the tests see into the golden files, to be reviewed in the diff",
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))
