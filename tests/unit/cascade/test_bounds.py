"""Between which numbers values lie, and the signs that follow."""

from __future__ import annotations

import math

import pytest

from attndsl.cascade.bounds import bounds_of
from attndsl.cascade.nodes import Cascade
from attndsl.cascade.signs import Sign, sign_of
from attndsl.frontend import load_cascades
from attndsl.source import Source

CASES = {
    "1 - 0.9 * sigmoid(x[i])": (0.1, 1.0, Sign.POSITIVE),
    "1 - sigmoid(x[i])": (0.0, 1.0, Sign.NONNEGATIVE),
    "1.5 + 0.5 * sin(x[i])": (1.0, 2.0, Sign.POSITIVE),
    "1 - tanh(x[i]) / 2": (0.5, 1.5, Sign.POSITIVE),
    "-min(x[i], 0)": (0.0, math.inf, Sign.NONNEGATIVE),
    "1 - min(max(x[i], 0), 0.5)": (0.5, 1.0, Sign.POSITIVE),
    "0.25 + x[i]**2": (0.25, math.inf, Sign.POSITIVE),
    "sigmoid(x[i]) - 0.5": (-0.5, 0.5, Sign.ANY),
    "1 - 0.9999999 * sigmoid(x[i])": (1e-7, 1.0, Sign.NONNEGATIVE),  # rounding may leave 0 of it
    "(1 if x[i] > 0 else 2) - 0.5": (0.5, 1.5, Sign.POSITIVE),
    "tanh(x[i]) * (-2)": (-2.0, 2.0, Sign.ANY),
    "1 - x[i]": (-math.inf, math.inf, Sign.ANY),
}


def cascade(text: str) -> Cascade:
    (made,) = load_cascades(Source("t", f"attention t(x[i]) -> y[i] {{ y[i] = {text} }}"))
    return made


@pytest.mark.parametrize("text", CASES)
def test_bounds_and_signs(text: str) -> None:
    e = cascade(text).body[0].expr
    low, high, sign = CASES[text]
    assert bounds_of(e) == pytest.approx((low, high), abs=1e-8)
    assert sign_of(e, {}) is sign
