"""The arguments of a call: tensors in declared order and parameters of declared kinds, or what is wrong with them."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Number, declaration
from attndsl.cascade.nodes import Cascade, DType
from attndsl.diagnostics import did_you_mean
from attndsl.runtime.checks import check_dense


class Arguments:
    """What a program takes.

    Raises: CallError A0501 for tensors that do not fit the declaration, A0504 for parameters.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self.inputs = tuple(t.name for t in cascade.inputs)
        self.params = tuple(p.name for p in cascade.params)
        self.defaults: tuple[Number | None, ...] = (None,) * len(cascade.params)
        self._kinds = {p.name: p.dtype for p in cascade.params}

    def of(
        self, tensors: tuple[Tensor, ...], named: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], tuple[Number | None, ...]]:
        """Tensors in declared order, and parameters, None where not given."""
        if not named and len(tensors) == len(self.inputs):
            given, params = tensors, self.defaults
        else:
            given, params = self.named(tensors, named)
        self.check(given)
        return given, params

    def named(
        self, tensors: tuple[Tensor, ...], named: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], tuple[Number | None, ...]]:
        """The same, where some came by name; tensors are not looked at."""
        if len(tensors) > len(self.inputs):
            raise self.error(f"{len(self.inputs)} tensors are declared, and {len(tensors)} came")
        given = list(tensors)
        for name in self.inputs[: len(tensors)]:
            if name in named:
                raise self.error(f"`{name}` came twice, by place and by name")
        for name in named:
            if name not in self.inputs and name not in self._kinds:
                known = (*self.inputs, *self.params, "start", "state", "return_state", "debug")
                raise self.error(f"there is no argument `{name}`", did_you_mean(name, known) or "")
        for name in self.inputs[len(tensors) :]:
            if name not in named:
                raise self.error(f"input `{name}` is missing", f"pass it by place or as `{name}=…`")
            given.append(named[name])
        params = tuple(
            self.number(p, named[p]) if named.get(p) is not None else None for p in self.params
        )
        return tuple(given), params

    def check(self, given: tuple[Tensor, ...]) -> None:
        """Raise `CallError` A0501 for what is no dense tensor."""
        for x, t in zip(given, self.cascade.inputs, strict=True):
            if not isinstance(x, Tensor):
                raise CallError(
                    "A0501",
                    f"{self.cascade.name}: `{t.name}` should be a tensor, and a {type(x).__name__} came",
                    help="`torch.as_tensor(…)` makes one",
                )
            if x.layout is not torch.strided or x.is_nested:
                check_dense(self.cascade, t, x)

    def number(self, name: str, value: Any) -> Number:
        """The value of a parameter as a number of its declared kind."""
        match self._kinds[name]:
            case DType.BOOL if isinstance(value, bool):
                return value
            case DType.INT if not isinstance(value, bool | Tensor) and hasattr(value, "__index__"):
                return self._held(name, operator.index(value))
            case DType.FLOAT if isinstance(value, Real) and not isinstance(value, bool):
                return self._wide(name, value)
            case kind:
                learned = "pass a number (`.item()`); what is learned is an input, such as `w[h]`"
                plain = {
                    DType.INT: "pass a whole number, such as `4`",
                    DType.BOOL: "pass `True` or `False`",
                }
                raise CallError(
                    "A0504",
                    f"{self.cascade.name}: parameter `{name}` is declared `{kind.value}`, and {value!r} came",
                    help=learned if isinstance(value, Tensor) else plain.get(kind, "pass a number"),
                )

    def _wide(self, name: str, value: Real) -> float:
        try:
            return float(value)
        except OverflowError:
            raise CallError(
                "A0504", f"{self.cascade.name}: parameter `{name}` is more than a float64 holds"
            ) from None

    def _held(self, name: str, value: int) -> int:
        if not -(2**63) <= value < 2**63:
            raise CallError(
                "A0504",
                f"{self.cascade.name}: parameter `{name}` is {value}, which 64 bits do not hold",
            )
        return value

    def given(self, params: tuple[Number | None, ...]) -> dict[str, Number]:
        """The parameters that were given, by name."""
        return {p: v for p, v in zip(self.params, params, strict=True) if v is not None}

    def error(self, title: str, help: str = "") -> CallError:
        """An error of the call, with what the program declares."""
        inputs = ", ".join(declaration(t) for t in self.cascade.inputs)
        params = ", ".join(f"{p.name}: {p.dtype.value}" for p in self.cascade.params)
        notes = (f"declared: {', '.join(x for x in (inputs, params) if x)}",)
        return CallError("A0501", f"{self.cascade.name}: {title}", notes=notes, help=help)
