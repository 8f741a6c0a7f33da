"""The separability oracle on bodies whose answer is known."""

from __future__ import annotations

import pytest

from attndsl.analysis.separability import Inseparable, Separated, separate
from attndsl.cascade.nodes import Expr, Read, Reduce
from attndsl.cascade.printer import print_expr
from attndsl.cascade.signs import Sign
from attndsl.cascade.starts import apply_start
from attndsl.cascade.walk import walk
from attndsl.frontend import load_cascades
from attndsl.schedule import plan_forward
from attndsl.source import Source


def asked(text: str) -> Separated | Inseparable:
    """Does `text` separate into the late u[i], z[i] > 0 and what moves with j?"""
    program = (
        f"attention t(S[i,j], v[j], u[i], z[i], w: float = 2) -> O[i] {{ O[i] = sum[j]({text}) }}"
    )
    (cascade,) = load_cascades(Source("t.attn", program))
    total = cascade.body[0].expr
    assert isinstance(total, Reduce)
    late = frozenset[Expr](
        n for n in walk(total.body) if isinstance(n, Read) and n.tensor in ("u", "z")
    )
    return separate(total.body, late, frozenset(total.indices), {"z": Sign.NONNEGATIVE})


@pytest.mark.parametrize(
    ("body", "rank"),
    [
        ("exp(S[i,j] - u[i]) / z[i] * v[j]", 1),
        ("relu(exp(S[i,j] - u[i]) - exp(-u[i])) * v[j]", 1),
        ("abs(exp(S[i,j] - u[i]) - exp(-u[i]))", 1),
        ("softplus(S[i,j]) / z[i] * v[j]", 1),
        ("S[i,j] / max(z[i], 1) * v[j]", 1),
        ("((i + 1) * softplus(S[i,j]) / z[i])**w", 1),
        ("sign(S[i,j] * exp(u[i]))", 1),
        ("sigmoid(S[i,j]) * sigmoid(u[i])", 1),
        ("(S[i,j] - u[i]) / sqrt(z[i]) * v[j]", 2),
        ("-exp(S[i,j] - u[i]) / z[i] * log(exp(S[i,j] - u[i]) / z[i])", 2),
        ("exp(S[i,j] - u[i]) / z[i] - exp(v[j]) / (1 + z[i])", 2),
        ("cos(S[i,j] - u[i])", 2),
        ("(S[i,j] - u[i])**2", 3),
        ("(S[i,j] - u[i])**3 * exp(S[i,j] - u[i])", 4),
    ],
)
def test_what_separates(body: str, rank: int) -> None:
    found = asked(body)
    assert isinstance(found, Separated)
    assert found.rank == rank


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("relu(S[i,j] - u[i]) * v[j]", "relu(S[i,j_1] - u[i])"),
        ("relu(S[i,j] - u[i])**2 * v[j]", "relu(S[i,j_1] - u[i])"),
        ("exp(S[i,j] / sqrt(z[i])) * v[j]", "exp(S[i,j_1] / sqrt(z[i]))"),
        ("exp((S[i,j] - u[i]) / z[i])", "exp((S[i,j_1] - u[i]) / z[i])"),
        ("sigmoid(S[i,j] - u[i])", "sigmoid(S[i,j_1] - u[i])"),
        ("v[j] / (1 + S[i,j] + z[i])", "v[j_1] / (1 + S[i,j_1] + z[i])"),
        (
            "exp(S[i,j]) if S[i,j] >= u[i] else 0",
            "exp(S[i,j_1]) if S[i,j_1] >= u[i] else 0",
        ),
        ("(S[i,j] - u[i])**4 * v[j]", "(S[i,j_1] - u[i])**4"),  # five terms: too many
    ],
)
def test_what_does_not(body: str, part: str) -> None:
    found = asked(body)
    assert isinstance(found, Inseparable)
    assert print_expr(found.part) == part


def test_answers_are_kept() -> None:
    assert asked("exp(S[i,j] - u[i])") is asked("exp(S[i,j] - u[i])")


def test_a_condition_may_be_a_tensor_of_bools() -> None:
    """Numbers are drawn for all atoms of an expression, and a bool is one of them."""
    text = """
attention a(Q[b,h,i,e], K[b,h,j,e], s[], row[i]: bool) -> A[b,h,i,j] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)   where not (row[i]) or j < 3
  S2[i,j] = Q[i,e] * K[j,e]   where j <= i
  A[i,j] = softmax[j](S[i,j]) - sigmoid(s) * softmax[j](S2[i,j])
}
"""
    (cascade,) = load_cascades(Source("bools.attn", text))
    assert plan_forward(apply_start(cascade)).steps
