"""Run generated Triton text in a child process: the interpreter is chosen when Triton is imported.

One child serves a whole test session, since importing torch takes longer than most of the kernels.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

SERVE = """
import importlib.util, json, math, sys, traceback
import torch

for number, line in enumerate(sys.stdin):
    module_path, script = json.loads(line)
    try:
        spec = importlib.util.spec_from_file_location(f"generated_{number}", module_path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        exec(script, {"module": module, "torch": torch, "math": math})
        answer = ""
    except BaseException:
        answer = traceback.format_exc()
    print(json.dumps(answer), flush=True)
"""


@cache
def _child() -> subprocess.Popen[str]:
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(child.kill)
    return child


def run(folder: Path, text: str, script: str) -> None:
    """Import `text` as `module` under Triton's interpreter, and run `script` in its presence."""
    path = folder / "generated.py"
    path.write_text(text, encoding="utf-8")
    child = _child()
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps([str(path), script]) + "\n")
    child.stdin.flush()
    answer = child.stdout.readline()
    assert answer, "the interpreter's process died"
    problem = json.loads(answer)
    assert not problem, problem[-4000:]


def format_difference(text: str, folder: Path) -> str:
    """What the formatter would change in `text`."""
    path = folder / "text.py"
    path.write_text(text, encoding="utf-8")
    options = ["--diff", "--isolated", "--line-length", "100", "--target-version", "py311"]
    command = [sys.executable, "-m", "ruff", "format", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode else ""
