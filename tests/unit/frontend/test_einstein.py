"""The Einstein rule, example by example (language reference, section 10)."""

from __future__ import annotations

import pytest

from attndsl.frontend.einstein import CannotSum, Why, occurring, write_sums
from attndsl.frontend.parser import parse_expr
from attndsl.frontend.printer import print_expr
from attndsl.source import Source

TENSORS = frozenset({*"QKVBSCADLMUwR", "doc"})


def sums(text: str, left: str) -> str:
    e = parse_expr(Source("t", text), 0, len(text))
    return print_expr(write_sums(e, frozenset(left.split()), TENSORS))


@pytest.mark.parametrize(
    ("text", "left", "expected"),
    [
        # The examples of the contract.
        ("Q[i,e]*K[j,e] + B[i,j]", "i j", "sum[e](Q[i,e] * K[j,e]) + B[i,j]"),
        (
            "(elu(Q[i,e])+1) * (elu(K[j,e])+1)",
            "i j",
            "sum[e]((elu(Q[i,e]) + 1) * (elu(K[j,e]) + 1))",
        ),
        ("exp(i - j) * V[j,f]", "i f", "sum[j](exp(i - j) * V[j,f])"),
        ("softmax[j](S[i,j]) * V[j,f]", "i f", "sum[j](softmax[j](S[i,j]) * V[j,f])"),
        # Nothing to sum.
        ("Q[i,e]", "i e", "Q[i,e]"),
        ("Q[i,e] / sqrt(|j|)", "i e", "Q[i,e] / sqrt(|j|)"),
        # Sums, differences, signs and branches: inside each operand where it occurs.
        (
            "Q[i,e]*K[j,e] - Q[j,e]*K[i,e]",
            "i j",
            "sum[e](Q[i,e] * K[j,e]) - sum[e](Q[j,e] * K[i,e])",
        ),
        ("-(Q[i,e]*K[j,e])", "i j", "-(sum[e](Q[i,e] * K[j,e]))"),
        ("-Q[i,e]*K[j,e]", "i j", "sum[e](-Q[i,e] * K[j,e])"),
        (
            "Q[i,e]*K[j,e] if j < i else Q[j,e]*K[i,e]",
            "i j",
            "sum[e](Q[i,e] * K[j,e]) if j < i else sum[e](Q[j,e] * K[i,e])",
        ),
        # Chains: over the whole of it, divisors included; a parenthesis is one factor.
        ("Q[i,e]*K[j,e]/sqrt(|e|)", "i j", "sum[e](Q[i,e] * K[j,e] / sqrt(|e|))"),
        ("2 / w * Q[i,e]*K[j,e]", "i j", "sum[e](2 / w * Q[i,e] * K[j,e])"),
        ("2 * (Q[i,e]*K[j,e])", "i j", "2 * (sum[e](Q[i,e] * K[j,e]))"),
        ("A[i] * (Q[i,e]*K[j,e] + 1)", "i j", "A[i] * (sum[e](Q[i,e] * K[j,e]) + 1)"),
        ("Q[i,e] * (K[j,e] + K[i,e])", "i j", "sum[e](Q[i,e] * (K[j,e] + K[i,e]))"),
        ("S[i,j] / C[j] * V[j,f]", "i f", "sum[j](S[i,j] / C[j] * V[j,f])"),
        ("Q[i,e] / K[j,e]", "i j", "sum[e](Q[i,e] / K[j,e])"),
        # Functions, powers, comparisons: inside the one argument.
        ("tanh(Q[i,e]*K[j,e])", "i j", "tanh(sum[e](Q[i,e] * K[j,e]))"),
        ("max(Q[i,e]*K[j,e], 0)**2", "i j", "max(sum[e](Q[i,e] * K[j,e]), 0)**2"),
        ("w * tanh(Q[i,e]*K[j,e] / w)", "i j", "w * tanh(sum[e](Q[i,e] * K[j,e] / w))"),
        ("Q[i,e]*K[j,e] > 0", "i j", "sum[e](Q[i,e] * K[j,e]) > 0"),
        # Each index alone.
        ("Q[i,e]*K[j,e]*V[j,f]", "i f", "sum[e,j](Q[i,e] * K[j,e] * V[j,f])"),
        ("exp(Q[i,e]*K[j,e]) * V[j,f]", "i f", "sum[j](exp(sum[e](Q[i,e] * K[j,e])) * V[j,f])"),
        ("(Q[i,e]*K[j,e]) * V[j,f]", "i f", "sum[j]((sum[e](Q[i,e] * K[j,e])) * V[j,f])"),
        # Reductions bind, normalizers do not.
        ("max[j](Q[i,e]*K[j,e])", "i", "max[j](sum[e](Q[i,e] * K[j,e]))"),
        ("sum[j](S[i,j]) * C[j]", "i j", "sum[j](S[i,j]) * C[j]"),
        (
            "softmax[j](Q[i,e]*K[j,e]) * V[j,f]",
            "i f",
            "sum[j](softmax[j](sum[e](Q[i,e] * K[j,e])) * V[j,f])",
        ),
        ("sum[l : l <= j](L[l]) * C[j]", "", "sum[j](sum[l : l <= j](L[l]) * C[j])"),
        ("sum[j](A[j]) * sum[e](K[j,e] * Q[j,e])", "j", "sum[j](A[j]) * sum[e](K[j,e] * Q[j,e])"),
        (
            "solve[x : 0 <= x <= 1](sum[j](relu(S[i,j] - x)) == Q[i,e]*K[i,e])",
            "i",
            "solve[x : 0 <= x <= 1](sum[j](relu(S[i,j] - x)) == sum[e](Q[i,e] * K[i,e]))",
        ),
        # Subscripts are occurrences.
        ("R[i - j] * V[j,f]", "i f", "sum[j](R[i-j] * V[j,f])"),
        ("R[doc[i,j]] * V[j,f]", "i f", "sum[j](R[doc[i,j]] * V[j,f])"),
    ],
)
def test_where_a_sum_lands(text: str, left: str, expected: str) -> None:
    assert sums(text, left) == expected


@pytest.mark.parametrize(
    ("text", "left", "why", "index"),
    [
        ("Q[i,e]*K[j,d]", "i j", [Why.LONE, Why.LONE], "ed"),
        ("V[j,f]", "f", [Why.LONE], "j"),
        ("2 * V[j,f]", "f", [Why.LONE], "j"),
        ("V[j,f] + C[j]*D[j]", "f", [Why.LONE], "j"),
        ("A[i] + j", "i", [Why.LONE], "j"),
        ("exp(j - i)", "i", [Why.LONE], "j"),
        ("softmax[j](S[i,j])", "i", [Why.LONE], "j"),
        ("R[i - j]", "i", [Why.LONE], "j"),
        ("A[i] / V[j,f]", "i f", [Why.DIVISOR], "j"),
        ("A[i] / (C[j] * D[j])", "i", [Why.DIVISOR], "j"),
        ("A[i] / C[j] / D[j]", "i", [Why.DIVISOR], "j"),
        ("max(Q[i,e], K[i,e])", "i", [Why.UNCLEAR], "e"),
        ("A[i]**j * 1 + C[j]**D[j]", "i", [Why.LONE], "j"),
        ("C[j]**D[j]", "", [Why.UNCLEAR], "j"),
        ("C[j] % D[j]", "", [Why.UNCLEAR], "j"),
        ("C[j] < D[j]", "", [Why.UNCLEAR], "j"),
        ("1 if j < i else 0", "i", [Why.UNCLEAR], "j"),
    ],
)
def test_what_is_refused(text: str, left: str, why: list[Why], index: str) -> None:
    with pytest.raises(CannotSum) as error:
        sums(text, left)
    assert [r.why for r in error.value.refusals] == why
    assert "".join(r.index for r in error.value.refusals) == index


def test_occurrences_leave_out_extents_bound_names_and_tensors() -> None:
    text = "Q[i,e] * w + sum[l : l <= k](L[l, m]) + |n|"
    e = parse_expr(Source("t", text), 0, len(text))
    assert occurring(e, TENSORS) == ["i", "e", "k", "m"]


def test_the_rule_keeps_what_has_nothing_to_sum() -> None:
    text = "Q[i,e] * 2"
    e = parse_expr(Source("t", text), 0, len(text))
    assert write_sums(e, {"i", "e"}, TENSORS) is e
