"""The family of normalizers beside plain softmax, and beside what their users run today.

    PYTHONPATH=. python benchmarks/family.py --out benchmarks/results/family-h100.json

B4 H16 N4096 D128, bf16. `of_softmax` is a program's time over plain softmax's, timed right before it on the same
inputs; `bound_of_softmax` is what `attndsl explain` says of the two beforehand. Then differential attention beside two
calls and a subtraction, entmax beside dense PyTorch, the memory that a call holds, and roots of flat rows.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config
from common import EXAMPLES, Table, in_batches, milliseconds, relative
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attndsl
from attndsl.runtime.stages import plan_passes
from attndsl.schedule.cost import GPUS, bound, costs
from attndsl.testing import make_inputs

torch._functorch.config.donated_buffer = False  # or a compiled peer's graph runs backward only once

B, H, N, D = 4, 16, 4096, 128
FLAT = 16384

# One-sweep programs, by the plain softmax with the same mask.
ONE_SWEEP = {
    "causal": (
        "softmax_three_sweeps",
        "off_by_one",
        "sink_softmax",
        "outputs_lse_max",
        "entropy",
        "sigmoid",
        "sigmoid_plain",
        "relu2",
        "softpick",
        "softplus_l1",
        "softplus_reweighted",
        "retention_normalised",
        "squared_distance",
        "student_t",
    ),
    "full": ("relu",),
}
ROOTS = ("entmax15", "sparsemax", "entmax_alpha")

Inputs = dict[str, Any]


def load(name: str) -> attndsl.CompiledAttention:
    return attndsl.load(EXAMPLES / f"{name}.attn")


def inputs(
    op: attndsl.CompiledAttention, n: int = N, dtype: torch.dtype = torch.bfloat16
) -> Inputs:
    """Random inputs: data drawn on the card, slopes and the like within what the program assumes, without gradients."""
    sizes = dict.fromkeys(sorted({r for t in op.cascade.inputs for r in t.ranks}), 8) | {"h": H}
    small = make_inputs(op, sizes, device="cuda")
    made = {}
    for t in op.cascade.inputs:
        if {"i", "j"} & set(t.ranks):
            shape = [{"b": B, "h": H, "i": n, "j": n}.get(r, D) for r in t.ranks]
            made[t.name] = torch.randn(shape, device="cuda", dtype=dtype).requires_grad_()
        else:
            made[t.name] = small[t.name]
    return made


def first(made: Any) -> Tensor:
    out: Tensor = made[0] if isinstance(made, tuple) else made
    return out


def least(op: attndsl.CompiledAttention) -> tuple[float, str]:
    """Milliseconds of the forward kernels at best, as `attndsl explain` bounds them, and what takes most of it."""
    extents = {"b": B, "h": H, "i": N, "j": N}
    sizes = {r: extents.get(r, D) for t in op.cascade.inputs for r in t.ranks}
    params = {p.name: p.default for p in op.cascade.params if p.default is not None}
    found = costs(plan_passes(op.cascade, ()).forward, sizes, params, 2)
    bounds = [bound(c, GPUS["H100"], 2) for c in found]
    return sum(s for s, _ in bounds) * 1e3, max(bounds)[1]


def timed(call: Callable[[], Tensor], wrt: list[Tensor]) -> dict[str, float]:
    """Milliseconds forward and backward."""
    with torch.no_grad():
        ms = {"forward": milliseconds(call)}
    out = call()
    up = torch.randn_like(out)
    ms["backward"] = milliseconds(
        lambda: torch.autograd.grad(out, wrt, up, retain_graph=True, allow_unused=True)
    )
    return ms


def data(x: Inputs) -> list[Tensor]:
    """What gradients are taken for: slopes would add sums of their own."""
    return [t for t in x.values() if t.requires_grad]


def sample_error(op: attndsl.CompiledAttention, x: Inputs, out: Tensor) -> float:
    """The error of one head, relative to float64."""
    one = {n: t[:1, :1] if t.ndim == 4 else t[:1] for n, t in x.items()}
    with torch.no_grad():
        exact = first(op.reference(**one, dtype=torch.float64))
    return relative(out[:1, :1], exact)


def one_sweep(name: str, plain: str, warm: bool) -> dict[str, Any]:
    op, softmax = load(name), load(plain)
    x, y = inputs(op), inputs(softmax)

    def ours() -> Tensor:
        return first(op(**x))

    def theirs() -> Tensor:
        return first(softmax(**y))

    if warm:
        for call, given in ((ours, x), (theirs, y)):
            with torch.no_grad():
                call()
            torch.autograd.grad(call().sum(), data(given))
        return {}
    row: dict[str, Any] = {"part": "one sweep", "program": name, "beside": plain}
    before, mine, after = timed(theirs, data(y)), timed(ours, data(x)), timed(theirs, data(y))
    for way, ms in mine.items():
        row |= {f"{way}_ms": ms, f"softmax_{way}_ms": before[way]}
        row[f"{way}_of_softmax"] = 2 * ms / (before[way] + after[way])
    (ms, what), (plain_ms, _) = least(op), least(softmax)
    row |= {"bound_ms": ms, "bound_by": what, "bound_of_softmax": ms / plain_ms}
    row["error"] = sample_error(op, x, ours())
    return row


def differential(warm: bool) -> dict[str, Any]:
    """One call, two of our own and a subtraction, two of FlexAttention's and a subtraction."""
    op, softmax = load("differential"), load("causal")
    x = inputs(op)
    lam = x["lam"].bfloat16().detach().view(1, H, 1, 1)
    pairs = [(x["Q1"], x["K1"], x["V"]), (x["Q2"], x["K2"], x["V"])]
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, N, N)
    torch._dynamo.reset()
    flex = torch.compile(flex_attention)

    def two(call: Callable[..., Any]) -> Tensor:
        one, other = (first(call(*p)) for p in pairs)
        made: Tensor = one - lam * other
        return made

    ways: dict[str, Callable[[], Tensor]] = {
        "": lambda: first(op(**x)),
        "two_": lambda: two(softmax),
        "flex_": lambda: two(partial(flex, block_mask=mask)),
    }
    row: dict[str, Any] = {"part": "differential", "program": "differential"}
    for who, call in ways.items():
        if warm:
            with torch.no_grad():
                call()
            torch.autograd.grad(call().sum(), data(x))
            continue
        try:
            row |= {f"{who}{way}_ms": ms for way, ms in timed(call, data(x)).items()}
        except Exception as error:  # a peer that fails is recorded, not hidden
            if not who:
                raise
            row[f"{who}note"] = f"{type(error).__name__}: {str(error)[:200]}"
    if warm:
        return {}
    for who in ("two", "flex"):
        for way in ("forward", "backward"):
            if f"{who}_{way}_ms" in row:
                row[f"{who}_{way}_ratio"] = row[f"{who}_{way}_ms"] / row[f"{way}_ms"]
    row["error"] = sample_error(op, x, ways[""]())
    return row


def dense_entmax15(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """1.5-entmax over a full matrix of scores: its threshold by 50 bisections."""
    n = q.shape[-2]
    s = q @ k.transpose(-1, -2) / (2 * math.sqrt(q.shape[-1]))
    causal = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    s = s.masked_fill(~causal, float("-inf"))
    hi = s.amax(-1, keepdim=True)
    lo = hi - 1
    for _ in range(50):
        mid = (lo + hi) / 2
        big = (s - mid).clamp(min=0).square().sum(-1, keepdim=True) > 1
        lo, hi = torch.where(big, mid, lo), torch.where(big, hi, mid)
    p = (s - (lo + hi) / 2).clamp(min=0).square()
    return p @ v


def roots(name: str, dtype: torch.dtype, warm: bool) -> dict[str, Any]:
    op = load(name)
    x = inputs(op, dtype=dtype)

    def ours() -> Tensor:
        return first(op(**x))

    if warm:
        with torch.no_grad():
            ours()
        torch.autograd.grad(ours().sum(), data(x))
        return {}
    kind = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    row: dict[str, Any] = {"part": "roots", "program": name, "dtype": kind}
    row |= {f"{way}_ms": ms for way, ms in timed(ours, data(x)).items()}
    row["error"] = sample_error(op, x, ours())
    return row


def dense(warm: bool) -> dict[str, Any]:
    """Dense PyTorch in float32, its products in full precision."""
    q, k, v = (torch.randn(B, H, N, D, device="cuda") for _ in range(3))
    row: dict[str, Any] = {"part": "roots", "program": "dense entmax15", "dtype": "fp32"}
    call = torch.compile(dense_entmax15)
    with torch.no_grad():
        call(q, k, v)
        if warm:
            return row
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        row["forward_ms"] = milliseconds(lambda: call(q, k, v))
        row["peak_mb"] = (torch.cuda.max_memory_allocated() - base) / 2**20
    return row


def memory(name: str) -> dict[str, Any]:
    """What a call and its backward pass hold beyond the inputs, per position, at two lengths: equal if it is O(N)."""
    op = load(name)
    row: dict[str, Any] = {"part": "memory", "program": name}
    for n in (N, 2 * N):
        x = inputs(op, n)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        out = first(op(**x))
        torch.autograd.grad(out, data(x), torch.ones_like(out))
        held = (torch.cuda.max_memory_allocated() - base) / (B * H * n)
        row[f"bytes_a_position_at_{n}"] = round(held)
        del x, out
    return row


def flat(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """All scores equal over 16384 keys: every weight is 1 / n, and the output the mean of what is seen."""
    op = load(name)
    n = FLAT
    x: Inputs = {
        t.name: torch.zeros(
            [{"i": n, "j": n, "e": D, "f": D}.get(r, 1) for r in t.ranks],
            device="cuda",
            dtype=dtype,
        )
        for t in op.cascade.inputs
    }
    x["V"] = torch.randn(1, 1, n, D, device="cuda").to(dtype)
    if "alpha" in x:
        x["alpha"] = torch.full((1,), 1.5, device="cuda")
    with torch.no_grad():
        out = first(op(**x)).double()
    seen = torch.arange(1, n + 1, device="cuda", dtype=torch.float64)[:, None]
    exact = x["V"].double().cumsum(-2) / seen
    worst = ((out - exact).norm(dim=-1) / exact.norm(dim=-1)).max()
    kind = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    return {
        "part": "flat rows", "program": name, "dtype": kind,
        "error": relative(out, exact), "worst_row_error": float(worst),
    }  # fmt: skip


def jobs() -> dict[str, Callable[..., dict[str, Any]]]:
    """What is measured, by a name for `--only`; each takes whether it is only to compile."""
    made: dict[str, Callable[..., dict[str, Any]]] = {"differential": differential}
    for name in ROOTS:
        for dtype in (torch.bfloat16, torch.float32):
            made[f"{name} {str(dtype)[6:]}"] = partial(roots, name, dtype)
    made["dense"] = dense
    for plain, names in ONE_SWEEP.items():
        made |= {name: partial(one_sweep, name, plain) for name in names}
    return made


def once() -> dict[str, Callable[[], dict[str, Any]]]:
    """What needs no compiling beforehand."""
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    for name in ("causal", "differential", "entmax15", "softpick"):
        made[f"memory {name}"] = partial(memory, name)
    for name in ROOTS:
        for dtype in (torch.bfloat16, torch.float32):
            made[f"flat {name} {str(dtype)[6:]}"] = partial(flat, name, dtype)
    return made


def shown(row: dict[str, Any]) -> str:
    parts = (
        f"{k} {v:.3g}" if isinstance(v, float) else str(v)
        for k, v in row.items()
        if k not in ("job", "part")
    )
    return f"{row['part']}: {', '.join(parts)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("family.json"))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--warm", action="store_true", help="only fill the caches of compiled code")
    args = parser.parse_args()
    chosen = {n: run for n, run in jobs().items() if not args.only or n in args.only}
    if args.warm:
        for run in chosen.values():
            run(warm=True)
        return
    table = Table(args.out)
    single = {n: run for n, run in once().items() if not args.only or n in args.only}
    calls = {n: partial(run, warm=False) for n, run in chosen.items()} | single
    failed = 0
    compiled = in_batches(__file__, table.missing(chosen, "job"))
    for name in chain(compiled, table.missing(single, "job")):
        try:
            row = {"job": name, **calls[name]()}
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
