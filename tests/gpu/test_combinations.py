"""Unusual combinations of the language's forms, on a GPU, against references of their own in float64."""

from __future__ import annotations

import pytest
import torch

from tests.road.harness import CASES, check

pytestmark = pytest.mark.gpu

NAMES = sorted(n for n in CASES if n.startswith("co_"))
# Integers below zero, parts of features, sums between positions: what only a card's own arithmetic shows.
IN_16_BIT = [
    "co_floors_of_negatives",
    "co_rotary_pairs",
    "co_sum_strictly_between",
]


@pytest.mark.parametrize("name", NAMES)
def test_combination(name: str) -> None:
    check(CASES[name], backend="triton", dtype=torch.float32, device="cuda")


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float16, 3e-3), (torch.bfloat16, 2e-2)], ids=str
)
@pytest.mark.parametrize("name", IN_16_BIT)
def test_combination_in_16_bit(name: str, dtype: torch.dtype, bound: float) -> None:
    check(CASES[name], backend="triton", dtype=dtype, device="cuda", bound=bound)
