"""Write the figures of the pages anew from the files of `benchmarks/results`: `python docs/figures.py`.

Between `<!-- figures: training training-h100.json -->` and `<!-- end -->` stands what the function of this name makes
of these files; so does each picture of `PICTURES`. A test fails where a page or a picture says anything else. With a
new measurement, put its file in place of the old one and run this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHIPPED = ROOT / "attndsl" / "tuning" / "defaults.jsonl"
EXPLANATION = ROOT / "docs" / "explanation"
PAGES = (ROOT / "README.md", EXPLANATION / "measurements.md", EXPLANATION / "hopper.md")
IMAGES = ROOT / "docs" / "images"
PICTURES = {
    IMAGES / "training.svg": ("bars", "training-h200.json"),
    IMAGES / "peers.svg": ("rates", "peers-h200.json"),
}
BLOCK = re.compile(r"<!-- figures: (\w+) ([^>]*?) -->\n.*?<!-- end -->", re.DOTALL)

File: TypeAlias = dict[str, Any]


def filled(page: str) -> str:
    """A page with each of its blocks made anew."""

    def made(match: re.Match[str]) -> str:
        files = [json.loads((RESULTS / n).read_text(encoding="utf-8")) for n in match[2].split()]
        return f"<!-- figures: {match[1]} {match[2]} -->\n{KINDS[match[1]](*files)}\n<!-- end -->"

    return BLOCK.sub(made, page)


def picture(path: Path) -> str:
    """The text of a picture."""
    kind, name = PICTURES[path]
    return KINDS[kind](json.loads((RESULTS / name).read_text(encoding="utf-8")))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "|" + "|".join(f" {c} " if c else " " for c in cells) + "|"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def said(row: File, key: str, form: str = ".0f") -> str:
    """A figure of a row; nothing where it has none."""
    value = row.get(key)
    return "" if value is None else format(value, form)


def card(file: File) -> str:
    """The machine of a file in a sentence."""
    m = file["machine"]
    return f"{m['card']}, driver {m['driver']}, torch {m['torch']}, Triton {m['triton']}"


def training(file: File) -> str:
    """Rates of both passes beside FlexAttention's."""
    head = ["program", "forward", "Flex", "ratio", "backward", "Flex", "ratio", "error of O"]
    own = "backward_without_extra_gradients_tflops"
    rows = [
        [
            r["program"],
            said(r, "forward_tflops"),
            said(r, "flex_forward_tflops"),
            said(r, "forward_ratio", ".2f"),
            said(r, own if own in r else "backward_tflops"),
            said(r, "flex_backward_tflops"),
            said(r, "backward_ratio", ".2f"),
            said(r, "error", ".1e"),
            said(r, "backward_tflops"),
        ]
        for r in file["rows"]
    ]
    return f"{card(file)}:\n\n" + table([*head, "backward with all gradients"], rows)


def rate_of_copy(row: dict[str, Any]) -> str:
    """A rate, its share of the card's own copy, and of a copy of as many bytes where that was timed."""
    same = f"; {row['of_same_copy']:.0%}" if "of_same_copy" in row else ""
    return f"{row['tb_s']:.2f} ({row['of_copy']:.0%}{same})"


def decoding(file: File) -> str:
    """Rates of one query, a row for each program, a column for each cache."""
    caches = list(dict.fromkeys((r["B"], r["keys"]) for r in file["rows"]))
    found = {(r["program"], r["B"], r["keys"]): r for r in file["rows"]}
    rows = []
    for program in dict.fromkeys(r["program"] for r in file["rows"]):
        mine = [found.get((program, *c)) for c in caches]
        rows.append([program, *("" if r is None else rate_of_copy(r) for r in mine)])
    head = ["program", *(f"B{b}, {n} keys" for b, n in caches)]
    copied = f"The card's own copy: {file['copy_tb_s']:.2f} TB/s read and written ({card(file)})."
    return f"{copied}\n\n{table(head, rows)}"


def dispatch(file: File) -> str:
    """Host times beside an empty operator's."""
    ways = {"": "no gradients", "_graded": "with gradients", "_both": "call and backward pass"}
    rows = [
        [
            f"{r['program']}, {name}",
            said(r, f"empty{way}_us", ".1f"),
            said(r, f"ours{way}_us", ".1f"),
            format(r[f"ours{way}_us"] - r[f"empty{way}_us"], ".1f"),
        ]
        for r in file["rows"]
        for way, name in ways.items()
    ]
    return f"{card(file)}:\n\n" + table(["", "empty operator", "call", "added"], rows)


def starting(file: File) -> str:
    """First calls of a process, in seconds."""
    parts = ("triton_s", "load_s", "call_s", "again_s")
    rows = [
        [f"{r['pass']}: {r['what']}", *(said(r, p, ".3f") for p in parts)] for r in file["rows"]
    ]
    head = ["", "Triton's own start", "load", "first call", "second call"]
    return f"{card(file)}:\n\n" + table(head, rows)


def peers(file: File) -> str:
    """A program beside its peers: their time over ours, then milliseconds; those who cannot are in a sentence."""
    order = list(dict.fromkeys(r["program"] for r in file["rows"]))
    known = sorted(
        (r for r in file["rows"] if "forward_ms" in r),
        key=lambda r: (order.index(r["program"]), r.get("length", 0)),
    )
    rows = [
        [
            r["program"] + (f", {r['length']}" if "length" in r else ""),
            NAMES.get(r["who"], r["who"]),
            said(r, "ratio", ".2f"),
            said(r, "backward_ratio", ".2f"),
            said(r, "forward_ms", ".3f"),
            said(r, "backward_ms", ".3f"),
            r.get("note", "") or said(r, "error", ".1e"),
        ]
        for r in known
    ]
    head = ["program", "", "forward", "backward", "ms", "backward, ms", "error of O"]
    why: dict[tuple[str, str], list[str]] = {}
    for r in file["rows"]:
        if "forward_ms" not in r:
            named = why.setdefault((NAMES.get(r["who"], r["who"]), r["note"]), [])
            named += [r["program"]] if r["program"] not in named else []
    missing = [f"{who} ({', '.join(programs)}): {note}" for (who, note), programs in why.items()]
    said_ = "\n\nWithout figures: " + "; ".join(missing) + "." if missing else ""
    return f"{card(file)}; ratios are a peer's time over ours:\n\n{table(head, rows)}{said_}"


def linear(file: File) -> str:
    """Linear programs: both passes, the kernels of the forward one, and the peer's where it ran."""
    head = ["program", "forward", "of the floor", "backward", "kernels forward"]
    peers = [k for k in ("fla_forward_ms", "fla_backward_ms", "fla_note") if _any(file, k)]
    rows = [
        [
            r["program"],
            said(r, "forward_ms", ".2f"),
            said(r, "times_floor", ".1f"),
            said(r, "backward_ms", ".2f"),
            ", ".join(
                f"{n} {ms:.3f}"
                for n, ms in r.get("kernels_ms", {}).items()
                if not n.startswith("backward") and "_backward_" not in n
            ),
            *(said(r, k, "" if k == "fla_note" else ".2f") for k in peers),
        ]
        for r in file["rows"]
    ]
    named = {"fla_forward_ms": "fla", "fla_backward_ms": "fla, backward", "fla_note": "fla"}
    floor = f"{card(file)}; milliseconds, the floor {file['floor_ms']:.3f}:"
    return f"{floor}\n\n" + table([*head, *(named[k] for k in peers)], rows)


def linear_since(file: File) -> str:
    """Linear programs then, and the sums of their kernels later; the peer's forward pass of another run."""
    later, elsewhere = file["later"], file["later"]["h200"]
    now = {r["program"]: r for r in [*later["rows"], *elsewhere]}
    before = {r["program"]: r for r in file["rows"]}
    peer = later["peer_forward_ms"]
    rows = []
    for name in dict.fromkeys([*before, *now, *peer]):
        then, since = before.get(name, {}), now.get(name, {})
        forward = since.get("forward_ms", then.get("forward_ms"))
        here = name not in {r["program"] for r in elsewhere}
        rows.append(
            [
                name,
                said(then, "forward_ms", ".2f"),
                said(since, "forward_ms", ".2f"),
                f"{forward / file['floor_ms']:.1f}" if forward and here else "",
                said(peer, name, ".2f"),
                said(then, "backward_ms", ".1f"),
                said(since, "backward_ms", ".1f"),
            ]
        )
    head = ["program", "forward, before", "now", "of the floor", "peer", "backward, before", "now"]
    floor = f"{card(file)}; milliseconds, the floor {file['floor_ms']:.3f}:"
    return f"{floor}\n\n" + table(head, rows)


def pieces(file: File) -> str:
    """Walks in pieces beside whole ones, in one run."""
    found: dict[tuple[Any, ...], dict[str, File]] = {}
    for r in file["rows"]:
        if "forward_ms" in r:
            found.setdefault((r["program"], r["H"], r["N"]), {})[r["walks"]] = r
    rows = []
    for (name, heads, length), both in found.items():
        if not {"cut", "whole"} <= both.keys():
            continue
        cut, whole = both["cut"], both["whole"]
        times = [
            f"{whole[k]:.3f} → {cut[k]:.3f} ({whole[k] / cut[k]:.1f})"
            if k in cut and k in whole
            else ""
            for k in ("forward_ms", "backward_ms")
        ]
        rows.append([name, str(heads), str(length), str(cut["pieces"]), *times])
    head = ["program", "heads", "positions", "pieces", "forward, whole → cut", "backward"]
    return f"{card(file)}; milliseconds, and how many times faster:\n\n" + table(head, rows)


def lengths(file: File) -> str:
    """Time for a token at each length, as calls take it."""
    ours = [r for r in file["rows"] if r["walks"] == "cut" and r["H"] > 1]
    found: dict[tuple[str, int], dict[int, File]] = {}
    for r in ours:
        found.setdefault((r["program"], r["H"]), {})[r["N"]] = r
    columns = sorted({r["N"] for r in ours if r["N"] >= 4096})
    rows = []
    for (name, heads), at in sorted(found.items(), key=lambda x: (-x[0][1], x[0][0])):
        if len(at.keys() & {*columns}) < 3:
            continue
        cells = [
            " / ".join(
                said(at.get(n, {}), k, ".1f")
                for k in ("forward_ns_per_token", "backward_ns_per_token")
            ).removesuffix(" / ")
            for n in columns
        ]
        rows.append([f"{name}, {heads} heads", *cells])
    head = ["program", *(f"{n // 1024} k" for n in columns)]
    return f"{card(file)}; nanoseconds a token, forward / backward:\n\n" + table(head, rows)


def operators(theirs: File, file: File) -> str:
    """flash-linear-attention's operators beside ours, in one run: times, and memory beyond inputs and outputs."""
    ours = {r["program"]: r for r in file["rows"]}
    rows = []
    for r in theirs["rows"]:
        mine = ours.get(OPERATORS.get(r["operator"], ""), {})
        cells = []
        for k in ("forward_ms", "backward_ms"):
            cells.append(f"{said(r, k, '.2f')} / {said(mine, k, '.2f')}" if k in r else "")
            cells.append(f"{r[k] / mine[k]:.2f}" if k in r and k in mine else "")
        for k in ("peak_mb", "peak_with_backward_mb"):
            cells.append(f"{said(r, k)} / {said(mine, k)}" if k in r else "")
        rows.append([r["operator"], OPERATORS.get(r["operator"], ""), *cells])
    head = ["operator", "program", "forward", "ratio", "backward", "ratio", "MB", "MB, both passes"]
    return f"{card(file)}, fla {theirs['fla']}; milliseconds, theirs / ours:\n\n" + table(
        head, rows
    )


# Operators of fla, and the program that computes the same.
OPERATORS = {
    "retention": "retnet",
    "lightning": "lightning",
    "linear_plain": "linear_identity",
    "linear_elu": "linear",
    "simple_gla": "simple_gla",
    "simple_gla_fused": "simple_gla",
    "gla": "gla",
    "delta_rule": "deltanet",
    "gated_delta": "gated_delta",
}


def family(file: File) -> str:
    """Normalizers: both passes, and what stands beside them."""
    rows = []
    for r in file["rows"]:
        if "forward_ms" not in r:
            continue
        beside = [
            f"{what} {r[f'{who}_forward_ms']:.2f} and {r[f'{who}_backward_ms']:.2f}"
            for who, what in (
                ("two", "two calls and a subtraction"),
                ("flex", "two of FlexAttention"),
                ("softmax", "softmax"),
            )
            if f"{who}_backward_ms" in r
        ]
        name = ", ".join(x for x in (r["program"], r.get("dtype", "")) if x)
        times = [_three(r.get("forward_ms")), _three(r.get("backward_ms"))]
        rows.append([name, *times, "; ".join(beside)])
    return f"{card(file)}; milliseconds:\n\n" + table(
        ["", "forward", "backward", "beside it"], rows
    )


def normalizers(file: File) -> str:
    """Programs over softmax with the same mask and shape, beside the bounds of both; the kernels backward."""
    rows = []
    for r in file["rows"]:
        if r["part"] != "times":
            continue
        cells = [
            f"{_three(r[f'{way}_ms'])} | {r[f'{way}_of_softmax']:.2f} ({r[f'{way}_bound_of_softmax']:.2f})"
            for way in ("forward", "backward")
        ]
        parts = ", ".join(
            f"{n.partition('_backward_')[2]} {ms:.2f}"
            for n, ms in r["kernels_ms"].items()
            if "_backward_" in n
        )
        small = "" if r["N"] == 4096 else f", {r['N']} positions"
        since = ", kernels changed since" if r.get("changed_since") else ""
        rows.append(
            [r["program"] + small + since, r["beside"], *" | ".join(cells).split(" | "), parts]
        )
    head = [
        "",
        "beside",
        "forward",
        "of it (bound)",
        "backward",
        "of it (bound)",
        "kernels backward",
    ]
    return f"{card(file)}; milliseconds:\n\n" + table(head, rows)


def forms(file: File) -> str:
    """Kernels at head dim 128: portable, and with warps that specialise in the sizes that they choose themselves."""
    return f"{card(file)}; milliseconds:\n\n" + _forms(file, 128)


def rule(file: File) -> str:
    """The same at each head dim."""
    dims = sorted({r["D"] for r in file["rows"]}, key=lambda d: (d > 128, -d if d <= 128 else d))
    parts = [f"Head dim {d}:\n\n{_forms(file, d)}" for d in dims]
    return f"{card(file)}; milliseconds.\n\n" + "\n\n".join(parts)


def _forms(file: File, dim: int) -> str:
    here = [r for r in file["rows"] if r.get("D") == dim]
    found = [r for r in here if r["form"] in ("portable", "own")]
    peers = {r["program"]: r for r in here if r["form"] == "cudnn"}
    rows = []
    for program in dict.fromkeys(r["program"] for r in found):
        mine = [r for r in found if r["program"] == program and r["kernel"] != "backward"]
        parts: dict[str, dict[str, File]] = {_kind(r["kernel"]): {} for r in mine}
        for r in mine:
            parts[_kind(r["kernel"])][r["form"]] = r
        special = {k: "own" in x and x["own"]["special"] for k, x in parts.items()}
        if not any(special.values()):
            continue
        cells = [_pair(parts.get(k, {}), special.get(k, False)) for k in KERNELS]
        rates = [f"{x['tflops']:.0f}" for x in parts["forward"].values()]
        cudnn = f" (cuDNN {peers[program]['tflops']:.0f})" if program in peers else ""
        rows.append([program, *cells, " → ".join(rates) + cudnn])
    head = ["program", "forward", "dQ", "dK and dV", "forward, TFLOP/s"]
    return table(head, rows)


def passes(file: File) -> str:
    """Whole passes beside cuDNN's and FlashAttention-4's, in turns."""
    found: dict[tuple[Any, ...], dict[tuple[str, str], File]] = {}
    for r in file["rows"]:
        if "pass" in r:
            at = (r["program"], r["D"], r["B"], r["H"], r["N"])
            found.setdefault(at, {})[r["pass"], r["form"]] = r
    wanted = [("forward", f) for f in ("auto", "cudnn", "fa4")]
    for form in ("auto", "fa4, deterministic", "auto, deterministic=False", "fa4", "cudnn"):
        wanted.append(("backward", form))
    rows = [
        [f"{p}, D{d}, B{b} H{h} N{n}", *(f"{r[w]['ms']:.3f}" for w in wanted)]
        for (p, d, b, h, n), r in found.items()
    ]
    head = ["", "forward", "cuDNN", "FA4"]
    head += ["backward", "FA4, deterministic", "deterministic=False", "FA4", "cuDNN"]
    return f"{card(file)}; milliseconds:\n\n" + table(head, rows)


def five(file: File) -> str:
    """Backward passes of seven and of five products, and what they consist of."""
    found: dict[tuple[str, int], dict[tuple[str, str], File]] = {}
    for r in file["rows"]:
        found.setdefault((r["program"], r["D"]), {})[r["form"], r["kernel"]] = r

    def cell(rows: dict[tuple[str, str], File], *wanted: tuple[str, str]) -> str:
        for form, ending in wanted:
            ms = [r["ms"] for (f, k), r in rows.items() if f == form and k.endswith(ending)]
            if ms:
                return f"{ms[0]:.3f}"
        return ""

    rows = []
    for (program, d), r in found.items():
        peers = [cell(r, (f, "backward")) for f in ("cudnn", "fa4")]
        forms = [
            cell(r, ("listed", "D_dQ_hopper"), ("new", "D_dQ_hopper")),
            cell(r, ("new", "backward_dK_dV_hopper")),
            cell(r, ("new", "backward")),
            cell(r, ("listed", "dV_dQ_hopper"), ("new", "dV_dQ_hopper")),
            cell(r, ("listed", "backward_added"), ("new", "backward_added")),
        ]
        rows.append([f"{program}, D{d}", *forms, *peers])
    head = ["", "dQ", "dK, dV", "whole", "five products' kernel", "whole", "cuDNN", "FA4"]
    return f"{card(file)}; milliseconds:\n\n" + table(head, rows)


def held(file: File) -> str:
    """Kernels that wait for their sums at once, and behind what they compute."""
    return _both(file, "held", {"forward": "forward", "dQ": "dQ"})


def own(file: File) -> str:
    """Backward kernels before groups went by steps of their own, and with them."""
    return _both(file, "own", {"dQ": "dQ", "dK, dV": "dK and dV"})


def _both(file: File, switch: str, kernels: dict[str, str]) -> str:
    """Times of kernels without something and with it, the shorter in bold; `kernels` by what heads their column."""
    found: dict[tuple[Any, ...], dict[tuple[str, int], float]] = {}
    for r in file["rows"]:
        at = (r["program"], r["D"], r["B"], r["H"], r["N"])
        found.setdefault(at, {})[r["kernel"], r[switch]] = r["ms"]

    def cell(before: float, after: float) -> str:
        if after < before:
            return f"{before:.3f} → **{after:.3f}**"
        return f"**{before:.3f}** → {after:.3f}"

    rows = [
        [f"{p}, D{d}, B{b} H{h} N{n}", *(cell(ms[k, 0], ms[k, 1]) for k in kernels)]
        for (p, d, b, h, n), ms in found.items()
    ]
    return f"{card(file)}; milliseconds:\n\n" + table(["", *kernels.values()], rows)


def added(file: File) -> str:
    """Kernels of five products: additions one by one, and two at a time; at head dim 64 of wider tiles too."""
    found: dict[tuple[Any, ...], list[File]] = {}
    for r in file["rows"]:
        found.setdefault((r["program"], r["D"], r["B"], r["H"], r["N"]), []).append(r)
    rows = []
    for (p, d, b, h, n), (before, after) in found.items():
        queries = f"{before['queries']} → {after['queries']}"
        queries = queries if before["queries"] != after["queries"] else str(after["queries"])
        ms = f"{before['ms']:.3f} → **{after['ms']:.3f}**"
        rows.append([f"{p}, D{d}, B{b} H{h} N{n}", queries, ms])
    return f"{card(file)}; milliseconds:\n\n" + table(
        ["", "queries", "five products' kernel"], rows
    )


def changes(file: File) -> str:
    """What each change to a step gained, and kernels before and as they are; rows of one run stand together."""
    found: dict[tuple[Any, ...], list[File]] = {}
    for r in file["rows"]:
        found.setdefault(
            (r["run"], r["program"], r["D"], r["B"], r["H"], r["N"], r["kernel"]), []
        ).append(r)
    rows = []
    for (run, p, d, b, h, n, kernel), forms in found.items():
        before = next(r["ms"] for r in forms if r["form"] == "before")
        for r in forms:
            if r is not forms[0] and "sizes" not in r:
                change = f"{100 * (r['ms'] / before - 1):+.1f} %"
                what = f"{p}, D{d}, B{b} H{h} N{n}, {kernel}"
                rows.append([what, r["form"], f"{before:.3f} → {r['ms']:.3f}", change, str(run)])
    return f"{card(file)}; milliseconds:\n\n" + table(["", "changed", "ms", "", "run"], rows)


KERNELS = ("forward", "dQ", "dK_dV")


def _kind(kernel: str) -> str:
    """What a kernel of plain attention computes."""
    if "_backward_" not in kernel:
        return "forward"
    return "dK_dV" if "dK" in kernel else "dQ"


def _pair(found: File, special: bool) -> str:
    """Milliseconds of both forms, the lesser in bold."""
    portable = found.get("portable")
    if portable is None:
        return ""
    if not special:
        return f"{portable['ms']:.3f}, portable only"
    both = [portable["ms"], found["own"]["ms"]]
    return " → ".join(f"**{x:.3f}**" if x == min(both) else f"{x:.3f}" for x in both)


def _any(file: File, key: str) -> bool:
    return any(key in r for r in file["rows"])


def _three(x: float | None) -> str:
    """Three digits."""
    return "" if x is None else f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def headline(train: File, decode: File) -> str:
    """What the README says first."""
    causal = next(r for r in train["rows"] if r["program"] == "causal")
    one = next(r for r in decode["rows"] if r["program"] == "plain" and r["B"] == 1)
    shape = " ".join(f"{x}{causal[x]}" for x in "BHND")
    cards = [f["machine"]["card"] for f in (train, decode)]
    name, other = (next((x for x in ("H100", "H200") if x in c), c) for c in cards)
    m = train["machine"]
    versions = f"torch {m['torch'].partition('+')[0]}, Triton {m['triton']}"
    return (
        f"Causal, {shape} {causal['dtype']} on an {name}: **{causal['forward_tflops']:.0f} TFLOP/s forward,"
        f" {causal['backward_without_extra_gradients_tflops']:.0f} backward**;"
        f" FlexAttention {causal['flex_forward_tflops']:.0f} and"
        f" {causal['flex_backward_tflops']:.0f} in the same run\n({versions};"
        f" `python benchmarks/training.py`, [figures](benchmarks/results/training-{name.lower()}.json)).\n"
        f"Decoding one query, 32 heads over 8, at {one['keys']} keys: {one['of_copy']:.0%} of the copy"
        f" bandwidth of an {other}."
    )


def bars(file: File) -> str:
    """A picture: rates of the forward passes, ours beside FlexAttention's."""
    rows, scale = file["rows"], 0.8
    left, step, bar = 120, 44, 16
    width, height = left + 600, 40 + step * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"'
        ' font-size="13">',
        f'<text x="{left}" y="20">TFLOP/s, forward, bf16: attndsl (dark), FlexAttention (light); '
        f"{file['machine']['card']}</text>",
    ]
    for k, r in enumerate(rows):
        top = 34 + step * k
        out.append(f'<text x="{left - 8}" y="{top + 22}" text-anchor="end">{r["program"]}</text>')
        for place, (key, colour) in enumerate(
            (("forward_tflops", "#1f4e79"), ("flex_forward_tflops", "#9dc3e6"))
        ):
            if key not in r:
                continue
            y, long = top + place * (bar + 2), round(r[key] * scale)
            out.append(f'<rect x="{left}" y="{y}" width="{long}" height="{bar}" fill="{colour}"/>')
            out.append(f'<text x="{left + long + 6}" y="{y + 13}">{r[key]:.0f}</text>')
    return "\n".join([*out, "</svg>", ""])


def searches(exhaustive: File, *found: File) -> str:
    """Searches beside the whole list of configurations of the causal forward kernel."""
    best = min(r["ms"] for r in exhaustive["rows"] if "ms" in r)
    rows = []
    for file in found:
        for r in file["rows"]:
            listed = r["kernel"] == exhaustive["kernel"]
            rows.append(
                [
                    r["kernel"],
                    f"{file['seconds']:.0f}",
                    f"{r['wall_s']:.1f}",
                    f"{r['tried']} of {r['of']}",
                    f"{r['best_ms']:.3f}",
                    f"{best / r['best_ms']:.1%}" if listed else "",
                    f"{r['default_ms'] / r['best_ms']:.2f}",
                    f"{r['guess_ms'] / r['best_ms']:.2f}",
                ]
            )
    head = ["kernel", "budget, s", "wall, s", "tried", "best, ms", "speed of the list's best"]
    head += ["what runs without, of the best", "the model's first"]
    return f"{card(found[0])}; the best of the list took {best:.3f} ms:\n\n" + table(head, rows)


def choices(*files: File) -> str:
    """How far what runs without tuning, and what the model would choose, are from the best that was measured."""
    shipped = [json.loads(x) for x in SHIPPED.read_text(encoding="utf-8").splitlines()[1:]]
    rows = []
    for file in files:
        gpu = file["machine"]["card"]
        names = [e["key"]["kernel"].rpartition("-")[0] for e in shipped if e["key"]["gpu"] == gpu]
        tried = [r for r in file["rows"] if sum(isinstance(t[1], float) for t in r["trials"]) > 1]
        for what, over in (
            ("what runs without an entry", {r["kernel"]: _over(r, "default_ms") for r in tried}),
            (
                "what runs with those that are shipped",
                {
                    r["kernel"]: 1.0 if r["kernel"] in names else _over(r, "default_ms")
                    for r in tried
                },
            ),
            ("the model's choice", {k: x for k, _, _, x in file["model"]}),
        ):
            known = {k: x for k, x in over.items() if x is not None}
            far = [f"`{k}` {x:.2f}" for k, x in known.items() if x > 1.15]
            near = f"{len(known) - len(far)} of {len(known)}"
            rows.append([gpu, what, near, ", ".join(far)])
    return table(["card", "", "kernels within 15 %", "the others"], rows)


def kinds(file: File) -> str:
    """How far choices are from the best of all kinds that were measured."""
    mine = [r for r in file["rows"] if r["tried"] > 1]
    rows = []
    for what, name in (
        ("own", "what the module runs by itself"),
        ("first", "what calls run without an entry"),
        ("guess", "what the model prefers of all"),
    ):
        over = {r["kernel"]: _over(r, f"{what}_ms") for r in mine}
        known = {k: x for k, x in over.items() if x is not None}
        far = [f"`{k}` {x:.2f}" for k, x in known.items() if x > 1.15]
        rows.append([name, f"{len(known) - len(far)} of {len(known)}", ", ".join(far)])
    programs = len({r["program"] for r in mine})
    head = ["", "kernels within 15 %", "the others"]
    return f"{card(file)}, {programs} programs, {len(mine)} kernels:\n\n" + table(head, rows)


def differ(file: File) -> str:
    """Where the model prefers other tiles than the module: how many times as fast they are; whether calls take them."""
    rows = [
        [
            f"`{r['kernel']}`",
            " ".join(map(str, r["own"])),
            " ".join(map(str, r["model"])),
            f"{r['own_ms'] / r['model_ms']:.2f}",
            "yes" if r["taken"] else "",
        ]
        for r in sorted(file["rows"], key=lambda r: r["model_ms"] / r["own_ms"])
    ]
    head = ["kernel", "the module's tiles, warps, stages", "the model's", "times as fast", "taken"]
    return f"{card(file)}:\n\n" + table(head, rows)


def forms_chosen(file: File) -> str:
    """Of kernels with two forms, how many run in the faster one, or one within 15 % of it."""
    rows = {r["kernel"]: r for r in file["rows"]}
    over: dict[str, float] = {}
    for kernel, special in rows.items():
        plain = rows.get(kernel.removesuffix("_hopper"))
        if plain is None or plain is special or "runs" not in plain:
            continue
        times = {r["runs"]: r["default_ms"] for r in (plain, special)}
        if all(times.values()) and len(times) > 1:
            over[plain["kernel"]] = times[True] / min(times.values())
    far = [f"`{k}` {x:.2f}" for k, x in over.items() if x > 1.15]
    near = f"{len(over) - len(far)} of {len(over)}"
    return f"{file['machine']['card']}: {near} kernels with two forms; not {', '.join(far)}."


def _over(row: File, key: str) -> float | None:
    return row[key] / row["best_ms"] if row.get(key) and row["best_ms"] else None


WHO = {"attndsl": "#1f4e79", "portable": "#2e86c1", "flex": "#c0792a", "sdpa": "#4d8c57"}
WHO |= {"fa4": "#a33b3b", "fla": "#7d5ba6", "eager": "#888888"}
NAMES = {"portable": "attndsl, portable kernels", "flex": "FlexAttention", "sdpa": "PyTorch's SDPA"}
NAMES |= {"fa4": "FlashAttention-4", "fla": "flash-linear-attention", "eager": "eager PyTorch"}


def rates(file: File) -> str:
    """A picture: rates of forward passes against length, of the program with most lengths, with the card's limit."""
    from attndsl.schedule.cost import GPUS

    measured = [r for r in file["rows"] if "tflops" in r]
    found: dict[str, set[int]] = {}
    for r in measured:
        found.setdefault(r["program"], set()).add(r["length"])
    program = max(found, key=lambda p: len(found[p]))
    rows = [r for r in measured if r["program"] == program]
    peak = next(g for n, g in GPUS.items() if n in file["machine"]["card"]).flops[2] * 1e-12
    lengths = sorted({r["length"] for r in rows})
    left, top, width, height = 60, 40, 480, 330
    across = {
        n: left + 30 + k * (width - 60) / max(1, len(lengths) - 1) for k, n in enumerate(lengths)
    }

    def up(rate: float) -> float:
        return top + height * (1 - rate / 1100)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 230}" height="{top + height + 50}"'
        ' font-family="sans-serif" font-size="13">',
        f'<text x="{left}" y="20">TFLOP/s against length, {program}, forward, {file["machine"]["card"]}; 16384'
        " positions, 16 heads of 128, bf16</text>",
    ]
    for rate in range(0, 1100, 200):
        y = up(rate)
        out.append(f'<path d="M{left} {y:.1f}H{left + width}" stroke="#dddddd"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{rate}</text>')
    for n, x in across.items():
        out.append(f'<text x="{x:.1f}" y="{top + height + 20}" text-anchor="middle">{n}</text>')
    y = up(peak)
    out.append(
        f'<path d="M{left} {y:.1f}H{left + width}" stroke="#888888" stroke-dasharray="6 4"/>'
    )
    out.append(f'<text x="{left + width + 8}" y="{y + 4:.1f}">roofline, {peak:.0f}</text>')
    labels: list[tuple[float, str, str]] = []
    for who, colour in WHO.items():
        mine = sorted((r for r in rows if r["who"] == who), key=lambda r: int(r["length"]))
        if not mine:
            continue
        points = [(across[r["length"]], up(r["tflops"])) for r in mine]
        wide = 3 if who == "attndsl" else 1.6
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{wide}"/>'
        )
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        labels.append((points[-1][1], f"{NAMES.get(who, who)}, {mine[-1]['tflops']:.0f}", colour))
    below = 0.0
    for y, name, colour in sorted(labels):
        below = max(y + 4, below + 16)  # names stand under each other
        out.append(f'<text x="{left + width + 8}" y="{below:.1f}" fill="{colour}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])


KINDS: dict[str, Callable[..., str]] = {
    f.__name__: f
    for f in (
        training,
        decoding,
        dispatch,
        starting,
        peers,
        linear,
        linear_since,
        pieces,
        lengths,
        operators,
        family,
        normalizers,
        forms,
        rule,
        five,
        held,
        own,
        added,
        changes,
        passes,
        headline,
        bars,
        rates,
        searches,
        choices,
        kinds,
        differ,
        forms_chosen,
    )
}


def main() -> None:
    """Write all pages and pictures."""
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    for path in PICTURES:
        path.parent.mkdir(exist_ok=True)
        path.write_text(picture(path), encoding="utf-8")


if __name__ == "__main__":
    main()
