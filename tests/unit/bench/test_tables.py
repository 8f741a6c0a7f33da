"""The project's own tables: rows are written at once, a run that was cut short goes on, and a budget is kept."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attndsl.bench import record
from benchmarks import __main__ as command

ROOT = Path(__file__).parents[3]


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the scripts share; they find it beside them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import common

    monkeypatch.delitem(sys.modules, "common")
    return common


def on(monkeypatch: pytest.MonkeyPatch, common: ModuleType, card: str) -> None:
    made = {"card": card, "driver": "1", "torch": "2", "triton": "3", "python": "3.11"}
    monkeypatch.setattr(record, "machine", lambda: made)
    monkeypatch.setattr(common, "machine", lambda: made)


def rows(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["rows"])


def test_a_table_goes_on(common: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    on(monkeypatch, common, "H100")
    table = common.Table(path, floor_ms=1.0)
    table.add({"program": "causal", "ms": 1.0})
    assert rows(path) == [{"program": "causal", "ms": 1.0}]
    table.add({"program": "alibi", "failed": "no"})
    again = common.Table(path, floor_ms=1.0)
    assert again.missing(("causal", "alibi", "full"), "program") == ["alibi", "full"]
    assert again.missing(("causal",), "program", backend="auto") == ["causal"]
    again.add({"program": "alibi", "ms": 2.0})
    assert [r["program"] for r in rows(path)] == ["causal", "alibi"]
    assert json.loads(path.read_text())["floor_ms"] == 1.0


def test_rows_of_another_card_are_put_aside(
    common: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    on(monkeypatch, common, "H100")
    common.Table(path).add({"program": "causal", "ms": 1.0})
    on(monkeypatch, common, "H200")
    assert common.Table(path).missing(("causal",), "program") == ["causal"]
    assert not path.exists()
    assert rows(tmp_path / "t.before.json")[0]["ms"] == 1.0


def test_batches_are_compiled_before_they_are_measured(
    common: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    monkeypatch.setattr(common, "processors", lambda: 4)
    monkeypatch.setattr(common, "compile_beside", lambda script, names, more: events.append(names))
    for name in common.in_batches("script", ["a", "b", "c"]):
        events.append(name)
    assert events == [["a", "b"], "a", "b", ["c"], "c"]


SCRIPT = """
import json, subprocess, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.parent.mkdir(exist_ok=True, parents=True)
out.write_text(json.dumps(sys.argv[1:]))
{then}
"""


def scripts(folder: Path, **then: str) -> Path:
    for name, what in then.items():
        (folder / f"{name}.py").write_text(SCRIPT.format(then=what))
    return folder


def test_a_budget_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "GRACE", 1.0)
    monkeypatch.setattr(command, "capability", lambda: 90)
    beside = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    folder = scripts(
        tmp_path, one="", two="sys.exit(3)", hopper=f"{beside}; time.sleep(600)", four=""
    )
    out = tmp_path / "out"
    begin = time.monotonic()
    assert command.run(["one", "two", "hopper", "four"], out, 6.0, folder) == 1
    assert time.monotonic() - begin < 20
    said = capsys.readouterr().err
    assert said == "failed: two, hopper (out of time), four (not begun)\n"
    assert sorted(p.stem for p in out.iterdir()) == ["hopper", "one", "two"]
    assert json.loads((out / "hopper.json").read_text())[2:] == list(command.TABLES["hopper"])


def test_without_a_budget_all_run(tmp_path: Path) -> None:
    assert command.run(["one"], tmp_path / "out", scripts=scripts(tmp_path, one="")) == 0


def test_a_table_of_another_card_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "capability", lambda: 80)
    folder = scripts(tmp_path, one="", hopper="sys.exit(1)")
    assert command.run(["hopper", "one"], tmp_path / "out", scripts=folder) == 0
    assert capsys.readouterr().err == "hopper: not of this card (sm_80)\n"
    assert [p.stem for p in (tmp_path / "out").iterdir()] == ["one"]


def test_every_table_is_a_script_that_goes_on() -> None:
    for table in command.TABLES:
        assert "Table(args.out" in (ROOT / "benchmarks" / f"{table}.py").read_text(), table


def test_what_became_slower_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    row = {"job": "causal", "program": "causal", "forward_ms": 1.0, "fla_note": "absent"}
    old.write_text(json.dumps({"rows": [row]}))
    new.write_text(json.dumps({"rows": [row | {"forward_ms": 1.2, "job": "other"}]}))
    assert command.main(["compare", str(old), str(old)]) == 0
    assert command.main(["compare", str(old), str(new)]) == 1
    assert "causal: forward_ms 1 -> 1.2 (1.20 times slower)" in capsys.readouterr().out


@pytest.mark.parametrize("figure", ["call_s", "added_us", "ms", "forward_ns_per_token"])
def test_every_kind_of_time_is_compared(figure: str) -> None:
    old, new = ({"program": "causal", figure: x, "registers": n} for x, n in ((1.0, 96), (2.0, 97)))
    (said,) = record.slower({"rows": [old]}, {"rows": [new]})
    assert said.endswith("(2.00 times slower)")
    assert not record.slower({"rows": [new]}, {"rows": [old]})
    rate = ({"program": "causal", "tb_s": x} for x in (1.0, 2.0))
    assert not record.slower(*({"rows": [r]} for r in rate))


def test_another_best_configuration_is_the_same_row(tmp_path: Path) -> None:
    row = {"kernel": "causal", "best": {"BLOCK_I": 64}, "tried": 7, "of": 100, "first_ms": 1.0}
    other = {"kernel": "causal", "best": {"BLOCK_I": 128}, "tried": 8, "of": 90, "first_ms": 1.5}
    found = record.slower({"rows": [row]}, {"rows": [other]})
    assert found == ["causal: first_ms 1 -> 1.5 (1.50 times slower)"]
