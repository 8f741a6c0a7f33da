"""Calls with few heads: the form of a stage whose walks are cut into pieces.

It is a stage of its own, with a module of its own: it is made when a call first wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from attndsl.runtime.few import multiprocessors
from attndsl.runtime.stages import TRITON, Passes, Stage
from attndsl.schedule.composed import PIECES
from attndsl.schedule.few_heads import cut_walks, pieces_of
from attndsl.schedule.pieces import in_pieces
from attndsl.schedule.tile import TileProgram


@dataclass(frozen=True, slots=True)
class FewHeads:
    """Passes whose walks are cut, and these walks, from which the number of pieces follows."""

    passes: Passes
    walks: tuple[TileProgram, ...]

    def extents(self, extents: dict[str, int], processors: int) -> dict[str, int] | None:
        """With the number of pieces; None where walks stay whole."""
        pieces = pieces_of(self.walks, extents, processors)
        return {**extents, PIECES: pieces} if pieces > 1 else None


def few_heads(passes: Passes) -> FewHeads | None:
    """The form in pieces of the passes of a stage; None where none of their walks can be cut."""
    forward = in_pieces(passes.forward)
    backward = None if passes.backward is None else in_pieces(passes.backward)
    cut = [p for p in (forward, backward) if p is not None]
    if not cut:
        return None
    made = replace(
        passes,
        forward=forward or passes.forward,
        backward=backward or passes.backward,
        split=None,
        adding=None,
    )
    return FewHeads(made, tuple(w for p in cut for w in cut_walks(p)))


class Cutting:
    """The stages in pieces of a program, by the stages with whole walks."""

    def __init__(self, header: str, precision: str) -> None:
        self.header, self.precision = header, precision
        self.forms: dict[Stage, FewHeads | None] = {}
        self.stages: dict[Stage, Stage] = {}

    def __call__(
        self, stage: Stage, inputs: Mapping[str, torch.Tensor], extents: dict[str, int]
    ) -> tuple[Stage, dict[str, int]]:
        """The stage that serves a call of these tensors and extents, and the extents that it takes."""
        if stage.backend not in TRITON:
            return stage, extents
        if stage not in self.forms:
            self.forms[stage] = few_heads(stage.passes)
        few = self.forms[stage]
        device = next(iter(inputs.values())).device
        more = None if few is None else few.extents(extents, multiprocessors(device))
        if few is None or more is None:
            return stage, extents
        if stage not in self.stages:
            self.stages[stage] = Stage(
                stage.cascade, few.passes, stage.backend, self.header, None, self.precision
            )
        made = self.stages[stage]
        return (made, more) if fits(made, inputs, more) else (stage, extents)


def fits(stage: Stage, inputs: Mapping[str, torch.Tensor], extents: dict[str, int]) -> bool:
    """Whether a card holds the tiles of all kernels: those that start from a given state hold more than whole walks."""
    module = stage.module
    for kernel in module.KERNELS:
        try:
            module.configure(kernel, extents, inputs, None)
        except ValueError as error:
            if not str(error).startswith("A0510"):
                raise
            return False
    return True
