"""The interpreter's corners: what is undefined, what is empty, where gradients must not be NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attndsl.callerrors import CallError
from attndsl.cascade.interpreter import check_assumes, interpret
from attndsl.cascade.nodes import Cascade
from attndsl.cascade.starts import apply_start
from tests.unit.cascade.build import load

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def run(text: str | Cascade, *, params: Any = None, start: Any = None, **inputs: Tensor) -> Tensor:
    """The first output."""
    cascade = load(text) if isinstance(text, str) else text
    return interpret(cascade, inputs, params, start=start)[cascade.outputs[0].name]


def pointwise(expr: str, x: list[float], *more: list[float]) -> tuple[list[float], list[float]]:
    """Values of `expr` in `x` (and `y`), and its gradient in `x`."""
    names = ["x", "y"][: 1 + len(more)]
    tensors = {
        n: torch.tensor(v, dtype=F64, requires_grad=True)
        for n, v in zip(names, [x, *more], strict=True)
    }
    text = (
        expr.replace("x", "x[i]")
        .replace("y", "y[i]")
        .replace("ex[i]p", "exp")
        .replace("max[i](", "max(")
    )
    inputs = ", ".join(f"{n}[i]" for n in names)
    out = run(f"attention f({inputs}) -> O[i] {{ O[i] = {text} }}", **tensors)
    (grad,) = torch.autograd.grad(out.sum(), tensors["x"])
    return out.tolist(), grad.tolist()


# --- empty rows ------------------------------------------------------------------------------------------------------

PADDED = """
attention padded(Q[b,i,e], K[b,j,e], V[b,j,f], n[b]: int) -> O[b,i,f], LSE[b,i] {
  batch b
  S[i,j] = Q[i,e] * K[j,e]    where j < n
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
  LSE[i] = logsumexp[j](S[i,j])
}
"""
BY_HAND = """
attention padded(Q[b,i,e], K[b,j,e], V[b,j,f], n[b]: int) -> O[b,i,f], LSE[b,i] {
  batch b
  S[i,j] = Q[i,e] * K[j,e]    where j < n
  M[i]   = max[j](S[i,j])
  P[i,j] = exp(S[i,j] - M[i])
  Z[i]   = sum[j](P[i,j])
  N[i,f] = P[i,j] * V[j,f]
  O[i,f] = QUOTIENT
  LSE[i] = M[i] + log(Z[i])
}
"""


@pytest.mark.parametrize(
    "text",
    [PADDED, BY_HAND.replace("QUOTIENT", "N[i,f] / Z[i]")]
    + [
        BY_HAND.replace("  N[i,f] = P[i,j] * V[j,f]\n", "").replace("QUOTIENT", q)
        for q in ("P[i,j] / Z[i] * V[j,f]", "P[i,j] * (1 / Z[i]) * V[j,f]")
    ],
)
def test_an_empty_row_is_zero_with_zero_gradients(text: str) -> None:
    q, k, v = (normal(3, 4, 5, seed=s).requires_grad_() for s in range(3))
    n = torch.tensor([0, 2, 4])
    out = interpret(load(text), {"Q": q, "K": k, "V": v, "n": n})
    assert torch.equal(out["O"][0], torch.zeros(4, 5, dtype=F64))
    assert torch.equal(out["LSE"][0], torch.full((4,), -math.inf, dtype=F64))
    grads = torch.autograd.grad(out["O"].sum() + out["LSE"][1:].sum(), (q, k, v))
    for g in grads:
        assert torch.isfinite(g).all()
        assert (g[0] == 0).all()
        assert (g[1, :2] != 0).any()
    want = (q[1] @ k[1, :2].T).softmax(-1) @ v[1, :2]
    torch.testing.assert_close(out["O"][1], want)


def test_scores_of_minus_infinity_weigh_nothing() -> None:
    text = """
    attention biased(Q[i,e], K[j,e], V[j,f], B[i,j]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e] + B[i,j]
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    q, k, v = (normal(3, 3, seed=s).requires_grad_() for s in range(3))
    bias = torch.zeros(3, 3, dtype=F64)
    bias[0, 1:], bias[1] = -math.inf, -math.inf
    bias.requires_grad_()
    out = run(text, Q=q, K=k, V=v, B=bias)
    torch.testing.assert_close(out[0], v[0])
    assert (out[1] == 0).all()
    for g in torch.autograd.grad(out.sum(), (q, k, v, bias)):
        assert torch.isfinite(g).all()


def test_what_is_masked_may_hold_anything() -> None:
    q, k, v = (normal(1, 4, 5, seed=s) for s in range(3))
    n = torch.tensor([2])
    want = run(PADDED, Q=q, K=k, V=v, n=n)
    k[:, 2:], v[:, 2:] = math.nan, math.inf
    q.requires_grad_()
    out = run(PADDED, Q=q, K=k, V=v, n=n)
    torch.testing.assert_close(out, want)
    assert torch.isfinite(torch.autograd.grad(out.sum(), q)[0]).all()


@pytest.mark.parametrize(
    ("op", "want"),
    [
        ("sum", 0.0),
        ("max", -math.inf),
        ("min", math.inf),
        ("prod", 1.0),
        ("any", 0.0),
        ("all", 1.0),
    ],
)
def test_a_reduction_over_no_points(op: str, want: float) -> None:
    body = "x[j] > 0" if op in ("any", "all") else "x[j]"
    value = f"{op}[j : j < n[i]]({body})"
    value = f"(1 if {value} else 0)" if op in ("any", "all") else value
    n = torch.tensor([0, 3, 0])
    out = run(f"attention r(x[j], n[i]: int) -> O[i] {{ O[i] = {value} }}", x=normal(3), n=n)
    assert out[0] == out[2] == want
    assert math.isfinite(out[1])


def test_reductions_over_some_points() -> None:
    x = torch.tensor([3.0, -1.0, 2.0, 5.0], dtype=F64)
    text = "attention r(x[j], y[i]) -> O[i] { O[i] = %s[j : j <= i](x[j]) + 0 * y[i] }"
    y = torch.zeros(4, dtype=F64)
    wanted = {
        "max": [3, 3, 3, 5],
        "min": [3, -1, -1, -1],
        "prod": [3, -3, -6, -30],
        "sum": [3, 2, 4, 9],
    }
    for op, want in wanted.items():
        assert run(text % op, x=x, y=y).tolist() == want


def test_undefined_points_of_an_output_are_zero() -> None:
    text = """
    attention weights(Q[i,e], K[j,e]) -> P[i,j] {
      S[i,j] = Q[i,e] * K[j,e]    where j <= i
      P[i,j] = exp(S[i,j])
    }"""
    out = run(text, Q=normal(3, 2), K=normal(3, 2, seed=1))
    assert (out.triu(1) == 0).all()
    assert (out.tril() + torch.ones(3, 3).triu(1) > 0).all()


def test_maps_intersect_domains() -> None:
    text = """
    attention both(x[i], y[j]) -> O[i] {
      A[i,j] = x[i] + y[j]    where j <= i
      B[i,j] = x[i] * y[j]    where i - j < 2
      O[i]   = sum[j](A[i,j] + B[i,j])
    }"""
    x, y = normal(5), normal(5, seed=1)
    i, j = torch.arange(5)[:, None], torch.arange(5)[None]
    want = ((x[:, None] + y + x[:, None] * y) * ((j <= i) & (i - j < 2))).sum(1)
    torch.testing.assert_close(run(text, x=x, y=y), want)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expr", "x", "value", "gradient"),
    [
        ("relu(x)", [-1.0, 0.0, 2.0], [0, 0, 2], [0, 0, 1]),
        ("abs(x)", [-1.0, 0.0, 2.0], [1, 0, 2], [-1, 0, 1]),
        ("max(x, 0)", [-1.0, 0.0, 2.0], [0, 0, 2], [0, 0, 1]),
        ("min(x, 0)", [-1.0, 0.0, 2.0], [-1, 0, 0], [1, 0, 0]),
        ("sign(x)", [-3.0, 0.0, 2.0], [-1, 0, 1], [0, 0, 0]),
        ("floor(x) + ceil(x)", [-1.5, 2.25], [-3, 5], [0, 0]),
        ("sqrt(x)", [0.0, 4.0], [0, 2], [0, 0.25]),
        ("log(x)", [0.0, 2.0], [-math.inf, math.log(2)], [0, 0.5]),
        ("x ** 0.5", [0.0, 4.0], [0, 2], [0, 0.25]),
        ("x ** 3", [0.0, -2.0], [0, -8], [0, 12]),
        ("sqrt(x) if x > 0 else x", [-4.0, 4.0], [-4, 2], [1, 0.25]),
        ("1 / x if abs(x) > 0 else 0", [0.0, 2.0], [0, 0.5], [0, -0.25]),
        ("softplus(x)", [-800.0, 21.0, 800.0], [0, 21 + math.log1p(math.exp(-21)), 800], [0, 1, 1]),
        ("x - x % 2", [-3.0, 3.5], [-4, 2], [0, 0]),
        ("x // 2", [-3.0, 3.5], [-2, 1], [0, 0]),
    ],
)
def test_gradients_at_kinks_and_poles(
    expr: str, x: list[float], value: list[float], gradient: list[float]
) -> None:
    out, grad = pointwise(expr, x)
    assert out == pytest.approx(value, abs=1e-15)
    assert grad == pytest.approx(gradient, abs=1e-9)


def test_a_shared_maximum_splits_its_gradient() -> None:
    x = torch.tensor([1.0, 3.0, 3.0, 3.0], dtype=F64, requires_grad=True)
    out = run(
        "attention m(x[j], y[i]) -> O[i] { O[i] = max[j](x[j]) * y[i] }",
        x=x,
        y=torch.ones(1, dtype=F64),
    )
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, torch.tensor([0, 1, 1, 1], dtype=F64) / 3)


def test_exponentials_outside_of_the_domain_do_not_overflow_into_gradients() -> None:
    text = """
    attention decay(x[i], y[j], c[j]) -> O[i] {
      A[i,j] = exp(c[i] - c[j])    where j <= i
      O[i]   = x[i] * A[i,j] * y[j]
    }"""
    c = (-400.0 * torch.arange(6, dtype=F64)).requires_grad_()
    x, y = normal(6), normal(6, seed=1)
    out = run(text, x=x, y=y, c=c)
    torch.testing.assert_close(out, x * y)
    assert torch.isfinite(torch.autograd.grad(out.sum(), c)[0]).all()


PROGRAMS = {
    "entmax": """
    attention entmax(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e] / (2 * sqrt(|e|))    where j <= i
      M[i]   = max[j](S[i,j])
      t[i]   = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x)**2) == 1, iters=12)
      O[i,f] = relu(S[i,j] - t[i])**2 * V[j,f]
    }""",
    "softpick": """
    attention softpick(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)    where j <= i
      M[i]   = max[j](S[i,j])
      X[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])
      O[i,f] = relu(X[i,j]) / (sum[j](abs(X[i,j])) + 1e-6) * V[j,f]
    }""",
    "scan": """
    attention scan(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
      C[j,e] = sum[l : l <= j](K[l,e])
      S[i,j] = tanh(Q[i,e] * K[j,e]) + sum[e](C[i,e] - C[j,e])    where j < i
      D[i,j] = sum[l : j < l < i](S[i,l] * S[l,j])
      O[i,f] = (S[i,j] + D[i,j]) * V[j,f]
    }""",
    "backward in time": """
    attention reversed(Q[t,e], K[t,e], V[t,f]) -> O[t,f] {
      H[t,e,f] = 0.5 * tanh(H[t+1,e,f]) + K[t,e] * V[t,f]    init 0
      O[t,f]   = Q[t,e] * H[t,e,f]
    }""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    cascade = load(PROGRAMS[name])
    inputs = [normal(4, 3, seed=s).requires_grad_() for s in range(3)]
    names = [t.name for t in cascade.inputs]
    assert torch.autograd.gradcheck(
        lambda *x: run(cascade, **dict(zip(names, x, strict=True))), inputs
    )


# --- integers and reads ----------------------------------------------------------------------------------------------


def test_integers_floor() -> None:
    text = """
    attention n(a[i]: int, b[i]: int, x[i]) -> Q[i], R[i], H[i] {
      Q[i] = x[i] * (a[i] // b[i])
      R[i] = x[i] * (a[i] % b[i])
      H[i] = x[i] * (a[i] / b[i])
    }"""
    a, b = torch.tensor([-7, 7, -7, 7], dtype=torch.int32), torch.tensor([2, -2, -2, 2])
    out = interpret(load(text), {"a": a, "b": b, "x": torch.ones(4)})
    assert out["Q"].tolist() == [p // q for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert out["R"].tolist() == [p % q for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert out["H"].tolist() == [-3.5, -3.5, 3.5, 3.5]


def test_an_integer_division_by_zero_is_the_calls_error() -> None:
    text = "attention n(a[i]: int, x[i]) -> O[i] { O[i] = x[i] * (i // a[i]) }"
    with pytest.raises(CallError, match="A0508"):
        run(text, a=torch.tensor([1, 0]), x=normal(2))
    guarded = (
        "attention n(a[i]: int, x[i]) -> O[i] { O[i] = x[i] * ((i // a[i]) if a[i] > 0 else 7) }"
    )
    assert run(guarded, a=torch.tensor([1, 0]), x=torch.ones(2)).tolist() == [0, 7]


TABLE = """
attention table(Q[b,h,i,e], K[b,h,j,e], T[h,r], D[i,j]: int, R[s,e]) -> S[b,h,i,j] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] + T[i - j + |j| - 1] + Q[i,e] * R[D[i,j], e]
}
"""


def test_gathers_and_their_gradients() -> None:
    q, k = normal(2, 3, 4, 5).requires_grad_(), normal(2, 3, 4, 5, seed=1)
    table, r = normal(3, 7, seed=2).requires_grad_(), normal(6, 5, seed=3).requires_grad_()
    d = torch.randint(0, 6, (4, 4), generator=torch.Generator().manual_seed(0))
    out = run(TABLE, Q=q, K=k, T=table, D=d, R=r)
    i, j = torch.arange(4)[:, None], torch.arange(4)[None]
    want = q @ k.mT + table[:, i - j + 3] + torch.einsum("bhie,ije->bhij", q, r[d])
    torch.testing.assert_close(out, want)
    up = normal(2, 3, 4, 4, seed=4)
    for mine, theirs in zip(
        torch.autograd.grad(out, (q, table, r), up),
        torch.autograd.grad(want, (q, table, r), up),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_a_subscript_outside_of_its_tensor_is_found_in_debug_mode() -> None:
    text = """
    attention t(T[r], x[i], y[j]) -> O[i] {
      A[i,j] = x[i] * T[i - j] * y[j]    CLAUSE
      O[i]   = sum[j](A[i,j])
    }"""
    inputs = {"T": normal(4), "x": normal(4), "y": normal(4)}
    runs = r"A0506.*`i - j` runs from -3 to 3 in `T\[i - j\]`, and that axis has 4 points"
    with pytest.raises(CallError, match=runs):
        interpret(load(text.replace("CLAUSE", "")), inputs, debug=True)
    interpret(load(text.replace("CLAUSE", "where j <= i")), inputs, debug=True)
    guarded = text.replace("CLAUSE", "").replace("T[i - j]", "(T[i - j] if j <= i else 0)")
    interpret(load(guarded), inputs, debug=True)


def test_the_same_tensor_at_two_indices() -> None:
    x = normal(5, 2)
    text = (
        "attention d(x[i,e], y[j]) -> O[i] { O[i] = sum[j](sum[e]((x[i,e] - x[j,e])**2) * y[j]) }"
    )
    y = normal(5, seed=1)
    torch.testing.assert_close(run(text, x=x, y=y), (torch.cdist(x, x) ** 2) @ y)


# --- recurrences -----------------------------------------------------------------------------------------------------

TWO_STATES = """
attention two(K[b,t,e], V[b,t,f], H0[b,e,f]) -> O[b,t,f], N[b,e,f], G[b,t,e] {
  batch b
  H[t,e,f] = 0.9 * H[t-1,e,f] + K[t,e] * V[t,f]                              init H0[e,f]
  M[t,e]   = M[t-1,e] + sum[f](H[t-1,e,f]) * (K[t-1,e] if t > 0 else 0)      init 1
  O[t,f]   = H[t,e,f] * M[t,e]
  N[e,f]   = H[|t|-1,e,f]
  G[t,e]   = M[t-1,e]
}
"""


def test_recurrences() -> None:
    k, v, first = (
        x.requires_grad_()
        for x in (normal(2, 6, 3), normal(2, 6, 4, seed=1), normal(2, 3, 4, seed=2))
    )
    out = interpret(load(TWO_STATES), {"K": k, "V": v, "H0": first})
    h, m = first, torch.ones(2, 3, dtype=F64)
    o, g = [], []
    for t in range(6):
        g.append(m)
        m = m + h.sum(-1) * (k[:, t - 1] if t else 0)
        h = 0.9 * h + k[:, t, :, None] * v[:, t, None]
        o.append((h * m[..., None]).sum(1))
    want = {"O": torch.stack(o, 1), "N": h, "G": torch.stack(g, 1)}
    for name, x in want.items():
        torch.testing.assert_close(out[name], x)
    for mine, theirs in zip(
        torch.autograd.grad(sum(x.square().sum() for x in out.values()), (k, v, first)),
        torch.autograd.grad(sum(x.square().sum() for x in want.values()), (k, v, first)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


# --- positions -------------------------------------------------------------------------------------------------------

BIASED = """
attention biased(Q[b,i,e], K[b,j,e], V[b,j,f], r[b,i]) -> O[b,i,f] {
  batch b
  S[i,j] = Q[i,e] * K[j,e] - 0.1 * (i - j) + r[i]    where i - 4 < j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


def whole() -> tuple[dict[str, Tensor], Tensor]:
    inputs = {n: normal(2, 9, 3, seed=s) for s, n in enumerate("QKV")} | {"r": normal(2, 9, seed=3)}
    return inputs, run(BIASED, **inputs)


def part(inputs: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return inputs | {"Q": inputs["Q"][:, rows], "r": inputs["r"][:, rows]}


@pytest.mark.parametrize("start", ["end", 6, torch.tensor([6, 6]), torch.tensor(6)])
def test_the_last_queries_are_the_last_rows(start: Any) -> None:
    inputs, want = whole()
    torch.testing.assert_close(run(BIASED, start=start, **part(inputs, slice(6, 9))), want[:, 6:])


def test_each_sequence_has_its_own_start() -> None:
    inputs, want = whole()
    rows = [slice(2, 5), slice(5, 8)]
    mixed = {
        n: torch.stack([x[b, r] for b, r in enumerate(rows)])
        for n, x in inputs.items()
        if n in ("Q", "r")
    }
    out = run(BIASED, start=torch.tensor([2, 5]), **(inputs | mixed))
    torch.testing.assert_close(out, torch.stack([want[0, rows[0]], want[1, rows[1]]]))


@pytest.mark.parametrize(
    "start", [None, -1, "begin", True, 2.0, torch.tensor([1, 2, 3]), torch.tensor([1.0, 2.0])]
)
def test_a_start_that_is_missing_or_wrong(start: Any) -> None:
    inputs, _ = whole()
    with pytest.raises(CallError, match="A0505"):
        run(BIASED, start=start, **part(inputs, slice(6, 9)))


def test_a_start_is_no_use_where_nothing_has_a_position() -> None:
    text = "attention full(Q[i,e], K[j,e]) -> S[i,j] { S[i,j] = Q[i,e] * K[j,e] }"
    q, k = normal(2, 3), normal(5, 3, seed=1)
    torch.testing.assert_close(run(text, start="end", Q=q, K=k), q @ k.T)
    counted = "attention n(Q[i,e], K[j,e]) -> S[i,j] { S[i,j] = Q[i,e] * K[j,e] * i }"
    with pytest.raises(CallError, match="A0505"):
        run(counted, start="end", Q=q, K=k)


# --- dtypes, memory, facts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_float_dtype(dtype: torch.dtype) -> None:
    inputs, want = whole()
    leaves = {n: x.to(dtype).requires_grad_() for n, x in inputs.items()}
    out = interpret(load(BIASED), leaves, dtype=dtype)["O"]
    assert out.dtype is dtype
    torch.testing.assert_close(out.double(), want, rtol=0.1, atol=0.1)
    assert all(g.dtype is dtype for g in torch.autograd.grad(out.sum(), list(leaves.values())))


class Largest(TorchDispatchMode):
    """Remembers the number of entries of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            # an expanded view holds no more than its storage
            held = math.prod(n for n, s in zip(out.shape, out.stride(), strict=True) if s != 0)
            self.entries = max(self.entries, held)
        return out


def test_a_product_is_contracted_and_never_held() -> None:
    text = """
    attention causal(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
      batch b, h
      S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)    where j <= i
      A[i,j] = (elu(Q[i,e]) + 1) * (elu(K[j,e]) + 1)    where j <= i
      C[j,f] = sum[l : l <= j](V[l,f])
      O[i,f] = softmax[j](S[i,j]) * V[j,f] + A[i,j] * V[j,f] + C[i,f]
    }"""
    n, d = 48, 16
    inputs = {t: normal(1, 2, n, d, seed=s).requires_grad_() for s, t in enumerate("QKV")}
    with Largest() as seen:
        run(text, **inputs).sum().backward()
    assert seen.entries == 2 * n * n


def test_assumes_are_checked() -> None:
    text = """
    attention gated(x[j], g[j], y[i]) -> O[i] {
      assume g <= 0
      O[i] = sum[j](x[j] * exp(g[j])) * y[i]
    }"""
    inputs = {"x": normal(3), "g": -normal(3).abs(), "y": normal(2)}
    check_assumes(load(text), inputs)
    inputs["g"][1] = 0.5
    with pytest.raises(CallError, match=r"A0507.*assume g\[j\] <= 0"):
        check_assumes(load(text), inputs)


def test_any_body_tensor_can_be_asked_for() -> None:
    inputs, _ = whole()
    got = interpret(load(BIASED), inputs, want=["S"])
    assert list(got) == ["S"]
    assert got["S"].shape == (2, 9, 9)
    with pytest.raises(CallError, match="A0501"):
        interpret(load(BIASED), inputs, want=["nothing"])


@pytest.mark.parametrize("start", ["end", 6, torch.tensor([6, 6])])
def test_an_explicit_start_means_the_same(start: Any) -> None:
    inputs, want = whole()
    rows = part(inputs, slice(6, 9))
    applied = apply_start(load(BIASED))
    torch.testing.assert_close(run(applied, start=start, **rows), want[:, 6:])
    torch.testing.assert_close(run(applied, params={"start": 6}, **rows), want[:, 6:])
    torch.testing.assert_close(run(applied, **inputs), want)
    with pytest.raises(CallError, match="A0505"):
        run(applied, **rows)
