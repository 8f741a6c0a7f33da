"""Names in an eager kernel: identifiers of Python for the names of a program."""

from __future__ import annotations

from attndsl.codegen.names import RESERVED, Namespace

# Names that the module itself uses; nothing of the program may shadow them.
OWN = RESERVED | {
    "stored",
    "span",
    "to_fixed",
    "from_fixed",
    "fixed_scale",
    "safe_divide",
    "softplus",
    "block_size",
}
OWN |= {"Tensor", "dtypes", "pow", "dict", "slice"}


class Names:
    """Python identifiers for the names of a program, each its own: `K.1` -> `K_1`."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self.space = Namespace(OWN | taken)
        self.given: dict[tuple[str, str], str] = {}

    def of(self, kind: str, name: str, prefer: str | None = None) -> str:
        """The identifier of the thing `name` of a kind, the same at every call."""
        if (kind, name) not in self.given:
            self.given[kind, name] = self.new(name if prefer is None else prefer)
        return self.given[kind, name]

    def new(self, prefer: str) -> str:
        """An identifier that nothing else has."""
        return self.space.fresh(prefer)
