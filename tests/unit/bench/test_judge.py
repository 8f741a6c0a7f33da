"""The tuner's aims: the committed list, slices that end in time and go on, and what the figures say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.runtime.starts import with_start
from attndsl.sizes import USUAL, sizes
from attndsl.tuning.problem import pose

ROOT = Path(__file__).parents[3]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = {"common", name} & sys.modules.keys()
    made = __import__(name)
    for module in {"common", name} - before:
        monkeypatch.delitem(sys.modules, module, raising=False)
    return made


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made: ModuleType = script("judge", monkeypatch)
    return made


def test_the_list_is_the_whole_grid(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exhaustive = script("exhaustive", monkeypatch)
    (cascade,) = load_cascades(read_source(Path(judge.CAUSAL)))
    wrt = tuple(t.name for t in cascade.inputs)
    at = sizes(with_start(cascade, "int"), USUAL, {"h": 16})
    for kernel, launcher in judge.LAUNCHERS.items():
        problem = pose(cascade, launcher, at, "bf16", wrt=wrt)
        listed = exhaustive.listed(judge.LIST, kernel)
        assert len(listed) >= 200
        assert listed == exhaustive.grid(problem, kernel)
    made = {k.name for k in pose(cascade, "backward", at, "bf16", wrt=wrt).kernels}
    assert made == {k for k, way in judge.LAUNCHERS.items() if way == "backward"}


def test_what_is_known_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exhaustive = script("exhaustive", monkeypatch)
    configs = [{"BLOCK_I": n, "num_warps": 4} for n in (16, 64, 32)]
    rows = [{"config": configs[0], "ms": 1.0}, {"config": configs[2], "failed": "hung"}]
    assert exhaustive.left(configs, rows) == [configs[1]]
    assert exhaustive.left(configs, []) == [configs[1], configs[2], configs[0]]


def test_slices_go_on(judge: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[str] = []
    cut = {"list-causal"}

    def run(self: Any, out: Path, left: float) -> bool:
        ran.append(self.name)
        return self.name not in cut

    monkeypatch.setattr(judge.Slice, "run", run)
    names = [s.name for s in judge.slices()]
    assert judge.go_on(tmp_path, 10.0) == names, "there was no time for any"
    assert judge.go_on(tmp_path, 100.0) == ["search-120", "list-causal"]
    ran.clear()
    cut.clear()
    assert judge.go_on(tmp_path, 200.0) == []
    assert ran == ["search-120", "list-causal"]


def written(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text(json.dumps({"rows": rows}))


def test_aims_are_judged_by_what_there_is(judge: Any, tmp_path: Path) -> None:
    assert list(judge.judged(tmp_path)) == []
    search = {"kernel": "causal", "best_ms": 1.0, "wall_s": 29.0}
    written(tmp_path / "search-30.json", search)
    assert list(judge.judged(tmp_path)) == []
    written(tmp_path / "list-causal.json", {"ms": 0.96}, {"ms": 2.0}, {"failed": "hung"})
    assert list(judge.judged(tmp_path)) == [
        (True, "30 s, causal: 96.0% of the best of 2, 29.0 s of wall time")
    ]
    written(tmp_path / "search-120.json", search)
    written(tmp_path / "search-30.json", search | {"wall_s": 31.0})
    assert [met for met, _ in judge.judged(tmp_path)] == [False, False]
    one = {"kernel": "a", "guess_ms": 1.1, "best_ms": 1.0}
    written(tmp_path / "examples.json", one, one | {"kernel": "b", "guess_ms": 1.2})
    *_, last = judge.judged(tmp_path)
    assert last == (False, "first choice: 1 of 2 kernels within 15%; not b 1.20")
