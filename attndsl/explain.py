"""What a program becomes, to be read: `attndsl explain`.

alibi
  as written   3 sweeps: M_S; Z_S; O, LSE
  as compiled  1 kernel
  …
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attndsl.cascade.printer import print_cascade
from attndsl.facts import program_facts
from attndsl.schedule.cost import GPUS

if TYPE_CHECKING:
    from attndsl.driver import Program

LOG2E = "1.4426950408889634"


def explanation(program: Program) -> str:
    """The cascade, the sweeps, and each kernel: what it keeps, streams and carries, and what it costs."""
    facts = program_facts(program)
    parts = [_section("Cascade"), print_cascade(program.cascade).rstrip()]
    parts += [_section("Sweeps"), *_sweeps(facts)]
    for name, title in (("forward", "Forward pass"), ("backward", "Backward pass")):
        if name not in facts:
            continue
        parts.append(_section(title))
        if name == "backward" and program.gradient is not None:
            parts += [print_cascade(program.gradient.backward).rstrip(), ""]
        parts.append(_pass(facts[name]))
    parts += _estimates(facts)
    return "\n".join(parts) + "\n"


def _section(title: str) -> str:
    return (
        f"\n{title}\n{'-' * len(title)}" if title != "Cascade" else f"{title}\n{'-' * len(title)}"
    )


def _sweeps(facts: dict[str, Any]) -> list[str]:
    levels = facts["sweeps"]
    forward = facts["forward"]["kernels"]
    as_written = "; then ".join(", ".join(level) for level in levels)
    streams = {k["streams"] for k in forward} - {None}
    over = f" over {', '.join(sorted(streams))}" if streams else ""
    return [
        f"as written   {_count(len(levels), 'sweep')}" + (f": {as_written}" if levels else ""),
        f"as compiled  {_count(len(forward), 'kernel')}{over}",
    ]


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
    if k["streams"] is not None:
        rows.append(("streams", f"tiles of {k['streams']}"))
        for r in k["ranges"]:
            rows.append(("", f"{r['of']} {'masked' if r['masked'] else 'whole'}"))
        rows += [("" if n else "where", line) for n, line in enumerate(k["bounds"])]
    for n, c in enumerate(k["carries"]):
        rows.append(("" if n else "carries", f"{c['value']} <- {c['update']}"))
    factors = dict.fromkeys(c["corrected_by"] for c in k["carries"] if c["corrected_by"])
    rows += [
        ("" if n else "corrects", f"by {f.replace(LOG2E, 'log2(e)')}")
        for n, f in enumerate(factors)
    ]
    rows.append(("reads", ", ".join(k["reads"])))
    rows.append(("writes", ", ".join(k["writes"])))
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
    if k["streams"] is not None:
        part = k["part_of_stream_visited"]
        seen = (
            "as much of the stream as the data shows"
            if part is None
            else f"{part:.1%} of the stream"
        )
        rows.append(("visits", seen))
    best = (f"{g} {x['microseconds']:.4g} us ({x['bound_by']})" for g, x in k["at_best"].items())
    rows.append(("at best", ", ".join(best)))
    return rows


def _estimates(facts: dict[str, Any]) -> list[str]:
    if "estimated_at" not in facts:
        return []
    at = facts["estimated_at"]
    numbers = {**{f"|{r}|": n for r, n in at["extents"].items()}, **at["params"]}
    listed = ", ".join(f"{k} = {v}" for k, v in numbers.items())
    lines = ["", f"Costs are for {at['dtype']} and {listed}.", "Each tensor moves once. Peaks:"]
    for g in GPUS.values():
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
