"""Generated modules on disk: written once, imported from there.

A file, rather than `exec`, so that tracebacks and debuggers show the generated lines, and because
Triton reads the source of its kernels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

ENV = "ATTNDSL_CACHE_DIR"

_lock = threading.Lock()
_modules: dict[Path, ModuleType] = {}


def cache_dir() -> Path:
    """The folder of generated modules: `$ATTNDSL_CACHE_DIR`, or the user's cache directory."""
    given = os.environ.get(ENV)
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("attndsl", appauthor=False))


def load_module(text: str, name: str) -> ModuleType:
    """The module with this text; it is written and imported at most once in a process.

    The file is named by a hash of the text, so a stale one is never read. Where the cache directory
    cannot be written, a temporary one is used.
    """
    path = store_module(text, name)
    with _lock:
        if path not in _modules:
            _modules[path] = _import(path)
        return _modules[path]


def store_module(text: str, name: str) -> Path:
    """The file of the module with this text, which is not imported."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    stem = f"{re.sub(r'[^A-Za-z0-9_]', '_', name)[:80]}_{digest}"  # file systems take 255 bytes
    with _lock:
        try:
            return _write(cache_dir(), stem, text)
        except OSError:
            return _write(_fallback(), stem, text)


def _write(folder: Path, stem: str, text: str) -> Path:
    path = folder / f"{stem}.py"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        folder.mkdir(parents=True, exist_ok=True)
        # Readers see the old file or the new one, never a part: the rename is atomic.
        handle, partial = tempfile.mkstemp(dir=folder, prefix=f".{stem}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    return path


_temporary: tempfile.TemporaryDirectory[str] | None = None


def _fallback() -> Path:
    global _temporary
    if _temporary is None:
        _temporary = tempfile.TemporaryDirectory(prefix="attndsl-")
    return Path(_temporary.name)


def _import(path: Path) -> ModuleType:
    name = f"attndsl_generated.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Triton and pickle look kernels up by module name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
