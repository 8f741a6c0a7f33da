"""The words of `explain`, told at the end of each report: those that it uses."""

from __future__ import annotations

import re

# What the report calls things: a pattern that shows one, and what it means.
_WORDS = (
    (
        r"^  keeps ",
        "keeps",
        "what one program of the kernel computes; its grid has one for each tile",
    ),
    (r"^  streams ", "streams", "what a program walks through, tile by tile: a sweep"),
    (r"^  carries ", "carries", "running values from tile to tile, and what each starts from"),
    (
        r"^  corrects by ",
        "corrects by",
        "what running sums are scaled by when the running maximum moves",
    ),
    (r"^  merges ", "merges", "how the running values of two parts of a sweep become one"),
    (r" masked$", "masked", "tiles that a condition or the end cuts; whole ones need no mask"),
    (r"\b(BLOCK_\w+)", "BLOCK_j", "how many points of `j` a tile has"),
    (r"\b([a-z]+0)\b", "j0", "the first point of a tile of `j`"),
    (r"\b\w+_safe\b", "M_safe", "`M`, or 0 in a row that has no finite score yet"),
    (r"\b\w+_m\b", "S_m", "`S` where the mask is true, and what changes nothing elsewhere"),
    (r"\b[A-Za-z]_?\w*_\d+\b|\b\w+\.\d\b", "x_1, x.1", "another index over `x`, or a part of `x`"),
    (
        r"\brows\.packed\b",
        "rows.packed",
        "the queries of all heads that share keys, as rows of one tile",
    ),
    (r"\bkeys\.split\b", "keys.split", "slices of the keys, each for a program of its own"),
    (r"\bportable form\b", "portable form", "the kernel in Triton, for every GPU"),
    (
        r"\bwarps specialise\b",
        "warps specialise",
        "one warp copies tiles from memory while others multiply",
    ),
)


def glossary(text: str) -> list[str]:
    """What the names and words of a report mean, those of them that it has."""
    known = [(w, m) for p, w, m in _WORDS if re.search(p, text, re.MULTILINE)]
    width = max((len(w) for w, _ in known), default=0)
    return ["\nWords\n-----", *(f"{w:<{width}}  {m}" for w, m in known)] if known else []
