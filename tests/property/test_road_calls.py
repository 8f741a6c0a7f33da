"""Calls nobody planned for: names outside ASCII, forward derivatives, numbers without a value, parts of an axis."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as forward

import attndsl
from tests.road.harness import small_tiles

ROWS = torch.arange(12.0).reshape(3, 4)


def compiled(text: str) -> attndsl.CompiledAttention:
    return attndsl.compile(text, backend="eager")


def test_names_may_be_of_any_alphabet() -> None:
    op = compiled(
        "attention größe(Ключ[i,e], θ[i], λ: float = 2.0) -> Ω[i] {"
        " Ω[i] = sum[e](Ключ[i,e]) * θ[i] / λ }"
    )
    x, theta = ROWS.clone().requires_grad_(), torch.ones(3, requires_grad=True)
    out = op(x, theta)
    torch.testing.assert_close(out, ROWS.sum(1) / 2)
    out.sum().backward()
    torch.testing.assert_close(theta.grad, ROWS.sum(1) / 2)


SUM = "attention f(X[i,e]) -> O[i] { O[i] = sum[e](X[i,e]**2) }"


@pytest.mark.parametrize("tracked", [False, True])
def test_a_forward_derivative_is_refused_rather_than_zero(tracked: bool) -> None:
    op = compiled(SUM)
    with forward.dual_level(), pytest.raises(RuntimeError, match="no forward-mode derivative"):
        op(forward.make_dual(ROWS.clone().requires_grad_(tracked), ROWS))
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(op, (ROWS,), (ROWS,))
    _, tangent = torch.func.jvp(op.reference, (ROWS,), (ROWS,))
    torch.testing.assert_close(tangent, 2 * (ROWS**2).sum(1))


def test_a_gradient_as_a_transform_is_refused_in_the_programs_words() -> None:
    op = compiled(SUM)
    for transform in (torch.func.grad, torch.func.jacrev):
        with pytest.raises(RuntimeError, match=r"`f` has no gradient under `torch\.func`"):
            transform(lambda x: op(x).sum())(ROWS)
    got = torch.vmap(op)(torch.stack([ROWS, 2 * ROWS]))
    torch.testing.assert_close(got, torch.stack([op(ROWS), op(2 * ROWS)]))


def test_tensors_without_values_give_shapes() -> None:
    out = compiled(SUM)(ROWS.to("meta"))
    assert out.is_meta
    assert out.shape == ROWS.shape[:1]


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(2), Fraction(1, 4)])
def test_any_real_number_is_one(value: Any) -> None:
    op = compiled("attention f(X[i,e], c: float) -> O[i] { O[i] = c * sum[e](X[i,e]) }")
    want = float(value) * ROWS.sum(1)
    torch.testing.assert_close(op(ROWS, c=value), want)
    torch.testing.assert_close(op.reference(ROWS, c=value), want)


@pytest.mark.parametrize("value", [10**400, torch.tensor(0.5), 1j, "1"])
def test_what_is_no_number_is_refused(value: Any) -> None:
    op = compiled("attention f(X[i,e], c: float) -> O[i] { O[i] = c * sum[e](X[i,e]) }")
    for call in (op, op.reference):
        with pytest.raises(attndsl.CallError) as refused:
            call(ROWS, c=value)
        assert refused.value.code == "A0504"


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_numbers_without_a_value(value: float) -> None:
    op = compiled("attention f(X[i,e], c: float) -> O[i] { O[i] = sum[e](X[i,e]) + 1 / sqrt(c) }")
    with pytest.raises(attndsl.CallError, match="no finite number") as refused:
        op(ROWS, c=value)
    assert refused.value.code == "A0504"


def test_a_declared_rank_is_not_widened_to_the_axis_it_reads() -> None:
    """The first half of an axis was once summed as the whole."""
    text = "attention f(X[i,e], Y[i,e]) -> O[i] {{ rank c = |e| // 2; O[i] = X[i,{0}] * Y[i,{0}] }}"
    with pytest.raises(attndsl.CallError, match=r"needs \|c\| = \|e\|") as refused:
        compiled(text.format("c"))(ROWS, ROWS)
    assert refused.value.code == "A0503"
    out = compiled(text.format("c + 0"))(ROWS, ROWS)
    torch.testing.assert_close(out, (ROWS[:, :2] ** 2).sum(1))


def test_steps_that_differ_are_named() -> None:
    op = compiled(
        "attention f(Q[i,e], K[j,e]) -> O[i] { S[i,j] = Q[i,e] * K[j,e] where 2 * j <= 3 * i;"
        " O[i] = sum[j](S[i,j]) }"
    )
    with pytest.raises(attndsl.CallError, match=r"`i` against `2 \* j / 3`"):
        op(ROWS, ROWS)
    keep = 2 * torch.arange(3)[None, :] <= 3 * torch.arange(3)[:, None]
    torch.testing.assert_close(op(ROWS, ROWS, start=0), (ROWS @ ROWS.T * keep).sum(1))


def test_a_choice_of_two_numbers_keeps_the_digits_of_float64() -> None:
    op = compiled(
        "attention f(X[i,e], m[i]: bool) -> O[i] { O[i] = sum[e](X[i,e]) * (0.7 if m[i] else 0.1) }"
    )
    m = torch.tensor([True, False, True])
    out = op(ROWS.double(), m)
    want = ROWS.double().sum(1) * torch.tensor([0.7, 0.1, 0.7], dtype=torch.float64)
    torch.testing.assert_close(out, want, rtol=1e-15, atol=0)


MASKED = """attention a(Q[b,i,e], K[b,j,e], V[b,j,f], s: int, c: float = 7.5) -> O[b,i,f] {{
  batch b
  S[i,j] = Q[i,e] * K[j,e] where {0}
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}}"""


@pytest.mark.parametrize(
    ("where", "s"),
    [
        ("j <= s * i + 30", -1),
        ("j <= s * i + 30", 0),
        ("i // 4 * s >= j - 20", -3),
        ("j * s <= i", -2),
        ("j >= i - s, j > c", 3),
        ("i - j <= c, j <= i + s", -1),
        ("s == 0 or i // s == j // s, j <= i * s + 4", 4),
    ],
)
def test_tiles_are_skipped_right_whatever_the_sign_and_kind_of_a_bound(where: str, s: int) -> None:
    q, k, v = (torch.randn(1, 40, 8, dtype=torch.float64) for _ in range(3))
    with small_tiles(8):
        op = compiled(MASKED.format(where))
        got = op(q, k, v, s=s, start=0)
    torch.testing.assert_close(got, op.reference(q, k, v, s=s, start=0))


@pytest.mark.parametrize(
    ("where", "s", "code"),
    [("i // s == j // s", -4, "A0504"), ("s == 0 or i // s == j // s", 0, "A0508")],
)
def test_blocks_have_positions(where: str, s: int, code: str) -> None:
    q, k, v = (torch.randn(1, 40, 8) for _ in range(3))
    with pytest.raises(attndsl.CallError) as refused:
        compiled(MASKED.format(where))(q, k, v, s=s)
    assert refused.value.code == code


THRESHOLD = """attention a(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {{
  batch b
  S[i,j] = Q[i,e] * K[j,e] where j <= i
  M[i] = max[j](S[i,j])
  t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x)**3) == 1, iters={0})
  O[i,f] = relu(S[i,j] - t[i])**3 * V[j,f]
}}"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_debug_mode_refuses_too_few_rounds(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 33, 8, generator=generator).to(dtype) for _ in range(3))
    with pytest.raises(attndsl.CallError, match="`t` has iters=1") as refused:
        compiled(THRESHOLD.format(1))(q, k, v, debug=True)
    assert refused.value.code == "A0514"
    enough = compiled(THRESHOLD.format(24))
    torch.testing.assert_close(enough(q, k, v, debug=True), enough(q, k, v))


def test_a_subscript_that_leaves_its_axis_is_shown_as_it_was_written() -> None:
    op = compiled(
        "attention f(X[i,e], Y[j,e]) -> O[i,e] { O[i,e] = exp(X[i,0] * Y[j,0]) * Y[j+1,e] }"
    )
    with pytest.raises(attndsl.CallError, match=r"subscript `j \+ 1` leaves axis 0 of `Y`"):
        op(ROWS, ROWS)
