"""A child that times configurations of a pass beside what runs untuned: `python -m benchmarks.beside`.

As `attndsl.tuning.measuring`, of which it is made; but results are compared with those of the untuned kernels, which
take milliseconds where float64 takes seconds: which of them are right, the tests and the tuner say.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attndsl.testing import make_inputs
from attndsl.tuning import measuring
from attndsl.tuning.child import Message, serve
from attndsl.tuning.compiling import load
from attndsl.tuning.measuring import DEVICE, Bench, rms
from attndsl.tuning.problem import Problem

# How far a result may be from the untuned one, as a part of it: sums in another order round otherwise, each of 16 bits.
FAR = 0.05
# Results so large are of inputs that are: smaller ones are drawn.
WILD = 1e4
UNTUNED: dict[str, dict[str, int]] = {"portable": {"": 1}}


class Beside(Bench):
    """A problem whose results are compared with the untuned kernels'."""

    def draw(self, scale: float = 1.0) -> dict[str, Tensor]:
        """As `Bench`, but what the forward pass keeps is what its untuned kernels give, of all copies."""
        p = self.problem
        self.copies = {}
        generator = torch.Generator(device=DEVICE).manual_seed(p.seed)
        given = make_inputs(
            p.cascade,
            p.extents,
            params=p.params,
            dtype=self.dtype,
            device=DEVICE,
            generator=generator,
        )
        given = {n: x * scale if x.is_floating_point() else x for n, x in given.items()}
        if p.launcher != "backward":
            return given
        made = self.untuned("forward", given)
        kept = {r: made[r] for r in p.passes.residuals}
        for output, name in p.passes.cotangents.items():
            x = torch.randn(made[output].shape, generator=generator, device=DEVICE)
            kept[name] = torch.where(torch.isfinite(made[output]), x, 0.0).to(made[output].dtype)
        return {**given, **kept}

    def expected(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The untuned results, and how far others may be from them."""
        found = self.untuned(self.problem.launcher, self.inputs)
        far = {n: FAR * rms(x) for n, x in found.items()}
        wild = any(bool(x.isnan().any()) for x in found.values())
        return found, {n: x if x < WILD and not wild else float("inf") for n, x in far.items()}

    def untuned(self, launcher: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a launcher returns."""
        p = self.problem
        module: Any = load(str(p.module))
        made: dict[str, Tensor] = getattr(module, launcher)(inputs, p.extents, p.params, UNTUNED)
        return made


class Session(measuring.Session):
    """The state of this process."""

    def handle(self, message: Message) -> Message:
        """Open problems, or try a candidate."""
        if message["do"] != "open":
            return super().handle(message)
        self.benches.clear()
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
        problems: list[Problem] = [pickle.loads(Path(x).read_bytes()) for x in message["problems"]]
        with torch.no_grad():
            self.benches = {p.launcher: Beside(p) for p in problems}
        return {"open": True, "device": DEVICE}


if __name__ == "__main__":
    serve(Session().handle)
