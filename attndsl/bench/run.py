"""A comparison: the same inputs to every peer, errors against float64 on the same call, then times; ratios first.

for row in compare(cascade, [{"i": 4096, "j": 4096}], ("flex", "sdpa"), dtype="bf16", device="cuda"):
    row.ratio         # how many times faster than the peer the program is, forward

`bench.apart` does the same with each in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attndsl.analysis.score_mask import Inexpressible
from attndsl.bench.peers import Absent, Ready, Setup, floats, peer
from attndsl.bench.together import together
from attndsl.cascade.nodes import Cascade
from attndsl.cascade.starts import START
from attndsl.runtime.operator import CompiledAttention
from attndsl.runtime.stages import plan_passes
from attndsl.runtime.starts import with_start
from attndsl.schedule.cost import costs
from attndsl.testing import make_inputs
from attndsl.tuning.problem import BYTES, LONG
from attndsl.tuning.tune import sizes_at

OURS = "attndsl"

Timer = Callable[[Callable[[], Any]], float]
"""Milliseconds of a call."""


@dataclass(frozen=True, slots=True)
class Row:
    """One peer at one size. Times in ms; `ratio`s are the peer's time over ours; `error` is relative, of the output.

    `note` says why there are no figures, where there are none.
    """

    program: str
    who: str
    shape: dict[str, int]
    dtype: str
    forward_ms: float | None = None
    backward_ms: float | None = None
    ratio: float | None = None
    backward_ratio: float | None = None
    tflops: float | None = None
    tb_s: float | None = None
    error: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what there is."""
        return {k: v for k, v in asdict(self).items() if v not in (None, "")}


@dataclass(frozen=True, slots=True)
class Case:
    """One size of a comparison: inputs, and the operations and bytes that a call is."""

    setup: Setup
    shape: dict[str, int]
    dtype: str
    work: tuple[int, int]

    def row(self, who: str, note: str = "") -> Row:
        """A row without figures."""
        return Row(self.setup.op.name, who, self.shape, self.dtype, note=note)


def compare(
    cascade: Cascade,
    shapes: Sequence[Mapping[str, int]],
    against: Sequence[str],
    *,
    dtype: str = "bf16",
    device: str = "cuda",
    backward: bool = True,
    timer: Timer | None = None,
    report: Callable[[str], None] = lambda step: None,
) -> Iterator[Row]:
    """A row for the program and for each peer, at each size, as it is known; all of it in this process.

    Raises: DiagnosticError if the program is refused, CallError if a shape does not fit it.
    """
    op = CompiledAttention(cascade)
    for shape in shapes:
        case = case_at(op, dict(shape), dtype, device)
        exact, mine = exact_of(case), None
        for who in (OURS, *against):
            report(f"{who} {' '.join(f'{k}={v}' for k, v in case.shape.items())}")
            try:
                call = ready(who, case)
                row = measured(who, case, call, exact, backward, timer or milliseconds)
            except (
                Exception
            ) as error:  # a peer that fails is recorded, not hidden; ours is not forgiven
                if who == OURS:
                    raise
                row = case.row(who, reason(error))
            mine = mine or row
            yield beside(row, mine)


def milliseconds(run: Callable[[], Any]) -> float:
    """Median time of a call, the L2 cache flushed between repeats."""
    from triton.testing import do_bench

    return float(do_bench(run, warmup=25, rep=100, return_mode="median"))


def case_at(op: CompiledAttention, shape: dict[str, int], dtype: str, device: str) -> Case:
    """Random inputs of a size, the same in every process.

    Raises: DiagnosticError if the program is refused, CallError if the shape does not fit it.
    """
    at = sizes_at(op.cascade, shape)
    start = int(at.params.get(START, 0))
    params = {n: v for n, v in at.params.items() if n != START}
    inputs = make_inputs(
        op,
        at.extents,
        params=params,
        dtype=getattr(torch, LONG[dtype]),
        device=device,
        generator=torch.Generator(device=device).manual_seed(0),
    )
    shown = {r: n for r, n in at.extents.items() if r.isalpha()}
    size = work(op.cascade, at.extents, at.params, dtype)
    return Case(Setup(op, inputs, at.extents, params, start), shown, dtype, size)


def ready(who: str, case: Case) -> Ready:
    """A peer, or the program, ready to run.

    Raises: Absent, Inexpressible.
    """
    return Ready(case.setup.ours, floats(case.setup)) if who == OURS else peer(who, case.setup)


def warm(call: Ready, backward: bool) -> None:
    """Run both passes once, so that what compiles at a first call has been compiled; a pass that fails, fails again."""
    with together():
        with torch.no_grad():
            call()
        if backward:
            with suppress(Exception), graded(call) as back:
                back()


def measured(
    who: str,
    case: Case,
    call: Ready,
    exact: Tensor,
    backward: bool,
    timer: Timer,
    part: Callable[[Row], None] = lambda row: None,
) -> Row:
    """The row of a peer; `part` is told what is known after the forward pass."""
    with torch.no_grad():
        error = _relative(call(), exact)
        ms = timer(call)
    flops, moved = case.work
    tflops, tb_s = flops / ms * 1e-9, moved / ms * 1e-9
    row = replace(case.row(who), forward_ms=ms, error=error, tflops=tflops, tb_s=tb_s)
    if not backward:
        return row
    part(row)
    try:
        with graded(call) as back:
            return replace(row, backward_ms=timer(back))
    except Exception as why:  # a peer without a backward pass says why
        if who == OURS:
            raise
        return replace(row, note=f"backward failed: {_shortly(why)}")


def beside(row: Row, mine: Row) -> Row:
    """A row with the ratios of its times to ours."""
    if row.who == OURS:
        return row
    pairs = ((row.forward_ms, mine.forward_ms), (row.backward_ms, mine.backward_ms))
    forward, backward = (a / b if a and b else None for a, b in pairs)
    return replace(row, ratio=forward, backward_ratio=backward)


def reason(error: Exception) -> str:
    """Why there are no figures."""
    match error:
        case Absent():
            return f"absent: {error}"
        case Inexpressible():
            return f"cannot express: {error}"
        case _:
            return f"failed: {_shortly(error)}"


def _shortly(error: Exception) -> str:
    """The first line, with room for which version a peer wants: that comes at the end of a sentence."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def exact_of(case: Case) -> Tensor:
    """The output in float64, by the eager kernels: they need memory for tiles only."""
    setup = case.setup
    wide = {n: x.double() if x.is_floating_point() else x for n, x in setup.inputs.items()}
    eager = CompiledAttention(setup.cascade, backend="eager")
    with torch.no_grad():
        return Setup(eager, wide, setup.extents, setup.params, setup.start).ours()


@contextmanager
def graded(call: Ready) -> Iterator[Callable[[], Any]]:
    """The backward pass of a call; its graph is kept from one run to the next."""
    for x in call.leaves:
        x.requires_grad_()
    try:
        out = call()
        up = torch.randn_like(out)

        def back() -> Any:
            # A peer may keep inputs out of its graph: a bias inside a score function, for one.
            return torch.autograd.grad(out, call.leaves, up, retain_graph=True, allow_unused=True)

        yield back
    finally:
        for x in call.leaves:
            x.requires_grad_(False)


def _relative(out: Tensor, exact: Tensor) -> float:
    """‖out - exact‖ / ‖exact‖, where the exact output has a value."""
    gap = out.double() - exact
    size = float(exact.norm())
    return float(gap.norm()) / size if size else math.nan


def work(
    cascade: Cascade, extents: Mapping[str, int], params: Mapping[str, Any], dtype: str
) -> tuple[int, int]:
    """Operations of the products over the tiles that are visited, and bytes of all inputs and outputs, once."""
    kind = "int" if START in params else "none"
    plan = plan_passes(with_start(cascade, kind), ()).forward  # type: ignore[arg-type]
    found = costs(plan, extents, params, BYTES[dtype])
    return sum(c.flops for c in found), sum(c.moved for c in found)
