"""Helpers of a recurrence's step are written into it; what is no helper stands where it stood."""

from __future__ import annotations

import pytest

from attndsl.cascade.printer import print_expr
from attndsl.frontend import check
from attndsl.source import Source

HEAD = "attention t(K[t,e], V[t,f], g[t]) -> O[t,f]{} {{\n  {}\n  O[t,f] = sum[e](K[t,e] * H[t,e,f])\n}}"


def steps(lines: str, outputs: str = "") -> dict[str, str]:
    result = check(Source("t", HEAD.format(outputs, lines)))
    assert result.ok, [d.title for d in result.diagnostics]
    return {d.tensor: print_expr(d.expr) for d in result.cascades[0].body}


ERROR = "E[t,f] = V[t,f] - K[t,c] * H[t-1,c,f]\n"
STATE = "H[t,e,f] = H[t-1,e,f] + K[t,e] * E[t,f] init 0"


def test_a_helper_is_written_into_the_step() -> None:
    made = steps(ERROR + STATE)
    assert list(made) == ["H", "O"]
    assert made["H"] == "H[t - 1,e,f] + K[t,e] * (V[t,f] - sum[c](K[t,c] * H[t - 1,c,f]))"


def test_a_helper_that_is_an_output_follows_the_recurrence() -> None:
    assert list(steps(ERROR + STATE, ", E[t,f]")) == ["H", "E", "O"]


def test_helpers_of_helpers() -> None:
    made = steps("P[t,f] = K[t,c] * H[t-1,c,f]\nE[t,f] = V[t,f] - g[t] * P[t,f]\n" + STATE)
    assert list(made) == ["H", "O"]


def test_indices_that_a_helper_binds_make_way() -> None:
    made = steps(
        "P[t,f] = sum[c](K[t,c] * H[t-1,c,f])\n"
        "H[t,e,f] = H[t-1,e,f] - K[t,e] * (sum[c](P[t,c] * V[t,c])) * V[t,f] + K[t,e] * V[t,f] init 0"
    )
    inner = made["H"].split("sum[")[2]
    assert inner.startswith("c_1](K[t,c_1] * H[t - 1,c_1,c])")


@pytest.mark.parametrize(
    "lines",
    [
        # the recurrence does not read it: it stands too early
        "E[t,f] = H[t-1,0,f] + V[t,f]\nH[t,e,f] = H[t-1,e,f] + K[t,e] * V[t,f] init 0\nG[t,f] = E[t,f]",
        # another step of it than its own
        "E[t,f] = V[t,f] - K[t,c] * H[t-1,c,f]\n"
        "H[t,e,f] = H[t-1,e,f] + K[t,e] * (E[t-1,f] if t > 0 else 0) init 0",
        # this step's state
        "E[t,f] = V[t,f] - K[t,c] * H[t,c,f]\n" + STATE,
    ],
)
def test_what_is_no_helper_is_read_too_early(lines: str) -> None:
    result = check(Source("t", HEAD.format("", lines)))
    assert "A0213" in [d.code for d in result.diagnostics]
