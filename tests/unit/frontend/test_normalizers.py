"""Normalizers, written out."""

from __future__ import annotations

from collections.abc import Callable

from attndsl.cascade import walk
from attndsl.cascade.nodes import Cascade, Solve
from attndsl.cascade.verify import verify

Load = Callable[[str], Cascade]
Body = Callable[[str], list[str]]


def program(statements: str, inputs: str = "S[b,i,j], V[b,j,f]", outputs: str = "O[b,i,f]") -> str:
    return f"attention f({inputs}) -> {outputs} {{\n batch b\n {statements} \n}}"


def test_softmax_of_a_read(body: Body) -> None:
    assert body(program("O[i,f] = softmax[j](S[i,j]) * V[j,f]")) == [
        "M_S[i] = max[j_2](S[i,j_2])",
        "P_S[i,j] = exp(S[i,j] - M_S[i])",
        "Z_S[i] = sum[j_3](P_S[i,j_3])",
        "O[i,f] = sum[j_1](P_S[i,j_1] / Z_S[i] * V[j_1,f])",
    ]


def test_softmax_of_an_expression_gets_a_score_of_its_own(body: Body) -> None:
    lines = body(program("O[i,f] = softmax[j](S[i,j] / 2) * V[j,f]"))
    assert lines[0] == "S_O[i,j] = S[i,j] / 2"
    assert lines[1].startswith("M_O[i] = max[")


def test_one_argument_is_normalized_once(body: Body) -> None:
    lines = body(
        program(
            "O[i,f] = softmax[j](2 * S[i,j]) * V[j,f]; L[i] = logsumexp[j](2 * S[i,j]); "
            "N[i] = logsumexp[j](3 * S[i,j])",
            outputs="O[b,i,f], L[b,i], N[b,i]",
        )
    )
    assert [x.split("[")[0] for x in lines] == [
        "S_O",
        "M_O",
        "P_O",
        "Z_O",
        "O",
        "L",
        "S_N",
        "M_N",
        "P_N",
        "Z_N",
        "N",
    ]
    assert lines[5] == "L[i] = M_O[i] + log(Z_O[i])"


def test_the_same_tensor_at_other_indices_shares_them_too(body: Body) -> None:
    # Normalized over its second axis in both, under two names of the index.
    lines = body(
        program(
            "O[i,f] = softmax[j](S[i,j]) * V[j,f]; L[i] = logsumexp[k](S[i,k])",
            outputs="O[b,i,f], L[b,i]",
        )
    )
    assert lines[-1] == "L[i] = M_S[i] + log(Z_S[i])"
    assert len(lines) == 5


def test_normalized_over_another_axis_is_another_normalizer(body: Body) -> None:
    lines = body(
        program("O[i,j] = softmax[j](S[i,j]) * softmax[i](S[i,j])", "S[b,i,j]", "O[b,i,j]")
    )
    assert [x.split(" ")[0] for x in lines] == [
        "M_S[i]",
        "P_S[i,j]",
        "Z_S[i]",
        "M_S_1[j]",
        "P_S_1[i,j]",
        "Z_S_1[j]",
        "O[i,j]",
    ]


def test_several_indices(body: Body) -> None:
    lines = body(
        program("O[i] = softmax[j,k](S[i,j,k]) * V[j,k]", "S[b,i,j,k], V[b,j,k]", "O[b,i]")
    )
    assert lines == [
        "M_S[i] = max[j_2,k_2](S[i,j_2,k_2])",
        "P_S[i,j,k] = exp(S[i,j,k] - M_S[i])",
        "Z_S[i] = sum[j_3,k_3](P_S[i,j_3,k_3])",
        "O[i] = sum[j_1,k_1](P_S[i,j_1,k_1] / Z_S[i] * V[j_1,k_1])",
    ]


def test_a_filter_is_a_domain(body: Body) -> None:
    lines = body(program("O[i,f] = softmax[j : j <= i](S[i,j]) * V[j,f]"))
    assert lines[0] == "S_O[i,j] = S[i,j] where j <= i"


def test_inside_a_reduction_it_is_defined_over_the_declared_rank(body: Body) -> None:
    lines = body(
        program(
            "O[i] = sum[k](softmax[j](S[i,j,k]) * V[j,k] * V[0,k])",
            "S[b,i,j,k], V[b,j,k]",
            "O[b,i]",
        )
    )
    assert lines[0] == "M_S[i,k] = max[j_2](S[i,j_2,k])"
    assert lines[-1] == (
        "O[i] = sum[k_1](sum[j_1](P_S[i,j_1,k_1] / Z_S[i,k_1] * V[j_1,k_1] * V[0,k_1]))"
    )


def test_nested_normalizers(body: Body) -> None:
    lines = body(program("O[i,f] = softmax[j](softmax[j](S[i,j])) * V[j,f]"))
    assert [x.split(" ")[0] for x in lines] == [
        "M_S[i]",
        "P_S[i,j]",
        "Z_S[i]",
        "S_O[i,j]",
        "M_O[i]",
        "P_O[i,j]",
        "Z_O[i]",
        "O[i,f]",
    ]


def test_sparsemax_and_entmax_are_roots(load: Load, body: Body) -> None:
    assert body(program("O[i,f] = sparsemax[j](S[i,j]) * V[j,f]")) == [
        "M_S[i] = max[j_2](S[i,j_2])",
        "T_S[i] = solve[x : M_S[i] - 1 <= x <= M_S[i]](sum[j_3](relu(S[i,j_3] - x)) == 1, iters=16)",
        "O[i,f] = sum[j_1](relu(S[i,j_1] - T_S[i]) * V[j_1,f])",
    ]
    lines = body(program("O[i,f] = entmax15[j](S[i,j]) * V[j,f]"))
    assert lines[0] == "H_S[i,j] = S[i,j] / 2"
    assert lines[2] == (
        "T_H_S[i] = solve[x : M_H_S[i] - 1 <= x <= M_H_S[i]](sum[j_3](relu(H_S[i,j_3] - x)**2) == 1, iters=16)"
    )
    c = load(program("O[i,f] = sparsemax[j](S[i,j]) * V[j,f] + entmax15[j](S[i,j]) * V[j,f]"))
    unknowns = [n.var for d in c.body for n in walk.walk(d.expr) if isinstance(n, Solve)]
    assert unknowns == ["x", "x_1"]


def test_fresh_names_avoid_the_user_s(body: Body) -> None:
    lines = body(
        program(
            "M_S[i] = max[j](V[j,i]); O[i,f] = softmax[j](S[i,j]) * V[j,f] * M_S[i]",
            "S[b,i,j], V[b,j,f]",
        )
    )
    assert lines[1].startswith("M_S_1[i] = max[")


def test_a_refused_statement_leaves_nothing_behind(look: Callable[[str], object]) -> None:
    # The second statement shares nothing with tensors of the first, which was refused.
    text = program(
        "L[i] = softmax[j](S[i,j]) * V[j,i] * nix; O[i,f] = softmax[j](S[i,j]) * V[j,f]",
        outputs="O[b,i,f], L[b,i]",
    )
    result = look(text)
    assert [d.code for d in result.diagnostics] == ["A0212"]  # type: ignore[attr-defined]


def test_conditions_around_it_are_the_domain_of_its_score(body: Body) -> None:
    lines = body(program("O[i,f] = (softmax[j](S[i-1,j]) if i > 0 else 0) * V[j,f]"))
    assert lines[0] == "S_O[i,j] = S[i - 1,j] where i > 0"
    lines = body(program("O[i,f] = softmax[j](S[i-1,j]) * V[j,f] where i > 0, f < 9"))
    assert lines[0] == "S_O[i,j] = S[i - 1,j] where i > 0"
    lines = body(
        program("O[j] = sum[i : i > 0](softmax[j](S[i-1,j]) * S[i,0])", "S[b,i,j]", "O[b,j]")
    )
    assert lines[0] == "S_O[i,j] = S[i - 1,j] where i > 0"
    lines = body(program("O[i,f] = (0 if i == 0 else softmax[j](S[i-1,j])) * V[j,f]"))
    assert lines[0] == "S_O[i,j] = S[i - 1,j] where not i == 0"


def test_two_bound_indices_over_one_rank(load: Load) -> None:
    c = load(
        "attention f(S[i,j]) -> O[i] { O[i] = sum[k, l](softmax[j](S[k,j] * S[l,j]) * S[k,j] * S[l,j] * S[i,j]) }"
    )
    score = c.define("S_O")
    first, _, second = score.indices
    assert c.rank(second).iterates == first == "i"
    verify(c)
