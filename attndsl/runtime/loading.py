"""Programs from files and strings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable

from attndsl.diagnostics import Diagnostic, DiagnosticError, render
from attndsl.frontend import check
from attndsl.frontend.picking import pick
from attndsl.frontend.reading import read_source
from attndsl.runtime.operator import CompiledAttention
from attndsl.source import Source


def load(
    path: str | os.PathLike[str],
    name: str | None = None,
    backend: str | None = None,
    *,
    autotune: str = "never",
    deterministic: bool = True,
    precision: str = "split",
) -> CompiledAttention:
    """The operator of a program in a file.

        op = attndsl.load("examples/alibi.attn")
        o, lse = op(q, k, v, slope)

    `name` picks an attention of the file; it may be left out if there is one. By default CUDA
    tensors are served by generated Triton kernels, and on compute capability 9.0 by warp-specialised ones for the
    passes and shapes that those were measured faster for; CPU tensors by tiled PyTorch. `backend` asks for one: "auto"
    (the default), "triton" (portable kernels alone), "hopper" (warp-specialised kernels wherever `attndsl explain`
    says that a program has them), "eager".
    With `autotune="once"` the first call of a kind that nothing is known about searches for its tiles (30 s), and
    every later process finds them; with "always" every process searches; "never" uses what `attndsl tune` found.
    With `deterministic=False`, gradients may be added up in memory by "auto" and "hopper" in the order in which tiles
    come, where that is faster: a repeat may differ in the last bits. `torch.use_deterministic_algorithms` forbids it.
    Products of float32 are sums of six products of bfloat16 parts, on matrix units and as near as IEEE's; with
    `precision="ieee"` they are IEEE's, on ordinary cores.

    What `attndsl check` warns of is shown as a `UserWarning`.

    Raises: DiagnosticError if the program is refused, OSError if the file cannot be read.
    """
    return _operator(read_source(path), name, backend, autotune, deterministic, precision)


def compile(
    text: str,
    name: str | None = None,
    backend: str | None = None,
    *,
    autotune: str = "never",
    deterministic: bool = True,
    precision: str = "split",
) -> CompiledAttention:
    """The operator of a program in a string; otherwise as `load`."""
    if not isinstance(text, str):
        raise TypeError(f"the text of a program is needed, and {type(text).__name__} came")
    # A byte order mark is no part of a text.
    source = Source("<string>", text.removeprefix("\ufeff"))
    return _operator(source, name, backend, autotune, deterministic, precision)


def _operator(
    source: Source,
    name: str | None,
    backend: str | None,
    autotune: str,
    deterministic: bool,
    precision: str,
) -> CompiledAttention:
    result = check(source)
    if not result.ok:
        raise DiagnosticError(result.diagnostics)
    tell(result.diagnostics, 4)
    cascade = pick(result.cascades, name, source)
    header = f"source: {source.name}"
    return CompiledAttention(
        cascade,
        backend=backend,
        header=header,
        autotune=autotune,
        deterministic=deterministic,
        precision=precision,
    )


def tell(findings: Iterable[Diagnostic], depth: int) -> None:
    """What `attndsl check` warns of, as warnings of Python's; `depth` says whose line they are shown with."""
    for x in findings:
        warnings.warn(f"\n{render(x)}", stacklevel=depth)
