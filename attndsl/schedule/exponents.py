"""Scales of scores folded into the base of the exponential, where the scaled score serves for nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from attndsl.cascade.nodes import Binary, Call, Const, Expr
from attndsl.cascade.walk import rewrite
from attndsl.schedule import tile as t
from attndsl.schedule.pointwise import LOG2E
from attndsl.schedule.tile import Val


def fold_scales(body: tuple[t.Stmt, ...], scalars: Collection[str]) -> tuple[t.Stmt, ...]:
    """One multiplication less for every score.

    rewrite:  s = u * c;  p = exp2(s * log2e - m)   ->   p = exp2(u * (c * log2e) - m)
    requires: `c` is a scalar (`scalars` names those computed before the sweep). `s` goes when nothing reads it.
    source:   FlashAttention-2, section 3.1 (log2e folded into the softmax scale)
    """
    scaled: dict[str, tuple[Val, Val]] = {}

    def rule(e: Expr) -> Expr | None:
        match e:
            case Call("exp2", (Binary("-", Binary("*", Val(s), Const(v)), m),)) if (
                s in scaled and v == LOG2E
            ):
                u, c = scaled[s]
                return Call("exp2", (Binary("-", Binary("*", u, Binary("*", c, Const(v))), m),))
            case _:
                return None

    out: list[t.Stmt] = []
    for s in body:
        if isinstance(s, t.Compute):
            match s.expr:
                case Binary("*", Val() as u, Val() as c) if c.name in scalars:
                    scaled[s.name] = (u, c)
            s = dataclasses.replace(s, expr=rewrite(s.expr, rule))
        out.append(s)
    return tuple(out)
