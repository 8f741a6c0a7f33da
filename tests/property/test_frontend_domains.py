"""A domain that is called empty has no point: random conditions against counting."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl.frontend import check
from attndsl.source import Source

terms = st.one_of(
    st.sampled_from(["i", "j", "w"]),
    st.integers(0, 4).map(str),
    st.builds("{} * {}".format, st.integers(1, 3), st.sampled_from(["i", "j"])),
    st.sampled_from(["i // 2", "j % 3", "i * j"]),
)
sides = st.one_of(terms, st.builds("{} {} {}".format, terms, st.sampled_from("+-"), terms))
comparisons = st.builds(
    "{} {} {}".format, sides, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), sides
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
    max_leaves=4,
)
BOX = list(product(range(7), range(7), range(-7, 8)))


@settings(max_examples=150, deadline=None)
@given(conditions, conditions)
def test_an_empty_domain_has_no_point(first: str, second: str) -> None:
    program = f"""
    attention f(X[i,j], w: int) -> O[i,j] {{
      A[i,j] = X[i,j] where {first}
      B[i,j] = w * X[i,j] where {second}
      O[i,j] = A[i,j] + B[j,i]
    }}
    """
    result = check(Source("domain.attn", program))
    assert {d.code for d in result.diagnostics} <= {"A0233"}
    for d in result.diagnostics:
        assert d.span is not None
        tensor = d.title.split("`")[1]
        holds = {"A": first, "B": second, "O": None}[tensor]
        for i, j, w in BOX:
            if holds is None:  # `B` is read at the transposed point
                a = eval(first, {}, {"i": i, "j": j, "w": w})
                assert not (a and eval(second, {}, {"i": j, "j": i, "w": w}))
            else:
                assert not eval(holds, {}, {"i": i, "j": j, "w": w})
