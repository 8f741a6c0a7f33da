"""Which operator of another library a program is: the one that gives the same numbers.

    found = match(cascade, extents, params, OPERATORS)
    found.operator.function      # "chunk_gla"
    found.given["g"].input       # "loga"

What an operator computes is written down as a program in its own right. Two programs are the same if their dense
interpreters agree on random inputs in float64, however they are written: a masked product or a recurrence, gates as
factors or as logarithms. Which input takes which place is tried out, as far as axes leave a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from attndsl.analysis.ranks import Kind, classify
from attndsl.analysis.score_mask import Inexpressible
from attndsl.cascade.bind import Number
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade, DType, Index
from attndsl.frontend import load_cascades
from attndsl.source import Source
from attndsl.testing import make_inputs

# Long enough for a state to be carried, decayed and read several times.
POINTS = 7
BATCH, HEADS = 2, 3
AGREES = 1e-9

# In a meaning, the logarithms of decays.
GATE = "lg"

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "log": lambda x: x.float().log() if x.dtype.itemsize < 4 else x.log(),
    "-": lambda x: -x,
}
"""What a gate may need: operators take the logarithms of factors."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A function of the library, and as a program what it computes, of inputs in the order of its `arguments`."""

    function: str
    arguments: tuple[str, ...]
    meaning: str
    options: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Given:
    """What an argument of a meaning is: an input with its axes by the meaning's names, changed."""

    argument: str
    input: str
    axes: tuple[str, ...]
    change: str = ""

    def laid(self, x: Tensor, wanted: Sequence[str], sizes: Mapping[str, int]) -> Tensor:
        """The input with the axes in the order `wanted`; what it lacks is repeated."""
        x = CHANGES[self.change](x)
        x = x.permute([self.axes.index(a) for a in wanted if a in self.axes])
        for k, a in enumerate(wanted):
            if a not in self.axes:
                x = x.unsqueeze(k)
        return x.expand([sizes[a] for a in wanted])


@dataclass(frozen=True, slots=True)
class Match:
    """An operator, what its arguments are, its scale, and the axes of the program's output by the operator's names."""

    operator: Operator
    given: dict[str, Given]
    scale: float
    output: tuple[str, ...]
    ranks: dict[str, str]
    """The program's ranks, and the names of axes."""


# The axes of what operators return; the meaning's own names for positions are all `t`.
RESULT = ("b", "h", "t", "f")


def axes_of(operator: Operator) -> dict[str, tuple[str, ...]]:
    """The axes of the inputs of its meaning."""
    kinds = classify(program(operator))
    return {
        t.name: tuple("t" if kinds.kind(r) is Kind.SEQUENCE else r for r in t.ranks)
        for t in program(operator).inputs
    }


@cache
def program(operator: Operator) -> Cascade:
    """The program that an operator is."""
    (made,) = load_cascades(Source(f"<{operator.function}>", operator.meaning))
    return made


def match(
    cascade: Cascade,
    extents: Mapping[str, int],
    params: Mapping[str, Number],
    output: str,
    operators: Sequence[Operator],
) -> Match:
    """The first of the operators that gives the output of this program.

    Raises: Inexpressible if none does.
    """
    axes = _axes(cascade, output)
    sizes = {"b": BATCH, "h": HEADS, "t": POINTS}
    sizes |= {a: extents[r] for r, a in axes.items() if a in ("e", "f")}
    small = {r: sizes[a] for r, a in axes.items()}
    inputs = make_inputs(cascade, small, params=params, dtype=torch.float64)
    exact = interpret(cascade, inputs, params)[output]
    sizes |= {a: 1 for a in ("b", "h") if a not in axes.values()}
    kinds = classify(cascade)
    result = tuple(axes[kinds.of.get(i, i)] for i in cascade.define(output).indices)
    want = Given("", output, result).laid(exact, RESULT, sizes)
    for operator in operators:
        for given in _assignments(cascade, axes, operator, inputs):
            for scale in (1.0, sizes["e"] ** -0.5):
                if _agrees(operator, given, scale, inputs, sizes, want):
                    return Match(operator, given, scale, result, axes)
    raise Inexpressible("none of its operators gives the same numbers")


def _axes(cascade: Cascade, output: str) -> dict[str, str]:
    """Each rank of the inputs by the name that operators have for it: b, h, t, the output's last axis f, and e."""
    ranks = classify(cascade)
    result = cascade.define(output).indices
    out: dict[str, str] = {}
    if any(t.dtype is not DType.FLOAT for t in cascade.inputs):
        raise Inexpressible("it takes tensors of integers")
    for t in cascade.inputs:
        for dim, r in zip(t.dims, t.ranks, strict=True):
            if not isinstance(dim, Index):
                raise Inexpressible(f"`{t.name}` has a computed axis")
            match ranks.kind(r):
                case Kind.BATCH:
                    at = cascade.batch.index(r) if r in cascade.batch else 2
                    if at > 1:
                        raise Inexpressible(f"the axis `{r}` is neither a batch nor heads")
                    out[r] = "bh"[at]
                case Kind.SEQUENCE:
                    out[r] = "t"
                case Kind.FEATURE:
                    out[r] = "f" if r == ranks.of.get(result[-1], result[-1]) else "e"
    if sum(a == "e" for a in out.values()) != 1 or sum(a == "f" for a in out.values()) != 1:
        raise Inexpressible("its features are not one axis of keys and one of values")
    return out


def _assignments(
    cascade: Cascade, axes: Mapping[str, str], operator: Operator, inputs: Mapping[str, Tensor]
) -> Iterator[dict[str, Given]]:
    """Every way for the inputs to be the arguments, one each."""
    wanted = axes_of(operator)
    if len(wanted) != len(cascade.inputs):
        return
    own = {t.name: tuple(axes[r] for r in t.ranks) for t in cascade.inputs}

    def fits(argument: str, name: str) -> bool:
        has, need = set(own[name]), set(wanted[argument])
        lacking = {"b", "h", "t"} if argument == GATE else {"b", "h"}
        return len(has) == len(own[name]) and has <= need and need - has <= lacking

    def changes(argument: str, name: str) -> Iterator[str]:
        yield ""
        if argument == GATE:
            yield "-"
            if bool((inputs[name] > 0).all()):
                yield "log"

    def rest(left: list[str], used: dict[str, Given]) -> Iterator[dict[str, Given]]:
        if not left:
            yield dict(used)
            return
        argument, *more = left
        taken = {g.input for g in used.values()}
        for name in own:
            if name in taken or not fits(argument, name):
                continue
            for change in changes(argument, name):
                used[argument] = Given(argument, name, own[name], change)
                yield from rest(more, used)
                del used[argument]

    yield from rest(list(wanted), {})


def _agrees(
    operator: Operator,
    given: Mapping[str, Given],
    scale: float,
    inputs: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    want: Tensor,
) -> bool:
    axes = axes_of(operator)
    made = {n: g.laid(inputs[g.input], axes[n], sizes) for n, g in given.items()}
    (out,) = interpret(program(operator), made, {"scale": scale}).values()
    return bool((out - want).norm() <= AGREES * want.norm()) and bool(want.isfinite().all())
