"""Completed domains, explicit positions, and which indices stand on one axis."""

from __future__ import annotations

import pytest

from attndsl.callerrors import CallError
from attndsl.cascade.alignments import shifted_indices
from attndsl.cascade.bind import bind
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.nodes import Reduce
from attndsl.cascade.printer import print_cascade, print_expr
from attndsl.cascade.starts import apply_start, resolve_start
from attndsl.cascade.verify import verify, verify_types
from attndsl.cascade.walk import walk
from attndsl.diagnostics import DiagnosticError
from tests.unit.cascade.build import load


def domains(text: str) -> tuple[dict[str, str | None], dict[str, list[str | None]]]:
    """The completed domain of every tensor, and those of the reductions in it."""
    cascade = explicit_domains(load(text))
    verify(cascade)
    verify_types(cascade)
    own = {d.tensor: print_expr(d.where) if d.where is not None else None for d in cascade.body}
    inner = {
        d.tensor: [
            print_expr(n.where) if n.where is not None else None
            for n in walk(d.expr)
            if isinstance(n, Reduce)
        ]
        for d in cascade.body
    }
    return own, inner


def test_maps_inherit_and_reductions_end_a_domain() -> None:
    own, inner = domains("""
    attention a(x[i], y[j]) -> O[i] {
      S[i,j] = x[i] * y[j]         where j <= i
      P[i,j] = exp(S[i,j])         where i - j < 4
      Z[i]   = sum[j](P[i,j])
      O[i]   = sum[j](P[i,j] / Z[i] * y[j])
    }""")
    assert own == {"S": "j <= i", "P": "i - j < 4 and j <= i", "Z": None, "O": None}
    (z,), (o,) = inner["Z"], inner["O"]
    assert z is not None
    assert o is not None
    assert z.startswith("i - j")
    assert " <= i" in z
    assert " <= i" in o


def test_subscripts_are_substituted() -> None:
    own, _ = domains("""
    attention a(x[i], y[j]) -> O[i,j], W[i,j] {
      S[i,j] = x[i] * y[j]         where j <= i
      O[i,j] = S[j,i]
      W[i,j] = S[max(i - 1, 0), j // 2]
    }""")
    assert own["O"] == "i <= j"
    assert own["W"] == "j // 2 <= max(i - 1, 0)"


def test_only_the_chosen_branch_must_be_defined() -> None:
    own, _ = domains("""
    attention a(x[i], y[j]) -> A[i,j], B[i,j], C[i,j], D[i,j] {
      S[i,j] = x[i] * y[j]         where j <= i
      A[i,j] = S[i,j] if j <= i else 0
      B[i,j] = S[i,j] if j == 3 else 0
      C[i,j] = S[i,j] if j == 3 else S[j,i]
      D[i,j] = S[i,j] if j == 3 else S[i,j] + 1
    }""")
    assert own["A"] is None
    assert own["B"] == "j != 3 or j <= i"
    assert own["C"] == "j == 3 and j <= i or j != 3 and i <= j"
    assert own["D"] == "j <= i"


def test_conditions_are_looked_at_from_left_to_right() -> None:
    own, _ = domains("""
    attention a(x[i], y[j]) -> A[i,j], B[i,j] {
      S[i,j] = x[i] * y[j]         where j <= i
      A[i,j] = 1 if j <= i and S[i,j] > 0 else 0
      B[i,j] = 1 if j > i or S[i,j] > 0 else 0
    }""")
    assert own["A"] is None
    assert own["B"] is None


def test_a_reduction_of_a_filter_that_is_undefined_in_places() -> None:
    _, inner = domains("""
    attention a(x[i], y[j]) -> O[i] {
      S[i,j] = x[i] * y[j]         where j <= i
      O[i]   = sum[j : S[i,j] > 0](y[j])
    }""")
    (where,) = inner["O"]
    assert where is not None
    assert "> 0 and " in where
    assert where.endswith("<= i")


CAUSAL = """
attention causal(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
  batch b
  S[i,j] = Q[i,e] * K[j,e]    where CONDITION
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


@pytest.mark.parametrize(
    ("condition", "pairs"),
    [
        ("j <= i", (("i", "j"),)),
        ("i - 16 < j", (("i", "j"),)),
        ("i // 8 == j // 8", (("i", "j"),)),
        ("i // 8 - j // 8 <= 1", (("i", "j"),)),
        ("(i - j) % 4 == 0", (("i", "j"),)),
        ("0 <= 2 * (i - j)", (("i", "j"),)),
        ("j < 16", ()),
        ("i + j < 16", ()),
        ("i % 4 == 0", ()),
    ],
)
def test_indices_on_one_axis(condition: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert shifted_indices(load(CAUSAL.replace("CONDITION", condition))) == pairs


def test_a_scaled_difference_is_one_axis() -> None:
    text = CAUSAL.replace("K[j,e]    where CONDITION", "K[j,e] - 0.25 * (i - j)")
    assert shifted_indices(load(text)) == (("i", "j"),)


def test_a_scan_over_the_queries_does_not_shift_the_keys() -> None:
    text = """
    attention selective(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
      batch b
      X[i,j] = relu(Q[i,e] * K[j,e])                where j < i
      F[i,j] = sum[l : l < i](X[l,j])
      S[i,j] = Q[i,e] * K[j,e] - F[i,j]             where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    assert shifted_indices(load(text)) == (("i", "j"),)


SPLIT = """
attention split(Q[b,i,e], K[b,j,e], V[b,j,f], w: int = 4) -> O[b,i,f] {
  batch b
  rank j1 = |j| // w, j0 = w
  S[i,j1,j0] = Q[i,e] * K[j1*w + j0, e]    where j1*w + j0 <= i
  O[i,f]     = S[i,j1,j0] * V[j1*w + j0, f]
}
"""
POOLED = """
attention pooled(Q[b,i,e], K[b,c,e], V[b,c,f], w: int = 4) -> O[b,i,f] {
  batch b
  S[i,c] = Q[i,e] * K[c,e]    where c*w + w - 1 <= i
  O[i,f] = S[i,c] * V[c,f]
}
"""


@pytest.mark.parametrize("text", [SPLIT, POOLED])
def test_a_scaled_axis_is_measured_in_positions(text: str) -> None:
    cascade = load(text)
    n = 12 if "j1" in text else 3

    def start(i: int, value: object) -> dict[str, object]:
        return resolve_start(
            cascade, bind(cascade, {"Q": (1, i, 2), "K": (1, n, 2), "V": (1, n, 2)}), value
        )

    assert start(12, None) == {}
    assert start(1, "end") == {"i": 11}
    with pytest.raises(CallError, match="A0505"):
        start(5, None)


def test_apply_start_shifts_numbers_and_no_subscripts() -> None:
    text = """
    attention a(Q[b,i,e], K[b,j,e], V[b,j,f], r[b,i]) -> O[b,i,f] {
      batch b
      S[i,j] = Q[i,e] * K[j,e] - (i - j) * r[i]    where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    once = apply_start(load(text))
    verify(once)
    shown = print_cascade(once)
    assert "(i + start - j) * r[i]" in shown
    assert "where j <= i + start" in shown
    assert "start: int = 0" in shown
    assert apply_start(once) == once


def test_a_recurrence_keeps_its_step() -> None:
    text = """
    attention r(K[b,t,e], V[b,t,f], x[b,j]) -> O[b,t,f], W[b,t] {
      batch b
      H[t,f] = H[t-1,f] + V[t,f] * sum[e](K[t,e])    init 0
      O[t,f] = H[t,f]
      W[t]   = sum[j : j <= t](x[j])
    }"""
    shown = print_cascade(apply_start(load(text)))
    assert "H[t - 1,f]" in shown
    assert "<= t + start" in shown


def test_a_recurrence_over_a_cut_tensor_is_refused() -> None:
    text = """
    attention r(V[t], D[t]) -> O[t] {
      W[t] = V[t] * D[t]           where t > 3
      H[t] = H[t-1] + W[t]         init 0
      O[t] = H[t]
    }"""
    with pytest.raises(DiagnosticError) as caught:
        explicit_domains(load(text))
    assert caught.value.codes == ["A0246"]
    kept = text.replace("W[t]         init", "(W[t] if t > 3 else 0)    init")
    assert explicit_domains(load(kept)).define("H").where is None
