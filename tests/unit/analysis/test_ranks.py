"""What each rank is for, told from how a program uses it and not from its name."""

from __future__ import annotations

import pytest

from attndsl.analysis.ranks import Kind, bystanders, classify
from attndsl.frontend import load_cascades
from attndsl.source import Source


def kinds(text: str) -> dict[str, str]:
    """Rank -> the first letter of its kind."""
    (cascade,) = load_cascades(Source("test.attn", text))
    ranks = classify(cascade)
    return {r: k.value[0] for r, k in ranks.kinds.items()}


CAUSAL = """attention t(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e]   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}"""


def test_softmax_attention() -> None:
    assert kinds(CAUSAL) == {"b": "b", "h": "b", "i": "s", "j": "s", "e": "f", "f": "f"}


def test_no_condition_and_no_normalizer() -> None:
    """Nothing is compared: where the axes stand in the inputs decides."""
    text = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
      batch b
      O[i,f] = sum[j](Q[i,e] * K[j,e] * V[j,f])
    }"""
    assert kinds(text) == {"b": "b", "i": "s", "j": "s", "e": "f", "f": "f"}


def test_transposed_keys() -> None:
    """The sequence of `K[e,j]` stands last, and is a sequence all the same."""
    text = CAUSAL.replace("K[b,h,j,e]", "K[b,h,e,j]").replace("K[j,e]", "K[e,j]")
    assert kinds(text) == {"b": "b", "h": "b", "i": "s", "j": "s", "e": "f", "f": "f"}


def test_everything_transposed_without_a_condition() -> None:
    text = """attention t(Q[b,e,i], K[b,e,j], V[b,f,j]) -> O[b,f,i] {
      batch b
      S[i,j] = Q[e,i] * K[e,j]
      O[f,i] = softmax[j](S[i,j]) * V[f,j]
    }"""
    found = kinds(text)
    assert found["j"] == "s"
    assert found["e"] == "f"


@pytest.mark.parametrize("bias", ["B[b,h,i,j]", "B[h,i,j]", "B[i,j]"])
def test_a_bias_ends_in_the_keys(bias: str) -> None:
    """`j` is the last axis of the bias, and no feature."""
    text = CAUSAL.replace("V[b,h,j,f]", f"V[b,h,j,f], {bias}").replace("K[j,e]", "K[j,e] + B[i,j]")
    found = kinds(text)
    assert (found["i"], found["j"], found["e"], found["f"]) == ("s", "s", "f", "f")


def test_statistics_by_row_are_no_features() -> None:
    text = CAUSAL.replace("V[b,h,j,f]", "V[b,h,j,f], u[b,h,i], w[b,h,j]")
    text = text.replace("K[j,e]", "K[j,e] * u[i] + w[j]")
    found = kinds(text)
    assert (found["i"], found["j"]) == ("s", "s")


def test_a_projection_inside_the_score() -> None:
    """`d`, summed inside every score, is a feature, though it is both first and last in its inputs."""
    text = """attention t(X[b,i,d], A[d,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
      batch b
      Q[i,e] = X[i,d] * A[d,e]
      S[i,j] = Q[i,e] * K[j,e]   where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    assert kinds(text) == {"b": "b", "i": "s", "j": "s", "d": "f", "e": "f", "f": "f"}


def test_heads_that_share_keys() -> None:
    """`h // G` is a batch rank, whatever it is called, and one for all that are indexed by it."""
    text = """attention t(Q[b,h,i,e], K[b,h // G,j,e], V[b,h // G,j,f], G: int = 2) -> O[b,h,i,f] {
      batch b, h
      S[i,j] = Q[i,e] * K[j,e]
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    (cascade,) = load_cascades(Source("test.attn", text))
    ranks = classify(cascade)
    (shared,) = {ranks.of.get(cascade.input(n).ranks[1], n) for n in ("K", "V")}
    assert ranks.kind(shared) is Kind.BATCH


def test_bound_indices_are_of_their_rank() -> None:
    (cascade,) = load_cascades(Source("test.attn", CAUSAL))
    ranks = classify(cascade)
    bound = [r.name for r in cascade.ranks if r.iterates is not None]
    assert bound
    assert all(ranks.kind(i) is ranks.kind(ranks.of[i]) for i in bound)
    assert ranks.sequence(("b", "i", "f", "j")) == ("i", "j")


def test_what_is_known_stays() -> None:
    """The backward pass takes the kinds of the forward pass, whatever its own sums look like."""
    (cascade,) = load_cascades(Source("test.attn", CAUSAL))
    ranks = classify(cascade, {"e": Kind.SEQUENCE})
    assert ranks.kinds["e"] is Kind.SEQUENCE
    assert ranks.kinds["f"] is Kind.FEATURE


def test_names_do_not_matter() -> None:
    """Renamed so that every name suggests another kind."""
    text = """attention t(X[b,h,f,j], Y[b,h,e,j], Z[b,h,e,i]) -> O[b,h,f,i] {
      batch b, h
      S[f,e] = X[f,j] * Y[e,j]   where e <= f
      O[f,i] = softmax[e](S[f,e]) * Z[e,i]
    }"""
    assert kinds(text) == {"b": "b", "h": "b", "f": "s", "e": "s", "j": "f", "i": "f"}


def test_a_rank_that_walks_parts_of_features() -> None:
    """`d` counts pairs of `e`, and `c`, which is read at `d`, is of one kind with it."""
    text = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], theta[c]) -> O[b,i,f] {
      batch b
      rank d = |e| // 2
      x[i,d] = Q[i,2*d] * cos(i * theta[d]) - Q[i,2*d+1] * sin(i * theta[d])
      S[i,j] = x[i,d] * K[j,2*d]   where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    found = kinds(text)
    assert found["d"] == found["c"] == "f"


def test_parts_of_a_sequence_stay_as_they_are() -> None:
    text = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], w: int) -> O[b,i,f] {
      batch b
      rank c = |j| // w, r = w
      S[i,c,r] = Q[i,e] * K[c*w + r, e]
      O[i,f] = softmax[c,r](S[i,c,r]) * V[c*w + r, f]
    }"""
    assert kinds(text)["c"] == "s"


MIXED = """attention t(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], W[g,h]) -> O[b,g,i] {
  S[b,h,i,j] = Q[b,h,i,e] * K[b,h,j,e]   where j <= i
  T[b,g,i,j] = W[g,h] * S[b,h,i,j]
  O[b,g,i] = logsumexp[j](T[b,g,i,j]) * V[b,0,0,0]
}"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            CAUSAL.replace("batch b, h", "").replace("[", "[b,h,").replace("b,h,b,h", "b,h"),
            {"b", "h"},
        ),
        (CAUSAL, set()),
    ],
)
def test_ranks_that_only_stand_by(text: str, found: set[str]) -> None:
    """Queries do not: keys lack them. What is declared is known."""
    text = text.replace("softmax[b,h,j]", "softmax[j]")
    (cascade,) = load_cascades(Source("test.attn", text))
    assert bystanders(cascade, classify(cascade)) == found


def test_heads_that_are_mixed_do_not_stand_by() -> None:
    (cascade,) = load_cascades(Source("test.attn", MIXED))
    assert "h" not in bystanders(cascade, classify(cascade))
