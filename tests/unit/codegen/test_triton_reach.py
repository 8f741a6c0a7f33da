"""Where the ids of tiles stand, found before a kernel: against counting, and where a kernel looks for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attndsl.codegen.triton import render_module
from attndsl.runtime.stages import plan_passes
from tests.unit.codegen.running import run
from tests.unit.schedule.harness import load

TEXT = """attention t(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], {declared}) -> O[b,h,i,f] {{
  batch b, h
  S[i,j] = Q[i,e] * K[j,e]   where {where}
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}}"""


def module(declared: str, where: str) -> str:
    passes = plan_passes(load(TEXT.format(declared=declared, where=where)), ("Q", "K", "V"))
    return render_module("t", passes.forward, passes.backward, "header", passes.split)


DOCUMENTS = ("x[b,i]: int, y[b,j]: int", "j <= i, x[i] == y[j]")

COUNTED = """
def expected(of, ids, tile, block):
    out = []
    for at in range(0, len(of), tile):
        mine = of[at : at + tile]
        first, last = min(mine), max(mine)
        starts = range(0, len(ids), block)
        parts = [(s, ids[s : s + block]) for s in starts]
        hit = [s for s, p in parts if min(p) <= last and max(p) >= first]
        same = [s for s, p in parts if set(p) == {first} == {last}]
        whole = same and same == list(range(same[0], same[-1] + 1, block))
        low, high = (hit[0], hit[-1] + block) if hit else (len(ids), 0)
        out.append([low, high, *((same[0], same[-1] + block) if whole else (0, 0))])
    return out

torch.manual_seed(0)
for kind in ("sorted", "random", "one"):
    for n, m, tile, block in ((40, 40, 16, 16), (17, 2100, 16, 64), (1, 1, 16, 16)):
        top = {"sorted": 7, "random": 40, "one": 1}[kind]
        of, ids = (torch.randint(0, top, (2, 3, k)) for k in (n, m))
        if kind == "sorted":
            of, ids = of.sort(-1).values, ids.sort(-1).values
        of = of.transpose(1, 2).contiguous().transpose(1, 2)  # positions are not adjacent
        tiles = -(-n // tile)
        whole = torch.full((4 + 2 * 3 * tiles * 4,), -7, dtype=torch.int32)
        module.find_reach[(6, -(-tiles // 2))](
            of, ids, whole,
            *module.strides_along(of, (None, 0, 1, 2)), *module.strides_along(ids, (None, 0, 1, 2)),
            2, 3, n, m, TILE=tile, BLOCK=block, MANY=2,
        )
        assert whole[0] == 0  # tiles that were dealt
        reach = whole[4:].view(2, 3, tiles, 4)
        for b in range(2):
            for h in range(3):
                want = expected(of[b, h].tolist(), ids[b, h].tolist(), tile, block)
                assert reach[b, h].tolist() == want, (kind, n, m, reach[b, h].tolist(), want)
"""

RUN = """
torch.manual_seed(0)
b, h, n, m = 2, 2, 40, 40
q, k, v = (torch.randn(b, h, x, 16, dtype=torch.float64, requires_grad=True) for x in (n, m, m))
x, y = make(b, h, n), make(b, h, m)
place = torch.arange(n)[:, None] >= torch.arange(m)
mask = (spread(x)[..., :, None] == spread(y)[..., None, :]) & place
s = (q @ k.mT).masked_fill(~mask, -math.inf)
out = torch.softmax(s, -1).nan_to_num() @ v
given = torch.randn_like(out)
grads = torch.autograd.grad(out, (q, k, v), given)
extents = dict(b=b, h=h, i=n, j=m, e=16, f=16)
inputs = dict(Q=q.detach(), K=k.detach(), V=v.detach(), x=x, y=y)
config = {"BLOCK_I": 16, "BLOCK_J": 16}
made = module.forward(inputs, extents, {"start": 0}, config)
torch.testing.assert_close(made["O"], out.detach())
back = module.backward({**inputs, **made, "dO": given}, extents, {"start": 0}, config)
for name, want in zip(("dQ", "dK", "dV"), grads):
    torch.testing.assert_close(back[name], want)
"""

SPREAD = {
    "b": "make = lambda b, h, n: torch.randint(0, 4, (b, n)).sort(-1).values\nspread = lambda x: x[:, None]\n",
    "bh": "make = lambda b, h, n: torch.randint(0, 4, (b, h, n)).sort(-1).values\nspread = lambda x: x\n",
    "": "make = lambda b, h, n: torch.randint(0, 4, (n,)).sort(-1).values\nspread = lambda x: x\n",
}


def test_every_tile_against_counting(tmp_path: Path) -> None:
    run(tmp_path, module(*DOCUMENTS), COUNTED)


@pytest.mark.parametrize("axes", SPREAD)
def test_values_and_gradients(tmp_path: Path, axes: str) -> None:
    at = "".join(f"{a}," for a in axes)
    declared = f"x[{at}i]: int, y[{at}j]: int"
    run(tmp_path, module(declared, "j <= i, x[i] == y[j]"), SPREAD[axes] + RUN)


def test_a_tile_of_many_programs_is_looked_up_once() -> None:
    text = module(*DOCUMENTS)
    head = text.index("def forward(")
    split = text.index("def forward_split(")
    assert "block_bounds(" not in text[head:split]
    assert text[head:split].count("find_reach[grid](") == 3


def test_where_ids_are_computed_programs_look_for_themselves() -> None:
    text = module("x[b,i]: int, y[b,j]: int", "x[i] + 1 == y[j]")
    assert "find_reach" not in text
    assert "block_bounds(" in text[text.index("def forward(") :]


COMPILED = """
import importlib.util, sys
import torch
from triton.runtime import driver
from triton.runtime.jit import MockTensor
from attndsl.tuning.compiling import Cross, usage

spec = importlib.util.spec_from_file_location("generated", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
driver.set_active(Cross(90))
for dtype in (torch.int32, torch.int64):
    ids, reach = MockTensor(dtype), MockTensor(torch.int32)
    numbers = (0, 0, 70, 1, 0, 0, 70, 1, 1, 4, 70, 70)
    made = module.find_reach.warmup(ids, ids, reach, *numbers, TILE=64, BLOCK=64, MANY=16, grid=(4, 1))
    assert usage(made.asm["cubin"])["spills"] == 0
"""


def test_it_compiles_without_a_gpu(tmp_path: Path) -> None:
    """Triton's interpreter runs what its compiler refuses."""
    path = tmp_path / "generated.py"
    path.write_text(module(*DOCUMENTS), encoding="utf-8")
    command = [sys.executable, "-c", COMPILED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
