"""Programs from files and strings."""

from __future__ import annotations

import os

from attndsl.cascade.nodes import Cascade
from attndsl.diagnostics import Diagnostic, DiagnosticError, did_you_mean
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.runtime.operator import CompiledAttention
from attndsl.source import Source


def load(
    path: str | os.PathLike[str], name: str | None = None, backend: str | None = None
) -> CompiledAttention:
    """The operator of a program in a file.

        op = attndsl.load("examples/alibi.attn")
        o, lse = op(q, k, v, slope)

    `name` picks an attention of the file; it may be left out if there is one. `backend` is "triton"
    or "eager"; by default CUDA tensors take the first and CPU tensors the second.

    Raises: DiagnosticError if the program is refused, OSError if the file cannot be read.
    """
    return _operator(read_source(path), name, backend)


def compile(text: str, name: str | None = None, backend: str | None = None) -> CompiledAttention:
    """The operator of a program in a string; otherwise as `load`."""
    return _operator(Source("<string>", text), name, backend)


def _operator(source: Source, name: str | None, backend: str | None) -> CompiledAttention:
    cascade = pick(load_cascades(source), name, source)
    return CompiledAttention(cascade, backend=backend, header=f"source: {source.name}")


def pick(cascades: tuple[Cascade, ...], name: str | None, source: Source) -> Cascade:
    """The attention called `name`, or the only one."""
    names = [c.name for c in cascades]
    listed = ", ".join(f"`{n}`" for n in names)
    if name is None:
        if len(cascades) == 1:
            return cascades[0]
        title = (
            "no attention in this program" if not names else "several attentions in this program"
        )
        help = f"pass `name=`, one of {listed}" if names else "write `attention NAME(…) -> … { … }`"
        raise DiagnosticError(Diagnostic("A0201", f"{source.name}: {title}", help=help))
    if name not in names:
        help = did_you_mean(name, names) or f"there are {listed}"
        raise DiagnosticError(
            Diagnostic("A0201", f"{source.name}: there is no attention `{name}`", help=help)
        )
    return cascades[names.index(name)]
