"""Extents and parameters to try a program with, where the user gave none: every index gets one from what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attndsl.analysis.ranks import Kind, Ranks, always_last, classify
from attndsl.cascade.bind import Number, bind
from attndsl.cascade.nodes import Cascade, DType, Index, Param, Read
from attndsl.cascade.shapes import indexed_ranks, shapes_of
from attndsl.cascade.walk import walk
from attndsl.given import check_given, computed


@dataclass(frozen=True, slots=True)
class Scale:
    """How large things are: the first batch index, the others, sequences, head dims, other features; block widths."""

    batch: int
    heads: int
    sequence: int
    head_dim: int
    value_dim: int
    feature: int
    group: int
    """A parameter that divides a batch index: query heads for each key head."""
    width: int
    """An integer parameter without a default: a window, a block, the width of an image."""
    most: int | None = None
    """Defaults of integer parameters above this come down to it."""


TRIAL = Scale(1, 4, 56, 32, 32, 8, 2, 8, most=14)
"""Small enough for an interpreter; no tile divides the sequences, and windows end inside them."""

USUAL = Scale(4, 32, 4096, 128, 128, 32, 4, 64)
"""A layer of a language model."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """One consistent choice: every rank's extent, every parameter, every input's shape."""

    extents: dict[str, int]
    params: dict[str, Number]
    shapes: dict[str, tuple[int, ...]]


def sizes(
    cascade: Cascade,
    scale: Scale,
    given: Mapping[str, int] | None = None,
    kinds: Mapping[str, Kind] | None = None,
) -> Sizes:
    """Sizes for a program at a scale; `given` overrides extents and parameters by name, `kinds` what ranks are for.

    Raises: CallError if what is given does not fit the program.
    """
    ranks = classify(cascade, dict(kinds or {}))
    given = dict(given or {})
    params = _params(cascade, scale)
    check_given(cascade, given, {*params, *ranks.of, *ranks.of.values()})
    params |= {k: v for k, v in given.items() if k in params}
    walked = _walked(cascade)
    alike = _alike(cascade)
    given |= {r: given[x] for r, x in alike.items() if x in given and r not in given}
    extents = {
        r: _extent(cascade, ranks, alike.get(r, r), scale)
        for t in cascade.inputs
        for r in t.ranks
        if r in walked
    }
    for r, n in indexed_ranks(cascade, extents, params).items():
        extents.setdefault(r, n)
    for r in _declared(cascade):  # tables that are read at values, and features read in parts
        part = ranks.kind(r) is Kind.FEATURE
        extents.setdefault(r, _extent(cascade, ranks, r, scale) if part else scale.sequence)
    extents |= {k: v for k, v in given.items() if k not in params}
    extents |= computed(cascade, alike, extents, params, given)
    shapes = shapes_of(cascade, extents, params)
    binding = bind(cascade, shapes, params)
    return Sizes(binding.extents, binding.params, shapes)


def _params(cascade: Cascade, scale: Scale) -> dict[str, Number]:
    in_shapes = {
        n.name for t in cascade.inputs for d in t.dims for n in walk(d) if isinstance(n, Param)
    }
    out: dict[str, Number] = {}
    for p in cascade.params:
        match p.dtype:
            case DType.INT if p.default is None:
                out[p.name] = scale.group if p.name in in_shapes else scale.width
            case DType.INT if scale.most is not None and p.default is not None:
                out[p.name] = min(int(p.default), scale.most)
            case DType.FLOAT if p.default is None:
                out[p.name] = 0.5
            case DType.BOOL if p.default is None:
                out[p.name] = True
            case _ if p.default is not None:
                out[p.name] = p.default
    return out


def _declared(cascade: Cascade) -> list[str]:
    """The indices that stand alone in a declaration."""
    return [d.name for t in cascade.inputs for d in t.dims if isinstance(d, Index)]


def _walked(cascade: Cascade) -> frozenset[str]:
    """The declared indices that a definition or a reduction walks over; a table may be read at positions alone."""
    walked = {i for d in cascade.body for i in d.indices}
    walked |= {r.iterates for r in cascade.ranks if r.iterates is not None}
    return frozenset(walked) & frozenset(_declared(cascade))


def _alike(cascade: Cascade) -> dict[str, str]:
    """Ranks that one axis is read at (`C[i,e]`, `C[j,e]`), with the one of them that comes first."""
    bound = {r.name: r.iterates for r in cascade.ranks if r.iterates is not None}
    axes = {t.name: t.ranks for t in cascade.inputs} | {d.tensor: d.indices for d in cascade.body}
    order = [r.name for r in cascade.ranks]
    first: dict[str, str] = {}

    def root(r: str) -> str:
        r = bound.get(r, r)
        return root(first[r]) if r in first else r

    for d in cascade.body:
        for e in (d.expr, d.where, d.init):
            for n in walk(e) if e is not None else ():
                if isinstance(n, Read):
                    for axis, s in zip(axes[n.tensor], n.subs, strict=True):
                        if isinstance(s, Index) and root(s.name) != root(axis):
                            a, b = sorted((root(s.name), root(axis)), key=order.index)
                            first[b] = a
    return {r: root(r) for r in first}


def _extent(cascade: Cascade, ranks: Ranks, rank: str, scale: Scale) -> int:
    match ranks.kind(rank):
        case Kind.BATCH:
            return scale.batch if (rank,) == cascade.batch[:1] else scale.heads
        case Kind.SEQUENCE if rank not in always_last(cascade, ranks):
            return scale.sequence
        case _:  # what stands last is a feature, though it is normalised over
            pass
    if rank == head_rank(cascade, ranks):
        return scale.head_dim
    return scale.value_dim if rank in value_ranks(cascade, ranks) else scale.feature


def head_rank(cascade: Cascade, ranks: Ranks) -> str | None:
    """The query and key dim: the first feature of the inputs, which come in the order Q, K, V."""
    last = always_last(cascade, ranks)
    found = (r for t in cascade.inputs for r in t.ranks)
    return next((r for r in found if ranks.kind(r) is Kind.FEATURE or r in last), None)


def value_ranks(cascade: Cascade, ranks: Ranks) -> frozenset[str]:
    """The value dims: features of the outputs."""
    return frozenset(i for o in cascade.outputs for i in o.indices if ranks.kind(i) is Kind.FEATURE)
