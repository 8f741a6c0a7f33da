"""Reductions. A sum of products is contracted without ever holding the product; all else goes element by element."""

from __future__ import annotations

import torch

from attndsl.cascade.dense import functions
from attndsl.cascade.dense.core import Core, numeric
from attndsl.cascade.dense.named import Fault, Named, Value, contract
from attndsl.cascade.nodes import (
    Binary,
    DType,
    Expr,
    Read,
    Reduce,
    Reduction,
    Unary,
)


class Reductions(Core):
    """`Reduce` nodes."""

    def reduce(self, e: Reduce, active: Named | None) -> Value:
        if active is not None and set(active.dims) & set(e.indices):
            active = None
        where = self.condition(e.where, active)
        if e.op is Reduction.SUM and self.types.of(e.body) is DType.FLOAT:
            return self._sum_of_products(e, where, active)
        v = self.eval(e.body, self.axes.both(active, where))
        mask = self.axes.both(where, v.defined)
        faults = self._summed_faults(v.faults, mask, e.indices)
        return Value(self._fold(e.op, v.data, mask, e.indices), None, faults)

    def _summed_faults(
        self, faults: tuple[Fault, ...], mask: Named | None, indices: tuple[str, ...]
    ) -> tuple[Fault, ...]:
        out = []
        for f in self.within(faults, mask):
            kept = tuple(d for d in f.where.dims if d not in indices)
            gone = [k for k, d in enumerate(f.where.dims) if d in indices]
            out.append(
                Fault(Named(f.where.data.any(dim=gone) if gone else f.where.data, kept), f.text)
            )
        return tuple(out)

    def _fold(self, op: Reduction, x: Named, mask: Named | None, indices: tuple[str, ...]) -> Named:
        """A reduction, element by element; over no points it is the identity."""
        logical = op in (Reduction.ANY, Reduction.ALL)
        if not logical and x.data.dtype == torch.bool:
            x = Named(x.data.to(torch.int64), x.dims)
        identity = op.identity
        if not logical and not x.data.is_floating_point() and op in (Reduction.MAX, Reduction.MIN):
            info = torch.iinfo(x.data.dtype)
            identity = info.min if op is Reduction.MAX else info.max
        x = self.axes.fill(x, mask, identity)
        x = self.axes.expand(x, indices, self.extents)
        kept = tuple(d for d in x.dims if d not in indices)
        gone = [k for k, d in enumerate(x.dims) if d in indices]
        data = x.data
        if op in (Reduction.MAX, Reduction.MIN) and any(data.shape[k] == 0 for k in gone):
            shape = [n for k, n in enumerate(data.shape) if k not in gone]
            return Named(torch.full(shape, identity, dtype=data.dtype, device=data.device), kept)
        match op:
            case Reduction.SUM:
                data = data.sum(dim=gone)
            case Reduction.MAX:
                data = data.amax(dim=gone)
            case Reduction.MIN:
                data = data.amin(dim=gone)
            case Reduction.ANY:
                data = data.any(dim=gone)
            case Reduction.ALL:
                data = data.all(dim=gone)
            case Reduction.PROD:
                for k in reversed(gone):
                    data = data.prod(dim=k)
        return Named(data, kept)

    def _sum_of_products(self, e: Reduce, where: Named | None, active: Named | None) -> Value:
        """A sum over a chain of factors, contracted without ever holding the whole product."""
        inner = self.axes.both(active, where)
        sign, over, under = _chain(e.body)
        bound = set(e.indices)
        # a plain read is safe anywhere, so the mask need not be spread over it
        factors = [
            self.as_float(numeric(self.eval(x, None if isinstance(x, Read) else inner)))
            for x in over
        ]
        divisors = [
            (self.as_float(numeric(self.eval(x, inner))), self.has_reduction(x)) for x in under
        ]
        total = self.axes.both(
            where, *(v.defined for v in factors), *(d.defined for d, _ in divisors)
        )
        faults = self._summed_faults(
            tuple(f for v in (*factors, *(d for d, _ in divisors)) for f in v.faults),
            total,
            e.indices,
        )

        operands = [self.axes.fill(v.data, v.defined, 0) for v in factors]
        masks = [where] if where is not None else []
        after: list[tuple[Named, bool]] = []
        for d, empty in divisors:
            x = self.axes.fill(d.data, d.defined, 1)
            if d.defined is not None:
                masks.append(d.defined)
            if bound & set(x.dims):
                self._divide_into(operands, x, empty)
            else:
                after.append((x, empty))
        scalars = [x for x in operands if not x.dims]
        operands = [x for x in operands if x.dims]
        for m in masks:
            self._mask_into(operands, m)
        covered = {d for x in operands for d in x.dims}
        operands += [
            Named(torch.ones(self.extents[i], dtype=self.dtype, device=self.device), (i,))
            for i in e.indices
            if i not in covered
        ]
        dims = tuple(
            d for d in self.axes.sort([d for x in operands for d in x.dims]) if d not in bound
        )
        out = self._contract(operands, total, active, dims, e.indices)
        for x in scalars:
            out = self.axes.map(torch.mul, out, x)
        if sign < 0:
            out = Named(-out.data, out.dims)
        for x, empty in after:
            if bool((x.data == 0).any()):
                some = self.axes.project(total, [d for d in (*x.dims, *out.dims) if d not in bound])
                x = self.axes.fill(x, some, 1)
            out = self.axes.map(lambda a, b, z=empty: functions.divide(a, b, z), out, x)
        return Value(out, None, faults)

    def _divide_into(self, operands: list[Named], x: Named, empty: bool) -> None:
        """Divide a factor that has all of the divisor's axes, so that 0/0 is seen; else multiply by the reciprocal."""
        for k, f in enumerate(operands):
            if set(x.dims) <= set(f.dims):
                operands[k] = self.axes.map(lambda a, b: functions.divide(a, b, empty), f, x)
                return
        one = Named(torch.ones((), dtype=x.data.dtype, device=self.device), ())
        inverse = self.axes.map(lambda a, b: functions.divide(a, b, False), one, x)
        if empty:
            inverse = self.axes.fill(inverse, Named(x.data != 0, x.dims), 0)
        operands.append(inverse)

    def _mask_into(self, operands: list[Named], mask: Named) -> None:
        """Apply a mask to the smallest factor that has its axes, else make it a factor of its own."""
        fits = [k for k, f in enumerate(operands) if set(mask.dims) <= set(f.dims)]
        if fits:
            k = min(fits, key=lambda k: operands[k].data.numel())
            operands[k] = self.axes.fill(operands[k], mask, 0)
        else:
            operands.append(Named(mask.data.to(self.dtype), mask.dims))

    def _contract(
        self,
        operands: list[Named],
        total: Named | None,
        active: Named | None,
        dims: tuple[str, ...],
        indices: tuple[str, ...],
    ) -> Named:
        """The sum of the product; infinities that no point needs are taken out first, since 0 * inf is NaN."""
        clean = []
        for x in operands:
            if not bool(torch.isfinite(x.data).all()):
                x = self.axes.fill(x, self.axes.project(self.axes.both(total, active), x.dims), 0)
            clean.append(x)
        if len(clean) > 1 and not all(bool(torch.isfinite(x.data).all()) for x in clean):
            product = clean[0]
            for x in clean[1:]:
                product = self.axes.map(torch.mul, product, x)
            return self._fold(Reduction.SUM, product, total, indices)
        return contract(self.axes, clean, dims, self.dtype)


def _chain(e: Expr) -> tuple[int, list[Expr], list[Expr]]:
    """A chain of `*` and `/` as (sign, factors, divisors)."""
    match e:
        case Binary(op="*"):
            s, over, under = _chain(e.left)
            t, more, less = _chain(e.right)
            return s * t, over + more, under + less
        case Binary(op="/"):
            s, over, under = _chain(e.left)
            return s, over, [*under, e.right]
        case Unary(op="-"):
            s, over, under = _chain(e.arg)
            return -s, over, under
        case _:
            return 1, [e], []
