"""Write the generated parts of the reference: the error index, and the grammar in language.md.

Run `python docs/generate.py` after a change of `attndsl/errors.py` or `grammar/attn.lark`; a test
fails until then.
"""

from __future__ import annotations

import re
from pathlib import Path

from attndsl.errors import CODES
from attndsl.resources import resource_dir

REFERENCE = Path(__file__).parent / "reference"


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


def main() -> None:
    """Write both pages."""
    language = REFERENCE / "language.md"
    (REFERENCE / "errors.md").write_text(errors_page(), encoding="utf-8")
    language.write_text(with_grammar(language.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
