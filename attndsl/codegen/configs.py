"""Default tile sizes, by arithmetic on shared memory and registers.

`choose` and `shared_bytes` are copied into every generated Triton module, so they import nothing: a committed kernel
chooses as the compiler does. A kernel is described by plain data (`facts`):

    tiles     its TILE axes           stream    its STREAM axis, or None
    pads      FULL axis -> rank       resident  dims of tiles loaded once
    streamed  dims of tiles loaded at every step of the sweep
    carried   dims of accumulators    pairs     how many [tile, stream] values live at once
"""

from __future__ import annotations

from typing import Any


def shared_bytes(
    facts: dict[str, Any], sizes: dict[str, int], itemsize: int, warps: int, stages: int
) -> tuple[int, float]:
    """Shared memory in bytes that a kernel takes, about, and 32-bit registers a thread for its accumulators and tiles."""

    def points(dims: tuple[str, ...]) -> int:
        out = 1
        for d in dims:
            out *= sizes[d]
        return out

    wide = max(4, itemsize)
    ring = sum(points(d) for d in facts["streamed"]) * itemsize
    kept = sum(points(d) for d in facts["resident"]) * itemsize
    pair = points((*facts["tiles"], facts["stream"])) if facts["stream"] else 0
    # One tile of pairs passes through shared memory where a product needs it in another layout.
    shared = max(1, stages) * ring + kept + pair * itemsize * (facts["pairs"] > 1)
    held = sum(points(d) for d in facts["carried"]) + pair * facts["pairs"]
    return shared, held * wide / 4 / (warps * 32)


def choose(
    facts: dict[str, Any],
    extents: dict[str, int],
    itemsize: int,
    smem: int,
    interpreted: bool = False,
) -> dict[str, int]:
    """Block sizes, warps and stages of a kernel: the largest that shared memory and registers hold.

    `extents` gives the FULL ranks, `itemsize` the bytes of an input element, `smem` the shared memory of a block in bytes.
    Raises ValueError (A0502) with the sums if not even the smallest tiles fit.
    """
    sizes = {a: max(16, 1 << (extents[r] - 1).bit_length()) for a, r in facts["pads"].items()}
    tile, stream = facts["tiles"], facts["stream"]
    if interpreted:
        blocks = {**{a: 32 for a in tile}, **({stream: 16} if stream else {})}
        return {
            **{f"BLOCK_{a.upper()}": n for a, n in blocks.items()},
            "num_warps": 4,
            "num_stages": 1,
        }
    accumulators = sum(len(d) > 1 for d in facts["carried"])
    # Tile rows, stream columns, warps: the order of preference. A kernel with one product to accumulate (a forward
    # pass) likes tall tiles; one with two (keys and values of a backward pass) holds twice the registers.
    tall = (
        (128, 128, 8),
        (128, 64, 8),
        (128, 64, 4),
        (64, 64, 4),
        (128, 32, 8),
        (64, 32, 4),
        (32, 32, 4),
    )
    square = ((128, 64, 8), (64, 64, 4), (128, 32, 8), (64, 32, 4), (32, 64, 4), (32, 32, 4))
    last = ((32, 16, 4), (16, 32, 4), (16, 16, 4), (16, 16, 8))
    found: list[tuple[int, int, int]] = []
    for rows, columns, warps in (*(tall if accumulators < 2 else square), *last):
        blocks = {
            **{a: (rows if k == 0 else 16) for k, a in enumerate(tile)},
            **({stream: columns} if stream else {}),
        }
        for stages in (3, 2, 1) if stream else (1,):
            shared, registers = shared_bytes(facts, {**sizes, **blocks}, itemsize, warps, stages)
            if shared <= smem and registers <= 168:
                names = {f"BLOCK_{a.upper()}": n for a, n in blocks.items()}
                return {**names, "num_warps": warps, "num_stages": stages}
            found.append((shared, round(registers), warps))
    shared, registers, warps = found[-1]
    raise ValueError(
        f"A0502: no tile fits: head dims {sizes} take {shared} bytes of shared memory (of {smem}) and "
        f"{registers} registers a thread (of 168) with 16 x 16 tiles of {itemsize}-byte elements on {warps} warps"
    )
