"""The grammar is found in a checkout and in an installed package."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import attndsl.resources
from attndsl.resources import resource_dir


def test_a_checkout() -> None:
    assert (resource_dir("grammar") / "attn.lark").is_file()
    assert (resource_dir("examples") / "alibi.attn").is_file()


def test_an_installed_package(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "attndsl"
    inside = package / "_resources" / "grammar"
    inside.mkdir(parents=True)
    # A folder of the same name beside the package is somebody else's.
    (tmp_path / "site-packages" / "grammar").mkdir()
    shutil.copy(attndsl.resources.__file__, package)
    spec = importlib.util.spec_from_file_location("installed", package / "resources.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.resource_dir("grammar") == inside
