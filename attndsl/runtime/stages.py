"""From a program to the functions that run it, when they are first needed.

A stage is one way of calling a program: with which form of `start`, with gradients of which inputs,
by which backend. Each has a generated module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from attndsl.analysis.ranks import Kind
from attndsl.callerrors import CallError
from attndsl.cascade.bind import Number, eval_int
from attndsl.cascade.nodes import Cascade, DType, Rank
from attndsl.codegen.toolkit import sound_assembler
from attndsl.diagnostics import DiagnosticError
from attndsl.runtime.cache import load_module
from attndsl.runtime.contexts import bind
from attndsl.runtime.few import FewQueries
from attndsl.schedule.tile import SIXTEEN, Buffer, Plan

Config: TypeAlias = Mapping[str, Mapping[str, int]] | None
"""Block sizes, warps and stages by kernel; what is not in it the module chooses."""
Run: TypeAlias = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Passes:
    """The scheduled passes of a stage, and how their tensors are named.

    `forward` computes the outputs and `residuals`. `backward` takes inputs, residuals (which may be
    outputs of the program too) and, by `cotangents`, the gradients of outputs; `gradients` maps an
    input to the buffer with its gradient. `split` is the forward pass for few queries.
    """

    forward: Plan
    backward: Plan | None = None
    residuals: tuple[str, ...] = ()
    cotangents: Mapping[str, str] = field(default_factory=dict)
    gradients: Mapping[str, str] = field(default_factory=dict)
    backward_cascade: Cascade | None = None
    split: Plan | None = None
    adding: Plan | None = None
    """The backward pass whose tiles add to memory, where one is allowed to."""
    ranks: tuple[Rank, ...] = ()
    """Of both passes: those that the program does not declare get their extents from the others."""


# "auto" is "triton" with kernels whose warps specialise, for the calls that they were measured faster for.
TRITON = ("triton", "auto")
# Those whose modules have such kernels.
WARPS = ("auto", "hopper")


class Planner(Protocol):
    """`planner(cascade, wrt)` schedules a program, with gradients of the inputs `wrt`."""

    def __call__(self, cascade: Cascade, wrt: tuple[str, ...]) -> Passes: ...


def plan_passes(
    cascade: Cascade,
    wrt: tuple[str, ...],
    wide: tuple[str, ...] = (),
    kinds: dict[str, Kind] | None = None,
    eight: tuple[str, ...] = (),
) -> Passes:
    """Differentiate and schedule; `wide` are outputs in the accumulators' type, `kinds` what ranks are known to be for.

    `eight` names the inputs that have 8 bits.

    Raises: DiagnosticError where no schedule is legal.
    """
    from attndsl.analysis.numbered import numbered
    from attndsl.analysis.stabilise import stabilised
    from attndsl.cascade.rewritten import rewritten
    from attndsl.schedule import Refused, schedule
    from attndsl.schedule.eight import lifted, narrowed
    from attndsl.schedule.refusals import diagnose

    cascade = stabilised(numbered(rewritten(cascade))).cascade
    if eight:
        cascade = lifted(cascade)
    try:
        made = schedule(cascade, wrt or None, wide=wide, kinds=kinds)
    except Refused as refused:
        whole = cascade if wrt else None
        raise DiagnosticError(diagnose(cascade, refused, whole)) from None
    g = made.gradient
    if g is None:
        forward, split = made.forward, made.split
        if eight:
            forward = narrowed(forward, eight)
            split = None if split is None else narrowed(split, eight)
        return Passes(forward, split=split, ranks=cascade.ranks)
    return Passes(
        made.forward,
        made.backward,
        g.residuals,
        g.cotangents,
        g.gradients,
        g.backward,
        made.split,
        ranks=(*cascade.ranks, *g.backward.ranks),
    )


def render(backend: str, name: str, passes: Passes, header: str, precision: str = "split") -> str:
    """The text of the module of one stage."""
    if backend in (*TRITON, "hopper"):
        from attndsl.codegen.triton import render_module as render_triton

        return render_triton(
            name,
            passes.forward,
            passes.backward,
            header,
            passes.split,
            hopper=backend != "triton",
            by_measurement=backend == "auto",
            adding=passes.adding,
            precision=precision,
        )
    from attndsl.codegen.eager import render_module

    text: str = render_module(name, passes.forward, passes.backward, header)
    return text


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """A generated module imports nothing of the compiler's; what it refuses becomes the compiler's own refusal.

    It refuses head dims, and Python refuses numbers: a module of the eager backend has Python compute what parameters
    and extents give, such as `1 / cap`.
    """
    try:
        yield
    except (ArithmeticError, ValueError, RuntimeError) as refused:
        if isinstance(refused, RuntimeError):
            if str(refused) != "ZeroDivisionError":  # as PyTorch says it, of integer tensors
                raise
            raise CallError("A0508", f"{name}: integers are divided by zero") from refused
        if isinstance(refused, ArithmeticError) or str(refused) == "math domain error":
            title = f"{name}: what parameters and extents give is no finite number ({refused})"
            help = "`op.reference(...)` computes with infinities and NaN"
            raise CallError("A0504", title, help=help) from refused
        code, colon, why = str(refused).partition(": ")
        if not colon or code != "A0510":
            raise
        help = "smaller head dims, or a 16-bit type, take less shared memory"
        raise CallError(code, f"{name}: {why}", help=help) from None


class Stage:
    """One generated module with its names."""

    def __init__(
        self,
        cascade: Cascade,
        passes: Passes,
        backend: str,
        header: str,
        text: str | None = None,
        precision: str = "split",
    ) -> None:
        """`text` is what the passes render to, where that is known."""
        self.cascade = cascade
        self.passes = passes
        self.backend = backend
        self.text = (
            render(backend, cascade.name, passes, header, precision) if text is None else text
        )
        self.outputs = tuple(o.name for o in cascade.outputs)
        # Residuals that are outputs of the program are not returned a second time.
        self.residuals = tuple(r for r in passes.residuals if r not in self.outputs)
        made = (*self.outputs, *self.residuals)
        self.kept = tuple(made.index(r) for r in passes.residuals)
        split = passes.split if backend in TRITON else None
        self.few = FewQueries(passes.forward, split) if split is not None else None
        self._module: ModuleType | None = None

    @property
    def module(self) -> ModuleType:
        if self._module is None:
            self._module = load_module(self.text, f"{self.cascade.name}_{self.backend}")
        return self._module

    def launcher(self, extents: dict[str, int], device: torch.device) -> tuple[str, dict[str, int]]:
        """Which function of the module serves a forward call, and the extents that it takes."""
        sizes = self.few.sizes(extents, device) if self.few else None
        return ("forward", extents) if sizes is None else ("forward_split", {**extents, **sizes})

    def forward(
        self,
        inputs: dict[str, Tensor],
        extents: dict[str, int],
        params: dict[str, Number],
        config: Config = None,
        run: Run | None = None,
    ) -> list[Tensor]:
        """The outputs, then the residuals. `run` calls a function of the module by its name, if not this stage."""
        name, extents = self.launcher(extents, next(iter(inputs.values())).device)
        with refusals(self.cascade.name), self.compiling():
            made = (run or self.run)(name, inputs, extents, params, config)
        return [made[n] for n in (*self.outputs, *self.residuals)]

    def compiling(self) -> AbstractContextManager[None]:
        """Around launches that may compile."""
        return nullcontext() if self.backend == "eager" else sound_assembler()

    def run(
        self,
        name: str,
        inputs: dict[str, Tensor],
        extents: dict[str, int],
        params: dict[str, Number],
        config: Config,
    ) -> dict[str, Tensor]:
        """What a function of the module returns."""
        bind(next(iter(inputs.values())).device)
        made: dict[str, Tensor] = getattr(self.module, name)(inputs, extents, params, config)
        return made

    def backward(
        self,
        tensors: dict[str, Tensor],
        cotangents: dict[str, Tensor],
        extents: dict[str, int],
        params: dict[str, Number],
        config: Config = None,
        run: Run | None = None,
        adding: bool = False,
    ) -> list[Tensor]:
        """Gradients in the order of `passes.gradients`, from inputs and residuals by their names.

        `cotangents` are the gradients of the outputs, by output. `adding` allows sums in the order in which they come.
        """
        inputs = tensors | {self.passes.cotangents[o]: x for o, x in cotangents.items()}
        name = "backward"
        with refusals(self.cascade.name), self.compiling():
            if adding and self.module.adds(inputs, extents, config):
                name = "backward_added"
            made = (run or self.run)(name, inputs, extents, params, config)
        return [made[g] for g in self.passes.gradients.values()]

    def extents(self, known: dict[str, int], params: dict[str, Number]) -> dict[str, int]:
        """Extents of the passes' own indices too."""
        out = dict(known)
        for r in self.passes.ranks:
            if r.name not in out:
                if r.iterates is not None and r.iterates in out:
                    out[r.name] = out[r.iterates]
                elif r.extent is not None:
                    env = {**params, **{f"|{k}|": n for k, n in out.items()}}
                    out[r.name] = eval_int(r.extent, env)
        return out

    def empty(
        self, names: tuple[str, ...], like: dict[str, Tensor], extents: dict[str, int]
    ) -> list[Tensor]:
        """Tensors as `forward` would return them, without values."""
        device = next(iter(like.values())).device
        kinds = self.kinds(names, like, extents).values()
        return [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in kinds]

    def kinds(
        self, names: tuple[str, ...], like: dict[str, Tensor], extents: dict[str, int]
    ) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shapes and types of what `forward` returns under these names."""
        wide = any(x.dtype is torch.float64 for x in like.values())
        buffers = {n: self.passes.forward.buffer(n) for n in names}
        return {
            n: (tuple(extents[r] for r in b.ranks), storage(b, like, wide))
            for n, b in buffers.items()
        }


def storage(b: Buffer, inputs: Mapping[str, Tensor], wide: bool) -> torch.dtype:
    """The type of a buffer of the compiler's."""
    if b.like == SIXTEEN:
        return torch.bfloat16
    if b.like is not None:
        return inputs[b.like].dtype
    return {
        DType.FLOAT: torch.float64 if wide else torch.float32,
        DType.INT: torch.int64,
        DType.BOOL: torch.bool,
    }[b.dtype]
