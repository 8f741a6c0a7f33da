"""A backward pass that computes scores once: which programs have it, and that it is the same pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl import driver
from attndsl.codegen.triton import render_module
from attndsl.schedule.added import added
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import Across, BufferKind, Plan, TileProgram
from tests.unit.codegen.running import run

EXAMPLES = Path(__file__).parents[3] / "examples"

SCRIPT = """
torch.manual_seed(0)
extents = {"b": 1, "h": 2, "i": 70, "j": 70, "e": 16, "f": 16}
wide = (1, 2, 70, 16)
inputs = {x: torch.randn(wide) for x in ("Q", "K", "V")}
if shared:  # two heads have one head of keys
    inputs |= {x: torch.randn(1, 1, 70, 16) for x in ("K", "V")}
    extents |= {"K.1": 1, "V.1": 1}
if ids:
    inputs |= dict.fromkeys(("qdoc", "kdoc"), (torch.arange(70) // 24)[None])
numbers = {"start": 0, "w": 20, "cap": 5.0, "G": 2}
kept = {**inputs, **module.forward(inputs, extents, numbers)}
for name in cotangents:
    kept[name] = torch.randn(kept[name[1:]].shape if name[1:] in kept else (1, 2, 70))
want = module.backward(kept, extents, numbers)
made = module.backward_added(kept, extents, numbers)
assert set(made) == set(want) and float(want["dQ"].abs().max()) > 0.01
for name in want:
    error = ((made[name] - want[name]).norm() / want[name].norm()).item()
    assert error < 2e-6, (name, error)
"""


def plan_of(name: str) -> tuple[driver.Program, Plan | None]:
    program = driver.load(EXAMPLES / f"{name}.attn")
    assert program.backward is not None
    return program, added(program.backward)


@pytest.mark.parametrize(
    "name", ["full", "causal", "window", "documents", "softcap", "entropy", "weights", "gqa", "mqa"]
)
def test_a_sweep_less(name: str) -> None:
    """Each range of what was the other kernel adds, and what it adds is what a sum of its own takes."""
    program, plan = plan_of(name)
    assert plan is not None
    assert program.backward is not None

    def sweeps(p: Plan) -> int:
        return sum(isinstance(s, TileProgram) and s.sweep is not None for s in p.steps)

    assert sweeps(plan) == sweeps(program.backward) - 1
    (sums,) = (b for b in plan.buffers if b.kind is BufferKind.SUM)
    (taker,) = (
        s for s in plan.steps if isinstance(s, TileProgram) and s.sweep and sums.name in s.writes
    )
    assert taker.sweep is not None
    for r in taker.sweep.ranges:
        (add,) = (s for s in r.body if isinstance(s, Across))
        assert any(add.left in used(s) for s in r.body if s is not add)
        assert taker.sweep.axis in add.bounds or not r.masked


@pytest.mark.parametrize("name", ["alibi", "linear"])
def test_where_there_is_none(name: str) -> None:
    """A bias is split at each kernel's own tile; chunks are walked."""
    assert plan_of(name)[1] is None


@pytest.mark.parametrize("name", ["causal", "documents", "entropy", "gqa"])
def test_it_is_the_same_pass(name: str, tmp_path: Path) -> None:
    """In the interpreter: at a length that is no multiple of a tile, with a mask applied to summands too (entropy)."""
    program, plan = plan_of(name)
    assert program.forward is not None
    text = render_module(name, program.forward, program.backward, "", None, adding=plan)
    assert program.gradient is not None
    given = tuple(program.gradient.cotangents.values())
    kind = f"ids, shared, cotangents = {name == 'documents'}, {name == 'gqa'}, {given!r}"
    run(tmp_path, text, f"{kind}\n{SCRIPT}")
