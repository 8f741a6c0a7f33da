"""Plain data as Python text, in the shape that a formatter would leave alone."""

from __future__ import annotations


def literal(value: object, indent: int = 0, before: int = 0) -> str:
    """Dicts and lists with one entry to a line; tuples on one line where they fit behind `before` columns."""
    pad = "    " * (indent + 1)
    end = "    " * indent
    match value:
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case dict() if value:
            keys = [f"{pad}{literal(k)}: " for k in value]
            rows = [
                f"{k}{literal(v, indent + 1, len(k))},"
                for k, v in zip(keys, value.values(), strict=True)
            ]
            return "{\n" + "\n".join(rows) + f"\n{end}}}"
        case list() if value:
            rows = [f"{pad}{literal(v, indent + 1, len(pad))}," for v in value]
            return "[\n" + "\n".join(rows) + f"\n{end}]"
        case tuple():
            inner = [literal(v, indent + 1, len(pad)) for v in value]
            line = f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
            if before + len(line) + 1 <= 100 and "\n" not in line:
                return line
            return "(\n" + "\n".join(f"{pad}{i}," for i in inner) + f"\n{end})"
        case _:
            return repr(value)
