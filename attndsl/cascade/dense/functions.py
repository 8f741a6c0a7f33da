"""The language's pointwise functions, with the language's gradients (section 17).

A gradient is 0 at a kink, and where it would be infinite: so that 0 * inf never meets on the way back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _at(x: Tensor, singular: Tensor, fn: Callable[[Tensor], Tensor], safe: float) -> Tensor:
    """`fn(x)` whose gradient is 0 at the singular points, where it would be infinite."""
    if not bool(singular.any()):
        return fn(x)
    return torch.where(singular, fn(x.detach()), fn(torch.where(singular, safe, x)))


def power(x: Tensor, y: Tensor) -> Tensor:
    """`x**y`; the gradient is 0 where that of a fractional power would be infinite."""
    if not x.is_floating_point() and not y.is_floating_point():
        return torch.pow(x, y.clamp(min=0))
    if y.dim() == 0 and not y.requires_grad:
        exponent = float(y)
        if exponent == int(exponent) and exponent >= 0:
            return torch.pow(x, int(exponent))
        return _at(x, x == 0, lambda t: torch.pow(t, exponent), 1.0)
    # d/dx and d/dy of x**y are infinite at x = 0
    singular = (x == 0) & torch.ones_like(y, dtype=torch.bool)
    return torch.where(
        singular, torch.pow(x.detach(), y.detach()), torch.pow(torch.where(singular, 1.0, x), y)
    )


def divide(a: Tensor, b: Tensor, empty_is_zero: bool) -> Tensor:
    """`a / b`, with gradient 0 at `b = 0`; if `empty_is_zero`, 0/0 is 0 (a quotient of two empty sums)."""
    zero = b == 0
    if not bool(zero.any()):
        return a / b
    at_zero = a.detach() / b.detach()
    if empty_is_zero:
        at_zero = torch.where((a == 0) & zero, 0.0, at_zero)
    return torch.where(zero, at_zero, a / torch.where(zero, 1.0, b))


def subtract(a: Tensor, b: Tensor) -> Tensor:
    """`a - b`, which is -inf wherever `a` is: a score of -inf has weight 0, also against a maximum of -inf."""
    if not a.is_floating_point():
        return a - b
    low = a == -torch.inf
    return torch.where(low, -torch.inf, a - b) if bool(low.any()) else a - b


def larger(a: Tensor, b: Tensor) -> Tensor:
    """The binary maximum, with gradient 0 where both are equal."""
    if not a.is_floating_point():
        return torch.maximum(a, b)
    return torch.where(a > b, a, torch.where(b > a, b, torch.maximum(a.detach(), b.detach())))


def smaller(a: Tensor, b: Tensor) -> Tensor:
    """The binary minimum, with gradient 0 where both are equal."""
    if not a.is_floating_point():
        return torch.minimum(a, b)
    return torch.where(a < b, a, torch.where(b < a, b, torch.minimum(a.detach(), b.detach())))


def _log(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: _at(x, x == 0, fn, 1.0)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "log": _log(torch.log),
    "log2": _log(torch.log2),
    "sqrt": _log(torch.sqrt),
    "rsqrt": _log(torch.rsqrt),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    # torch's own softplus turns linear at 20, an error of 2e-9
    "softplus": lambda x: -F.logsigmoid(-x),
    "relu": torch.relu,
    "elu": F.elu,
    "silu": F.silu,
    "gelu": F.gelu,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "acos": lambda x: _at(x, x.abs() == 1, torch.acos, 0.0),
}
"""Functions of one float."""

# Where an operand is of no meaning it is replaced by a point at which the function and its gradient are finite.
SAFE: dict[str, float] = {"log": 1.0, "log2": 1.0, "sqrt": 1.0, "rsqrt": 1.0}


def floor_divide(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode="floor")
