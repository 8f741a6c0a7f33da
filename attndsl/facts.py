"""What is known about a compiled program, as data: for NAME.json and for `explain --json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attndsl.codegen.aot import CompiledKernel
    from attndsl.driver import CompileOptions, Program


def compile_facts(
    program: Program, options: CompileOptions, kernels: Sequence[CompiledKernel]
) -> dict[str, Any]:
    return {}
