"""A generated module runs its kernels with the sizes that the compiler says it does."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attndsl.codegen.aot import kernel_table
from attndsl.codegen.configs import FINDERS, choice

KERNELS = Path(__file__).parents[2] / "golden" / "kernels"
SMEM = 227 * 1024


def finding(text: str) -> Any:
    """`default_config` of a module, with what it needs and nothing of torch or Triton, on a card that is not there."""
    card = SimpleNamespace(shared_memory_per_block_optin=SMEM)
    torch = SimpleNamespace(cuda=SimpleNamespace(get_device_properties=lambda _: card))
    names = {
        "demand",
        "padded",
        "choose",
        "default_config",
        *(f.__name__ for f in FINDERS.values()),
    }
    body: list[ast.stmt] = [
        s
        for s in ast.parse(text).body
        if (isinstance(s, ast.FunctionDef) and s.name in names)
        or (isinstance(s, ast.AnnAssign) and ast.unparse(s.target) == "KERNELS")
    ]
    space: dict[str, Any] = {"Any": Any, "functools": functools, "torch": torch}
    exec(compile(ast.Module(body, []), "module", "exec"), space)
    return space["default_config"]


@pytest.mark.parametrize(
    ("name", "facts"),
    [("alibi", set()), ("hedgehog", {"chunks"}), ("gated_delta", {"chunks", "follows"})],
)
def test_modules_choose_as_the_compiler_does(name: str, facts: set[str]) -> None:
    text = (KERNELS / f"{name}.py").read_text(encoding="utf-8")
    default_config = finding(text)
    table = {k: v["facts"] for k, v in kernel_table(text).items()}
    assert {f for f in FINDERS if any(f in x for x in table.values())} == facts
    for kernel, asked in table.items():
        full = dict.fromkeys(asked["pads"].values(), 64)
        for itemsize in (2, 4):
            found = default_config(kernel, tuple(full.items()), itemsize, 0)
            assert found == choice(asked, full, itemsize, SMEM), kernel


def test_what_is_added_at_every_step_counts_as_held() -> None:
    """Stick-breaking's dK: a product for each tile of columns, rounded to 64 bits; tiles of 64 by 64 spilled it."""
    text = (KERNELS / "stick_breaking.py").read_text(encoding="utf-8")
    facts = kernel_table(text)["stick_breaking_backward_dK_3"]["facts"]
    assert facts["pairs"].count(("j", "e")) == 3
    chosen = choice(facts, {"e": 128, "f": 128}, 2, SMEM)
    assert (chosen["BLOCK_I"], chosen["BLOCK_J"], chosen["num_warps"]) == (128, 32, 8)
