"""Launchers of modules with kernels whose warps specialise: what they pass, without a card."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch

from attndsl import driver
from attndsl.cascade.nodes import DType
from attndsl.codegen.aot import compile_kernels
from attndsl.codegen.configs import choose_warps
from attndsl.output import module_text
from attndsl.runtime.cache import load_module
from attndsl.runtime.launches import Launch, Recorder, rebound
from attndsl.schedule.warps import Unfit, roles
from attndsl.sizes import TRIAL, sizes

EXAMPLES = Path(__file__).parents[3] / "examples"

TIED = """
attention tied(X[b,h,i,e], V[b,h,i,f]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = X[i,e] * X[j,e] / sqrt(|e|)   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


@pytest.mark.parametrize("example", ["causal", "alibi", "bias_dense", "key_padding", "gqa"])
def test_every_parameter_gets_an_argument(example: str) -> None:
    program = driver.load(EXAMPLES / f"{example}.attn")
    text = module_text(program, driver.CompileOptions(hopper=True))
    module = load_module(text, f"{example}_hopper_launches")
    chosen = sizes(program.cascade, TRIAL)
    given = {
        t.name: torch.empty(
            chosen.shapes[t.name],
            dtype={DType.FLOAT: torch.bfloat16, DType.BOOL: torch.bool}.get(t.dtype, torch.int64),
        )
        for t in program.cascade.inputs
    }

    def hopper(kernel: str, tensors: Any, extents: dict[str, int], config: Any) -> dict[str, int]:
        facts = module.HOPPER[kernel]["facts"]
        found = choose_warps(facts, extents, 227 * 1024)
        assert found is not None
        return found

    recorders = {n: Recorder(getattr(module, n), act=lambda launch: None) for n in module.HOPPER}
    stand_ins = {"hopper": hopper, "memory_tiles": lambda tensor, box: (tensor.shape, box)}
    stand_ins["shared_out"] = lambda kernel, tiles, device: (1, min(tiles, 132))
    launcher = rebound(module, "forward", {**recorders, **stand_ins})
    launcher(given, chosen.extents, {"start": 0, **chosen.params})
    seen: list[Launch] = [x for r in recorders.values() for x in r.launches]
    assert len(seen) == 1
    options = {"num_warps", "maxnreg"}
    for launch in seen:
        keyword = {k: v for k, v in launch.keyword.items() if k not in options}
        bound = signature(launch.kernel.fn).bind(*launch.positional, **keyword)
        for name, value in bound.arguments.items():
            if name.startswith("stride_"):
                assert isinstance(value, int), name
            assert name.endswith("_ptr") == isinstance(value, torch.Tensor), name


def test_searches_keep_the_portable_form() -> None:
    program = driver.load(EXAMPLES / "sparsemax.attn")
    found = [
        roles(plan, s)
        for plan in program.plans
        for s in plan.steps
        if getattr(s, "rounds", None) is not None
    ]
    assert found
    assert all(isinstance(r, Unfit) and "rounds" in r.reason for r in found)


def test_a_tensor_tiled_in_two_ways_keeps_the_portable_form(tmp_path: Path) -> None:
    path = tmp_path / "tied.attn"
    path.write_text(TIED, encoding="utf-8")
    (forward,) = driver.load(path).plans[0].steps
    found = roles(driver.load(path).plans[0], forward)
    assert found == Unfit("`X` is read in tiles of two shapes")


@pytest.mark.slow
def test_ends_of_ranges_may_be_read_from_64_bits(tmp_path: Path) -> None:
    program = driver.load(EXAMPLES / "prefix_lm.attn")
    path = tmp_path / "prefix_lm.py"
    options = driver.CompileOptions(hopper=True, backward=False)
    path.write_text(module_text(program, options), encoding="utf-8")
    made = compile_kernels(path, targets=["sm_90"], extents={"e": 64, "f": 64})
    assert any(k.name.endswith("_hopper") for k in made)
