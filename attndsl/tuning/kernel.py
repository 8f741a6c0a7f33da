"""A kernel to tune: a tile program, and what its tile sizes depend on. Neither torch nor Triton is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attndsl.schedule.tile import Plan, TileProgram


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a pass: its place in the generated module, its tile program, and what sizes depend on."""

    name: str
    launcher: str
    plan: Plan
    program: TileProgram
    facts: dict[str, Any]
    warps: dict[str, Any] | None = None
    """Of a kernel whose warps specialise: what its sizes depend on, while `facts` are the portable kernel's."""

    @property
    def dialect(self) -> str:
        """By which its configurations are told apart from those of the same tile program in another."""
        return "triton" if self.warps is None else "hopper"
