"""What a compiled kernel looks like to the machine: instruction counts, and whether its loops touch local memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);")
_TARGET = re.compile(r"0x([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class SassStats:
    """Counts of SASS instructions by opcode without suffixes (`HGMMA`), in the whole kernel and in its loops."""

    counts: dict[str, int]
    in_loops: dict[str, int]

    @property
    def spills_in_loops(self) -> int:
        """Loads and stores of local memory inside loops."""
        return self.in_loops.get("LDL", 0) + self.in_loops.get("STL", 0)


def disassemble(cubin: bytes) -> str:
    """The SASS text, by the disassembler that Triton ships. Needs no GPU."""
    from attndsl.codegen.aot_worker import tool

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [tool("cuobjdump"), "-sass", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sass_stats(text: str) -> SassStats:
    """Counts from SASS text. A loop is what lies between a backward branch and its target."""
    code: list[tuple[int, str, str]] = []
    for match in _INSTRUCTION.finditer(text):
        code.append((int(match[1], 16), match[2].split(".")[0], match[3]))
    loops: list[tuple[int, int]] = []
    for address, name, rest in code:
        if name == "BRA" and (target := _TARGET.search(rest)):
            goal = int(target[1], 16)
            # A kernel ends with a branch to itself, which is no loop.
            if goal < address:
                loops.append((goal, address))
    counts = Counter(name for _, name, _ in code)
    inside = Counter(name for a, name, _ in code if any(lo <= a <= hi for lo, hi in loops))
    return SassStats(dict(counts), dict(inside))
