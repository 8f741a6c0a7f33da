"""Programs written from the language alone, on a GPU, against their own dense evaluation in float64."""

from __future__ import annotations

import pytest
import torch

from tests.road import more_programs  # noqa: F401 (it fills PROGRAMS)
from tests.road.programs import PROGRAMS, check

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_program(name: str) -> None:
    check(name, "triton", torch.float32, "cuda")
