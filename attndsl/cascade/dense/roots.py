"""Roots of monotone equations: bisection for the value, the implicit function's theorem for the gradient."""

from __future__ import annotations

import torch

from attndsl.cascade.dense.core import Core, numeric
from attndsl.cascade.dense.named import Named, Residual, Value
from attndsl.cascade.nodes import Solve

_BISECTIONS = 200
"""More than float64 has bits: an interval of any width shrinks to two neighbours."""


class Roots(Core):
    """`Solve` nodes."""

    def solve(self, e: Solve, active: Named | None) -> Value:
        """The root by bisection, then one Newton step that carries the implicit function's gradient."""
        lo, hi = (self.as_float(numeric(self.eval(x, active))) for x in (e.lo, e.hi))

        def residual(x: Named) -> Value:
            self.locals[e.var] = x
            try:
                a, b = self.joined(
                    self.eval(e.equation.left, active), self.eval(e.equation.right, active)
                )
                return self.map(torch.sub, [a, b])
            finally:
                del self.locals[e.var]

        with torch.no_grad():
            low, high = (Named(v.data.data.detach().to(self.dtype), v.data.dims) for v in (lo, hi))
            dims = self.axes.sort([*low.dims, *high.dims, *residual(low).data.dims])
            low, high = (self.axes.expand(x, dims, self.extents) for x in (low, high))
            root = self._bisect(
                low, high, lambda x: self.axes.expand(residual(x).data, dims, self.extents)
            )
        solvable = torch.isfinite(low.data) & torch.isfinite(high.data)
        at = Named(torch.where(solvable, root.data, 0.0).detach().requires_grad_(), dims)
        with torch.enable_grad():
            f = residual(at)
            f_data = self.axes.expand(f.data, dims, self.extents).data
            slope = torch.zeros_like(at.data)
            if f_data.requires_grad:
                slope = torch.autograd.grad(f_data.sum(), at.data, retain_graph=True)[0].detach()
        flat = ~solvable | (slope == 0) | ~torch.isfinite(slope)
        # the residual again, at a root that is a constant: its graph leads to the inputs alone
        f_data = self.axes.expand(
            residual(Named(at.data.detach(), dims)).data, dims, self.extents
        ).data
        step = torch.where(flat, 0.0, f_data) / torch.where(flat, 1.0, slope)
        data = torch.where(solvable, at.data.detach() - step, root.data)
        defined = self.axes.both(lo.defined, hi.defined, f.defined)
        return Value(Named(data, dims), defined, lo.faults + hi.faults + f.faults)

    def _bisect(self, low: Named, high: Named, residual: Residual) -> Named:
        a, b, dims = low.data, high.data, low.dims
        ok = torch.isfinite(a) & torch.isfinite(b)
        a, b = torch.where(ok, a, 0.0), torch.where(ok, b, 0.0)
        rising = residual(Named(b, dims)).data >= residual(Named(a, dims)).data
        for _ in range(_BISECTIONS):
            mid = a + (b - a) / 2
            if bool(((mid == a) | (mid == b)).all()):
                break
            above = (residual(Named(mid, dims)).data > 0) == rising
            a, b = torch.where(above, a, mid), torch.where(above, mid, b)
        mid = a + (b - a) / 2
        return Named(torch.where(ok, mid, low.data), dims)
