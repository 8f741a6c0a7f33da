"""The normal form: every large reduction has a definition, and nothing in it that does not carry its indices."""

from __future__ import annotations

import pytest
import torch

from attndsl.analysis.ranks import Ranks, classify
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade, Reduce
from attndsl.cascade.walk import reads, walk
from attndsl.schedule.forms import is_large
from attndsl.schedule.normal import normalize
from tests.unit.schedule.harness import draw, load

HEAD = "attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {\n  batch b\n  "
PROGRAMS = {
    "a quotient taken out": "S[i,j] = Q[i,e] * K[j,e]   where j <= i\n  O[i,f] = softmax[j](S[i,j]) * V[j,f]",
    "two sums of one weight": "S[i,j] = Q[i,e] * K[j,e]\n  P[i,j] = softmax[j](S[i,j])\n"
    "  O[i,f] = P[i,j] * V[j,f] - sum[j](P[i,j] * S[i,j]) * Q[i,f]",
    "a factor that the condition defines": "S[i,j] = max[e](Q[i,e] + K[j,e])   where j < i\n"
    "  T[i,j] = sum[f](softmax[j](S[i,j]) * V[j,f])\n  O[i,f] = sum[j](T[i,j] * V[j,f])",
    "a sum that runs inside a sum": "S[i,j] = Q[i,e] * K[j,e]   where i - 4 < j <= i\n"
    "  O[i,f] = sum[j](exp(S[i,j] - max[j](S[i,j])) * V[j,f] / (1 + sum[j](S[i,j]**2)))",
}
EXTENTS = {"b": 2, "i": 7, "j": 7, "e": 3, "f": 3}


def normal(name: str) -> tuple[Cascade, Cascade, Ranks]:
    cascade = load(HEAD + PROGRAMS[name] + "\n}")
    ranks = classify(cascade)
    return cascade, normalize(explicit_domains(cascade), ranks), ranks


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_means_the_same(name: str) -> None:
    cascade, form, _ = normal(name)
    inputs = draw(cascade, EXTENTS)
    want = interpret(cascade, inputs, start=0)
    got = interpret(form, inputs, explicit=True)
    torch.testing.assert_close(got["O"], want["O"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PROGRAMS)
def test_large_reductions_are_whole_definitions(name: str) -> None:
    _, form, ranks = normal(name)
    for d in form.body:
        inside = [n for n in walk(d.expr) if isinstance(n, Reduce) and is_large(n, ranks)]
        assert not inside or inside == [d.expr]


def test_the_division_happens_once_a_row() -> None:
    """Division deferral: the sum over keys does not read the normaliser."""
    _, form, ranks = normal("a quotient taken out")
    (summed,) = [d for d in form.body if is_large(d.expr, ranks) and "V" in reads(d.expr)]
    assert "Z_S" not in reads(summed.expr)
    assert "Z_S" in reads(form.define("O").expr)


def test_equal_sums_are_one() -> None:
    _, form, ranks = normal("two sums of one weight")
    large = [d.expr for d in form.body if is_large(d.expr, ranks)]
    assert len(large) == len(set(large)) == 4  # a maximum, the normaliser, two sums
