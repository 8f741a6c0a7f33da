"""Check a variant against its own meaning: inputs from declarations, a float64 oracle, budgets from data.

    op = attndsl.load("alibi.attn")
    inputs = make_inputs(op, {"b": 2, "h": 8, "i": 128, "j": 128, "e": 64, "f": 64}, params={"G": 4})
    assert_close_to_reference(op, inputs, backward=True)

How wrong a kernel may be is read off the data: its error against float64 may be 1.5 times that of the same program
evaluated densely in the kernel's dtype, plus two units in the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attndsl.cascade.bind import Number
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import (
    Cascade,
    Compare,
    Const,
    DType,
    Expr,
    Read,
    TensorDecl,
    Unary,
)
from attndsl.cascade.shapes import indexed_ranks, shape_of
from attndsl.cascade.walk import walk

Range: TypeAlias = tuple[float, float]
Params: TypeAlias = Mapping[str, Number]

_DENSE_FACTOR = 1.5
_ULPS = 2
_FLOAT32_FLOOR = 1e-5
_WORST_FACTOR = 8.0
_KINDS_OF_IDS = 4


# --- inputs ----------------------------------------------------------------------------------------------------------


def make_inputs(
    program: Any,
    extents: Mapping[str, int],
    *,
    params: Params | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
    ranges: Mapping[str, Range] | None = None,
    requires_grad: bool = False,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Random inputs for a cascade or a compiled operator, by name.

        make_inputs(op, {"b": 1, "h": 4, "i": 64, "j": 64, "e": 32, "f": 32}, params={"G": 2}, dtype=torch.bfloat16)

    `extents` has a number for every declared index; it may leave out those of tables that are only read at affine
    subscripts (`table[i - j + |j| - 1]`), which are made just large enough. Floats are standard normal, and keep to
    the program's own `assume` facts where these bound a tensor by a number (`assume loga <= 0`). Integers that index an
    axis stay inside it; others are drawn from 0 to 3. `ranges[name] = (low, high)` draws uniformly from that interval
    instead, without `high` for integers. The same seed gives the same numbers for every dtype and device; a `generator`
    draws where it is, which for large tensors on a GPU is far quicker, and other numbers on each kind of device.
    """
    cascade = cascade_of(program)
    values = {p.name: p.default for p in cascade.params if p.default is not None} | dict(
        params or {}
    )
    extents = dict(extents) | indexed_ranks(cascade, extents, values)
    generator = torch.Generator().manual_seed(seed) if generator is None else generator
    given = dict(ranges or {})
    out = {}
    for t in cascade.inputs:
        shape = shape_of(t, extents, values)
        x = _draw(cascade, t, shape, given.get(t.name), extents, values, generator)
        if t.dtype is DType.FLOAT:
            x = x.to(device=device, dtype=dtype)
            out[t.name] = x.requires_grad_() if requires_grad else x
        else:
            out[t.name] = x.to(device)
    return out


def cascade_of(program: Any) -> Cascade:
    """The cascade of a compiled operator, or the cascade itself."""
    cascade = program if isinstance(program, Cascade) else getattr(program, "cascade", None)
    if not isinstance(cascade, Cascade):
        raise TypeError(
            f"a cascade or a compiled operator is needed, and {type(program).__name__} came"
        )
    return cascade


def _draw(
    cascade: Cascade,
    t: TensorDecl,
    shape: tuple[int, ...],
    interval: Range | None,
    extents: Mapping[str, int],
    params: Params,
    generator: torch.Generator,
) -> Tensor:
    where = generator.device
    match t.dtype:
        case DType.BOOL:
            return torch.rand(shape, generator=generator, device=where) < 0.5
        case DType.INT:
            ids = interval or (0, _ids(cascade, t, extents, params))
            ends = int(ids[0]), int(ids[1])
            return torch.randint(*ends, shape, generator=generator, device=where)
        case DType.FLOAT:
            pass
    if interval is not None:
        low, high = interval
        x = torch.rand(shape, generator=generator, dtype=torch.float64, device=where)
        return x * (high - low) + low
    least, most = _assumed(cascade, t.name)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, device=where)
    if least is not None and most is not None:
        return torch.sigmoid(x) * (most - least) + least
    if most is not None:
        return most - x.abs() - 1e-3
    if least is not None:
        return least + x.abs() + 0.5  # a temperature near 0 would leave nothing to compare
    return x


def _ids(cascade: Cascade, t: TensorDecl, extents: Mapping[str, int], params: Params) -> int:
    """How many ids an integer input may hold: the extent of the smallest axis that it indexes."""
    sizes = []
    inputs = {x.name: x for x in cascade.inputs}
    for d in cascade.body:
        for root in (d.expr, d.where, d.init):
            for n in walk(root) if root is not None else ():
                if isinstance(n, Read) and n.tensor in inputs:
                    axes = shape_of(inputs[n.tensor], extents, params)
                    sizes += [
                        size
                        for size, s in zip(axes, n.subs, strict=True)
                        if isinstance(s, Read) and s.tensor == t.name
                    ]
    return min(sizes, default=_KINDS_OF_IDS)


def _assumed(cascade: Cascade, name: str) -> tuple[float | None, float | None]:
    """The numbers that the program's own facts keep an input between."""
    low: float | None = None
    high: float | None = None
    for fact in cascade.assumes:
        for part in walk(fact):
            match part:
                case Compare(left=Read(tensor=tensor), right=side, op=op) if tensor == name:
                    bound = _constant(side)
                case Compare(left=side, right=Read(tensor=tensor), op=op) if tensor == name:
                    bound = _constant(side)
                    op = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(op, op)
                case _:
                    continue
            if bound is None:
                continue
            if op in ("<", "<="):
                high = bound if high is None else min(high, bound)
            elif op in (">", ">="):
                low = bound if low is None else max(low, bound)
    return low, high


def _constant(e: Expr) -> float | None:
    match e:
        case Const():
            return float(e.value)
        case Unary(op="-", arg=Const(value=value)):
            return -float(value)
        case _:
            return None


# --- the oracle ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Results:
    """Outputs, and the gradients of every float input, by name."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]


def reference(
    program: Any,
    inputs: Mapping[str, Tensor],
    *,
    params: Params | None = None,
    start: Any = None,
    dtype: torch.dtype = torch.float64,
    upstream: Mapping[str, Tensor] | None = None,
) -> Results:
    """The program's meaning: evaluated densely in `dtype`; gradients only if `upstream` has those of the outputs."""
    cascade = cascade_of(program)
    leaves = {n: x.detach().to(dtype) if x.is_floating_point() else x for n, x in inputs.items()}
    if upstream is not None:
        leaves = {n: x.requires_grad_() if x.is_floating_point() else x for n, x in leaves.items()}
    outputs = interpret(cascade, leaves, params, start=start, dtype=dtype)
    gradients: dict[str, Tensor] = {}
    if upstream is not None:
        gradients = _gradients(outputs, leaves, upstream)
    return Results({n: x.detach() for n, x in outputs.items()}, gradients)


def _gradients(
    outputs: Mapping[str, Tensor], leaves: Mapping[str, Tensor], upstream: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    names = [n for n, x in leaves.items() if x.requires_grad]
    roots = [n for n in outputs if n in upstream and outputs[n].requires_grad]
    if not names or not roots:
        return {n: torch.zeros_like(leaves[n]) for n in names}
    grads = torch.autograd.grad(
        [outputs[n] for n in roots],
        [leaves[n] for n in names],
        [upstream[n].to(outputs[n].dtype) for n in roots],
        allow_unused=True,
    )
    return {
        n: torch.zeros_like(leaves[n]) if g is None else g
        for n, g in zip(names, grads, strict=True)
    }


# --- errors ----------------------------------------------------------------------------------------------------------


def relative_error(out: Tensor, ref: Tensor) -> float:
    """The root mean square of the error over that of the reference; 0 if both are 0 throughout.

    Infinities must stand at the same places with the same sign, and NaN is never right: else the error is infinite.
    """
    error, size = _rms_error(out, ref)
    if error == 0:
        return 0.0
    return error / size if size > 0 else float("inf")


def _split(out: Tensor, ref: Tensor) -> tuple[Tensor, Tensor] | None:
    """The finite entries of both, in float64; None if they disagree about which these are."""
    if out.shape != ref.shape:
        raise AssertionError(f"shapes differ: {tuple(out.shape)} and {tuple(ref.shape)}")
    a, b = out.detach().double().cpu(), ref.detach().double().cpu()
    finite = torch.isfinite(b)
    if not torch.equal(finite, torch.isfinite(a)) or not torch.equal(a[~finite], b[~finite]):
        return None
    return a[finite], b[finite]


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt()) if x.numel() else 0.0


def _rms_error(out: Tensor, ref: Tensor) -> tuple[float, float]:
    both = _split(out, ref)
    if both is None:
        return float("inf"), 1.0
    return _rms(both[0] - both[1]), _rms(both[1])


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """The largest error allowed: the root mean square of all entries, and the worst entry; both absolute."""

    rms: float
    worst: float

    def check(self, name: str, out: Tensor, exact: Tensor) -> float:
        """The relative error of `out`; AssertionError if it is over budget."""
        both = _split(out, exact)
        if both is None:
            raise AssertionError(f"{name}: {_where_not_finite(out, exact)}")
        difference = (both[0] - both[1]).abs()
        rms = _rms(difference)
        worst = float(difference.max()) if difference.numel() else 0.0
        if not (rms <= self.rms and worst <= self.worst):
            raise AssertionError(
                f"{name}: error {rms:.3e} (worst entry {worst:.3e}), and the budget is {self.rms:.3e}"
                f" ({self.worst:.3e}); {_where_worst(out, exact)}"
            )
        return relative_error(out, exact)


def error_budget(exact: Tensor, dense: Tensor, dtype: torch.dtype | None = None) -> ErrorBudget:
    """What a kernel in `dtype` may be off from `exact` (float64), given the dense evaluation in that dtype.

    1.5 times the dense error, plus two units in the last place of the output's root mean square (1e-5 of it in
    float32); a single entry may be off by 8 times the worst dense entry, plus as many
    units of the largest.
    """
    dtype = dtype or dense.dtype
    both = _split(dense, exact)
    if both is None:
        raise AssertionError(
            f"the dense evaluation in {dtype} leaves its range: {_where_not_finite(dense, exact)}"
        )
    difference = (both[0] - both[1]).abs()
    unit = _ULPS * torch.finfo(dtype).eps
    if dtype is torch.float32:
        unit = _FLOAT32_FLOOR
    size = _rms(both[1])
    largest = float(both[1].abs().max()) if difference.numel() else 0.0
    worst = float(difference.max()) if difference.numel() else 0.0
    return ErrorBudget(
        _DENSE_FACTOR * _rms(difference) + unit * size,
        _WORST_FACTOR * worst + unit * largest,
    )


def _where_not_finite(out: Tensor, exact: Tensor) -> str:
    a, b = out.detach().double().cpu(), exact.detach().double().cpu()
    wrong = torch.isfinite(a) != torch.isfinite(b)
    wrong |= ~torch.isfinite(b) & (a != b)
    at = wrong.nonzero()[0].tolist()
    return f"{int(wrong.sum())} entries, first at {at}: {float(a[tuple(at)])} for {float(b[tuple(at)])}"


def _where_worst(out: Tensor, exact: Tensor) -> str:
    a, b = out.detach().double().cpu(), exact.detach().double().cpu()
    gap = torch.where(torch.isfinite(b), (a - b).abs(), 0.0)
    at = list(torch.unravel_index(gap.argmax(), gap.shape)) if gap.dim() else []
    index = tuple(int(k) for k in at)
    return f"at {list(index)}: {float(a[index]):.6e} for {float(b[index]):.6e}"


def assert_close_to_reference(
    program: Any,
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor | None = None,
    *,
    params: Params | None = None,
    start: Any = None,
    gradients: Mapping[str, Tensor] | None = None,
    upstream: Mapping[str, Tensor] | None = None,
    backward: bool = False,
    seed: int = 1,
) -> dict[str, float]:
    """The relative error of every output and gradient; AssertionError if one is over its budget.

        assert_close_to_reference(op, inputs, backward=True)              # calls op, and its backward
        assert_close_to_reference(cascade, inputs, {"O": o, "LSE": lse})  # checks what was computed elsewhere

    Without `outputs` the program is called. `gradients` (of inputs, by name) are checked against `upstream`, the
    gradients of the outputs; with `backward` both are drawn and computed here. Errors are against float64, on the
    inputs as they are; gradients are keyed `d` + name.
    """
    cascade = cascade_of(program)
    dtype = next(x.dtype for x in inputs.values() if x.is_floating_point())
    if outputs is None:
        outputs, gradients, upstream = _call(
            program, cascade, inputs, params, start, backward, seed
        )
    got = _by_name(cascade, outputs)
    exact = reference(program, inputs, params=params, start=start, upstream=upstream)
    dense = reference(program, inputs, params=params, start=start, dtype=dtype, upstream=upstream)
    errors = {}
    for name, out in got.items():
        budget = error_budget(exact.outputs[name], dense.outputs[name], dtype)
        errors[name] = budget.check(f"{cascade.name}: output {name}", out, exact.outputs[name])
    for name, grad in (gradients or {}).items():
        budget = error_budget(exact.gradients[name], dense.gradients[name], dtype)
        errors[f"d{name}"] = budget.check(
            f"{cascade.name}: gradient of {name}", grad, exact.gradients[name]
        )
    return errors


def _by_name(
    cascade: Cascade, outputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor
) -> dict[str, Tensor]:
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    if isinstance(outputs, Mapping):
        return dict(outputs)
    return {o.name: x for o, x in zip(cascade.outputs, outputs, strict=True)}


def _call(
    program: Callable[..., Any],
    cascade: Cascade,
    inputs: Mapping[str, Tensor],
    params: Params | None,
    start: Any,
    backward: bool,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, dict[str, Tensor] | None]:
    """The operator's own outputs and gradients, the latter under a random upstream gradient."""
    leaves = dict(inputs)
    if backward:
        leaves = {
            n: x.detach().clone().requires_grad_() if x.is_floating_point() else x
            for n, x in inputs.items()
        }
    extra = {} if start is None else {"start": start}
    got = _by_name(cascade, program(**leaves, **(params or {}), **extra))
    if not backward:
        return got, None, None
    generator = torch.Generator().manual_seed(seed)
    upstream = {
        n: torch.randn(x.shape, generator=generator).to(device=x.device, dtype=x.dtype)
        for n, x in got.items()
    }
    # an infinite output (the log-sum-exp of an empty row) has no gradient
    upstream = {n: torch.where(torch.isfinite(got[n]), u, 0.0) for n, u in upstream.items()}
    return got, _gradients(got, leaves, upstream), upstream
