"""Which sums at every pair of positions are cubic, and which are matrix products or short."""

from __future__ import annotations

import pytest

from attndsl.analysis.triples import POSITIONS, triples
from attndsl.frontend import load_cascades
from attndsl.source import Source

HEAD = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], L[b,l,e], W[e,c], w[c]) -> O[b,i,f] {{
  batch b
  {}
  O[i,f] = T[i,j] * V[j,f]
}}"""


def found(line: str) -> list[str]:
    (c,) = load_cascades(Source("t", HEAD.format(line)))
    return [x.over for x in triples(c)]


@pytest.mark.parametrize(
    "line",
    [
        "T[i,j] = sum[l](tanh(Q[i,e] * L[l,e] + K[j,e] * L[l,e]))",
        "A[i,j,l] = sigmoid(Q[i,e] * L[l,e] - K[j,e] * L[l,e])\n  T[i,j] = sum[l](A[i,j,l] * sum[e](L[l,e] * Q[i,e]))",
    ],
)
def test_terms_of_three_positions(line: str) -> None:
    assert found(line) == ["l"]


@pytest.mark.parametrize(
    "line",
    [
        "T[i,j] = sum[l](relu(sum[e](Q[i,e] * L[l,e])) * relu(sum[e](L[l,e] * K[j,e])))",
        "A[i,l] = exp(Q[i,e] * L[l,e])\n  T[i,j] = -sum[l](A[i,l] * sum[e](L[l,e] * K[j,e]) / (1 + A[i,l]))",
        "T[i,j] = sum[e](abs(Q[i,e] - K[j,e]))",
        "T[i,j] = sum[c](w[c] * tanh(Q[i,e] * W[e,c] + K[j,e] * W[e,c]))",
    ],
)
def test_products_and_features(line: str) -> None:
    assert not found(line)


def test_operations_are_counted() -> None:
    (c,) = load_cascades(
        Source("t", HEAD.format("T[i,j] = sum[l](tanh(Q[i,e] * L[l,e] + K[j,e] * L[l,e]))"))
    )
    (x,) = triples(c)
    assert x.pair == ("i", "j")
    assert x.operations > 3 * POSITIONS**3
