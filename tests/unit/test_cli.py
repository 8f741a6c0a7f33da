"""The command line: arguments, exit codes, and what goes to which stream."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

import attndsl
from attndsl import cli, driver
from attndsl.cli import FAILED, INTERNAL, OK, USAGE, main
from attndsl.console import progress, table
from attndsl.diagnostics import Diagnostic, Severity

ROOT = Path(__file__).parents[2]

CAUSAL = """\
attention causal(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""
MISTYPED = CAUSAL.replace("K[j,e] /", "K[j,d] /")


@pytest.fixture
def causal(tmp_path: Path) -> Path:
    path = tmp_path / "causal.attn"
    path.write_text(CAUSAL)
    return path


@pytest.fixture
def mistyped(tmp_path: Path) -> Path:
    path = tmp_path / "mistyped.attn"
    path.write_text(MISTYPED)
    return path


@dataclass
class Recorder:
    """Stands for the driver's slow functions: keeps what they were called with."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    result: Any = None
    error: Exception | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append({"args": args, **kwargs})
        kwargs["progress"]("first step")
        if self.error is not None:
            raise self.error
        return self.result


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    kernel = tmp_path / "causal.py"
    kernel.write_text("# a kernel\n")
    report = driver.CompileReport((kernel,), {"sweeps": 1}, {"parse": 0.1, "render": 0.3})
    recorder = Recorder(result=report)
    monkeypatch.setattr(driver, "compile_file", recorder)
    return recorder


# --- check ---------------------------------------------------------------------------------------


def test_check_names_the_attentions(causal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(causal)]) == OK
    assert capsys.readouterr().out == f"{causal}: causal\n"


def test_check_shows_a_diagnostic_and_fails(
    causal: Path, mistyped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(mistyped), str(causal)]) == FAILED
    streams = capsys.readouterr()
    assert re.search(r"error\[A\d{4}\]", streams.err)
    assert f"{mistyped}:3:" in streams.err
    assert streams.out == f"{causal}: causal\n"


def test_check_json(causal: Path, mistyped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", str(causal), str(mistyped)]) == FAILED
    good, bad = json.loads(capsys.readouterr().out)
    assert good == {"file": str(causal), "attentions": ["causal"], "diagnostics": []}
    assert bad["file"] == str(mistyped)
    found = next(d for d in bad["diagnostics"] if d["severity"] == "error")
    assert found["place"]["line"] == 3
    assert found["place"]["end_column"] > found["place"]["column"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"attention", b"attention a() -> {", b"\x00" * 40]
)
def test_check_of_anything_is_a_diagnostic(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.attn"
    path.write_bytes(content)
    assert main(["check", str(path)]) == FAILED
    assert re.search(r"error\[A\d{4}\]", capsys.readouterr().err)


def test_a_missing_file_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "nowhere.attn"]) == USAGE
    assert "nowhere.attn" in capsys.readouterr().err


# --- fmt -----------------------------------------------------------------------------------------

LOOSE = CAUSAL.replace("Q[i,e] * K[j,e]", "Q[ i , e ]*K[j,e]")


def test_fmt_rewrites_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "loose.attn"
    path.write_text(LOOSE)
    path.chmod(0o640)
    assert main(["fmt", str(path)]) == OK
    once = path.read_text()
    assert once != LOOSE
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["loose.attn"]
    assert main(["fmt", "--check", str(path)]) == OK
    assert path.read_text() == once


def test_fmt_check_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "loose.attn"
    path.write_text(LOOSE)
    assert main(["fmt", "--check", str(path)]) == FAILED
    assert path.read_text() == LOOSE
    assert f"would reformat {path}" in capsys.readouterr().err


def test_fmt_diff_is_a_patch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "loose.attn"
    path.write_text(LOOSE)
    assert main(["fmt", "--diff", str(path)]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("-") and "Q[ i , e ]*K[j,e]" in line for line in lines)
    assert any(line.startswith("+") and "Q[i,e] * K[j,e]" in line for line in lines)
    assert path.read_text() == LOOSE


def test_fmt_reads_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOOSE.encode())))
    assert main(["fmt", "-"]) == OK
    assert "Q[i,e] * K[j,e]" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["check"], ["explain"], ["explain", "--json"]])
def test_a_program_comes_through_stdin(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOOSE.encode())))
    assert main([*command, "-"]) == OK
    assert "causal" in capsys.readouterr().out

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"attention {")))
    assert main([*command, "-"]) == FAILED
    said = capsys.readouterr()
    assert "<stdin>:1:" in said.err + said.out


def test_fmt_goes_on_after_a_broken_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, loose = tmp_path / "broken.attn", tmp_path / "loose.attn"
    broken.write_text("attention {")
    loose.write_text(LOOSE)
    assert main(["fmt", str(broken), str(loose)]) == FAILED
    assert broken.read_text() == "attention {"
    assert loose.read_text() != LOOSE
    assert "error[A01" in capsys.readouterr().err


# --- explain -------------------------------------------------------------------------------------


def test_explain_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    from attndsl.errors import CODES

    code = next(iter(CODES))
    assert main(["explain", code.lower()]) == OK
    assert capsys.readouterr().out.startswith(f"{code}: {CODES[code].title}")
    assert main(["explain", "--json", code]) == OK
    assert json.loads(capsys.readouterr().out)["code"] == code


def test_explain_shows_the_sweeps_of_what_has_no_schedule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.attn"
    path.write_text(
        "attention t(K[t,e], V[t,f]) -> O[t,e] {\n"
        "  H[t,e,f] = H[t-1,f,e] + K[t,e] * V[t,f]   init 0\n  O[t,e] = H[t,e,f] * V[t,f]\n}\n"
    )
    assert main(["explain", str(path)]) == FAILED
    shown = capsys.readouterr()
    assert "sweep 1     H           H" in shown.out
    assert "as compiled" not in shown.out
    assert "A0401" in shown.err


def test_explain_refuses_what_is_neither_file_nor_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", "A9999"]) == USAGE
    assert main(["explain", "nowhere"]) == USAGE
    assert "neither a file nor an error code" in capsys.readouterr().err


# --- compile -------------------------------------------------------------------------------------


def test_compile_passes_every_option_on(causal: Path, compiles: Recorder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--target", "sm_90", "--target", "sm_90", "--dtype", "fp16", "--head-dim", "64"]
    more = ["--value-dim", "32", "--no-backward", "--name", "causal", "--out", str(out)]
    assert main(["compile", str(causal), *options, *more]) == OK
    (call,) = compiles.calls
    assert call["args"] == (causal, "causal")
    assert call["out"] == out
    assert call["targets"] == ("sm_90",)
    assert call["dump"] == frozenset()
    assert call["stop_after"] is None
    assert call["options"] == driver.CompileOptions(
        dtype="fp16", head_dim=64, value_dim=32, backward=False
    )


def test_compile_defaults(causal: Path, compiles: Recorder) -> None:
    assert main(["compile", str(causal)]) == OK
    (call,) = compiles.calls
    assert call["out"] == Path("build/causal")
    assert call["targets"] == ("sm_80", "sm_90")
    assert call["options"].backward


def test_compile_lists_files_on_stdout_and_progress_on_stderr(
    causal: Path, compiles: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(causal)]) == OK
    streams = capsys.readouterr()
    assert streams.out == f"{compiles.result.files[0]}  11 B\n"
    assert f"compile {causal}: first step" in streams.err
    assert "0.40 s (render 0.30, parse 0.10)" in streams.err


def test_compile_shows_warnings(
    causal: Path, compiles: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    compiles.result.diagnostics = (Diagnostic("A0264", "a warning", severity=Severity.WARNING),)
    assert main(["compile", str(causal)]) == OK
    assert "warning[A0264]: a warning" in capsys.readouterr().err


def test_compile_json(causal: Path, compiles: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "--json", str(causal)]) == OK
    assert json.loads(capsys.readouterr().out) == {
        "files": [str(compiles.result.files[0])],
        "facts": {"sweeps": 1},
        "seconds": {"parse": 0.1, "render": 0.3},
        "diagnostics": [],
    }


def test_dump_ir_alone_means_every_step(causal: Path, compiles: Recorder) -> None:
    # The file comes right after the option and must not be taken for its value.
    assert main(["compile", "--dump-ir", str(causal)]) == OK
    assert compiles.calls[0]["dump"] == frozenset(driver.STEPS)


def test_dump_ir_of_one_step_and_stop(
    causal: Path, compiles: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    step = driver.STEPS[1]
    assert main(["compile", f"--dump-ir={step}", "--stop-after", step, str(causal)]) == OK
    (call,) = compiles.calls
    assert call["dump"] == frozenset({step})
    assert call["stop_after"] == step
    capsys.readouterr()
    call["on_dump"](step, "the text")
    assert capsys.readouterr().out == f"# --- {step} ---\nthe text\n\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "hopper"], "not of the form sm_90"),
        (["--stop-after", "nothing"], "no step `nothing`"),
        (["--dump-ir=nothing"], "no step `nothing`"),
        (["--stop-after", "all"], "no step `all`"),
        (["--head-dim", "0"], "0 is not in the range"),
        (["--dtype", "int8"], "int8"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_options_are_usage_errors(
    causal: Path,
    compiles: Recorder,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compile", str(causal), *options]) == USAGE
    assert message in capsys.readouterr().err
    assert not compiles.calls


def test_a_misspelt_step_gets_a_suggestion(
    causal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(causal), "--stop-after", driver.STEPS[0] + "e"]) == USAGE
    assert f"did you mean `{driver.STEPS[0]}`?" in capsys.readouterr().err


def test_compile_of_a_wrong_program_fails_in_json_too(
    mistyped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "--json", str(mistyped), "--out", str(tmp_path / "o")]) == FAILED
    streams = capsys.readouterr()
    assert json.loads(streams.out)["diagnostics"][0]["place"]["line"] == 3
    assert "error[A" in streams.err


def test_a_fault_of_the_compiler_says_how_to_reproduce(
    causal: Path, compiles: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    compiles.error = ZeroDivisionError("a fault")
    assert main(["compile", str(causal), "--dtype", "fp16"]) == INTERNAL
    err = capsys.readouterr().err
    assert "ZeroDivisionError: a fault" in err
    assert f"reproduce: attndsl compile {causal} --dtype fp16" in err
    assert "python 3." in err


def test_an_unwritable_folder_is_the_users_to_mend(
    causal: Path, compiles: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    compiles.error = PermissionError(13, "Permission denied", "/out/causal.py")
    assert main(["compile", str(causal)]) == USAGE
    assert capsys.readouterr().err.endswith("error: /out/causal.py: Permission denied\n")


def test_an_interrupt_is_not_a_fault(
    causal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "compile_file", interrupt)
    assert main(["compile", str(causal)]) == 130
    assert "Traceback" not in capsys.readouterr().err


# --- verify --------------------------------------------------------------------------------------


def _row(ok: bool) -> SimpleNamespace:
    return SimpleNamespace(
        what="O",
        by="eager",
        dtype="fp16",
        shape="i=8 j=8",
        direction="forward",
        error=1e-4 if ok else 1.0,
        budget=1e-3,
        ok=ok,
    )


def test_verify_prints_a_table(
    causal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(result=SimpleNamespace(rows=[_row(True), _row(False)]))
    monkeypatch.setattr(driver, "verify", recorder)
    args = ["--dtype", "fp16", "--dtype", "fp32", "--shape", "i=8,j=16", "--seed", "3"]
    assert main(["verify", str(causal), *args]) == FAILED
    (call,) = recorder.calls
    assert call["dtypes"] == ("fp16", "fp32")
    assert call["extents"] == {"i": 8, "j": 16}
    assert call["seed"] == 3
    streams = capsys.readouterr()
    head, good, bad = streams.out.splitlines()
    assert head.split() == ["tensor", "kernels", "dtype", "shape", "direction", "error", "budget"]
    assert good.split()[-3:] == ["1.00e-04", "1.00e-03", "ok"]
    assert bad.split()[-1] == "FAILED"
    assert "1 of 2 within budget" in streams.err


def test_verify_json(
    causal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "verify", Recorder(result=SimpleNamespace(rows=[_row(True)])))
    assert main(["verify", "--json", str(causal)]) == OK
    assert json.loads(capsys.readouterr().out) == [vars(_row(True))]


def test_verify_refuses_an_index_that_is_not_there(
    causal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(causal), "--shape", "zz=5"]) == FAILED
    said = capsys.readouterr().err
    assert "there is no index or parameter `zz`" in said
    assert "`i`, `j`" in said


@pytest.mark.parametrize("shape", ["i", "i=", "i=0", "i=-1", "i=8;j=8", "1=i"])
def test_verify_refuses_a_malformed_shape(causal: Path, shape: str) -> None:
    assert main(["verify", str(causal), "--shape", shape]) == USAGE


# --- the process ---------------------------------------------------------------------------------


def test_the_process_returns_the_exit_code(mistyped: Path) -> None:
    run = subprocess.run([sys.executable, "-m", "attndsl", "check", str(mistyped)], cwd=ROOT)
    assert run.returncode == FAILED


def test_a_closed_pipe_is_quiet(causal: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "attndsl", "check", str(causal)]
    try:
        run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT)
    finally:
        os.close(writer)
    assert run.stderr == b""


def test_a_name_that_stdout_cannot_spell_is_escaped(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "caus") + b"\xff.attn"
    Path(os.fsdecode(path)).write_text(CAUSAL)
    command = [os.fsencode(sys.executable), b"-m", b"attndsl", b"check", path]
    run = subprocess.run(command, capture_output=True, cwd=ROOT)
    assert run.returncode == OK, run.stderr
    assert b"caus\\udcff.attn: causal" in run.stdout


def test_every_option_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    for name, command in cli.cli.commands.items():
        section = re.search(rf"^## attndsl {name}$.*?(?=^## |\Z)", page, re.M | re.S)
        assert section is not None, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert f"`{option.opts[-1]}" in section[0], (name, option.opts)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == OK
    assert capsys.readouterr().out == f"attndsl {attndsl.__version__}\n"


# --- the console ---------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_is_plain_lines() -> None:
    log = io.StringIO()
    with progress("compile a.attn", log) as report:
        report("parse")
        report("render")
    first, second = log.getvalue().splitlines()
    assert first.startswith("compile a.attn: parse [")
    assert second.startswith("compile a.attn: render [")


def test_progress_on_a_terminal_marks_finished_steps_only() -> None:
    screen = Terminal()
    with pytest.raises(ZeroDivisionError), progress("compile", screen) as report:  # noqa: PT012
        report("parse")
        report("render [x]")
        raise ZeroDivisionError
    done = [line for line in screen.getvalue().splitlines() if "✓" in line]
    assert any("parse" in line for line in done)
    assert not any(re.search(r"✓.*render", line) for line in done)


def test_table_on_a_terminal_keeps_brackets() -> None:
    # Square brackets are rich's markup; in a tensor's name they are to be shown.
    screen = Terminal()
    table(("tensor", ""), [("O[i,f]", "ok")], screen)
    assert "O[i,f]" in screen.getvalue()
