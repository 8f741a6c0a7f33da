"""Which steps of a tile each group takes part in, and which of them it masks: counted pair by pair."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attndsl import driver
from attndsl.output import module_text

EXAMPLES = Path(__file__).parents[3] / "examples"
N, W, TILE, ROWS = 1000, 160, 128, 64
TL = SimpleNamespace(
    maximum=max, minimum=min, cdiv=lambda a, b: -(-a // b), cast=lambda x, _: x, int32=int
)


def seen(name: str, i: int, j: int) -> bool:
    inside = 0 <= i < N and 0 <= j < N
    ahead = j <= i + W if name == "window_two_sided" else j <= i
    behind = name == "causal" or j >= i - W + (name == "window")
    return inside and ahead and behind


def group(text: str, kernel: str, tile: str, at: int, which: int, block: int) -> dict[str, Any]:
    """What a group finds of the tile that begins at `at`."""
    body = text[text.index(f"def {kernel}_compute(") :]
    before = re.search(r" +\w+ = pid\n((?:.|\n)*?)( +# --- positions ---)", body)
    total = re.search(r" +total = .*\n", body)
    own = re.search(r" +# --- this group's steps ---\n((?:.|\n)*?) +(?:for t|# ---)", body)
    assert before is not None
    assert total is not None
    assert own is not None
    lines = [*before[1].splitlines(), total[0], *own[1].splitlines()]
    whole = [x.strip() for x in lines if re.match(r" +\w+ = ", x) and not re.search("ACC|_ptr", x)]
    stream = "ij".replace(tile, "")
    known: dict[str, Any] = {f"{tile}0": at, "GROUP": which, "tl": TL, "len_i": N, "len_j": N}
    known |= {f"BLOCK_{tile.upper()}": TILE, f"BLOCK_{stream.upper()}": block, "start": 0, "w": W}
    exec("\n".join(whole), {"floor_div": lambda a, b: a // b}, known)
    cut = re.search(rf"if (.*{stream}0 .*own_full.*):", body)
    assert cut is not None
    return {"begin": 0, "end": known["total"], **known, "cut": cut[1], "stream": stream}


@pytest.mark.parametrize("name", ["causal", "window", "window_two_sided"])
@pytest.mark.parametrize("block", [64, 128])
def test_a_group_does_what_its_own_rows_need(name: str, block: int) -> None:
    text = module_text(driver.load(EXAMPLES / f"{name}.attn"), driver.CompileOptions(hopper=True))
    kernels = {f"{name}_backward_D_dQ_hopper": "i", f"{name}_backward_dK_dV_hopper": "j"}
    left_out = 0
    for kernel, tile in kernels.items():
        for at in range(0, N, TILE):
            for which in range(TILE // ROWS):
                found = group(text, kernel, tile, at, which, block)
                rows = range(at + which * ROWS, min(at + (which + 1) * ROWS, N))
                first = found.get("first", 0)
                for t in range(found["total"]):
                    place = first + t * block
                    here = [
                        seen(name, *((r, s) if tile == "i" else (s, r)))
                        for r in rows
                        for s in range(place, place + block)
                    ]
                    inside = found["begin"] <= t < found["end"]
                    # Of rows beyond the end nothing is kept.
                    assert inside or not any(here), (kernel, at, which, t)
                    masked = eval(found["cut"], {}, {**found, f"{found['stream']}0": place})
                    assert masked or not inside or all(here), (kernel, at, which, t)
                    left_out += not inside
                    if rows and inside and found["end"] - found["begin"] > 1:
                        assert any(here), (kernel, at, which, t)
    # With 128 keys in a tile, a causal one has some for either group.
    assert (left_out > 0) == (block == 64 or name != "causal")
