"""Programs written as Python functions."""
# ruff: noqa: B007, F821, UP037 — the bodies are the language, and the quotes are wanted

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import attndsl
import attndsl.frontend.annotations as attn
from attndsl.diagnostics import DiagnosticError
from attndsl.frontend import load_cascades
from attndsl.frontend.annotations import Tensor
from attndsl.frontend.decorator import parse_function, spec_from_function
from attndsl.source import Source


def alibi(
    Q: Tensor["b,h,i,e"],
    K: Tensor["b, h//G, j, e"],
    V: Tensor["b,h//G,j,f"],
    slope: Tensor["h"],
    G: int,
) -> tuple[Tensor["b,h,i,f"], Tensor["b,h,i"]]:
    """Causal attention with a slope."""
    batch(b, h)
    S[i, j : j <= i] = (
        Q[i, e] * K[j, e] / sqrt(len(e))  # scaled
        - slope * (i - j)
    )
    O[i, f] = softmax[j](S[i, j]) * V[j, f]
    LSE[i] = logsumexp[j](S[i, j])
    return O, LSE


ALIBI = """
attention alibi(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], slope[h], G: int) -> O[b,h,i,f], LSE[b,h,i] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) - slope * (i - j)   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
  LSE[i] = logsumexp[j](S[i,j])
}
"""


def test_both_forms_are_one_program() -> None:
    (text,) = load_cascades(Source("alibi.attn", ALIBI))
    assert spec_from_function(alibi).cascade == text


def everything(
    K: attn.Tensor["j,e"],
    g: Tensor["t"],
    doc: Tensor["t", int],
    flag: bool = False,
    *,
    w: int = 64,
    r: float = 0.5,
) -> Tensor["j1,e"]:
    def relu2(x):  # type: ignore[no-untyped-def]
        return max(x, 0) ** 2

    rank(j1=len(j) // w, j0=w)
    assume(r < 1, g <= 0)
    H[t]: init(0) = g[t] * H[t - 1] + relu2(g[t])
    T: where(w > 0) = sum[t : doc[t] == 0](H[t] if flag else r)
    O[j1, e] = max[j0](K[j1 * w + j0, e]) + T
    return O


def test_every_statement_has_a_python_form() -> None:
    text = """
    def relu2(x) = max(x, 0) ** 2
    attention everything(K[j,e], g[t], doc[t]: int, flag: bool = False, w: int = 64, r: float = 0.5) -> O[j1,e] {
      rank j1 = |j| // w, j0 = w
      assume r < 1, g <= 0
      H[t] = g[t] * H[t-1] + relu2(g[t])   init 0
      T = sum[t : doc[t] == 0](H[t] if flag else r)   where w > 0
      O[j1,e] = max[j0](K[j1*w + j0, e]) + T
    }
    """
    assert spec_from_function(everything).cascade == load_cascades(Source("t", text))[0]


def unquoted(Q: Tensor[b, i, e], K: Tensor[b, j // 2, e], n: Tensor[j, int]) -> Tensor[b, i, j]:
    batch(b)
    S[i, j] = Q[i, e] * K[j // 2, e] * n[j]
    return S


def test_axes_without_quotes_mean_the_same() -> None:
    # As some linters leave them where annotations are not evaluated.
    text = """
    attention unquoted(Q[b,i,e], K[b,j // 2,e], n[j]: int) -> S[b,i,j] {
      batch b
      S[i,j] = Q[i,e] * K[j // 2, e] * n[j]
    }
    """
    assert spec_from_function(unquoted).cascade == load_cascades(Source("t", text))[0]


class Holder:
    def method(Q: Tensor["b,i,e"], K: Tensor["b,j,e"]):  # type: ignore[no-untyped-def]
        S[i, j] = Q[i, e] * K[j, e]
        return S[i, j]


def test_an_indented_function_a_batch_argument_and_written_outputs() -> None:
    spec = spec_from_function(Holder.method, batch="b")
    assert spec.cascade.name == "method"
    assert spec.cascade.outputs[0].indices == ("b", "i", "j")
    assert spec.cascade.batch == ("b",)


def mistyped(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"]) -> Tensor["b,h,i,j"]:
    """Wörter vor der Stelle."""
    batch(b, h)
    S[i, j : j <= i] = Q[i, e] * K[j, d]
    return S


def test_a_backslash_joins_lines_as_in_python() -> None:
    # fmt: off
    def joined(
        Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"], V: Tensor["b,h,j,f"], *, w: int = \
        3
    ) -> Tensor["b,h,i,f"]:
        batch(b, \
              h)
        S[i, j : j <= i and \
                 i - j < w] = Q[i, e] * K[j, e] \
            / sqrt(len(e))
        O[i, f] = \
            softmax[j](S[i, j]) * V[j, f]
        return \
            O
    # fmt: on

    text = """
attention joined(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], w: int = 3) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)   where j <= i and i - j < w
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""
    (want,) = load_cascades(Source("joined.attn", text))
    assert spec_from_function(joined).cascade == want


def test_an_output_without_axes_has_those_of_its_left_side() -> None:
    def plain(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"]):  # type: ignore[no-untyped-def]
        batch(b, h)
        S[i, j : j <= i] = Q[i, e] * K[j, e]
        return S

    assert spec_from_function(plain).cascade.outputs[0].indices == ("b", "h", "i", "j")


def test_errors_point_into_the_python_file() -> None:
    with pytest.raises(DiagnosticError) as error:
        spec_from_function(mistyped)
    (d,) = error.value.diagnostics
    assert d.code == "A0203"
    assert d.span is not None
    assert d.span.source.name == __file__
    line = mistyped.__code__.co_firstlineno + 3
    assert d.span.source.line_col(d.span.start) == (line, 39)
    assert f"{line} |     S[i, j : j <= i] = Q[i, e] * K[j, d]" in str(error.value)


def no_annotation(Q):  # type: ignore[no-untyped-def]
    return Q[i]


def no_return(Q: Tensor["i"]):  # type: ignore[no-untyped-def]
    O[i] = Q[i]


def a_loop(Q: Tensor["i"]) -> Tensor["i"]:
    for k in range(3):
        O[i] = Q[i]
    return O


def stars(*Q: Tensor["i"]) -> Tensor["i"]:
    O[i] = Q[i]
    return O


def two_targets(Q: Tensor["i"]) -> Tensor["i"]:
    O[i] = P[i] = Q[i]
    return O


def too_few_outputs(Q: Tensor["i"]) -> Tensor["i"]:
    O[i] = Q[i]
    P[i] = Q[i]
    return O, P


def unassigned_output(Q: Tensor["i"]):  # type: ignore[no-untyped-def]
    O[i] = Q[i]
    return P


def helper_with_a_default(Q: Tensor["i,e"]) -> Tensor["i,e"]:
    def f(x, y=2):  # type: ignore[no-untyped-def]
        return x * y

    O[i, e] = f(Q[i, e])
    return O


def helper_without_places(Q: Tensor["i,e"]) -> Tensor["i,e"]:
    def f(x, *, y):  # type: ignore[no-untyped-def]
        return x * y

    O[i, e] = f(Q[i, e])
    return O


def long_helper(Q: Tensor["i"]) -> Tensor["i"]:
    def f(x):  # type: ignore[no-untyped-def]
        y = x
        return y

    O[i] = f(Q[i])
    return O


def odd_annotation(Q: "Tensor['i']") -> Tensor["i"]:
    O[i] = Q[i]
    return O


def odd_statement(Q: Tensor["i"]) -> Tensor["i"]:
    O[i]: until(3) = Q[i]
    return O


def a_call_of_python(Q: Tensor["i"]) -> Tensor["i"]:
    O[i] = Q[i].sum()
    return O


@pytest.mark.parametrize(
    ("fn", "code"),
    [
        (no_annotation, "A0114"),
        (no_return, "A0114"),
        (a_loop, "A0114"),
        (stars, "A0114"),
        (two_targets, "A0114"),
        (too_few_outputs, "A0114"),
        (unassigned_output, "A0114"),
        (long_helper, "A0114"),
        (helper_with_a_default, "A0114"),
        (helper_without_places, "A0114"),
        (odd_annotation, "A0114"),
        (odd_statement, "A0114"),
        (a_call_of_python, "A0109"),
        (lambda Q: Q, "A0114"),
        (len, "A0114"),
        (eval("lambda x: x"), "A0114"),
    ],
)
def test_what_is_no_program(fn: Callable[..., Any], code: str) -> None:
    with pytest.raises(DiagnosticError) as error:
        spec_from_function(fn)
    assert error.value.codes == [code], str(error.value)


def test_the_tree_is_available_without_checks() -> None:
    source, file = parse_function(mistyped)
    assert source.first_line == mistyped.__code__.co_firstlineno
    assert len(file.items) == 1


def test_annotations_say_what_they_are() -> None:
    assert repr(Tensor["b,h"]) == 'Tensor["b,h"]'
    assert repr(Tensor["b,h", int]) == 'Tensor["b,h", int]'
    with pytest.raises(TypeError, match="expected Tensor"):
        Tensor[3]  # type: ignore[misc]
    with pytest.raises(TypeError, match="expected Tensor"):
        Tensor["b", str]


def test_what_check_warns_of_is_shown() -> None:
    with pytest.warns(UserWarning, match="A0301") as shown:

        @attndsl.attention_spec(backend="eager")
        def bare(Q: Tensor["b,i,e"], K: Tensor["b,j,e"], V: Tensor["b,j,f"]):
            batch(b)
            S[i, j] = Q[i, e] * K[j, e]
            O[i, f] = (exp(S[i, j]) - 1) * V[j, f]
            return O

    assert shown[0].filename == __file__
