"""Whether the products of a kernel read the tiles they are meant to, seen from its machine code.

A warp-group product gets its tiles by descriptors in uniform registers: an address in shared memory, shifted and cut
to 14 bits, plus what the next step of the inner rank adds. Nothing of it comes from a parameter of the kernel. The
assembler of CUDA 12.8, which Triton 3.6 runs, sometimes takes the register before the address is in it, and what is
there is a parameter that was read long before: every step but the first then reads elsewhere, and the result is wrong
or the access illegal. The assemblers of CUDA 12.9 and 13.0 did not, given the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Za-z0-9_.]*)\s+([^;]*);")
_UNIFORM = re.compile(r"UR(\d+)\b")
_PRODUCT = re.compile(r"(R\d+, )?gdesc\[UR(\d+)\]")


def misread(sass: str) -> list[str]:
    """The products of which a descriptor is made of a parameter, as lines of machine code.

    misread(kernel.sass)
    # ["1ab30: HGMMA.64x32x16.F32 R40, R80, gdesc[UR16].tnspB, R40"]
    """
    parameter: dict[
        int, bool
    ] = {}  # by uniform register: whether its value comes from a parameter alone
    found = []
    for address, op, rest in _instructions(sass):
        if op.startswith(("HGMMA", "QGMMA")):
            if any(parameter.get(r, False) for r in _descriptors(rest)):
                found.append(f"{address}: {op} {rest}")
            continue
        target, _, sources = rest.partition(",")
        written = _UNIFORM.fullmatch(target.strip())
        if written is None:
            continue
        first = _UNIFORM.search(sources)
        if op.startswith("ULDC"):
            comes = True
        elif op.startswith(("UIADD3", "UMOV")):  # a sum is of what its first term is of
            comes = first is not None and parameter.get(int(first[1]), False)
        else:
            comes = False
        for k in range(2 if ".64" in op else 1):
            parameter[int(written[1]) + k] = comes
    return found


def _instructions(sass: str) -> Iterator[tuple[str, str, str]]:
    for m in _LINE.finditer(sass):
        yield m[1], m[2], m[3].strip()


def _descriptors(rest: str) -> tuple[int, ...]:
    """The registers with the addresses: of the right tile alone, where the left one is in registers."""
    m = _PRODUCT.search(rest.partition(",")[2].strip())
    if m is None:
        return ()
    base = int(m[2])
    return (base + 2,) if m[1] else (base, base + 2)
