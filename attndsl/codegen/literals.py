"""Plain data as Python text, in the shape that a formatter would leave alone."""

from __future__ import annotations


def literal(value: object, indent: int = 0, room: int = 100) -> str:
    """Dicts and lists with one entry to a line; tuples on one line where they fit in `room` columns."""
    pad = "    " * (indent + 1)
    match value:
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case dict() if value:
            rows = []
            for k, v in value.items():
                key = f"{pad}{literal(k)}: "
                rows.append(f"{key}{literal(v, indent + 1, room - len(key) - 1)},")
            return "{\n" + "\n".join(rows) + "\n" + "    " * indent + "}"
        case list() if value:
            rows = [f"{pad}{literal(v, indent + 1, room - len(pad) - 1)}," for v in value]
            return "[\n" + "\n".join(rows) + "\n" + "    " * indent + "]"
        case tuple():
            inner = [literal(v, indent + 1) for v in value]
            line = f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
            if len(line) <= room and "\n" not in line:
                return line
            return "(\n" + "\n".join(f"{pad}{i}," for i in inner) + "\n" + "    " * indent + ")"
        case _:
            return repr(value)
