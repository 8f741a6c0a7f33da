"""Every normalizer and output of the examples beside plain softmax, and against float64 where numbers are hard.

    PYTHONPATH=. python benchmarks/normalizers.py --out benchmarks/results/normalizers-h200.json

Times are of B4 H16 N4096 D128 in bf16: the kernels of both passes, over those of softmax with the same mask, timed
right before and after; `bound_of_softmax` is what `attndsl explain` says of the two beforehand. `--check` instead
compares outputs and gradients with float64 at few positions: in bf16 as timed, and in float32 with whole rows of
scores moved by 300 up and down, with scores up to 1e4, and with rows that see one key or none.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import EXAMPLES, Table, in_batches, milliseconds
from family import B, D, H, N, dense, differential, roots
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import attndsl
from attndsl.runtime.stages import plan_passes
from attndsl.schedule.cost import GPUS, bound, costs
from attndsl.testing import make_inputs, reference

# By the plain softmax that sees the same keys.
PROGRAMS = {
    "causal": (
        "causal",
        "softmax_three_sweeps",
        "off_by_one",
        "sink_softmax",
        "sigmoid",
        "sigmoid_plain",
        "relu2",
        "softpick",
        "softplus_l1",
        "softplus_reweighted",
        "retention_normalised",
        "outputs_lse_max",
        "entropy",
        "differential",
        "squared_distance",
        "student_t",
        "sparsemax",
        "entmax15",
        "entmax_alpha",
        "column_sums",
        "weights",
        "stick_breaking",
        "selective",
        "simplicial2",
    ),
    "full": ("full", "two_sweeps", "relu", "standardised", "additive"),
}
DEVICE = "cuda"
SMALLER = {"simplicial2": 1024}
"""Positions where pairs of keys are visited."""
SHORT = 192
"""Positions of the comparisons with float64."""
CASES = ("plain", "moved", "large", "empty")

Inputs = dict[str, Any]


def sizes(op: attndsl.CompiledAttention, b: int, h: int, n: int, d: int) -> dict[str, int]:
    known = {"b": b, "h": h, "i": n, "j": n, "k": n}
    return {r: known.get(r, d) for t in op.cascade.inputs for r in t.ranks}


def inputs(
    op: attndsl.CompiledAttention, b: int, h: int, n: int, d: int, dtype: torch.dtype
) -> Inputs:
    """Random inputs within what the program assumes; slopes and the like in float32."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    made = make_inputs(op, sizes(op, b, h, n, d), dtype=dtype, device=DEVICE, generator=generator)
    ranks = {t.name: set(t.ranks) for t in op.cascade.inputs}
    return {k: x.float() if ranks[k] <= {"b", "h"} else x for k, x in made.items()}


def outputs(made: Any) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


def least(op: attndsl.CompiledAttention, n: int) -> dict[str, tuple[float, str]]:
    """Milliseconds of both passes at best, as `attndsl explain` bounds them, and what takes most of it."""
    params = {p.name: p.default for p in op.cascade.params if p.default is not None}
    at = sizes(op, B, H, n, D)
    data = tuple(t.name for t in op.cascade.inputs if set(t.ranks) - {"b", "h"})
    passes = plan_passes(op.cascade, data)
    found = {}
    for way, plan in (("forward", passes.forward), ("backward", passes.backward)):
        assert plan is not None
        bounds = [bound(c, GPUS["H200"], 2) for c in costs(plan, at, params, 2)]
        found[way] = (sum(s for s, _ in bounds) * 1e3, max(bounds)[1])
    return found


def timed(op: attndsl.CompiledAttention, x: Inputs) -> dict[str, float]:
    """Milliseconds of both passes, gradients of what has positions."""
    leaves = {
        k: t.detach().requires_grad_(t.ndim > 1 and t.dtype == torch.bfloat16) for k, t in x.items()
    }
    wrt = [t for t in leaves.values() if t.requires_grad]
    with torch.no_grad():
        ms = {"forward": milliseconds(lambda: op(**x))}
    out = outputs(op(**leaves))
    up = [torch.randn_like(o) for o in out]
    ms["backward"] = milliseconds(
        lambda: torch.autograd.grad(out, wrt, up, retain_graph=True, allow_unused=True)
    )
    return ms


def kernels(op: attndsl.CompiledAttention, x: Inputs) -> dict[str, float]:
    """Milliseconds of each kernel, of three calls and backward passes."""
    leaves = {
        k: t.detach().requires_grad_(t.ndim > 1 and t.dtype == torch.bfloat16) for k, t in x.items()
    }
    wrt = [t for t in leaves.values() if t.requires_grad]
    up = [torch.randn_like(o) for o in outputs(op(**leaves))]
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            torch.autograd.grad(outputs(op(**leaves)), wrt, up, allow_unused=True)
        torch.cuda.synchronize()
    spent = ((e.key, e.device_time_total / e.count / 1e3) for e in seen.key_averages() if e.count)
    return {k[:60]: round(ms, 3) for k, ms in spent if ms > 0.02}


def load(name: str) -> attndsl.CompiledAttention:
    return attndsl.load(EXAMPLES / f"{name}.attn")


def measure(name: str, plain: str, warm: bool = False) -> dict[str, Any]:
    """One row; `warm` only compiles and runs once."""
    op, softmax, n = load(name), load(plain), SMALLER.get(name, N)
    x = inputs(op, B, H, n, D, torch.bfloat16)
    if warm:
        with torch.no_grad():
            op(**x)
        kernels(op, x)
        return {}
    y = inputs(softmax, B, H, n, D, torch.bfloat16)
    before, mine, after = timed(softmax, y), timed(op, x), timed(softmax, y)
    row: dict[str, Any] = {"part": "times", "program": name, "beside": plain, "N": n}
    bounds, plains = least(op, n), least(softmax, n)
    for way, ms in mine.items():
        beside = (before[way] + after[way]) / 2
        row |= {f"{way}_ms": ms, f"softmax_{way}_ms": beside, f"{way}_of_softmax": ms / beside}
        row[f"{way}_bound_ms"], row[f"{way}_bound_by"] = bounds[way]
        row[f"{way}_bound_of_softmax"] = bounds[way][0] / plains[way][0]
    return row | {"kernels_ms": kernels(op, x)}


def hard(op: attndsl.CompiledAttention, case: str) -> Inputs:
    """Inputs in float32: scores moved row by row, or large ones, where a score is a product of queries and keys."""
    d = 64
    x = inputs(op, 1, 2, SHORT, d, torch.float32)
    query = next((n for n in ("Q", "Q1", "A") if n in x), None)
    key = next((n for n in ("K", "K1", "B") if n in x), None)
    if query is None or key is None:
        return x
    if case == "moved":
        signs = 1 - 2 * (torch.arange(SHORT, device=DEVICE) % 2)
        x[query][..., 0] = 300 * d**0.5 * signs
        x[key][..., 0] = 1
    if case == "large":
        top = (x[query] @ x[key].mT).abs().max() / d**0.5
        x[query] *= 1e4 / top
    return x


def shifted(name: str) -> str:
    """The program with two rows that see no key, and one that sees one."""
    text = (EXAMPLES / f"{name}.attn").read_text(encoding="utf-8")
    return text.replace("where j <= i", "where j + 2 <= i").replace(
        "where j < i", "where j + 2 <= i"
    )


def off(out: Tensor, exact: Tensor) -> float:
    """The error over the root mean square of what is exact, or over 1e-3 where that is less; infinite where one alone
    is finite."""
    a, b = out.detach().double(), exact.detach().double()
    finite = torch.isfinite(b)
    if not torch.equal(finite, torch.isfinite(a)) or bool((a.isnan() & ~b.isnan()).any()):
        return float("inf")
    gap, size = ((x[finite]).square().mean().sqrt() for x in (a - b, b))
    return float(gap / size.clamp(min=1e-3))


def compared(op: attndsl.CompiledAttention, x: Inputs) -> dict[str, Any]:
    """Relative errors of outputs and gradients beside those of the dense form in the same type; what is not finite."""
    dtype = max((t.dtype for t in x.values()), key=lambda t: torch.finfo(t).eps)
    names = [o.name for o in op.cascade.outputs]
    leaves = {k: t.detach().clone().requires_grad_() for k, t in x.items()}
    made = dict(zip(names, outputs(op(**leaves)), strict=True))
    up = {n: torch.where(torch.isfinite(o), torch.randn_like(o), 0.0) for n, o in made.items()}
    grads = torch.autograd.grad(
        list(made.values()), list(leaves.values()), list(up.values()), allow_unused=True
    )
    exact = reference(op, x, upstream=up)
    dense_ = reference(op, x, upstream=up, dtype=dtype)
    row: dict[str, Any] = {}
    for n, o in made.items():
        row[n] = (off(o, exact.outputs[n]), off(dense_.outputs[n], exact.outputs[n]))
    for (n, t), g in zip(leaves.items(), grads, strict=True):
        g = torch.zeros_like(t) if g is None else g
        row[f"d{n}"] = (
            off(g, exact.gradients[n]),
            off(dense_.gradients[n], exact.gradients[n]),
        )
    row = {k: [float(f"{v:.2g}") for v in pair] for k, pair in row.items()}
    unknown = [n for n, x in {**exact.outputs, **exact.gradients}.items() if x.isnan().any()]
    return row | ({"not a number exactly": unknown} if unknown else {})


def check(name: str, case: str) -> dict[str, Any]:
    row: dict[str, Any] = {"part": "errors", "program": name, "case": case}
    if case == "plain":
        op = load(name)
        return row | {"errors": compared(op, inputs(op, 1, 2, 256, D, torch.bfloat16))}
    op = attndsl.compile(shifted(name)) if case == "empty" else load(name)
    return row | {"errors": compared(op, hard(op, case))}


def others() -> dict[str, Any]:
    """What stands beside some of them: calls with a subtraction, a dense form."""
    return {
        "differential beside": differential,
        "entmax15 float32": partial(roots, "entmax15", torch.float32),
        "sparsemax float32": partial(roots, "sparsemax", torch.float32),
        "dense": dense,
    }


def shown(row: dict[str, Any]) -> str:
    parts = (
        f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" if isinstance(v, dict) else str(v)
        for k, v in row.items()
        if k not in ("job", "part")
    )
    return f"{row['part']}: {', '.join(parts)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("normalizers.json"))
    parser.add_argument("--only", nargs="*")
    parser.add_argument(
        "--check", action="store_true", help="compare with float64 in place of timing"
    )
    parser.add_argument("--warm", action="store_true", help="only fill the caches of compiled code")
    parser.add_argument("--compiled", action="store_true", help="what is measured has run before")
    args = parser.parse_args()
    jobs: dict[str, Any] = {
        n: partial(measure, n, plain) for plain, names in PROGRAMS.items() for n in names
    }
    jobs |= others()
    if args.check:
        jobs = {
            f"{n} {case}": partial(check, n, case)
            for names in PROGRAMS.values()
            for n in names
            for case in CASES
        }
    chosen = {
        n: run
        for n, run in jobs.items()
        if not args.only or n in args.only or (args.check and n.split()[0] in args.only)
    }
    if args.warm:
        for run in chosen.values():
            run(warm=True)
        return
    table = Table(args.out)
    missing = table.missing(chosen, "job")
    failed = 0
    for name in missing if args.check or args.compiled else in_batches(__file__, missing):
        try:
            row = {
                "job": name,
                **(
                    chosen[name]()
                    if args.check or name not in others()
                    else chosen[name](warm=False)
                ),
            }
        except Exception as error:  # the others are still measured
            failed += 1
            print(
                f"{name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr, flush=True
            )
            continue
        finally:
            torch.cuda.empty_cache()
        table.add(row)
        print(shown(row), flush=True)
    sys.exit(int(failed > 0))


if __name__ == "__main__":
    main()
