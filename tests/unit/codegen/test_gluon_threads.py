"""What kernels whose warps specialise compute, as threads (`gluon_threads`): no card is needed."""

from __future__ import annotations

import heapq
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from attndsl import driver
from attndsl.codegen.aot import kernel_table
from attndsl.codegen.configs import choose_warps
from attndsl.codegen.triton import render_module
from attndsl.schedule.added import added
from tests.unit.codegen.gluon_threads import Pointer, Tiles, Whole, kernels

EXAMPLES = Path(__file__).parents[3] / "examples"
PROGRAMS = 3
HEADS = 2
WINDOW = 96
DOCUMENT = 70


def truth(name: str, length: int, dim: int, growth: float = 0.0) -> dict[str, torch.Tensor]:
    """Inputs, outputs, gradients and what passes between kernels, in float64."""
    torch.manual_seed(0)
    t = {x: torch.randn(1, HEADS, length, dim).double() for x in ("Q", "K", "V", "dO")}
    t["K"] *= 1 + growth * torch.arange(length)[:, None] / length
    q, k, v = (t[x].clone().requires_grad_() for x in "QKV")
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    seen = (j <= i) & (i - j < WINDOW) if name == "window" else j <= i
    if name == "documents":
        t["qdoc"] = t["kdoc"] = torch.arange(length)[None] // DOCUMENT
        seen = seen & (i // DOCUMENT == j // DOCUMENT)
    scores = (q @ k.mT * dim**-0.5).masked_fill(~(seen | (name == "full")), -math.inf)
    out = scores.softmax(-1) @ v
    dq, dk, dv = torch.autograd.grad(out, (q, k, v), t["dO"])
    t |= {"O": out.detach(), "dQ": dq, "dK": dk, "dV": dv, "dQ.sum": dq * dim**0.5}
    return t | {"L_S": scores.logsumexp(-1).detach(), "D": (out * t["dO"]).sum(-1).detach()}


def module(name: str) -> str:
    program = driver.load(EXAMPLES / f"{name}.attn")
    assert program.forward is not None
    assert program.backward is not None
    whole = added(program.backward)
    return render_module(name, program.forward, program.backward, "", hopper=True, adding=whole)


def turns(source: str, kernel: str, extents: dict[str, int], config: Any) -> torch.Tensor:
    """The host's list, for as many programs as there are threads' worth of."""
    there: dict[str, Any] = {"heapq": heapq, "processors": lambda _: PROGRAMS}
    for function in ("listed_turns", f"{kernel}_costs"):
        text = re.search(rf"def {function}\((?:.|\n)*?\n    return .*\n", source)
        assert text is not None
        exec(text[0], there)
    costs = there[f"{kernel}_costs"](extents, {"start": 0, "w": WINDOW}, config)
    listed = there["listed_turns"](HEADS * len(costs), costs, 1, torch.device("cpu"))
    return torch.tensor(listed)


def reach(ids: torch.Tensor, tile: int, block: int) -> torch.Tensor:
    """What `find_reach` finds of ids that ascend."""
    out = [0] * 4
    for first in range(0, len(ids), tile):
        mine, blocks = (
            ids[first : first + tile],
            list(zip(range(0, len(ids), block), ids.split(block), strict=True)),
        )
        hit = [k for k, x in blocks if x.min() <= mine.max() and x.max() >= mine.min()]
        full = [k for k, x in blocks if x.min() == x.max() == mine.min() == mine.max()]
        out += [hit[0], hit[-1] + block, *((full[0], full[-1] + block) if full else (0, 0))]
    return torch.tensor(out)


def results(source: str, kernel: str, row: Any, known: dict[str, torch.Tensor]) -> Any:
    """What one kernel leaves, by tensor."""
    _, _, length, dim = known["Q"].shape
    extents = {"b": 1, "h": HEADS, "i": length, "j": length, "e": dim, "f": dim}
    facts = row["facts"]
    config = choose_warps(facts, extents, 227 << 10)
    assert config is not None
    tiles = -(-length // config[f"BLOCK_{facts['tile']}"])
    text = source[source.index(f"def {kernel}_load(") : source.index(f"def {kernel}(")]
    out = re.findall(r"tma_(?:store|add)\((\w+),", text)
    written = [of.split()[0] for name, _, of in row["arguments"] if name in out]
    made = {x: torch.zeros(1, HEADS, length, dim) for x in written}
    given: dict[str, Any] = {}
    dealt: Pointer | None = None
    for name, kind, of in row["arguments"]:
        if kind.startswith("descriptor"):
            tensor, *sides = of.split()
            pads = {"E_PAD": dim, "F_PAD": dim, **config}
            if "across" in facts:  # as many columns as a group adds
                pads["E_PAD*BLOCK_I//128"] = dim * config["BLOCK_I"] // 128
            box = [pads.get(x) or int(x) for x in sides]
            given[name] = Tiles(made[tensor] if tensor in made else known[tensor].float(), box)
        elif name == "turns_ptr":
            given[name] = Pointer(turns(source, kernel, extents, config))
        elif name.endswith("_reach_ptr"):
            sizes = (config[f"BLOCK_{facts[x]}"] for x in ("tile", "stream"))
            given[name] = dealt = Pointer(reach(known["qdoc"][0], *sizes))
        elif kind.startswith("pointer"):
            given[name] = Pointer(known[name.removesuffix("_ptr")].float())
        elif name.startswith("stride_"):
            tensor, _, axis = name.removeprefix("stride_").rpartition("_")
            axes = (
                {"b": 0, "h": 1, "i": 2, "e": 3, "f": 3}
                if known[tensor].ndim > 2
                else {"b": 0, "i": 1, "j": 1}
            )
            given[name] = known[tensor].stride(axes[axis])
        elif kind == "extent" and of:
            given[name] = Whole(extents[of])
        else:
            run = 2 if facts["folded"] and tiles % 2 == 0 else 1
            others = {"E": Whole(dim), "F": Whole(dim), "E_PAD": Whole(dim), "F_PAD": Whole(dim)}
            others |= {"programs": HEADS * tiles, "run": run, "start": 0, "w": WINDOW}
            given[name] = {**others, "ACC": torch.float32, **config}[name]
    functions, which = kernels(source, PROGRAMS)
    for which[0] in range(PROGRAMS):
        functions[kernel](**given)
    # What was counted is as it was, for the next launch.
    assert dealt is None or dealt.t[0] == 0
    return made


@pytest.mark.parametrize(
    ("name", "dim", "length"),
    [
        ("causal", 64, 200),
        ("causal", 128, 512),
        ("full", 128, 137),
        ("window", 128, 300),
        ("documents", 128, 300),
    ],
)
def test_threads_agree_with_the_truth(name: str, dim: int, length: int) -> None:
    """Every kernel of a module, five products among them: at lengths that are no multiples of a tile, too."""
    source, known = module(name), truth(name, length, dim)
    table = kernel_table(source, "HOPPER")
    assert any(k.endswith("dK_dV_dQ_hopper") for k in table)
    for kernel, row in table.items():
        for tensor, x in results(source, kernel, row, known).items():
            error = ((x.double() - known[tensor]).norm() / known[tensor].norm()).item()
            assert error < 2e-6, (kernel, tensor, error)


def test_a_reference_that_stands() -> None:
    """Scores grow from tile to tile: by less than the slack at first, by more later on, and rows differ."""
    source, known = module("full"), truth("full", 700, 64, growth=9.0)
    raised = "M_S_new = tl.where(M_S_tile - M_S > "
    assert raised in source
    row = kernel_table(source, "HOPPER")["full_hopper"]
    made = results(source, "full_hopper", row, known)
    assert ((made["O"] - known["O"]).norm() / known["O"].norm()).item() < 1e-5
    # In some steps the reference rises, or the correction would say nothing.
    never = re.sub(r"corrected\((\w+), alpha, HELD\)", r"\1", source)
    assert never != source
    wrong = results(never, "full_hopper", row, known)
    assert ((wrong["O"] - known["O"]).norm() / known["O"].norm()).item() > 1e-2


def test_a_group_that_does_not_hand_over_is_waited_for() -> None:
    """The threads see a missing arrival, or what they find elsewhere would say nothing."""
    source, known = module("causal"), truth("causal", 200, 64)
    kernel = "causal_backward_dK_dV_dQ_hopper"
    cut = re.sub(r"\n +give_back\(dQ_sum_there.*", "", source)
    assert cut != source
    row = kernel_table(source, "HOPPER")[kernel]
    with pytest.raises(AssertionError, match="nobody comes"):
        results(cut, kernel, row, known)
