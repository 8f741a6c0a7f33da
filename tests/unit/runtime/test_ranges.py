"""The range of affine subscripts over a domain, against all its points."""

from __future__ import annotations

import itertools

import pytest

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Binding
from attndsl.frontend import load_cascades
from attndsl.runtime.checks import products
from attndsl.runtime.ranges import RangeCheck
from attndsl.source import Source

HEAD = "attention p(Q[b,i,e], K[b,j,e], T[n], w: int = 3) -> O[b,i] { batch b\n"
# Subscript, condition, and both again in Python.
CASES = {
    "causal": ("i - j", "j <= i", lambda i, j, n, w: i - j, lambda i, j, w: j <= i),
    "both": (
        "j - i + |i|",
        "i - w < j, j <= i + 2",
        lambda i, j, n, w: j - i + n,
        lambda i, j, w: i - w < j <= i + 2,
    ),
    "window": (
        "i - j + w",
        "i - w < j, j < i + w",
        lambda i, j, n, w: i - j + w,
        lambda i, j, w: i - w < j < i + w,
    ),
    "steps": (
        "2 * (i - j) // w",
        "j <= i",
        lambda i, j, n, w: 2 * (i - j) // w,
        lambda i, j, w: j <= i,
    ),
    "ring": ("(i + j) % w", None, lambda i, j, n, w: (i + j) % w, None),
    "clamped": ("max(0, min(i - j, w))", None, lambda i, j, n, w: max(0, min(i - j, w)), None),
    "or": (
        "i - j",
        "j == i or i - j == 2",
        lambda i, j, n, w: i - j,
        lambda i, j, w: i - j in (0, 2),
    ),
    "chosen": ("i - j if j <= i else j - i", None, lambda i, j, n, w: abs(i - j), None),
    "capped": (
        "abs(i - j) if abs(i - j) < w else w - 1",
        None,
        lambda i, j, n, w: min(abs(i - j), w - 1),
        None,
    ),
    "capped_remainder": (
        "j % 4 if 2 >= j % 4 else 0",
        None,
        lambda i, j, n, w: j % 4 if j % 4 <= 2 else 0,
        None,
    ),
    "near": (
        "i - j + 3",
        "3 >= abs(i - j)",
        lambda i, j, n, w: i - j + 3,
        lambda i, j, w: abs(i - j) <= 3,
    ),
    "blocks_apart": (
        "2 + i // w - j // w",
        "j <= i",
        lambda i, j, n, w: 2 + i // w - j // w,
        lambda i, j, w: j <= i,
    ),
    "blocks_apart_in_a_window": (
        "i // w - (j // w - 1)",
        "i - w < j, j <= i",
        lambda i, j, n, w: i // w - j // w + 1,
        lambda i, j, w: i - w < j <= i,
    ),
    "distance": ("abs(i - j)", "j <= i", lambda i, j, n, w: i - j, lambda i, j, w: j <= i),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("n", "w"), [(1, 1), (4, 3), (9, 2), (9, 5)])
def test_exactly_the_points_that_are_used_count(name: str, n: int, w: int) -> None:
    sub, where, value, inside = CASES[name]
    text = (
        f"{HEAD} S[i,j] = Q[i,e] * K[j,e] + T[{sub}]"
        + (f" where {where}" if where else "")
        + "\n O[i] = max[j](S[i,j]) }"
    )
    check = RangeCheck(load_cascades(Source("p.attn", text))[0])
    assert len(check.gathers) == 1
    points = itertools.product(range(n), range(n))
    used = [value(i, j, n, w) for i, j in points if inside is None or inside(i, j, w)]
    assert min(used) >= 0

    def extents(length: int) -> Binding:
        ranks = {r.name: n for r in check.cascade.ranks}
        return Binding({**ranks, "b": 1, "e": 4, "i": n, "j": n, "n": length}, {"w": w})

    check(extents(max(used) + 1))
    if max(used) > 0:
        with pytest.raises(CallError, match=f"to {max(used)}"):
            check(extents(max(used)))


def test_the_inputs_of_a_product() -> None:
    text = """attention p(Q[b,i,e], K[b,j,e], V[b,j,f], s[b]) -> O[b,i,f] { batch b
      S[i,j] = s * Q[i,e] * K[j,e]
      O[i,f] = softmax[j](S[i,j]) * V[j,f] }"""
    (cascade,) = load_cascades(Source("p.attn", text))
    assert {frozenset({"Q", "K"}), frozenset({"V"})} == set(products(cascade))
