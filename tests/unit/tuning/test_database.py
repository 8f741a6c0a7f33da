"""The database of tuned configurations: what it survives."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attndsl.tuning import database
from attndsl.tuning import store as layers
from attndsl.tuning.database import DatabaseError, Entry, Key, add, read, text_of
from attndsl.tuning.store import Store, doublings


def key(n: int = 0, bucket: str = "programs=64 i=4096 j=4096", **more: str) -> Key:
    given = {
        "program": "f3f3a59f8b1cacc0",
        "kernel": f"causal-{n}",
        "gpu": "NVIDIA H100 80GB HBM3",
        "dtypes": "bf16",
        "dims": "e=128 f=128",
    }
    return Key(**(given | more), bucket=bucket)


def entry(n: int = 0, rows: int = 128, when: float = 1.0, triton: str = "3.6.0") -> Entry:
    return Entry(key(n), {"BLOCK_I": rows, "num_warps": 8}, 0.4, 0.5, triton, when)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "tuning.jsonl"


def test_entries_come_back_as_they_went_in(path: Path) -> None:
    more = Entry(key(), {"BLOCK_I": 64}, 1.5, 2.0, "3.6.0", 7.0, {"tried": 12})
    add(path, [more])
    (found,) = read(path).entries.values()
    assert found == more
    assert found.more == {"tried": 12}


def test_no_file_holds_no_entries(path: Path) -> None:
    assert read(path).entries == {}
    assert not path.parent.exists()


def test_of_two_entries_for_one_key_the_later_stays(path: Path) -> None:
    add(path, [entry(rows=128, when=2.0)])
    add(path, [entry(rows=64, when=1.0)])
    assert read(path).entries[key()].config["BLOCK_I"] == 128
    add(path, [entry(rows=32, when=3.0)])
    assert read(path).entries[key()].config["BLOCK_I"] == 32


WRITER = """
import sys
from pathlib import Path
from attndsl.tuning.database import Entry, Key, add
first, path = int(sys.argv[1]), Path(sys.argv[2])
for n in range(first, first + 30):
    add(path, [Entry(Key("p", f"k-{n}", "g", "bf16", "e=64", "i=1"), {"BLOCK_I": 16}, 1.0, 1.0, "3.6.0", 1.0)])
    print(n, flush=True)
"""


def writer(first: int, path: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(first), str(path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_lose_nothing_of_each_other(path: Path) -> None:
    writers = [writer(first, path) for first in (0, 30)]
    assert [w.wait(60) for w in writers] == [0, 0]
    assert {int(k.kernel.split("-")[1]) for k in read(path).entries} == set(range(60))


def test_a_killed_writer_loses_at_most_what_it_had_not_finished(path: Path) -> None:
    for first in (0, 30, 60):
        doomed = writer(first, path)
        assert doomed.stdout is not None
        done = [int(doomed.stdout.readline()) for _ in range(5 + first // 10)]
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        found = read(path)
        assert not found.bad
        assert set(done) <= {int(k.kernel.split("-")[1]) for k in found.entries}
    # The dead process's lock is no obstacle.
    begin = time.monotonic()
    add(path, [entry(99)])
    assert time.monotonic() - begin < 5


def test_a_truncated_file_keeps_its_whole_lines(path: Path) -> None:
    add(path, [entry(n) for n in range(4)])
    text = path.read_text()
    path.write_text(text[:-40])
    found = read(path)
    assert len(found.entries) == 3
    assert len(found.bad) == 1
    add(path, [entry(9)])
    assert len(read(path).entries) == 4
    assert not read(path).bad
    # What could not be read is kept beside, and once.
    beside = path.with_name(f"{path.name}.unreadable")
    assert beside.read_text().splitlines() == found.bad


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[]",
        "3",
        json.dumps({"key": {}, "config": {}}),
        json.dumps({"key": {"program": "p"}, "config": {"BLOCK_I": 16}}),
        entry().line().replace("128", "-128"),
        entry().line().replace("128", '"128"'),
        "\x00" * 50,
    ],
)
def test_a_corrupt_line_harms_no_other(path: Path, line: str) -> None:
    add(path, [entry(1), entry(2)])
    with path.open("a") as file:
        file.write(line + "\n")
    found = read(path)
    assert len(found.entries) == 2
    assert found.bad == [line]


def test_bytes_that_are_no_text_harm_no_other_line(path: Path) -> None:
    add(path, [entry(1)])
    with path.open("ab") as file:
        file.write(b"\xff\xfe\x80\n")
    assert len(read(path).entries) == 1


def test_a_later_version_is_neither_read_nor_written(path: Path) -> None:
    path.parent.mkdir()
    text = json.dumps({database.HEAD: database.SCHEMA + 1}) + "\nwhat it may be\n"
    path.write_text(text)
    with pytest.raises(DatabaseError, match="of version 2"):
        read(path)
    with pytest.raises(DatabaseError, match="of version 2"):
        add(path, [entry()])
    assert path.read_text() == text


@pytest.mark.parametrize("head", ["", json.dumps({database.HEAD: 0}) + "\n"])
def test_an_older_file_is_read_and_becomes_one_of_this_version(path: Path, head: str) -> None:
    path.parent.mkdir()
    path.write_text(head + entry(1).line() + "\n")
    assert read(path).entries == {key(1): entry(1)}
    add(path, [entry(2)])
    assert json.loads(path.read_text().splitlines()[0]) == {database.HEAD: database.SCHEMA}
    assert len(read(path).entries) == 2
    assert not path.with_name(f"{path.name}.unreadable").exists()


def test_a_full_disk_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, [entry(1)])
    before = path.read_text()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        add(path, [entry(2)])
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir() if p.suffix == ".tmp"] == []
    store = Store([path], path)
    assert "No space" in store.add([entry(2)])
    # This process has it all the same.
    assert store.find(key(2), "3.6.0") == entry(2)
    assert store.find(key(1), "3.6.0") == entry(1)


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    unwritable = Path("/proc/attndsl/tuning.jsonl")  # not even by root
    store = Store([unwritable], unwritable)
    assert store.find(key(), "3.6.0") is None
    assert store.add([entry()]) != ""
    assert store.find(key(), "3.6.0") == entry()


def test_a_lock_that_is_held_is_not_waited_for_forever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    monkeypatch.setattr(database, "LOCK_SECONDS", 0.2)
    path.parent.mkdir()
    with (
        filelock.FileLock(f"{path}.lock"),
        pytest.raises(DatabaseError, match="another process has held it"),
    ):
        add(path, [entry()])


# --- layers ---


def test_the_nearest_layer_wins(tmp_path: Path) -> None:
    project, user = tmp_path / "project.jsonl", tmp_path / "user.jsonl"
    add(project, [entry(0, rows=16)])
    add(user, [entry(0, rows=32, when=9.0), entry(1, rows=64)])
    store = Store([project, user], user)
    assert store.find(key(0), "3.6.0") == entry(0, rows=16)
    assert store.find(key(1), "3.6.0") == entry(1, rows=64)
    assert store.find(key(2), "3.6.0") is None


def test_the_user_goes_before_the_project_and_both_before_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, project, shipped = (tmp_path / n / "tuning.jsonl" for n in ("user", "project", "shipped"))
    for place, (path, count) in enumerate(((user, 1), (project, 2), (shipped, 3))):
        add(path, [entry(n, rows=16 << place, when=float(place)) for n in range(count)])
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", str(user.parent))
    monkeypatch.setenv(layers.PROJECT_ENV, str(project))
    monkeypatch.setattr(layers, "shipped_file", lambda: shipped)
    found = layers.store.__wrapped__()
    configs = [found.find(key(n), "3.6.0") for n in range(4)]
    assert [e and e.config["BLOCK_I"] for e in configs] == [16, 32, 64, None]


def test_another_compiler_has_no_entry(tmp_path: Path) -> None:
    user = tmp_path / "user.jsonl"
    add(user, [entry()])
    store = Store([user], user)
    assert store.find(key(), "3.7.0") is None
    assert store.find(key(bucket="programs=64 i=2048 j=2048"), "3.7.0") is None


def test_lengths_that_are_near_share_an_entry(tmp_path: Path) -> None:
    user = tmp_path / "user.jsonl"
    add(user, [entry()])
    store = Store([user], user)
    assert store.find(key(bucket="programs=64 i=2048 j=8192"), "3.6.0") == entry()
    assert store.find(key(bucket="programs=64 i=64 j=64"), "3.6.0") is None
    assert store.find(key(bucket="programs=64 i=4096"), "3.6.0") is None
    assert store.find(key(gpu="NVIDIA A100"), "3.6.0") is None
    assert store.find(key(dims="e=64 f=64"), "3.6.0") is None


def test_the_nearest_lengths_are_taken(tmp_path: Path) -> None:
    user = tmp_path / "user.jsonl"
    near, far = ("programs=64 i=2048 j=2048", "programs=64 i=1024 j=1024")
    for bucket, rows in ((far, 16), (near, 32)):
        add(user, [Entry(key(bucket=bucket), {"BLOCK_I": rows}, 1, 1, "3.6.0", 1.0)])
    found = Store([user], user).find(key(), "3.6.0")
    assert found is not None
    assert found.config["BLOCK_I"] == 32
    assert doublings(key(bucket=near), key()) == 2.0


def test_an_unusable_file_is_said_once_and_holds_nothing(tmp_path: Path) -> None:
    later, user = tmp_path / "later.jsonl", tmp_path / "user.jsonl"
    later.write_text(json.dumps({database.HEAD: 99}) + "\n")
    add(user, [entry()])
    store = Store([later, user], user)
    with pytest.warns(UserWarning, match="of version 99"):
        assert store.find(key(), "3.6.0") == entry()
    assert store.find(key(), "3.6.0") == entry()


def test_the_text_of_a_file_does_not_depend_on_the_order(tmp_path: Path) -> None:
    entries = [entry(n) for n in range(5)]
    assert text_of(entries) == text_of(reversed(entries))
