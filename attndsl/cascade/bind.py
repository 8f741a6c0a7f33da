"""Binding a program to one call: extents and parameters from the shapes that came.

K[b,h//G,j,e] of shape (2, 4, 512, 64), |h| = 16   ->   |b| = 2, |j| = 512, |e| = 64, |K.1| = 4, G = 4
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from attndsl.callerrors import CallError
from attndsl.cascade.integers import Number as Number
from attndsl.cascade.integers import check_integers
from attndsl.cascade.integers import eval_int as eval_int
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    DType,
    Expr,
    Index,
    Param,
    Position,
    Read,
    TensorDecl,
)
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import walk


@dataclass(frozen=True, slots=True)
class Binding:
    """Every rank's extent (bound indices and axes such as `K.1` included) and every parameter's value."""

    extents: dict[str, int]
    params: dict[str, Number]


def bind(
    cascade: Cascade,
    shapes: Mapping[str, tuple[int, ...]],
    params: Mapping[str, Number] | None = None,
) -> Binding:
    """The extents and parameters of one call; every input's shape must be given.

    Raises `CallError` A0501 (missing or unknown tensor), A0502 (number of axes), A0503 (extents), A0504 (parameters),
    A0508 (a division by zero).
    """
    return _Binder(cascade, shapes, dict(params or {})).run()


class _Binder:
    def __init__(
        self, cascade: Cascade, shapes: Mapping[str, tuple[int, ...]], params: dict[str, Number]
    ) -> None:
        self.cascade = cascade
        self.shapes = shapes
        self.given = params
        self.params: dict[str, Number] = {}
        self.extents: dict[str, int] = {}
        self.came_from: dict[str, str] = {}

    def run(self) -> Binding:
        self._names()
        self._param_values()
        for t in self.cascade.inputs:
            self._axes(t)
        self._computed_axes()
        self._missing_params()
        self._ranks()
        self._reads()
        check_integers(self.cascade, self.extents, self.params)
        return Binding(self.extents, self.params)

    # --- names and parameters ---

    def _error(
        self, code: str, title: str, tensor: TensorDecl | None = None, help: str = ""
    ) -> CallError:
        notes = [f"in `{self.cascade.name}`"]
        if tensor is not None:
            notes = [f"declared: {declaration(tensor)}"]
            if tensor.name in self.shapes:
                notes.append(f"came:     {tensor.name} of shape {tuple(self.shapes[tensor.name])}")
        return CallError(code, f"{self.cascade.name}: {title}", notes=tuple(notes), help=help)

    def _names(self) -> None:
        declared = {t.name for t in self.cascade.inputs}
        for name in self.shapes:
            if name not in declared:
                raise self._error(
                    "A0501", f"there is no input `{name}`", help=f"inputs: {_listing(declared)}"
                )
        for t in self.cascade.inputs:
            if t.name not in self.shapes:
                raise self._error("A0501", f"input `{t.name}` is missing", t)

    def _param_values(self) -> None:
        declared = {p.name: p for p in self.cascade.params}
        for name, value in self.given.items():
            p = declared.get(name)
            if p is None:
                known = (
                    f"parameters: {_listing(declared)}"
                    if declared
                    else "the program has no parameters"
                )
                raise self._error("A0504", f"there is no parameter `{name}`", help=known)
            self.params[name] = self._typed(p.name, p.dtype, value)
        for p in self.cascade.params:
            if p.name not in self.params and p.default is not None:
                self.params[p.name] = p.default

    def _typed(self, name: str, dtype: DType, value: object) -> Number:
        if dtype is DType.BOOL and isinstance(value, bool):
            return value
        if dtype is DType.INT and not isinstance(value, bool):
            if isinstance(value, int):
                return value
            if hasattr(value, "__index__"):
                return int(value.__index__())
        if dtype is DType.FLOAT and isinstance(value, Real) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                why = f"parameter `{name}` is more than a float64 holds"
                raise self._error("A0504", why) from None
        raise self._error(
            "A0504", f"parameter `{name}` is declared `{dtype.value}`, and {value!r} came"
        )

    def _missing_params(self) -> None:
        for p in self.cascade.params:
            if p.name not in self.params:
                raise self._error(
                    "A0504",
                    f"parameter `{p.name}` has no default and was not given",
                    help=f"pass `{p.name}=…`",
                )

    # --- axes ---

    def _set(self, rank: str, n: int, tensor: TensorDecl, axis: int) -> None:
        known = self.extents.setdefault(rank, n)
        where = f"axis {axis} of `{tensor.name}`"
        if known != n:
            raise self._error(
                "A0503",
                f"|{rank}| is {known} by {self.came_from[rank]}, and {n} by {where}",
                tensor,
            )
        self.came_from.setdefault(rank, where)

    def _axes(self, t: TensorDecl) -> None:
        shape = tuple(self.shapes[t.name])
        if len(shape) != len(t.dims):
            raise self._error(
                "A0502",
                f"`{t.name}` has {len(t.dims)} axes, and a tensor with {len(shape)} came",
                t,
            )
        for axis, (dim, rank, n) in enumerate(zip(t.dims, t.ranks, shape, strict=True)):
            self._set(dim.name if isinstance(dim, Index) else rank, int(n), t, axis)

    def _computed_axes(self) -> None:
        """Axes such as `h//G`: |h| = G * |K.1| exactly; whichever of the two is unknown is solved for."""
        for t in self.cascade.inputs:
            for axis, (dim, rank) in enumerate(zip(t.dims, t.ranks, strict=True)):
                match dim:
                    case Index():
                        pass
                    case Binary(op="//", left=Position(name=i) | Index(name=i), right=divisor):
                        self._quotient(t, axis, i, divisor, self.extents[rank])
                    case Binary(op="%", left=Position(name=i) | Index(name=i), right=Param(name=p)):
                        n = self.extents[rank]
                        if self.params.setdefault(p, n) != n:
                            raise self._error(
                                "A0504",
                                f"`{p}` is {self.params[p]}, and axis {axis} of `{t.name}` says {n}",
                                t,
                            )
                    case _:
                        self._range(t, axis, dim, self.extents[rank])

    def _quotient(self, t: TensorDecl, axis: int, i: str, divisor: Expr, n: int) -> None:
        rule = f"|{i}| = {print_expr(divisor)} * (extent of axis {axis} of `{t.name}`)"
        try:
            g: int | None = eval_int(divisor, self._env())
        except KeyError:
            g = None
        if i not in self.extents:
            if g is None:
                raise self._error("A0504", f"neither |{i}| nor `{print_expr(divisor)}` is known", t)
            self._set(i, g * n, t, axis)
            return
        whole = self.extents[i]
        if g is None:
            if n == 0 or whole % n:
                raise self._error(
                    "A0503", f"|{i}| is {whole}, which is no multiple of {n}", t, help=rule
                )
            if not isinstance(divisor, Param):
                raise self._error("A0504", f"`{print_expr(divisor)}` cannot be solved for", t)
            self.params[divisor.name] = whole // n
        elif g * n != whole:
            raise self._error(
                "A0503",
                f"|{i}| is {whole}, and {print_expr(divisor)} * {n} is {g * n}",
                t,
                help=f"the rule is {rule}",
            )

    def _range(self, t: TensorDecl, axis: int, dim: Expr, n: int) -> None:
        """Any other declared subscript must stay inside the axis, at the corners of its index box."""
        names = sorted({x.name for x in walk(dim) if isinstance(x, Position | Index)})
        corners: list[dict[str, Number]] = [dict(self._env())]
        for name in names:
            if name not in self.extents:
                raise self._error("A0503", f"|{name}| is not known from any shape", t)
            ends = {0, max(self.extents[name] - 1, 0)}
            corners = [{**c, name: v} for c in corners for v in ends]
        try:
            values = [eval_int(dim, c) for c in corners]
        except KeyError as missing:
            raise self._error("A0504", f"{missing} is not known", t) from None
        if min(values) < 0 or max(values) >= n:
            raise self._error(
                "A0503",
                f"`{print_expr(dim)}` runs from {min(values)} to {max(values)}, and axis {axis} of `{t.name}` has {n}"
                " points",
                t,
            )

    # --- ranks ---

    def _env(self) -> dict[str, Number]:
        return {**self.params, **{f"|{r}|": n for r, n in self.extents.items()}}

    def _ranks(self) -> None:
        for r in self.cascade.ranks:
            if r.extent is not None:
                self._split(r.name, r.extent)
        pending = [
            r for r in self.cascade.ranks if r.name not in self.extents and r.iterates is not None
        ]
        while pending:
            ready = [r for r in pending if r.iterates in self.extents]
            if not ready:
                raise self._error("A0503", f"|{pending[0].iterates}| is not known from any shape")
            for r in ready:
                assert r.iterates is not None
                self.extents[r.name] = self.extents[r.iterates]
            pending = [r for r in pending if r.name not in self.extents]
        for r in self.cascade.ranks:
            if r.name not in self.extents:
                raise self._error("A0503", f"|{r.name}| is not known from any shape")

    def _reads(self) -> None:
        """A tensor read at a lone index has that index's extent (`C[i,e]` where `C` is defined over `j`)."""
        axes = {t.name: _axis_ranks(t) for t in self.cascade.inputs}
        axes |= {d.tensor: d.indices for d in self.cascade.body}
        for d in self.cascade.body:
            for root in (d.expr, d.where, d.init):
                for n in walk(root) if root is not None else ():
                    if isinstance(n, Read):
                        self._read(n, axes[n.tensor])

    def _read(self, n: Read, axes: tuple[str, ...]) -> None:
        for axis, (rank, sub) in enumerate(zip(axes, n.subs, strict=True)):
            if isinstance(sub, Index) and self.extents[sub.name] != self.extents[rank]:
                over = {r.name: r.iterates or r.name for r in self.cascade.ranks}
                named = (Index(over[s.name]) if isinstance(s, Index) else s for s in n.subs)
                shown, index = dataclasses.replace(n, subs=tuple(named)), over[sub.name]
                raise self._error(
                    "A0503",
                    f"`{print_expr(shown)}` needs |{index}| = |{rank}|, and these are {self.extents[sub.name]} and"
                    f" {self.extents[rank]}",
                    help=f"axis {axis} of `{n.tensor}` is read at `{index}`, and so has its extent; a part of an axis"
                    f" is read by an expression, such as `{index} + 0`",
                )

    def _split(self, name: str, extent: Expr) -> None:
        try:
            n = eval_int(extent, self._env())
        except KeyError as missing:
            raise self._error("A0503", f"|{name}| needs {missing}, which is not known") from None
        except CallError as error:
            raise self._error(
                error.code, f"|{name}| = {print_expr(extent)}: {error.title}"
            ) from None
        if n < 0:
            raise self._error("A0503", f"|{name}| = {print_expr(extent)} is {n}")
        known = self.extents.setdefault(name, n)
        if known != n:
            raise self._error(
                "A0503",
                f"|{name}| is {known} by {self.came_from[name]}, and {print_expr(extent)} is {n}",
            )


def _axis_ranks(t: TensorDecl) -> tuple[str, ...]:
    """The rank of every axis of an input."""
    return tuple(
        d.name if isinstance(d, Index) else r for d, r in zip(t.dims, t.ranks, strict=True)
    )


def declaration(t: TensorDecl) -> str:
    """A tensor as its program declares it: `K[b,h//G,j,e]`."""
    kind = "" if t.dtype is DType.FLOAT else f": {t.dtype.value}"
    return f"{t.name}[{','.join(print_expr(d) for d in t.dims)}]{kind}"


def _listing(names: object) -> str:
    return ", ".join(f"`{n}`" for n in names)  # type: ignore[attr-defined]
