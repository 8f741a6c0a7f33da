"""What the host says that tiles cost, and how it shares them out."""

from __future__ import annotations

import heapq
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from attndsl import driver
from attndsl.codegen.triton import render_module

EXAMPLES = Path(__file__).parents[3] / "examples"
N, W, FIRST, PROGRAMS = 1000, 96, 4, 132
SIZES = {"BLOCK_I": 128, "BLOCK_J": 64}


def functions(name: str) -> dict[str, Any]:
    """The functions of a module that know of lists; all of its text but these needs Triton."""
    program = driver.load(EXAMPLES / f"{name}.attn")
    assert program.forward is not None
    source = render_module(name, program.forward, program.backward, "", hopper=True)
    there: dict[str, Any] = {"heapq": heapq, "processors": lambda _: PROGRAMS}
    for text in re.findall(
        r"\ndef (?:listed_turns|\w+_costs)\((?:.|\n)*?\n    return .*\n", source
    ):
        exec(text, there)
    return there


def seen(name: str, i: int, j: int) -> bool:
    near = i - j < W or (name == "window_sink" and j < FIRST)
    return j <= i and (near or name == "causal")


@pytest.mark.parametrize("name", ["causal", "window", "window_sink"])
def test_costs_are_the_blocks_that_a_tile_meets(name: str) -> None:
    """Counted pair by pair."""
    made = functions(name)[f"{name}_hopper_costs"]
    extents = {"i": N, "j": N}
    costs = made(extents, {"start": 0, "w": W, "n0": FIRST}, SIZES)
    want = []
    for i0 in range(0, N, SIZES["BLOCK_I"]):
        rows = range(i0, i0 + SIZES["BLOCK_I"])
        blocks = {
            j // SIZES["BLOCK_J"] for i in rows for j in range(min(i + 1, N)) if seen(name, i, j)
        }
        want.append(len(blocks) * SIZES["BLOCK_J"] / SIZES["BLOCK_I"] + 1)
    # A list of causal tiles begins with the last ones.
    assert sorted(costs) == sorted(want)
    assert costs in (want, want[::-1])


def test_a_window_is_shared_out_evenly() -> None:
    """Every tile once, and no program much longer than the average, as pairs of tiles left them (8 %)."""
    there = functions("window")
    sizes = {"BLOCK_I": 128, "BLOCK_J": 128}
    costs = there["window_hopper_costs"]({"i": 4096, "j": 4096}, {"start": 0, "w": 1024}, sizes)
    programs = 64 * len(costs)
    listed = there["listed_turns"](programs, costs, 16, torch.device("cpu"))
    counts, rest = listed[:PROGRAMS], listed[PROGRAMS:]
    taken = [rest[p::PROGRAMS][:n] for p, n in enumerate(counts)]
    assert sorted(x for tiles in taken for x in tiles) == list(range(programs))
    spent = [sum(costs[x % len(costs)] for x in tiles) for tiles in taken]
    assert max(spent) < 1.02 * sum(spent) / PROGRAMS
