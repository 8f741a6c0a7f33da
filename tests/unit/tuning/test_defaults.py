"""The entries that come with the package: made from measured searches, and found by calls of the examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attndsl.cascade.nodes import Cascade, DType
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.tuning.database import Entry, Key, add, read
from attndsl.tuning.keys import key_of
from attndsl.tuning.machine import MACHINES
from attndsl.tuning.problem import hash_of
from attndsl.tuning.store import Store, shipped_file
from attndsl.tuning.tune import posed, sizes_at
from benchmarks.__main__ import main

ROOT = Path(__file__).parents[3]
SHIPPED = read(shipped_file()).entries


@pytest.fixture(scope="module")
def programs() -> dict[str, Cascade]:
    """The examples by what entries know them by."""
    paths = sorted((ROOT / "examples").glob("*.attn"))
    return {hash_of(c): c for p in paths for c in load_cascades(read_source(p))}


def keys(cascade: Cascade, card: str) -> list[Key]:
    """The keys of all kernels of a layer's calls, with and without gradients."""
    at = sizes_at(cascade, {"h": 16})
    floats = tuple(t.name for t in cascade.inputs if t.dtype is DType.FLOAT)
    return [
        key_of(k, hash_of(cascade), p.extents, p.floats(), card)
        for wrt in ((), floats)
        for p in posed(cascade, at, "bf16", MACHINES["H100"], wrt)
        for k in p.kernels
    ]


def test_entries_are_for_examples_and_worth_having(programs: dict[str, Cascade]) -> None:
    assert SHIPPED
    assert not read(shipped_file()).bad
    for entry in SHIPPED.values():
        assert entry.key.program in programs
        assert any(name in entry.key.gpu for name in MACHINES)
        assert entry.ms <= 0.97 * entry.default_ms
        assert entry.triton


def test_calls_of_the_examples_find_them(programs: dict[str, Cascade]) -> None:
    """Kernels change, and their entries go stale one by one: harmless, but when most have, they are to be made anew."""
    store = Store([shipped_file()], Path("nowhere.jsonl"))
    found: set[Key] = set()
    for program, card in dict.fromkeys((k.program, k.gpu) for k in SHIPPED):
        for key in keys(programs[program], card):
            entry = store.find(key, "3.6.0")
            found |= set() if entry is None else {entry.key}
    assert len(found) > len(SHIPPED) / 2


def test_one_command_ships_what_is_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = next(iter(SHIPPED))
    kept, into = tmp_path / "kept.jsonl", tmp_path / "defaults.jsonl"
    times = {"faster": 0.9, "hardly": 0.99, "no": 1.0}
    entries = [
        Entry(replace(key, kernel=n), {"BLOCK_I": 64}, ms, 1.0, "3.6.0") for n, ms in times.items()
    ]
    add(kept, entries)
    assert main(["defaults", str(kept), "--into", str(into)]) == 0
    assert "1 of 3 entries" in capsys.readouterr().out
    assert [k.kernel for k in read(into).entries] == ["faster"]
    assert [p.name for p in tmp_path.glob("*.lock")] == ["kept.jsonl.lock"]
