"""What a wheel holds besides modules: it is built, unpacked, and asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASKED = """
import json
from attndsl.resources import resource_dir
from attndsl.tuning.database import read
from attndsl.tuning.store import shipped_file
kinds = {k: len(list(resource_dir(k).iterdir())) for k in ("grammar", "templates", "examples")}
print(json.dumps({"entries": len(read(shipped_file()).entries), **kinds, "at": str(shipped_file())}))
"""


def test_a_wheel_holds_the_defaults_and_what_is_read_at_run_time(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    (built,) = wheel.WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path / "dist"), versions=["standard"]
    )
    site = tmp_path / "site"
    with zipfile.ZipFile(built) as file:
        file.extractall(site)
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", ASKED], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert Path(said["at"]).is_relative_to(site)
    ours = (ROOT / "attndsl" / "tuning" / "defaults.jsonl").read_text().splitlines()
    assert said["entries"] == len(ours) - 1
    for kind in ("grammar", "templates", "examples"):
        assert said[kind] == len(list((ROOT / kind).iterdir()))
