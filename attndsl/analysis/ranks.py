"""What each rank of a cascade is for: batch, sequence or feature.

A *sequence* rank is tiled or streamed (queries, keys); a *feature* rank lives whole inside one tile (head dims,
low-rank factors); a *batch* rank is a point of the launch grid. The cascade does not say; the evidence, strongest
first:

1. batch: declared so, or an axis indexed by batch indices alone (`h // G`); and the number of a block of positions,
   a rank that the program declares, met as `j // w == n` alone;
2. sequence: it is compared in a domain, or reduced by `max`, `min`, `prod`, `any`, `all`;
3. where it stands in the inputs: features stand last;
4. at a tie: a rank reduced over a nonlinear function of an inner reduction is a sequence;
5. a rank that only parameters have (inputs that lack a batch index of others) is a feature;
6. a rank that is only summed, always inside a reduction over another rank, is a feature (a projection's inner axis);
7. ranks that walk the same axis of an input are of one kind, and where nothing above was said of them, so are those
   that walk parts of it (`Q[i, 2*d]` and `Q[i, 2*d + 1]` of features `e`).

Where a program has no schedule under this reading, `schedule.roles` tries others.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
    TensorDecl,
)
from attndsl.cascade.walk import children, free, walk


class Kind(StrEnum):
    BATCH = "batch"
    SEQUENCE = "sequence"
    FEATURE = "feature"


@dataclass(frozen=True, slots=True)
class Ranks:
    """`kinds` of declared ranks; `of` maps every index, bound ones included, to its declared rank."""

    kinds: dict[str, Kind]
    of: dict[str, str] = field(default_factory=dict)

    def kind(self, index: str) -> Kind:
        return self.kinds[self.of.get(index, index)]

    def sequence(self, indices: tuple[str, ...] | frozenset[str]) -> tuple[str, ...]:
        """Those of `indices` that are sequence ranks, in order."""
        return tuple(i for i in indices if self.kind(i) is Kind.SEQUENCE)


def declared_rank(cascade: Cascade) -> dict[str, str]:
    """Index -> the declared rank it walks over."""
    iterates = {r.name: r.iterates for r in cascade.ranks}

    def root(name: str) -> str:
        up = iterates.get(name)
        return name if up is None else root(up)

    of = {n: root(n) for n in iterates}
    derived: dict[Expr, str] = {}  # `h // G` of K and of V is one rank
    for t in cascade.inputs:
        for d, r in zip(t.dims, t.ranks, strict=True):
            of[r] = root(r) if isinstance(d, Index) else derived.setdefault(d, r)
    return of


def lengths(cascade: Cascade, of: dict[str, str]) -> dict[str, str]:
    """A name for the extent of every declared rank: ranks at which one tensor is read, `C[i]` and `C[j]`, share it."""
    axes = {t.name: t.ranks for t in cascade.inputs} | {d.tensor: d.indices for d in cascade.body}
    out = {r: r for r in of.values()}
    for d in cascade.body:
        for n in (n for e in (d.expr, d.where) if e is not None for n in walk(e)):
            if not isinstance(n, Read):
                continue
            for s, r in zip(n.subs, axes.get(n.tensor, ()), strict=False):
                if isinstance(s, Index):
                    a, b = out[of.get(s.name, s.name)], out[of.get(r, r)]
                    if a != b:
                        out = {k: a if v == b else v for k, v in out.items()}
    return out


def classify(cascade: Cascade, known: dict[str, Kind] | None = None) -> Ranks:
    """The kind of every rank; `known` settles some beforehand (those of the forward pass, for the backward)."""
    of = declared_rank(cascade)
    kinds: dict[str, Kind] = dict.fromkeys(cascade.batch, Kind.BATCH)
    kinds.update(known or {})
    _derived_batch(cascade, kinds)
    for r in block_numbers(cascade, of):
        kinds.setdefault(r, Kind.BATCH)
    compared = {of.get(i, i) for i in _compared(cascade)}
    last: dict[str, int] = {}
    for t in cascade.inputs:
        data = _data_ranks(t, cascade, kinds)
        for k, r in enumerate(data):
            if len(data) > 1:  # a vector says nothing: a gain of features, or a bias of keys
                last[r] = last.get(r, 0) + (1 if k == len(data) - 1 else -1)
    nonlinear = {of.get(i, i) for i in _nonlinear(cascade)}
    kept = {of.get(i, i) for o in cascade.outputs for i in o.indices}
    inner = (_inner(cascade, of) - compared - kept) | (
        _weights_only(cascade, of, kinds) - compared - nonlinear
    )
    for rank in sorted(set(of.values())):
        if rank in kinds:
            continue
        if rank in compared:
            kinds[rank] = Kind.SEQUENCE
        elif (votes := last.get(rank, 0)) != 0:
            kinds[rank] = Kind.FEATURE if votes > 0 or rank in inner else Kind.SEQUENCE
        else:
            open_ = rank in nonlinear or (rank not in last and rank not in inner)
            kinds[rank] = Kind.SEQUENCE if open_ else Kind.FEATURE
    said = compared | nonlinear | last.keys() | (known or {}).keys()
    for group in _parts_of_features(cascade, of, kinds):
        if not group & said:
            kinds |= dict.fromkeys(group, Kind.FEATURE)
    for group in alike(cascade, of):
        if any(kinds.get(r) is Kind.SEQUENCE for r in group):
            for r in group - (known or {}).keys():
                if kinds.get(r) is Kind.FEATURE:
                    kinds[r] = Kind.SEQUENCE
    return Ranks(kinds, of)


def alike(cascade: Cascade, of: dict[str, str]) -> list[set[str]]:
    """Ranks that walk the same axis of a tensor (`K[j,e]`, read at `K[k,e]`): of one extent, so of one kind."""
    groups: list[set[str]] = []
    ranks = {t.name: t.ranks for t in cascade.inputs}
    ranks |= {d.tensor: d.indices for d in cascade.body}
    for e in _expressions(cascade):
        for n in walk(e):
            if not isinstance(n, Read) or n.tensor not in ranks:
                continue
            for s, r in zip(n.subs, ranks[n.tensor], strict=True):
                pair = {of.get(r, r)}
                if isinstance(s, Index):
                    pair.add(of.get(s.name, s.name))
                met = [g for g in groups if g & pair]
                groups = [g for g in groups if not g & pair]
                groups.append(pair.union(*met))
    return [g for g in groups if len(g) > 1]


def _parts_of_features(
    cascade: Cascade, of: dict[str, str], kinds: dict[str, Kind]
) -> list[set[str]]:
    """Ranks, with those alike, of which every read that computes with one walks an axis of features."""
    ranks = {t.name: t.ranks for t in cascade.inputs}
    ranks |= {d.tensor: d.indices for d in cascade.body}
    walked: dict[str, set[Kind | None]] = {}
    for e in _expressions(cascade):
        for n in walk(e):
            if not isinstance(n, Read) or n.tensor not in ranks:
                continue
            for s, axis in zip(n.subs, ranks[n.tensor], strict=True):
                if not isinstance(s, Index):
                    for i in free(s):
                        walked.setdefault(of.get(i, i), set()).add(kinds.get(of.get(axis, axis)))
    parts = {r for r, over in walked.items() if over == {Kind.FEATURE}}
    groups = alike(cascade, of)
    alone = [{r} for r in parts if not any(r in g for g in groups)]
    return [g for g in groups if g & parts] + alone


def never_features(cascade: Cascade, ranks: Ranks) -> frozenset[str]:
    """Ranks that may be of any length, however a program is read.

    Those of `positions`, and those of a pair that a nonlinear function takes apart (queries and keys under `exp`),
    unless they stand last in every input as features do, or in parameters alone.
    """
    of = ranks.of
    long = positions(cascade, ranks)
    long |= {of.get(i, i) for i in _nonlinear(cascade)} - small(cascade, ranks)
    for group in alike(cascade, of):
        if group & long:
            long |= group
    return frozenset(long)


def positions(cascade: Cascade, ranks: Ranks) -> set[str]:
    """Ranks whose positions meet another's in a comparison or a sum, or that are compared or maximised over."""
    of = ranks.of
    met: set[str] = set()
    for e in _expressions(cascade):
        for n in walk(e):
            if isinstance(n, Compare) or (isinstance(n, Binary) and n.op in ("+", "-")):
                alone = {p.name for p in walk(n) if isinstance(p, Position)}
                if len(alone) > 1:
                    met |= {of.get(p, p) for p in alone}
    return met | ({of.get(i, i) for i in _compared(cascade)} - small(cascade, ranks))


def small(cascade: Cascade, ranks: Ranks) -> frozenset[str]:
    """Ranks that stand last in every input, or in parameters alone."""
    aside = bystanders(cascade, ranks)
    declared: dict[str, Kind] = dict.fromkeys((*cascade.batch, *aside), Kind.BATCH)
    _derived_batch(cascade, declared)
    return always_last(cascade, ranks) | _weights_only(cascade, ranks.of, declared, aside)


def always_last(cascade: Cascade, ranks: Ranks) -> frozenset[str]:
    """Ranks that stand last in every input that has others beside them, as features do."""
    last: dict[str, bool] = {}
    for t in cascade.inputs:
        data = _data_ranks(t, cascade, ranks.kinds)
        for r in data if len(data) > 1 else ():
            rank = ranks.of.get(r, r)
            last[rank] = last.get(rank, True) and r == data[-1]
    return frozenset(r for r, always in last.items() if always)


def bystanders(cascade: Cascade, ranks: Ranks) -> frozenset[str]:
    """Ranks that nobody declared as batch, and that could be: every input with features has the rank, every output
    keeps it, nothing reduces it, computes with its position, or reads it at another's index.
    """
    of = ranks.of
    busy: set[str] = set()
    axes = {t.name: t.ranks for t in cascade.inputs} | {d.tensor: d.indices for d in cascade.body}
    for d in cascade.body:
        for e in (d.expr, d.where):
            for n in walk(e) if e is not None else ():
                match n:
                    case Reduce():
                        busy |= {of.get(i, i) for i in n.indices}
                    case Position(i):
                        busy.add(of.get(i, i))
                    case Read():
                        for s, r in zip(n.subs, axes.get(n.tensor, ()), strict=False):
                            if not (
                                isinstance(s, Index) and of.get(s.name, s.name) == of.get(r, r)
                            ):
                                busy |= {of.get(i, i) for i in (*free(s), r)}
                    case _:
                        pass
    declared = {of.get(b, b) for b in cascade.batch}
    out = {r for r, k in ranks.kinds.items() if k is not Kind.FEATURE} - declared - busy
    for t in cascade.inputs:
        here = {of.get(r, r) for r in t.ranks}
        if any(ranks.kinds[r] is Kind.FEATURE for r in here) and len(here) > 1:
            out &= here
    for o in cascade.outputs:
        out &= {of.get(i, i) for i in o.indices}
    return frozenset(out)


def undeclared_batch(cascade: Cascade, ranks: Ranks) -> frozenset[str]:
    """Ranks walked as a batch that are neither declared so nor made of those that are (`h // G`)."""
    known: dict[str, Kind] = {ranks.of.get(b, b): Kind.BATCH for b in cascade.batch}
    known |= dict.fromkeys(block_numbers(cascade, ranks.of), Kind.BATCH)
    _derived_batch(cascade, known)
    return frozenset(r for r, k in ranks.kinds.items() if k is Kind.BATCH) - known.keys()


def before_sequences(cascade: Cascade, ranks: Ranks) -> frozenset[str]:
    """Ranks as heads are: before a sequence and its features in an input, never in a sequence's place nor compared.

    There are few of them, though nobody declared them as `batch`: they are maximised over, or mixed.
    """
    before: set[str] = set()
    others: set[str] = set()
    for t in cascade.inputs:
        data = [ranks.of.get(r, r) for r in _data_ranks(t, cascade, {})]
        if len(data) == 1:
            others |= {*data}
        elif len(data) > 1 and ranks.kinds.get(data[-1]) is Kind.FEATURE:
            others.add(data[-2])
            if ranks.kinds.get(data[-2]) is Kind.SEQUENCE:
                before |= {*data[:-2]}
    compared = {
        ranks.of.get(x.name, x.name)
        for e in _expressions(cascade)
        for n in walk(e)
        if isinstance(n, Compare)
        for x in walk(n)
        if isinstance(x, Position)
    }
    return frozenset(before - others - compared)


def block_numbers(cascade: Cascade, of: dict[str, str]) -> frozenset[str]:
    """Ranks that number blocks of positions: declared by the program, and compared with `j // w`."""
    own = {r.name for r in cascade.ranks if r.extent is not None}
    met: set[str] = set()
    for e in _expressions(cascade):
        for n in walk(e):
            match n:
                case Compare("==", Binary("//", Position(), _), Position(r)):
                    met.add(of.get(r, r))
    return frozenset(met & own)


def _derived_batch(cascade: Cascade, kinds: dict[str, Kind]) -> None:
    for t in cascade.inputs:
        for d, r in zip(t.dims, t.ranks, strict=True):
            if not isinstance(d, Index) and free(d) <= set(cascade.batch):
                kinds.setdefault(r, Kind.BATCH)


def _expressions(cascade: Cascade) -> list[Expr]:
    return [e for d in cascade.body for e in (d.expr, d.where) if e is not None]


def _compared(cascade: Cascade) -> set[str]:
    """Indices in the conditions of domains and filters, and those reduced by something other than a sum."""
    out: set[str] = set()
    for d in cascade.body:
        if d.where is not None:
            out |= free(d.where)
        for n in walk(d.expr):
            if isinstance(n, Reduce):
                if n.op is not Reduction.SUM:
                    out |= set(n.indices)
                if n.where is not None:
                    out |= {i for i in free(n.where) if not _scatter_only(n.where, i)}
    return out


def _scatter_only(where: Expr, index: str) -> bool:
    """`index` occurs only as the lone right side of an equality: the target of a gathered read's gradient."""
    lone = sum(
        1
        for n in walk(where)
        if isinstance(n, Compare) and n.op == "==" and n.right == Position(index)
    )
    return lone == sum(1 for n in walk(where) if n in (Position(index), Index(index)))


def _data_ranks(t: TensorDecl, cascade: Cascade, kinds: dict[str, Kind]) -> list[str]:
    """The ranks of an input that are no batch, in memory order."""
    return [
        r
        for d, r in zip(t.dims, t.ranks, strict=True)
        if not (isinstance(d, Index) and d.name in cascade.batch) and kinds.get(r) is not Kind.BATCH
    ]


def _weights_only(
    cascade: Cascade,
    of: dict[str, str],
    kinds: dict[str, Kind],
    aside: Collection[str] = (),
) -> set[str]:
    """Ranks that only parameters have: inputs without a batch index (or one of `aside`) that other inputs have."""
    used = {
        of.get(s.name, s.name)
        for e in _expressions(cascade)
        for n in walk(e)
        if isinstance(n, Read)
        for s in n.subs
        if isinstance(s, Index)
    }
    batch = {
        t.name: {i for d in t.dims for i in free(d)} & {*cascade.batch, *aside}
        for t in cascade.inputs
    }
    every = set().union(*batch.values()) if batch else set()
    shared = {
        r for t in cascade.inputs if batch[t.name] == every for r in _data_ranks(t, cascade, kinds)
    }
    alone = {r for t in cascade.inputs for r in _data_ranks(t, cascade, kinds)} - shared
    return alone & used


def _inner(cascade: Cascade, of: dict[str, str]) -> set[str]:
    """Ranks whose every sum is read inside a reduction over another rank."""
    defs = {d.tensor: d for d in cascade.body}
    users: dict[str, set[str]] = {}  # tensor -> ranks of the reductions that its value is read in

    def visit(e: Expr, around: frozenset[str], found: dict[str, list[frozenset[str]]]) -> None:
        match e:
            case Reduce():
                for i in e.indices:
                    found.setdefault(of.get(i, i), []).append(around)
                inside = around | {of.get(i, i) for i in e.indices}
                visit(e.body, inside, found)
            case _:
                if isinstance(e, Read) and e.tensor in defs:
                    users.setdefault(e.tensor, set()).update(around)
                for c in children(e):
                    visit(c, around, found)

    found: dict[str, list[frozenset[str]]] = {}
    for d in reversed(cascade.body):
        visit(d.expr, frozenset(users.get(d.tensor, set())), found)
    return {r for r, places in found.items() if all(p - {r} for p in places)}


_LINEAR = frozenset({"+", "-", "*", "/"})


def _nonlinear(cascade: Cascade) -> set[str]:
    """Free indices of a nonlinear function's argument that contains a reduction, defined tensors included."""
    carries: set[str] = set()
    out: set[str] = set()
    for d in cascade.body:
        for n in walk(d.expr):
            if isinstance(n, Call) or (isinstance(n, Binary) and n.op not in _LINEAR):
                inner = any(
                    isinstance(m, Reduce) or (isinstance(m, Read) and m.tensor in carries)
                    for m in walk(n)
                )
                if inner:
                    out |= free(n)
        if any(
            isinstance(m, Reduce) or (isinstance(m, Read) and m.tensor in carries)
            for m in walk(d.expr)
        ):
            carries.add(d.tensor)
    return out
