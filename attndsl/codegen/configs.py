"""Default tile sizes, by arithmetic on shared memory and registers.

`choose` and its like, `padded` and `demand` are copied into every generated Triton module, so they import
nothing: a committed kernel chooses as the compiler does. A kernel is described by plain data (`facts`):

    tiles     its TILE axes           stream    its STREAM axis, or None
    data      tensors with a FULL axis
    chunks    there, if it carries a state along the stream, and its tiles are columns
    scans     there, if it carries a state and multiplies no matrices
    solves    there, if it solves a triangular system
    follows   there, if its tile is a chunk of another kernel, whose name this is (`configure` takes that one's)
    walks     there, if it walks a sequence position by position
    few_rows  a split-keys kernel             loops     how many scalar loops are around the sweep
    fixed     there, if the program settles how many points a tile of an axis has: axis -> points
    pads      FULL axis -> rank       resident  dims of tiles loaded once
    streamed  dims of tiles loaded at every step of the sweep
    carried   dims of accumulators    pairs     dims of [tile, stream] values made at every step
    pairs_by_address   the same, where no copy engine loads tiles and addresses are held besides
    gathers   there, if it sums over points, at each of which every pair reads an address of its own
"""

from __future__ import annotations

from typing import Any


def demand(
    facts: dict[str, Any],
    sizes: dict[str, int],
    itemsize: int,
    warps: int,
    stages: int,
    parts: bool = False,
) -> tuple[int, int]:
    """Shared memory in bytes and 32-bit registers a thread that a kernel takes, about.

    `parts`: its products are of three parts of 16 bits of each operand.
    """

    def points(dims: tuple[str, ...]) -> int:
        out = 1
        for d in dims:
            out *= sizes[d]
        return out

    streamed = sum(points(d) for d in facts["streamed"])
    resident = sum(points(d) for d in facts["resident"])
    pairs = [points(d) for d in facts["pairs"]]
    # With two values of pairs, one passes through shared memory on its way into a product.
    shared = (stages * streamed + resident + (max(pairs) if len(pairs) > 1 else 0)) * itemsize
    if parts:
        # Those of what stays wait there, and one of what comes alone; pairs stay in registers.
        # What is added to memory at every step is multiplied once more, the other way round.
        again = any(d in facts["pads"] for dims in facts["pairs"] for d in dims)
        shared = stages * streamed * itemsize + 6 * resident * (2 if again else 1)
        shared += 2 * streamed if len(facts["streamed"]) == 1 else 0
        if facts.get("apart"):  # all of it comes in halves, and is multiplied where it lies
            shared = (stages * streamed + resident) * itemsize
    # Each value of pairs has a temporary, half as large in a 16-bit type.
    held = sum(points(d) for d in facts["carried"]) + sum(pairs) * 3 // 2
    return shared, held * max(4, itemsize) // 4 // (warps * 32)


def padded(extent: int, itemsize: int) -> int:
    """How many points a tile holds for a FULL axis: a power of two, and rows of at least 128 bytes in 16-bit types.

    Triton 3.6 reads out of bounds on Hopper where a narrower tile passes through registers into a product (unaligned
    rows do), so narrow head dims are padded further than the product itself needs.
    """
    return max(64 if itemsize == 2 else 16, 1 << (extent - 1).bit_length())


def choose(
    facts: dict[str, Any],
    extents: dict[str, int],
    itemsize: int,
    smem: int,
    interpreted: bool = False,
) -> dict[str, int]:
    """Block sizes, warps and stages of a kernel: the first in order of preference that fits.

    `extents` gives the FULL ranks, `itemsize` the bytes of an input element, `smem` the shared memory of a block.
    Raises ValueError (A0510) with the sums if not even the smallest tiles fit.
    """
    sizes = {a: padded(extents[r], itemsize) for a, r in facts["pads"].items()}
    axes = [*facts["tiles"], *([facts["stream"]] if facts["stream"] else [])]
    few = facts.get("few_rows", False)
    merges = few and not facts["stream"]
    engine = smem > 200 * 1024 and itemsize == 2  # tiles need no addresses
    # Products of float32 by parts, which matrix units read from shared memory (`dot`).
    parts = smem > 200 * 1024 and itemsize == 4 and not facts.get("ieee")
    tiled = itemsize == 2 and not few and not interpreted
    gathers = tiled and facts.get("gathers", False)
    # Of many values of pairs more is alive in a loop around the sweep than the sums say.
    many = tiled and facts["loops"] and len(facts["pairs"]) > 6
    if gathers or not engine:
        facts = {**facts, "pairs": facts["pairs_by_address"]}
    shares = 1  # how many blocks share a multiprocessor by the first choice
    if interpreted:
        wanted: list[tuple[int, int, int]] = [(16 if few else 32, 16, 4)]
    elif merges:
        # States of slices are merged one after the other: a row and a warp for each program, slices loaded ahead. Of 16
        # slices of 128 features 2.7 us on an H200, with 16 rows in 4 warps 5.7 (benchmarks/results/decoding-h200.json).
        wanted = [(1, 1, 1), (1, 1, 2), (1, 1, 4)]
    elif few:
        # Keys pass by once, at the speed of memory; the rows are few and cost nothing.
        wanted = [(16, 32, 4)] if parts else [(16, 128, 4), (16, 64, 4)]
    elif parts and facts.get("apart"):
        # Two blocks of one group hide each other's waits, where what they hold is small (measured: docs).
        shares = 2
        wanted = [(64, 64, 4), (128, 64, 8), (128, 32, 8), (64, 64, 4), (64, 32, 4)]
    elif parts:
        wanted = [(128, 64, 8), (128, 32, 8), (64, 64, 4), (64, 32, 4)]
    elif itemsize > 2:
        # Products in full precision run on ordinary cores, from registers, and are unrolled.
        wanted = [(64, 32, 8), (32, 32, 4), (32, 16, 4), (16, 16, 4), (16, 16, 8)]
    elif engine:
        # A group of 4 warps multiplies 64 rows, and waits for its products; groups of two blocks
        # hide each other's waits better than two of one block, which meet at every tile
        # (measured: benchmarks/).
        shares = 2
        wanted = [(64, 64, 4), (128, 64, 8), (128, 32, 8), (64, 64, 4), (64, 32, 4), (64, 32, 8)]
    else:
        wanted = [(64, 64, 4), (64, 64, 8), (128, 32, 8), (64, 32, 4), (64, 32, 8)]
    wanted += [(64, 16, 8)] if gathers or (many and not engine) else []
    wanted += [(32, 32, 4), (32, 32, 8), (16, 32, 4), (16, 16, 4), (16, 16, 8)]
    shared = registers = limit = 0
    for rows, columns, warps in wanted:
        blocks = {a: rows if k == 0 else columns if k == 1 else 16 for k, a in enumerate(axes)}
        blocks.update(facts.get("fixed", {}))
        if "fixed" in facts and itemsize > 2 and rows > 32:
            continue  # 64 by 64 products in full precision, unrolled, spill
        if not facts["stream"] and rows > 16 and not interpreted:
            # What sweeps nothing waits for memory, with all that it loads in registers: nine tiles of 128 features
            # take .26 ms in 32 rows of 8 warps, .45 in 64 rows of 4 (benchmarks/results/linear-delta.json).
            loaded = sum(rows * max(1, *(sizes.get(a, 1) for a in d)) for d in facts["resident"])
            if loaded > 256 * 32 * warps:
                continue
        # A block's share of the memory, less what the system and barriers take.
        room = smem if shares == 1 else (smem + 1024) // shares - 2048
        if "fixed" in facts:
            room -= 3 * 64 * 4 * blocks[axes[0]]  # running sums of pairs pass through it
        if parts and (len(set(sizes.values())) > 1 or max(sizes.values(), default=0) > 128):
            # Triton takes up to 16 KiB more than the sums say where dims differ or are large.
            room -= 18 * 1024
        depths: tuple[int, ...] = (3, 2) if shares > 1 else (3, 2, 1)
        if merges:
            depths = (4, 1)
        elif parts and facts.get("apart"):
            # Loads that nothing hides take longer than smaller tiles.
            depths = (2,) if columns > 32 else (2, 1)
        for stages in depths if (facts["stream"] or merges) and not interpreted else (1,):
            made = {**sizes, **blocks}
            shared, registers = demand(facts, made, itemsize, warps, stages, parts)
            # Above this, what the sums leave out (addresses, masks, operands) spills. Tiles that the
            # copy engine loads need no addresses; a loop around the sweep keeps more of them alive.
            limit = 272 if shares > 1 else 176 if facts["loops"] and not engine else 226
            limit = 128 if columns > 64 else limit
            # Twice the warps spill nothing where four would (tests/unit/spills.json).
            limit = 160 if not engine and rows == columns == 64 else limit
            # Values of several points are on their way, and sums wait. Spills took longer than narrow tiles do (dK and
            # dV of Music Transformer, N1024: 26.8 and 14.9 ms on an H200; a bias of keys, many: 2.19 and 1.36).
            limit = 120 if gathers or (many and engine) else 90 if many else limit
            if interpreted or (shared <= room and registers <= limit):
                names = {f"BLOCK_{a.upper()}": n for a, n in blocks.items()}
                return {**names, "num_warps": warps, "num_stages": stages}
        shares = 1
    raise ValueError(
        f"A0510: no tile fits: with {axes} in tiles of 16 and the other axes {sizes}, a block of "
        f"{itemsize}-byte elements takes {shared} bytes of shared memory (of {smem}) and "
        f"{registers} registers a thread (of {limit})"
    )


def choose_chunk(
    facts: dict[str, Any],
    extents: dict[str, int],
    itemsize: int,
    smem: int,
    interpreted: bool = False,
) -> dict[str, int]:
    """Chunk length, columns, warps and stages of a kernel that carries a state from chunk to chunk.

    Columns narrower than 64 would give more programs, but Triton 3.6 reads out of bounds on Hopper where such a 16-bit
    tile passes through registers into a product (see `padded`).
    """
    sizes = {a: padded(extents[r], itemsize) for a, r in facts["pads"].items()}
    wanted = [(64, 64, 4), (64, 64, 8), (64, 32, 8), (64, 16, 8)]
    if facts.get("solves"):  # the work of a triangular system grows with the square of the chunk
        wanted = [(64, 16, 4), (64, 32, 8), (64, 16, 8)]
    if interpreted:
        wanted = [(32, 16, 4)]
    elif facts.get("scans") and facts["tiles"]:
        # Nothing is multiplied: narrow columns give more programs. What reads several tiles at each step waits longer,
        # and more programs hide it (`scans of gla's gates` in benchmarks/results/linear-delta.json).
        wanted = [(16, 32, 1), (32, 32, 4)]
        if len(facts["streamed"]) > 2:
            wanted = [(8, 64, 1), *wanted]
    elif facts.get("scans") and not facts["pairs"]:  # one number for each position: few long chunks
        wanted = [(64, 1024, 4)]
    elif itemsize > 2:  # products in full precision are unrolled
        wanted = [(32, 32, 4), (32, 32, 8), (16, 16, 8)]
    shared = registers = 0
    spills: dict[str, int] | None = None
    for columns, chunk, warps in wanted:
        blocks = {**dict.fromkeys(facts["tiles"], columns), facts["stream"]: chunk}
        # Loads of two chunks ahead pay where registers and memory are to spare
        # (benchmarks/results/linear-delta.json).
        for stages in (4, 3, 2, 1) if not interpreted else (1,):
            shared, registers = demand(facts, {**sizes, **blocks}, itemsize, warps, stages)
            if stages == 4 and warps > 1:  # what one warp does is soon done
                continue
            if stages == 3 and (warps > 4 or shared > smem * 3 // 5):
                continue
            names = {f"BLOCK_{a.upper()}": n for a, n in blocks.items()}
            made = {**names, "num_warps": warps, "num_stages": stages}
            # More than a thread has: what is estimated does not live at once (benchmarks/results/linear-*.json).
            limit = 216 if warps == 4 else 272
            if interpreted or (shared <= smem and registers <= limit):
                return made
            if shared <= smem:
                spills = made
    if spills is not None:  # a kernel that spills is better than none
        return spills
    raise ValueError(
        f"A0510: no chunk fits: with the axes {sizes} whole, a block of {itemsize}-byte elements takes {shared} bytes "
        f"of shared memory (of {smem})"
    )


def choose_ahead(
    facts: dict[str, Any],
    extents: dict[str, int],
    itemsize: int,
    smem: int,
    interpreted: bool = False,
) -> dict[str, int]:
    """Warps of a kernel that computes one chunk of another's walk ahead; the chunk is that walk's (`configure`)."""
    chunk = 16 if interpreted else 64 if itemsize == 2 else 32
    blocks = {f"BLOCK_{a.upper()}": chunk for a in facts["tiles"]}
    # The inverse of a system takes four warps half as long; what is otherwise held of a chunk, eight hold better.
    warps = 4 if facts["solves"] and itemsize == 2 else 8
    return {**blocks, "num_warps": warps, "num_stages": 1}


def choose_walk(
    facts: dict[str, Any],
    extents: dict[str, int],
    itemsize: int,
    smem: int,
    interpreted: bool = False,
) -> dict[str, int]:
    """Warps of a kernel that walks positions one by one, with its states in registers; its tiles are settled.

    A step waits for sums over its warps, so there are few: two take 4.3 ms where four take 6.7 (two states of 128 by
    16, N4096, 512 programs, one H200). A multiprocessor has 65536 registers; some are left for addresses.
    """
    sizes = {a: padded(extents[r], itemsize) for a, r in facts["pads"].items()} | facts["fixed"]
    held = 0
    for dims in facts["pairs"]:
        points = 1
        for d in dims:
            points *= sizes[d]
        held += points * max(4, itemsize) // 4
    for warps in (1, 2, 4, 8, 16):
        if held <= warps * 32 * (96 if warps == 16 else 160) or interpreted:
            blocks = {f"BLOCK_{a.upper()}": sizes[a] for a in facts["tiles"]}
            return {**blocks, "num_warps": 4 if interpreted else warps, "num_stages": 1}
    raise ValueError(
        f"A0510: the states do not fit: with the axes {sizes}, a step holds {held} registers of 65536, "
        f"of which {16 * 32 * 96} are to be had"
    )


# Which function finds the sizes of a kernel that is not as most are: of the facts that are there, the last decides.
# `choice` and the modules (`default_config`) are made of this table alone.
FINDERS = {"chunks": choose_chunk, "follows": choose_ahead, "walks": choose_walk}


def choice(
    facts: dict[str, Any], extents: dict[str, int], itemsize: int, smem: int
) -> dict[str, int]:
    """What a generated module runs a portable kernel with on a GPU where nothing was tuned."""
    find = choose
    for fact, finder in FINDERS.items():
        find = finder if fact in facts else find
    return find(facts, extents, itemsize, smem)


def choose_warps(
    facts: dict[str, Any], extents: dict[str, int], smem: int
) -> dict[str, int] | None:
    """Block sizes and stages of a kernel whose warps specialise: the first that fits; None if none does.

    A group of four warps holds 64 rows: of every accumulator, of the scores, and of the operands of products that run,
    which are half as large; with those of the next step, where they are computed meanwhile (`carried`). Groups share a
    block's registers. Three fill each other's waits better than two (full attention at head dim 64: 1.08 instead of
    1.22 ms; dQ 1.36 instead of 1.68), but with one tile of scores leave no room for a mask that compares rows with keys
    (causal: 0.68, and 0.67 ms).
    """

    def sizes(ranks: list[str]) -> int:
        return sum(max(64, 1 << (extents[r] - 1).bit_length()) for r in ranks)

    resident, rings, sums = sizes(facts["resident"]), sizes(facts["rings"]), sizes(facts["sums"])
    # What leaves has memory of its own, or takes that of a resident tile whose rows are as long.
    apart = [sizes([r for r, _ in facts["stores"]])]
    apart.append(sum(sizes([r]) for r, s in facts["stores"] if not s or sizes([r]) != sizes([s])))
    carried = facts["order"] == "carried"
    # Only where products of two steps run side by side do three tiles of a ring pay.
    depths: tuple[tuple[int, int], ...] = (
        ((128, 2), (64, 3), (64, 2), (32, 3), (32, 2)) if carried else ((128, 2), (64, 2), (32, 2))
    )
    if facts.get("across"):
        # A product has 64 rows of the stream: of a tile of 64 each group adds half of the columns, of one of 128 half
        # of the rows, which reads less shared memory (hopper-added-h200.json). Short sweeps want small tiles, and a
        # loop around the sweep leaves no registers for large ones.
        wide = facts["worth"] and not facts["turns"]
        depths = ((128, 2), (64, 2)) if wide else ((64, 2),)
    # Sweeps that ids end are short, and a tile that reaches over a border is masked and half empty
    # (benchmarks/results/window-h100.json, window-h200.json).
    widest = 64 if facts["looked_up"] else 128
    # Where sweeps are short, what rows are computed of is worth its memory (dQ of a window: 0.36 instead of 0.42 ms).
    also = sizes(facts["also"])
    ways = [(k, c) for k in (1, 0) for c in ((1, 0) if facts["folded"] else (0,))]
    wanted = [(2, b, s, k, c) for b, s in depths for k, c in ways if b <= widest]
    # Ids are looked through by powers of two.
    if carried and facts["pairs"] > 1 and not facts["looked_up"]:
        wanted.insert(0, (3, 64, 3, 1, int(facts["folded"])))
    elif carried and not facts["compares"]:
        wanted.insert(0, (3, 128, 2, 1, 0))
    for groups, block, stages, own, copied in wanted:
        leaving = (apart[0] if own else apart[1]) + also * copied
        shared = (groups * 64 * (resident + leaving) + stages * block * rings) * 2
        shared += stages * block * facts["columns"] + 1024
        if facts.get("across"):
            shared += 4 * 64 * block * 2 + block * sizes(facts["across"]) * 4 + 1024
        waiting = block * len(facts["sums"]) // (1 if carried else 2)
        # The second operand comes after the first has gone.
        if block == 128 and facts.get("across"):
            waiting //= 2
        held = (sums + block * facts["pairs"] + waiting) // 2
        # A mask beside two tiles of pairs takes more than three groups have: softpick spilled, and took 0.898 ms; with
        # two it takes 0.701 (benchmarks/results/tuning/examples-h200.json).
        room = (144 if facts["compares"] else 160) if groups == 3 else 195 if carried else 224
        if shared <= smem and held <= room:
            return {
                f"BLOCK_{facts['tile']}": groups * 64,
                f"BLOCK_{facts['stream']}": block,
                "GROUPS": groups,
                "STAGES": stages,
                "APART": own,
                "REGISTERS": 160 if groups == 3 else 240,
                **({"COPIED": copied} if also else {}),
                # Where products outweigh what is computed between them, sums run meanwhile (hopper-held-h200.json).
                **({"HELD": int(resident + sums >= 192)} if carried else {}),
                "num_warps": 4,
                "maxnreg": 128 if groups == 3 else 168,
            }
    return None


def choose_eight(
    facts: dict[str, Any], extents: dict[str, int], smem: int
) -> dict[str, int] | None:
    """As `choose_warps`, for tiles of 8 bits; what leaves has 16, and memory of its own."""

    def sizes(ranks: list[str]) -> int:
        return sum(max(64, 1 << (extents[r] - 1).bit_length()) for r in ranks)

    resident, rings, sums = sizes(facts["resident"]), sizes(facts["rings"]), sizes(facts["sums"])
    leaving = sizes([r for r, _ in facts["stores"]])
    waiting = len(facts["sums"]) / (2 if facts["order"] == "carried" else 4)
    for block, stages in ((128, 4), (128, 3), (128, 2), (64, 3), (64, 2), (32, 2)):
        shared = 128 * (resident + 2 * leaving) + stages * block * (rings + facts["columns"])
        held = (sums + block * (facts["pairs"] + waiting)) / 2
        if shared + 1024 <= smem and held <= 195:
            return {
                f"BLOCK_{facts['tile']}": 128,
                f"BLOCK_{facts['stream']}": block,
                "GROUPS": 2,
                "STAGES": stages,
                "APART": 1,
                "REGISTERS": 240,
                **({"COPIED": 0} if facts["also"] else {}),
                # As measured (benchmarks/results/eight-h200.json); later operands were not.
                **({"HELD": 0} if facts["order"] == "carried" else {}),
                "num_warps": 4,
                "maxnreg": 168,
            }
    return None


def worth_warps(
    facts: dict[str, Any], extents: dict[str, int], block: int, processors: int
) -> bool:
    """Whether a kernel whose warps specialise was measured faster than the portable one for such a call.

    On an H200 (benchmarks/results/hopper-rule-h200.json, hopper-passes-h200.json), at the head dims that are among the
    kernel's facts, along as many keys as stand there. What was not measured is portable.
    """
    full = [r for k in ("resident", "rings", "sums") for r in facts[k]]
    programs = -(-extents[facts["tile_rank"]] // block)
    for r in facts["grid"]:
        programs *= extents[r]
    dims = {extents[r] for r in full}
    least = facts["worth"].get(max(dims), 1 << 62) if len(dims) == 1 else 1 << 62
    return bool(extents[facts["stream_rank"]] >= least and programs >= 3 * processors)
