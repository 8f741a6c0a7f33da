"""Identifiers of the generated code: legal in Python, unlike each other, close to the program's own names."""

from __future__ import annotations

import keyword
import re

# Names that the generated modules and kernels use for themselves.
RESERVED = frozenset(
    {
        "tl",
        "tr",
        "triton",
        "torch",
        "math",
        "os",
        "float",
        "int",
        "bool",
        "range",
        "min",
        "max",
        "abs",
    }
    | {"forward", "backward", "inputs", "extents", "params", "config", "pid", "grid", "cfg", "acc"}
    | {
        "ACC",
        "NUM_STAGES",
        "INTERPRETED",
        "PRODUCTS",
        "cuda_capability_geq",
        "KERNELS",
        "FACTS",
        "device",
        "print",
        "len",
        "sum",
    }
)


def identifier(name: str) -> str:
    """A Python identifier near `name`: `K.1` becomes `K_1`, `m'` becomes `m_`."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not text or text[0].isdigit():
        text = f"v{text}"
    return text


class Namespace:
    """Fresh names, in the order in which they are asked for, so that the same plan prints the same text."""

    def __init__(self, taken: frozenset[str] = RESERVED) -> None:
        self._taken = set(taken)

    def fresh(self, name: str) -> str:
        """`name` as an identifier, with a number behind it if it is taken."""
        base = identifier(name)
        candidate, count = base, 1
        while candidate in self._taken or keyword.iskeyword(candidate):
            count += 1
            candidate = f"{base}_{count}"
        self._taken.add(candidate)
        return candidate
