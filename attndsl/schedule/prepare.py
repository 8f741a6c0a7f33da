"""The form of a cascade that kernels are cut from: explicit domains, named reductions, sums over everything by rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from attndsl.analysis.centred import centred
from attndsl.analysis.ranks import Kind, Ranks, classify
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Const,
    Define,
    Expr,
    Index,
    Read,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.types import time_axis
from attndsl.cascade.walk import free, reads, rename, rewrite
from attndsl.schedule.bounded import bound_terms
from attndsl.schedule.columns import split_columns
from attndsl.schedule.forms import factors, in_order, is_large, is_scatter, product_of
from attndsl.schedule.normal import normalize
from attndsl.schedule.restarts import Restart
from attndsl.schedule.roots import split_roots
from attndsl.schedule.rows import split_rows
from attndsl.schedule.scans import nested, one_way
from attndsl.schedule.scatter import Scattered, split_scatters
from attndsl.schedule.solved import solved_for_rows
from attndsl.schedule.tile import HostSum


@dataclass(frozen=True, slots=True)
class Prepared:
    """A cascade in the form that kernels are cut from."""

    cascade: Cascade
    ranks: Ranks
    host: list[HostSum]
    scattered: dict[str, Scattered]
    columns: frozenset[str]
    """Those of `scattered` that add up columns of a scan."""
    checkpoints: frozenset[str] = frozenset()
    """Scans down the rows, as they stand at the beginning of each block of rows."""
    blocks: tuple[tuple[str, str, int], ...] = ()
    """The ranks that number these blocks: `(name, of, width)`."""
    exact: frozenset[str] = frozenset()
    """Sums from operands that are not rounded."""
    restarted: Mapping[str, Restart] = field(default_factory=dict)
    """Running sums that begin anew, each with the one of the same body that has the row itself."""
    solved: bool = False
    """Whether sums into rows were solved for one of their positions."""


def prepare(
    cascade: Cascade,
    known: dict[str, Kind] | None = None,
    row_order: tuple[str, ...] = (),
    solve: bool = True,
) -> Prepared:
    """Make domains explicit, classify ranks, name the large reductions, cut sums over everything into rows."""
    cascade = _read_themselves(cascade)
    ranks = classify(cascade, known)
    c = _scaled_inside(explicit_domains(as_declared(cascade)), ranks)
    plain = c
    if solve:
        c = solved_for_rows(c, ranks)
    solved = c is not plain
    c = normalize(split_roots(c), ranks)
    order = row_order or tuple(
        dict.fromkeys(ranks.of.get(i, i) for o in c.outputs for i in o.indices)
    )
    rows = split_rows(c, ranks, order)
    c, ranks = rows.cascade, rows.ranks
    c = one_way(nested(c, ranks), ranks)
    c = centred(c, ranks)
    c = bound_terms(c, ranks)
    c, host = _rows_first(c, ranks, order)
    c, scattered = split_scatters(c, ranks, order)
    c, columns = split_columns(c, ranks)
    scattered |= columns
    if scattered:
        c = one_way(normalize(c, ranks), ranks)
    return Prepared(
        c, ranks, host, scattered, frozenset(columns), rows.before, rows.blocks, solved=solved
    )


def _read_themselves(c: Cascade) -> Cascade:
    """Sums that read themselves at earlier points, without the start that marks them: no earlier point, no term."""
    body = tuple(
        dataclasses.replace(d, init=None)
        if d.init == Const(0) and time_axis(d) is None and d.tensor in reads(d.expr)
        else d
        for d in c.body
    )
    return dataclasses.replace(c, body=body)


def _scaled_inside(c: Cascade, ranks: Ranks) -> Cascade:
    """Sums into tables of three ranks or more without a factor behind them: no map spans so many.

    rewrite:  dK[p,r,e] = sum[i,j : page[j // 4] == p and j % 4 == r](x) / s   ->   dK[p,r,e] = sum[…](x * (1 / s))
    requires: `s` is one number for all
    """

    def scaled(d: Define) -> Define:
        many = sum(ranks.kind(i) is not Kind.BATCH for i in d.indices) > 2
        match d.expr:
            case Binary("/", Reduce(Reduction.SUM) as e, s) if many and is_scatter(e, ranks):
                factor: Expr = Binary("/", Const(1.0), s)
            case Binary("*", Reduce(Reduction.SUM) as e, s) if many and is_scatter(e, ranks):
                factor = s
            case _:
                return d
        if free(s) or reads(s):
            return d
        return dataclasses.replace(d, expr=dataclasses.replace(e, body=Binary("*", e.body, factor)))

    body = tuple(scaled(d) for d in c.body)
    return c if body == c.body else dataclasses.replace(c, body=body)


def as_declared(c: Cascade) -> Cascade:
    """Outputs with their indices in the order of memory.

    rewrite:  O[b,h,i,f] = x, declared as O[b,i,h,f]   ->   O[b,i,h,f] = x, and reads of it accordingly
    """
    order = {
        o.name: tuple(c.define(o.name).indices.index(i) for i in o.indices)
        for o in c.outputs
        if c.define(o.name).indices != o.indices
    }
    if not order:
        return c

    def rule(e: Expr) -> Expr | None:
        if isinstance(e, Read) and e.tensor in order:
            return dataclasses.replace(e, subs=tuple(e.subs[k] for k in order[e.tensor]))
        return None

    body = []
    for d in c.body:
        expr = rewrite(d.expr, rule)
        where = None if d.where is None else rewrite(d.where, rule)
        indices = d.indices
        if d.tensor in order:
            indices = tuple(d.indices[k] for k in order[d.tensor])
        body.append(dataclasses.replace(d, indices=indices, expr=expr, where=where))
    return dataclasses.replace(c, body=tuple(body))


def _in_two_steps(
    d: Define, e: Reduce, ranks: Ranks, order: tuple[str, ...]
) -> tuple[Define, Define] | None:
    """A sum over two sequences of a matrix of features, one sequence after the other.

    rewrite:  dW[c,e] = sum[i,j](Q[i,c] * dS[i,j] * K[j,e])
              ->  dW.part[i,e] = sum[j](dS[i,j] * K[j,e]);  dW[c,e] = sum[i](Q[i,c] * dW.part[i,e])
    requires: the factors without `j` carry features of their own
    """
    seq = in_order(ranks.sequence(e.indices), ranks, order)
    if len(seq) != 2:
        return None
    for row, column in (seq, reversed(seq)):
        every = factors(e.body)
        outside = [f for f in every if column not in free(f)]
        inside = [f for f in every if column in free(f)]
        small = [
            frozenset(i for f in group for i in free(f) if ranks.kind(i) is Kind.FEATURE)
            for group in (outside, inside)
        ]
        where = conjuncts(e.where)
        if not all(small) or small[0] & small[1]:
            continue
        kept = tuple(
            i
            for i in dict.fromkeys((*e.indices, *d.indices))
            if ranks.kind(i) is Kind.BATCH or i == row or i in small[1]
        )
        first = conjunction(c for c in where if column in free(c))
        part = Define(
            f"{d.tensor}.part",
            kept,
            Reduce(e.op, (column,), product_of(inside), first),
            span=d.span,
        )
        rest = conjunction(c for c in where if column not in free(c))
        read = Read(part.tensor, tuple(Index(i) for i in kept))
        outer = Reduce(
            e.op,
            tuple(i for i in e.indices if i != column),
            product_of([*outside, read]),
            rest,
        )
        return part, dataclasses.replace(d, expr=outer)
    return None


def _rows_first(c: Cascade, ranks: Ranks, order: tuple[str, ...]) -> tuple[Cascade, list[HostSum]]:
    """Cut sums that keep no sequence rank into rows: a kernel makes one number a row, the framework adds them.

    rewrite:  g[h] = sum[b,i,j](x)   ->   g.rows[b,h,i] = sum[j](x);  g[h] = sum[b,i](g.rows[b,h,i])
    requires: the sum keeps no sequence rank; where it keeps features, it sums two sequence ranks

    Rows that are summed for something else already (a bias of queries gets the sum of their gradients) are those.
    """
    body: list[Define] = []
    host: list[HostSum] = []
    sums = [d for d in reversed(c.body) if d.init is None and is_large(d.expr, ranks)]
    known = {_as_numbered(d, ranks): d.tensor for d in sums}
    for d in c.body:
        e = d.expr
        if not isinstance(e, Reduce) or not is_large(e, ranks) or is_scatter(e, ranks):
            body.append(d)
            continue
        seq = ranks.sequence(e.indices)
        keeps = ranks.sequence(d.indices)
        features = [i for i in d.indices if ranks.kind(i) is Kind.FEATURE]
        if keeps or (len(seq) == 1 and features) or e.op is not Reduction.SUM:
            body.append(d)
            continue
        nested = _in_two_steps(d, e, ranks, order) if len(features) > 1 else None
        if nested is not None:
            body += nested
            continue
        rows = in_order(seq, ranks, order)[:1]
        batch = tuple(i for i in e.indices if ranks.kind(i) is Kind.BATCH)
        # Features last, in the order of the sum itself: the framework only adds axes up.
        first = d.indices.index(features[0]) if features else len(d.indices)
        kept = (*batch, *d.indices[:first], *rows, *d.indices[first:])
        rest = tuple(i for i in seq if i not in rows)
        part = f"{d.tensor}.rows"
        expr: Expr = Reduce(e.op, rest, e.body, e.where) if rest else e.body
        domain = None if rest else e.where
        if domain is not None:
            expr = Select(domain, expr, Const(0.0))
        made = Define(part, kept, expr, span=d.span)
        same = known.get(_as_numbered(made, ranks))
        if same is None:
            body.append(made)
        else:
            part = same
        axes = tuple(k for k, i in enumerate(kept) if i not in d.indices)
        host.append(HostSum(d.tensor, part, axes))
        summed = Reduce(
            e.op,
            tuple(i for i in kept if i not in d.indices),
            Read(part, tuple(Index(i) for i in kept)),
        )
        body.append(dataclasses.replace(d, expr=summed))
    return dataclasses.replace(c, body=tuple(body)), host


def _as_numbered(d: Define, ranks: Ranks) -> tuple[object, ...]:
    """A definition with its indices by number: two that define the same are equal."""
    over = d.expr.indices if isinstance(d.expr, Reduce) else ()
    every = {*d.indices, *over}
    rank = {i: ranks.of.get(i, i) for i in every}
    names = {i: f"%{rank[i]}.{k}" for k, i in enumerate(d.indices)}
    names |= {i: f"%{rank[i]}:{k}" for k, i in enumerate(over)}
    return (
        tuple(names[i] for i in d.indices),
        rename(d.expr, names),
        None if d.where is None else rename(d.where, names),
    )
