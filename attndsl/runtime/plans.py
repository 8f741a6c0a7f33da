"""Programs that another process planned: a first call need not plan again what is known on disk.

    known = recall(key)             # (passes, text of the generated module), or None
    remember(key, passes, text)

A file is named by a digest of the program with its places in the source, of what is asked of it, and of attndsl itself:
a change to either finds no file. What cannot be read or written is planned anew, and no more is said.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attndsl import __version__
from attndsl.cascade.nodes import Cascade
from attndsl.runtime.cache import cache_dir

if TYPE_CHECKING:
    from attndsl.runtime.stages import Passes


def key_of(cascade: Cascade, *asked: Any) -> str:
    """The name of a program's plan; `asked` is whatever else it depends on."""
    return hashlib.sha256(pickle.dumps((cascade, asked, compiler()))).hexdigest()[:24]


def recall(key: str) -> tuple[Passes, str] | None:
    """What was remembered under a key."""
    try:
        passes, text = pickle.loads(_file(key).read_bytes())
    except Exception:  # cut short, or written by something else: it is planned anew
        return None
    return passes, text


def remember(key: str, passes: Passes, text: str) -> None:
    """Keep a plan for other processes."""
    path = _file(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Readers see all of it or nothing.
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{key}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(pickle.dumps((passes, text)))
        Path(partial).replace(path)
    except OSError:
        return


def _file(key: str) -> Path:
    return cache_dir() / "plans" / f"{key}.plan"


@cache
def compiler() -> str:
    """What plans depend on besides the program: every file of attndsl, as far as its time and size tell."""
    from attndsl.resources import resource_dir

    parts = [__version__, sys.version]
    for top in (Path(__file__).parents[1], resource_dir("templates")):
        for folder, inner, names in os.walk(top):
            inner.sort()
            for name in sorted(names):
                if name.endswith((".py", ".jinja")):
                    found = (Path(folder) / name).stat()
                    parts.append(f"{name} {found.st_mtime_ns} {found.st_size}")
    return "\n".join(parts)
