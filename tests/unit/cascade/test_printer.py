"""The text of cascades and expressions."""

from __future__ import annotations

import pytest

from attndsl.cascade.nodes import Const, Expr, Logic, Param
from attndsl.cascade.printer import print_cascade, print_define, print_expr
from tests.unit.cascade.build import (
    add,
    both,
    cascade,
    chain,
    cmp,
    decl,
    define,
    div,
    either,
    gated,
    load,
    mul,
    negative,
    pos,
    power,
    rd,
    red,
    sub,
)

A, B, C = Param("a"), Param("b"), Param("c")


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (add(A, mul(B, C)), "a + b * c"),
        (mul(add(A, B), C), "(a + b) * c"),
        (sub(A, sub(B, C)), "a - (b - c)"),
        (sub(sub(A, B), C), "a - b - c"),
        (div(A, mul(B, C)), "a / (b * c)"),
        (mul(A, div(B, C)), "a * (b / c)"),
        (chain("//", A, add(B, 1)), "a // (b + 1)"),
        (power(negative(A), 2), "(-a)**2"),
        (negative(power(A, 2)), "-a**2"),
        (power(2, negative(A)), "2**-a"),
        (power(power(A, 2), 3), "(a**2)**3"),
        (power(A, power(B, 2)), "a**b**2"),
        (power(Const(-2), 2), "(-2)**2"),
        (sub(A, Const(-2)), "a - -2"),
        (mul(negative(A), B), "-a * b"),
        (
            both(cmp("<", A, B), either(cmp("==", A, 1), cmp(">", B, 2))),
            "a < b and (a == 1 or b > 2)",
        ),
        (either(both(cmp("<", A, B), cmp("<", B, C)), cmp("<", C, 0)), "a < b and b < c or c < 0"),
        (Logic("and", (Const(True), Const(False))), "True and False"),
        (
            gated(cmp("<", A, B), A, gated(cmp("<", B, C), B, C)),
            "a if a < b else b if b < c else c",
        ),
        (add(gated(cmp("<", A, B), A, B), 1), "(a if a < b else b) + 1"),
        (
            gated(cmp("<", A, B), gated(cmp("<", B, C), A, B), C),
            "(a if b < c else b) if a < b else c",
        ),
    ],
)
def test_parentheses_are_those_that_precedence_needs(expr: Expr, text: str) -> None:
    assert print_expr(expr) == text


CASES = {
    "grouped": """
    attention grouped(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], G: int) -> O[b,h,i,f], LSE[b,h,i] {
      batch b, h
      S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)    where j <= i, i - j < 8 or j < 2
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
      LSE[i] = logsumexp[j](S[i,j])
    }""",
    "recurrent": """
    attention recurrent(Q[b,t,e], V[b,t,f], H0[b,f], n[b]: int, cap: float = 2.5) -> O[b,t,f] {
      batch b
      assume Q <= 1
      H[t,f] = H[t-1,f] * cap + V[t,f] * (sum[e](Q[t-1,e]) if t > 0 else 0)    init H0[f]
      O[t,f] = H[t,f] * n
    }""",
    "split": """
    attention split(Q[b,i,e], K[b,j,e], w: int = 4) -> O[b,i] {
      batch b
      rank j1 = |j| // w, j0 = w
      S[i,j1,j0] = Q[i,e] * K[j1*w + j0, e]
      t[i]       = solve[x : 0 <= x <= 9](sum[j1,j0](relu(S[i,j1,j0] - x)) == 1, iters=7)
      O[i]       = t[i] * max[j1,j0](S[i,j1,j0])
    }""",
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_the_language_and_means_the_same(name: str) -> None:
    once = load(CASES[name])
    text = print_cascade(once)
    assert print_cascade(load(text)) == text


def test_batch_indices_are_left_out() -> None:
    text = print_cascade(load(CASES["grouped"]))
    assert "K[b,h // G,j,e], V[b,h // G,j,f], G: int) -> O[b,h,i,f], LSE[b,h,i] {" in text
    assert (
        "sum[e_1](Q[i,e_1] * K[j,e_1] / sqrt(|e|))" in text
        or "sum[e](Q[i,e] * K[j,e] / sqrt(|e|))" in text
    )
    assert "where j <= i, i - j < 8 or j < 2" in text


def test_a_batch_index_that_is_summed_or_moved_is_written() -> None:
    c = cascade(
        "slopes",
        [decl("dS b h i"), decl("K b hk i", hk=chain("//", pos("h"), Param("G")))],
        [
            define(
                "D h",
                red(
                    "sum",
                    "b i",
                    mul(rd("dS b h i"), rd("K b ? i", chain("//", pos("h"), Param("G")))),
                ),
            ),
            define("E h i", rd("dS ? h i", Const(0))),
        ],
        ["D", "E"],
    )
    assert print_define(c.define("D"), c) == "D = sum[b,i](dS[b,h,i] * K[b,h // G,i])"
    assert print_define(c.define("E"), c) == "E[i] = dS[0,h,i]"
