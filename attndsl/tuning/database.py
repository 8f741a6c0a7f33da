"""What tuning found, in files: one line of JSON for each entry.

    {"attndsl tuning": 1}
    {"key": {"program": "f3f3…", "kernel": "causal-5d1c…", …}, "config": {"BLOCK_I": 128, …}, "ms": 0.412, …}

A line for each entry, so that a file cut short loses what was cut and nothing more, and a diff of a project's file
shows what changed. Writers take a lock, merge what they have into what is there, and replace the file in one step: a
process that is killed leaves the old file or the new one, and two at once lose nothing of each other's. Lines that
cannot be read are kept beside, never thrown away. A file of a later version is neither read nor written.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
HEAD = "attndsl tuning"
# Long enough for any writer, and short enough that a dead machine's lock on a network disk does not hold up a run.
LOCK_SECONDS = 10.0


class DatabaseError(Exception):
    """A file that cannot be used, with the reason; what it holds is left as it is."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What an entry is for.

    `kernel` is its name and a digest of what its tile sizes depend on, `dims` the extents of whole axes (head dims),
    `bucket` the lengths rounded up to powers of two.
    """

    program: str
    kernel: str
    gpu: str
    dtypes: str
    dims: str
    bucket: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A configuration with its time and that of the default, in ms; `triton` is the compiler it was found with."""

    key: Key
    config: Mapping[str, int]
    ms: float
    default_ms: float
    triton: str
    when: float = 0.0
    """Seconds since 1970."""
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What else was noted: versions, how many candidates were tried."""

    def line(self) -> str:
        """The entry as it is written."""
        key = {k: getattr(self.key, k) for k in Key.__slots__}
        rest = {k: getattr(self, k) for k in ("ms", "default_ms", "triton", "when")}
        return json.dumps({"key": key, "config": dict(self.config), **rest, **self.more})


@dataclass(slots=True)
class Contents:
    """What a file held: entries, and lines that are none."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)


def parse(text: str, where: str = "") -> Contents:
    """The entries of a file's text.

    Raises: DatabaseError if it is of a later version.
    """
    out = Contents()
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if isinstance(value, dict) and HEAD in value:
                if int(value[HEAD]) > SCHEMA:
                    raise DatabaseError(
                        f"{where}: of version {value[HEAD]}, and this attndsl reads up to {SCHEMA}"
                    )
                continue
            entry = entry_of(value)
        except (ValueError, TypeError, KeyError, AttributeError):
            out.bad.append(line)
        else:
            out.entries[entry.key] = entry
    return out


def entry_of(value: Any) -> Entry:
    """An entry from its JSON.

    Raises: ValueError, TypeError or KeyError if it is none.
    """
    value = dict(value)
    key = Key(**{k: str(v) for k, v in value.pop("key").items()})
    config = {str(k): v for k, v in value.pop("config").items()}
    if not config or not all(type(v) is int and 0 < v <= 1 << 20 for v in config.values()):
        raise ValueError("a configuration holds positive integers")
    numbers = {k: float(value.pop(k)) for k in ("ms", "default_ms", "when")}
    return Entry(key, config, triton=str(value.pop("triton")), more=value, **numbers)


def text_of(entries: Iterable[Entry]) -> str:
    """A file's text: its version, then the entries in a fixed order."""
    lines = [json.dumps({HEAD: SCHEMA}), *(e.line() for e in sorted(entries, key=lambda e: e.key))]
    return "\n".join(lines) + "\n"


def merged(old: Mapping[Key, Entry], new: Mapping[Key, Entry]) -> dict[Key, Entry]:
    """Both; of two for one key the later, since cards and compilers change under it."""
    out = dict(old)
    for key, entry in new.items():
        if key not in out or entry.when >= out[key].when:
            out[key] = entry
    return out


def read(path: Path) -> Contents:
    """A file's entries; none if there is no file.

    Raises: DatabaseError if it is of a later version, OSError if it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Contents()
    return parse(data.decode("utf-8", errors="replace"), str(path))


def add(path: Path, entries: Iterable[Entry]) -> dict[Key, Entry]:
    """Merge entries into a file, which is made if need be; what it then holds.

    Raises: DatabaseError if the file is of a later version or another process holds it too long; OSError if it cannot
    be written. The file is then as it was.
    """
    import filelock

    path = path.resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock")
    try:
        with lock.acquire(timeout=LOCK_SECONDS):
            found = read(path)
            if found.bad:
                _keep(path, found.bad)
            together = merged(found.entries, {e.key: e for e in entries})
            _replace(path, text_of(together.values()))
            return together
    except filelock.Timeout:
        raise DatabaseError(
            f"{path}: another process has held it for {LOCK_SECONDS:.0f} s"
        ) from None


def _keep(path: Path, lines: list[str]) -> None:
    """Lines that could not be read, beside the file; the same line once."""
    beside = path.with_name(f"{path.name}.unreadable")
    seen = set(beside.read_text(encoding="utf-8").splitlines()) if beside.is_file() else set()
    fresh = [x for x in lines if x not in seen]
    if fresh:
        with beside.open("a", encoding="utf-8") as file:
            file.write("\n".join(fresh) + "\n")


def _replace(path: Path, text: str) -> None:
    """The new text in one step, on the disk before it is in place."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(partial).unlink(missing_ok=True)
        raise


def now() -> float:
    """Seconds since 1970, for `Entry.when`."""
    return round(time.time(), 3)
