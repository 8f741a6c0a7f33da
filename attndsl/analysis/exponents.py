"""Which tensors stand in exponents: an absolute error there is a relative one of everything that they scale.

    C[j,e] = sum[l : l <= j](loga[l,e]);   A[i,j] = sum[e](Q[i,e] * K[j,e] * exp(C[i,e] - C[j,e]))   ->   {C}

A running sum of gates grows with the position, and what is left of it in a 16-bit type says nothing of differences.
"""

from __future__ import annotations

from collections.abc import Iterator

from attndsl.cascade.nodes import Binary, Call, Cascade, Expr, Read, Reduce
from attndsl.cascade.walk import children, walk


def in_exponents(cascade: Cascade) -> frozenset[str]:
    """The tensors that exponents are sums, products or functions of; not those that they contract."""
    defs = {d.tensor: d.expr for d in cascade.body}
    found: set[str] = set()

    def visit(e: Expr) -> None:
        for name in _named(e):
            if name not in found:
                found.add(name)
                if name in defs:
                    visit(defs[name])

    for d in cascade.body:
        for n in walk(d.expr):
            match n:
                case Call("exp" | "exp2", (power,)) | Binary("**", _, power):
                    visit(power)
    return frozenset(found)


def _named(e: Expr) -> Iterator[str]:
    if isinstance(e, Reduce):
        return
    if isinstance(e, Read):
        yield e.tensor
        return
    for c in children(e):
        yield from _named(c)
