"""`attndsl bench`: rows, ratios, errors, what is absent, what became slower."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attndsl.bench import command, plot, record, run
from attndsl.bench.apart import Job
from attndsl.bench.run import Row, compare
from attndsl.cli import FAILED, OK, USAGE, main
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.schedule.cost import GPUS

ROOT = Path(__file__).parents[3]
SMALL = {"b": 1, "h": 2, "i": 48, "j": 48, "e": 16, "f": 16}
ALL = ("flex", "sdpa", "fa4", "fla", "eager", "portable")


def cascade(name: str):
    return load_cascades(read_source(ROOT / "examples" / f"{name}.attn"))[0]


def timer(call: Any) -> float:
    """Runs it, and says 2 ms."""
    call()
    return 2.0


def rows(name: str, **more: Any) -> dict[str, Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FlexAttention, not compiled
        shape = {k: n for k, n in SMALL.items() if k in "bhijef"}
        made = compare(cascade(name), [shape | more], ALL, dtype="fp32", device="cpu", timer=timer)
        return {r.who: r for r in made}


def test_every_peer_has_a_row() -> None:
    found = rows("causal")
    assert list(found) == ["attndsl", *ALL]
    for who in ("attndsl", "flex", "sdpa", "eager"):
        row = found[who]
        assert row.error is not None, row.note
        assert row.error < 1e-5
        assert row.forward_ms == 2.0
        assert row.backward_ms == (None if who == "flex" else 2.0)
        assert row.tflops is not None
        assert row.tflops > 0
    assert found["attndsl"].ratio is None
    assert found["sdpa"].ratio == found["sdpa"].backward_ratio == 1.0
    # On a CPU it has no backward pass; its forward pass counts all the same.
    assert found["flex"].ratio == 1.0
    assert found["flex"].note.startswith("backward failed: NotImplementedError: FlexAttention")
    assert found["fa4"].note == "absent: flash_attn.cute is not installed"
    assert found["fla"].note == "absent: fla is not installed"
    assert found["portable"].note == "absent: there is no GPU"


def test_what_a_peer_cannot_express_is_said() -> None:
    found = rows("softcap", cap=50)
    assert found["sdpa"].note == "cannot express: a score that is more than a scaled product"
    assert found["flex"].error is not None
    assert rows("softpick")["flex"].note == "cannot express: the weights are no exponentials"


def test_a_peer_that_fails_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from attndsl.bench import peers

    def broken(setup: Any) -> Any:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setitem(peers.PEERS, "sdpa", broken)
    assert rows("causal")["sdpa"].note == "failed: RuntimeError: no kernel image"


def test_ours_is_not_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(call: Any) -> float:
        raise RuntimeError("slow")

    with pytest.raises(RuntimeError, match="slow"):
        list(compare(cascade("causal"), [SMALL], (), dtype="fp32", device="cpu", timer=broken))


def test_few_queries_stand_at_the_end() -> None:
    found = rows("causal", i=5)
    for who in ("flex", "sdpa", "eager"):
        assert found[who].error is not None, found[who].note
        assert found[who].error < 1e-5


def test_gradients_are_not_left_on() -> None:
    assert rows("causal")["attndsl"].backward_ms == 2.0


# --- the command ---


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is a CPU."""

    def on_cpu(job: Job, against: Any, *, limit: float, report: Any) -> Iterator[Row]:
        more = {"dtype": "fp32", "device": "cpu", "timer": timer, "backward": job.backward}
        yield from compare(job.cascade, job.shapes, against, report=report, **more)

    monkeypatch.setattr(command, "this_machine", lambda program, help: None)
    monkeypatch.setattr(command, "apart", on_cpu)


SHAPE = ",".join(f"{k}={n}" for k, n in SMALL.items())
CAUSAL = str(ROOT / "examples" / "causal.attn")


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", CAUSAL]) == FAILED
    said = capsys.readouterr().err
    assert "error[A0520]" in said
    assert "`attndsl explain` gives costs" in said


def test_ratios_come_first(gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    args = ["bench", CAUSAL, "--vs", "sdpa,fa4", "--shape", SHAPE, "--out", str(out)]
    assert main(args) == OK
    head, ours, sdpa, absent = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["forward", "backward", "who", "ms"]
    assert ours.split()[0] == "attndsl"
    assert sdpa.split()[:3] == ["1.00x", "1.00x", "sdpa"]
    assert absent.split()[0] == "fa4"
    assert absent.endswith("(absent: flash_attn.cute is not installed)")
    written = json.loads((out / "causal.bench.json").read_text())
    assert {r["who"] for r in written["rows"]} == {"attndsl", "sdpa", "fa4"}
    assert written["machine"]["torch"]


def test_lengths_are_tried_one_after_another(gpu: None, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["bench", CAUSAL, "--vs", "sdpa", "--shape", SHAPE, "--lengths", "16,32", "--json"]
    assert main(args) == OK
    found = json.loads(capsys.readouterr().out)["rows"]
    assert [(r["shape"]["i"], r["shape"]["j"]) for r in found[::2]] == [(16, 16), (32, 32)]


def test_what_became_slower_fails(
    gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "before.json"
    args = ["bench", CAUSAL, "--vs", "sdpa", "--shape", SHAPE, "--json"]
    assert main(args) == OK
    written = json.loads(capsys.readouterr().out)
    before.write_text(json.dumps(written))
    assert main([*args, "--slower-than", str(before)]) == OK
    written["rows"][0]["forward_ms"] = 1.0
    before.write_text(json.dumps(written))
    assert main([*args, "--slower-than", str(before)]) == FAILED
    assert "forward_ms 1 -> 2 (2.00 times slower)" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--vs", "cudnn"], ["--lengths", "long"], ["--lengths", "0"]])
def test_command_lines_that_are_wrong(more: list[str]) -> None:
    assert main(["bench", CAUSAL, *more]) == USAGE


# --- files ---


def file(**figures: Any) -> dict[str, Any]:
    row = {"program": "causal", "who": "attndsl", "shape": {"i": 4096}, "dtype": "bf16"}
    return {"rows": [row | figures]}


def test_slower_is_by_time_and_by_rate() -> None:
    name = "causal attndsl i=4096 bf16"
    assert record.slower(file(forward_ms=1.0), file(forward_ms=1.02)) == []
    assert record.slower(file(forward_ms=1.0), file(forward_ms=0.5)) == []
    assert record.slower(file(forward_ms=1.0), file(forward_ms=1.1)) == [
        f"{name}: forward_ms 1 -> 1.1 (1.10 times slower)"
    ]
    assert record.slower(file(tflops=400.0), file(tflops=200.0)) == [
        f"{name}: tflops 400 -> 200 (2.00 times slower)"
    ]
    assert record.slower(file(tflops=400.0), file(tflops=500.0)) == []
    assert record.slower(file(error=2e-3), file(error=4e-3)) == [
        f"{name}: error 2.00e-03 -> 4.00e-03"
    ]
    assert record.slower(file(ms=1.0), {"rows": []}) == [f"{name}: no longer measured"]


def test_committed_results_compare(tmp_path: Path) -> None:
    results = ROOT / "benchmarks" / "results"
    for path in sorted(results.glob("*.json")):
        whole = json.loads(path.read_text())
        names = [record.name_of(r) for r in whole["rows"]]
        assert len(set(names)) == len(names), path.name
        assert record.slower(whole, whole) == []
    worse = json.loads((results / "training-h100.json").read_text())
    worse["rows"][1]["forward_tflops"] /= 2
    path = tmp_path / "worse.json"
    path.write_text(json.dumps(worse))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            "compare",
            str(results / "training-h100.json"),
            str(path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "causal" in done.stdout
    assert "forward_tflops" in done.stdout


# --- pictures ---


def row(tflops: float, tb_s: float, n: int = 4096) -> Row:
    return Row("p", "attndsl", {"b": 4, "i": n}, "bf16", 1.0, None, None, None, tflops, tb_s, 1e-3)


def test_the_limit_is_what_binds() -> None:
    gpu = GPUS["H100"]
    assert plot.gpu_of("NVIDIA H100 80GB HBM3") is gpu
    assert plot.gpu_of("NVIDIA GeForce RTX 4090") is None
    assert plot.bandwidth_bound(row(1.0, 2.9), gpu)
    assert not plot.bandwidth_bound(row(400.0, 0.5), gpu)
    assert plot.length(row(1, 1, 8192)) == 8192


def test_the_roof_is_lower_where_bytes_bind() -> None:
    gpu = GPUS["H100"]
    peak, bandwidth = gpu.flops[2] * 1e-12, gpu.bandwidth * 1e-12
    assert plot.roofline(row(400.0, 0.1), gpu, memory=False) == peak
    # 10 operations a byte, however slow the row was.
    assert plot.roofline(row(2.0, 0.2), gpu, memory=False) == pytest.approx(10 * bandwidth)
    assert plot.roofline(row(4.0, 0.4), gpu, memory=False) == pytest.approx(10 * bandwidth)
    assert plot.roofline(row(2.0, 0.2), gpu, memory=True) == bandwidth
    assert plot.roofline(row(2000.0, 1.0), gpu, memory=True) == pytest.approx(peak / 2000)


@pytest.mark.skipif(not plot.can_plot(), reason="needs matplotlib")
def test_a_picture_is_written(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    plot.plot([row(400, 0.5, 1024), row(450, 0.6, 4096)], "NVIDIA H100 80GB HBM3", path)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_the_modules_agree_on_the_peers() -> None:
    from attndsl import cli_bench
    from attndsl.bench.peers import PEERS

    assert set(cli_bench.PEERS) == set(PEERS)
    assert run.OURS not in PEERS
