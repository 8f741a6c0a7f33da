"""Every rule of differentiation against autograd: functions, operators, reductions, branches, reads."""

from __future__ import annotations

import pytest
import torch

import attndsl
from attndsl.cascade.derivatives import FUNCTIONS
from tests.unit.cascade.gradients import agree, derived, numbers

POSITIVE = {"log", "log2", "sqrt", "rsqrt"}


def head(inputs: str, outputs: str, body: str) -> str:
    return f"attention a({inputs}) -> {outputs} {{ {body} }}"


@pytest.mark.parametrize("fn", sorted(FUNCTIONS))
def test_functions(fn: str) -> None:
    x = numbers(7)
    if fn in POSITIVE:
        x = x.abs() + 0.1
    if fn == "acos":
        x = torch.tanh(x)
    agree(head("x[i]", "y[i]", f"y[i] = {fn}(x[i]) * x[i]"), {"x": x})


@pytest.mark.parametrize("fn", ["relu", "abs", "sqrt", "log", "acos", "rsqrt"])
def test_functions_have_gradient_zero_at_a_singular_point(fn: str) -> None:
    text = head(
        "x[i], g[i]", "y[i]", f"S[i] = {fn}(x[i])   y[i] = S[i] * g[i] if x[i] != c else g[i]"
    )
    c = "1" if fn == "acos" else "0"
    x = numbers(5).abs().clamp(max=0.9)
    x[2] = float(c)
    agree(text.replace("!= c", f"!= {c}"), {"x": x, "g": numbers(5, seed=1)})


@pytest.mark.parametrize(
    "expr",
    [
        "x[i] * y[i] / (2 + y[i] ** 2)",
        "-(x[i] - y[i]) / x[i]",
        "x[i] ** 2 - 3 * x[i] ** -1",
        "(x[i] * y[i]) ** 3",
        "abs(x[i]) ** y[i]",
        "abs(x[i]) ** 0.5",
        "2 ** y[i]",
        "x[i] % 2 + y[i] // 2 * x[i]",
        "x[i] % abs(y[i])",
        "max(x[i], y[i], x[i] * y[i])",
        "min(x[i], 0) + max(y[i], x[i], 0.5)",
        "x[i] if y[i] > 0 else y[i] ** 2",
        "sqrt(x[i] ** 2 + y[i] ** 2)",
        "x[i] * i + y[i] / |i|",
        "floor(3 * x[i]) * y[i] + sign(x[i])",
        "exp(x[i]) / (exp(x[i]) + exp(y[i]))",
        "x[i] * x[i] / x[i]",
    ],
)
def test_operators(expr: str) -> None:
    agree(head("x[i], y[i]", "z[i]", f"z[i] = {expr}"), {"x": numbers(9), "y": numbers(9, seed=1)})


def test_equal_arguments_of_a_maximum_have_gradient_zero() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    y = torch.tensor([1.0, 5.0, 0.0], dtype=torch.float64)
    got = agree(head("x[i], y[i]", "z[i]", "z[i] = max(x[i], y[i])"), {"x": x, "y": y})
    assert got["x"][0] == got["y"][0] == 0


@pytest.mark.parametrize("op", ["max", "min"])
def test_equal_points_of_a_maximum_share(op: str) -> None:
    x = torch.tensor([[1.0, 1.0, 1.0, -2.0], [4.0, 0.0, 4.0, 4.0]], dtype=torch.float64)
    text = head("x[i,j]", "z[i]", f"S[i,j] = x[i,j] where j < 3   z[i] = {op}[j](S[i,j])")
    got = agree(text, {"x": x})
    assert (got["x"][:, 3] == 0).all()
    torch.testing.assert_close(got["x"][0, 0], got["x"][0, 2])


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_products_with_zeros(zeros: int) -> None:
    x = numbers(3, 4)
    x[1, :zeros] = 0
    agree(head("x[i,j]", "z[i]", "z[i] = prod[j : j != i](x[i,j])"), {"x": x})
    agree(head("x[i,j]", "z[i]", "z[i] = prod[j](x[i,j])"), {"x": x})


def test_a_product_over_keys_has_a_gradient_in_tiles() -> None:
    """Its factors leave one another out by division: no product of its own for each pair."""
    text = """attention f(Q[i,e], K[j,e]) -> O[i] {
      S[i,j] = Q[i,e] * K[j,e]   where j <= i
      O[i]   = prod[j](relu(S[i,j]) + S[i,j] ** 2)
    }"""
    op = attndsl.compile(text, backend="eager")
    q, k = numbers(7, 3).round(), numbers(7, 3, seed=1).round()  # with factors that are 0
    made = torch.autograd.grad(op(q.requires_grad_(), k.requires_grad_()).sum(), (q, k))
    want = torch.autograd.grad(op.reference(q, k).sum(), (q, k))
    for g, w in zip(made, want, strict=True):
        torch.testing.assert_close(g, w)


def test_truth_values_carry_no_gradient() -> None:
    text = head("x[i,j]", "z[i]", "z[i] = sum[j](x[i,j]) if any[j](x[i,j] > 1) else 0")
    agree(text, {"x": numbers(6, 4)})


@pytest.mark.parametrize(
    "body",
    [
        "O[i] = sum[l : l <= i](x[l]) * x[i]",
        "O[i] = sum[l : i < l](x[l] * x[i])",
        "C[i] = sum[l : l <= i](x[l])   S[i,j] = exp(C[i] - C[j]) where j <= i   O[i] = sum[j](S[i,j])",
        "O[i] = x[i] * (x[i-1] if i > 0 else 2)",
        "O[i] = x[i] * (x[i+2] if i + 2 < |i| else 2)",
        "O[i] = x[|i| - 1 - i] ** 2",
        "O[i] = x[i // 2] * x[(3 * i) % |i|]",
        "M[i] = max[l : l <= i](x[l])   O[i] = x[i] * M[i] where i > 1",
        "T[i] = x[i] ** 2 where i % 2 == 0   O[i] = (T[i] if i % 2 == 0 else x[i])",
        "N[i] = sum[j](exp(x[i] * x[j]) * x[j]) where i > 2   Z[i] = sum[j](exp(x[i] * x[j]))   "
        "O[i] = (N[i] / Z[i] if i > 2 else Z[i]) + sum[j](exp(x[i] * x[j]) * x[j] / Z[i])",
        "R[i] = 1 / (2 + x[i] ** 2) where i > 3   S[i,j] = x[i] * x[j]   Y[i,j] = S[i,j] * R[i]   "
        "O[i] = sum[j](Y[i,j]) + sum[j](S[i,j] ** 2)",
        "R[i] = x[i] ** 2 where i > 3   O[i] = sum[l](R[i] * x[l] if i > 3 else x[l]) * x[i]",
        "T[i] = x[i] ** 2 where i > 2   U[i] = x[i] * 3   O[i] = sum[l](T[l] * x[i]) + U[i]",
    ],
)
def test_one_tensor_read_at_several_places(body: str) -> None:
    agree(head("x[i]", "O[i]", body), {"x": numbers(7)})


def test_repeated_indices_meet_on_the_diagonal() -> None:
    agree(head("x[i,j]", "O[i]", "O[i] = x[i,i] * sum[j](x[i,j])"), {"x": numbers(4, 4)})


def test_roots_have_the_implicit_functions_gradient() -> None:
    text = head(
        "s[i,j], a[]",
        "O[i]",
        "M[i] = max[j](s[i,j])   "
        "t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(s[i,j] - x) ** 2) == a, iters=20)   "
        "O[i] = sum[j](relu(s[i,j] - t[i]) ** 2 * j)",
    )
    _, gradient = derived(text)
    assert "t" in gradient.residuals
    agree(text, {"s": numbers(4, 6), "a": torch.tensor(0.8, dtype=torch.float64)})


@pytest.mark.parametrize(
    "step",
    [
        "H[t] = a[t] * H[t-1] + x[t]   init 0",
        "H[t] = a[t] * H[t-1] + x[t]   init h0",
        "H[t] = tanh(a[t] * H[t-1] + x[t])   init h0 ** 2",
        "H[t] = a[t] * H[t+1] + x[t]   init h0",
        "H[t] = max(H[t-1], x[t]) * a[t]   init h0",
        "H[t] = a[t] * H[t-1] + (x[t-1] if t > 0 else 0)   init h0",
    ],
)
def test_recurrences_run_backwards(step: str) -> None:
    text = head("a[t], x[t], h0[]", "O[t], L", f"{step}   O[t] = x[t] * H[t]   L = H[|t|-1] * H[0]")
    agree(text, {"a": numbers(5), "x": numbers(5, seed=1), "h0": numbers(seed=2)})


def test_recurrences_with_maxima_of_their_past() -> None:
    text = head(
        "x[t,e], g[t]",
        "O[t,e]",
        "H[t,e] = tanh(H[t-1,e] - g[t] * max[c](H[t-1,c])) + x[t,e]   init 0   O[t,e] = H[t,e] ** 2",
    )
    agree(text, {"x": numbers(5, 3), "g": numbers(5, seed=1)})


def test_recurrences_read_each_other() -> None:
    text = head(
        "x[t,e], g[t]",
        "O[t,e]",
        "M[t] = max(M[t-1], sum[e](x[t,e]))   init -4   "
        "Z[t,e] = Z[t-1,e] * exp(M[t-1] - M[t]) + x[t,e] * (sum[c](x[t,c] * Z[t-1,c]))   init 1   "
        "O[t,e] = Z[t,e] * g[t]",
    )
    agree(text, {"x": numbers(5, 2), "g": numbers(5, seed=1)})


def test_transposed_outputs_are_kept_in_their_own_order() -> None:
    text = """
    attention a(Q[i,e], K[j,e], V[j,f]) -> O[f,i] {
      S[i,j] = Q[i,e] * K[j,e]
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    agree(text, {"Q": numbers(4, 2), "K": numbers(5, 2, seed=1), "V": numbers(5, 3, seed=2)})
