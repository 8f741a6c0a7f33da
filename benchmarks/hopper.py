"""Every kernel whose warps specialise beside the portable one of the same tile program, on a Hopper card.

    PYTHONPATH=. python benchmarks/hopper.py --out FILE.json [--programs causal window] [--jobs 8] [--own]

A row is one kernel in one form with one choice of sizes: its milliseconds, the L2 cache flushed between repeats, its
registers and its spills. TFLOP/s count unmasked pairs: 4·D each forward; backward the whole pass counts 10·D, so the
rows of dQ and of dK/dV have the milliseconds alone, and one more row has their sum. Rows are written as they are
measured; kernels are compiled beforehand in parallel processes.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import EXAMPLES, Table, milliseconds, relative
from torch.nn.attention import SDPBackend, sdpa_kernel

import attndsl
from attndsl.runtime.engine import Start
from attndsl.runtime.launches import Recorder, rebound

SHAPES = [(4, 16, 4096, 128), (4, 16, 4096, 64)]
PROGRAMS = ["full", "causal", "alibi", "softcap", "window", "prefix_lm", "sink_softmax", "gqa"]
PROGRAMS += ["documents", "sigmoid", "softpick", "off_by_one", "differential", "bias_dense"]
# Other head dims, for plain attention.
WIDTHS = [(4, 16, 4096, 96), (4, 8, 4096, 192), (4, 8, 4096, 256)]
# Keys or queries in a tile, and how many tiles are in flight; None is the module's own choice.
SIZES: list[tuple[int, int] | None] = [None, (128, 2), (128, 3), (64, 2), (64, 3), (64, 4)]
WINDOW, PREFIX, GROUP, DOCUMENTS = 1024, 1024, 4, 8


def problem(name: str, shape: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random inputs and parameters of one program."""
    b, h, n, d = shape
    shared = GROUP if name == "gqa" else 1
    x: dict[str, Any] = {
        k: torch.randn(b, h // (1 if k == "Q" else shared), n, d, device="cuda").bfloat16()
        for k in "QKV"
    }
    if name == "differential":
        x = {f"{k}{n}": torch.randn_like(x[k]) for k in "QK" for n in (1, 2)} | {"V": x["V"]}
        x["lam"] = torch.rand(h, device="cuda")
    if name == "bias_dense":
        x["bias"] = torch.randn(b, h, n, n, device="cuda", dtype=torch.bfloat16)
    if name == "alibi":
        x["slope"] = torch.rand(h, device="cuda") * 0.3
    if name == "sink_softmax":
        x["sink"] = torch.randn(h, device="cuda")
    if name == "prefix_lm":
        x["n"] = torch.full((b,), PREFIX, device="cuda")
    if name == "documents":
        x["qdoc"] = x["kdoc"] = (torch.arange(n, device="cuda") // (n // DOCUMENTS)).expand(b, n)
    params: dict[str, dict[str, Any]] = {"window": {"w": WINDOW}, "softcap": {"cap": 50.0}}
    params |= {"gqa": {"G": GROUP}, "alibi": {"G": 1}}
    return x, params.get(name, {})


def pairs(name: str, n: int) -> int:
    """Unmasked pairs of one head, each as often as its program multiplies it."""
    if name in ("full", "bias_dense"):
        return n * n
    if name == "differential":
        return n * (n + 1)
    if name == "window":
        return sum(min(i + 1, WINDOW) for i in range(n))
    if name == "prefix_lm":
        return sum(max(i + 1, PREFIX) for i in range(n))
    if name == "documents":
        n //= DOCUMENTS
        return DOCUMENTS * n * (n + 1) // 2
    return n * (n + 1) // 2


class Passes:
    """One program at one shape, both passes of which can be launched in any form."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        self.op = attndsl.load(EXAMPLES / f"{name}.attn", backend="hopper")
        given, params = problem(name, shape)
        names = [t.name for t in self.op.cascade.inputs]
        values = tuple(params.get(p.name, p.default) for p in self.op.cascade.params)
        engine = self.op._engine
        call = engine.prepare([given[k] for k in names], Start(), values, "Q,K,V")
        self.call, self.stage, self.module = call, call.stage, call.stage.module
        self.given = given
        self.forms = getattr(self.module, "HOPPER", {})
        self.config: dict[str, Any] = {}
        made = self.stage.forward(given, call.extents, call.params, {"portable": {"": 1}})
        kept = [made[k] for k in self.stage.kept]
        self.tensors = given | dict(zip(self.stage.passes.residuals, kept, strict=True))
        outputs = zip(self.stage.outputs, made, strict=False)
        self.cotangents = {o: torch.randn_like(x) for o, x in outputs}
        self.cotangents = {o: self.cotangents[o] for o in self.stage.passes.cotangents}

    def launches(self, config: Any) -> tuple[dict[str, Any], list[torch.Tensor]]:
        """What one call forward and one backward launch, by kernel, beside the launcher, and what comes out."""
        table = [*self.module.KERNELS, *self.forms]
        seen: dict[str, Any] = {}

        def run(name: str, *arguments: Any) -> dict[str, torch.Tensor]:
            recorders = {k: Recorder(getattr(self.module, k)) for k in table}
            made: dict[str, torch.Tensor] = rebound(self.module, name, recorders)(*arguments)
            seen.update({k: (name, r.launches[0]) for k, r in recorders.items() if r.launches})
            return made

        rest = (self.call.extents, self.call.params, config, run)
        out = self.stage.forward(self.given, *rest)[: len(self.stage.outputs)]
        out += self.stage.backward(self.tensors, self.cotangents, *rest)
        torch.cuda.synchronize()
        return seen, out

    def choices(self, sizes: Sequence[tuple[int, int] | None]) -> list[tuple[str, Any]]:
        """Every configuration to be tried, by its description."""
        out: list[tuple[str, Any]] = [("portable", {"portable": {"": 1}})]
        for size in sizes if self.forms else []:
            config = {}
            for k, entry in self.forms.items():
                if size is not None:
                    stream = f"BLOCK_{entry['facts']['stream']}"
                    config[k] = {stream: size[0], "STAGES": size[1]}
            out.append(("own" if size is None else f"{size[0]} x {size[1]}", config))
        return out


Task = tuple[str, tuple[int, ...], int, list[tuple[int, int] | None]]


def warmed(task: Task) -> None:
    """Compile what one configuration launches; whatever it raises is raised again where it is timed."""
    name, shape, which, sizes = task
    try:
        passes = Passes(name, shape)
        passes.launches(passes.choices(sizes)[which][1])
    except Exception as e:
        print("warming", task, str(e)[:200].replace("\n", " "), flush=True)


def rows_of(
    name: str, shape: tuple[int, ...], sizes: Sequence[tuple[int, int] | None]
) -> list[dict[str, Any]]:
    """The rows of one program at one shape."""
    b, h, n, d = shape
    passes = Passes(name, shape)
    work = pairs(name, n) * b * h * d
    rows: list[dict[str, Any]] = []
    seen: dict[str, float] = {}
    expected: list[torch.Tensor] = []
    for form, config in passes.choices(sizes):
        row = {"program": name, "B": b, "H": h, "N": n, "D": d, "form": form}
        try:
            launches, made = passes.launches(config)
        except Exception as e:
            rows.append({**row, "note": f"{type(e).__name__}: {e}"[:200].replace("\n", " ")})
            continue
        expected = expected or made
        row["error"] = max(relative(x, y) for x, y in zip(made, expected, strict=True))
        back = 0.0
        for k, (launcher, launch) in launches.items():
            ms = seen[k] = milliseconds(launch) if k in passes.forms or k not in seen else seen[k]
            compiled = launch.made
            chosen = {x: v for x, v in launch.keyword.items() if x.startswith(("BLOCK", "STAGES"))}
            kind = {"kernel": k, "special": k in passes.forms, "sizes": chosen, "ms": ms}
            kind |= {"registers": compiled.n_regs, "spills": compiled.n_spills}
            if launcher == "forward":
                kind["tflops"] = 4 * work / ms * 1e-9
            else:
                back += ms
            rows.append({**row, **kind})
        if back:
            rows.append(
                {**row, "kernel": "backward", "ms": back, "tflops": 10 * work / back * 1e-9}
            )
    return rows


def cudnn(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """PyTorch's fastest kernel for the same."""
    b, h, n, d = shape
    q, k, v = x = [t.requires_grad_() for t in problem(name, shape)[0].values()]
    work = pairs(name, n) * b * h * d
    run = partial(
        torch.nn.functional.scaled_dot_product_attention, q, k, v, is_causal=name == "causal"
    )
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        with torch.no_grad():
            forward = milliseconds(run)
        out = run()
        g = torch.randn_like(out)
        backward = milliseconds(lambda: torch.autograd.grad(out, x, g, retain_graph=True))
    row = {"program": name, "B": b, "H": h, "N": n, "D": d, "form": "cudnn"}
    return {**row, "tflops": 4 * work / forward * 1e-9, "back_tflops": 10 * work / backward * 1e-9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--programs", nargs="*", default=PROGRAMS)
    parser.add_argument("--jobs", type=int, default=0, help="processes that compile beforehand")
    parser.add_argument("--dims", nargs="*", type=int, help="only these head dims, for all programs")
    parser.add_argument("--warm", action="store_true", help="compile, and no more")
    parser.add_argument("--own", action="store_true", help="only the sizes that modules choose")
    args = parser.parse_args()
    sizes = SIZES[:1] if args.own else SIZES
    counts = range(len(sizes) + 1)
    plain = [n for n in args.programs if n in ("full", "causal")]
    both = [(s, args.programs) for s in SHAPES] + [(s, plain) for s in WIDTHS]
    if args.dims:
        both = [(s, args.programs) for s in (*SHAPES, *WIDTHS) if s[3] in args.dims]
    table = Table(args.out)
    wanted = [
        (s, n) for s, names in both for n in names if not table.has(program=n, N=s[2], D=s[3])
    ]
    tasks: list[Task] = [(n, s, k, sizes) for s, n in wanted for k in counts]
    if args.jobs:
        with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=4) as pool:
            pool.map(warmed, tasks, chunksize=1)
        print("compiled", flush=True)
    if args.warm:
        return
    for shape, name in wanted:
        b, h, n, d = shape
        try:
            found = rows_of(name, shape, sizes)
            if name in plain and d <= 128:
                found.append(cudnn(name, shape))
        except Exception as e:
            about = {"program": name, "B": b, "H": h, "N": n, "D": d}
            found = [{**about, "failed": f"{type(e).__name__}: {e}"[:300]}]
        table.add(*found)
        for row in found:
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
        print(flush=True)


if __name__ == "__main__":
    main()
