"""A cache directory of its own for each run of these tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "attndsl-cache"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
