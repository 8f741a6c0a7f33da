"""The programs of the CUDA toolkit that Triton ships, and which of its assemblers our kernels go through.

    with sound_assembler():
        kernel = triton.compile(source, target=target)

Triton 3.6 assembles for Hopper with CUDA 12.8's `ptxas`, which sometimes makes a product's descriptor of a register
that holds something else (`descriptors.misread`), and ships CUDA 12.9's beside it, for later cards, which was never
seen to. Imports nothing of this package: workers read it as a file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SOUND = (12, 9)
"""The first version of `ptxas` that was never seen to misread descriptors."""


def tool(name: str) -> str:
    """The path of a program, such as `cuobjdump`."""
    from triton import knobs

    return str(getattr(knobs.nvidia, name).path)


_LOCK = threading.Lock()
_inside: list[Any] = []
"""The path of the assembler, once for each that is inside; the last to leave gives the choice back to Triton."""


@contextmanager
def sound_assembler() -> Iterator[None]:
    """Kernels compiled meanwhile are assembled by a version that is sound, where Triton has one.

    One that the user chose (`TRITON_PTXAS_PATH`, `triton.knobs.nvidia.ptxas`) stays. Other kernels of the process keep
    Triton's choice, but for those that another thread compiles meanwhile. The version is part of the key by which
    Triton keeps kernels on disk, so what was compiled before is not taken for it.
    """
    with _LOCK:
        better = _inside[-1] if _inside else _better()
        if better is not None:
            _inside.append(better)
            if len(_inside) == 1:
                _choose(better)
    try:
        yield
    finally:
        with _LOCK:
            if better is not None:
                _inside.pop()
                if not _inside:
                    _choose(None)


def _choose(path: str | None) -> None:
    """Have Triton assemble by this program; None for its own choice."""
    from triton import knobs
    from triton.backends.nvidia.compiler import get_ptxas_version

    if path is None:
        del knobs.nvidia.ptxas
    else:
        vars(knobs.nvidia)["ptxas"] = (
            path  # setting it would tell child processes too, by their environment
        )
    get_ptxas_version.cache_clear()


def _better() -> str | None:
    """The assembler to take in place of Triton's usual one; None where that is sound, chosen, or the only one."""
    from triton import knobs

    if "TRITON_PTXAS_PATH" in os.environ or "ptxas" in vars(knobs.nvidia):
        return None
    try:
        usual, other = knobs.nvidia.ptxas, knobs.nvidia.ptxas_blackwell
    except (AttributeError, RuntimeError):  # a Triton without a second one, or without any
        return None
    return str(other.path) if _version(usual) < SOUND <= _version(other) else None


def _version(assembler: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in str(assembler.version).split("."))
