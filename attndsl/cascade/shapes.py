"""The shapes that inputs have at given extents: the other way round from `bind`."""

from __future__ import annotations

from collections.abc import Mapping

from attndsl.cascade.bind import Number, eval_int
from attndsl.cascade.nodes import Cascade, Expr, Index, Read, TensorDecl
from attndsl.cascade.walk import free, walk


def shapes_of(
    cascade: Cascade, extents: Mapping[str, int], params: Mapping[str, Number]
) -> dict[str, tuple[int, ...]]:
    """The shape of every input.

    `extents` may leave out those of tables that are read at affine subscripts alone (`table[i - j + |j| - 1]`): these
    are just large enough.
    """
    full = dict(extents) | indexed_ranks(cascade, extents, params)
    return {t.name: shape_of(t, full, params) for t in cascade.inputs}


def shape_of(
    t: TensorDecl, extents: Mapping[str, int], params: Mapping[str, Number]
) -> tuple[int, ...]:
    """The shape that an input has at these extents; an axis such as `h//G` has as many points as it has values."""
    shape = []
    for dim, rank in zip(t.dims, t.ranks, strict=True):
        if isinstance(dim, Index):
            if dim.name not in extents:
                raise KeyError(f"`extents` lacks `{dim.name}`, an index of `{t.name}`")
            shape.append(extents[dim.name])
        elif rank in extents:
            shape.append(extents[rank])
        else:
            shape.append(_largest(dim, extents, params) + 1)
    return tuple(shape)


def _largest(dim: Expr, extents: Mapping[str, int], params: Mapping[str, Number]) -> int:
    """The largest value of a declared subscript: subscripts are monotone in every index."""
    points: list[dict[str, Number]] = [{**params, **{f"|{r}|": n for r, n in extents.items()}}]
    for i in sorted(free(dim)):
        points = [{**p, i: v} for p in points for v in range(extents[i])]
    return max(eval_int(dim, p) for p in points)


def indexed_ranks(
    cascade: Cascade, extents: Mapping[str, int], params: Mapping[str, Number]
) -> dict[str, int]:
    """Extents that `extents` leaves out: one more than the largest affine subscript at such an axis."""
    env: dict[str, Number] = {**params, **{f"|{r}|": n for r, n in extents.items()}}
    inputs = {t.name: t for t in cascade.inputs}
    iterates = {r.name: r.iterates for r in cascade.ranks if r.iterates is not None}
    out: dict[str, int] = {}
    for d in cascade.body:
        for root in (d.expr, d.where, d.init):
            for n in walk(root) if root is not None else ():
                if not (isinstance(n, Read) and n.tensor in inputs):
                    continue
                for dim, sub in zip(inputs[n.tensor].dims, n.subs, strict=True):
                    if (
                        isinstance(dim, Index)
                        and dim.name not in extents
                        and not isinstance(sub, Index)
                    ):
                        top = _corner(sub, extents, iterates, env)
                        if top is not None:
                            out[dim.name] = max(out.get(dim.name, 0), top + 1)
    return out


def _corner(
    sub: Expr, extents: Mapping[str, int], iterates: Mapping[str, str], env: Mapping[str, Number]
) -> int | None:
    """The largest value of a subscript at the corners of its index box; None if it is no such subscript."""
    points = [dict(env)]
    for i in sorted(free(sub)):
        rank = i
        while rank in iterates:
            rank = iterates[rank]
        if rank not in extents:
            return None
        points = [{**p, i: v} for p in points for v in {0, extents[rank] - 1}]
    try:
        return max(eval_int(sub, p) for p in points)
    except (KeyError, ValueError):
        return None
