"""What `attndsl tune` does, without its printing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attndsl.callerrors import CallError
from attndsl.frontend import load_cascades
from attndsl.frontend.picking import pick
from attndsl.frontend.reading import read_source
from attndsl.tuning.machine import Machine, machine_of
from attndsl.tuning.search import Report
from attndsl.tuning.tune import Found, sizes_at, tune

CARRY = "tune where the kernels will run, and carry the result with `--export` and `--import`"


def this_machine(program: str, help: str = CARRY) -> Machine:
    """The GPU of this process.

    Raises: CallError (A0520) if there is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise CallError(
            "A0520",
            f"{program}: there is no GPU to measure on",
            help=help,
        )
    return machine_of(torch.cuda.get_device_properties(torch.cuda.current_device()))


def tune_file(
    path: Path,
    name: str | None,
    *,
    extents: Mapping[str, int],
    dtype: str,
    seconds: float,
    backward: bool,
    workers: int,
    report: Report,
    specialise: bool = False,
) -> list[Found]:
    """Tune one attention of a file.

    Raises: DiagnosticError if it is refused, CallError if `extents` do not fit it or there is no GPU.
    """
    from attndsl.runtime.tuned import triton_version

    source = read_source(path)
    cascade = pick(load_cascades(source), name, source)
    machine = this_machine(cascade.name)
    return tune(
        cascade,
        sizes_at(cascade, extents),
        dtype,
        machine,
        seconds=seconds,
        backward=backward,
        triton=triton_version(),
        workers=workers,
        report=report,
        specialise=specialise,
    )
