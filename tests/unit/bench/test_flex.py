"""FlexAttention and PyTorch's attention, derived from programs, against the programs' own meaning."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import attndsl
from attndsl.analysis.score_mask import Inexpressible, score_mask
from attndsl.bench.peers import PEERS, Absent, Setup, peer
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.sizes import TRIAL, sizes
from attndsl.testing import make_inputs

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"

EXPRESSED = [
    "alibi",
    "bias_broadcast",
    "bias_dense",
    "bias_t5",
    "bias_toeplitz",
    "block_window",
    "causal",
    "cross",
    "dilated",
    "documents",
    "entropy",
    "full",
    "gqa",
    "key_padding",
    "log_scaling",
    "mqa",
    "neighborhood_2d",
    "prefix_lm",
    "softcap",
    "streaming_llm",
    "temperature_head",
    "temperature_query",
    "window",
    "window_per_head",
    "window_two_sided",
]
REFUSED = {
    "additive": "no product of two inputs",
    "bias_low_rank": "2 sums, not one product",
    "differential": "not one function of the score over one sum",
    "linear": "no exponentials",
    "mla": "2 sums, not one product",
    "off_by_one": "not the sum of the weights alone",
    "sink_softmax": "not the sum of the weights alone",
    "softpick": "no exponentials",
    "squared_distance": "1 factors",
    "talking_heads": "no single sum over keys",
}


def setup(name: str) -> Setup:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    at = sizes(op.cascade, TRIAL)
    inputs = make_inputs(op, at.extents, params=at.params, seed=3)
    return Setup(op, inputs, at.extents, at.params)


@pytest.mark.parametrize("name", EXPRESSED)
def test_flex_means_what_the_program_means(name: str) -> None:
    given = setup(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not compiled, it computes densely and says so
        got = peer("flex", given)()
    want = given.reference()
    seen = torch.isfinite(got).all(-1) & (want != 0).any(-1)  # it makes NaN of rows without keys
    assert seen.any()
    torch.testing.assert_close(got[seen], want[seen], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_no_score_and_mask_is_refused_with_a_reason(name: str) -> None:
    cascade = load_cascades(read_source(EXAMPLES / f"{name}.attn"))[0]
    with pytest.raises(Inexpressible, match=REFUSED[name]):
        score_mask(cascade)


@pytest.mark.parametrize("name", ["full", "causal", "gqa", "window", "documents", "mqa"])
def test_sdpa_means_what_the_program_means(name: str) -> None:
    given = setup(name)
    torch.testing.assert_close(peer("sdpa", given)(), given.reference(), rtol=1e-4, atol=1e-5)


def test_sdpa_takes_no_other_score() -> None:
    with pytest.raises(Inexpressible, match="more than a scaled product"):
        peer("sdpa", setup("softcap"))


def test_the_names_of_a_program_say_nothing() -> None:
    text = """
attention disguised(A[x,y,p,c], B[x,y,q,c], W[x,y,q,d], s[y]) -> Z[x,y,p,d] {
  batch x, y
  R[p,q] = A[p,c] * B[q,c] / 4 - s * (p - q)   where q <= p
  Z[p,d] = softmax[q](R[p,q]) * W[q,d]
}
"""
    op = attndsl.compile(text)
    at = sizes(op.cascade, TRIAL)
    given = Setup(op, make_inputs(op, at.extents, params=at.params), at.extents, at.params)
    found = score_mask(op.cascade)
    assert (found.q, found.k, found.v, found.query) == ("A", "B", "W", "p")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(peer("flex", given)(), given.reference(), rtol=1e-4, atol=1e-5)


def test_the_text_reads_as_if_written_by_hand() -> None:
    from attndsl.bench.flex import Mods

    given = setup("alibi")
    mods = Mods(score_mask(given.cascade), given.extents, given.params, given.inputs, start=7)
    assert mods.texts == [
        "def score_mod(score, b, h, q_idx, kv_idx):\n"
        "    return ((score / 5.656854249492381) - (t_slope[h] * ((q_idx + 7) - kv_idx)))\n",
        "def mask_mod(b, h, q_idx, kv_idx):\n    return (kv_idx <= (q_idx + 7))\n",
    ]


def test_a_softmax_written_out_is_a_softmax() -> None:
    text = """
attention spelt(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] + Q[i,e] * 0
  M[i] = max[j](S[i,j])
  P[i,j] = exp(S[i,j] - M[i])
  O[i,f] = P[i,j] * V[j,f] / sum[j](P[i,j])
}
"""
    op = attndsl.compile(text.replace(" + Q[i,e] * 0", ""))
    assert score_mask(op.cascade).plain


def test_a_term_of_the_query_alone_cancels() -> None:
    text = """
attention shifted(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], c[b,h,i]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)
  P[i,j] = exp(S[i,j] - c[i])
  Z[i] = sum[j](P[i,j])
  O[i,f] = P[i,j] / Z[i] * V[j,f]
}
"""
    assert score_mask(attndsl.compile(text).cascade).plain


def test_absent_peers_say_so() -> None:
    for name in ("fa4", "fla"):
        with pytest.raises(Absent, match="is not installed"):
            peer(name, setup("causal"))
    assert set(PEERS) == {"flex", "sdpa", "fa4", "fla", "eager", "portable"}
