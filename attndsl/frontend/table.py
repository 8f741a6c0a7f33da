"""The LALR parser, from a table built ahead of time.

    python -m attndsl.frontend.table            # rebuild attn_table.bin
    python -m attndsl.frontend.table --check    # exit 1 when it is stale

Building the table takes some hundred milliseconds, loading it about ten. The shipped table names the grammar and the
Lark version it was made from; when either differs, the parser is built in memory instead, so it is never wrong.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import lark

from attndsl.resources import resource_dir

TABLE = Path(__file__).with_name("attn_table.bin")
STARTS = ["start", "expr", "subscripts", "axes"]


def grammar_text() -> str:
    return (resource_dir("grammar") / "attn.lark").read_text(encoding="utf-8")


def key(grammar: str) -> str:
    """What a table must have been made from to be used."""
    text = "\n".join([lark.__version__, *STARTS, grammar])
    return hashlib.sha256(text.encode()).hexdigest()


def build(grammar: str, *, strict: bool = False) -> lark.Lark:
    """The parser, from the grammar's text; `strict` also refuses ambiguous terminals (needs interegular)."""
    return lark.Lark(
        grammar,
        parser="lalr",
        lexer="basic",
        start=STARTS,
        propagate_positions=True,
        maybe_placeholders=True,
        strict=strict,
    )


def write(path: Path = TABLE) -> None:
    grammar = grammar_text()
    buffer = BytesIO()
    build(grammar).save(buffer)
    path.write_bytes(pickle.dumps((key(grammar), buffer.getvalue()), protocol=4))


def is_current(path: Path = TABLE) -> bool:
    return _read(path) is not None


@lru_cache(maxsize=1)
def parser() -> lark.Lark:
    """The parser that everything uses."""
    payload = _read(TABLE)
    return build(grammar_text()) if payload is None else lark.Lark.load(BytesIO(payload))


def _read(path: Path) -> bytes | None:
    """The saved parser, or None where the file is missing, damaged or stale."""
    try:
        stored: Any = pickle.loads(path.read_bytes())
        made_from, payload = stored
    except (OSError, ValueError, TypeError, EOFError, pickle.UnpicklingError):
        return None
    return payload if made_from == key(grammar_text()) else None


def main(argv: list[str]) -> int:
    if "--check" in argv:
        print(
            "current"
            if is_current()
            else f"{TABLE.name} is stale: run {sys.executable} -m {__spec__.name}"
        )
        return 0 if is_current() else 1
    write()
    print(f"wrote {TABLE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
