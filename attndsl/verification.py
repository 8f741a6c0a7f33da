"""Generated kernels against the meaning of their program: `attndsl verify`.

A program is run through its operator, as a user would call it, by each backend; outputs and gradients are compared with
the dense evaluation in float64, within what the same evaluation errs in the kernel's own dtype.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.alignments import shifted_indices
from attndsl.cascade.interpreter import check_assumes
from attndsl.cascade.nodes import Cascade
from attndsl.frontend import load_cascades
from attndsl.frontend.picking import pick
from attndsl.frontend.reading import read_source
from attndsl.runtime.operator import CompiledAttention
from attndsl.sizes import TRIAL, Sizes, sizes
from attndsl.testing import (
    ErrorBudget,
    Results,
    error_budget,
    make_inputs,
    reference,
    relative_error,
)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LAST_QUERIES = 5  # how many queries a call with `start="end"` has


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor: its error and the error allowed, both relative to the root mean square of the exact values."""

    what: str
    by: str
    dtype: str
    shape: str
    direction: str
    error: float
    budget: float
    ok: bool


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """All tensors that were compared."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)


@dataclass(frozen=True, slots=True)
class Trial:
    """One way of calling a program: inputs, and whether the queries are the last positions."""

    dtype: str
    sizes: Sizes
    at_end: bool

    @property
    def shape(self) -> str:
        """The extents that a reader thinks of."""
        named = [f"{k}={n}" for k, n in self.sizes.extents.items() if k.isalpha()]
        named += [f"{k}={v}" for k, v in self.sizes.params.items() if k != "start"]
        return " ".join(named + ["start=end"] * self.at_end)


def verify(
    path: Path,
    name: str | None,
    *,
    dtypes: tuple[str, ...],
    extents: Mapping[str, int],
    seed: int,
    progress: Callable[[str], None],
) -> VerifyReport:
    """Compare every output and gradient, by Triton and by the eager kernels.

    On a GPU if there is one; else Triton runs in its interpreter, which this process must not have imported otherwise.

    Raises: DiagnosticError if the program is refused, CallError if `extents` do not fit it.
    """
    source = read_source(path)
    cascade = pick(load_cascades(source), name, source)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trials = tuple(
        _trials(cascade, dtypes or tuple(DTYPES), extents)
    )  # refused before anything is set up
    triton = _triton(device)
    rows: list[Row] = []
    for trial in trials:
        inputs, upstream, exact, dense = _expected(cascade, trial, seed, device)
        for backend, by in (("triton", triton), ("eager", "eager")):
            progress(f"{trial.dtype} {by}" + (", last queries" if trial.at_end else ""))
            op = CompiledAttention(cascade, backend=backend)
            with warnings.catch_warnings():
                # The interpreter computes what masks hide, too.
                warnings.filterwarnings("ignore", module="triton.runtime.interpreter")
                warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)
                got = _run(op, trial, inputs, upstream)
            rows += _rows(trial, by, got, exact, dense)
    return VerifyReport(tuple(rows))


def _triton(device: str) -> str:
    """How Triton will run; on a CPU its interpreter is switched on, before it is imported."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "triton, interpreted"
    if device == "cuda":
        return "triton"
    if "triton" in sys.modules:
        raise CallError(
            "A0509",
            "there is no GPU, and Triton is loaded without its interpreter",
            help="set TRITON_INTERPRET=1 before anything imports Triton",
        )
    os.environ["TRITON_INTERPRET"] = "1"
    return "triton, interpreted"


def _trials(
    cascade: Cascade, dtypes: tuple[str, ...], extents: Mapping[str, int]
) -> Iterator[Trial]:
    """Each dtype; and in the first, a few last queries of a longer sequence, as in decoding."""
    for dtype in dtypes:
        yield Trial(dtype, sizes(cascade, TRIAL, extents), False)
    pairs = shifted_indices(cascade)
    if pairs and not extents:
        (query, _), *_ = pairs
        try:
            yield Trial(dtypes[0], sizes(cascade, TRIAL, {query: LAST_QUERIES}), True)
        except CallError:
            return  # something is read by queries and keys alike: there is no such call


def _start(trial: Trial) -> str | None:
    return "end" if trial.at_end else None


def _expected(
    cascade: Cascade, trial: Trial, seed: int, device: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], Results, Results]:
    """Inputs, gradients of the outputs, and what should come out: exactly, and as far as the dtype goes."""
    dtype = DTYPES[trial.dtype]
    params = trial.sizes.params
    inputs = make_inputs(
        cascade, trial.sizes.extents, params=params, dtype=dtype, device=device, seed=seed
    )
    start = _start(trial)
    check_assumes(cascade, inputs, params)
    plain = reference(cascade, inputs, params=params, start=start).outputs
    generator = torch.Generator().manual_seed(seed + 1)
    upstream = {
        n: torch.where(
            torch.isfinite(x), torch.randn(x.shape, generator=generator).to(x.device), 0.0
        ).to(dtype)
        for n, x in plain.items()
        if x.is_floating_point()
    }
    exact = reference(cascade, inputs, params=params, start=start, upstream=upstream)
    dense = reference(cascade, inputs, params=params, start=start, dtype=dtype, upstream=upstream)
    return inputs, upstream, exact, dense


def _run(
    op: CompiledAttention, trial: Trial, inputs: dict[str, Tensor], upstream: dict[str, Tensor]
) -> Results:
    """One call, and its backward pass."""
    leaves = {
        n: x.clone().requires_grad_() if x.is_floating_point() else x for n, x in inputs.items()
    }
    arguments: dict[str, Any] = {**leaves, **trial.sizes.params, "start": _start(trial)}
    made = op(**arguments)
    made = made if isinstance(made, tuple) else (made,)
    outputs = {o.name: x for o, x in zip(op.cascade.outputs, made, strict=True)}
    floats = {n: x for n, x in leaves.items() if x.requires_grad}
    roots = [n for n in upstream if outputs[n].requires_grad]
    found = torch.autograd.grad(
        [outputs[n] for n in roots],
        list(floats.values()),
        [upstream[n].to(outputs[n].dtype) for n in roots],
        materialize_grads=True,
    )
    return Results(
        {n: x.detach() for n, x in outputs.items()}, dict(zip(floats, found, strict=True))
    )


def _rows(trial: Trial, by: str, got: Results, exact: Results, dense: Results) -> Iterator[Row]:
    dtype = DTYPES[trial.dtype]
    for direction, out, want, rough in (
        ("forward", got.outputs, exact.outputs, dense.outputs),
        ("backward", got.gradients, exact.gradients, dense.gradients),
    ):
        for n, x in out.items():
            budget = error_budget(want[n], rough[n], dtype)
            what = n if direction == "forward" else f"d{n}"
            error = relative_error(x, want[n])
            yield Row(
                what,
                by,
                trial.dtype,
                trial.shape,
                direction,
                error,
                _relative(budget, want[n]),
                _within(budget, what, x, want[n]),
            )


def _within(budget: ErrorBudget, what: str, out: Tensor, exact: Tensor) -> bool:
    try:
        budget.check(what, out, exact)
    except AssertionError:
        return False
    return True


def _relative(budget: ErrorBudget, exact: Tensor) -> float:
    finite = exact[torch.isfinite(exact)].double()
    size = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
    return budget.rms / size if size > 0 else budget.rms
