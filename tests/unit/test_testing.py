"""What users test their variants with: it must accept what is right, and refuse what is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attndsl.cascade.interpreter import interpret
from attndsl.testing import (
    assert_close_to_reference,
    error_budget,
    make_inputs,
    reference,
    relative_error,
)
from tests.unit.cascade.build import load

PROGRAM = load("""
attention program(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], T[h,r], loga[b,j], p[h], n[b]: int, D[i,j]: int, W[s],
                  keep[b,j]: bool, G: int) -> O[b,h,i,f], LSE[b,h,i] {
  batch b, h
  assume loga <= 0, 0.5 < p, p < 0.75
  S[i,j] = Q[i,e] * K[j,e] * p + T[i - j] + loga[j] + W[D[i,j]] * n    where j <= i, keep[j]
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
  LSE[i] = logsumexp[j](S[i,j])
}
""")
EXTENTS = {"b": 2, "h": 6, "i": 9, "j": 9, "e": 4, "f": 3, "s": 2}


def draw(**options: Any) -> dict[str, Tensor]:
    return make_inputs(PROGRAM, EXTENTS, params={"G": 3}, **options)


class Op:
    """A compiled operator, as far as testing looks at it; `fault` changes its outputs."""

    def __init__(self, fault: Any = lambda o: o, gradient: Any = lambda g: g) -> None:
        self.cascade = PROGRAM
        self.fault = fault
        self.gradient = gradient

    def __call__(self, G: int | None = None, **inputs: Tensor) -> tuple[Tensor, ...]:
        inputs["Q"].register_hook(self.gradient) if inputs["Q"].requires_grad else None
        out = interpret(PROGRAM, inputs, {} if G is None else {"G": G}, dtype=torch.float32)
        return self.fault(out["O"].to(inputs["Q"].dtype)), out["LSE"]


def test_inputs_follow_their_declarations() -> None:
    inputs = draw(dtype=torch.bfloat16)
    assert {n: tuple(x.shape) for n, x in inputs.items() if n in ("Q", "K", "T", "n")} == {
        "Q": (2, 6, 9, 4), "K": (2, 2, 9, 4), "T": (6, 9), "n": (2,)
    }  # fmt: skip
    assert inputs["Q"].dtype is torch.bfloat16
    assert inputs["keep"].dtype is torch.bool
    assert inputs["D"].dtype is torch.int64
    assert set(inputs["D"].unique().tolist()) == {0, 1}
    assert (inputs["loga"] < 0).all()
    assert ((inputs["p"] >= 0.5) & (inputs["p"] <= 0.75)).all()


def test_inputs_are_those_of_the_seed() -> None:
    one, same, other = draw(seed=3), draw(seed=3, dtype=torch.float64), draw(seed=4)
    torch.testing.assert_close(one["Q"].double(), same["Q"], rtol=1e-6, atol=1e-6)
    assert not torch.equal(one["Q"], other["Q"])


def test_ranges_and_gradients_as_asked_for() -> None:
    inputs = draw(ranges={"n": (5, 7), "Q": (2.0, 3.0)}, requires_grad=True)
    assert set(inputs["n"].tolist()) <= {5, 6}
    assert ((inputs["Q"] >= 2) & (inputs["Q"] < 3)).all()
    assert inputs["Q"].requires_grad
    assert not inputs["n"].requires_grad


def test_a_missing_extent_is_named() -> None:
    with pytest.raises(KeyError, match="`f`"):
        make_inputs(PROGRAM, {k: v for k, v in EXTENTS.items() if k != "f"}, params={"G": 3})
    with pytest.raises(TypeError, match="a cascade or a compiled operator"):
        make_inputs("program", EXTENTS)


def test_relative_error() -> None:
    ref = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert relative_error(ref, ref) == 0
    assert relative_error(ref * 1.01, ref) == pytest.approx(0.01)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    infinite = torch.tensor([-torch.inf, 1.0])
    assert relative_error(infinite, infinite) == 0
    assert relative_error(-infinite, infinite) == torch.inf
    assert relative_error(torch.tensor([torch.nan, 1.0]), ref) == torch.inf


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_right_operator_passes_forward_and_backward(dtype: torch.dtype) -> None:
    errors = assert_close_to_reference(Op(), draw(dtype=dtype), params={"G": 3}, backward=True)
    assert set(errors) == {"O", "LSE", "dQ", "dK", "dV", "dT", "dloga", "dp", "dW"}
    assert (
        max(errors.values())
        < {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 1e-5}[dtype]
    )


def scaled(x: Tensor) -> Tensor:
    return x * 1.05


def one_entry(x: Tensor) -> Tensor:
    return x + 2.0 * torch.nn.functional.one_hot(torch.tensor(7), x.numel()).view(x.shape).to(
        x.dtype
    )


def not_a_number(x: Tensor) -> Tensor:
    return torch.where(torch.arange(x.numel()).view(x.shape) == 5, torch.nan, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("fault", [scaled, one_entry, not_a_number])
def test_a_wrong_operator_fails(fault: Any, dtype: torch.dtype) -> None:
    inputs = draw(dtype=dtype)
    with pytest.raises(AssertionError, match="program: output O"):
        assert_close_to_reference(Op(fault), inputs, params={"G": 3})
    with pytest.raises(AssertionError, match="program: gradient of Q"):
        assert_close_to_reference(Op(gradient=fault), inputs, params={"G": 3}, backward=True)


def test_outputs_computed_elsewhere() -> None:
    inputs = draw()
    right = interpret(PROGRAM, inputs, {"G": 3})
    assert_close_to_reference(PROGRAM, inputs, right, params={"G": 3})
    assert_close_to_reference(PROGRAM, inputs, list(right.values()), params={"G": 3})
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_close_to_reference(PROGRAM, inputs, {"O": right["O"][:1]}, params={"G": 3})


def test_the_budget_is_read_off_the_data() -> None:
    exact = torch.ones(1000, dtype=torch.float64)
    dense = (exact + 0.01).to(torch.bfloat16)
    budget = error_budget(exact, dense)
    gap = float((dense.double() - exact).abs().mean())
    assert budget.rms == pytest.approx(1.5 * gap + 2 * 2**-7)
    assert error_budget(exact, exact.float()).rms == pytest.approx(1e-5)


def test_the_reference_is_float64_on_the_inputs_as_they_are() -> None:
    inputs = draw(dtype=torch.bfloat16)
    result = reference(PROGRAM, inputs, params={"G": 3})
    assert result.outputs["O"].dtype is torch.float64
    assert result.gradients == {}
    wide = {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}
    torch.testing.assert_close(result.outputs["O"], interpret(PROGRAM, wide, {"G": 3})["O"])


def test_inputs_are_drawn_where_the_generator_is(monkeypatch: pytest.MonkeyPatch) -> None:
    by_seed = draw(seed=3)
    places: list[torch.device] = []

    def seen(real: Any) -> Any:
        def drawn(*args: Any, **options: Any) -> Any:
            places.append(options["device"])
            assert options["generator"] is generator
            return real(*args, **options)

        return drawn

    for name in ("rand", "randn", "randint"):
        monkeypatch.setattr(torch, name, seen(getattr(torch, name)))
    generator = torch.Generator().manual_seed(3)
    by_generator = draw(generator=generator)
    assert all(torch.equal(x, by_generator[n]) for n, x in by_seed.items())
    assert places == [generator.device] * len(by_seed)
