"""The library of helper functions: which of them a module needs, in an order in which they can be defined."""

from __future__ import annotations

import ast
from functools import cache

from attndsl.resources import resource_dir


@cache
def _library() -> dict[str, tuple[str, frozenset[str]]]:
    """Each helper's source, and the names that it uses."""
    text = (resource_dir("templates") / "triton" / "helpers.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    out: dict[str, tuple[str, frozenset[str]]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            source = "\n".join(lines[first - 1 : node.end_lineno])
            used = frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name))
            out[node.name] = (source, used - {node.name})
    return out


def sources(wanted: set[str]) -> list[str]:
    """The text of the wanted helpers and of those that they call, callees first."""
    library = _library()
    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name in done:
            return
        source, used = library[name]
        for callee in sorted(used & library.keys()):
            add(callee)
        done[name] = source

    for name in sorted(wanted):
        add(name)
    return list(done.values())


def names() -> frozenset[str]:
    """The names of all helpers, which generated names must avoid."""
    return frozenset(_library())
