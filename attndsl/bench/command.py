"""What `attndsl bench` does, without its printing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from attndsl.analysis.ranks import Kind, classify
from attndsl.bench.apart import Job, apart
from attndsl.bench.run import Row, work
from attndsl.cascade.nodes import Cascade, Index
from attndsl.frontend import load_cascades
from attndsl.frontend.picking import pick
from attndsl.frontend.reading import read_source
from attndsl.tuning.command import this_machine
from attndsl.tuning.tune import sizes_at

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
    limit: float,
    report: Callable[[str], None],
) -> Generator[Row, None, None]:
    """Compare one attention of a file with its peers; rows come as soon as they are known.

    Raises: DiagnosticError if it is refused, CallError if a shape does not fit it or there is no GPU.
    """
    source = read_source(path)
    cascade = pick(load_cascades(source), name, source)
    this_machine(cascade.name, ELSEWHERE)
    shapes = [{**extents, **dict.fromkeys(sequences(cascade), n)} for n in lengths]
    shapes = shapes or [dict(extents)]
    for shape in shapes:  # what is refused is refused here, not in a process of its own
        at = sizes_at(cascade, shape)
        work(cascade, at.extents, at.params, dtype)
    yield from apart(
        Job(cascade, shapes, dtype, backward=backward), against, limit=limit, report=report
    )


def sequences(cascade: Cascade) -> list[str]:
    """The declared indices that are lengths."""
    ranks = classify(cascade)
    declared = (d.name for t in cascade.inputs for d in t.dims if isinstance(d, Index))
    return [r for r in dict.fromkeys(declared) if ranks.kind(r) is Kind.SEQUENCE]
