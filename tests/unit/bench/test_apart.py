"""A comparison with a process for each: rows as they are known, and peers that fail, hang, die or are not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from attndsl.bench import command
from attndsl.bench.apart import Job, apart, serve
from attndsl.bench.run import Row
from attndsl.cli import FAILED, main
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source

ROOT = Path(__file__).parents[3]
CAUSAL = ROOT / "examples" / "causal.attn"
SMALL = {"b": 1, "h": 2, "i": 48, "j": 48, "e": 16, "f": 16}


def timer(call: Any) -> float:
    call()
    return 2.0


def job(*shapes: dict[str, int]) -> Job:
    cascade = load_cascades(read_source(CAUSAL))[0]
    return Job(cascade, shapes or (SMALL,), "fp32", "cpu", timer=timer)


def acted(pipe: Connection, job: Job, who: str) -> None:
    """What processes do, without kernels: by name, one fails, one is absent, two hang and two die."""
    for k, shape in enumerate(job.shapes):
        row = Row("causal", who, dict(shape), job.dtype)
        if who == "absent":
            pipe.send(("row", k, Row(*_about(row), note="absent: not installed")))
            continue
        if who == "sleeps":
            time.sleep(3600)
        if who == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        pipe.send(("ready", k, row))
        pipe.recv()
        part = Row(*_about(row), forward_ms=1.0 if who == "attndsl" else 3.0)
        if who == "sleeps while measured":
            pipe.send(("part", k, part))
            time.sleep(3600)
        if who == "leaves":
            os._exit(7)
        if who == "fails":
            part = Row(*_about(row), note="failed: RuntimeError: no")
        pipe.send(("row", k, part))


def _about(row: Row) -> tuple[str, str, dict[str, int], str]:
    return row.program, row.who, row.shape, row.dtype


def test_it_gives_what_one_process_gives() -> None:
    rows = {r.who: r for r in apart(job(), ("sdpa", "fa4", "eager"), serve=serve)}
    assert next(iter(rows)) == "attndsl"
    for who in ("sdpa", "eager"):
        assert rows[who].error is not None, rows[who].note
        assert rows[who].error < 1e-5
        assert rows[who].ratio == rows[who].backward_ratio == 1.0
    assert rows["fa4"].note == "absent: flash_attn.cute is not installed"
    assert list(rows)[-1] == "eager", "its dense form takes memory"


REASONS = {
    "absent": "absent: not installed",
    "fails": "failed: RuntimeError: no",
    "dies": "failed: its process died with signal 11",
    "leaves": "failed: its process died with code 7",
    "sleeps": "failed: was not ready within 3 s",
}


def test_who_has_no_figures_says_why() -> None:
    sizes = (SMALL, SMALL | {"i": 96, "j": 96})
    others = ("other", "sleeps while measured", *REASONS)
    rows = list(apart(job(*sizes), others, limit=3.0, serve=acted))
    assert (rows[0].who, rows[0].forward_ms) == ("attndsl", 1.0)
    of = {w: [r for r in rows if r.who == w] for w in others}
    assert [(r.ratio, r.shape["i"], r.note) for r in of["other"]] == [(3.0, 48, ""), (3.0, 96, "")]
    for who, note in REASONS.items():
        first, second = of[who]
        assert first.note == note
        assert second.note in (note, "not tried: an earlier size failed")
        assert first.forward_ms is second.forward_ms is None
    # A forward pass is kept where the backward pass hangs.
    first, second = of["sleeps while measured"]
    assert first.ratio == 3.0
    assert first.note == "backward failed: was not measured within 3 s"
    assert second.note == "not tried: an earlier size failed"
    assert second.ratio is None


def test_nobody_is_held_up() -> None:
    """Rows of others are there before one that hangs is given up."""
    rows = apart(job(), ("sleeps", "other"), limit=30.0, serve=acted)
    begin = time.monotonic()
    assert [next(rows).who, next(rows).who] == ["attndsl", "other"]
    assert time.monotonic() - begin < 120
    rows.close()
    alive = subprocess.run(
        ["ps", "-o", "stat=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    assert not [s for s in alive if s.startswith("T")], "a process that was stopped is left"


def test_ours_is_not_forgiven() -> None:
    def rows() -> Iterator[Row]:
        yield from apart(job(), (), limit=1.0, serve=mute)

    with pytest.raises(RuntimeError, match="causal was not measured: failed: was not ready"):
        list(rows())


def mute(pipe: Connection, job: Job, who: str) -> None:
    time.sleep(3600)


# --- the command ---


@pytest.mark.parametrize("stopped", ["by a key", "by a signal"])
def test_what_is_known_is_kept(
    stopped: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def cut(job: Job, against: Any, **_: Any) -> Iterator[Row]:
        yield Row("causal", "attndsl", SMALL, "bf16", 1.0)
        assert json.loads(path.read_text())["rows"], "it is not written yet"
        if stopped == "by a key":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    path = tmp_path / "causal.bench.json"
    monkeypatch.setattr(command, "this_machine", lambda program, help: None)
    monkeypatch.setattr(command, "apart", cut)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["bench", str(CAUSAL), "--vs", "sdpa", "--out", str(tmp_path)]) == FAILED
    assert signal.getsignal(signal.SIGTERM) is before
    said = capsys.readouterr()
    assert "attndsl   1.0000" in said.out
    assert "stopped; 1 rows are known" in said.err
    assert json.loads(path.read_text())["rows"][0]["forward_ms"] == 1.0
