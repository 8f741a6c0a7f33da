"""Programs that were planned before: what is found again, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import attndsl
from attndsl.runtime import engine, plans

FULL = """
attention full(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


@pytest.fixture(autouse=True)
def _folder(_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", str(tmp_path))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that were planned, and not recalled."""
    out: list[str] = []
    real = engine.plan_passes

    def plan(cascade, wrt, **more):  # type: ignore[no-untyped-def]
        out.append(cascade.name)
        return real(cascade, wrt, **more)

    monkeypatch.setattr(engine, "plan_passes", plan)
    return out


def run(text: str = FULL, backward: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 2, 8, 16, generator=generator) for _ in range(3)]
    # The default planner is bound when a class is made; a test's stands in for it here.
    op = attndsl.compile(text)
    op._engine.planner = engine.plan_passes
    if not backward:
        return [op(*given)]
    given = [x.requires_grad_() for x in given]
    return list(torch.autograd.grad(op(*given).sum(), given))


@pytest.mark.parametrize("backward", [False, True])
def test_a_second_operator_need_not_plan(planned: list[str], backward: bool) -> None:
    first = run(backward=backward)
    second = run(backward=backward)
    assert planned == ["full"]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_another_program_is_planned(planned: list[str]) -> None:
    """So is one that stands elsewhere in its file: generated code names lines."""
    run()
    run(FULL.replace("/ sqrt(|e|)", "/ |e|"))
    run("\n\n" + FULL)
    assert len(planned) == 3


def test_another_compiler_plans_anew(planned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr(plans, "compiler", lambda: "changed since")
    run()
    assert len(planned) == 2


def test_a_file_that_was_cut_short_is_planned_anew(planned: list[str], tmp_path: Path) -> None:
    first = run()
    for path in (tmp_path / "plans").glob("*.plan"):
        path.write_bytes(path.read_bytes()[:-100])
    assert torch.equal(run()[0], first[0])
    run()
    assert len(planned) == 2


def test_a_folder_that_cannot_be_written_is_no_trouble(planned: list[str], tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file where the folder would be")
    run()
    run()
    assert len(planned) == 2


def test_the_compiler_is_named_by_all_of_its_files() -> None:
    said = plans.compiler()
    for name in ("engine.py", "split.py", "module.py.jinja"):
        assert f"\n{name} " in said
