"""What `attndsl compile` compiles kernels for is what the operator hands them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import attndsl
from attndsl.driver import load
from attndsl.output import kept_wide
from attndsl.runtime.stages import Stage
from attndsl.testing import make_inputs

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["causal", "alibi", "sigmoid", "documents"])
def test_backward_takes_the_types_that_a_call_hands_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, torch.dtype] = {}
    run = Stage.backward

    def watched(self: Stage, tensors: Any, grads: Any, *rest: Any) -> Any:
        seen.update({n: tensors[n].dtype for n in self.passes.residuals})
        seen.update({self.passes.cotangents[o]: x.dtype for o, x in grads.items()})
        return run(self, tensors, grads, *rest)

    monkeypatch.setattr(Stage, "backward", watched)
    op = attndsl.load(EXAMPLES / f"{name}.attn", backend="eager")
    sizes = {"b": 1, "h": 1, "i": 5, "j": 5, "e": 4, "f": 4}
    params = {"G": 1} if any(p.name == "G" for p in op.cascade.params) else {}
    given = [
        x.bfloat16().requires_grad_() if x.is_floating_point() else x
        for x in make_inputs(op, sizes, params=params).values()
    ]
    out = op(*given, **params)
    torch.autograd.backward([x.sum() for x in (out if isinstance(out, tuple) else (out,))])
    program = load(EXAMPLES / f"{name}.attn")
    assert set(kept_wide(program)) == {n for n, t in seen.items() if t is torch.float32}
