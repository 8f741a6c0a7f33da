"""`attndsl tune` on the command line."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import pytest

from attndsl.cli import FAILED, OK, USAGE, main
from attndsl.tuning import command, store, tune
from attndsl.tuning.child import ChildError
from attndsl.tuning.database import HEAD, Entry, Key, add, read
from attndsl.tuning.machine import MACHINES
from attndsl.tuning.search import Event, Outcome, Trial
from attndsl.tuning.show import live
from tests.unit.tuning.pretending import Pretended

ROOT = Path(__file__).parents[3]
CAUSAL = str(ROOT / "examples" / "causal.attn")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a working directory of this test's own."""
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(store.PROJECT_ENV, raising=False)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".git").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    store.store.cache_clear()
    yield tmp_path
    store.store.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """A GPU that pretends."""
    device = Pretended(lambda c: 1.0 + c.get("num_stages", c.get("STAGES", 0)) / 10)
    monkeypatch.setattr(command, "this_machine", lambda program: MACHINES["A100"])
    monkeypatch.setattr(command, "tune", lambda *a, **k: tune.tune(*a, **k, open_device=opened))

    def opened(problems, **more):
        return device

    return device


def test_without_a_gpu_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", CAUSAL]) == FAILED
    said = capsys.readouterr().err
    assert "error[A0520]: causal: there is no GPU to measure on" in said
    assert "`--import`" in said


def test_what_was_found_is_kept(
    gpu: Pretended, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", CAUSAL, "--budget", "20s", "--shape", "h=16"]) == OK
    out, err = capsys.readouterr()
    assert "causal_backward_dK_dV" in out
    assert "of default" in out
    assert "tried, " in err  # progress
    found = read(here / "cache" / "tuning.jsonl").entries
    assert len(found) == 3
    assert not (here / "project" / store.PROJECT_FILE).exists()
    # The next process finds it.
    store.store.cache_clear()
    assert store.store().find(next(iter(found)), next(iter(found.values())).triton) is not None


@pytest.mark.parametrize(("option", "forms"), [([], 2), (["--no-hopper"], 1)])
def test_on_hopper_both_forms_of_a_kernel_are_tried(
    gpu: Pretended, here: Path, monkeypatch: pytest.MonkeyPatch, option: list[str], forms: int
) -> None:
    """Calls there run kernels whose warps specialise: a search without them would find what no call runs."""
    monkeypatch.setattr(command, "this_machine", lambda program: MACHINES["H100"])
    assert main(["tune", CAUSAL, "--no-backward", "--shape", "h=16", *option]) == OK
    assert len(read(here / "cache" / "tuning.jsonl").entries) == forms


def test_who_is_asked_to_end_keeps_what_is_known(gpu: Pretended, here: Path) -> None:
    """SIGTERM, as of a batch system whose time is over, after every kernel's default was timed."""

    def tick(seconds: float) -> None:
        if len(gpu.measured) == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    gpu.tick = tick
    assert main(["tune", CAUSAL, "--shape", "h=16"]) == OK
    assert len(gpu.measured) == 7
    assert len(read(here / "cache" / "tuning.jsonl").entries) == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_default_whose_time_was_disturbed_leaves_no_entry(
    gpu: Pretended, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first: list[object] = []

    def busy(config):
        if gpu.compiled and not first:
            first.append(gpu.compiled[0])
        return ("disturbed", "0.750 to 7.800 ms") if first and config == first[0] else None

    gpu.faults = busy
    assert main(["tune", CAUSAL, "--no-backward", "--workers", "1", "--shape", "h=16"]) == FAILED
    said = capsys.readouterr().err
    assert "causal: no time of what runs without tuning to compare with: disturbed: 0.750" in said
    assert not read(here / "cache" / "tuning.jsonl").entries


def test_a_process_that_cannot_measure_is_an_error(
    gpu: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never() -> None:
        raise ChildError("hung", "exact results were not there")

    monkeypatch.setattr(gpu, "ready", never)
    assert main(["tune", CAUSAL, "--no-backward"]) != OK
    said = capsys.readouterr().err
    assert "the process that measures ended: exact results were not there" in said
    assert "internal error" not in said


def test_what_cannot_be_written_or_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--export", "/proc/attndsl.jsonl"]) != OK
    assert "internal error" not in capsys.readouterr().err


def test_an_exported_file_stands_alone(here: Path) -> None:
    assert main(["tune", "--export", str(here / "tuned.jsonl")]) == OK
    assert [p.name for p in here.glob("tuned*")] == ["tuned.jsonl"]
    assert read(here / "tuned.jsonl").entries
    assert main(["tune", "--import", str(here / "tuned.jsonl")]) == OK


def test_a_project_keeps_its_own(gpu: Pretended, here: Path) -> None:
    assert main(["tune", CAUSAL, "--project", "--no-backward", "--shape", "h=16"]) == OK
    (found,) = read(here / "project" / store.PROJECT_FILE).entries.values()
    assert found.key.kernel.startswith("causal-")


def test_json_lists_every_trial_and_every_rejection(
    gpu: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", CAUSAL, "--no-backward", "--json", "--rejected"]) == OK
    (kernel,) = json.loads(capsys.readouterr().out)
    assert kernel["entry"]["config"]["num_stages"] == 1
    assert len(kernel["trials"]) + len(kernel["rejected"]) >= 250


def test_a_result_that_cannot_be_stored_is_printed(
    gpu: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", "/proc/attndsl")
    assert main(["tune", CAUSAL, "--no-backward"]) == FAILED
    said = capsys.readouterr().err
    assert "could not be stored" in said
    line = next(x for x in said.splitlines() if x.startswith('{"key"'))
    assert json.loads(line)["config"]


def test_head_dims_that_no_tile_fits_are_refused(
    gpu: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", CAUSAL, "--shape", "e=2048,f=2048"]) == FAILED
    assert "error[A0510]: causal: no tile fits" in capsys.readouterr().err


def test_nothing_right_is_a_failure(
    gpu: Pretended, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.faults = lambda config: ("wrong", "all")
    assert main(["tune", CAUSAL, "--no-backward"]) == FAILED
    assert "causal: nothing that ran was right" in capsys.readouterr().err
    assert not read(here / "cache" / "tuning.jsonl").entries


def entry(n: int) -> Entry:
    key = Key("p", f"k-{n}", "H100", "bf16", "e=64", "programs=1")
    return Entry(key, {"BLOCK_I": 16}, 1.0, 2.0, "3.6.0", 1.0)


def test_entries_travel(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(here / "cache" / "tuning.jsonl", [entry(1)])
    away = here / "away.jsonl"
    assert main(["tune", "--export", str(away)]) == OK
    assert entry(1) in read(away).entries.values()
    add(away, [entry(2)])
    assert main(["tune", "--import", str(away)]) == OK
    assert len(read(here / "cache" / "tuning.jsonl").entries) == len(read(away).entries)
    assert "entries taken from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"), [("no entries at all\n", "is no entry"), (f'{{"{HEAD}": 9}}\n', "version 9")]
)
def test_an_import_takes_all_or_nothing(
    here: Path, text: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    away = here / "away.jsonl"
    away.write_text(text)
    assert main(["tune", "--import", str(away)]) != OK
    assert why in capsys.readouterr().err
    assert not (here / "cache" / "tuning.jsonl").exists()


@pytest.mark.parametrize(
    "args", [[], [CAUSAL, "--budget", "soon"], [CAUSAL, "--budget", "0s"], [CAUSAL, "--shape", "i"]]
)
def test_command_lines_that_are_wrong(args: list[str]) -> None:
    assert main(["tune", *args]) == USAGE


def test_progress_is_a_line_for_each_new_best() -> None:
    stream = io.StringIO()
    with live("tune f.attn", 30.0, stream) as report:
        outcome = Outcome("k")
        from attndsl.tuning.device import Measured

        for ms in (3.0, 4.0, 2.0):
            trial = Trial("k", {"BLOCK_I": int(16 * ms)}, measured=Measured((ms,)))
            outcome.trials.append(trial)
            report(Event(trial, len(outcome.trials), 5, 1.0, {"k": outcome}))
    lines = stream.getvalue().splitlines()
    assert lines == [
        "tune f.attn: k 3.0000 ms with BLOCK_I=48 [1 of 5 tried, 1.0 s]",
        "tune f.attn: k 2.0000 ms with BLOCK_I=32 [3 of 5 tried, 1.0 s]",
    ]
