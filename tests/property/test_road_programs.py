"""Programs written from the language: kernels against the program's own dense evaluation, forward and backward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.road import more_programs, papers, papers_more, surprises, weighings  # noqa: F401 (they fill PROGRAMS)
from tests.road.harness import small_tiles
from tests.road.programs import PROGRAMS, check

ROOT = Path(__file__).parents[2]
PARTS = 9  # of all programs, each a test that ends in time

# What once went wrong, and one or two of each kind; the others are slow tests.
QUICK = {
    "domain_of_a_domain",
    "fire",
    "fire_mask_of_distances",
    "log_in_a_filter",
    "log_of_keys",
    "log_of_rows",
    "log_of_rows_in_a_sum",
    "paged_keys",
    "rnn",
    "rnn_backward_in_time",
    "rnn_of_a_projection",
    "rnn_of_other_features",
    "root_of_values",
    "all_features_above",
    "any_before",
    "bilinear",
    "decay_prod_linear",
    "dist_mult",
    "features_first",
    "floor",
    "full_block",
    "gatv2",
    "gqa_mod",
    "delta_by_its_errors",
    "group_own_causal",
    "gru",
    "gru_that_shows_its_gate",
    "group_own_flat",
    "grouped_own_score",
    "grouped_own_score_nested",
    "groups_by_their_lse",
    "heads_bias_of_all_batches",
    "head_softmax",
    "heads_explicit",
    "inner_softmax_pair",
    "learned_q",
    "log_cosh",
    "logspace",
    "maxdist",
    "mix_m_softmaxes",
    "outproj_heads",
    "outsoftmax",
    "own_key_apart",
    "rotary_of_neighbours",
    "solve_mean",
    "start_b",
    "stick_prod",
    "talk_norm",
    "ttt_layer_norm",
    "talking",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in sorted(PROGRAMS)],
)
def test_program(name: str) -> None:
    with small_tiles(8):
        check(name, "eager")


# Their last chunk has rows beyond the end, which the eager form does not have.
TRITON_QUICK = ["delta_of_unit_keys", "delta_with_a_steep_gate", "any_feature_above"]


def test_some_in_triton() -> None:
    interpreted(TRITON_QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_all_in_triton(part: int) -> None:
    interpreted(sorted(PROGRAMS)[part::PARTS])


def interpreted(names: list[str]) -> None:
    """They are right in Triton's interpreter, which a process takes or leaves as a whole."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.road.interpreted_programs", *names],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(names, "ok")
