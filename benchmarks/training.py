"""Forward and backward beside FlexAttention (torch.compile, default options), in one run on the same inputs.

    PYTHONPATH=. python benchmarks/training.py --out benchmarks/results/training-h100.json [--backend auto]

TFLOP/s count unmasked pairs only: 4·D a pair forward, 10·D backward. Errors are relative, of O
against float64 on one head.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config
from common import EXAMPLES, Table, in_batches, milliseconds, relative
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attndsl

torch._functorch.config.donated_buffer = False  # or a compiled peer's graph runs backward only once

B, H, N, D = 4, 16, 4096, 128
WINDOW, CAP, DOCUMENTS, PREFIX = 1024, 50.0, 8, 1024


def programs(generator: torch.Generator) -> dict[str, dict[str, Any]]:
    """Per program: extra inputs and parameters, FlexAttention's score and mask, how many pairs of N x N count."""
    slope = torch.rand(H, generator=generator, device="cuda") * 0.1
    table = torch.randn(H, 2 * N - 1, generator=generator, device="cuda")
    ids = (torch.arange(N, device="cuda") // (N // DOCUMENTS)).to(torch.int32)
    ids = ids.expand(B, N).contiguous()

    def causal(b: Any, h: Any, i: Any, j: Any) -> Any:
        return i >= j

    def window(b: Any, h: Any, i: Any, j: Any) -> Any:
        return (i >= j) & (i - j < WINDOW)

    def document(b: Any, h: Any, i: Any, j: Any) -> Any:
        return (i >= j) & (ids[b, i] == ids[b, j])

    half = N * (N + 1) // 2
    one = N // DOCUMENTS
    return {
        "full": {"pairs": N * N},
        "causal": {"mask": causal, "pairs": half},
        "alibi": {
            "inputs": {"slope": slope},
            "score": lambda s, b, h, i, j: s - slope[h] * (i - j),
            "mask": causal,
            "pairs": half,
        },
        "softcap": {
            "params": {"cap": CAP},
            "score": lambda s, b, h, i, j: CAP * torch.tanh(s / CAP),
            "mask": causal,
            "pairs": half,
        },
        "window": {
            "params": {"w": WINDOW},
            "mask": window,
            "pairs": sum(min(i + 1, WINDOW) for i in range(N)),
        },
        "documents": {
            "inputs": {"qdoc": ids, "kdoc": ids},
            "mask": document,
            "pairs": DOCUMENTS * one * (one + 1) // 2,
            "masked_by_batch": True,
        },
        "bias_toeplitz": {
            "inputs": {"table": table},
            "score": lambda s, b, h, i, j: s + table[h, i - j + N - 1],
            "pairs": N * N,
        },
    }


def measure(
    name: str, program: dict[str, Any], warm: bool = False, backend: str | None = None
) -> dict[str, Any]:
    """One row: both sides' TFLOP/s and the ratios. `warm` only compiles and runs once."""
    generator = torch.Generator(device="cuda").manual_seed(0)
    q, k, v, do = (
        torch.randn(B, H, N, D, generator=generator, device="cuda", dtype=torch.bfloat16)
        for _ in range(4)
    )
    for x in (q, k, v):
        x.requires_grad_()
    op = attndsl.load(EXAMPLES / f"{name}.attn", backend=backend)
    extra = dict(program.get("inputs", {}))
    for x in extra.values():
        if x.is_floating_point():
            x.requires_grad_()
    params = program.get("params", {})
    tracked = [x for x in (q, k, v, *extra.values()) if x.requires_grad]

    def ours() -> torch.Tensor:
        out = op(Q=q, K=k, V=v, **extra, **params)
        return out[0] if isinstance(out, tuple) else out

    def grad(out: torch.Tensor) -> Any:
        return torch.autograd.grad(out, tracked, do, retain_graph=True)

    row: dict[str, Any] = {"program": name, "B": B, "H": H, "N": N, "D": D, "dtype": "bf16"}
    if backend is not None:
        row["backend"] = backend
    flops = {
        "forward": 4 * D * B * H * program["pairs"],
        "backward": 10 * D * B * H * program["pairs"],
    }
    out = ours()
    exact = op.reference(
        Q=q[:1, :1], K=k[:1, :1], V=v[:1, :1],
        **{n: x[:1] for n, x in extra.items()}, **params, dtype=torch.float64,
    )  # fmt: skip
    exact = exact[0] if isinstance(exact, tuple) else exact
    row["error"] = relative(out[:1, :1], exact)
    if warm:
        with torch.no_grad():
            ours()
        grad(out)
    mine = {}
    if not warm:
        with torch.no_grad():
            mine["forward"] = milliseconds(ours)
        mine["backward"] = milliseconds(partial(grad, out))
    for x in extra.values():
        x.requires_grad_(False)
    tracked = [q, k, v]
    if warm:
        grad(ours())
    else:
        mine["backward_without_extra_gradients"] = milliseconds(partial(grad, ours()))
    for way, ms in mine.items():
        row[f"{way}_ms"] = ms
        row[f"{way}_tflops"] = flops[way.split("_")[0]] / ms * 1e-9
    mask = program.get("mask")
    blocks = None
    if mask is not None:
        many = B if program.get("masked_by_batch") else None
        blocks = create_block_mask(mask, many, None, N, N)
    torch._dynamo.reset()  # or the limit on recompilations sends later programs to eager code
    flex = torch.compile(flex_attention)

    def theirs() -> torch.Tensor:
        return flex(q, k, v, score_mod=program.get("score"), block_mask=blocks)

    learned = [x for x in extra.values() if x.is_floating_point()]

    def with_extra_gradients() -> Any:
        """FlexAttention's backward pass with the gradients of what its score function captures."""
        for x in learned:
            x.requires_grad_()
        return partial(torch.autograd.grad, theirs(), [q, k, v, *learned], do, retain_graph=True)

    if warm:  # everything is compiled, into caches on disk
        torch.autograd.grad(theirs(), tracked, do)
        if learned:
            with_extra_gradients()()
        return row
    try:
        with torch.no_grad():
            ms = {"forward": milliseconds(theirs)}
        ms["backward"] = milliseconds(partial(grad, theirs()))
        row["flex_error"] = relative(theirs()[:1, :1], exact)
    except Exception as e:  # a peer that fails is recorded, not hidden
        row["flex_failed"] = f"{type(e).__name__}: {str(e)[:200]}"
        ms = {}
    for way, t in ms.items():
        row[f"flex_{way}_ms"] = t
        row[f"flex_{way}_tflops"] = flops[way] / t * 1e-9
        row[f"{way}_ratio"] = t / (
            mine[way] if way == "forward" else mine["backward_without_extra_gradients"]
        )
    if learned and ms:
        try:
            row["flex_all_gradients_ms"] = milliseconds(with_extra_gradients())
            row["all_gradients_ratio"] = row["flex_all_gradients_ms"] / mine["backward"]
        except Exception as e:
            row["flex_all_gradients_failed"] = f"{type(e).__name__}: {str(e)[:200]}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("training.json"))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--warm", action="store_true", help="only fill the caches of compiled code")
    parser.add_argument("--backend", help="as `attndsl.load` takes it")
    args = parser.parse_args()
    generator = torch.Generator(device="cuda").manual_seed(1)
    chosen = {n: p for n, p in programs(generator).items() if not args.only or n in args.only}
    if args.warm:
        for name, program in chosen.items():
            measure(name, program, True, args.backend)
        return
    table = Table(args.out)
    about = {"backend": args.backend} if args.backend else {}
    names = table.missing(chosen, "program", **about)
    more = ["--backend", args.backend] if args.backend else []
    for name in in_batches(__file__, names, more):
        row = measure(name, chosen[name], backend=args.backend)
        table.add(row)
        print(
            f"{name:14s} ours {row['forward_tflops']:.0f}/{row['backward_without_extra_gradients_tflops']:.0f}"
            f" (all gradients {row['backward_tflops']:.0f})"
            f" flex {row.get('flex_forward_tflops', math.nan):.0f}/{row.get('flex_backward_tflops', math.nan):.0f}"
            f" ratio {row.get('forward_ratio', math.nan):.2f}/{row.get('backward_ratio', math.nan):.2f}"
            f" (all gradients {row.get('all_gradients_ratio', math.nan):.2f})"
            f" error {row['error']:.1e} {row.get('flex_failed', '')}",
            flush=True,
        )


if __name__ == "__main__":
    main()
