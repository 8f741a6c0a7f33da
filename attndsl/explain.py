"""What a program becomes, to be read: `attndsl explain`.

alibi
                as written  after fusion
      sweeps    3           1
      sweep 1   M_S         M_S, Z_S, O.1
  …
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attndsl.cascade.printer import print_cascade
from attndsl.facts import program_facts, sweep_facts
from attndsl.schedule.cost import GPUS
from attndsl.words import glossary

if TYPE_CHECKING:
    from attndsl.driver import Program

LOG2E = "1.4426950408889634"
PASSES = {
    "forward": "Forward pass",
    "backward": "Backward pass",
    "few_queries": "Forward pass for few queries",
}


def explanation(program: Program, gpu: str | None = None) -> str:
    """The cascade, the sweeps, and each kernel: what it keeps, streams and carries, and what it costs.

    `gpu` names the one that bounds are for (`H100`); without, they are for all that are known.
    """
    facts = program_facts(program, gpu=gpu)
    parts = [_section("Cascade"), print_cascade(program.cascade).rstrip()]
    parts += [_section("Sweeps"), *_sweeps(facts)]
    for name, title in PASSES.items():
        if name not in facts:
            continue
        parts.append(_section(title))
        if name == "backward" and program.gradient is not None:
            parts += [print_cascade(program.gradient.backward).rstrip(), ""]
        parts.append(_pass(facts[name]))
    if "lengths" in facts:
        parts += [_section("Lengths"), *_lengths(facts["lengths"])]
    parts += _estimates(facts, gpu)
    return "\n".join([*parts, *glossary("\n".join(parts))]) + "\n"


def outline(program: Program) -> str:
    """The cascade and the sweeps of a program for which there may be no schedule."""
    parts = [_section("Cascade"), print_cascade(program.cascade).rstrip(), _section("Sweeps")]
    return "\n".join([*parts, *_sweeps({"sweeps": sweep_facts(program)})]) + "\n"


def _section(title: str) -> str:
    return (
        f"\n{title}\n{'-' * len(title)}" if title != "Cascade" else f"{title}\n{'-' * len(title)}"
    )


def _sweeps(facts: dict[str, Any]) -> list[str]:
    """A table of what each sweep makes and reads; then what runs along with what, and what does not."""
    sweeps = facts["sweeps"]
    columns = [
        (sweeps["as_written"], sweeps["reads_as_written"]),
        (sweeps["after_fusion"], sweeps["reads_after_fusion"]),
    ]
    rows = [("", "as written", "after fusion")]
    rows.append(("sweeps", str(len(columns[0][0])), str(len(columns[1][0]))))
    last = max(len(tensors) for tensors, _ in columns)
    made: list[tuple[str, str]] = []
    for n in range(last + 1):
        cells = [", ".join(tensors[n]) if n < len(tensors) else "" for tensors, _ in columns]
        if n == last or (made and (cells[0], cells[1]) != made[0]):
            first = f"sweep {n - len(made) + 1}" + (f" to {n}" if len(made) > 1 else "")
            rows.append((first, *made[0]))
            made = []
        made.append((cells[0], cells[1]))
    for tensor in dict.fromkeys(x for _, reads in columns for x in reads):
        at = [_runs(reads.get(tensor, ())) for _, reads in columns]
        rows.append((f"reads {tensor} in", at[0], at[1]))
    widths = [max(len(r[k]) for r in rows) for k in range(2)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    lines.append("")
    if "forward" in facts:
        forward = facts["forward"]["kernels"]
        streams = {k["streams"] for k in forward} - {None}
        over = f" over {', '.join(sorted(streams))}" if streams else ""
        lines.append(f"as compiled  {_count(len(forward), 'kernel')}{over}")
        lines += _again(facts["forward"].get("scores_again"))
    if sweeps["by_algebra"] < len(sweeps["after_fusion"]):
        least = _count(sweeps["by_algebra"], "sweep")
        lines.append(f"by algebra   {least} would do, at the price of digits")
    lines += [
        f"`{x['for']}` runs on its maximum `{x['tensor']}`: no output can tell"
        for x in sweeps["maxima_inserted"]
    ]
    lines += sweeps["runs_along"]
    lines += sweeps["needed_before"]
    return lines


def _again(found: dict[str, Any] | None) -> list[str]:
    """What the forward pass pays for several sweeps, and what else could be done."""
    if found is None:
        return []
    flops, kept, moved = (_si(found[k]) for k in ("flops", "kept", "moved"))
    return [
        f"scores       made in each of {found['times']} sweeps: {flops}FLOP in products more than once",
        f"             in memory they would take {kept}B, and move {moved}B",
        f"             on chip 16 rows of them have room for {found['longest']} points: not done",
    ]


def _runs(numbers: Sequence[int]) -> str:
    """`1 to 4, 7` for 1, 2, 3, 4, 7."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)


def _pass(facts: dict[str, Any]) -> str:
    parts = ["\n".join(_kernel(k)) for k in facts["kernels"]]
    tail = []
    if facts["sums_on_the_host"]:
        tail.append(
            f"summed in a fixed order by the framework: {', '.join(facts['sums_on_the_host'])}"
        )
    if facts["kept_for_backward"]:
        tail.append(f"kept for the backward pass: {', '.join(facts['kept_for_backward'])}")
    tail += [f"because {note}" for note in facts["notes"]]
    return "\n\n".join([*parts, "\n".join(tail)] if tail else parts)


def _kernel(k: dict[str, Any]) -> list[str]:
    grid = ", ".join(k["grid"])
    tiles = " and ".join(f"a tile of {a}" for a in k["keeps"])
    keeps = f"{tiles}, for each {grid}" if tiles and grid else tiles or f"one point of {grid}"
    if k["order"] == "reverse":
        keeps += "; the last tiles, which are the longest, first"
    rows = [("keeps", keeps)]
    rows += [("loops", x) for x in k["loops"]]
    rows += [("walks", x) for x in k.get("walks", ())]
    if k["streams"] is not None:
        tiles = f"tiles of {k['streams']}"
        if k["chunks"]:
            last = ", the last one first" if k["descending"] else ""
            tiles = f"chunks of {k['streams']}, one after the other{last}"
        rows.append(("streams", tiles))
        for r in k["ranges"]:
            rows.append(("", f"{r['of']} {'masked' if r['masked'] else 'whole'}"))
        rows += [("" if n else "where", line) for n, line in enumerate(k["bounds"])]
    for n, c in enumerate(k["carries"]):
        text = f"{c['value']} <- {c['update']}, from {c['starts_at'].replace('1e999', 'inf')}"
        rows.append(("" if n else "carries", text))
    factors = dict.fromkeys(c["corrected_by"] for c in k["carries"] if c["corrected_by"])
    rows += [
        ("" if n else "corrects", f"by {f.replace(LOG2E, 'log2(e)')}")
        for n, f in enumerate(factors)
    ]
    merges = [(c["value"].partition("[")[0], c["merge"]) for c in k["carries"]]
    if merges:
        ways = dict.fromkeys(how for _, how in merges)
        by = (f"{', '.join(v for v, how in merges if how == way)} by {way}" for way in ways)
        rows.append(("merges", "; ".join(by)))
    rows += [("" if n else "ends", line) for n, line in enumerate(k["ends"])]
    rows.append(("reads", ", ".join(k["reads"])))
    rows.append(("writes", ", ".join(k["writes"])))
    rows.append(("Hopper", k["hopper"]))
    if "goes_on" in k:
        near = "in rounds of their own, one near the root"
        rows.append(
            (
                "in 32 bits",
                f"from inputs rounded to 16; {k['goes_on']} goes on with all digits, {near}",
            )
        )
    if "flops" in k:
        rows += _cost(k)
    return [k["name"], *(f"  {label:<9}{text}" for label, text in rows)]


def _cost(k: dict[str, Any]) -> list[tuple[str, str]]:
    work = f"{_si(k['flops'])}FLOP in products"
    if k["exponentials"]:
        work += f", {_si(k['exponentials']).rstrip()} exponentials"
    work += f", {_si(k['bytes'])}B moved"
    if k["flops"]:
        work += f", {k['flops_per_byte']:.4g} FLOP/B"
    rows = [("costs", work)]
    if not k["flops"]:
        return rows
    if k["streams"] is not None and not k["chunks"]:
        part = k["part_of_stream_visited"]
        seen = (
            "as much of the stream as the data shows"
            if part is None
            else f"{part:.1%} of the stream"
        )
        rows.append(("visits", seen))
    rows.append(("at best", _best(k["at_best"])))
    if "rounds" in k:
        rows.append(
            ("rounds", f"{k['rounds']} at most, and counted above; it stops when every root stands")
        )
        rows.append(("a round", f"at best {_best(k['round_at_best'])}"))
    return rows


def _best(by_gpu: dict[str, Any]) -> str:
    return ", ".join(f"{g} {x['microseconds']:.4g} us ({x['bound_by']})" for g, x in by_gpu.items())


def _lengths(x: dict[str, Any]) -> list[str]:
    """The three ways to run a program that has a state, and from which lengths on each pays."""

    def work(c: dict[str, Any]) -> str:
        return f"{_si(c['flops'])}FLOP, {_si(c['bytes'])}B moved"

    rows = [("by chunks", f"of {x['chunk']}: {work(x['by_chunks'])}; both grow with the length")]
    chosen = "chunks, for every call without `start`"
    if "by_pairs" in x:
        rows.append(("by pairs", f"{work(x['by_pairs'])}; operations grow with the square"))
        least = dict(x["chunks_from"])
        operations = least.pop("operations")
        rows.append(("chunks do", f"fewer operations {_from(operations)}"))
        ways: dict[str, list[str]] = {}
        for gpu, n in least.items():
            ways.setdefault(_from(n), []).append(gpu)
        times = "; ".join(f"{way} for {', '.join(gpus)}" for way, gpus in ways.items())
        rows.append(("", f"at best no more time {times}"))
        chosen += "; pairs with it"
    rows.append(("chosen", chosen))
    if "few_heads" in x:
        rows += _few_heads(x["few_heads"], x["length"])
    if "one_token" in x:
        token = x["one_token"]
        best = ", ".join(f"{g} {t['microseconds']:.4g} us" for g, t in token["at_best"].items())
        rows.append(("one token", f"reads and writes a state of {_si(token['state_bytes'])}B"))
        rows.append(("", f"{work(token)}; at best {best}"))
    return [f"{label:<11}{text}" for label, text in rows]


def _few_heads(x: dict[str, Any], length: int) -> list[tuple[str, str]]:
    """When walks are cut into pieces that run beside each other."""
    whole = ", ".join(x["whole"])
    if "most" not in x:
        why = (
            "what a chunk makes of its state is no sum of it, times numbers, and of something else"
        )
        return [("few heads", f"no pieces of {whole}: {why}")]
    programs = _count(x["programs_for_each"], "program")
    pieces = ", ".join(f"{c} for {n}" for n, c in x["pieces"].items())
    least, most = _from(x["least_length"]), x["most"]
    rows = [
        ("few heads", f"walks in pieces beside each other {least}, up to {most} heads in all"),
        ("", f"of {programs} each, on {x['processors']} multiprocessors"),
        ("", f"pieces of {length} positions by heads: {pieces}"),
    ]
    return [*rows, ("", f"no pieces of {whole}")] if whole else rows


def _from(n: int | None) -> str:
    return "at no length" if n is None else f"from {n} positions on"


def _estimates(facts: dict[str, Any], gpu: str | None) -> list[str]:
    if "estimated_at" not in facts:
        return []
    at = facts["estimated_at"]
    numbers = {**{f"|{r}|": n for r, n in at["extents"].items()}, **at["params"]}
    listed = ", ".join(f"{k} = {v}" for k, v in numbers.items())
    lines = ["", f"Costs are for {at['dtype']} and {listed}.", "Each tensor moves once. Peaks:"]
    for name, g in GPUS.items():
        if gpu not in (None, name):
            continue
        peaks = f"{_si(g.flops[2])}FLOP/s, {_si(g.bandwidth)}B/s, {_si(g.specials).rstrip()} exponentials/s"
        lines.append(f"  {g.name}: {peaks}")
    return lines


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _si(x: float) -> str:
    """Three digits and the prefix of a unit: 558e9 -> "558 G"."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= size:
            return f"{x / size:.3g} {prefix}"
    return f"{x:.3g} "
