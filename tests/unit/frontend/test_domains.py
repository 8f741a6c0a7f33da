"""Domains that are always empty are found, and no other is called so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attndsl.frontend import CheckResult

Look = Callable[[str], CheckResult]


def program(statements: str) -> str:
    return f"attention f(X[i,j], w: int = 4, c: float = 0.5, m: bool = True) -> O[i,j] {{ {statements} }}"


@pytest.mark.parametrize(
    "condition",
    [
        "j <= i, i < j",
        "j < i < j",
        "i < 0",
        "i == j, i != j",
        "i < j, j < i - w, w > 0",
        "i + j < 3, i > 1, j > 1",
        "2 * i < j, j < i",
        "j < i and (i < j or i == j)",
        "i < j - 1, j < i + 2, i >= j",
        "i >= |i|, i < |i|",
        "-i > 0",
        "False",
    ],
)
def test_an_empty_condition(look: Look, condition: str) -> None:
    result = look(program(f"O[i,j] = X[i,j] where {condition}"))
    assert [d.code for d in result.diagnostics if d.code != "A0264"] == ["A0233"]


@pytest.mark.parametrize(
    "condition",
    [
        "j <= i, i <= j",
        "j <= i, i - w < j",
        "i < j, j < i - w",  # w may be negative, for all that is known
        "i // 4 == j // 4, i % 4 != j % 4",
        "i * j < 0",  # not affine: nothing is known
        "j <= i or j > i",
        "i < 0 or j < 3",
        "m and j <= i",
        "not (j <= i), j > i",
        "i < c, i > c",  # not integers
    ],
)
def test_a_condition_that_some_point_may_meet(look: Look, condition: str) -> None:
    assert look(program(f"O[i,j] = X[i,j] where {condition}")).ok


LOW = "L[i,j] = X[i,j] where j <= i; "
HIGH = "H[i,j] = X[i,j] where i < j; "


@pytest.mark.parametrize(
    ("statement", "empty"),
    [
        ("O[i,j] = L[i,j] + H[i,j]", True),
        ("O[i,j] = L[i,j] * H[i,j]", True),
        ("O[i,j] = L[i,j] + H[j,i]", False),
        ("O[i,j] = L[i,j] if j <= i else H[i,j]", False),
        ("O[i,j] = L[i,j] + sum[k](H[i,k])", False),
        ("O[i,j] = sum[k](L[i,k] * H[i,k])", True),
        ("O[i,j] = sum[k : k > i](L[i,k]) + H[i,j]", True),
        ("O[i,j] = sum[k : k > j](L[i,k]) + H[i,j]", False),
        ("O[i,j] = max(L[i,j], H[i,j])", True),
        ("O[i,j] = L[i,j+1] + H[i,j]", True),
        ("O[i,j] = L[i,j-1] + H[i,j]", False),
        ("O[i,j] = L[i,j] * L[j,i] + H[0,i]", False),
    ],
)
def test_reads_intersect(look: Look, statement: str, empty: bool) -> None:
    used = ("" if "L[" not in statement else LOW) + ("" if "H[" not in statement else HIGH)
    result = look(program(used + statement))
    assert ([d.code for d in result.diagnostics if d.code != "A0264"] == ["A0233"]) is empty
