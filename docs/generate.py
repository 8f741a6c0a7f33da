"""Write the generated pages: the error index, the grammar in language.md, the table of the examples' sweeps.

Run `python docs/generate.py` after a change of `attndsl/errors.py` or `grammar/attn.lark`, and when an
example is new or compiles to something else; a test fails until then.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attndsl import driver
from attndsl.diagnostics import DiagnosticError
from attndsl.errors import CODES
from attndsl.facts import program_facts, sweep_facts
from attndsl.frontend.reading import read_source
from attndsl.resources import resource_dir

REFERENCE = Path(__file__).parent / "reference"
EXPLANATION = Path(__file__).parent / "explanation"


def errors_page() -> str:
    """`errors.md`: every code with its title and explanation, by family."""
    lines = [
        "# Error codes",
        "",
        "Generated from `attndsl/errors.py` by `docs/generate.py`; `attndsl explain CODE` prints",
        "the same text. A message says what is wrong in its title, why here beside the carets,",
        "and how to fix it after `help:`.",
    ]
    family = ""
    for code, entry in sorted(CODES.items()):
        if code[:3] != family:
            family = code[:3]
            lines += ["", f"## {family}xx: {FAMILIES[family]}"]
        lines += ["", f"### {code}: {entry.title}", "", entry.explanation.strip()]
    return "\n".join(lines) + "\n"


FAMILIES = {
    "A01": "syntax",
    "A02": "ranks, types and domains",
    "A03": "algebra",
    "A04": "no legal schedule",
    "A05": "the call, and the target",
}


def with_grammar(page: str) -> str:
    """`language.md` with the current grammar between its markers."""
    grammar = (resource_dir("grammar") / "attn.lark").read_text(encoding="utf-8").strip()
    block = f"<!-- generated: grammar -->\n```text\n{grammar}\n```\n<!-- end -->"
    new, count = re.subn(
        r"<!-- generated: grammar -->.*?<!-- end -->", lambda _: block, page, flags=re.DOTALL
    )
    assert count == 1, "language.md has lost the markers of its grammar"
    return new


SWEEPS = """\
# The sweeps of the examples

Generated from `examples/` by `docs/generate.py`. A *sweep* is a traversal of all points of a sequence rank, counted as
[cascades and sweeps](cascades-and-sweeps.md) tells: as the program is written, and after fusion. *State* is what the
kernels carry through their sweeps; a value is merged with that of another part of the sequence by sum, where nothing
else is said. The last column says how sums run along with what they read, or the fact that forces another sweep: what
`attndsl explain` prints.

| program | as written | after fusion | state | why |
|---|---|---|---|---|
"""


def sweeps_page() -> str:
    """`sweeps.md`: a row for each example."""
    examples = sorted((Path(__file__).parents[1] / "examples").glob("*.attn"))
    return SWEEPS + "".join(f"{_row(path)}\n" for path in examples)


def _row(path: Path) -> str:
    source = read_source(path)
    program = driver.lower(source, driver.parse(source), None)
    sweeps = sweep_facts(program)
    try:
        kernels = program_facts(driver.schedule(program))["forward"]["kernels"]
        state = "; ".join(x for x in map(_state, kernels) if x) or "none"
    except DiagnosticError as refused:
        state = f"no schedule ({refused.codes[-1]})"
    why = "; ".join(sweeps["needed_before"] or _together(sweeps["runs_along"]))
    if not why:
        why = "no sum reads another" if sweeps["after_fusion"] else "nothing is reduced"
    counts = [str(len(sweeps[x])) for x in ("as_written", "after_fusion")]
    cells = [f"`{path.stem}`", *counts, state, why.replace("|", "\\|")]
    return f"| {' | '.join(cells)} |"


def _together(facts: list[str]) -> list[str]:
    """`Z` and `O` run along with `M` …, in one clause where both do in the same way."""
    names: dict[str, list[str]] = {}
    for fact in facts:
        name, _, how = fact.partition(" runs along with ")
        names.setdefault(how, []).append(name)
    return [
        f"{' and '.join(x)} {'run' if len(x) > 1 else 'runs'} along with {how}"
        for how, x in names.items()
    ]


def _state(kernel: dict[str, Any]) -> str:
    values = []
    for c in kernel["carries"]:
        name, way = c["value"].partition("[")[0], c["merge"].partition("(")[0]
        values.append(f"{name} ({way})" if way in ("max", "min") else name)
    return ", ".join(values)


def main() -> None:
    """Write all pages."""
    (EXPLANATION / "sweeps.md").write_text(sweeps_page(), encoding="utf-8")
    language = REFERENCE / "language.md"
    (REFERENCE / "errors.md").write_text(errors_page(), encoding="utf-8")
    language.write_text(with_grammar(language.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
