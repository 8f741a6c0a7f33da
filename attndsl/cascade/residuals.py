"""Which forward tensors the backward program keeps, and which it computes again.

A tensor made by a sum over a sequence (`M[i] = max[j](…)`, `O[i,f]`) costs a sweep to repeat and
one row to keep, so it is kept. A tensor over a pair of sequences (`S[i,j]`) costs a matrix product
to repeat and an N x N matrix to keep, so it is repeated, as is anything elementwise and any sum
over features alone (`sum[e](Q[i,e] * K[j,e])`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from attndsl.cascade.conditions import conjuncts
from attndsl.cascade.emit import Emitter
from attndsl.cascade.fold import Folding
from attndsl.cascade.names import Names, needed_inputs, params_of, ranks_of
from attndsl.cascade.nodes import (
    Cascade,
    Compare,
    Define,
    Expr,
    Index,
    Output,
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Solve,
    TensorDecl,
)
from attndsl.cascade.ordered import said_of
from attndsl.cascade.types import Types, time_axis
from attndsl.cascade.walk import free, reads, rename, rewrite, walk


def sequences(cascade: Cascade, kinds: Mapping[str, str] | None = None) -> frozenset[str]:
    """The ranks that run over a sequence, by how the inputs are laid out and what is asked of positions.

    The axis before the last of an input (`Q[b,h,i,e]`) is a sequence and the last one is its
    features, unless more says otherwise: an index that is compared, scanned, split or maximised
    over is a sequence too. `kinds` settles those that it names: "sequence", or something else.
    """
    out: set[str] = set()
    states = {n for d in cascade.body if d.init is not None for n in reads(d.init)}
    states -= {n for d in cascade.body for n in reads(d.expr)}
    for t in cascade.inputs:
        if t.name in states:  # `H0[e,f]`: features by features
            continue
        axes = [
            r
            for r, d in zip(t.ranks, t.dims, strict=True)
            if r not in cascade.batch and not (free(d) <= frozenset(cascade.batch))
        ]
        if not cascade.batch or cascade.batch[0] in t.ranks:  # weights have no sequence
            out |= set(axes[-2:-1])
    for r in cascade.ranks:
        if r.extent is not None:
            out.add(r.name)
        if r.iterates is not None and _scans(cascade, r.name):
            out.add(r.iterates)
    for d in cascade.body:
        for e in (d.expr, d.where):
            for n in walk(e) if e is not None else ():
                match n:
                    case Compare():
                        out |= {x.name for x in walk(n) if isinstance(x, Position | Index)}
                    case Reduce(op=op) if op is not Reduction.SUM:
                        out |= set(n.indices)
                    case _:
                        pass
    roots = {r.name: r.iterates for r in cascade.ranks}
    for rank, kind in (kinds or {}).items():
        below = {i for i in (*roots, rank) if _root(i, roots) == rank}
        out = out | below if kind == "sequence" else out - below
    for i in list(out):
        while (above := roots.get(i)) is not None:
            out.add(above)
            i = above
    out |= {r.name for r in cascade.ranks if r.iterates in out}
    return frozenset(out) - frozenset(cascade.batch)


def _root(index: str, roots: Mapping[str, str | None]) -> str:
    while (above := roots.get(index)) is not None:
        index = above
    return index


def _scans(cascade: Cascade, index: str) -> bool:
    return any(
        isinstance(n, Reduce) and index in n.indices and n.where is not None
        for d in cascade.body
        for n in walk(d.expr)
    )


def is_kept(d: Define, sequence: frozenset[str], outputs: frozenset[str]) -> bool:
    """A result over a sequence, or an output, that is not itself a matrix over two sequences.

    A recurrence is made again: before its first step it is what it starts from, which its values do not tell.
    """
    if d.init is not None and time_axis(d) is not None:
        return False
    if sum(i in sequence for i in d.indices) > 1:
        return False
    return d.tensor in outputs or any(
        isinstance(n, Solve) or (isinstance(n, Reduce) and bool(set(n.indices) & sequence))
        for n in walk(d.expr)
    )


class Cut:
    """Which tensors cross from the forward program to the backward one."""

    def __init__(
        self, original: Cascade, hoisted: Mapping[str, Expr], sequence: frozenset[str]
    ) -> None:
        self.original = original
        self.hoisted = hoisted
        self.sequence = sequence
        self.outputs = frozenset(o.name for o in original.outputs)
        self.logs: set[str] = set()
        """Log-sum-exps that were added in order to be kept."""
        self.renamed: dict[str, str] = {}
        """By name of folded weights: the tensor that they stand for."""

    def is_kept(self, d: Define) -> bool:
        return d.tensor in self.logs or is_kept(d, self.sequence, self.outputs)


def package(
    cut: Cut,
    forward: Cascade,
    emit: Emitter,
    kept: tuple[str, ...],
    again: Sequence[Define],
    types: Types,
    gradients: Mapping[str, str],
    cotangents: Sequence[TensorDecl],
) -> tuple[Cascade, Cascade]:
    """The forward program with what is kept as outputs, and the backward program; `kept` and `again` cross."""
    indices = {d.tensor: d.indices for d in forward.body}
    extra = tuple(Output(n, indices[n]) for n in kept if n not in cut.outputs)
    outputs = cut.original.outputs + extra
    order = {o.name: o.indices for o in outputs}
    saved = [
        TensorDecl(n, tuple(Index(i) for i in order[n]), order[n], types.tensors[n]) for n in kept
    ]
    # kept tensors are read in the order of their axes as outputs
    permuted = {n: indices[n] for n in kept if indices[n] != order[n]}
    body = _in_order([_permute(d, permuted, order) for d in (*again, *emit.made)])
    body = _legible(body, cut.renamed)
    body = _apart(body, emit.names, {i for d in forward.body for i in d.indices})
    results = tuple(Output(o, emit.domains[o][0]) for o in gradients.values())
    inputs = needed_inputs(cut.original, body, results, emit.names, [*saved, *cotangents])
    ranks = ranks_of(inputs, body, results, emit.names)
    backward = Cascade(
        name=f"{cut.original.name}_backward",
        inputs=inputs,
        params=params_of(cut.original, inputs, body, ranks),
        outputs=results,
        batch=cut.original.batch,
        ranks=ranks,
        assumes=(*_still_said(cut.original, inputs), *said_of(forward, kept)),
        body=body,
    )
    whole = dataclasses.replace(forward, outputs=outputs)
    return _restored(whole, cut.hoisted, frozenset(kept)), backward


def _still_said(c: Cascade, inputs: Sequence[TensorDecl]) -> tuple[Expr, ...]:
    """What is assumed of inputs that the backward program has too, and of nothing else."""
    names = {t.name for t in inputs}
    parts = (p for a in c.assumes for p in conjuncts(a))
    return tuple(
        p
        for p in parts
        if reads(p) and reads(p) <= names and not any(isinstance(n, Param) for n in walk(p))
    )


def cross(
    cut: Cut, forward: Cascade, emit: Emitter, folding: Folding
) -> tuple[tuple[str, ...], list[Define]]:
    """Forward tensors that backward takes as inputs, and definitions that it repeats.

    What is repeated gets folded, which may add a log-sum-exp to the forward program.
    """
    wanted = {n for d in emit.made for n in _used(d)}
    kept: list[str] = []
    again: list[Define] = []
    for d in reversed(forward.body):
        if d.tensor not in wanted:
            continue
        if cut.is_kept(d):
            kept.append(d.tensor)
            continue
        before = len(emit.made)
        d = dataclasses.replace(d, expr=folding.inside(d.expr))
        again.append(d)
        for x in (d, *emit.made[before:]):
            wanted |= _used(x)
    logs = [n for n in cut.logs if n in wanted and n not in kept]
    return (*reversed(kept), *logs), again[::-1]


def _permute(
    d: Define, permuted: Mapping[str, tuple[str, ...]], order: Mapping[str, tuple[str, ...]]
) -> Define:
    def rule(n: Expr) -> Expr | None:
        if isinstance(n, Read) and n.tensor in permuted:
            at = dict(zip(permuted[n.tensor], n.subs, strict=True))
            return dataclasses.replace(n, subs=tuple(at[i] for i in order[n.tensor]))
        return None

    where = None if d.where is None else rewrite(d.where, rule)
    return dataclasses.replace(d, expr=rewrite(d.expr, rule), where=where)


def _in_order(body: Sequence[Define]) -> tuple[Define, ...]:
    """Every definition after what it reads, otherwise as given."""
    made = {d.tensor: d for d in body}
    out: dict[str, Define] = {}

    def visit(d: Define) -> None:
        for n in sorted(_used(d)):
            if n in made and n not in out and n != d.tensor:
                visit(made[n])
        out.setdefault(d.tensor, d)

    for d in body:
        visit(d)
    return tuple(out.values())


def _legible(body: Sequence[Define], renamed: Mapping[str, str]) -> tuple[Define, ...]:
    """Folded weights take the name of the tensor they stand for, where that is not computed too."""
    taken = {d.tensor for d in body} | {n for d in body for n in _used(d)}
    names = {new: old for new, old in renamed.items() if old not in taken}

    def rule(n: Expr) -> Expr | None:
        if isinstance(n, Read) and n.tensor in names:
            return dataclasses.replace(n, tensor=names[n.tensor])
        return None

    return tuple(
        dataclasses.replace(d, tensor=names.get(d.tensor, d.tensor), expr=rewrite(d.expr, rule))
        for d in body
    )


def _apart(body: Sequence[Define], names: Names, seen: set[str]) -> tuple[Define, ...]:
    """Every reduction gets indices that occur nowhere else."""

    def rule(n: Expr) -> Expr | None:
        if not isinstance(n, Reduce):
            return None
        fresh = {i: names.index(i) for i in n.indices if i in seen}
        seen.update(fresh.get(i, i) for i in n.indices)
        return rename(n, fresh) if fresh else None

    seen |= {i for d in body for i in d.indices}
    return tuple(dataclasses.replace(d, expr=rewrite(d.expr, rule)) for d in body)


def _restored(cascade: Cascade, hoisted: Mapping[str, Expr], kept: frozenset[str]) -> Cascade:
    """Put back the inner reductions that were named and are not kept."""
    back = {n: e for n, e in hoisted.items() if n not in kept}

    def rule(n: Expr) -> Expr | None:
        if isinstance(n, Read) and n.tensor in back:
            return rewrite(back[n.tensor], rule)
        return None

    body = tuple(
        dataclasses.replace(d, expr=rewrite(d.expr, rule))
        for d in cascade.body
        if d.tensor not in back
    )
    return dataclasses.replace(cascade, body=body)


def _used(d: Define) -> frozenset[str]:
    parts = (d.expr, d.where, d.init)
    return frozenset(n for e in parts if e is not None for n in reads(e))
