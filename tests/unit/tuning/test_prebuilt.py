"""Kernels built ahead: after they are installed, the launches that look for them find them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attndsl.cli import OK, main
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.runtime.cache import store_module
from attndsl.runtime.stages import Stage, plan_passes
from attndsl.tuning import prebuilt, store
from attndsl.tuning.child import Child
from attndsl.tuning.database import Entry, read
from attndsl.tuning.keys import key_of
from attndsl.tuning.problem import hash_of, pose
from attndsl.tuning.tune import sizes_at

ROOT = Path(__file__).parents[3]
CAUSAL = ROOT / "examples" / "causal.attn"
WITHOUT_A_COMPILER = """
import json, sys
from triton.backends.nvidia.compiler import CUDABackend
from attndsl.tuning.compiling import compile_candidate

def compiler(*arguments):
    raise AssertionError("a compiler ran")

CUDABackend.add_stages = compiler
compile_candidate(json.loads(sys.argv[1]))
print("found")
"""
TUNED = {"BLOCK_I": 64, "BLOCK_J": 32, "num_warps": 4, "num_stages": 2}


def compiled(folder: Path) -> set[str]:
    """The machine code in a cache."""
    return {p.parent.name for p in folder.glob("*/*.cubin")}


def test_what_is_installed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cascade,) = load_cascades(read_source(CAUSAL))
    at = sizes_at(cascade, {"e": 64, "f": 64})
    problem = pose(cascade, "forward", at, "bf16", backend="auto", specialise=True)
    assert problem is not None
    (kernel,), (special,) = problem.kernels, problem.special
    key = key_of(kernel, hash_of(cascade), problem.extents, problem.floats(), "some card")
    other = key_of(kernel, "another", problem.extents, problem.floats(), "some card")
    known = [Entry(k, TUNED, 1.0, 2.0, "3.6.0") for k in (key, other)]
    made = tmp_path / "made"
    count = prebuilt.build(
        cascade, at, "bf16", targets=("sm_90",), folder=made, entries=known, backward=False
    )
    # As it was tuned, and in both forms in which it runs where nothing is known.
    assert count == 3
    assert len(compiled(made)) == 3
    assert set(read(made / prebuilt.ENTRIES).entries) == {key}
    assert str(tmp_path) not in "".join(p.read_text() for p in made.glob("*/__grp__*.json"))

    carried, cache = tmp_path / "carried", tmp_path / "cache"
    shutil.move(made, carried)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    mine = store.Store([], tmp_path / "user.jsonl")
    monkeypatch.setattr(store, "store", lambda: mine)
    fresh = prebuilt.install(carried)
    assert fresh >= 2
    assert prebuilt.install(carried) == 0
    assert mine.find(key, "3.6.0") == known[0]
    for group in cache.glob("*/__grp__*.json"):
        for path in json.loads(group.read_text())["child_paths"].values():
            assert Path(path).is_file()
            assert Path(path).is_relative_to(cache)

    # With what was carried a launch runs no compiler; with anything else it would.
    job = prebuilt.Wanted(problem, kernel, TUNED, "sm_90")
    # What a call of an operator loads, which the tuner knows nothing of, and what it runs untuned on Hopper.
    header = "source: examples/causal.attn"
    module = store_module(Stage(cascade, plan_passes(cascade, ()), "auto", header).text, "causal")
    call = {**job.message(), "kernel": special.name, "module": str(module), "told": {}}
    for folder, message, said in (
        (cache, job.message(), "found"),
        (cache, call, "found"),
        (tmp_path / "empty", call, "a compiler ran"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_A_COMPILER, json.dumps(message)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(folder)},
            capture_output=True,
            text=True,
        )
        assert said in done.stdout + done.stderr

    # Who asks for the same again is served from there: nothing new appears, and the code is what was carried.
    before = {p: p.stat().st_mtime_ns for p in cache.glob("*/*.cubin")}
    with Child("attndsl.tuning.compiling", env={"TRITON_CACHE_DIR": str(cache)}) as child:
        child.ask(job.message(), 120.0)
    assert {p: p.stat().st_mtime_ns for p in cache.glob("*/*.cubin")} == before


def test_the_command_writes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = store.Store([], tmp_path / "user.jsonl")
    monkeypatch.setattr(store, "store", lambda: mine)
    out = tmp_path / "out"
    command = ["compile", str(CAUSAL), "--tuned", "--no-backward", "--target", "sm_90"]
    assert main([*command, "--head-dim", "64", "--out", str(out)]) == OK
    folder = out / "causal.kernels"
    assert len(compiled(folder)) == 2  # in both forms
    assert read(folder / prebuilt.ENTRIES).entries == {}
