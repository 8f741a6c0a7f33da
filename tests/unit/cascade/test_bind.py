"""Shapes and parameters of a call."""

from __future__ import annotations

import pytest

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Number, bind, eval_int
from tests.unit.cascade.build import load

GQA = """
attention gqa(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e]
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""
SPLIT = """
attention split(Q[b,i,e], K[b,j,e], V[b,j,f], w: int = 4, cap: float = 1.5) -> O[b,i,f] {
  batch b
  rank j1 = |j| // w, j0 = w
  S[i,j1,j0] = cap * Q[i,e] * K[j1*w + j0, e]
  O[i,f]     = S[i,j1,j0] * V[j1*w + j0, f]
}
"""
SHARED = """
attention shared(Q[b,t,e], K[b,t,e], V[b,j,f]) -> O[b,t,f] {
  batch b
  S[t,j] = Q[t,e] * K[j,e]
  O[t,f] = S[t,j] * V[j,f]
}
"""


def shapes(
    b: int = 2, h: int = 8, g: int = 2, i: int = 5, j: int = 7
) -> dict[str, tuple[int, ...]]:
    return {"Q": (b, h, i, 16), "K": (b, g, j, 16), "V": (b, g, j, 24)}


def test_group_size_is_solved_from_the_shapes() -> None:
    found = bind(load(GQA), shapes())
    assert found.params == {"G": 4}
    want = {"b": 2, "h": 8, "i": 5, "j": 7, "e": 16, "f": 24}
    assert {r: found.extents[r] for r in want} == want


def test_a_bound_index_has_the_extent_of_its_rank() -> None:
    cascade = load(GQA)
    found = bind(cascade, shapes())
    copies = [r for r in cascade.ranks if r.iterates is not None]
    assert copies
    assert all(found.extents[r.name] == found.extents[r.iterates or ""] for r in copies)


def test_a_group_size_that_is_passed_may_agree() -> None:
    assert bind(load(GQA), shapes(), {"G": 4}).params["G"] == 4


def test_split_ranks_are_computed() -> None:
    found = bind(load(SPLIT), {"Q": (1, 3, 8), "K": (1, 20, 8), "V": (1, 20, 8)})
    assert (found.extents["j1"], found.extents["j0"]) == (5, 4)
    assert found.params == {"w": 4, "cap": 1.5}


def test_an_int_is_a_float_parameter_and_not_the_reverse() -> None:
    inputs = {"Q": (1, 3, 8), "K": (1, 20, 8), "V": (1, 20, 8)}
    assert bind(load(SPLIT), inputs, {"cap": 2}).params["cap"] == 2.0
    with pytest.raises(CallError, match=r"A0504.*`w` is declared `int`, and 2\.5 came"):
        bind(load(SPLIT), inputs, {"w": 2.5})


@pytest.mark.parametrize(
    ("program", "came", "params", "code", "text"),
    [
        (GQA, shapes(h=7), {}, "A0503", r"\|h\| is 7, which is no multiple of 2"),
        (GQA, shapes(), {"G": 2}, "A0503", r"\|h\| is 8, and G \* 2 is 4"),
        (GQA, shapes() | {"V": (2, 4, 7, 24)}, {}, "A0503", r"\|h\| is 8, and G \* 4 is 16"),
        (
            GQA,
            shapes() | {"V": (2, 2, 9, 24)},
            {},
            "A0503",
            r"\|j\| is 7 by axis 2 of `K`, and 9 by axis 2 of `V`",
        ),
        (
            GQA,
            shapes() | {"K": (2, 2, 7)},
            {},
            "A0502",
            r"`K` has 4 axes, and a tensor with 3 came",
        ),
        (GQA, {"Q": (2, 8, 5, 16)}, {}, "A0501", r"input `K` is missing"),
        (GQA, shapes() | {"X": (1,)}, {}, "A0501", r"there is no input `X`"),
        (GQA, shapes(), {"w": 3}, "A0504", r"there is no parameter `w`"),
        (GQA, shapes(), {"G": True}, "A0504", r"declared `int`, and True came"),
        (
            SPLIT,
            {"Q": (1, 3, 8), "K": (1, 20, 8), "V": (1, 20, 8)},
            {"w": 0},
            "A0508",
            r"divides by zero",
        ),
        (SHARED, {"Q": (1, 3, 8), "K": (1, 3, 8), "V": (1, 4, 8)}, {}, "A0503", r"\|j"),
    ],
)
def test_what_does_not_fit(
    program: str,
    came: dict[str, tuple[int, ...]],
    params: dict[str, Number],
    code: str,
    text: str,
) -> None:
    with pytest.raises(CallError, match=text) as caught:
        bind(load(program), came, params)
    assert caught.value.code == code


def test_the_error_shows_the_declaration_and_what_came() -> None:
    with pytest.raises(CallError) as caught:
        bind(load(GQA), shapes(h=7))
    text = str(caught.value)
    assert "declared: K[b,h // G,j,e]" in text
    assert "came:     K of shape (2, 2, 7, 16)" in text
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_integers_floor_as_in_python() -> None:
    cascade = load(
        "attention n(Q[i], a: int, b: int) -> O[i] { O[i] = Q[i] * (a // b) * (a % b) * max(a, b) }"
    )
    product = cascade.body[0].expr
    quotient, remainder = product.left.left.right, product.left.right  # type: ignore[union-attr]
    assert eval_int(quotient, {"a": -7, "b": 2}) == -4
    assert eval_int(remainder, {"a": -7, "b": 2}) == 1
    assert eval_int(product.right, {"a": -7, "b": 2}) == 2  # type: ignore[union-attr]
