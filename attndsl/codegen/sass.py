"""What a compiled kernel looks like to the machine: instruction counts, and whether its loops touch local memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Z0-9_.]*)[^;]*;")
_PRODUCTS = frozenset({"HMMA", "HGMMA", "QGMMA", "DMMA", "IMMA"})
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
    from attndsl.codegen.toolkit import tool

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [tool("cuobjdump"), "-sass", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sass_stats(text: str) -> SassStats:
    """Counts from SASS text; loops are natural loops."""
    code: list[tuple[int, str, str]] = []
    for match in _INSTRUCTION.finditer(text):
        code.append((int(match[1], 16), match[2].split(".")[0], match[0]))
    counts = Counter(name for _, name, _ in code)
    inside = Counter(code[k][1] for k in _in_loops(code))
    return SassStats(dict(counts), dict(inside))


def _in_loops(code: list[tuple[int, str, str]]) -> set[int]:
    """The instructions inside loops, by number.

    A loop is a branch back to an instruction that every way to the branch passes, and what lies between. Waits for
    barriers stand at the end of the code and branch back too, into the middle of what they belong to. A loop around
    others counts only if it multiplies matrices itself.
    """
    where = {address: k for k, (address, _, _) in enumerate(code)}
    after: list[list[int]] = [[] for _ in code]
    for k, (_, name, line) in enumerate(code):
        target = _TARGET.search(line.split("*/", 1)[1]) if name == "BRA" else None
        goal = where.get(int(target[1], 16)) if target else None
        if goal is not None:
            after[k].append(goal)
        certain = "@" not in line and name in ("BRA", "EXIT", "RET")
        if not certain and k + 1 < len(code):
            after[k].append(k + 1)
    before: list[list[int]] = [[] for _ in code]
    for k, goals in enumerate(after):
        for goal in goals:
            before[goal].append(k)
    idom = _dominators(after, before)
    loops: dict[int, set[int]] = {}
    for k, goals in enumerate(after):
        for head in goals:
            # A branch to itself ends every kernel, and is no loop.
            if head >= k or k not in idom or not _dominates(idom, head, k):
                continue
            loop, todo = {head}, [k]
            while todo:
                x = todo.pop()
                if x not in loop:
                    loop.add(x)
                    todo += before[x]
            loops.setdefault(head, set()).update(loop)
    found: set[int] = set()
    for head, loop in loops.items():
        inner = [o for h, o in loops.items() if h != head and o < loop]
        own = loop.difference(*inner)
        if not inner or any(code[k][1] in _PRODUCTS for k in own):
            found |= loop
    return found


def _dominators(after: list[list[int]], before: list[list[int]]) -> dict[int, int]:
    """The immediate dominator of every instruction that can be reached (Cooper, Harvey and Kennedy 2001)."""
    order: list[int] = []
    seen = {0}
    stack = [(0, iter(after[0]))]
    while stack:
        x, goals = stack[-1]
        for goal in goals:
            if goal not in seen:
                seen.add(goal)
                stack.append((goal, iter(after[goal])))
                break
        else:
            order.append(x)
            stack.pop()
    rank = {x: n for n, x in enumerate(order)}
    idom = {0: 0}
    changed = True
    while changed:
        changed = False
        for x in reversed(order[:-1]):
            new: int | None = None
            for p in before[x]:
                if p not in idom:
                    continue
                q = p
                while new is not None and new != q:
                    if rank[new] < rank[q]:
                        new = idom[new]
                    else:
                        q = idom[q]
                new = q
            if new is not None and idom.get(x) != new:
                idom[x] = new
                changed = True
    return idom


def _dominates(idom: dict[int, int], a: int, b: int) -> bool:
    while b not in (a, 0):
        b = idom[b]
    return a == b
