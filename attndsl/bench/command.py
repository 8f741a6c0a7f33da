"""What `attndsl bench` does, without its printing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attndsl.analysis.ranks import Kind, classify
from attndsl.bench.run import Row, compare
from attndsl.cascade.nodes import Cascade, Index
from attndsl.frontend import load_cascades
from attndsl.frontend.picking import pick
from attndsl.frontend.reading import read_source
from attndsl.tuning.command import this_machine

ELSEWHERE = "run it where the kernels will; `attndsl explain` gives costs and bounds without a GPU"


def bench_file(
    path: Path,
    name: str | None,
    *,
    against: Sequence[str],
    extents: Mapping[str, int],
    lengths: Sequence[int],
    dtype: str,
    backward: bool,
    report: Callable[[str], None],
) -> list[Row]:
    """Compare one attention of a file with its peers.

    Raises: DiagnosticError if it is refused, CallError if a shape does not fit it or there is no GPU.
    """
    source = read_source(path)
    cascade = pick(load_cascades(source), name, source)
    this_machine(cascade.name, ELSEWHERE)
    shapes = [{**extents, **dict.fromkeys(sequences(cascade), n)} for n in lengths]
    return compare(
        cascade, shapes or [extents], against, dtype=dtype, backward=backward, report=report
    )


def sequences(cascade: Cascade) -> list[str]:
    """The declared indices that are lengths."""
    ranks = classify(cascade)
    declared = (d.name for t in cascade.inputs for d in t.dims if isinstance(d, Index))
    return [r for r in dict.fromkeys(declared) if ranks.kind(r) is Kind.SEQUENCE]
