"""A comparison: the same inputs to every peer, errors against float64 on the same call, then times; ratios first.

rows = compare(cascade, [{"i": 4096, "j": 4096}], ("flex", "sdpa"), dtype="bf16", device="cuda")
rows[0].ratio         # how many times faster than the peer the program is, forward
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from attndsl.analysis.score_mask import Inexpressible
from attndsl.bench.peers import Absent, Ready, Setup, floats, peer
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
) -> list[Row]:
    """A row for the program and for each peer, at each size.

    Raises: DiagnosticError if the program is refused, CallError if a shape does not fit it.
    """
    op = CompiledAttention(cascade)
    out: list[Row] = []
    for shape in shapes:
        out += _at(op, dict(shape), against, dtype, device, backward, timer or milliseconds, report)
    return out


def milliseconds(run: Callable[[], Any]) -> float:
    """Median time of a call, the L2 cache flushed between repeats."""
    from triton.testing import do_bench

    return float(do_bench(run, warmup=25, rep=100, return_mode="median"))


def _at(
    op: CompiledAttention,
    shape: dict[str, int],
    against: Sequence[str],
    dtype: str,
    device: str,
    backward: bool,
    timer: Timer,
    report: Callable[[str], None],
) -> list[Row]:
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
    setup = Setup(op, inputs, at.extents, params, start)
    exact = _exact(setup)
    work = _work(op.cascade, at.extents, at.params, BYTES[dtype])
    rows: list[Row] = []
    for who in (OURS, *against):
        report(f"{who} {' '.join(f'{k}={v}' for k, v in shown.items())}")
        try:
            call = Ready(setup.ours, floats(setup)) if who == OURS else peer(who, setup)
            times = _times(setup, call, exact, timer)
            back, note = _backward(call, timer, who == OURS) if backward else (None, "")
        except Absent as why:
            rows.append(Row(op.name, who, shown, dtype, note=f"absent: {why}"))
            continue
        except Inexpressible as why:
            rows.append(Row(op.name, who, shown, dtype, note=f"cannot express: {why}"))
            continue
        except (
            Exception
        ) as error:  # a peer that fails is recorded, not hidden; ours is not forgiven
            if who == OURS:
                raise
            rows.append(Row(op.name, who, shown, dtype, note=f"failed: {_shortly(error)}"))
            continue
        rows.append(_row((op.name, who, shown, dtype), (*times, back), rows[:1], work, note))
    return rows


def _row(
    about: tuple[str, str, dict[str, int], str],
    figures: tuple[float, float, float | None],
    ours: Sequence[Row],
    work: tuple[int, int],
    note: str,
) -> Row:
    error, forward, backward = figures
    mine = ours[0] if ours else None
    flops, moved = work
    return Row(
        *about,
        forward,
        backward,
        forward / mine.forward_ms if mine is not None and mine.forward_ms else None,
        backward / mine.backward_ms if backward and mine is not None and mine.backward_ms else None,
        flops / forward * 1e-9,
        moved / forward * 1e-9,
        error,
        note,
    )


def _shortly(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


def _exact(setup: Setup) -> Tensor:
    """The output in float64, by the eager kernels: they need memory for tiles only."""
    wide = {n: x.double() if x.is_floating_point() else x for n, x in setup.inputs.items()}
    eager = CompiledAttention(setup.cascade, backend="eager")
    with torch.no_grad():
        return Setup(eager, wide, setup.extents, setup.params, setup.start).ours()


def _times(
    setup: Setup, call: Callable[[], Tensor], exact: Tensor, timer: Timer
) -> tuple[float, float]:
    """The error of a call, and its time."""
    with torch.no_grad():
        return _relative(call(), exact), timer(call)


def _backward(call: Ready, timer: Timer, ours: bool) -> tuple[float | None, str]:
    """The time of the backward pass; a peer without one says why."""
    for x in call.leaves:
        x.requires_grad_()
    try:
        out = call()
        up = torch.randn_like(out)

        def back() -> Any:
            # A peer may keep inputs out of its graph: a bias inside a score function, for one.
            return torch.autograd.grad(out, call.leaves, up, retain_graph=True, allow_unused=True)

        return timer(back), ""
    except Exception as error:
        if ours:
            raise
        return None, f"backward failed: {_shortly(error)}"
    finally:
        for x in call.leaves:
            x.requires_grad_(False)


def _relative(out: Tensor, exact: Tensor) -> float:
    """‖out - exact‖ / ‖exact‖, where the exact output has a value."""
    gap = out.double() - exact
    size = float(exact.norm())
    return float(gap.norm()) / size if size else math.nan


def _work(
    cascade: Cascade, extents: Mapping[str, int], params: Mapping[str, Any], itemsize: int
) -> tuple[int, int]:
    """Operations of the products over the tiles that are visited, and bytes of all inputs and outputs, once."""
    kind = "int" if START in params else "none"
    plan = plan_passes(with_start(cascade, kind), ()).forward  # type: ignore[arg-type]
    found = costs(plan, extents, params, itemsize)
    return sum(c.flops for c in found), sum(c.moved for c in found)
