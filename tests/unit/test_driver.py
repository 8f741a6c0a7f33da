"""The driver: steps, files, refusals, explanations; and that `verify` finds a wrong kernel."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import attndsl
from attndsl import driver
from attndsl.callerrors import CallError
from attndsl.diagnostics import DiagnosticError
from attndsl.driver import STEPS, CompileOptions, compile_file
from attndsl.errors import CODES, ErrorInfo
from attndsl.frontend import parse
from attndsl.source import Source

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ALIBI = EXAMPLES / "alibi.attn"
FULL = EXAMPLES / "full.attn"

SPARSE = """\
attention sparse(Q[b,i,e], K[b,j,e], V[b,j,f], unused[b]) -> O[b,i,f] {
  batch b
  S[i,j] = Q[i,e] * K[j,e]
  t[i] = solve[x : 0 <= x <= 1](sum[j](relu(S[i,j] - sum[j](relu(S[i,j] - x)))) == 1)
  O[i,f] = relu(S[i,j] - t[i]) * V[j,f]
}
"""


# --- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", STEPS[:-1])
def test_stop_after_runs_what_comes_before(last: str, tmp_path: Path) -> None:
    reported: list[str] = []
    done = compile_file(ALIBI, out=tmp_path, stop_after=last, progress=reported.append)
    assert tuple(done.timings) == tuple(reported) == STEPS[: STEPS.index(last) + 1]
    assert bool(done.files) == (last == "kernel")
    assert done.facts == {}


def test_every_step_can_be_dumped(tmp_path: Path) -> None:
    dumped: dict[str, str] = {}
    compile_file(ALIBI, out=tmp_path, stop_after="kernel", dump=STEPS, on_dump=dumped.__setitem__)
    assert tuple(dumped) == STEPS[:-1]
    assert "softmax[j](S[i,j])" in dumped["parse"]  # as it was written
    assert "max[j_" in dumped["cascade"]  # without sugar
    assert "where j <= i + start" in dumped["cascade"]
    assert "attention alibi_backward(" in dumped["gradient"]
    assert "sweep j in" in dumped["tile"]
    assert dumped["kernel"] == (tmp_path / "alibi.py").read_text().rstrip("\n")


def test_only_asked_dumps_are_made(tmp_path: Path) -> None:
    dumped: list[str] = []
    compile_file(
        ALIBI,
        out=tmp_path,
        stop_after="tile",
        dump={"parse"},
        on_dump=lambda step, _: dumped.append(step),
    )
    assert dumped == ["parse"]


def test_what_was_dumped_before_a_refusal_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "sparse.attn"
    path.write_text(SPARSE)
    dumped: list[str] = []
    with pytest.raises(DiagnosticError) as refused:
        compile_file(path, out=tmp_path, dump=STEPS, on_dump=lambda step, _: dumped.append(step))
    assert dumped == ["parse", "cascade", "gradient"]
    # the warning of the program is not lost with the error
    assert [d.severity for d in refused.value.diagnostics] == ["warning", "error"]
    assert refused.value.codes[-1] == "A0402"


def test_without_backward(tmp_path: Path) -> None:
    options = CompileOptions(backward=False)
    done = compile_file(ALIBI, out=tmp_path, options=options, stop_after="kernel")
    assert "gradient" not in done.timings
    functions = {n.name for n in ast.parse(done.files[0].read_text()).body if hasattr(n, "name")}
    assert "forward" in functions
    assert "backward" not in functions


def test_an_attention_is_picked_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "two.attn"
    path.write_text(ALIBI.read_text() + FULL.read_text())
    done = compile_file(path, "full", out=tmp_path, stop_after="kernel")
    assert [p.name for p in done.files] == ["full.py"]
    for name in (None, "ful"):
        with pytest.raises(DiagnosticError, match="A0266") as refused:
            compile_file(path, name, out=tmp_path)
        assert "full" in str(refused.value)


# --- files ---------------------------------------------------------------------------------------


def test_the_module_says_where_it_comes_from(tmp_path: Path) -> None:
    done = compile_file(ALIBI, out=tmp_path / "deep" / "folder", stop_after="kernel")
    text = done.files[0].read_text()
    assert f"attndsl {attndsl.__version__}" in text
    assert "attndsl compile alibi.attn --name alibi" in text
    assert str(tmp_path) not in text
    assert str(ROOT) not in text


def test_the_hash_is_of_the_meaning(tmp_path: Path) -> None:
    def hash_of(text: str) -> str:
        path = tmp_path / "alibi.attn"
        path.write_text(text)
        return driver.load(path, backward=False).hash

    text = ALIBI.read_text()
    assert hash_of(text) == hash_of("# another comment\n" + text.replace("Q[i,e] *", "Q[i,e]  *"))
    assert hash_of(text) != hash_of(text.replace("j <= i", "j < i"))


def test_the_text_does_not_depend_on_the_order_of_sets(tmp_path: Path) -> None:
    texts = set()
    for seed in ("1", "2", "3"):
        out = tmp_path / seed
        command = [sys.executable, "-m", "attndsl", "compile", "examples/transformer_xl.attn"]
        command += ["--out", str(out), "--stop-after", "kernel"]
        env = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=env)
        texts.add((out / "transformer_xl.py").read_text())
    assert len(texts) == 1


def test_kernels_are_readable_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from attndsl.driver import compile_file\n"
        f"compile_file(Path({str(ALIBI)!r}), out=Path({str(tmp_path)!r}), stop_after='kernel')\n"
        "assert not {'torch', 'triton', 'sympy', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_machine_code_and_its_facts(tmp_path: Path) -> None:
    options = CompileOptions(dtype="fp16", head_dim=64, value_dim=32, backward=False)
    done = compile_file(ALIBI, out=tmp_path, targets=("sm_90",), options=options)
    names = [p.name for p in done.files]
    kernels = ["alibi", "alibi_slices", "alibi_merge"]
    code = [f"{k}.sm_90.{kind}" for k in kernels for kind in ("ptx", "cubin")]
    assert names == ["alibi.py", *code, "alibi.json"]
    assert ".target sm_90" in (tmp_path / "alibi.sm_90.ptx").read_text()
    assert (tmp_path / "alibi.sm_90.cubin").read_bytes().startswith(b"\x7fELF")
    facts = json.loads((tmp_path / "alibi.json").read_text())
    assert facts == done.facts
    assert facts["compiled_for"] == {"dtype": "fp16", "extents": {"e": 64, "f": 32}}
    assert facts["command"].endswith(
        "--no-backward --target sm_90 --dtype fp16 --head-dim 64 --value-dim 32"
    )
    (kernel,) = facts["forward"]["kernels"]
    assert kernel["code"]["sm_90"]["config"]["BLOCK_I"] >= 16
    slices, merge = facts["few_queries"]["kernels"]
    assert [k["name"] for k in (kernel, slices, merge)] == kernels
    assert slices["code"]["sm_90"]["config"]["BLOCK_J"] >= 16
    for k in (kernel, slices, merge):
        taken = k["code"]["sm_90"]
        assert 0 < taken["registers"] <= 255
        assert taken["spilled_bytes"] == 0
        assert 0 < taken["shared_bytes"] <= 227 * 1024
    assert tuple(done.timings) == tuple(s for s in STEPS if s != "gradient")


def test_a_program_without_a_form_for_few_queries_has_no_such_kernels(tmp_path: Path) -> None:
    path = EXAMPLES / "sparsemax.attn"  # its roots take several sweeps
    done = compile_file(path, out=tmp_path, stop_after="kernel")
    assert "forward_split" not in done.files[0].read_text()


def test_a_head_dim_that_fits_no_gpu_is_refused(tmp_path: Path) -> None:
    options = CompileOptions(dtype="fp32", head_dim=8192, backward=False)
    with pytest.raises(CallError, match="A0510") as refused:
        compile_file(ALIBI, out=tmp_path, targets=("sm_86",), options=options)
    assert "--head-dim" in str(refused.value)


# --- refusals ------------------------------------------------------------------------------------

SCHEDULES = [info for code, info in CODES.items() if code.startswith("A04")]


def scheduled(info: ErrorInfo, text: str) -> None:
    source = Source(info.code, text)
    driver.schedule(driver.differentiate(driver.lower(source, parse(source), None)))


@pytest.mark.parametrize("info", [i for i in SCHEDULES if i.wrong], ids=lambda i: i.code)
def test_the_catalogue_of_refusals(info: ErrorInfo) -> None:
    with pytest.raises(DiagnosticError) as refused:
        scheduled(info, info.wrong)
    (finding,) = refused.value.diagnostics
    assert finding.code == info.code
    assert info.title in finding.title
    assert finding.span is not None
    assert finding.label
    assert finding.help
    scheduled(info, info.right)


def test_names_in_refusals_are_the_users() -> None:
    info = CODES["A0406"]
    with pytest.raises(DiagnosticError, match="keeps 3 sequence ranks \\(`i`, `j`, `k`\\)"):
        scheduled(info, info.wrong)


def test_every_refusal_has_a_code_and_a_way_out() -> None:
    import re

    from attndsl.schedule.refusals import WAYS_OUT

    folder = ROOT / "attndsl" / "schedule"
    raised = {
        code
        for path in folder.glob("*.py")
        for code in re.findall(r'Refused\(\s*"(A\d{4})"', path.read_text())
    }
    raised -= {"A0511"}  # of a call
    assert raised == set(WAYS_OUT) == {info.code for info in SCHEDULES}


def test_the_runtime_refuses_in_the_same_words(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "sparse.attn"
    path.write_text(SPARSE.replace(", unused[b]", ""))
    with pytest.raises(DiagnosticError) as compiled:
        compile_file(path, out=tmp_path)
    x = torch.ones(1, 4, 16)
    with pytest.raises(DiagnosticError) as called:
        attndsl.load(path)(x, x, x)
    assert str(called.value) == str(compiled.value)


# --- explanations --------------------------------------------------------------------------------


def test_sweeps_as_written() -> None:
    def of(name: str) -> list[list[str]]:
        written: list[list[str]] = driver.explain_facts(EXAMPLES / f"{name}.attn")["sweeps"][
            "as_written"
        ]
        return written

    assert [len(level) for level in of("full")] == [1, 1, 1]  # maximum, denominator, numerator
    assert of("linear_identity") == [["O"]]
    assert of("standardised")[:2] == [["mean"], ["var"]]


@pytest.mark.parametrize(
    ("value", "how"),
    [
        ("sum[j](abs(S[i,j]))", "a + b"),
        ("prod[j](S[i,j])", "a * b"),
        ("min[j](S[i,j])", "min(a, b)"),
        ("1 if any[j](S[i,j] > 0) else 2", "a or b"),
        ("1 if all[j](S[i,j] > 0) else 2", "a and b"),
    ],
)
def test_parts_merge_as_they_are_reduced(value: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "t.attn"
    text = f"attention t(Q[i,e], K[j,e]) -> O[i] {{ S[i,j] = Q[i,e] * K[j,e]   O[i] = {value} }}"
    path.write_text(text)
    (kernel,) = driver.explain_facts(path)["forward"]["kernels"]
    (carried,) = kernel["carries"]
    assert carried["merge"] == how


def test_explanations_name_what_was_chosen() -> None:
    text = driver.explain(ALIBI)
    assert "sweeps      3           1" in text
    assert "its terms scale by exp(-`M_S`)" in text
    assert "merges   M_S by max(a, b); Z_S, O_1 by alpha_a * a + alpha_b * b" in text
    assert all(card in text for card in ("A100", "H100", "H200"))
    assert "A100" not in driver.explain(ALIBI, gpu="H100")
    assert "as compiled  1 kernel over j" in text
    assert "corrects by alpha = exp2(" in text
    assert "Backward pass" not in text
    assert "attention alibi_backward(" in driver.explain(ALIBI, backward=True)
    json.dumps(driver.explain_facts(ALIBI, backward=True))


# --- verify --------------------------------------------------------------------------------------


def run(script: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: Triton is imported once, with or without its interpreter."""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_verify_passes_on_a_right_kernel() -> None:
    command = [sys.executable, "-m", "attndsl", "verify", str(FULL), "--dtype", "fp32", "--json"]
    done = subprocess.run(
        [*command, "--shape", "i=20,j=33,h=1"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {(r["what"], r["by"].partition(",")[0]) for r in rows} == {
        (what, by) for what in ("O", "dQ", "dK", "dV") for by in ("triton", "eager")
    }
    assert all(r["ok"] and "i=20" in r["shape"] for r in rows)


def test_verify_finds_a_wrong_kernel(tmp_path: Path) -> None:
    done = run(f"""
import os
os.environ["ATTNDSL_CACHE_DIR"] = {str(tmp_path)!r}  # the right kernel may be known to the user's
import attndsl.runtime.stages as stages
right = stages.render
def wrong(backend, name, *rest):
    text = right(backend, name, *rest)
    return text.replace("math.sqrt(", "1.01 * math.sqrt(") if backend == "eager" else text
stages.render = wrong
from pathlib import Path
from attndsl.driver import verify
report = verify(Path({str(FULL)!r}), dtypes=("fp32",), extents={{"h": 1}})
assert not report.ok
assert all(row.ok == row.by.startswith("triton") for row in report.rows if row.what == "O")
""")
    assert done.returncode == 0, done.stderr


def test_verify_of_sizes_that_do_not_fit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "attndsl", "verify", str(ALIBI), "--shape", "h=3,G=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "error[A0503]" in done.stderr
