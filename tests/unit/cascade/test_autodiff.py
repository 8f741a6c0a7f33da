"""What derived backward programs look like: which sums they need, what they keep, what drops out."""

from __future__ import annotations

import pytest
import torch

import attndsl
from attndsl.cascade.nodes import Reduce
from attndsl.cascade.walk import walk
from tests.unit.cascade.gradients import agree, backward, derived, numbers

SOFTMAX = """
attention a(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
  S[i,j] = Q[i,e] * K[j,e]   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}"""
BY_HAND = """
attention a(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
  S[i,j] = Q[i,e] * K[j,e]   where j <= i
  M[i]   = max[j](S[i,j])
  P[i,j] = exp(S[i,j] - M[i])
  Z[i]   = sum[j](P[i,j])
  %s
}"""
DIVISIONS = {
    "inside the sum": "O[i,f] = P[i,j] / Z[i] * V[j,f]",
    "after the sum": "N[i,f] = P[i,j] * V[j,f]   O[i,f] = N[i,f] / Z[i]",
    "as weights": "A[i,j] = P[i,j] / Z[i]   O[i,f] = A[i,j] * V[j,f]",
}


def attention_inputs(n: int = 5, h: int = 0) -> dict[str, torch.Tensor]:
    shape = (h,) if h else ()
    return {name: numbers(*shape, n, 3, seed=seed) for seed, name in enumerate(("Q", "K", "V"), 1)}


def row_sums(text: str, over: str) -> list[str]:
    """Row tensors of the backward program that still need a sweep over a sequence."""
    _, gradient = derived(text)
    ranks = {r.name: r.iterates or r.name for r in gradient.backward.ranks}
    return [
        d.tensor
        for d in gradient.backward.body
        if over not in d.indices
        and d.tensor not in gradient.gradients.values()
        and any(
            isinstance(n, Reduce) and over in {ranks[i] for i in n.indices} for n in walk(d.expr)
        )
    ]


def test_softmax_becomes_the_known_backward() -> None:
    assert backward(SOFTMAX) == {
        "S": "sum[e_1](Q[i,e_1] * K[j,e_1]) where j <= i",
        "D": "sum[f_2](O[i,f_2] * dO[i,f_2])",
        "dP_S": "sum[f_3](V[j,f_3] * dO[i,f_3])",
        "P_S": "exp(S[i,j] - L_S[i])",
        "dS": "(dP_S[i,j] - D[i]) * P_S[i,j]",
        "dQ": "sum[j_4](K[j_4,e] * dS[i,j_4])",
        "dK": "sum[i_1](Q[i_1,e] * dS[i_1,j])",
        "dV": "sum[i_2](P_S[i_2,j] * dO[i_2,f])",
    }


@pytest.mark.parametrize("division", DIVISIONS)
def test_where_the_division_stands_does_not_matter(division: str) -> None:
    text = BY_HAND % DIVISIONS[division]
    _, gradient = derived(text)
    assert set(gradient.residuals) == {"O", "L"}
    assert row_sums(text, "j") == []
    assert backward(text)["dS"].endswith("- D[i]) * P[i,j]") or "A" in backward(text)["dS"]
    agree(text, attention_inputs())


def test_the_users_log_sum_exp_is_kept_and_its_gradient_joins_the_row_term() -> None:
    text = SOFTMAX.replace("O[i,f] {", "O[i,f], LSE[i] {").replace(
        "V[j,f]\n}", "V[j,f]\n  LSE[i] = logsumexp[j](S[i,j])\n}"
    )
    _, gradient = derived(text)
    assert gradient.residuals == ("O", "LSE")
    assert [o.name for o in gradient.forward.outputs] == ["O", "LSE"]
    assert backward(text)["D"] == "sum[f_2](O[i,f_2] * dO[i,f_2]) - dLSE[i]"
    agree(text, attention_inputs())


def test_the_stabiliser_gets_no_gradient_unless_it_is_an_output() -> None:
    assert "dM_S" not in backward(SOFTMAX)
    seen = (BY_HAND % "O[i,f] = P[i,j] / Z[i] * V[j,f]").replace("O[i,f] {", "O[i,f], M[i] {")
    assert any(n.startswith("ties") for n in backward(seen))
    agree(seen, attention_inputs())


def test_matrices_over_two_sequences_are_computed_again() -> None:
    text = BY_HAND.replace("-> O[i,f]", "-> O[i,f], A[i,j]") % DIVISIONS["as weights"]
    _, gradient = derived(text)
    sizes = {t.name: len(t.dims) for t in gradient.backward.inputs}
    assert "A" not in sizes
    assert "S" in backward(text)
    agree(text, attention_inputs())


def test_sums_that_the_forward_program_has_not_made_need_a_sweep() -> None:
    text = SOFTMAX.replace("-> O[i,f]", "-> O[i,f], C[j]").replace(
        "V[j,f]\n}", "V[j,f]\n  C[j] = sum[i](softmax[j](S[i,j]))\n}"
    )
    assert row_sums(text, "j") == ["D"]
    agree(text, attention_inputs())


def test_two_softmaxes_share_one_matrix_product() -> None:
    text = """
    attention a(Q[i,e], K[j,e], R[j,e], V[j,f], w[]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e]
      T[i,j] = Q[i,e] * R[j,e]
      O[i,f] = (softmax[j](S[i,j]) - w * softmax[j](T[i,j])) * V[j,f]
    }"""
    products = [e for e in backward(text).values() if "V[" in e and "dO[" in e]
    assert len(products) == 1
    agree(text, attention_inputs() | {"R": numbers(5, 3, seed=8), "w": numbers(seed=9)})


DIFFERENCE = """
attention a(Q[i,e], K[j,e], R[j,e], V[j,f], w[]) -> O[i,f] {
  S[i,j] = Q[i,e] * K[j,e]   where %s
  T[i,j] = Q[i,e] * R[j,e]   where %s
  O[i,f] = (softmax[j](S[i,j]) - w * softmax[j](T[i,j])) * V[j,f]
}"""


@pytest.mark.parametrize("first", ["j <= i", "j < i"])
@pytest.mark.parametrize("second", ["j <= i", "i - 2 < j"])
def test_sums_of_each_of_several_normalisers_are_kept(first: str, second: str) -> None:
    """Row sums of their gradients are read from them, where they see the same keys and where they do not."""
    text = DIFFERENCE % (first, second)
    assert row_sums(text, "j") == []
    _, gradient = derived(text)
    assert {"O_part", "O_part_2"} <= {*gradient.residuals}
    agree(text, attention_inputs() | {"R": numbers(5, 3, seed=8), "w": numbers(seed=9)})


def test_a_difference_within_one_normaliser_is_one_sum() -> None:
    text = SOFTMAX.replace(
        "softmax[j](S[i,j])", "(softmax[j](S[i,j]) - 2 * softmax[j](S[i,j]) * V[j,f])"
    )
    _, gradient = derived(text)
    assert "O_part" not in gradient.residuals
    agree(text, attention_inputs())


def test_grouped_heads_scatter_to_the_heads_they_read() -> None:
    text = """
    attention a(Q[h,i,e], K[h//G,j,e], V[h//G,j,f], G: int) -> O[h,i,f] {
      batch h
      S[i,j] = Q[i,e] * K[j,e]
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    assert backward(text)["dK"].startswith("sum[h_1,i_1 : h_1 // G == K.0](")
    inputs = {"Q": numbers(4, 5, 3), "K": numbers(2, 5, 3, seed=1), "V": numbers(2, 5, 2, seed=2)}
    agree(text, inputs)


def test_tables_are_summed_by_segment() -> None:
    text = """
    attention a(Q[i,e], K[j,e], V[j,f], table[m], bucket[r]: int) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e] + table[bucket[i - j + |i| - 1]]   where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    assert "bucket[i_3 - j_5 + |i| - 1] == m" in backward(text)["dtable"]
    bucket = torch.randint(0, 4, (9,), generator=torch.Generator().manual_seed(1))
    agree(text, attention_inputs() | {"table": numbers(4), "bucket": bucket})


def test_a_batch_index_that_an_input_lacks_is_summed() -> None:
    text = """
    attention a(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], slope[h]) -> O[b,h,i,f] {
      batch b, h
      S[i,j] = Q[i,e] * K[j,e] - slope * (i - j)   where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    _, gradient = derived(text)
    assert gradient.backward.define("dslope").indices == ("h",)
    inputs = {n: numbers(2, 3, 4, 2, seed=k) for k, n in enumerate(("Q", "K", "V"))}
    agree(text, inputs | {"slope": numbers(3)})


def test_softpick_keeps_the_maximum_that_its_epsilon_sees() -> None:
    text = """
    attention a(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e]   where j <= i
      M[i]   = max[j](S[i,j])
      X[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])
      O[i,f] = relu(X[i,j]) / (sum[j](abs(X[i,j])) + %s) * V[j,f]
    }"""
    assert "ties" in backward(text % "0.01")
    assert "ties" not in backward(text % "0")
    agree(text % "0.01", attention_inputs())
    agree(text % "0", attention_inputs())


def test_what_scales_a_tensor_has_a_gradient_of_rows() -> None:
    """`X` scales by exp(-M): the sum of `X * dX` is known from the forward pass but for the epsilon, and no sweep is
    taken for it. Apart, its terms are an infinity times 0 in a row of low scores.
    """
    text = """
    attention a(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e]   where j <= i
      M[i]   = max[j](S[i,j])
      X[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])
      O[i,f] = relu(X[i,j]) / (sum[j](abs(X[i,j])) + 0.01) * V[j,f]
    }"""
    assert row_sums(text, "j") == ["ties"]
    op = attndsl.compile(text, backend="eager")
    low = {n: x.float() for n, x in attention_inputs().items()}
    low["Q"], low["K"] = low["Q"].abs() * -100, low["K"].abs() + 1
    leaves = {n: x.requires_grad_() for n, x in low.items()}
    op(**leaves).sum().backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in leaves.values())


@pytest.mark.parametrize("fn", ["abs", "relu", "relu(-X[i,j]) + abs", "max(X[i,j], 0) + relu"])
def test_sums_of_what_meets_its_sign(fn: str) -> None:
    text = """
    attention a(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e]
      M[i]   = max[j](S[i,j])
      X[i,j] = exp(S[i,j] - M[i]) - exp(-2 * M[i]) * exp(M[i])
      O[i,f] = relu(X[i,j]) / (sum[j](%s(X[i,j])) + 0.5) * V[j,f]
    }"""
    agree(text % fn, attention_inputs())


def test_only_the_gradients_asked_for_are_made() -> None:
    from attndsl.cascade.autodiff import differentiate

    cascade, _ = derived(SOFTMAX)
    gradient = differentiate(cascade, wrt=["V"])
    assert [o.name for o in gradient.backward.outputs] == ["dV"]
    assert {d.tensor for d in gradient.backward.body} == {"S", "P_S", "dV"}


def test_an_input_is_taken_for_its_extent_alone() -> None:
    text = "attention a(x[i,e], y[j,e]) -> O[i] { O[i] = sum[e](x[i,e]) + sum[j,e](y[j,e]) }"
    _, gradient = derived(text)
    assert {t.name for t in gradient.backward.inputs} == {"x", "y", "dO"}
    agree(text, {"x": numbers(4, 2), "y": numbers(3, 2)})


@pytest.mark.parametrize("start", [0, 3])
def test_positions_may_be_shifted(start: int) -> None:
    text = """
    attention a(Q[i,e], K[j,e], V[j,f], c[]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e] - c * (i - j)   where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    queries = 2 if start else 6
    agree(text, attention_inputs(6) | {"Q": numbers(queries, 3), "c": numbers()}, start=start)
    _, gradient = derived(text, shifted=True)
    assert "start" in {p.name for p in gradient.backward.params}


def test_rows_without_points_and_scores_of_minus_infinity() -> None:
    text = """
    attention a(Q[i,e], K[j,e], V[j,f], B[i,j], g[i]) -> O[i,f], LSE[i] {
      S[i,j] = Q[i,e] * K[j,e] + B[i,j]   where j < i
      O[i,f] = g[i] * (softmax[j](S[i,j]) * V[j,f])
      LSE[i] = logsumexp[j](S[i,j]) if i > 2 else 0
    }"""
    bias = numbers(5, 5, seed=5)
    bias[1] = float("-inf")
    bias[3, :2] = float("-inf")
    got = agree(text, attention_inputs() | {"B": bias, "g": numbers(5, seed=6)})
    assert (got["B"][0] == 0).all()
    assert (got["B"][1] == 0).all()
