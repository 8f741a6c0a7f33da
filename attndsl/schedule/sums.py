"""Running sums: corrected for their pivots, as a matrix product, a fold of a tile, or point by point."""

from __future__ import annotations

from attndsl.cascade.nodes import (
    Binary,
    Define,
    Expr,
    Read,
    Reduction,
)
from attndsl.schedule import tile as t
from attndsl.schedule.banded import band_sum
from attndsl.schedule.corrections import correction, moved_by
from attndsl.schedule.forms import product_of
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.masks import masked, vanishing
from attndsl.schedule.memory import dot_like, is_load
from attndsl.schedule.points import point_state
from attndsl.schedule.products import factors_of, fold, two_sides
from attndsl.schedule.tile import Val
from attndsl.schedule.values import (
    STREAMED,
    State,
    X,
)


def sum_state(
    kernel: Kernel,
    state: State,
    d: Define,
    body: Expr,
    where: Expr | None,
    pivots: list[Read],
) -> None:
    """Update a sum with the terms of the stream's tile.

    rewrite:  O[i,f] = sum[j](exp(S[i,j] - M[i]) * V[j,f])
              ->  O = O * exp(M_old - M) + dot[j](exp(S - M), V), M the running maximum
    requires: the terms scale by `exp(k * shift)` under a shift of each pivot; else the pivot is needed beforehand
    source:   Milakov and Gimelshein 2018 (arXiv:1805.02867); FlashAttention-2, section 3.1
    """
    assert kernel.stream is not None
    alpha = correction(kernel, state, d, pivots)
    factors = factors_of(kernel, body, frozenset({kernel.stream}))
    spans = [kernel.dims_of(f) for f in factors]
    cond = kernel.dims_of(where) if where is not None else frozenset()
    dims = frozenset().union(*spans, cond) | {kernel.stream}
    if len(dims) <= 2:
        x = kernel.eval(product_of(factors), False, d.tensor)
        v = masked(kernel, x, where, 0.0, d.tensor + "_s")
        tile = X(Val(v), kernel.dims_of_value(v), frozenset({STREAMED}))
        folded = fold(kernel, Reduction.SUM, v, tile, kernel.stream, d.tensor + "_tile")
        base: Expr = moved_by(kernel, state)
        if alpha is not None:
            base = Binary("*", base, kernel.bind(alpha, "alpha").expr)
        kernel.sweep.append(t.Assign(state.name, Binary("+", base, folded.expr)))
        return
    split = two_sides(kernel, kernel.stream, factors, spans, cond)
    if split is None:
        if alpha is None and kernel.sum_apart(state, d, factors, where):
            return
        if kernel.multiplies and band_sum(kernel, state, d, factors, where, alpha):
            return
        point_state(kernel, state, d, factors, where, alpha)
        return
    left, right, kept = split
    # The mask goes on the side that spans the condition's axes.
    on_left = cond - {kernel.stream} <= kept[0]
    a = stream_operand(kernel, left, where, on_left, d.tensor)
    b = stream_operand(kernel, right, where, not on_left, d.tensor)
    like = dot_like(kernel, left + right)
    scale = None if alpha is None else kernel.value(alpha, "alpha")
    kernel.sweep.append(t.AccDot(state.name, a, b, kernel.stream, like, scale))


def stream_operand(
    kernel: Kernel, group: list[Expr], where: Expr | None, carries: bool, name: str
) -> str:
    """One side of a product over the stream; `carries`: the side that the domain's mask goes on."""
    x = kernel.eval(product_of(group), False, name)
    v = kernel.value(x, name)
    if kernel.root is not None and any(vanishing(kernel, f) is not None for f in group):
        return v  # it vanishes outside the domain by itself
    if carries and kernel.root is None:
        return masked(kernel, x, where, 0.0, name + "_s")
    if is_load(kernel, v):
        return v
    # 0 times what is past the end must be 0.
    return masked(kernel, x, None, 0.0, name + "_s", always=True)
