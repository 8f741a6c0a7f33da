"""Scans along the stream: sums over the keys before or behind each key of a row.

before:  L[i,j] = sum[l : j < l, l < i](g(i,l))
in a sweep over j, from the last tile to the first:
         L = behind + (what follows inside the tile);   behind = behind + sum[j](g)

A sweep has one direction. A scan that runs against it is the row's sum less its complement:

rewrite:  X[i,j] = sum[l : l < j](x(i,l))   ->   X[i,j] = X.all[i] - sum[l : j <= l](x(i,l))

The first scan of a program decides: its values feed exponentials, where a difference of long sums would lose digits.
"""

from __future__ import annotations

import dataclasses

from attndsl.analysis.ranks import Ranks
from attndsl.analysis.scans import Scan, scan_of
from attndsl.cascade.conditions import conjunction, conjuncts
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Index,
    Position,
    Read,
    Reduce,
    Reduction,
    Select,
)
from attndsl.cascade.walk import free, reads, substitute
from attndsl.schedule import tile as t
from attndsl.schedule.corrections import correction, pivots_of
from attndsl.schedule.forms import factors, inline, product_of
from attndsl.schedule.kernel import Kernel
from attndsl.schedule.masks import masked
from attndsl.schedule.outcomes import Refused
from attndsl.schedule.products import fold
from attndsl.schedule.tile import Val
from attndsl.schedule.values import CHOICE, RUNNING, STREAMED, State, X


def nested(c: Cascade, ranks: Ranks) -> Cascade:
    """A sum over ordered pairs of one sequence, as a sum of a scan.

    rewrite:  sum[l,m : l < m](a[m] * b[l])   ->   sum[m](a[m] * X[m]),  X[m] = sum[l : l < m](b[l])
    requires: the terms are products of functions of one of the two each
    """
    body: list[Define] = []
    for d in c.body:
        body += _nested(d, ranks)
    return dataclasses.replace(c, body=tuple(body))


def _nested(d: Define, ranks: Ranks) -> list[Define]:
    e = d.expr
    if not isinstance(e, Reduce) or e.op is not Reduction.SUM or len(e.indices) != 2:
        return [d]
    if len({ranks.of.get(i, i) for i in ranks.sequence(e.indices)}) != 1:
        return [d]
    for inner, outer in (e.indices, e.indices[::-1]):
        mine = [f for f in factors(e.body) if inner in free(f)]
        rest = [f for f in factors(e.body) if inner not in free(f)]
        parts = conjuncts(e.where)
        within = [c for c in parts if inner in free(c)]
        if any(outer in free(f) for f in mine) or not mine or not rest:
            continue
        scan = f"{d.tensor}.pairs"
        have = free(product_of(mine)).union(*(free(c) for c in within)) - {inner}
        kept = tuple(i for i in (*d.indices, outer) if i in have)
        made = Define(
            scan,
            kept,
            Reduce(Reduction.SUM, (inner,), product_of(mine), conjunction(within)),
            span=d.span,
        )
        if scan_of(made, ranks) is None:
            continue
        term = product_of([*rest, Read(scan, tuple(map(Index, kept)))])
        where = conjunction(c for c in parts if inner not in free(c))
        return [made, dataclasses.replace(d, expr=Reduce(e.op, (outer,), term, where))]
    return [d]


def one_way(c: Cascade, ranks: Ranks) -> Cascade:
    """Turn the scans that run against the first one of their sequence around."""
    ways: dict[str, bool] = {}
    defs = {d.tensor: d for d in c.body}
    body: list[Define] = []
    for d in c.body:
        if scan_of(d, ranks) is not None:
            d = _narrowed(d, defs)
        s = scan_of(d, ranks)
        if s is None or ways.setdefault(ranks.of.get(s.kept, s.kept), s.down) == s.down:
            body.append(d)
            continue
        e = d.expr
        assert isinstance(e, Reduce)
        kept = tuple(i for i in d.indices if i != s.kept)
        whole = f"{d.tensor}.all"
        body.append(Define(whole, kept, dataclasses.replace(e, where=s.rest), span=d.span))
        op = ("<" if s.own else "<=") if not s.down else (">" if s.own else ">=")
        around = Compare(op, Position(s.kept), Position(s.over))
        other = f"{d.tensor}.rest"
        where = conjunction((*conjuncts(s.rest), around))
        body.append(dataclasses.replace(d, tensor=other, expr=dataclasses.replace(e, where=where)))
        parts = (Read(whole, tuple(map(Index, kept))), Read(other, tuple(map(Index, d.indices))))
        expr: Expr = Binary("-", *parts)
        if s.apart is not None:
            expr = Select(s.apart, expr, Const(0.0))
        body.append(dataclasses.replace(d, expr=expr))
    return dataclasses.replace(c, body=tuple(body))


def _narrowed(d: Define, defs: dict[str, Define]) -> Define:
    """A condition of the terms as one of the sum, so that a sweep need not visit what it excludes.

    rewrite:  sum[l : l < j](y[i,l]) with y[i,l] = x if l < i else 0   ->   sum[l : l < j, l < i](x)
    """
    e = d.expr
    assert isinstance(e, Reduce)
    inner = e.body
    if isinstance(inner, Read) and inner.tensor in defs:
        inner = inline(defs[inner.tensor], inner.subs)
    match inner:
        case Select(cond, x, Const(0)):
            where = conjunction((*conjuncts(e.where), *conjuncts(cond)))
            return dataclasses.replace(d, expr=dataclasses.replace(e, body=x, where=where))
        case _:
            return d


def scanned(c: Cascade, ranks: Ranks) -> dict[str, str]:
    """Tensors that hold a scan, not through a sum over its sequence, with the rank it runs along."""
    out: dict[str, str] = {}
    for d in c.body:
        s = scan_of(d, ranks)
        if s is not None:
            out[d.tensor] = ranks.of.get(s.kept, s.kept)
            continue
        over = {ranks.of.get(i, i) for i in d.expr.indices} if isinstance(d.expr, Reduce) else set()
        for r in sorted(reads(d.expr)):
            if r in out and out[r] not in over:
                out[d.tensor] = out[r]
    return out


def scan_value(kernel: Kernel, d: Define, s: Scan, subs: tuple[Expr, ...]) -> X:
    """The scan at every point of the stream's tile: what other tiles have left, and the tile's own part."""
    key = ("scan", d.tensor, subs)
    if key in kernel.memo:
        return kernel.memo[key]
    at = dict(zip(d.indices, subs, strict=True))
    stream = kernel.stream
    assert stream is not None
    if kernel.descends is not None and kernel.descends != s.down:
        raise Refused("A0404", f"`{d.tensor}` runs against another scan along `{s.kept}`", d.span)
    if kernel.loop_body:
        raise Refused("A0404", f"`{d.tensor}` is a scan inside a loop", d.span)
    kernel.descends = s.down
    here: dict[str, Expr] = {**at, s.over: Position(stream)}
    body = substitute(s.body, here)
    rest = None if s.rest is None else substitute(s.rest, here)
    x = kernel.eval(body, False, d.tensor)
    v = masked(kernel, x, rest, 0.0, d.tensor + "_s", always=True)
    dims = kernel.dims_of_value(v)
    if len(dims) > 2:
        raise Refused("A0404", f"`{d.tensor}` is a scan of a value of three ranks", d.span)
    rows = kernel.order(dims - {stream})
    fresh = kernel.names.fresh
    carried, run, out = fresh(d.tensor), fresh(d.tensor + "_run"), fresh(d.tensor + "_at")
    kernel.prologue.append(t.Declare(carried, rows, DType.FLOAT, Const(0.0)))
    order = kernel.order(dims)
    # What other tiles have left was made where the running values stood then.
    assert isinstance(d.expr, Reduce)
    left: Expr = Val(carried)
    pivots = pivots_of(kernel, *([body] if rest is None else [body, rest]))
    alpha = correction(kernel, State(carried, d.expr, rows), d, pivots)
    if alpha is not None:
        left = Binary("*", left, kernel.bind(alpha, "alpha").expr)
    kernel.sweep.append(t.Scan(run, order, v, stream, s.down))
    here_ = Binary("+", left, Val(run))
    value: Expr = here_ if s.own else Binary("-", here_, Val(v))
    kernel.sweep.append(t.Compute(out, order, DType.FLOAT, value))
    found = X(Val(out), dims, frozenset({STREAMED, RUNNING}))
    kernel.made[out] = found
    if s.apart is not None:
        cond = kernel.eval(substitute(s.apart, here), False, "keep")
        parts = [cond, found, X(Const(0.0))]
        found = kernel.bind(kernel.combine(CHOICE, parts, DType.FLOAT, d.tensor), d.tensor)
    tile = X(Val(v), dims, frozenset({STREAMED}))
    total = fold(kernel, Reduction.SUM, v, tile, stream, d.tensor + "_tile")
    kernel.commits.append(t.Assign(carried, Binary("+", left, total.expr)))
    kernel.domains.append(rest)
    kernel.memo[key] = found
    return kernel.memo[key]
