"""Where entries are looked for, nearest first: this process, the user's file, the project's, the shipped defaults.

    store().find(key)                 # the entry for these lengths, or for the nearest that are known
    store().add(entries)              # into the user's cache; on trouble they are kept in this process, with a warning

The user's goes first: it was measured on this machine, and who has tuned here means it to count. The project's file is
`attndsl-tuning.jsonl` in the working directory or above, or `$ATTNDSL_TUNING_FILE`.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from attndsl.tuning.database import DatabaseError, Entry, Key, add, read

PROJECT_FILE = "attndsl-tuning.jsonl"
PROJECT_ENV = "ATTNDSL_TUNING_FILE"
# A configuration found at other lengths serves up to so many doublings away, all lengths together.
DOUBLINGS = 4


class Store:
    """The files of one process, read once."""

    def __init__(self, layers: Iterable[Path], user: Path) -> None:
        self.user = user
        self.layers = tuple(layers)
        self.own: dict[Key, Entry] = {}
        self.lock = threading.Lock()
        self.version = 0
        """Counts additions, so that what was looked up before can be known to be old."""
        self._read: list[Mapping[Key, Entry]] | None = None

    def tables(self) -> list[Mapping[Key, Entry]]:
        """Entries by key, the nearest layer first."""
        with self.lock:
            if self._read is None:
                self._read = [_readable(p) for p in self.layers]
            return [self.own, *self._read]

    def find(self, key: Key, triton: str) -> Entry | None:
        """The entry for a key, found with this compiler; else that of the nearest bucket in the nearest layer."""
        for table in self.tables():
            exact = table.get(key)
            if exact is not None and exact.triton == triton:
                return exact
        for table in self.tables():
            near = [
                (gap, k.bucket, e)
                for k, e in table.items()
                if e.triton == triton and (gap := doublings(k, key)) is not None
            ]
            if near:
                return min(near, key=lambda x: x[:2])[2]
        return None

    def has(self, key: Key, triton: str) -> bool:
        """Whether there is an entry for exactly this key."""
        found = (t.get(key) for t in self.tables())
        return any(e is not None and e.triton == triton for e in found)

    def add(self, entries: Iterable[Entry]) -> str:
        """Keep entries, in the user's file and in this process; what stood against writing, or nothing."""
        entries = list(entries)
        with self.lock:
            self.own.update((e.key, e) for e in entries)
            self.version += 1
        try:
            add(self.user, entries)
        except (DatabaseError, OSError) as error:
            return str(error)
        return ""


def doublings(a: Key, b: Key) -> float | None:
    """How far apart the lengths of two keys are, where they agree in all else; None if too far."""
    if (a.program, a.kernel, a.gpu, a.dtypes, a.dims) != (
        b.program,
        b.kernel,
        b.gpu,
        b.dtypes,
        b.dims,
    ):
        return None
    x, y = (dict(part.split("=") for part in k.bucket.split()) for k in (a, b))
    if x.keys() != y.keys():
        return None
    gap = sum(abs(math.log2(max(1, int(x[r])) / max(1, int(y[r])))) for r in x)
    return gap if gap <= DOUBLINGS else None


def _readable(path: Path) -> Mapping[Key, Entry]:
    """A layer's entries; a file that cannot be used is said so once, and holds none."""
    try:
        found = read(path)
    except (DatabaseError, OSError) as error:
        warnings.warn(f"attndsl: tuned configurations are not used: {error}", stacklevel=2)
        return {}
    if found.bad:
        count = len(found.bad)
        warnings.warn(
            f"attndsl: {path}: {count} line{'s' * (count > 1)} cannot be read and are left alone",
            stacklevel=2,
        )
    return found.entries


def user_file() -> Path:
    """The user's file, in the cache directory."""
    from attndsl.runtime.cache import cache_dir

    return cache_dir() / "tuning.jsonl"


def project_file() -> Path | None:
    """The project's file, if there is one."""
    given = os.environ.get(PROJECT_ENV)
    if given:
        return Path(given)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder / PROJECT_FILE
        if (folder / ".git").exists():
            break
    return None


def shipped_file() -> Path:
    """The defaults that come with the package."""
    return Path(__file__).with_name("defaults.jsonl")


@cache
def store() -> Store:
    """The store of this process."""
    project = project_file()
    layers = (user_file(), *(() if project is None else (project,)), shipped_file())
    return Store(layers, user_file())
